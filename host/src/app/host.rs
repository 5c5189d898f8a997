//! A running host as its doors see it: what there is, how it fares, and the few things that can be asked of it.

mod reopening;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use serde::Serialize;
use tokio::sync::broadcast;

use self::reopening::Reopening;
use super::dead_letters::{self, Done, Which};
use crate::broker::{self, Broker, Outgoing, Publisher};
use crate::event::Event;
use crate::event::codec;
use crate::ledger::{
    self, DeadFilter, DeadId, DeadLetter, DeadLetters, DeadPlace, Ledger, PayloadHash, RecordKey, StateBucket,
    StateKey, Trouble,
};
use crate::metrics::{self, Counts, Metrics};
use crate::pipeline::relay::Relay;
use crate::pipeline::{Handle, Happening};
use crate::plan::{Name, Plan, Stream};

/// A running host. One per process, shared behind an `Arc`; dropping it stops nothing.
pub struct Host {
    /// What it runs.
    pub plan: Arc<Plan>,
    /// What it counts.
    pub metrics: Metrics,
    pub(crate) consumers: BTreeMap<Name, Consumer>,
    pub(crate) relays: HashMap<Name, Relay>,
    pub(crate) ledger: Arc<dyn Ledger>,
    pub(crate) dead_letters: Arc<dyn DeadLetters>,
    pub(crate) brokers: BTreeMap<Name, Arc<dyn Broker>>,
    pub(crate) publishers: Mutex<HashMap<Name, Arc<dyn Publisher>>>,
    pub(crate) feed: broadcast::Sender<Happening>,
}

/// A consumer of a running host.
pub struct Consumer {
    /// The digest of its plugin.
    pub revision: Arc<str>,
    /// What it counts.
    pub metrics: metrics::Consumer,
    /// To tell it things.
    pub pipeline: Handle,
}

/// How a consumer fares.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
pub struct ConsumerStatus {
    /// Its name.
    pub consumer: String,
    /// The stream it reads.
    pub reads: String,
    /// The digest of its plugin.
    pub revision: String,
    /// Whether its subscription is open.
    pub subscribed: bool,
    /// Why it is not, if that is known.
    pub trouble: Option<String>,
    /// `closed`, `half-open` or `open`.
    pub breaker: &'static str,
    /// Deliveries taken and not settled.
    pub in_flight: i64,
    /// Events that wait in the ledger.
    pub parked: i64,
    /// What has become of its deliveries since the host started.
    pub counts: Counts,
}

/// How a stream that is written fares.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
pub struct StreamStatus {
    /// Its name.
    pub stream: String,
    /// The broker it is on.
    pub broker: String,
    /// Committed outputs that its broker has not confirmed. 0 for logs in the ledger's own store.
    pub outbox: i64,
    /// Why they wait, if the broker does not take them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trouble: Option<String>,
}

