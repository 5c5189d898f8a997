//! The embedded broker: durable logs in the host's own store, for whoever has no server, and between consumers of one host.
//!
//! A stream is a log of its own, read by any number of consumers, each with a cursor. Nothing here is given again while a
//! host lives, unless it is handed back; after a crash everything comes again from the lowest unsettled message on.

mod flight;
mod publisher;
mod source;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::future::BoxFuture;

use super::{Broker, Error, Promises, Publisher, Receipt, Settle, Settlement, Subscribed, Subscription};
use crate::clock::Clock;
use crate::plan::{self, Name};
use crate::store::{self, Store};
use flight::Flight;
use publisher::LogPublisher;
use source::LogSource;

/// The largest message that a log takes, in bytes: what fills a batch of the store by itself.
const SIZE_MAX: usize = 8 * 1024 * 1024;

/// The logs of one store. Share the `Arc`; any number may be open on one store.
struct Embedded {
    name: Name,
    store: Arc<Store>,
    clock: Clock,
    /// Streams and consumers that are being read: a cursor has one reader.
    reading: Arc<Mutex<BTreeSet<(Name, Name)>>>,
}

/// Opens the logs of a store as the broker of this name in the config.
#[must_use]
pub fn open(store: Arc<Store>, plan: &plan::Broker, clock: Clock) -> Arc<dyn Broker> {
    Arc::new(Embedded {
        name: plan.name.clone(),
        store,
        clock,
        reading: Arc::default(),
    })
}

impl Embedded {
    fn misconfigured(&self, reason: String) -> Error {
        Error::Misconfigured {
            broker: self.name.clone(),
            reason,
        }
    }

    fn expect_log(&self, stream: &plan::Stream) -> Result<(), Error> {
        match stream.place {
            plan::Place::Log(_) => Ok(()),
            _ => Err(self.misconfigured(format!(
                "stream {} is no embedded log: name another broker for it",
                stream.name
            ))),
        }
    }

    async fn open_source(&self, subscription: Subscription) -> Result<Subscribed, Error> {
        let Subscription { consumer, stream, room } = subscription;
        self.expect_log(&stream)?;
        let Some(reading) = Reading::begin(&self.reading, &stream.name, &consumer) else {
            return Err(self.misconfigured(format!("consumer {consumer} reads stream {} already", stream.name)));
        };
        let unreachable = |error| unreachable(&self.name, &error);
        let from = self
            .store
            .start_cursor(&stream.name, &consumer)
            .await
            .map_err(unreachable)?;
        let tail = self.store.tail(&stream.name).map_err(unreachable)?;
        let flight = Arc::new(Flight::new(from));
        let settle = LogSettle {
            store: self.store.clone(),
            stream: stream.name.clone(),
            consumer,
            flight: flight.clone(),
        };
        let source = LogSource::new(self, stream.name.clone(), room, flight, tail, reading);
        Ok(Subscribed {
            source: Box::new(source),
            settle: Arc::new(settle),
            promises: Promises { goes_back: true },
        })
    }
}

impl Broker for Embedded {
    fn subscribe(&self, subscription: Subscription) -> BoxFuture<'_, Result<Subscribed, Error>> {
        Box::pin(self.open_source(subscription))
    }

    fn publisher(&self, stream: Arc<plan::Stream>) -> BoxFuture<'_, Result<Arc<dyn Publisher>, Error>> {
        let publisher = self.expect_log(&stream).map(|()| {
            let store = self.store.clone();
            let publisher = LogPublisher::new(self.name.clone(), store, stream.name.clone());
            Arc::new(publisher) as Arc<dyn Publisher>
        });
        Box::pin(std::future::ready(publisher))
    }

    fn check(&self) -> BoxFuture<'_, Result<(), Error>> {
        let answer = self.store.read(|_| Ok(()));
        let answer = answer.map_err(|error| unreachable(&self.name, &error));
        Box::pin(std::future::ready(answer))
    }
}

/// A log is being read by a consumer, until this is dropped.
struct Reading {
    reading: Arc<Mutex<BTreeSet<(Name, Name)>>>,
    key: (Name, Name),
}

impl Reading {
    fn begin(reading: &Arc<Mutex<BTreeSet<(Name, Name)>>>, stream: &Name, consumer: &Name) -> Option<Self> {
        let key = (stream.clone(), consumer.clone());
        let mut keys = reading.lock().unwrap_or_else(PoisonError::into_inner);
        keys.insert(key.clone()).then(|| Self {
            reading: reading.clone(),
            key,
        })
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        let mut keys = self.reading.lock().unwrap_or_else(PoisonError::into_inner);
        keys.remove(&self.key);
    }
}

/// The half that settles: in memory, and now and then in the store.
struct LogSettle {
    store: Arc<Store>,
    stream: Name,
    consumer: Name,
    flight: Arc<Flight>,
}

impl Settle for LogSettle {
    fn settle(&self, settled: Vec<(Receipt, Settlement)>) -> BoxFuture<'_, Result<(), Error>> {
        let done = settled
            .iter()
            .filter(|(_, settlement)| *settlement == Settlement::Done)
            .count() as u64;
        let lowest = self.flight.settle(settled);
        self.store.advance_cursor(&self.stream, &self.consumer, lowest, done);
        Box::pin(std::future::ready(Ok(())))
    }
}

/// Every trouble of the store is one that passes, as far as a broker's callers can tell: they hold and ask again.
fn unreachable(broker: &Name, error: &store::Error) -> Error {
    Error::Unreachable {
        broker: broker.clone(),
        reason: error.to_string(),
        retry_after: None,
    }
}
