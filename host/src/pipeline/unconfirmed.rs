//! Committed events whose outputs their brokers have not confirmed. They are bounded: while there are as many as the budget has room
//! for, nothing more is started, whatever is settled when, and whether it came from the broker or from the parking. Effects that are being
//! committed count in bytes: a small event may have large ones, and a disk may be slow.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::arrival::Spent;
use super::relay::Posted;
use crate::broker::Room;
use crate::ledger::Row;

/// Events that wait for the confirmation of their outputs.
pub(super) struct Unconfirmed {
    whole: Room,
    events: HashMap<u64, Waiting>,
    bytes: usize,
    /// Bytes of effects that are being committed.
    committing: usize,
    deliveries: usize,
    numbers: u64,
    /// Rows that an earlier host left. Each counts as an event: they must not add up over restarts while their broker is away.
    inherited: usize,
    inherited_bytes: usize,
}

/// What is confirmed by this number was left by an earlier host.
const INHERITED: u64 = 0;

/// Rows of a consumer that an earlier host left.
#[derive(Debug, Default)]
pub struct Inherited {
    confirmations: Confirmations,
    rows: usize,
    bytes: usize,
}

impl Inherited {
    /// Takes a row into account; it is to be handed to its relay like this.
    #[must_use]
    pub fn post(&mut self, row: Row) -> Posted {
        self.rows += 1;
        self.bytes += row.output.message.size();
        Posted {
            row,
            waiter: (self.confirmations.clone(), INHERITED),
        }
    }

    /// Where they are confirmed.
    pub(super) fn confirmations(&self) -> Confirmations {
        self.confirmations.clone()
    }
}

struct Waiting {
    /// To be settled with the last row; `None` if it is settled already, or came out of the ledger.
    spent: Option<Spent>,
    rows: usize,
    bytes: usize,
}

impl Unconfirmed {
    pub(super) fn new(whole: Room, inherited: &Inherited) -> Self {
        Self {
            whole,
            events: HashMap::new(),
            bytes: 0,
            committing: 0,
            deliveries: 0,
            numbers: INHERITED,
            inherited: inherited.rows,
            inherited_bytes: inherited.bytes,
        }
    }

    /// Whether nothing more may be started for now.
    pub(super) fn is_full(&self) -> bool {
        let bytes = self.bytes + self.inherited_bytes + self.committing;
        self.events.len() + self.inherited >= self.whole.count || bytes >= self.whole.bytes
    }

    /// How many attempts there is room for, the running ones included, if the effects of each have so many bytes. At least 1: where nothing is
    /// known of their size, or it is more than the budget, somebody must begin.
    pub(super) fn attempts(&self, effects: usize) -> usize {
        let used = self.bytes + self.inherited_bytes + self.committing;
        let left = self.whole.bytes.saturating_sub(used);
        left.checked_div(effects).map_or(usize::MAX, |attempts| attempts.max(1))
    }

    /// Effects of so many bytes are being committed from now on.
    pub(super) fn commit(&mut self, bytes: usize) {
        self.committing += bytes;
    }

    /// They are committed, or refused.
    pub(super) fn committed(&mut self, bytes: usize) {
        self.committing -= bytes;
    }

    /// How many deliveries are not settled because of it.
    pub(super) fn deliveries(&self) -> usize {
        self.deliveries
    }

    /// The number of the next event, to be confirmed by.
    pub(super) fn number(&mut self) -> u64 {
        self.numbers += 1;
        self.numbers
    }

    /// An event waits from now on.
    pub(super) fn insert(&mut self, posted: Posting, spent: Option<Spent>) {
        let spent = spent.filter(|spent| spent.receipt.is_some());
        self.deliveries += usize::from(spent.is_some());
        self.bytes += posted.bytes;
        let waiting = Waiting {
            spent,
            rows: posted.rows,
            bytes: posted.bytes,
        };
        self.events.insert(posted.number, waiting);
    }

    /// One row of an event is confirmed; gives what is to be settled if it was the last.
    pub(super) fn confirm(&mut self, number: u64) -> Option<Spent> {
        if number == INHERITED {
            self.disinherit();
            return None;
        }
        let waiting = self.events.get_mut(&number)?;
        waiting.rows -= 1;
        if waiting.rows > 0 {
            return None;
        }
        let waiting = self.events.remove(&number)?;
        self.bytes -= waiting.bytes;
        self.deliveries -= usize::from(waiting.spent.is_some());
        waiting.spent
    }
}

impl Unconfirmed {
    fn disinherit(&mut self) {
        // Of one of them only the average is known, and of the last one everything goes.
        self.inherited_bytes -= self.inherited_bytes / self.inherited.max(1);
        self.inherited = self.inherited.saturating_sub(1);
    }
}

/// The rows of an event that were handed to relays.
#[derive(Clone, Copy, Debug)]
pub(super) struct Posting {
    pub(super) number: u64,
    pub(super) rows: usize,
    pub(super) bytes: usize,
}

/// Where relays tell a consumer which rows are confirmed. Telling never waits, so that no relay and no consumer can wait for each
/// other; what is told and not heard is bounded by the rows there are. Cloning shares it.
#[derive(Clone, Debug, Default)]
pub struct Confirmations(Arc<Told>);

#[derive(Debug, Default)]
struct Told {
    numbers: Mutex<Vec<u64>>,
    changed: Notify,
}

impl Confirmations {
    /// One row of each of these events is confirmed.
    pub(super) fn tell(&self, numbers: &[u64]) {
        self.lock().extend_from_slice(numbers);
        self.0.changed.notify_one();
    }

    /// Whether both tell the same consumer.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// What was told since the last time. One task waits at a time.
    ///
    /// # Cancellation
    /// Safe.
    pub(super) async fn next(&self) -> Vec<u64> {
        loop {
            let changed = self.0.changed.notified();
            let numbers = std::mem::take(&mut *self.lock());
            if !numbers.is_empty() {
                return numbers;
            }
            changed.await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<u64>> {
        self.0.numbers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
