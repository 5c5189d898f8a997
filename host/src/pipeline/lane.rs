//! The lanes of one consumer: events of one key run one at a time in order of arrival, keys run in parallel.
//!
//! A pure structure: it says which event may run next and takes back what became of it. A lane that is parked has its
//! events in the ledger; here stand only the few that were loaded from there.

use std::collections::{HashMap, VecDeque};

use tokio::time::Instant;

use super::job::Job;
use crate::ledger::{DeadId, LaneKey, RecordKey};

/// The lanes of one consumer.
#[derive(Default)]
pub struct Lanes {
    lanes: HashMap<LaneKey, Lane>,
    /// Lanes whose head may run, in the order in which they became so. A key may be stale: `take_ready` skips it.
    ready: VecDeque<LaneKey>,
}

/// One lane.
pub struct Lane {
    /// Events in memory, the head first. While the head runs it is not here.
    queue: VecDeque<Box<Job>>,
    /// What the head does.
    pub head: Head,
    /// Set while the lane's events wait in the ledger.
    pub parked: Option<Parked>,
}

/// What the head of a lane does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Head {
    /// There is none.
    Absent,
    /// It may run.
    Ready,
    /// It runs, or its outcome is being committed.
    Running,
    /// It waits for its next attempt. `since` is when this wait of the lane began.
    Waiting {
        /// When it may run.
        until: Instant,
        /// Since when the lane has not moved.
        since: Instant,
    },
}

/// What is in the ledger of a parked lane.
#[derive(Clone, Debug, Default)]
pub struct Parked {
    /// Events that wait there, the loaded ones included.
    pub waiting: u64,
    /// Events on their way there.
    pub moving: u64,
    /// The dead letter it waits for.
    pub held_by: Option<DeadId>,
    /// Whether its first events are being loaded.
    pub loading: bool,
}

impl Lanes {
    /// Puts an event at the end of its lane.
    pub fn push(&mut self, job: Box<Job>) {
        let lane = self.lanes.entry(job.lane.clone()).or_insert_with(Lane::empty);
        if lane.head == Head::Absent {
            lane.head = Head::Ready;
            self.ready.push_back(job.lane.clone());
        }
        lane.queue.push_back(job);
    }

    /// Puts events loaded from the ledger into their parked lane.
    pub fn load(&mut self, key: &LaneKey, jobs: Vec<Box<Job>>) {
        let Some(lane) = self.lanes.get_mut(key) else { return };
        if let Some(parked) = &mut lane.parked {
            parked.loading = false;
        }
        lane.queue.extend(jobs);
        if lane.head == Head::Absent && !lane.queue.is_empty() {
            lane.head = Head::Ready;
            self.ready.push_back(key.clone());
        }
    }

    /// The next event that may run; its lane runs from now on.
    pub fn take_ready(&mut self) -> Option<Box<Job>> {
        while let Some(key) = self.ready.pop_front() {
            if let Some(lane) = self.lanes.get_mut(&key)
                && lane.head == Head::Ready
                && let Some(mut job) = lane.queue.pop_front()
            {
                lane.head = Head::Running;
                job.is_head = true;
                return Some(job);
            }
        }
        None
    }

    /// Whether some event may run.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// The running head is done with: the lane goes on.
    pub fn advance(&mut self, key: &LaneKey) {
        let Some(lane) = self.lanes.get_mut(key) else { return };
        if lane.queue.is_empty() {
            lane.head = Head::Absent;
            if lane.parked.is_none() {
                self.lanes.remove(key);
            }
        } else {
            lane.head = Head::Ready;
            self.ready.push_back(key.clone());
        }
    }

    /// The running head comes back, to run again at once.
    pub fn again(&mut self, mut job: Box<Job>) {
        job.is_head = false;
        let key = job.lane.clone();
        let Some(lane) = self.lanes.get_mut(&key) else { return };
        lane.queue.push_front(job);
        lane.head = Head::Ready;
        self.ready.push_back(key);
    }

