//! Which events a consumer has in hand, to know a twin by: the same event in another delivery.
//!
//! The intake notes an event before it asks the ledger about it, and the dispatcher forgets it when what became of it is durable. So whoever
//! finds nothing noted gets from the ledger what became of every twin before; whoever finds something asks again when it is its turn.

use std::collections::HashSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::ledger::RecordKey;

/// Records of the events that are in hand. As many as the budget has room for, at most.
#[derive(Debug, Default)]
pub(super) struct InHand(Mutex<HashSet<RecordKey>>);

impl InHand {
    /// Notes an event. Says whether it is the only one of its kind.
    pub(super) fn insert(&self, record: RecordKey) -> bool {
        self.lock().insert(record)
    }

    /// What became of an event is durable, or it is given back.
    pub(super) fn remove(&self, record: RecordKey) {
        self.lock().remove(&record);
    }

    fn lock(&self) -> MutexGuard<'_, HashSet<RecordKey>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
