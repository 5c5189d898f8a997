//! The dispatcher: the one task that owns a consumer's lanes and decides what each event does next.
//!
//! It never waits for the plugin, the ledger or a broker; it hands them work and takes back results, so one slow
//! event delays only its own lane. Each event has at most one message on its way to it, so no queue here can hold more than the budget.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::sync::{mpsc, watch};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::Instant;

use super::attempt::{Bench, Finished};
use super::breaker::{Breaker, Phase};
use super::budget::Budget;
use super::commit::{Answer, Step, Then};
use super::intake::{self, Arrival, Arrived, Intake, Spent};
use super::job::Job;
use super::lane::Lanes;
use super::park::Loaded;
use super::settle::{self, Order};
use super::verdict::{Verdict, verdict};
use super::{Happening, Left, Parts, letter, until_answered};
use crate::broker::Settlement;
use crate::clock::Timestamp;
use crate::ledger::{Change, Effects, Entry, Known, LaneKey, RecordKey};
use crate::outcome::{Attempt, Class, Failure, Outcome, Reason};
use crate::plan::{Name, Place};

/// Events in one chunk at most, and about how long a chunk may compute: long enough that handing it over costs nothing beside it,
/// short enough that the other core is not left idle.
const CHUNK_EVENTS: usize = 32;
const CHUNK_TIME: Duration = Duration::from_millis(1);
/// How long an event waits whose attempt could not be run.
const HOLD: Duration = Duration::from_millis(200);
/// Levels are shown this often.
const LEVELS: Duration = Duration::from_millis(250);

/// What a dispatcher can be told.
pub enum Control {
    /// Look at the parking again.
    ParkingChanged,
    /// Stop taking, finish until then.
    Drain(Instant),
}

/// Results that come back to the dispatcher from work that is not an attempt.
pub(super) enum Back {
    /// The ledger answered.
    Answer(Answer),
    /// Events that may have been done meanwhile were looked up.
    LookedUp(Vec<(Box<Job>, Known)>),
    /// Events of a parked lane were loaded.
    Loaded(Loaded),
    /// The parked lanes were listed.
    Lanes(Vec<crate::ledger::ParkedLane>),
}

/// The state of one consumer.
pub struct Dispatcher {
    pub(super) parts: Parts,
    pub(super) bench: Bench,
    pub(super) budget: Arc<Budget>,
    pub(super) lanes: Lanes,
    pub(super) back: FuturesUnordered<BoxFuture<'static, Back>>,
    pub(super) timers: BinaryHeap<Reverse<(Instant, LaneKey)>>,
    /// Events waiting to be moved into the ledger, in order; one write of them is under way at a time, so that they stay in order.
    pub(super) moving: Vec<Box<Job>>,
    pub(super) is_moving: bool,
    /// Whether the last host stopped uncleanly: what runs from the parking has a record written first.
    pub(super) was_unclean: bool,
    breaker: Breaker,
    paused: watch::Sender<bool>,
    /// Records on their way, to know a twin by.
    on_the_way: HashSet<RecordKey>,
    running: usize,
    workers: usize,
    attempt_time: Duration,
    tasks: JoinSet<()>,
    finished: mpsc::Sender<Vec<Finished>>,
    settler: mpsc::Sender<Order>,
    unconfirmed: HashMap<u64, (Spent, usize)>,
    numbers: u64,
    confirm: mpsc::Sender<Vec<u64>>,
    drain: Option<Instant>,
    left: Left,
}

