//! Whether commits become durable, and how soon: for whoever asks why nothing moves.

use std::sync::Mutex;
use std::time::Duration;

use tokio::time::Instant;

use super::{Error, lock};

/// A commit that takes so long is slow: a disk at work takes a hundredth of it.
const SLOW: Duration = Duration::from_millis(500);
/// How long a slow commit is spoken of when no other comes.
const RECENT: Duration = Duration::from_secs(10);

/// Why the store holds up those who write to it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Trouble {
    /// Nothing can be written: the disk is full or refuses. It is tried again.
    #[error("the disk does not take what is written: {0}")]
    Unwritable(String),
    /// Commits become durable, but late: the longest of the last ones, or the one under way.
    #[error("commits wait for the disk: {0:.1?}")]
    Slow(Duration),
}

/// What is known of the last commits.
#[derive(Default)]
pub(super) struct Health(Mutex<State>);

#[derive(Default)]
struct State {
    began: Option<Instant>,
    slow: Option<Slow>,
    failed: Option<String>,
}

#[derive(Clone, Copy)]
struct Slow {
    took: Duration,
    at: Instant,
}

impl Health {
    /// A commit begins to wait for the disk.
    pub(super) fn begins(&self, now: Instant) {
        lock(&self.0).began = Some(now);
    }

    /// It waits no longer.
    pub(super) fn ends(&self, now: Instant) {
        let mut state = lock(&self.0);
        let Some(began) = state.began.take() else { return };
        let took = now.saturating_duration_since(began);
        let was_slow = state.slow.is_some();
        state.slow = (took >= SLOW).then_some(Slow { took, at: now });
        match (was_slow, took >= SLOW) {
            (false, true) => tracing::warn!(?took, "commits wait for the disk, and events for commits"),
            (true, false) => tracing::info!(?took, "commits are quick again"),
            _ => {}
        }
    }

    /// Nothing can be written, until [`Self::mended`].
    pub(super) fn fails(&self, error: &Error) {
        lock(&self.0).failed = Some(error.to_string());
    }

    /// What can't be written is known to be so, and the engine is open again.
    pub(super) fn mended(&self) {
        lock(&self.0).failed = None;
    }

    pub(super) fn trouble(&self, now: Instant) -> Option<Trouble> {
        let state = lock(&self.0);
        if let Some(reason) = &state.failed {
            return Some(Trouble::Unwritable(reason.clone()));
        }
        let waits = state.began.map(|began| now.saturating_duration_since(began));
        let took = state
            .slow
            .filter(|slow| now.saturating_duration_since(slow.at) < RECENT)
            .map(|slow| slow.took);
        waits.max(took).filter(|longest| *longest >= SLOW).map(Trouble::Slow)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;

    fn after(start: Instant, ms: u64) -> Instant {
        start + Duration::from_millis(ms)
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_commit_is_trouble_while_it_waits_and_a_while_after() {
        let (health, start) = (Health::default(), Clock::system().now());
        health.begins(start);
        assert_eq!(health.trouble(after(start, 499)), None);
        let slow = |ms| Some(Trouble::Slow(Duration::from_millis(ms)));
        assert_eq!(health.trouble(after(start, 700)), slow(700));
        health.ends(after(start, 900));
        assert_eq!(health.trouble(after(start, 1_000)), slow(900));
        assert_eq!(health.trouble(after(start, 10_900)), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_quick_commit_ends_it() {
        let (health, start) = (Health::default(), Clock::system().now());
        for ms in [900, 3] {
            health.begins(start);
            health.ends(after(start, ms));
        }
        assert_eq!(health.trouble(start), None);
    }

    #[tokio::test(start_paused = true)]
    async fn what_can_not_be_written_is_trouble_until_it_is_mended() {
        let (health, start) = (Health::default(), Clock::system().now());
        health.fails(&Error::Unavailable("no space".to_owned()));
        let trouble = health.trouble(after(start, 60_000)).unwrap().to_string();
        assert!(trouble.contains("no space"), "{trouble}");
        health.mended();
        assert_eq!(health.trouble(start), None);
    }
}
