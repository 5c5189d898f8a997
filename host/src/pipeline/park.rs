//! Parking: a lane that waits long or holds much is moved into the ledger, settled at the broker, and run from there, in order.
//! One bad key costs disk, never the stream.

use super::commit::{Step, Then};
use super::dispatch::{Back, Dispatcher};
use super::job::Job;
use super::lane::Head;
use super::until_answered;
use crate::event::codec::{self, Binding};
use crate::ledger::{Change, LaneKey, ParkedEvent, ParkedLane, PayloadHash};

/// Events of one parked lane in memory at most.
const LOAD: usize = 16;
/// Events moved in one write.
const MOVE: usize = 1_024;

/// Events loaded from the parking.
pub(super) struct Loaded {
    lane: LaneKey,
    events: Vec<ParkedEvent>,
}

impl Dispatcher {
    /// Learns which lanes are parked, at start and when dead letters were redriven or purged.
    pub(super) fn know_lanes(&mut self, lanes: Vec<ParkedLane>) {
        for known in &lanes {
            let lane = self.lanes.get_or_insert(&known.lane);
            let parked = lane.parked.get_or_insert_default();
            parked.waiting = known.waiting;
            parked.held_by = known.held_by;
        }
        // A lane that was held and is not listed any more goes on.
        let listed: std::collections::HashSet<&LaneKey> = lanes.iter().map(|known| &known.lane).collect();
        let released: Vec<LaneKey> = self.lanes.held().filter(|key| !listed.contains(key)).cloned().collect();
        for key in released {
            if let Some(parked) = self.lanes.get_mut(&key).and_then(|lane| lane.parked.as_mut()) {
                parked.held_by = None;
            }
            self.tend(&key);
        }
        for known in &lanes {
            self.load_parked(&known.lane);
        }
    }

    pub(super) fn list_lanes(&mut self) {
        let (parking, metrics) = (self.parts.parking.clone(), self.parts.metrics.clone());
        let consumer = self.parts.consumer.name.clone();
        self.back.push(Box::pin(async move {
            Back::Lanes(until_answered(&metrics, "lanes", || parking.lanes(&consumer)).await)
        }));
    }

    pub(super) fn is_parked(&mut self, key: &LaneKey) -> bool {
        self.lanes.get_mut(key).is_some_and(|lane| lane.parked.is_some())
    }

    /// Sends an arrival behind what is parked of its lane.
    pub(super) fn park_job(&mut self, job: Box<Job>) {
        if let Some(parked) = self.lanes.get_mut(&job.lane).and_then(|lane| lane.parked.as_mut()) {
            parked.moving += 1;
        }
        self.moving.push(job);
    }

    /// Parks a lane that waits too long or holds too much.
    pub(super) fn park_if_long(&mut self, key: &LaneKey) {
        let retry = &self.parts.consumer.retry;
        let Some(lane) = self.lanes.get_mut(key) else { return };
        let Head::Waiting { until, since } = lane.head else {
            return;
        };
        let is_long = until.saturating_duration_since(since) > retry.park_after;
        if lane.parked.is_none() && (is_long || lane.queued() > retry.park_over.get()) {
            self.park(key);
        }
    }

    fn park(&mut self, key: &LaneKey) {
        let jobs = self.lanes.park(key);
        self.parts
            .metrics
            .lane_parked(&String::from_utf8_lossy(&key.0), jobs.len());
        for job in jobs {
            match job.parked {
                None => self.moving.push(job),
                // It never left the ledger.
                Some(_) => self.not_moved(&job),
            }
        }
    }

    /// Writes the next events that go into the ledger. One write at a time, so that they arrive there in order.
    pub(super) fn move_parked(&mut self) {
        if self.is_moving || self.moving.is_empty() {
            return;
        }
        self.is_moving = true;
        let count = self.moving.len().min(MOVE);
        let jobs: Vec<_> = self.moving.drain(..count).collect();
        let steps = jobs.into_iter().map(|job| {
            let change = Change::Parked(Box::new(job.message.clone()), job.position);
            Step {
                entry: self.entry(&job, change),
                job,
                then: Then::Parked,
            }
        });
        let steps = steps.collect();
        self.write(steps);
    }

    /// An event is durable in the parking: its delivery is settled.
    pub(super) async fn moved(&mut self, job: Box<Job>) {
        self.parts.metrics.parked(1);
        self.tell(&job, "parked", &[], None);
        self.forget(&job.record);
        let key = job.lane.clone();
        if let Some(parked) = self.lanes.get_mut(&key).and_then(|lane| lane.parked.as_mut()) {
            parked.moving = parked.moving.saturating_sub(1);
            parked.waiting += 1;
        }
        self.settle(job.into()).await;
        self.tend(&key);
    }

