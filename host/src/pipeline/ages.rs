//! How long the oldest delivery of a consumer has been unsettled: its broker may give again what came after it, so that records of
//! that must not be forgotten.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Ages are told apart to this.
const STEP: Duration = Duration::from_secs(60);

/// The ages of unsettled deliveries. Shared by the intake, the settler and whoever drops old records.
#[derive(Debug)]
pub struct Ages {
    began: Instant,
    /// How many were taken in each step since then. Few: one a minute for as long as the oldest is unsettled.
    taken: Mutex<BTreeMap<u64, usize>>,
}

impl Ages {
    /// None, from now on.
    #[must_use]
    pub fn since(began: Instant) -> Self {
        Self {
            began,
            taken: Mutex::default(),
        }
    }

    /// Deliveries were taken at these times.
    pub fn take(&self, times: impl Iterator<Item = Instant>) {
        let mut taken = self.lock();
        for time in times {
            *taken.entry(self.step(time)).or_default() += 1;
        }
    }

    /// Deliveries that were taken at these times are settled.
    pub fn settle(&self, times: impl Iterator<Item = Instant>) {
        let mut taken = self.lock();
        for time in times {
            let step = self.step(time);
            if let Some(count) = taken.get_mut(&step) {
                *count -= 1;
                if *count == 0 {
                    taken.remove(&step);
                }
            }
        }
    }

    /// The age of the oldest that is not settled, at most a step more than it is; zero if there is none.
    #[must_use]
    pub fn oldest(&self, now: Instant) -> Duration {
        let Some(step) = self.lock().keys().next().copied() else {
            return Duration::ZERO;
        };
        let steps = u32::try_from(step).unwrap_or(u32::MAX);
        now.saturating_duration_since(self.began + STEP * steps)
    }

    fn step(&self, time: Instant) -> u64 {
        time.saturating_duration_since(self.began).as_secs() / STEP.as_secs()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, usize>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_counts_until_it_is_settled() {
        let began = crate::clock::Clock::system().now();
        let after = |seconds| began + Duration::from_secs(seconds);
        let ages = Ages::since(began);
        assert_eq!(ages.oldest(after(500)), Duration::ZERO);
        ages.take([after(60), after(61), after(400)].into_iter());
        assert_eq!(ages.oldest(after(500)), Duration::from_secs(440));
        ages.settle([after(60)].into_iter());
        assert_eq!(ages.oldest(after(500)), Duration::from_secs(440));
        ages.settle([after(61)].into_iter());
        assert_eq!(ages.oldest(after(500)), Duration::from_secs(140));
        ages.settle([after(400)].into_iter());
        assert_eq!(ages.oldest(after(500)), Duration::ZERO);
    }
}
