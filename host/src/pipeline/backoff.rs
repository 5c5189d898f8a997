//! How long to wait before the next attempt: a pure computation, randomness handed in.

use std::time::Duration;

use crate::plan::Retry;

/// The pause after the `failed`th failure.
///
/// It doubles from `backoff_min` to `backoff_max`, and the upper half of it is random, so that events that failed
/// together do not return together. What the plugin asked for is honoured instead, within the same bounds, and lengthened by up to a tenth.
#[must_use]
pub fn pause(retry: &Retry, failed: u32, asked: Option<Duration>, random: f64) -> Duration {
    if let Some(asked) = asked {
        let asked = asked.clamp(retry.backoff_min, retry.backoff_max);
        return asked + asked.mul_f64(0.1 * random.clamp(0.0, 1.0));
    }
    let doublings = failed.saturating_sub(1).min(31);
    let whole = retry.backoff_min.saturating_mul(1 << doublings).min(retry.backoff_max);
    whole / 2 + (whole / 2).mul_f64(random.clamp(0.0, 1.0))
}

#[cfg(test)]
mod tests {
    use std::num::{NonZeroU32, NonZeroUsize};

    use super::*;

    fn check(failed: u32, asked: Option<u64>, random: f64, expected_ms: u64) {
        let retry = Retry {
            attempts: NonZeroU32::MIN,
            backoff_min: Duration::from_millis(100),
            backoff_max: Duration::from_secs(10),
            park_after: Duration::from_secs(5),
            park_over: NonZeroUsize::MIN,
            parked_max: NonZeroUsize::MIN,
        };
        let pause = pause(&retry, failed, asked.map(Duration::from_millis), random);
        assert_eq!(pause, Duration::from_millis(expected_ms));
    }

    #[test]
    fn doubles_from_the_shortest_to_the_longest() {
        check(1, None, 1.0, 100);
        check(2, None, 1.0, 200);
        check(3, None, 1.0, 400);
        check(8, None, 1.0, 10_000);
        check(u32::MAX, None, 1.0, 10_000);
    }

    #[test]
    fn half_of_it_is_random() {
        check(1, None, 0.0, 50);
        check(1, None, 0.5, 75);
    }

    #[test]
    fn what_the_plugin_asks_for_is_honoured_within_bounds() {
        check(1, Some(3_000), 0.0, 3_000);
        check(1, Some(3_000), 1.0, 3_300);
        check(1, Some(0), 0.0, 100);
        check(1, Some(3_600_000), 0.0, 10_000);
    }
}
