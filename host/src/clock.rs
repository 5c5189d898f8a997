//! The only place that reads time and randomness, so that a run can be repeated from a seed.
//!
//! Monotonic time is tokio's, which tests pause; wall time is derived from one reading at start plus the monotonic time
//! since, so that it stands still with it and never runs backwards.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

/// A point in wall time: milliseconds since 1970-01-01T00:00:00Z. Shown and written for people as RFC 3339.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Timestamp(pub u64);

impl Timestamp {
    /// The point `duration` later.
    #[must_use]
    pub fn after(self, duration: Duration) -> Self {
        Self(
            self.0
                .saturating_add(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)),
        )
    }

    /// How long from `earlier` to here; zero if `earlier` is later.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = i64::try_from(self.0).unwrap_or(i64::MAX);
        match jiff::Timestamp::from_millisecond(ms) {
            Ok(timestamp) => write!(f, "{timestamp:.3}"),
            Err(_) => write!(f, "{}ms", self.0),
        }
    }
}

/// Reads time and draws random numbers. One per process; cloning shares it, and tasks may share it.
#[derive(Clone, Debug)]
pub struct Clock(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    started: Instant,
    started_at: Timestamp,
    random: AtomicU64,
}

impl Clock {
    /// The machine's clock, with randomness from the operating system.
    #[must_use]
    #[expect(
        clippy::disallowed_methods,
        reason = "this is the one reader of the machine's clock and entropy"
    )]
    pub fn system() -> Self {
        let wall = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default();
        Self::new(Timestamp(0).after(wall), fastrand::u64(..))
    }

    /// A clock that starts at `at` and repeats its random numbers for the same `seed`: for tests and simulation.
    #[must_use]
    pub fn seeded(at: Timestamp, seed: u64) -> Self {
        Self::new(at, seed)
    }

    #[expect(clippy::disallowed_methods, reason = "this is the one reader of monotonic time")]
    fn new(started_at: Timestamp, seed: u64) -> Self {
        Self(Arc::new(Inner {
            started: Instant::now(),
            started_at,
            random: AtomicU64::new(seed),
        }))
    }

    /// Monotonic time.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "this is the one reader of monotonic time")]
    pub fn now(&self) -> Instant {
        Instant::now()
    }

    /// Wall time.
    #[must_use]
    pub fn wall(&self) -> Timestamp {
        self.0
            .started_at
            .after(self.now().saturating_duration_since(self.0.started))
    }

    /// The monotonic instant at which the wall clock will show `at`; now, if that has passed.
    #[must_use]
    pub fn instant_of(&self, at: Timestamp) -> Instant {
        self.now() + at.since(self.wall())
    }

    /// A random number in `0.0..1.0`.
    #[must_use]
    pub fn random(&self) -> f64 {
        // Weyl sequence: each caller gets its own seed without a lock.
        let seed = self.0.random.fetch_add(0x9E37_79B9_7F4A_7C15, Ordering::Relaxed);
        fastrand::Rng::with_seed(seed).f64()
    }
}
