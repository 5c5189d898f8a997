//! A publisher that outlives its stream.
//!
//! Whoever opens a publisher makes sure that its stream is there, or makes it. If a person deletes the stream later, the publisher says that
//! something is not as the config says, for ever. So after such a word it is dropped, and the next batch opens another.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;

use crate::broker::{Broker, Error, Outgoing, Publisher};
use crate::plan::Stream;

/// A publisher onto one stream. One per stream of a host; tasks share it. Dropping it closes nothing of the broker's.
pub(super) struct Reopening {
    broker: Arc<dyn Broker>,
    stream: Arc<Stream>,
    /// The publisher in use, and whether it is to be replaced before the next batch.
    current: Mutex<Current>,
}

struct Current {
    publisher: Arc<dyn Publisher>,
    is_stale: bool,
}

impl Reopening {
    pub(super) async fn open(broker: Arc<dyn Broker>, stream: Arc<Stream>) -> Result<Self, Error> {
        let publisher = broker.publisher(stream.clone()).await?;
        let current = Current {
            publisher,
            is_stale: false,
        };
        Ok(Self {
            broker,
            stream,
            current: Mutex::new(current),
        })
    }

    fn current(&self) -> MutexGuard<'_, Current> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn usable(&self) -> Option<Arc<dyn Publisher>> {
        let current = self.current();
        (!current.is_stale).then(|| Arc::clone(&current.publisher))
    }

    async fn publisher(&self) -> Result<Arc<dyn Publisher>, Error> {
        if let Some(publisher) = self.usable() {
            return Ok(publisher);
        }
        // Of several that find it stale at once, each opens one and the last stays: opening is the same however often it is done.
        let publisher = self.broker.publisher(Arc::clone(&self.stream)).await?;
        *self.current() = Current {
            publisher: Arc::clone(&publisher),
            is_stale: false,
        };
        Ok(publisher)
    }

    async fn publish_once(&self, batch: Vec<Outgoing>) -> Vec<Result<(), Error>> {
        let publisher = match self.publisher().await {
            Ok(publisher) => publisher,
            Err(error) => return vec![Err(error); batch.len()],
        };
        let results = publisher.publish(batch).await;
        let is_misconfigured = |result: &Result<(), Error>| matches!(result, Err(Error::Misconfigured { .. }));
        if results.iter().any(is_misconfigured) {
            let mut current = self.current();
            // Another may have been opened meanwhile.
            current.is_stale |= Arc::ptr_eq(&current.publisher, &publisher);
        }
        results
    }
}

impl Publisher for Reopening {
    fn publish(&self, batch: Vec<Outgoing>) -> BoxFuture<'_, Vec<Result<(), Error>>> {
        self.publish_once(batch).boxed()
    }

    fn keeps_order(&self) -> bool {
        self.current().publisher.keeps_order()
    }

    fn size_max(&self) -> usize {
        self.current().publisher.size_max()
    }
}
