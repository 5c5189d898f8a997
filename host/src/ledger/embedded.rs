//! The ledger in the embedded store.
//!
//! Reads go straight to what is committed. Whatever writes is a piece of work for the store's committer, which decides and
//! writes on one thread: nothing can change between the look at a record and the write that depends on it. Outputs onto
//! embedded logs are appended in the same transaction; they have no outbox row and need no dedupe.

mod commit;
#[cfg(fuzzing)]
pub mod fuzzing;
mod letters;
mod outbox;
mod parking;
mod rows;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::ops::Bound;
use std::sync::Arc;

use futures_util::future::BoxFuture;

use super::{
    Change, Entry, Error, Known, Ledger, PayloadHash, Read, RecordKey, Refused, StateBucket, StateKey, TakenBefore,
    Trouble, Written,
};
use crate::broker::Position;
use crate::plan::Name;
use crate::store::{self, RecordState, Store, Table, Tables, Weight};
use outbox::{Emitted, Sheets};
use rows::Attempts;

/// Up to so many events that the store may hold are read in place; more of them might keep the worker from other tasks for longer
/// than a change of threads costs.
const IN_PLACE_MAX: usize = 16;

/// The ledger in the embedded store: all four traits. One per store; tasks share it.
pub struct Embedded {
    store: Arc<Store>,
    logs: Arc<BTreeSet<Name>>,
    sheets: Arc<Sheets>,
}

/// Opens the ledger of a store; outputs onto the streams in `logs` go straight into their embedded logs.
#[must_use]
pub fn open(store: Arc<Store>, logs: BTreeSet<Name>) -> Arc<Embedded> {
    let sheets = Arc::new(Sheets::default());
    store.add_rider(sheets.clone());
    Arc::new(Embedded {
        store,
        logs: Arc::new(logs),
        sheets,
    })
}

impl Ledger for Embedded {
    fn look_up(&self, keys: Vec<RecordKey>) -> BoxFuture<'_, Result<Vec<Known>, Error>> {
        Box::pin(async move {
            let mut found = vec![Known::New; keys.len()];
            let held: Vec<_> = self.store.read(|tables| {
                let keys = keys.into_iter().enumerate();
                Ok(keys.filter(|(_, key)| tables.may_hold(key.0)).collect())
            })?;
            let is_quick = held.len() <= IN_PLACE_MAX;
            let read = move |tables: &Tables| {
                let known = held.into_iter().map(|(at, key)| Ok((at, known(tables, key)?)));
                known.collect::<Result<Vec<_>, _>>()
            };
            let read = if is_quick {
                self.store.read(read)
            } else {
                self.store.read_apart(read).await
            };
            for (at, known) in read? {
                if let Some(found) = found.get_mut(at) {
                    *found = known;
                }
            }
            Ok(found)
        })
    }

    fn write(&self, entries: Arc<Vec<Entry>>) -> BoxFuture<'_, Result<Vec<Result<Written, Refused>>, Error>> {
        let logs = self.logs.clone();
        Box::pin(async move {
            let written = self.store.commit(weight(&entries), move |batch| {
                let mut emitted = Emitted::new(&logs);
                let apply = |entry| commit::apply(batch, &mut emitted, entry);
                let written = entries.iter().map(apply).collect::<Result<Vec<_>, _>>()?;
                Ok((written, emitted.finish(batch)?))
            });
            let (written, sheets) = written.await?;
            self.sheets.add(sheets);
            Ok(written)
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

    fn trouble(&self) -> Option<Trouble> {
        self.store.trouble()
    }
}

/// What the tables know of an event.
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
    let bytes = |entry: &Entry| match &entry.change {
        Change::Applied(effects) => effects.size(),
        Change::Dead { letter, .. } | Change::Conflict { letter, .. } => letter.message.size(),
        Change::Parked(message, _) => message.size(),
        Change::Failed(_) | Change::Started => 0,
    };
    Weight {
        entries: entries.len(),
        bytes: entries.iter().map(|entry| 64 + bytes(entry)).sum(),
    }
}

impl From<store::Error> for Error {
    fn from(error: store::Error) -> Self {
        match error {
            store::Error::Unavailable(reason) => Self::Unavailable(reason),
            store::Error::Locked(folder) => Self::Locked(folder),
            store::Error::Newer { folder, found, known } => Self::Newer { folder, found, known },
            store::Error::Older { folder, found, known } => Self::Older { folder, found, known },
            store::Error::Damaged { folder, reason } => Self::Damaged { folder, reason },
        }
    }
}
