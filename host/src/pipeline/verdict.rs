//! What follows an attempt: a pure decision over its outcome, what failed before, and the consumer's policy.

use std::time::Duration;

use super::backoff;
use super::breaker::Phase;
use crate::outcome::{Class, Failure, Outcome, Reason};
use crate::plan::Retry;

/// What follows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Its effects take effect.
    Commit,
    /// It failed, durably counted, and is tried again after the pause.
    Retry(Duration),
    /// It is a dead letter.
    Dead(Reason),
    /// Nothing is counted against it; it runs again when the trouble is over.
    Hold,
}

/// Decides. `failed` is how many attempts of the event failed before this one; `phase` is the breaker's after this one was noted.
#[must_use]
pub fn verdict(outcome: &Outcome, failed: u32, retry: &Retry, phase: Phase, random: f64) -> Verdict {
    match outcome {
        Outcome::Succeeded => Verdict::Commit,
        Outcome::NotRun(_) => Verdict::Hold,
        Outcome::Failed(failure) => after_failure(failure, failed + 1, retry, phase, random),
    }
}

fn after_failure(failure: &Failure, failed: u32, retry: &Retry, phase: Phase, random: f64) -> Verdict {
    if failure.class == Class::Permanent {
        return Verdict::Dead(Reason::Permanent);
    }
    // While the plugin as a whole fails, a passing failure says nothing about this event. A trap does: it is counted, so that
    // a stream of nothing but bad events still ends.
    let is_passing = matches!(failure.class, Class::Transient | Class::TimeLimit);
    if phase != Phase::Closed && is_passing {
        return Verdict::Hold;
    }
    if failed >= retry.attempts.get() {
        return Verdict::Dead(reason(failure.class));
    }
    Verdict::Retry(backoff::pause(retry, failed, failure.retry_after, random))
}

/// Why an event whose last attempt ended so is a dead letter.
fn reason(class: Class) -> Reason {
    match class {
        Class::Transient => Reason::AttemptsExhausted,
        Class::Permanent => Reason::Permanent,
        Class::Trap => Reason::Trap,
        Class::TimeLimit => Reason::TimeLimit,
        Class::MemoryLimit | Class::StackOverflow => Reason::MemoryLimit,
        Class::EffectLimit => Reason::EffectLimit,
    }
}

#[cfg(test)]
mod tests {
    use std::num::{NonZeroU32, NonZeroUsize};

    use super::*;

    fn check(class: Class, failed: u32, phase: Phase, expected: Verdict) {
        let retry = Retry {
            attempts: NonZeroU32::new(3).unwrap(),
            backoff_min: Duration::from_millis(100),
            backoff_max: Duration::from_secs(10),
            park_after: Duration::from_secs(5),
            park_over: NonZeroUsize::MIN,
            parked_max: NonZeroUsize::MIN,
        };
        let failure = Failure {
            class,
            message: String::new(),
            backtrace: Vec::new(),
            retry_after: None,
        };
        assert_eq!(verdict(&Outcome::Failed(failure), failed, &retry, phase, 1.0), expected);
    }

    #[test]
    fn a_passing_failure_is_tried_again_until_its_attempts_are_used() {
        check(
            Class::Transient,
            0,
            Phase::Closed,
            Verdict::Retry(Duration::from_millis(100)),
        );
        check(
            Class::Transient,
            1,
            Phase::Closed,
            Verdict::Retry(Duration::from_millis(200)),
        );
        check(
            Class::Transient,
            2,
            Phase::Closed,
            Verdict::Dead(Reason::AttemptsExhausted),
        );
        check(Class::Trap, 2, Phase::Closed, Verdict::Dead(Reason::Trap));
        check(
            Class::StackOverflow,
            7,
            Phase::Closed,
            Verdict::Dead(Reason::MemoryLimit),
        );
    }

    #[test]
    fn a_permanent_failure_is_dead_at_once() {
        check(Class::Permanent, 0, Phase::Closed, Verdict::Dead(Reason::Permanent));
        check(Class::Permanent, 0, Phase::HalfOpen, Verdict::Dead(Reason::Permanent));
    }

    #[test]
    fn while_the_breaker_is_not_closed_passing_failures_count_for_nothing() {
        check(Class::Transient, 2, Phase::HalfOpen, Verdict::Hold);
        check(Class::TimeLimit, 2, Phase::HalfOpen, Verdict::Hold);
        check(Class::Trap, 2, Phase::HalfOpen, Verdict::Dead(Reason::Trap));
    }
}
