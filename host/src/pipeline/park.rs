//! Parking: a lane that waits long or holds much is moved into the ledger and settled at the broker, in order. One bad key costs disk,
//! never the stream. `loader` brings it back.

use std::collections::BTreeSet;

use super::commit::{Step, Then};
use super::dispatch::Dispatcher;
use super::job::Job;
use crate::crash::{self, Point};
use crate::event::key::LaneKey;
use crate::ledger::Change;

/// Events moved in one write.
const MOVE: usize = 1_024;

/// Events that are to be moved into the ledger, in order. One write of them is under way at a time, so that they stay in order.
#[derive(Default)]
pub(super) struct Moves {
    waiting: Vec<Box<Job>>,
    pub(super) is_under_way: bool,
}

impl Moves {
    /// The next events to write, if it is time, and no more than there is room for.
    fn next(&mut self, room: usize) -> Vec<Box<Job>> {
        if self.is_under_way {
            return Vec::new();
        }
        let count = self.waiting.len().min(MOVE).min(room);
        self.is_under_way = count > 0;
        self.waiting.drain(..count).collect()
    }

    /// Takes out those of one lane, unless some of them may be under way.
    fn take(&mut self, key: &LaneKey) -> Vec<Box<Job>> {
        if self.is_under_way {
            return Vec::new();
        }
        self.waiting.extract_if(.., |job| job.lane == *key).collect()
    }

    /// Takes out all that are not under way.
    pub(super) fn clear(&mut self) -> Vec<Box<Job>> {
        std::mem::take(&mut self.waiting)
    }
}

impl Dispatcher {
    /// Sends an arrival behind what is parked of its lane.
    pub(super) fn park_job(&mut self, job: Box<Job>) {
        self.lanes.moving(&job.lane);
        self.moves.waiting.push(job);
    }

    /// Parks a lane that waits too long or holds too much.
    pub(super) fn park_if_long(&mut self, key: &LaneKey) {
        if self.parking_room() == 0 {
            // There it could not run at all.
            return;
        }
        let retry = &self.parts.consumer.retry;
        let is_long = self.lanes.waiting(key).is_some_and(|wait| {
            let is_late = wait.until.saturating_duration_since(wait.since) > retry.park_after;
            is_late || wait.queued > retry.park_over.get()
        });
        if is_long {
            self.park(key);
        }
    }

    /// Parks a lane none of whose events runs, if something of it came into the ledger meanwhile, or if it fills the budget and is slow: what
    /// waits behind its head would keep other keys out for longer than a lane may wait.
    pub(super) fn park_at_stop(&mut self, key: &LaneKey) {
        if self.lanes.is_noted(key) || self.is_in_the_way(key) {
            self.park(key);
        }
    }

    fn is_in_the_way(&self, key: &LaneKey) -> bool {
        let retry = &self.parts.consumer.retry;
        let behind = self.lanes.behind(key);
        let wait = self
            .attempt_time
            .saturating_mul(u32::try_from(behind).unwrap_or(u32::MAX));
        behind > retry.park_over.get() && wait > retry.park_after && !self.budget.has_room() && self.parking_room() > 0
    }

    fn park(&mut self, key: &LaneKey) {
        let jobs = self.lanes.park(key);
        if !jobs.is_empty() {
            let name = String::from_utf8_lossy(&key.0);
            self.parts.metrics.lane_parked(&name, jobs.len());
        }
        self.moves.waiting.extend(jobs);
    }

    /// While the parking is full, keys of which nothing is in the ledger run from memory again: one key that never moves must not stop
    /// the others that were to be parked.
    pub(super) fn resume_without_room(&mut self) {
        if self.is_draining() || !self.is_parking_full() {
            return;
        }
        let keys: BTreeSet<LaneKey> = self.moves.waiting.iter().map(|job| job.lane.clone()).collect();
        for key in keys {
            let jobs = self.moves.take(&key);
            let left = self.lanes.resume(&key, jobs);
            self.moves.waiting.extend(left);
        }
    }

    /// Writes the next events that go into the ledger.
    pub(super) fn move_parked(&mut self) {
        let room = self.parking_room();
        let steps = self.moves.next(room).into_iter().map(|job| {
            let change = Change::Parked(Box::new(job.message.clone()), job.position);
            Step {
                entry: self.entry(&job, change),
                job,
                then: Then::Parked,
            }
        });
        let steps: Vec<Step> = steps.collect();
        if !steps.is_empty() {
            crash::at(Point::Parking);
        }
        self.write(steps);
    }

    /// How many events may still be parked. What finds no room keeps its share of the budget, so that the broker keeps what comes later.
    fn parking_room(&self) -> usize {
        let parked = self.lanes.parked().saturating_sub(self.moves.waiting.len() as u64);
        let parked = usize::try_from(parked).unwrap_or(usize::MAX);
        self.parts.consumer.retry.parked_max.get().saturating_sub(parked)
    }

    /// Whether events wait for room in the parking.
    pub(super) fn is_parking_full(&self) -> bool {
        !self.moves.waiting.is_empty() && self.parking_room() == 0
    }

    /// An event is durable in the parking: its delivery is settled.
    pub(super) async fn moved(&mut self, job: Box<Job>) {
        crash::at(Point::Parked);
        self.parts.metrics.parked(1);
        self.tell(&job, "parked", &[], None);
        self.in_hand.remove(job.record);
        if job.is_suspect {
            self.parked_suspects.insert(job.record);
        }
        let key = job.lane.clone();
        self.lanes.moved(&key);
        self.settle(job.into()).await;
        self.tend(&key);
    }

    /// An event on its way to the parking was known already.
    pub(super) fn not_moved(&mut self, job: &Job) {
        self.lanes.not_moved(&job.lane);
        self.tend(&job.lane);
    }

    /// The lane of a dead letter waits for it from now on.
    pub(super) fn hold_lane(&mut self, job: &Job) {
        self.park(&job.lane);
        self.lanes.hold(&job.lane, job.record);
        self.listing.changed(&job.lane);
    }

    /// The event that a lane was held for took effect.
    pub(super) fn release_hold(&mut self, job: &Job) {
        if self.lanes.release(&job.lane, job.record) {
            self.listing.changed(&job.lane);
        }
    }
}
