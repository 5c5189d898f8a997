//! The dispatcher: the one task that owns a consumer's lanes and decides what each event does next.
//!
//! It never waits for the plugin, the ledger or a broker; it hands them work and takes back results, so one slow
//! event delays only its own lane. Each event has at most one message on its way to it, so no queue here can hold more than the budget.
//!
//! Its other parts stand beside this file, each by what it is about: `arrival`, `runner`, `judge`, `commit`, `park`, `loader`, `drain`.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::sync::{mpsc, watch};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::Instant;

use super::arrival::Arrival;
use super::attempt::{Bench, Finished};
use super::breaker::{Breaker, Phase};
use super::budget::Budget;
use super::commit::Answer;
use super::in_hand::InHand;
use super::intake::Intake;
use super::job::Job;
use super::lane::Lanes;
use super::loader::{Listing, Loaded, Loader};
use super::park::Moves;
use super::settle::{self, Order};
use super::unconfirmed::{Confirmations, Unconfirmed};
use super::{Happening, Left, Parts, until_answered};
use crate::event::key::LaneKey;
use crate::ledger::{Change, Entry, Known, ParkedLane, RecordKey, TakenBefore};
use crate::plan::Name;

/// Levels are shown this often.
const LEVELS: Duration = Duration::from_millis(250);
/// When there is nothing to wake for.
const LONG: Duration = Duration::from_secs(3_600);

/// What a dispatcher can be told.
pub(super) enum Control {
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
    Lanes(Vec<ParkedLane>),
}

/// The state of one consumer.
pub(super) struct Dispatcher {
    pub(super) parts: Parts,
    pub(super) bench: Bench,
    pub(super) budget: Arc<Budget>,
    pub(super) lanes: Lanes,
    pub(super) moves: Moves,
    pub(super) loader: Loader,
    pub(super) listing: Listing,
    pub(super) back: FuturesUnordered<BoxFuture<'static, Back>>,
    pub(super) timers: BinaryHeap<Reverse<(Instant, LaneKey)>>,
    /// Whether the last host stopped uncleanly.
    pub(super) was_unclean: bool,
    /// Parked lanes whose first events the last host may have died of: those that are loaded first have a record written before they run.
    pub(super) suspect_lanes: HashSet<LaneKey>,
    /// Suspects that were parked since: when they are loaded they are suspects still. No more than there were at the start.
    pub(super) parked_suspects: HashSet<RecordKey>,
    pub(super) breaker: Breaker,
    pub(super) in_hand: Arc<InHand>,
    /// Suspects whose beginning is on record, and what takes it back.
    pub(super) begun: BTreeMap<RecordKey, Entry>,
    /// Attempts that run.
    pub(super) running: usize,
    /// Those of them that began since the breaker last opened.
    pub(super) running_in_era: usize,
    /// Events whose outcome is being written, or that are being looked up.
    pub(super) in_ledger: usize,
    /// About how long an attempt takes.
    pub(super) attempt_time: Duration,
    /// About how many bytes the effects of an attempt have; it grows at once and shrinks slowly.
    pub(super) effects_size: usize,
    pub(super) tasks: JoinSet<()>,
    pub(super) finished: mpsc::Sender<Vec<Finished>>,
    pub(super) settler: mpsc::Sender<Order>,
    pub(super) unconfirmed: Unconfirmed,
    pub(super) confirmations: Confirmations,
    pub(super) drain: Option<Instant>,
    pub(super) left: Left,
    /// The intake and the settler; they end with the dispatcher.
    pub(super) hands: JoinSet<()>,
    pub(super) intake: AbortHandle,
    /// Tells the intake to pause; and what it was told.
    pausing: watch::Sender<bool>,
    phase: Phase,
}

/// What comes to a dispatcher.
pub(super) struct Inbox {
    pub(super) arrivals: mpsc::Receiver<Arrival>,
    finished: mpsc::Receiver<Vec<Finished>>,
    confirmations: Confirmations,
}

impl Inbox {
    /// All that has ended by now: what is judged together is written together.
    pub(super) fn ended_with(&mut self, mut group: Vec<Finished>) -> Vec<Finished> {
        while let Ok(more) = self.finished.try_recv() {
            group.extend(more);
        }
        group
    }
}

