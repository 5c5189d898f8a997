//! Appends to a log, each id once.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use sha2::{Digest, Sha256};

use super::{SIZE_MAX, unreachable};
use crate::broker::{Error, Outgoing, Publisher};
use crate::crash::{self, Point};
use crate::plan::Name;
use crate::store::{self, Batch, Record, Store, Weight};

/// Publishes onto one log.
///
/// Ids are remembered among the ledger's records, for as long as those: longer than any broker's window, and forgotten with
/// them at no price. What a consumer's commit appends itself never comes by here.
pub(super) struct LogPublisher {
    broker: Name,
    store: Arc<Store>,
    stream: Name,
}

impl LogPublisher {
    pub(super) fn new(broker: Name, store: Arc<Store>, stream: Name) -> Self {
        Self { broker, store, stream }
    }

    async fn append(&self, batch: Vec<Outgoing>) -> Vec<Result<(), Error>> {
        let refusals: Vec<_> = batch.iter().map(|outgoing| self.refuse(outgoing)).collect();
        let fitting: Vec<Outgoing> = batch
            .into_iter()
            .zip(&refusals)
            .filter(|(_, refusal)| refusal.is_ok())
            .map(|(outgoing, _)| outgoing)
            .collect();
        let weight = Weight {
            entries: fitting.len(),
            bytes: fitting.iter().map(|outgoing| outgoing.message.size()).sum(),
        };
        let stream = self.stream.clone();
        crash::at(Point::Appending);
        let appended = self.store.commit(weight, move |batch| {
            let mut each = fitting.iter();
            each.try_for_each(|outgoing| append_once(batch, &stream, outgoing))
        });
        let appended = appended.await.map_err(|error| unreachable(&self.broker, &error));
        if appended.is_ok() {
            crash::at(Point::Appended);
        }
        refusals
            .into_iter()
            .map(|refusal| refusal.and_then(|()| appended.clone()))
            .collect()
    }

    fn refuse(&self, outgoing: &Outgoing) -> Result<(), Error> {
        let size = outgoing.message.size();
        if size <= SIZE_MAX {
            return Ok(());
        }
        Err(Error::Refused {
            broker: self.broker.clone(),
            reason: format!("it has {size} bytes, and an embedded log takes {SIZE_MAX}"),
        })
    }
}

impl Publisher for LogPublisher {
    fn publish(&self, batch: Vec<Outgoing>) -> BoxFuture<'_, Vec<Result<(), Error>>> {
        Box::pin(self.append(batch))
    }

    fn size_max(&self) -> usize {
        SIZE_MAX
    }
}

fn append_once(batch: &mut Batch<'_>, stream: &Name, outgoing: &Outgoing) -> Result<(), store::Error> {
    let key = id_key(stream, &outgoing.id);
    if batch.record(key)?.is_none() {
        let number = batch.append(stream, &outgoing.message)?;
        batch.remember(key, Record::done(number));
    }
    Ok(())
}

/// What an id is remembered by. The length and the zero byte keep it apart from what events are remembered by.
fn id_key(stream: &Name, id: &str) -> [u8; 16] {
    let mut hasher = Sha256::new();
    hasher.update(b"\0log\0");
    hasher.update((stream.as_str().len() as u64).to_le_bytes());
    hasher.update(stream.as_str());
    hasher.update(id);
    let hash = hasher.finalize();
    std::array::from_fn(|i| hash.get(i).copied().unwrap_or_default())
}
