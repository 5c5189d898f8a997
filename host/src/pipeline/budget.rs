//! How much a consumer may hold unsettled: taken before the broker is asked, given back when a delivery is settled or parked.

use std::sync::Mutex;

use tokio::sync::Notify;

use crate::broker::Room;
use crate::plan;

/// A consumer's budget. Shared by the intake, which takes from it, and the dispatcher, which gives back.
#[derive(Debug)]
pub struct Budget {
    whole: Room,
    used: Mutex<Room>,
    freed: Notify,
}

impl Budget {
    /// An unused budget.
    #[must_use]
    pub fn new(plan: plan::Budget) -> Self {
        let whole = Room {
            count: plan.events.get(),
            bytes: plan.bytes.get(),
        };
        Self {
            whole,
            used: Mutex::new(Room { count: 0, bytes: 0 }),
            freed: Notify::new(),
        }
    }

    /// The whole of it.
    #[must_use]
    pub fn whole(&self) -> Room {
        self.whole
    }

    /// What is used of it.
    #[must_use]
    pub fn used(&self) -> Room {
        *self.lock()
    }

    /// Whether there is room for one more.
    #[must_use]
    pub fn has_room(&self) -> bool {
        let used = self.used();
        used.count < self.whole.count && used.bytes < self.whole.bytes
    }

    /// Waits until there is room for at least one event, and says how much. One task waits at a time.
    ///
    /// # Cancellation
    /// Safe.
    pub async fn room(&self) -> Room {
        loop {
            let freed = self.freed.notified();
            let used = self.used();
            if used.count < self.whole.count && used.bytes < self.whole.bytes {
                return Room {
                    count: self.whole.count - used.count,
                    bytes: self.whole.bytes - used.bytes,
                };
            }
            freed.await;
        }
    }

    /// Takes what a batch weighs. One delivery larger than the whole budget is let in, alone.
    pub fn take(&self, weight: Room) {
        let mut used = self.lock();
        used.count += weight.count;
        used.bytes += weight.bytes;
    }

    /// Gives back what was taken.
    pub fn give_back(&self, weight: Room) {
        let mut used = self.lock();
        used.count = used.count.saturating_sub(weight.count);
        used.bytes = used.bytes.saturating_sub(weight.bytes);
        drop(used);
        self.freed.notify_one();
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Room> {
        self.used.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroUsize;

    use futures_util::FutureExt;

    use super::*;

    #[tokio::test]
    async fn a_used_budget_waits_until_something_is_given_back() {
        let budget = Budget::new(plan::Budget {
            events: NonZeroUsize::new(2).unwrap(),
            bytes: NonZeroUsize::new(100).unwrap(),
        });
        assert_eq!(budget.room().await, Room { count: 2, bytes: 100 });
        budget.take(Room { count: 1, bytes: 150 });
        assert_eq!(budget.room().now_or_never(), None, "no bytes left");
        budget.give_back(Room { count: 1, bytes: 150 });
        assert_eq!(budget.room().await, Room { count: 2, bytes: 100 });
        budget.take(Room { count: 2, bytes: 2 });
        assert_eq!(budget.room().now_or_never(), None, "no events left");
    }
}
