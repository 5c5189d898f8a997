//! The ledger in the embedded store.
//!
//! Reads go straight to what is committed. Whatever writes is a piece of work for the store's committer, which decides and
//! writes on one thread: nothing can change between the look at a record and the write that depends on it. Outputs onto
//! embedded logs are appended in the same transaction; they have no outbox row and need no dedupe.

mod commit;
mod letters;
mod parking;
mod rows;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::ops::Bound;
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::future::BoxFuture;

use super::{
    Change, Entry, Error, Known, Ledger, Outbox, PayloadHash, Read, RecordKey, Refused, Row, RowId, StateBucket,
    StateKey, TakenBefore, Written,
};
use crate::broker::Position;
use crate::plan::Name;
use crate::store::{self, Batch, RecordState, Ride, Rider, Store, Table, Tables, Weight};
use rows::{Attempts, OutboxRow};

/// Look-ups of up to so many events are done in place; more of them might keep the worker from other tasks for longer than
/// a change of threads costs.
const IN_PLACE_MAX: usize = 16;

/// Confirmed rows that wait for a batch to ride with; beyond, one is asked for.
const CONFIRMED_MAX: usize = 1000;

/// The ledger in the embedded store: all four traits. One per store; tasks share it.
pub struct Embedded {
    store: Arc<Store>,
    logs: Arc<BTreeSet<Name>>,
    confirmed: Arc<Confirmed>,
}

/// Opens the ledger of a store; outputs onto the streams in `logs` go straight into their embedded logs.
#[must_use]
pub fn open(store: Arc<Store>, logs: BTreeSet<Name>) -> Arc<Embedded> {
    let confirmed = Arc::new(Confirmed::default());
    store.add_rider(confirmed.clone());
    Arc::new(Embedded {
        store,
        logs: Arc::new(logs),
        confirmed,
    })
}

impl Ledger for Embedded {
    fn look_up(&self, keys: Vec<RecordKey>) -> BoxFuture<'_, Result<Vec<Known>, Error>> {
        Box::pin(async move {
            let look = |tables: &Tables, keys: &[RecordKey]| keys.iter().map(|key| known(tables, *key)).collect();
            let known = if keys.len() <= IN_PLACE_MAX {
                self.store.read(|tables| look(tables, &keys))
            } else {
                let apart = self.store.read_apart(move |tables| look(tables, &keys));
                apart.await
            };
            Ok(known?)
        })
    }

    fn write(&self, entries: Arc<Vec<Entry>>) -> BoxFuture<'_, Result<Vec<Result<Written, Refused>>, Error>> {
        let logs = self.logs.clone();
        Box::pin(async move {
            let written = self.store.commit(weight(&entries), move |batch| {
                let apply = |entry: &Entry| commit::apply(batch, &logs, entry.clone());
                entries.iter().map(apply).collect()
            });
            Ok(written.await?)
        })
    }

    fn read_state<'a>(&'a self, key: &'a StateKey) -> BoxFuture<'a, Result<Read, Error>> {
        let read = self.store.read(|tables| {
            let row = tables.get(Table::State, &rows::state_key(key))?;
            rows::read_state(row)
        });
        Box::pin(std::future::ready(read.map_err(Error::from)))
    }

    fn list_state<'a>(
        &'a self,
        bucket: &'a StateBucket,
        after: Option<&'a str>,
        limit: usize,
    ) -> BoxFuture<'a, Result<Vec<String>, Error>> {
        let prefix = rows::state_prefix(bucket).done();
        let from = after.map(|after| rows::state_prefix(bucket).rest(after).done());
        let list = self.store.read_apart(move |tables| {
            let from = from.as_deref().map_or(Bound::Included(&*prefix), Bound::Excluded);
            let rows = tables.range(Table::State, from, &prefix).take(limit);
            rows.map(|row| rows::state_name(&prefix, &row?.0)).collect()
        });
        Box::pin(async move { Ok(list.await?) })
    }

    fn taken_before<'a>(&'a self, consumer: &'a Name) -> BoxFuture<'a, Result<Option<TakenBefore>, Error>> {
        let taken = self.store.taken_before(consumer).map_err(Error::from);
        Box::pin(std::future::ready(taken.map(|taken| {
            taken.map(|(upto, is_suspect)| TakenBefore { upto, is_suspect })
        })))
    }

    fn recovered(&self, consumer: &Name) {
        self.store.recovered(consumer);
    }

    fn mark_taken<'a>(&'a self, consumer: &'a Name, upto: Position) -> BoxFuture<'a, Result<(), Error>> {
        Box::pin(async move { Ok(self.store.mark_taken(consumer, upto).await?) })
    }
}