impl Dispatcher {
    /// Runs a consumer until it is drained.
    pub async fn run(parts: Parts, mut control: mpsc::Receiver<Control>) -> Left {
        let budget = Arc::new(Budget::new(parts.consumer.budget));
        let capacity = budget.whole().count + 16;
        let (arrivals_in, mut arrivals) = mpsc::channel(4);
        let (finished_in, mut finished) = mpsc::channel(capacity);
        let (confirm_in, mut confirms) = mpsc::channel(capacity);
        let (settler, orders) = mpsc::channel(capacity);
        let (paused, is_paused) = watch::channel(false);
        let suspect = until_answered(&parts.metrics, "suspect_until", || {
            parts.ledger.suspect_until(&parts.consumer.name)
        })
        .await;
        let intake = Intake {
            consumer: parts.consumer.clone(),
            broker: parts.broker.clone(),
            ledger: parts.ledger.clone(),
            suspect,
            budget: budget.clone(),
            arrivals: arrivals_in,
            paused: is_paused,
            metrics: parts.metrics.clone(),
            clock: parts.clock.clone(),
        };
        // They end with this task, however it ends.
        let mut beside = JoinSet::new();
        beside.spawn(settle::run(
            orders,
            budget.clone(),
            parts.metrics.clone(),
            parts.clock.clone(),
        ));
        let mut dispatcher = Self {
            bench: Bench {
                handler: parts.handler.clone(),
                ledger: parts.ledger.clone(),
                clock: parts.clock.clone(),
                time: parts.consumer.limits.time,
                quarantine: parts.quarantine.clone(),
            },
            breaker: Breaker::new(parts.consumer.breaker.clone()),
            budget,
            lanes: Lanes::default(),
            back: FuturesUnordered::new(),
            timers: BinaryHeap::new(),
            moving: Vec::new(),
            is_moving: false,
            was_unclean: suspect.is_some(),
            paused,
            on_the_way: HashSet::new(),
            running: 0,
            workers: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
            attempt_time: Duration::ZERO,
            tasks: JoinSet::new(),
            finished: finished_in,
            settler,
            unconfirmed: HashMap::new(),
            numbers: 0,
            confirm: confirm_in,
            drain: None,
            left: Left::default(),
            parts,
        };
        // What is parked is known before anything newer arrives: a later event of a parked key must queue behind it.
        let lanes = until_answered(&dispatcher.parts.metrics, "lanes", || {
            dispatcher.parts.parking.lanes(&dispatcher.parts.consumer.name)
        })
        .await;
        dispatcher.know_lanes(lanes);
        let intake = beside.spawn(intake.run());
        dispatcher
            .work(&mut control, &mut arrivals, &mut finished, &mut confirms, &intake)
            .await;
        intake.abort();
        dispatcher.finish(arrivals, beside).await
    }

    async fn work(
        &mut self,
        control: &mut mpsc::Receiver<Control>,
        arrivals: &mut mpsc::Receiver<Arrival>,
        finished: &mut mpsc::Receiver<Vec<Finished>>,
        confirms: &mut mpsc::Receiver<Vec<u64>>,
        intake: &AbortHandle,
    ) {
        let mut levels = tokio::time::interval(LEVELS);
        while !self.is_drained() {
            self.start();
            let wake = self.wake_at();
            tokio::select! {
                Some(group) = finished.recv() => self.judge(group),
                Some(back) = self.back.next() => self.take_back(back).await,
                Some(numbers) = confirms.recv() => self.confirmed(&numbers).await,
                Some(arrival) = arrivals.recv(), if self.drain.is_none() => self.arrive(arrival).await,
                order = control.recv() => {
                    // Whoever held the other end is gone: stop as well as possible at once.
                    self.obey(order.unwrap_or(Control::Drain(self.now())));
                    if self.drain.is_some() {
                        intake.abort();
                    }
                }
                () = tokio::time::sleep_until(wake) => self.wake(),
                _ = levels.tick() => self.show_levels(),
                Some(ended) = self.tasks.join_next() => survive(ended),
            }
        }
    }

    pub(super) fn now(&self) -> Instant {
        self.parts.clock.now()
    }

    fn obey(&mut self, order: Control) {
        match order {
            Control::ParkingChanged => self.list_lanes(),
            Control::Drain(deadline) => {
                self.drain = Some(deadline);
                for job in self.lanes.drain().into_iter().chain(std::mem::take(&mut self.moving)) {
                    self.hand_back(job);
                }
            }
        }
    }

    /// Gives back what did not run. What came out of the ledger is still there.
    fn hand_back(&mut self, job: Box<Job>) {
        self.on_the_way.remove(&job.record);
        if job.receipt.is_some() {
            self.left.handed_back += 1;
            self.parts.metrics.held(1);
        }
        let _ = self.settler.try_send(Order::Settle(job.into(), Settlement::HandBack));
    }