/// An event could not be put on a stream.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// There is no such stream.
    #[error("no stream {0} in the config")]
    NoStream(String),
    /// The event can't be written there.
    #[error(transparent)]
    Event(#[from] codec::Error),
    /// The broker did not take it.
    #[error(transparent)]
    Broker(#[from] broker::Error),
}

/// State keys in one page of a walk over all.
const PAGE: usize = 500;

impl Host {
    /// Whether every consumer is subscribed.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.consumers.values().all(|consumer| consumer.metrics.is_subscribed())
    }

    /// Why the ledger holds up the host, if it does; the metrics say it from then on.
    #[must_use]
    pub fn ledger_trouble(&self) -> Option<Trouble> {
        let trouble = self.ledger.trouble();
        self.metrics.ledger_trouble(trouble.as_ref());
        trouble
    }

    /// How the consumers fare, by name.
    #[must_use]
    pub fn consumers(&self) -> Vec<ConsumerStatus> {
        self.consumers
            .iter()
            .map(|(name, consumer)| self.status(name, consumer))
            .collect()
    }

    fn status(&self, name: &Name, consumer: &Consumer) -> ConsumerStatus {
        let metrics = &consumer.metrics;
        ConsumerStatus {
            consumer: name.to_string(),
            reads: self
                .plan
                .consumers
                .get(name)
                .map(|plan| plan.reads.name.to_string())
                .unwrap_or_default(),
            revision: consumer.revision.to_string(),
            subscribed: metrics.is_subscribed(),
            trouble: metrics.trouble(),
            breaker: match metrics.breaker_now() {
                0 => "closed",
                1 => "half-open",
                _ => "open",
            },
            in_flight: metrics.in_flight_now(),
            parked: metrics.parked_now(),
            counts: metrics.counts(),
        }
    }

    /// How the streams fare, by name.
    #[must_use]
    pub fn streams(&self) -> Vec<StreamStatus> {
        let status = |(name, stream): (&Name, &Arc<Stream>)| StreamStatus {
            stream: name.to_string(),
            broker: stream.broker.name.to_string(),
            outbox: self.relays.get(name).map_or(0, Relay::waiting),
            trouble: self.relays.get(name).and_then(Relay::trouble),
        };
        self.plan.streams.iter().map(status).collect()
    }

    /// What becomes of events from now on. Who falls behind by 4,096 misses some.
    #[must_use]
    pub fn feed(&self) -> broadcast::Receiver<Happening> {
        self.feed.subscribe()
    }

    /// The publisher of a stream, opened at the first use, and again when its stream turns out not to be as it was.
    ///
    /// # Errors
    /// What opening it says.
    pub async fn publisher(&self, stream: &Arc<Stream>) -> Result<Arc<dyn Publisher>, broker::Error> {
        if let Some(publisher) = self.opened(&stream.name) {
            return Ok(publisher);
        }
        let broker = self
            .brokers
            .get(&stream.broker.name)
            .ok_or_else(|| broker::Error::Misconfigured {
                broker: stream.broker.name.clone(),
                reason: "it is not part of this host".to_owned(),
            })?;
        let publisher: Arc<dyn Publisher> = Arc::new(Reopening::open(broker.clone(), stream.clone()).await?);
        self.publishers().insert(stream.name.clone(), publisher.clone());
        Ok(publisher)
    }

    /// The publisher of a stream, if it has been opened.
    #[must_use]
    pub fn opened(&self, stream: &Name) -> Option<Arc<dyn Publisher>> {
        self.publishers().get(stream).cloned()
    }

    fn publishers(&self) -> MutexGuard<'_, HashMap<Name, Arc<dyn Publisher>>> {
        self.publishers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A broker by its name.
    #[must_use]
    pub fn broker(&self, name: &Name) -> Option<&Arc<dyn Broker>> {
        self.brokers.get(name)
    }

    /// The committed state of a consumer in one bucket, by key.
    ///
    /// # Errors
    /// What the ledger says.
    pub async fn state(&self, consumer: &Name, bucket: &str) -> Result<Vec<(String, Bytes)>, ledger::Error> {
        let bucket = StateBucket {
            consumer: consumer.clone(),
            bucket: bucket.into(),
        };
        let mut state: Vec<(String, Bytes)> = Vec::new();
        loop {
            let after = state.last().map(|(key, _)| key.clone());
            let page = self.ledger.list_state(&bucket, after.as_deref(), PAGE).await?;
            let is_last = page.len() < PAGE;
            for key in page {
                let read = self
                    .ledger
                    .read_state(&StateKey {
                        bucket: bucket.clone(),
                        key: key.as_str().into(),
                    })
                    .await?;
                state.extend(read.value.map(|value| (key, value)));
            }
            if is_last {
                return Ok(state);
            }
        }
    }

    /// Puts events on a stream; returns when its broker has all of them. Whoever publishes an event again under the same source and id,
    /// with the same data, within the broker's window publishes it once.
    ///
    /// # Errors
    /// [`PublishError`]; of several events, those before the one at fault may have been taken.
    pub async fn publish(&self, stream: &str, events: &[Event]) -> Result<usize, PublishError> {
        let no_stream = || PublishError::NoStream(stream.to_owned());
        let name = Name::new(stream).map_err(|_| no_stream())?;
        let stream = self.plan.streams.get(&name).ok_or_else(no_stream)?;
        let publisher = self.publisher(stream).await?;
        let mut batch = Vec::with_capacity(events.len());
        for event in events {
            let record = RecordKey::of(&name, event);
            // With its data: what has other data under the same id is no repetition, and its consumers are to see that.
            let PayloadHash(data) = PayloadHash::of(event.data.as_ref());
            batch.push(Outgoing {
                id: format!("{record}-{data:016x}").into(),
                key: event.subject.as_deref().unwrap_or(&event.id).as_bytes().into(),
                message: codec::encode(event, stream)?,
            });
        }
        for result in publisher.publish(batch).await {
            result?;
        }
        Ok(events.len())
    }

    /// The dead letters that match, oldest first, at most `limit` after the place given, each as `shown` makes it; and after which
    /// place there are more.
    ///
    /// # Errors
    /// What the ledger says.
    pub async fn dead_letters<T>(
        &self,
        which: &DeadFilter,
        after: Option<DeadPlace>,
        limit: usize,
        shown: impl Fn(&DeadLetter) -> T,
    ) -> Result<(Vec<T>, Option<DeadPlace>), ledger::Error> {
        dead_letters::list(self.dead_letters.as_ref(), which, after, limit, shown).await
    }

    /// One dead letter.
    ///
    /// # Errors
    /// What the ledger says.
    pub async fn dead_letter(&self, id: DeadId) -> Result<Option<DeadLetter>, ledger::Error> {
        self.dead_letters.get(id).await
    }

    /// Puts dead letters back into their lanes and has their consumers run them.
    ///
    /// # Errors
    /// What the ledger says; some may be back already: asking again does the rest.
    pub async fn redrive(&self, which: &Which, dry_run: bool) -> Result<Done, ledger::Error> {
        let done = dead_letters::redrive(self.dead_letters.as_ref(), which, dry_run).await;
        self.tell_consumers(dry_run).await;
        done
    }

    /// Forgets dead letters; lanes held by them go on.
    ///
    /// # Errors
    /// As for [`Host::redrive`].
    pub async fn purge(&self, which: &Which, dry_run: bool) -> Result<Done, ledger::Error> {
        let done = dead_letters::purge(self.dead_letters.as_ref(), which, dry_run).await;
        self.tell_consumers(dry_run).await;
        done
    }

    /// All of them, and after a failure too: it is unknown how far it came, and to look costs little.
    async fn tell_consumers(&self, dry_run: bool) {
        if dry_run {
            return;
        }
        for consumer in self.consumers.values() {
            consumer.pipeline.parking_changed().await;
        }
    }
}
