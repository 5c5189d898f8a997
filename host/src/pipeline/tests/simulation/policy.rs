//! The consumer of a run: every policy that changes what the pipeline does, drawn from the seed, with narrow bounds.

use std::num::{NonZeroU32, NonZeroUsize};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::case::{Case, rng};
use crate::pipeline::tests::stage::{name, outside_stream};
use crate::plan::{
    Breaker, Budget, Consumer, Grants, Instances, Key, Limits, OnDead, Retry, SettleWhen, Stream, TypePattern,
};

/// Where the outputs go.
pub(super) const OUTPUTS: &str = "stock";
/// Where dead letters are published too.
pub(super) const DEAD: &str = "dead";

pub(super) fn stream() -> Arc<Stream> {
    outside_stream("orders")
}

pub(super) fn consumer(case: &Case) -> Consumer {
    let mut rng = rng(case.seed, "policy");
    let concurrency = rng.usize(1..=8);
    let events = concurrency + rng.usize(0..=24);
    let ms = Duration::from_millis;
    let is_never_open = rng.bool();
    let window = if is_never_open { 10_000 } else { rng.usize(4..=12) };
    Consumer {
        name: name("test"),
        plugin: PathBuf::new(),
        digest: None,
        reads: stream(),
        writes: Vec::new(),
        types: vec![TypePattern::Prefix("order.".to_owned())],
        key: Key::Attribute("subject".to_owned()),
        concurrency: many(concurrency),
        budget: Budget {
            events: many(events),
            bytes: many([1_000, 1 << 20, 1 << 20][rng.usize(0..3)]),
        },
        retry: Retry {
            attempts: NonZeroU32::new(rng.u32(1..=5)).unwrap(),
            backoff_min: ms([1, 20, 100][rng.usize(0..3)]),
            backoff_max: ms(2_000),
            park_after: ms([10, 300, 5_000][rng.usize(0..3)]),
            park_over: many(rng.usize(1..=events)),
            parked_max: many([3, 12, 10_000][rng.usize(0..3)]),
        },
        limits: limits(),
        grants: Grants::default(),
        instances: Instances::Fresh,
        on_dead: [OnDead::Continue, OnDead::HoldKey][rng.usize(0..2)],
        dead_letter: rng.bool().then(|| outside_stream(DEAD)),
        settle: [SettleWhen::Confirmed, SettleWhen::Committed][rng.usize(0..2)],
        breaker: Breaker {
            failure_rate: 0.5,
            window: many(window),
            keys_min: many(if is_never_open { 10_000 } else { rng.usize(1..=3) }),
            open_min: ms(rng.u64(10..=500)),
            open_max: ms(2_000),
        },
    }
}

/// Whether the breaker of a run may open.
pub(super) fn can_open(plan: &Consumer) -> bool {
    plan.breaker.keys_min.get() < 10_000
}

fn many(number: usize) -> NonZeroUsize {
    NonZeroUsize::new(number).unwrap()
}

fn limits() -> Limits {
    Limits {
        memory: 1 << 20,
        time: Duration::from_secs(60),
        table_elements: 100,
        emits: 100,
        emit_bytes: 1 << 20,
        state_writes: 100,
        effect_bytes: 1 << 20,
        log_lines: 100,
        log_line_bytes: 1_000,
    }
}