    fn is_drained(&self) -> bool {
        let Some(deadline) = self.drain else { return false };
        let is_idle = self.running == 0 && self.back.is_empty() && self.unconfirmed.is_empty();
        is_idle || self.now() >= deadline
    }

    async fn finish(mut self, mut arrivals: mpsc::Receiver<Arrival>, mut beside: JoinSet<()>) -> Left {
        arrivals.close();
        while let Ok(arrival) = arrivals.try_recv() {
            if let Arrival::Batch(batch) = arrival {
                self.left.handed_back += batch.len();
            }
        }
        self.left.unfinished = self.running + self.back.len();
        self.left.unconfirmed = self.unconfirmed.len();
        self.tasks.shutdown().await;
        self.parts.metrics.subscribed(false);
        self.show_levels();
        let left = self.left;
        // The settler ends when its last order is told.
        drop(self);
        let _ = tokio::time::timeout(Duration::from_secs(2), async {
            while beside.join_next().await.is_some() {}
        })
        .await;
        left
    }

    fn show_levels(&self) {
        self.parts
            .metrics
            .levels(self.lanes.count(), self.budget.used(), self.lanes.parked());
    }

    fn wake_at(&mut self) -> Instant {
        let now = self.now();
        let mut at = self
            .timers
            .peek()
            .map_or(now + Duration::from_secs(3600), |Reverse((at, _))| *at);
        if let Phase::Open(until) = self.breaker.phase(now) {
            at = at.min(until);
        }
        self.drain.map_or(at, |deadline| at.min(deadline))
    }

    fn wake(&mut self) {
        let now = self.now();
        while let Some(Reverse((at, _))) = self.timers.peek()
            && *at <= now
        {
            if let Some(Reverse((_, key))) = self.timers.pop() {
                self.lanes.wake(&key, now);
            }
        }
        let phase = self.breaker.phase(now);
        self.show_breaker(phase);
    }

    fn show_breaker(&mut self, phase: Phase) {
        self.parts.metrics.breaker(phase);
        // Half open with nothing in hand: an event must come for it to be tried with.
        let pause = match phase {
            Phase::Closed => false,
            Phase::Open(_) => true,
            Phase::HalfOpen => self.lanes.is_ready() || self.running > 0,
        };
        self.paused
            .send_if_modified(|is_paused| std::mem::replace(is_paused, pause) != pause);
    }

    async fn arrive(&mut self, arrival: Arrival) {
        let batch = match arrival {
            Arrival::Open(settle) => {
                let _ = self.settler.send(Order::Through(settle)).await;
                return;
            }
            Arrival::Batch(batch) => batch,
        };
        let mut steps = Vec::new();
        for arrived in batch {
            match arrived {
                Arrived::Fresh(job) => self.enqueue(job),
                other => self.spend(other, &mut steps).await,
            }
        }
        self.write(steps);
        self.move_parked();
    }

    /// Settles or buries what needs no attempt.
    async fn spend(&mut self, arrived: Arrived, steps: &mut Vec<Step>) {
        match arrived {
            Arrived::Duplicate(spent) => {
                self.parts.metrics.duplicate();
                self.settle(spent).await;
            }
            Arrived::Parked(spent) => self.settle(spent).await,
            Arrived::Unwanted(spent) => {
                self.parts.metrics.unwanted(1);
                self.settle(spent).await;
            }
            Arrived::Dead(job, reason, detail) => steps.push(self.bury(job, reason, &detail)),
            Arrived::Conflict(job) => steps.push(self.conflict(job)),
            Arrived::Fresh(job) => self.enqueue(job),
        }
    }

    fn enqueue(&mut self, mut job: Box<Job>) {
        job.is_twin = !self.on_the_way.insert(job.record);
        let (key, record, next_at) = (job.lane.clone(), job.record, job.history.next_at);
        if self.is_parked(&key) {
            self.park_job(job);
            return;
        }
        self.lanes.push(job);
        self.go_on_waiting(&key, record, next_at);
        self.park_if_long(&key);
    }