impl Dispatcher {
    /// Runs a consumer until it is drained.
    pub(super) async fn run(parts: Parts, mut control: mpsc::Receiver<Control>) -> Left {
        // What is parked is known before anything newer arrives: a later event of a parked key must queue behind it.
        let mut is_changed = false;
        let (taken, lanes) = tokio::select! {
            biased;
            () = told_to_stop(&mut control, &mut is_changed) => return Left::default(),
            known = known_before(&parts) => known,
        };
        let (mut dispatcher, mut inbox) = Self::new(parts, taken);
        dispatcher.begin_with(lanes);
        if is_changed {
            // It may have come after the parking was read.
            dispatcher.list_lanes();
        }
        dispatcher.work(&mut control, &mut inbox).await;
        dispatcher.finish(inbox).await
    }

    fn new(parts: Parts, taken: Option<TakenBefore>) -> (Self, Inbox) {
        let budget = Arc::new(Budget::new(parts.consumer.budget));
        let in_hand = Arc::new(InHand::default());
        // Of each event one message at most is on its way, and one that opens the subscription.
        let capacity = budget.whole().count + 1;
        let (arrivals_in, arrivals) = mpsc::channel(4);
        let (finished_in, finished) = mpsc::channel(capacity);
        let (settler, orders) = mpsc::channel(capacity);
        let (pausing, paused) = watch::channel(false);
        let intake = Intake {
            consumer: parts.consumer.clone(),
            broker: parts.broker.clone(),
            ledger: parts.ledger.clone(),
            taken,
            budget: budget.clone(),
            in_hand: in_hand.clone(),
            ages: parts.ages.clone(),
            arrivals: arrivals_in,
            paused,
            metrics: parts.metrics.clone(),
        };
        let (metrics, clock) = (parts.metrics.clone(), parts.clock.clone());
        let mut hands = JoinSet::new();
        hands.spawn(settle::run(orders, budget.clone(), parts.ages.clone(), metrics, clock));
        let intake = hands.spawn(intake.run());
        let confirmations = parts.inherited.confirmations();
        let inbox = Inbox {
            arrivals,
            finished,
            confirmations: confirmations.clone(),
        };
        let dispatcher = Self {
            bench: Bench::of(&parts),
            breaker: Breaker::new(parts.consumer.breaker.clone()),
            unconfirmed: Unconfirmed::new(budget.whole(), &parts.inherited),
            loader: Loader::new(parts.consumer.budget),
            budget,
            lanes: Lanes::default(),
            moves: Moves::default(),
            listing: Listing::default(),
            back: FuturesUnordered::new(),
            timers: BinaryHeap::new(),
            was_unclean: taken.is_some_and(|taken| taken.is_suspect),
            suspect_lanes: HashSet::new(),
            parked_suspects: HashSet::new(),
            in_hand,
            begun: BTreeMap::new(),
            running: 0,
            running_in_era: 0,
            in_ledger: 0,
            attempt_time: Duration::ZERO,
            effects_size: 0,
            tasks: JoinSet::new(),
            finished: finished_in,
            settler,
            confirmations,
            drain: None,
            left: Left::default(),
            hands,
            intake,
            pausing,
            phase: Phase::Closed,
            parts,
        };
        (dispatcher, inbox)
    }

    async fn work(&mut self, control: &mut mpsc::Receiver<Control>, inbox: &mut Inbox) {
        let mut levels = tokio::time::interval(LEVELS);
        while !self.is_drained() {
            self.start();
            self.load();
            self.regulate();
            let wake = self.wake_at();
            tokio::select! {
                // Not in an order that tokio draws, or a seed would not repeat a run. What is rare stands first, then what is nearest to
                // its end: there is only so much of it, as nothing new arrives meanwhile, so that it keeps nobody out for long.
                biased;
                // Whoever held the other end is gone: stop as well as possible at once.
                order = control.recv() => self.obey(order.unwrap_or(Control::Drain(self.now()))),
                () = tokio::time::sleep_until(wake) => self.wake(),
                _ = levels.tick() => {
                    self.resume_without_room();
                    self.show_levels();
                }
                Some(ended) = self.tasks.join_next() => survive(ended),
                Some(ended) = self.hands.join_next() => survive(ended),
                numbers = inbox.confirmations.next() => self.confirmed(&numbers).await,
                Some(back) = self.back.next() => self.take_back(back).await,
                Some(group) = inbox.finished.recv() => self.judge(inbox.ended_with(group)),
                Some(arrival) = inbox.arrivals.recv(), if self.drain.is_none() => self.arrive(arrival).await,
            }
        }
    }

