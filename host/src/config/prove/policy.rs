//! Proves the numbers of a consumer: budget, retry, limits, breaker, reuse.

use std::num::NonZeroUsize;
use std::time::Duration;

use super::{DAY, GIB, HOUR, KIB, MIB, MINUTE, Prover, count, count32, given, whole};
use crate::config::file;
use crate::config::problem::Code;
use crate::config::quantity::{Periods, show_period};
use crate::config::read::At;
use crate::plan;

const SECOND: Duration = Duration::from_secs(1);
const MILLISECOND: Duration = Duration::from_millis(1);

impl Prover<'_, '_> {
    pub(super) fn budget(&mut self, field: &Option<At<file::Budget>>, concurrency: NonZeroUsize) -> plan::Budget {
        let none = file::Budget::default();
        let budget = given(field).map_or(&none, |(budget, _)| budget);
        let least = u64::try_from(concurrency.get()).unwrap_or(u64::MAX);
        let default = (16 * least).clamp(1_024, 16_384);
        let events = self.bounded(&budget.events, "events", default, least..=65_536);
        let bytes = self.bounded(&budget.bytes, "bytes", 64 * MIB, 64 * KIB..=4 * GIB);
        plan::Budget {
            events: count(events),
            bytes: count(bytes),
        }
    }

    pub(super) fn retry(&mut self, field: &Option<At<file::Retry>>, budget: plan::Budget) -> plan::Retry {
        let none = file::Retry::default();
        let retry = given(field).map_or(&none, |(retry, _)| retry);
        let backoff = self.range(
            &retry.backoff,
            "backoff",
            Periods {
                min: 100 * MILLISECOND,
                max: 10 * SECOND,
            },
            Periods {
                min: MILLISECOND,
                max: DAY,
            },
        );
        let events = u64::try_from(budget.events.get()).unwrap_or(u64::MAX);
        plan::Retry {
            attempts: count32(self.bounded(&retry.attempts, "attempts", 5, 1..=1_000)),
            backoff_min: backoff.min,
            backoff_max: backoff.max,
            park_after: self.bounded(&retry.park_after, "park_after", 5 * SECOND, 10 * MILLISECOND..=HOUR),
            park_over: count(self.bounded(&retry.park_over, "park_over", (events / 8).max(1), 1..=events)),
            parked_max: count(self.bounded(&retry.parked_max, "parked_max", 1_000_000, 1..=1_000_000_000)),
        }
    }

    pub(super) fn limits(&mut self, field: &Option<At<file::Limits>>) -> plan::Limits {
        let none = file::Limits::default();
        let limits = given(field).map_or(&none, |(limits, _)| limits);
        let effect_bytes = self.bounded(&limits.effect_bytes, "effect_bytes", 8 * MIB, KIB..=256 * MIB);
        let emit_bytes_max = effect_bytes.min(64 * MIB);
        plan::Limits {
            memory: whole(self.bounded(&limits.memory, "memory", 64 * MIB, 64 * KIB..=4 * GIB)),
            time: self.bounded(&limits.time, "time", 2 * SECOND, MILLISECOND..=15 * MINUTE),
            table_elements: whole(self.bounded(&limits.table_elements, "table_elements", 20_000, 0..=10_000_000)),
            emits: whole(self.bounded(&limits.emits, "emits", 100, 0..=10_000)),
            emit_bytes: whole(self.bounded(
                &limits.emit_bytes,
                "emit_bytes",
                emit_bytes_max.min(MIB),
                KIB..=emit_bytes_max,
            )),
            state_writes: whole(self.bounded(&limits.state_writes, "state_writes", 1_000, 0..=100_000)),
            effect_bytes: whole(effect_bytes),
            log_lines: whole(self.bounded(&limits.log_lines, "log_lines", 100, 0..=10_000)),
            log_line_bytes: whole(self.bounded(&limits.log_line_bytes, "log_line_bytes", 4 * KIB, 64..=64 * KIB)),
        }
    }

    pub(super) fn breaker(&mut self, field: &Option<At<file::Breaker>>) -> plan::Breaker {
        let none = file::Breaker::default();
        let breaker = given(field).map_or(&none, |(breaker, _)| breaker);
        let window = self.bounded(&breaker.window, "window", 100, 2..=10_000);
        let open = self.range(
            &breaker.open,
            "open",
            Periods {
                min: 5 * SECOND,
                max: MINUTE,
            },
            Periods {
                min: 10 * MILLISECOND,
                max: HOUR,
            },
        );
        plan::Breaker {
            failure_rate: self.failure_rate(&breaker.failure_rate),
            window: count(window),
            keys_min: count(self.bounded(&breaker.keys_min, "keys_min", 5.min(window), 1..=window)),
            open_min: open.min,
            open_max: open.max,
        }
    }

    fn failure_rate(&mut self, field: &Option<At<f64>>) -> f64 {
        let Some((rate, span)) = given(field) else {
            return 0.5;
        };
        if !(*rate > 0.0 && *rate <= 1.0) {
            let message = format!("`failure_rate` is {rate}");
            self.sheet
                .error(Code::OutOfBounds, span, message)
                .hint("it must be above 0 and at most 1");
        }
        *rate
    }

    pub(super) fn instances(&mut self, field: &Option<At<file::Instances>>) -> plan::Instances {
        let reuse = match given(field) {
            None | Some((file::Instances::Fresh, _)) => return plan::Instances::Fresh,
            Some((file::Instances::Reuse(reuse), _)) => reuse,
        };
        let uses_max = self.bounded(&reuse.uses_max, "uses_max", 10_000, 1..=u64::from(u32::MAX));
        plan::Instances::Reuse {
            uses_max: count32(uses_max),
            age_max: self.bounded(&reuse.age_max, "age_max", 10 * MINUTE, SECOND..=DAY),
        }
    }

    /// A range within bounds.
    fn range(&mut self, field: &Option<At<Periods>>, key: &str, default: Periods, bounds: Periods) -> Periods {
        let Some((range, span)) = given(field) else {
            return default;
        };
        if range.min >= bounds.min && range.max <= bounds.max {
            return *range;
        }
        let show = |range: Periods| {
            let (min, max) = (show_period(range.min), show_period(range.max));
            format!("{min}..{max}")
        };
        let message = format!("`{key}` is {}", show(*range));
        self.sheet
            .error(Code::OutOfBounds, span, message)
            .hint(format!("it must lie within {}", show(bounds)));
        default
    }
}
