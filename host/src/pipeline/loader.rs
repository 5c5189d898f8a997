//! Brings parked lanes back: a few events of each at a time, from the ledger, in order, and no more of all lanes together than the
//! budget has room for.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::Arc;

use super::breaker::Era;
use super::budget::Budget;
use super::dispatch::{Back, Dispatcher};
use super::job::Job;
use super::until_answered;
use crate::broker::Room;
use crate::crash::{self, Point};
use crate::event::codec::{self, Binding};
use crate::event::key::LaneKey;
use crate::event::{Event, key};
use crate::ledger::{ParkedEvent, ParkedId, ParkedLane, PayloadHash, RecordKey};
use crate::outcome::Reason;
use crate::plan;

/// Events of one parked lane in memory at most.
const LOAD: usize = 16;
/// Loads under way at once.
const LOADS: usize = 4;

/// Which lanes are to be loaded, and what is loaded.
pub(super) struct Loader {
    waiting: VecDeque<LaneKey>,
    under_way: usize,
    /// Beside the budget of what the broker holds. Loads under way may exceed it by what they bring.
    memory: Arc<Budget>,
}

impl Loader {
    pub(super) fn new(plan: plan::Budget) -> Self {
        Self {
            waiting: VecDeque::new(),
            under_way: 0,
            memory: Arc::new(Budget::new(plan)),
        }
    }

    /// Loads nothing more.
    pub(super) fn clear(&mut self) {
        self.waiting.clear();
    }

    fn next(&mut self) -> Option<LaneKey> {
        let may = self.under_way < LOADS && self.memory.has_room();
        let next = if may { self.waiting.pop_front() } else { None };
        self.under_way += usize::from(next.is_some());
        next
    }
}

/// Where an event stands in the parking. While it is in memory it takes its room there.
#[derive(Debug)]
pub struct FromParking {
    /// Its place.
    pub id: ParkedId,
    weight: Room,
    memory: Arc<Budget>,
}

impl FromParking {
    fn new(event: &ParkedEvent, memory: &Arc<Budget>) -> Self {
        let weight = Room {
            count: 1,
            bytes: event.message.size(),
        };
        memory.take(weight);
        Self {
            id: event.id,
            weight,
            memory: memory.clone(),
        }
    }
}

impl Drop for FromParking {
    fn drop(&mut self) {
        self.memory.give_back(self.weight);
    }
}

/// Events loaded from the parking.
pub(super) struct Loaded {
    lane: LaneKey,
    events: Vec<ParkedEvent>,
}

/// Listings of the parked lanes. While one is under way holds may change, and what it says of those is not to be trusted.
#[derive(Default)]
pub(super) struct Listing {
    is_under_way: bool,
    is_wanted: bool,
    /// How often the parking was to be looked at.
    pub(super) asked: u64,
    changed: HashSet<LaneKey>,
}

impl Listing {
    /// The hold of a lane has changed.
    pub(super) fn changed(&mut self, lane: &LaneKey) {
        if self.is_under_way {
            self.changed.insert(lane.clone());
        }
    }
}

impl Dispatcher {
    /// Learns what an earlier host left.
    pub(super) fn begin_with(&mut self, lanes: Vec<ParkedLane>) {
        for ParkedLane { lane, waiting, held_by } in lanes {
            if self.was_unclean {
                self.suspect_lanes.insert(lane.clone());
            }
            self.lanes.listed(&lane, waiting);
            if let Some(held_by) = held_by {
                self.lanes.hold(&lane, held_by);
            }
            self.tend(&lane);
        }
    }

    /// Looks at the parking again: dead letters were redriven or purged.
    pub(super) fn list_lanes(&mut self) {
        self.listing.asked += 1;
        if self.listing.is_under_way {
            self.listing.is_wanted = true;
            return;
        }
        self.listing.is_under_way = true;
        let (parking, metrics) = (self.parts.parking.clone(), self.parts.metrics.clone());
        let consumer = self.parts.consumer.name.clone();
        self.back.push(Box::pin(async move {
            Back::Lanes(until_answered(&metrics, "lanes", || parking.lanes(&consumer)).await)
        }));
    }