    /// The running head comes back, to run again later.
    pub fn wait(&mut self, mut job: Box<Job>, until: Instant, now: Instant) {
        let Some(lane) = self.lanes.get_mut(&job.lane) else {
            return;
        };
        let since = *job.waiting_since.get_or_insert(now);
        job.is_head = false;
        lane.queue.push_front(job);
        lane.head = Head::Waiting { until, since };
    }

    /// Lets the head wait if it is this event and does not run yet; says whether it does.
    pub fn hold_head(&mut self, key: &LaneKey, record: RecordKey, until: Instant, now: Instant) -> bool {
        let Some(lane) = self.lanes.get_mut(key) else {
            return false;
        };
        let is_head = lane.head == Head::Ready && lane.queue.front().is_some_and(|job| job.record == record);
        if is_head {
            lane.head = Head::Waiting { until, since: now };
        }
        is_head
    }

    /// A waiting head may run now.
    pub fn wake(&mut self, key: &LaneKey, now: Instant) {
        if let Some(lane) = self.lanes.get_mut(key)
            && let Head::Waiting { until, .. } = lane.head
            && until <= now
        {
            lane.head = Head::Ready;
            self.ready.push_back(key.clone());
        }
    }

    /// Parks a lane: its events in memory are taken out, to be moved into the ledger in this order.
    pub fn park(&mut self, key: &LaneKey) -> Vec<Box<Job>> {
        let lane = self.lanes.entry(key.clone()).or_insert_with(Lane::empty);
        let jobs: Vec<_> = lane.queue.drain(..).collect();
        let parked = lane.parked.get_or_insert_default();
        parked.moving += jobs.len() as u64;
        if lane.head != Head::Running {
            lane.head = Head::Absent;
        }
        jobs
    }

    /// Lets a lane run from memory again, if nothing of it is in the ledger any more; says whether it does.
    pub fn unpark(&mut self, key: &LaneKey) -> bool {
        let Some(lane) = self.lanes.get_mut(key) else {
            return true;
        };
        let is_empty = lane.parked.as_ref().is_none_or(|parked| {
            parked.waiting == 0 && parked.moving == 0 && parked.held_by.is_none() && !parked.loading
        });
        if is_empty {
            lane.parked = None;
            if lane.head == Head::Absent {
                self.lanes.remove(key);
            }
        }
        is_empty
    }

    /// One lane.
    pub fn get_mut(&mut self, key: &LaneKey) -> Option<&mut Lane> {
        self.lanes.get_mut(key)
    }

    /// One lane, made if it is not there.
    pub fn get_or_insert(&mut self, key: &LaneKey) -> &mut Lane {
        self.lanes.entry(key.clone()).or_insert_with(Lane::empty)
    }

    /// Lanes that wait for a dead letter.
    pub fn held(&self) -> impl Iterator<Item = &LaneKey> {
        let is_held = |lane: &Lane| lane.parked.as_ref().is_some_and(|parked| parked.held_by.is_some());
        self.lanes
            .iter()
            .filter(move |(_, lane)| is_held(lane))
            .map(|(key, _)| key)
    }

    /// How many lanes there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.lanes.len()
    }

    /// How many events wait in the ledger.
    #[must_use]
    pub fn parked(&self) -> u64 {
        self.lanes
            .values()
            .filter_map(|lane| lane.parked.as_ref())
            .map(|parked| parked.waiting + parked.moving)
            .sum()
    }

    /// Takes out everything that does not run.
    pub fn drain(&mut self) -> Vec<Box<Job>> {
        self.ready.clear();
        let mut jobs = Vec::new();
        for lane in self.lanes.values_mut() {
            jobs.extend(lane.queue.drain(..));
            if lane.head != Head::Running {
                lane.head = Head::Absent;
            }
        }
        jobs
    }
}

impl Lane {
    fn empty() -> Self {
        Self {
            queue: VecDeque::new(),
            head: Head::Absent,
            parked: None,
        }
    }

    /// Events in memory that do not run.
    #[must_use]
    pub fn queued(&self) -> usize {
        self.queue.len()
    }
}