    /// An event on its way to the parking did not get there.
    pub(super) fn not_moved(&mut self, job: &Job) {
        if let Some(parked) = self.lanes.get_mut(&job.lane).and_then(|lane| lane.parked.as_mut()) {
            parked.moving = parked.moving.saturating_sub(1);
        }
    }

    /// An event that ran from the parking is done with there.
    pub(super) fn taken_from_parking(&mut self, key: &LaneKey) {
        if let Some(parked) = self.lanes.get_mut(key).and_then(|lane| lane.parked.as_mut()) {
            parked.waiting = parked.waiting.saturating_sub(1);
        }
    }

    /// The lane of a dead letter waits for it from now on.
    pub(super) fn hold_lane(&mut self, job: &Job) {
        let key = job.lane.clone();
        self.park(&key);
        if let Some(parked) = self.lanes.get_mut(&key).and_then(|lane| lane.parked.as_mut()) {
            parked.held_by = Some(job.record);
        }
    }

    /// The event that a lane was held for took effect.
    pub(super) fn release_hold(&mut self, job: &Job) {
        if let Some(parked) = self.lanes.get_mut(&job.lane).and_then(|lane| lane.parked.as_mut())
            && parked.held_by == Some(job.record)
        {
            parked.held_by = None;
        }
    }

    /// Loads what is next of a parked lane, or lets it run from memory again when nothing of it is left in the ledger.
    pub(super) fn tend(&mut self, key: &LaneKey) {
        if self.is_draining() || self.lanes.unpark(key) {
            return;
        }
        let parked = self.lanes.get_mut(key).and_then(|lane| lane.parked.as_ref());
        // What a held lane waits for comes by way of the parking's list.
        if parked.is_some_and(|parked| parked.held_by.is_none()) {
            self.load_parked(key);
        }
    }

    fn load_parked(&mut self, key: &LaneKey) {
        let Some(lane) = self.lanes.get_mut(key) else { return };
        let is_idle = lane.head == Head::Absent;
        let Some(parked) = &mut lane.parked else { return };
        if !is_idle || parked.loading || parked.waiting == 0 {
            return;
        }
        parked.loading = true;
        let (parking, metrics) = (self.parts.parking.clone(), self.parts.metrics.clone());
        let (consumer, lane) = (self.parts.consumer.name.clone(), key.clone());
        self.back.push(Box::pin(async move {
            let events = until_answered(&metrics, "first", || parking.first(&consumer, &lane, LOAD)).await;
            Back::Loaded(Loaded { lane, events })
        }));
    }

    pub(super) fn loaded(&mut self, loaded: Loaded) {
        let Loaded { lane: key, events } = loaded;
        let Some(parked) = self.lanes.get_mut(&key).and_then(|lane| lane.parked.as_mut()) else {
            return;
        };
        parked.loading = false;
        let held_by = parked.held_by;
        if events.is_empty() {
            // Purged meanwhile, or counted wrongly: what is there counts.
            parked.waiting = 0;
            self.lanes.unpark(&key);
            return;
        }
        // A held lane runs only the event that it is held for, once that was redriven to its front.
        let events = events
            .into_iter()
            .take_while(|event| held_by.is_none_or(|held_by| event.record == held_by));
        let events: Vec<ParkedEvent> = events.collect();
        let mut jobs: Vec<Box<Job>> = Vec::new();
        for event in events {
            jobs.push(self.unpack(event, &key));
        }
        let first = jobs.first().map(|job| (job.record, job.history.next_at));
        self.lanes.load(&key, jobs);
        if let Some((record, next_at)) = first {
            self.go_on_waiting(&key, record, next_at);
        }
    }

    /// Makes an event of what is in the parking. What can't be decoded stays what it was: its attempt is to be buried again.
    fn unpack(&self, event: ParkedEvent, lane: &LaneKey) -> Box<Job> {
        let stream = &self.parts.consumer.reads;
        let decoded = codec::decode(
            &event.message,
            Binding::of(&stream.broker.kind),
            stream.mapping.as_ref(),
        );
        let problem = decoded.as_ref().err().map(ToString::to_string);
        let decoded = decoded.unwrap_or_default();
        Box::new(Job {
            payload: PayloadHash::of(decoded.data.as_ref()),
            event: decoded,
            message: event.message,
            position: event.position,
            record: event.record,
            lane: lane.clone(),
            receipt: None,
            parked: Some(event.id),
            taken: self.now(),
            history: event.history.unwrap_or_default(),
            started: event.started,
            is_suspect: self.was_unclean,
            is_twin: false,
            is_head: false,
            problem,
            waiting_since: None,
        })
    }
}