    /// A head that an earlier host left waiting goes on waiting.
    pub(super) fn go_on_waiting(&mut self, key: &LaneKey, record: RecordKey, next_at: Timestamp) {
        if next_at <= self.parts.clock.wall() {
            return;
        }
        let (now, until) = (self.now(), self.parts.clock.instant_of(next_at));
        if self.lanes.hold_head(key, record, until, now) {
            self.timers.push(Reverse((until, key.clone())));
        }
    }

    /// Starts what may run.
    fn start(&mut self) {
        if self.drain.is_some() || !self.lanes.is_ready() {
            return;
        }
        let now = self.now();
        let concurrency = self.parts.consumer.concurrency.get();
        let mut allowed = match self.breaker.phase(now) {
            Phase::Closed => concurrency.saturating_sub(self.running),
            Phase::HalfOpen => usize::from(self.running == 0),
            Phase::Open(_) => 0,
        };
        let mut chunk = Vec::new();
        let (mut twins, mut steps) = (Vec::new(), Vec::new());
        while allowed > 0
            && let Some(job) = self.lanes.take_ready()
        {
            if job.is_twin {
                twins.push(job);
                continue;
            }
            if let Some((reason, detail)) = unfit(&job) {
                steps.push(self.bury(job, reason, &detail));
                continue;
            }
            allowed -= 1;
            self.running += 1;
            match job.is_suspect {
                true => self.run_suspect(job),
                false => chunk.push(job),
            }
        }
        self.run_chunks(chunk);
        self.write(steps);
        self.look_up(twins);
    }

    fn run_chunks(&mut self, mut jobs: Vec<Box<Job>>) {
        if jobs.is_empty() {
            return;
        }
        let by_time = (CHUNK_TIME.as_nanos() / self.attempt_time.as_nanos().max(1)).clamp(1, CHUNK_EVENTS as u128);
        let by_time = usize::try_from(by_time).unwrap_or(CHUNK_EVENTS);
        let size = jobs.len().div_ceil(self.workers).clamp(1, by_time);
        while !jobs.is_empty() {
            let chunk = jobs.drain(..size.min(jobs.len())).collect();
            self.tasks.spawn(self.bench.clone().run(chunk, self.finished.clone()));
        }
    }

    fn run_suspect(&mut self, job: Box<Job>) {
        let begin = self.entry(&job, Change::Started);
        let metrics = self.parts.metrics.clone();
        self.tasks.spawn(
            self.bench
                .clone()
                .run_suspect(job, begin, metrics, self.finished.clone()),
        );
    }

    fn look_up(&mut self, twins: Vec<Box<Job>>) {
        if twins.is_empty() {
            return;
        }
        let (ledger, metrics) = (self.parts.ledger.clone(), self.parts.metrics.clone());
        self.back.push(Box::pin(async move {
            let keys: Vec<RecordKey> = twins.iter().map(|job| job.record).collect();
            let known = until_answered(&metrics, "look_up", || ledger.look_up(keys.clone())).await;
            Back::LookedUp(twins.into_iter().zip(known).collect())
        }));
    }

    /// Judges attempts that ended, and writes what follows.
    fn judge(&mut self, group: Vec<Finished>) {
        let mut steps = Vec::with_capacity(group.len());
        for finished in group {
            self.running -= 1;
            steps.extend(self.judge_one(finished));
        }
        self.write(steps);
        self.move_parked();
    }

    fn judge_one(&mut self, finished: Finished) -> Option<Step> {
        let Finished { mut job, attempted, at } = finished;
        // The host has outlived it: running it again (state had changed) is no second beginning.
        job.is_suspect = false;
        let now = self.now();
        self.attempt_time = (self.attempt_time * 7 + attempted.duration) / 8;
        self.parts.metrics.attempted(
            &job.event.id,
            job.history.failed + 1,
            &attempted.outcome,
            attempted.duration,
        );
        if let Some(is_failure) = is_failure(&attempted.outcome) {
            let lane = xxhash_rust::xxh3::xxh3_64(&job.lane.0);
            if let Some(phase) = self.breaker.note(lane, is_failure, now) {
                self.show_breaker(phase);
            }
        }
        let phase = self.breaker.phase(now);
        let verdict = verdict(
            &attempted.outcome,
            job.history.failed,
            &self.parts.consumer.retry,
            phase,
            self.parts.clock.random(),
        );
        if let Outcome::Failed(failure) = &attempted.outcome
            && verdict != Verdict::Hold
        {
            let attempt = self.attempt(&job, failure.clone(), at, attempted.duration, attempted.memory);
            letter::remember(&mut job.history, attempt);
        }
        match verdict {
            Verdict::Commit => Some(self.apply(job, attempted.effects)),
            Verdict::Retry(pause) => Some(self.fail(job, pause)),
            Verdict::Dead(reason) => {
                let detail = message(&attempted.outcome);
                Some(self.bury(job, reason, &detail))
            }
            Verdict::Hold => {
                self.hold(job, now);
                None
            }
        }
    }

