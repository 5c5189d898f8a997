//! Whether a whole consumer pauses: a state machine of values in, values out.
//!
//! It opens when the plugin as such fails (a bad build, a downstream that is gone), so that the broker keeps the events instead
//! of all of them burning into the dead letters. One bad key is no bad plugin: the failures must come from several keys. A
//! `permanent` failure is the plugin's judgement of an event, not a failure of the plugin, and does not count.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use tokio::time::Instant;

use crate::plan;

/// The breaker of one consumer.
#[derive(Debug)]
pub struct Breaker {
    plan: plan::Breaker,
    window: VecDeque<(u64, bool)>,
    failing: HashMap<u64, u32>,
    failures: usize,
    phase: Phase,
    /// How often in a row it opened, for how long it stays so.
    opened: u32,
    era: Era,
}

/// Counts the openings: an attempt that began in another era says nothing of this one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Era(u64);

/// What a breaker lets through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Everything.
    Closed,
    /// Nothing until then.
    Open(Instant),
    /// One event, to see.
    HalfOpen,
}

impl Breaker {
    /// A closed breaker.
    #[must_use]
    pub fn new(plan: plan::Breaker) -> Self {
        Self {
            plan,
            window: VecDeque::new(),
            failing: HashMap::new(),
            failures: 0,
            phase: Phase::Closed,
            opened: 0,
            era: Era::default(),
        }
    }

    /// The era in which what begins now begins.
    #[must_use]
    pub fn era(&self) -> Era {
        self.era
    }

    /// What it lets through at `now`.
    pub fn phase(&mut self, now: Instant) -> Phase {
        if let Phase::Open(until) = self.phase
            && now >= until
        {
            self.phase = Phase::HalfOpen;
        }
        self.phase
    }

    /// Notes how an attempt of the lane ended that began in an era; says the new phase if that changed it.
    pub fn note(&mut self, lane: u64, began: Era, failed: bool, now: Instant) -> Option<Phase> {
        let phase = self.phase(now);
        if began != self.era {
            // A straggler: it began before the breaker opened.
            return None;
        }
        match phase {
            Phase::Closed => {
                self.remember(lane, failed);
                self.is_failing().then(|| self.open(now))
            }
            Phase::HalfOpen if failed => Some(self.open(now)),
            Phase::HalfOpen => Some(self.close()),
            Phase::Open(_) => None,
        }
    }

    fn remember(&mut self, lane: u64, failed: bool) {
        self.window.push_back((lane, failed));
        if failed {
            self.failures += 1;
            *self.failing.entry(lane).or_default() += 1;
        }
        while self.window.len() > self.plan.window.get() {
            if let Some((lane, true)) = self.window.pop_front() {
                self.forget(lane);
            }
        }
    }

    fn forget(&mut self, lane: u64) {
        self.failures -= 1;
        if let Some(count) = self.failing.get_mut(&lane) {
            *count -= 1;
            if *count == 0 {
                self.failing.remove(&lane);
            }
        }
    }

    fn is_failing(&self) -> bool {
        let seen = self.window.len();
        #[expect(clippy::cast_precision_loss, reason = "a window is far below 2^52")]
        let rate = self.failures as f64 / seen.max(1) as f64;
        seen * 2 >= self.plan.window.get()
            && rate >= self.plan.failure_rate
            && self.failing.len() >= self.plan.keys_min.get()
    }

    fn open(&mut self, now: Instant) -> Phase {
        let stay = self.plan.open_min.saturating_mul(1 << self.opened.min(16));
        self.opened += 1;
        self.era.0 += 1;
        self.clear();
        self.phase = Phase::Open(now + stay.min(self.plan.open_max).max(Duration::from_millis(1)));
        self.phase
    }

    fn close(&mut self) -> Phase {
        self.opened = 0;
        self.clear();
        self.phase = Phase::Closed;
        self.phase
    }

    fn clear(&mut self) {
        self.window.clear();
        self.failing.clear();
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroUsize;

    use super::*;

    fn breaker() -> Breaker {
        Breaker::new(plan::Breaker {
            failure_rate: 0.5,
            window: NonZeroUsize::new(10).unwrap(),
            keys_min: NonZeroUsize::new(3).unwrap(),
            open_min: Duration::from_secs(5),
            open_max: Duration::from_secs(8),
        })
    }

    fn note(breaker: &mut Breaker, lane: u64, failed: bool, now: Instant) -> Option<Phase> {
        breaker.note(lane, breaker.era(), failed, now)
    }

    fn now() -> Instant {
        crate::clock::Clock::system().now()
    }

    #[test]
    fn opens_on_failures_of_several_keys() {
        let (mut breaker, now) = (breaker(), now());
        for lane in 0..4 {
            assert_eq!(note(&mut breaker, lane, true, now), None, "too few attempts to judge");
        }
        assert_eq!(
            note(&mut breaker, 4, true, now),
            Some(Phase::Open(now + Duration::from_secs(5)))
        );
    }

    #[test]
    fn one_bad_key_never_opens_it() {
        let (mut breaker, now) = (breaker(), now());
        for _ in 0..1_000 {
            assert_eq!(note(&mut breaker, 7, true, now), None);
        }
        assert_eq!(breaker.phase(now), Phase::Closed);
    }

    #[test]
    fn old_failures_leave_the_window() {
        let (mut breaker, now) = (breaker(), now());
        for lane in 0..4 {
            note(&mut breaker, lane, true, now);
        }
        for _ in 0..10 {
            note(&mut breaker, 1, false, now);
        }
        for lane in 0..4 {
            assert_eq!(note(&mut breaker, lane, true, now), None, "four of ten is below half");
        }
    }

    #[test]
    fn a_probe_closes_it_or_opens_it_for_longer() {
        let (mut breaker, mut now) = (breaker(), now());
        for lane in 0..5 {
            note(&mut breaker, lane, true, now);
        }
        now += Duration::from_secs(5);
        assert_eq!(breaker.phase(now), Phase::HalfOpen);
        let longer = now + Duration::from_secs(8);
        assert_eq!(
            note(&mut breaker, 1, true, now),
            Some(Phase::Open(longer)),
            "doubled, up to open_max"
        );
        assert_eq!(note(&mut breaker, 1, false, longer), Some(Phase::Closed));
    }

    #[test]
    fn a_straggler_from_before_it_opened_is_no_probe() {
        let (mut breaker, mut now) = (breaker(), now());
        let before = breaker.era();
        for lane in 0..5 {
            note(&mut breaker, lane, true, now);
        }
        now += Duration::from_secs(5);
        for failed in [false, true] {
            assert_eq!(breaker.note(1, before, failed, now), None);
            assert_eq!(breaker.phase(now), Phase::HalfOpen);
        }
        assert_eq!(note(&mut breaker, 1, false, now), Some(Phase::Closed));
    }
}