    /// What the listing says is added to what is known. Only this task holds lanes, so that only releases are new.
    pub(super) fn listed(&mut self, lanes: Vec<ParkedLane>) {
        self.listing.is_under_way = false;
        let changed = std::mem::take(&mut self.listing.changed);
        let holds: HashMap<&LaneKey, _> = lanes.iter().map(|listed| (&listed.lane, listed.held_by)).collect();
        let is_released =
            |(key, by): &(&LaneKey, _)| !changed.contains(*key) && holds.get(*key).copied().flatten() != Some(*by);
        let released = self.lanes.held().filter(is_released);
        let released: BTreeMap<_, _> = released.map(|(key, by)| (key.clone(), by)).collect();
        for (key, by) in released {
            self.lanes.release(&key, by);
            self.tend(&key);
        }
        for listed in lanes.iter().filter(|listed| listed.waiting > 0) {
            self.lanes.listed(&listed.lane, listed.waiting);
            self.tend(&listed.lane);
        }
        if std::mem::take(&mut self.listing.is_wanted) && !self.is_draining() {
            self.list_lanes();
        }
    }

    /// Has loaded what is next of a parked lane, or lets it run from memory again when nothing of it is left in the ledger.
    pub(super) fn tend(&mut self, key: &LaneKey) {
        if self.is_draining() {
            return;
        }
        if self.lanes.wants_load(key) {
            self.loader.waiting.push_back(key.clone());
        } else {
            self.lanes.unpark(key);
        }
    }

    /// Starts loading, as far as there is room.
    pub(super) fn load(&mut self) {
        while let Some(lane) = self.loader.next() {
            self.lanes.reading(&lane);
            let (parking, metrics) = (self.parts.parking.clone(), self.parts.metrics.clone());
            let consumer = self.parts.consumer.name.clone();
            self.back.push(Box::pin(async move {
                let events = until_answered(&metrics, "first", || parking.first(&consumer, &lane, LOAD)).await;
                Back::Loaded(Loaded { lane, events })
            }));
        }
    }

    pub(super) fn loaded(&mut self, loaded: Loaded) {
        crash::at(Point::Loaded);
        let Loaded { lane, mut events } = loaded;
        self.loader.under_way -= 1;
        if self.is_draining() {
            return;
        }
        let mut has_more = events.len() >= LOAD;
        if let Some(held_by) = self.lanes.held_by(&lane) {
            // Only the event that it is held for may run, once that was put back, to its front.
            let is_redriven = events.first().is_some_and(|event| event.record == held_by);
            events.truncate(usize::from(is_redriven));
            has_more = true;
        }
        let is_suspect = self.suspect_lanes.remove(&lane);
        let jobs = events
            .into_iter()
            .map(|event| self.unpack(event, &lane, is_suspect))
            .collect();
        self.lanes.load(&lane, jobs, has_more);
        self.tend(&lane);
    }

    /// Makes an event of what is in the parking. What can't be decoded or has no key stays what it was: it is to be buried again.
    fn unpack(&self, event: ParkedEvent, lane: &LaneKey, is_suspect: bool) -> Box<Job> {
        let parked = FromParking::new(&event, &self.loader.memory);
        let (decoded, problem) = self.decode(&event);
        let (consumer, stream) = (&self.parts.consumer.name, &self.parts.consumer.reads.name);
        // What could not be decoded when it came is known by its place, and stays so.
        let payload = match event.record == RecordKey::of_place(consumer, stream, event.position) {
            true => PayloadHash::of_message(&event.message),
            false => PayloadHash::of(decoded.data.as_ref()),
        };
        Box::new(Job {
            payload,
            event: decoded,
            message: event.message,
            position: event.position,
            record: event.record,
            lane: lane.clone(),
            receipt: None,
            parked: Some(parked),
            taken: self.now(),
            history: event.history.unwrap_or_default(),
            started: event.started,
            is_suspect: is_suspect || self.parked_suspects.contains(&event.record),
            is_begun: false,
            is_twin: false,
            is_head: false,
            era: Era::default(),
            problem,
            waiting_since: None,
        })
    }

    fn decode(&self, event: &ParkedEvent) -> (Event, Option<(Reason, String)>) {
        let stream = &self.parts.consumer.reads;
        let binding = Binding::of(&stream.broker.kind);
        match codec::decode(&event.message, binding, stream.mapping.as_ref()) {
            Err(error) => (Event::default(), Some((Reason::Undecodable, error.to_string()))),
            Ok(event) => {
                let key = key::key(&event, &self.parts.consumer.key);
                let problem = key.err().map(|error| (Reason::NoKey, error.to_string()));
                (event, problem)
            }
        }
    }
}