    fn attempt(&self, job: &Job, failure: Failure, at: Timestamp, duration: Duration, memory: u64) -> Attempt {
        Attempt {
            number: job.history.failed + 1,
            at,
            duration,
            memory,
            revision: self.bench.handler.revision().to_string(),
            failure,
        }
    }

    /// An event that can't run for no fault of its own waits a moment, or until the breaker lets it.
    fn hold(&mut self, job: Box<Job>, now: Instant) {
        if self.drain.is_some() {
            self.hand_back(job);
            return;
        }
        let until = match self.breaker.phase(now) {
            Phase::Open(until) => until,
            _ => now + HOLD,
        };
        self.parts.metrics.held(1);
        self.timers.push(Reverse((until, job.lane.clone())));
        self.lanes.wait(job, until, now);
    }

    fn apply(&self, job: Box<Job>, effects: Effects) -> Step {
        let entry = self.entry(&job, Change::Applied(effects));
        Step {
            job,
            entry,
            then: Then::Applied,
        }
    }

    fn fail(&self, mut job: Box<Job>, pause: Duration) -> Step {
        job.history.next_at = self.parts.clock.wall().after(pause);
        let entry = self.entry(&job, Change::Failed(job.history.clone()));
        Step {
            job,
            entry,
            then: Then::Failed(pause),
        }
    }

    pub(super) fn bury(&self, job: Box<Job>, reason: Reason, detail: &str) -> Step {
        let now = self.parts.clock.wall();
        let revision = self.bench.handler.revision();
        let mut letter = letter::of_job(&job, &self.parts.consumer, &revision, reason, detail, now);
        if reason == Reason::Undecodable {
            (letter.event, letter.kind) = (None, None);
        }
        let entry = letter::entry(&job, &self.parts.consumer, letter);
        Step {
            job,
            entry,
            then: Then::Dead(reason),
        }
    }

    pub(super) fn conflict(&self, job: Box<Job>) -> Step {
        let entry = letter::conflict(
            &job,
            &self.parts.consumer,
            &self.bench.handler.revision(),
            self.parts.clock.wall(),
        );
        Step {
            job,
            entry,
            then: Then::Dead(Reason::IdConflict),
        }
    }

    pub(super) fn entry(&self, job: &Job, change: Change) -> Entry {
        Entry {
            consumer: self.parts.consumer.name.clone(),
            record: job.record,
            payload: job.payload,
            lane: job.lane.clone(),
            parked: job.parked,
            change,
        }
    }

    async fn take_back(&mut self, back: Back) {
        match back {
            Back::Answer(answer) => self.answered(answer).await,
            Back::Loaded(loaded) => self.loaded(loaded),
            Back::Lanes(lanes) => self.know_lanes(lanes),
            Back::LookedUp(known) => {
                let mut steps = Vec::new();
                for (mut job, known) in known {
                    job.is_twin = false;
                    let (key, record) = (job.lane.clone(), job.record);
                    match intake::judge(Arrived::Fresh(job), known) {
                        Arrived::Fresh(job) => self.lanes.again(job),
                        // Its lane goes on when its dead letter is durable.
                        Arrived::Conflict(job) => steps.push(self.conflict(job)),
                        done => {
                            self.on_the_way.remove(&record);
                            self.spend(done, &mut steps).await;
                            self.go_on(&key);
                        }
                    }
                }
                self.write(steps);
            }
        }
        self.move_parked();
    }

    /// The head of a lane is done with: the next one may run.
    pub(super) fn go_on(&mut self, key: &LaneKey) {
        self.lanes.advance(key);
        self.tend(key);
    }

