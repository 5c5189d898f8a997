//! What a consumer of a log has in hand.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::broker::{Receipt, Settlement};

/// What was given and is not settled, shared by the two halves of a subscription.
pub(super) struct Flight {
    state: Mutex<State>,
    /// Told when something was settled or handed back: the source may have room or work again.
    changed: Notify,
}

struct State {
    /// Given and not settled.
    given: BTreeSet<u64>,
    /// Handed back and not given again.
    back: BTreeSet<u64>,
    /// The lowest number that was never given.
    next: u64,
}

impl Flight {
    pub(super) fn new(next: u64) -> Self {
        Self {
            state: Mutex::new(State {
                given: BTreeSet::new(),
                back: BTreeSet::new(),
                next,
            }),
            changed: Notify::new(),
        }
    }

    /// How many are given and not settled.
    pub(super) fn count(&self) -> usize {
        self.state().given.len()
    }

    /// The lowest number that was never given.
    pub(super) fn next(&self) -> u64 {
        self.state().next
    }

    /// The lowest number that was handed back.
    pub(super) fn first_back(&self) -> Option<u64> {
        self.state().back.first().copied()
    }

    /// A message is given. What lies between it and the last one is gone from the log.
    pub(super) fn give(&self, number: u64) {
        let mut state = self.state();
        state.back.remove(&number);
        state.given.insert(number);
        state.next = state.next.max(number + 1);
    }

    /// A message that was handed back is gone from the log.
    pub(super) fn lose(&self, number: u64) {
        self.state().back.remove(&number);
    }

    /// Settles deliveries and says what the lowest number is now that must come again after a crash.
    pub(super) fn settle(&self, settled: Vec<(Receipt, Settlement)>) -> u64 {
        let settled: BTreeMap<u64, Settlement> = settled
            .into_iter()
            .map(|(receipt, settlement)| (receipt.0, settlement))
            .collect();
        let mut state = self.state();
        for (number, settlement) in settled {
            if state.given.remove(&number) && settlement == Settlement::HandBack {
                state.back.insert(number);
            }
        }
        let lowest = state.lowest();
        drop(state);
        self.changed.notify_one();
        lowest
    }

    /// Waits for a settlement, also for one since the last wait.
    pub(super) async fn changed(&self) {
        self.changed.notified().await;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn lowest(&self) -> u64 {
        let given = self.given.first().copied().unwrap_or(self.next);
        let back = self.back.first().copied().unwrap_or(self.next);
        given.min(back)
    }
}