    fn obey(&mut self, order: Control) {
        match order {
            Control::ParkingChanged => self.list_lanes(),
            Control::Drain(deadline) => self.stop_taking(deadline),
        }
    }

    async fn take_back(&mut self, back: Back) {
        match back {
            Back::Answer(answer) => self.answered(answer).await,
            Back::Loaded(loaded) => self.loaded(loaded),
            Back::Lanes(lanes) => self.listed(lanes),
            Back::LookedUp(known) => self.looked_up(known).await,
        }
        self.move_parked();
    }

    pub(super) fn now(&self) -> Instant {
        self.parts.clock.now()
    }

    pub(super) fn is_draining(&self) -> bool {
        self.drain.is_some()
    }

    pub(super) fn show_levels(&self) {
        self.parts
            .metrics
            .levels(self.lanes.len(), self.budget.used(), self.lanes.parked());
        self.parts.metrics.parking_full(self.is_parking_full());
    }

    fn wake_at(&mut self) -> Instant {
        let now = self.now();
        let timer = self.timers.peek().map(|Reverse((at, _))| *at);
        let probe = match self.breaker.phase(now) {
            Phase::Open(until) => Some(until),
            Phase::Closed | Phase::HalfOpen => None,
        };
        let wakes = [timer, probe, self.drain];
        wakes.into_iter().flatten().min().unwrap_or(now + LONG)
    }

    fn wake(&mut self) {
        let now = self.now();
        while let Some(Reverse((at, _))) = self.timers.peek()
            && *at <= now
        {
            if let Some(Reverse((_, key))) = self.timers.pop()
                && self.lanes.wake(&key, now)
            {
                self.tend(&key);
            }
        }
    }

    /// Lets the intake take or pause, by what the breaker lets through now.
    fn regulate(&mut self) {
        let phase = self.breaker.phase(self.now());
        if phase != self.phase {
            self.phase = phase;
            self.parts.metrics.breaker(phase);
        }
        let is_paused = match phase {
            Phase::Closed => false,
            Phase::Open(_) => true,
            // With nothing in hand, an event must come for it to be tried with.
            Phase::HalfOpen => self.running_in_era > 0 || self.lanes.is_ready(),
        };
        // What can't be run is buried without a start, and may fill what waits to be published as well.
        let is_paused = is_paused || self.unconfirmed.is_full();
        self.pausing
            .send_if_modified(|was_paused| std::mem::replace(was_paused, is_paused) != is_paused);
    }

    /// The head of a lane is done with: the next one may run.
    pub(super) fn go_on(&mut self, key: &LaneKey) {
        self.park_at_stop(key);
        self.lanes.advance(key);
        self.tend(key);
    }

    /// The running head of a lane waits until then.
    pub(super) fn wait(&mut self, job: Box<Job>, until: Instant) {
        self.timers.push(Reverse((until, job.lane.clone())));
        self.lanes.wait(job, until, self.now());
    }

    /// Whether outputs to a stream go through the outbox, or into a log of the ledger's own store in the same transaction.
    pub(super) fn is_relayed(&self, stream: &Name) -> bool {
        self.parts.relays.contains_key(stream)
    }

    pub(super) fn entry(&self, job: &Job, change: Change) -> Entry {
        Entry {
            consumer: self.parts.consumer.name.clone(),
            record: job.record,
            payload: job.payload,
            lane: job.lane.clone(),
            parked: job.parked_id(),
            change,
        }
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
            attempt: job.history.failed + u32::from(outcome == "committed"),
            emitted: emitted.iter().map(ToString::to_string).collect(),
            error,
        };
        // Nobody has to listen.
        let _ = self.parts.feed.send(happening);
    }
}

/// What the ledger knows of a consumer from before.
async fn known_before(parts: &Parts) -> (Option<TakenBefore>, Vec<ParkedLane>) {
    let name = &parts.consumer.name;
    let taken = until_answered(&parts.metrics, "taken_before", || parts.ledger.taken_before(name)).await;
    let lanes = until_answered(&parts.metrics, "lanes", || parts.parking.lanes(name)).await;
    (taken, lanes)
}

/// Waits for the order to drain; notes whether the parking changed meanwhile.
async fn told_to_stop(control: &mut mpsc::Receiver<Control>, is_changed: &mut bool) {
    while let Some(Control::ParkingChanged) = control.recv().await {
        *is_changed = true;
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