    /// An event has left the consumer: its lane goes on, its delivery is settled when its outputs are confirmed.
    pub(super) async fn done(&mut self, job: Box<Job>, waits_for: usize, number: u64) {
        self.on_the_way.remove(&job.record);
        let (key, is_head) = (job.lane.clone(), job.is_head);
        if job.parked.is_some() {
            self.taken_from_parking(&key);
        }
        let spent = Spent::from(job);
        match waits_for {
            0 => self.settle(spent).await,
            rows => _ = self.unconfirmed.insert(number, (spent, rows)),
        }
        if is_head {
            self.go_on(&key);
        }
    }

    async fn confirmed(&mut self, numbers: &[u64]) {
        for number in numbers {
            let Some((_, rows)) = self.unconfirmed.get_mut(number) else {
                continue;
            };
            *rows -= 1;
            if *rows == 0
                && let Some((spent, _)) = self.unconfirmed.remove(number)
            {
                self.settle(spent).await;
            }
        }
    }

    pub(super) async fn settle(&mut self, spent: Spent) {
        if spent.receipt.is_some() {
            // The settler outlives the dispatcher's work; its queue has room for the whole budget.
            let _ = self.settler.send(Order::Settle(spent, Settlement::Done)).await;
        }
    }

    /// A number for an event that waits for confirmations, and where they are sent.
    pub(super) fn number(&mut self) -> (mpsc::Sender<Vec<u64>>, u64) {
        self.numbers += 1;
        (self.confirm.clone(), self.numbers)
    }

    pub(super) fn is_draining(&self) -> bool {
        self.drain.is_some()
    }

    pub(super) fn forget(&mut self, record: &RecordKey) {
        self.on_the_way.remove(record);
    }

    /// Whether outputs to a stream go through the outbox, or into a log of the ledger's own store in the same transaction.
    pub(super) fn is_relayed(&self, stream: &Name) -> bool {
        self.parts.relays.contains_key(stream)
    }

    pub(super) fn tell(&self, job: &Job, outcome: &'static str, emitted: &[Arc<str>], error: Option<String>) {
        if self.parts.feed.receiver_count() == 0 {
            return;
        }
        let happening = Happening {
            at: self.parts.clock.wall(),
            consumer: self.parts.consumer.name.clone(),
            outcome,
            event_id: job.event.id.clone(),
            event_type: job.event.kind.clone(),
            key: String::from_utf8_lossy(&job.lane.0).into_owned(),
            attempt: job.history.failed + u32::from(error.is_none()),
            emitted: emitted.iter().map(ToString::to_string).collect(),
            error,
        };
        // Nobody has to listen.
        let _ = self.parts.feed.send(happening);
    }
}

/// A panic in an attempt is a fault of the host, not of the event: it stops the host, and the next one finds the event by its record.
fn survive(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended
        && error.is_panic()
    {
        std::panic::resume_unwind(error.into_panic());
    }
}

/// Why an event must not be attempted, if so.
fn unfit(job: &Job) -> Option<(Reason, String)> {
    if let Some(problem) = &job.problem {
        return Some((Reason::Undecodable, problem.clone()));
    }
    // Three hosts: one that had no record of it yet, and two that had.
    let is_deadly = job.is_suspect && job.started >= 2;
    is_deadly.then(|| {
        (
            Reason::HostCrash,
            "three hosts stopped uncleanly while they handled this event".to_owned(),
        )
    })
}

/// Whether an outcome says something of the plugin as a whole, and what.
fn is_failure(outcome: &Outcome) -> Option<bool> {
    match outcome {
        Outcome::Succeeded => Some(false),
        Outcome::Failed(failure) => Some(failure.class != Class::Permanent),
        Outcome::NotRun(_) => None,
    }
}

fn message(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Failed(failure) => failure.message.clone(),
        Outcome::NotRun(why) => why.clone(),
        Outcome::Succeeded => String::new(),
    }
}

/// Whether a stream is a log, for whoever decides which streams have relays.
#[must_use]
pub fn is_log(place: &Place) -> bool {
    matches!(place, Place::Log(_))
}
