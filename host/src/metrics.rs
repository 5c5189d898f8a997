//! What the host counts and logs: one function per happening records both, so that they cannot disagree.
//!
//! Counters of a consumer are looked up once, when it starts; on the way of an event they are plain atomic additions. Labels
//! come from closed lists: consumer and stream names of the config, outcomes, classes and reasons.

use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};
use tracing::{debug, error, info, warn};

use crate::ledger::Trouble;
use crate::outcome::{Class, Failure, Outcome, Reason};
use crate::pipeline::breaker::Phase;
use crate::plan::Name;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByConsumer {
    consumer: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByOutcome {
    consumer: String,
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByReason {
    consumer: String,
    reason: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByStream {
    stream: String,
}

type Consumers<M> = Family<ByConsumer, M>;
type Streams<M> = Family<ByStream, M>;

/// All metrics of a host. One per process; cloning shares it.
#[derive(Clone)]
pub struct Metrics(Arc<Families>);

struct Families {
    registry: Registry,
    deliveries: Family<ByOutcome, Counter>,
    attempts: Family<ByOutcome, Counter>,
    dead: Family<ByReason, Counter>,
    emitted: Consumers<Counter>,
    attempt_seconds: Family<ByConsumer, Histogram, fn() -> Histogram>,
    event_seconds: Family<ByConsumer, Histogram, fn() -> Histogram>,
    lanes: Consumers<Gauge>,
    in_flight: Consumers<Gauge>,
    held_bytes: Consumers<Gauge>,
    parked: Consumers<Gauge>,
    parking_full: Consumers<Gauge>,
    subscribed: Consumers<Gauge>,
    breaker: Consumers<Gauge>,
    conflicts: Consumers<Counter>,
    ledger_errors: Consumers<Counter>,
    ledger_trouble: Gauge,
    outbox: Streams<Gauge>,
    published: Streams<Counter>,
    publish_errors: Streams<Counter>,
    ingress: Family<ByOutcome, Counter>,
}

fn seconds() -> Histogram {
    // 10 us to about 30 s in steps of the root of two: an attempt is 10 us to seconds, an event at least one fsync.
    Histogram::new(exponential_buckets(0.000_01, std::f64::consts::SQRT_2, 44))
}

impl Metrics {
    /// Metrics with nothing counted.
    #[must_use]
    pub fn new() -> Self {
        let mut families = Families {
            registry: Registry::with_prefix("tidegate"),
            deliveries: Family::default(),
            attempts: Family::default(),
            dead: Family::default(),
            emitted: Family::default(),
            attempt_seconds: Family::new_with_constructor(seconds),
            event_seconds: Family::new_with_constructor(seconds),
            lanes: Family::default(),
            in_flight: Family::default(),
            held_bytes: Family::default(),
            parked: Family::default(),
            parking_full: Family::default(),
            subscribed: Family::default(),
            breaker: Family::default(),
            conflicts: Family::default(),
            ledger_errors: Family::default(),
            ledger_trouble: Gauge::default(),
            outbox: Family::default(),
            published: Family::default(),
            publish_errors: Family::default(),
            ingress: Family::default(),
        };
        families.register();
        Self(Arc::new(families))
    }

    /// The handles of one consumer.
    #[must_use]
    pub fn consumer(&self, name: &Name) -> Consumer {
        let families = &self.0;
        let by = ByConsumer {
            consumer: name.to_string(),
        };
        let outcome = |family: &Family<ByOutcome, Counter>, outcome| {
            family.get_or_create_owned(&ByOutcome {
                consumer: name.to_string(),
                outcome,
            })
        };
        Consumer(Arc::new(Counters {
            name: name.clone(),
            committed: outcome(&families.deliveries, "committed"),
            duplicate: outcome(&families.deliveries, "duplicate"),
            dead_delivery: outcome(&families.deliveries, "dead"),
            held: outcome(&families.deliveries, "held"),
            unwanted: outcome(&families.deliveries, "unwanted"),
            parked_delivery: outcome(&families.deliveries, "parked"),
            succeeded: outcome(&families.attempts, "succeeded"),
            not_run: outcome(&families.attempts, "not-run"),
            emitted: families.emitted.get_or_create_owned(&by),
            attempt_seconds: families.attempt_seconds.get_or_create_owned(&by),
            event_seconds: families.event_seconds.get_or_create_owned(&by),
            lanes: families.lanes.get_or_create_owned(&by),
            in_flight: families.in_flight.get_or_create_owned(&by),
            held_bytes: families.held_bytes.get_or_create_owned(&by),
            parked: families.parked.get_or_create_owned(&by),
            parking_full: families.parking_full.get_or_create_owned(&by),
            subscribed: families.subscribed.get_or_create_owned(&by),
            breaker: families.breaker.get_or_create_owned(&by),
            conflicts: families.conflicts.get_or_create_owned(&by),
            ledger_errors: families.ledger_errors.get_or_create_owned(&by),
            trouble: Mutex::default(),
            all: self.clone(),
        }))
    }

    /// The handles of one stream that is written.
    #[must_use]
    pub fn stream(&self, name: &Name) -> Stream {
        let by = ByStream {
            stream: name.to_string(),
        };
        Stream {
            name: name.clone(),
            outbox: self.0.outbox.get_or_create_owned(&by),
            published: self.0.published.get_or_create_owned(&by),
            errors: self.0.publish_errors.get_or_create_owned(&by),
            trouble: Arc::default(),
        }
    }

    /// Why the ledger holds up the host now, if it does. Whoever can't write says so in the log.
    pub fn ledger_trouble(&self, trouble: Option<&Trouble>) {
        self.0.ledger_trouble.set(match trouble {
            None => 0,
            Some(Trouble::Slow(_)) => 1,
            Some(Trouble::Unwritable(_)) => 2,
        });
    }

    /// All of them in the Prometheus text format.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = String::new();
        // Writing to a string does not fail.
        let _ = prometheus_client::encoding::text::encode(&mut text, &self.0.registry);
        text
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Families {
    fn register(&mut self) {
        let registry = &mut self.registry;
        registry.register(
            "deliveries",
            "Deliveries, by what became of them",
            self.deliveries.clone(),
        );
        registry.register("attempts", "Calls of plugins, by how they ended", self.attempts.clone());
        registry.register(
            "dead_letters",
            "Events that became dead letters, by reason",
            self.dead.clone(),
        );
        registry.register("emitted", "Events emitted and committed", self.emitted.clone());
        registry.register_with_unit(
            "attempt",
            "How long calls of plugins ran",
            Unit::Seconds,
            self.attempt_seconds.clone(),
        );
        registry.register_with_unit(
            "event",
            "From taking a delivery to settling it",
            Unit::Seconds,
            self.event_seconds.clone(),
        );
        registry.register("lanes", "Keys with events in memory or parked", self.lanes.clone());
        registry.register("in_flight", "Deliveries taken and not settled", self.in_flight.clone());
        registry.register(
            "in_flight_bytes",
            "Bytes of deliveries taken and not settled",
            self.held_bytes.clone(),
        );
        registry.register("parked", "Events waiting in the ledger", self.parked.clone());
        registry.register(
            "parking_full",
            "Whether events wait for room among the parked ones",
            self.parking_full.clone(),
        );
        registry.register(
            "subscribed",
            "Whether the consumer's subscription is open",
            self.subscribed.clone(),
        );
        registry.register(
            "breaker",
            "The breaker: 0 closed, 1 half open, 2 open",
            self.breaker.clone(),
        );
        registry.register(
            "state_conflicts",
            "Attempts run again because state they read had changed",
            self.conflicts.clone(),
        );
        registry.register(
            "ledger_errors",
            "Calls of the ledger that failed and were repeated",
            self.ledger_errors.clone(),
        );
        registry.register(
            "ledger_trouble",
            "Whether the ledger holds up the host: 0 it does not, 1 commits wait long for its disk, 2 it can't be written",
            self.ledger_trouble.clone(),
        );
        registry.register("outbox", "Committed outputs not yet confirmed", self.outbox.clone());
        registry.register("published", "Outputs confirmed by their broker", self.published.clone());
        registry.register(
            "publish_errors",
            "Attempts to publish that failed",
            self.publish_errors.clone(),
        );
        registry.register("ingress", "Events received over HTTP, by outcome", self.ingress.clone());
    }
}

/// One consumer's happenings. Cloning shares the counters, and costs one reference count.
#[derive(Clone)]
pub struct Consumer(Arc<Counters>);

struct Counters {
    name: Name,
    committed: Counter,
    duplicate: Counter,
    dead_delivery: Counter,
    held: Counter,
    unwanted: Counter,
    parked_delivery: Counter,
    succeeded: Counter,
    not_run: Counter,
    emitted: Counter,
    attempt_seconds: Histogram,
    event_seconds: Histogram,
    lanes: Gauge,
    in_flight: Gauge,
    held_bytes: Gauge,
    parked: Gauge,
    parking_full: Gauge,
    subscribed: Gauge,
    breaker: Gauge,
    conflicts: Counter,
    ledger_errors: Counter,
    trouble: Mutex<Option<String>>,
    all: Metrics,
}

/// What has become of a consumer's deliveries so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, utoipa::ToSchema)]
pub struct Counts {
    /// Took effect.
    pub committed: u64,
    /// Had taken effect before.
    pub duplicate: u64,
    /// Became dead letters.
    pub dead: u64,
    /// Were handed back or held for no fault of theirs.
    pub held: u64,
    /// Were of types that the consumer does not want.
    pub unwanted: u64,
    /// Were moved into the ledger to wait there.
    pub parked: u64,
    /// Events emitted.
    pub emitted: u64,
}

impl Consumer {
    /// What has become of the deliveries so far.
    #[must_use]
    pub fn counts(&self) -> Counts {
        Counts {
            committed: self.0.committed.get(),
            duplicate: self.0.duplicate.get(),
            dead: self.0.dead_delivery.get(),
            held: self.0.held.get(),
            unwanted: self.0.unwanted.get(),
            parked: self.0.parked_delivery.get(),
            emitted: self.0.emitted.get(),
        }
    }

    /// An attempt ended.
    pub fn attempted(&self, event_id: &str, number: u32, outcome: &Outcome, duration: Duration) {
        self.0.attempt_seconds.observe(duration.as_secs_f64());
        match outcome {
            Outcome::Succeeded => _ = self.0.succeeded.inc(),
            Outcome::NotRun(why) => {
                self.0.not_run.inc();
                warn!(consumer = %self.0.name, event_id, error = %why, "attempt could not be run");
            }
            Outcome::Failed(failure) => self.failed(event_id, number, failure),
        }
    }

    fn failed(&self, event_id: &str, number: u32, failure: &Failure) {
        let Failure { class, message, .. } = failure;
        self.failures(*class).inc();
        debug!(consumer = %self.0.name, event_id, attempt = number, class = %class, error = %message, "attempt failed");
    }

    fn failures(&self, class: Class) -> Counter {
        let by = ByOutcome {
            consumer: self.0.name.to_string(),
            outcome: class.as_str(),
        };
        self.0.all.0.attempts.get_or_create_owned(&by)
    }

    /// An event took effect.
    pub fn committed(&self, outputs: usize) {
        self.0.committed.inc();
        self.0.emitted.inc_by(outputs as u64);
    }

    /// A delivery's event had taken effect before.
    pub fn duplicate(&self) {
        self.0.duplicate.inc();
    }

    /// A delivery was of a type that the consumer does not want.
    pub fn unwanted(&self, count: u64) {
        self.0.unwanted.inc_by(count);
    }

    /// An event became a dead letter.
    pub fn dead(&self, event_id: &str, reason: Reason, detail: &str) {
        self.0.dead_delivery.inc();
        let by = ByReason {
            consumer: self.0.name.to_string(),
            reason: reason.as_str(),
        };
        self.0.all.0.dead.get_or_create(&by).inc();
        warn!(consumer = %self.0.name, event_id, reason = %reason, error = %detail, "event became a dead letter");
    }

    /// An event was held for no fault of its own.
    pub fn held(&self, count: u64) {
        self.0.held.inc_by(count);
    }

    /// Events were moved into the ledger, to wait there.
    pub fn parked(&self, count: u64) {
        self.0.parked_delivery.inc_by(count);
    }

    /// A lane's events wait in the ledger from now on.
    pub fn lane_parked(&self, lane: &str, events: usize) {
        info!(consumer = %self.0.name, lane, events, "lane is parked: its events wait in the ledger");
    }

    /// A delivery was settled.
    pub fn settled(&self, since: Duration) {
        self.0.event_seconds.observe(since.as_secs_f64());
    }

    /// State that an attempt read had changed before it committed.
    pub fn conflict(&self) {
        self.0.conflicts.inc();
    }

    /// The ledger did not answer; the call is repeated.
    pub fn ledger_failed(&self, what: &'static str, error: &crate::ledger::Error) {
        self.0.ledger_errors.inc();
        error!(consumer = %self.0.name, what, error = %error, "ledger failed: holding until it answers");
    }

    /// How often the ledger failed.
    #[must_use]
    pub fn ledger_errors_now(&self) -> u64 {
        self.0.ledger_errors.get()
    }

    /// The subscription opened or was lost.
    pub fn subscribed(&self, is_open: bool) {
        self.0.subscribed.set(i64::from(is_open));
        if is_open {
            self.set_trouble(None);
        }
    }

    /// Whether the subscription is open.
    #[must_use]
    pub fn is_subscribed(&self) -> bool {
        self.0.subscribed.get() == 1
    }

    /// The subscription failed; it is tried again.
    pub fn source_failed(&self, error: &crate::broker::Error) {
        error!(consumer = %self.0.name, error = %error, "subscription failed: trying again");
        self.0.subscribed.set(0);
        self.set_trouble(Some(error.to_string()));
    }

    /// Why the subscription failed last, until it opens.
    #[must_use]
    pub fn trouble(&self) -> Option<String> {
        self.0.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set_trouble(&self, trouble: Option<String>) {
        *self.0.trouble.lock().unwrap_or_else(PoisonError::into_inner) = trouble;
    }

    /// The breaker changed.
    pub fn breaker(&self, phase: Phase) {
        let (state, value) = match phase {
            Phase::Closed => ("closed", 0),
            Phase::HalfOpen => ("half open", 1),
            Phase::Open(_) => ("open", 2),
        };
        if self.0.breaker.set(value) != value {
            warn!(consumer = %self.0.name, state, "breaker changed");
        }
    }

    /// How much is held right now.
    pub fn levels(&self, lanes: usize, in_flight: crate::broker::Room, parked: u64) {
        let level = |value: usize| i64::try_from(value).unwrap_or(i64::MAX);
        self.0.lanes.set(level(lanes));
        self.0.in_flight.set(level(in_flight.count));
        self.0.held_bytes.set(level(in_flight.bytes));
        self.0.parked.set(i64::try_from(parked).unwrap_or(i64::MAX));
    }

    /// Whether `parked_max` keeps events from being parked.
    pub fn parking_full(&self, is_full: bool) {
        if self.0.parking_full.set(i64::from(is_full)) != i64::from(is_full) {
            match is_full {
                true => warn!(consumer = %self.0.name, "parking is full: the stream waits for keys that do not move"),
                false => info!(consumer = %self.0.name, "parking has room again"),
            }
        }
    }

    /// Whether events wait for room among the parked ones.
    #[must_use]
    pub fn is_parking_full(&self) -> bool {
        self.0.parking_full.get() == 1
    }

    /// How many events wait in the ledger.
    #[must_use]
    pub fn parked_now(&self) -> i64 {
        self.0.parked.get()
    }

    /// How many deliveries are taken and not settled.
    #[must_use]
    pub fn in_flight_now(&self) -> i64 {
        self.0.in_flight.get()
    }

    /// 0 closed, 1 half open, 2 open.
    #[must_use]
    pub fn breaker_now(&self) -> i64 {
        self.0.breaker.get()
    }
}

/// The happenings of one stream that is written. Cloning shares the counters.
#[derive(Clone)]
pub struct Stream {
    name: Name,
    outbox: Gauge,
    published: Counter<u64, AtomicU64>,
    errors: Counter,
    trouble: Arc<Mutex<Option<String>>>,
}

impl Stream {
    /// Rows were committed and wait to be published.
    pub fn queued(&self, count: usize) {
        self.outbox.inc_by(i64::try_from(count).unwrap_or(i64::MAX));
    }

    /// The broker confirmed rows.
    pub fn confirmed(&self, count: usize) {
        self.outbox.dec_by(i64::try_from(count).unwrap_or(i64::MAX));
        self.published.inc_by(count as u64);
    }

    /// The broker refused a row for good; it became a dead letter.
    pub fn refused(&self, output_id: &str, error: &crate::broker::Error) {
        self.outbox.dec();
        self.errors.inc();
        error!(stream = %self.name, output_id, error = %error, "broker refuses an output: it became a dead letter");
    }

    /// Publishing failed for a passing reason; the rows are published again.
    pub fn failed(&self, count: usize, error: &crate::broker::Error) {
        self.errors.inc_by(count as u64);
        warn!(stream = %self.name, count, error = %error, "publishing failed: trying again");
        self.set_trouble(Some(error.to_string()));
    }

    /// The publisher could not be opened, or the dead letter of a refused row could not be written.
    pub fn stuck(&self, error: &dyn std::fmt::Display) {
        self.errors.inc();
        error!(stream = %self.name, error = %error, "stream can't be written: trying again");
        self.set_trouble(Some(error.to_string()));
    }

    /// Nothing that failed waits any more.
    pub fn recovered(&self) {
        self.set_trouble(None);
    }

    /// Why outputs wait, until those that failed are confirmed.
    #[must_use]
    pub fn trouble(&self) -> Option<String> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set_trouble(&self, trouble: Option<String>) {
        *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = trouble;
    }

    /// How many rows wait.
    #[must_use]
    pub fn waiting(&self) -> i64 {
        self.outbox.get()
    }
}

impl Metrics {
    /// A request put events on a stream, or did not.
    pub fn ingress(&self, stream: &Name, outcome: &'static str, count: u64) {
        let by = ByOutcome {
            consumer: stream.to_string(),
            outcome,
        };
        self.0.ingress.get_or_create(&by).inc_by(count);
    }
}