/// What the tables know of an event. The common answer is "nothing", which the filters of the buckets give alone.
fn known(tables: &Tables, key: RecordKey) -> Result<Known, store::Error> {
    let Some(record) = tables.record(key.0)? else {
        return Ok(Known::New);
    };
    match record.state {
        RecordState::Done => Ok(Known::Done(PayloadHash(record.payload))),
        RecordState::Parked => Ok(Known::Parked(PayloadHash(record.payload))),
        RecordState::Trying | RecordState::Stale => Ok(match rows::attempts(tables, key)? {
            Attempts {
                history: Some(history),
                started,
            } => Known::Failing { history, started },
            Attempts { started: 0, .. } => Known::New,
            Attempts { started, .. } => Known::Started(started),
        }),
    }
}

/// What entries weigh against the bounds of a batch: about the bytes they will write.
fn weight(entries: &[Entry]) -> Weight {
    let outputs = |outputs: &[super::Output]| -> usize { outputs.iter().map(|output| output.message.size()).sum() };
    let bytes = |entry: &Entry| match &entry.change {
        Change::Applied(effects) => {
            let writes = effects.writes.iter().map(|write| match write {
                super::StateWrite::Set(_, value) => value.len(),
                _ => 0,
            });
            outputs(&effects.outputs) + writes.sum::<usize>()
        }
        Change::Dead { letter, .. } | Change::Conflict { letter, .. } => letter.message.size(),
        Change::Parked(message, _) => message.size(),
        Change::Failed(_) | Change::Started => 0,
    };
    Weight {
        entries: entries.len(),
        bytes: entries.iter().map(|entry| 64 + bytes(entry)).sum(),
    }
}

impl Outbox for Embedded {
    fn pending(&self, after: Option<RowId>, limit: usize) -> BoxFuture<'_, Result<Vec<Row>, Error>> {
        let from = after.map_or(0, |after| after.0.saturating_add(1));
        let pending = self.store.read_apart(move |tables| {
            let from = rows::number_key(from);
            let rows = tables.range(Table::Outbox, Bound::Included(&from), &[]);
            rows.take(limit)
                .map(|row| {
                    let (key, value) = row?;
                    let OutboxRow { consumer, output } = store::decode(&value)?;
                    let id = RowId(rows::read_number(&key)?);
                    Ok(Row { id, consumer, output })
                })
                .collect()
        });
        Box::pin(async move { Ok(pending.await?) })
    }

    fn confirmed(&self, rows: Vec<RowId>) {
        let waiting = {
            let mut waiting = self.confirmed.0.lock().unwrap_or_else(PoisonError::into_inner);
            waiting.extend(rows);
            waiting.len()
        };
        if waiting >= CONFIRMED_MAX {
            self.store.nudge();
        }
    }
}

/// Confirmed rows that wait for a batch to be deleted with. Bounded by the rows there are; if the batch fails they stay in the
/// outbox, and are published once more, under their ids, after the next start or outage.
#[derive(Default)]
struct Confirmed(Mutex<Vec<RowId>>);

impl Rider for Confirmed {
    fn ride(&self, batch: &mut Batch<'_>, _: Ride) -> Result<(), store::Error> {
        let rows = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        for row in rows {
            batch.forget(Table::Outbox, rows::number_key(row.0));
        }
        Ok(())
    }
}

impl From<store::Error> for Error {
    fn from(error: store::Error) -> Self {
        match error {
            store::Error::Unavailable(reason) => Self::Unavailable(reason),
            store::Error::Locked(folder) => Self::Locked(folder),
            store::Error::Newer { folder, found, known } => Self::Newer { folder, found, known },
            store::Error::Damaged { folder, reason } => Self::Damaged { folder, reason },
        }
    }
}
