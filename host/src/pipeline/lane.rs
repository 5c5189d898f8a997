//! The lanes of one consumer: events of one key run one at a time in order of arrival, keys run in parallel.
//!
//! A pure structure: it says which event may run next and takes back what became of it. A lane that is parked has its events in the
//! ledger; here stand only a few that were loaded from there to run now, or what was here before, which runs first. What waits of a
//! parked lane is not kept here at all, so that any number of them may wait.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};

use tokio::time::Instant;

use super::job::Job;
use crate::event::key::LaneKey;
use crate::ledger::DeadId;

/// The lanes of one consumer.
#[derive(Default)]
pub(super) struct Lanes {
    lanes: HashMap<LaneKey, Lane>,
    /// Lanes whose head may run, in the order in which they became so. A key may be stale: `take_ready` skips it.
    ready: VecDeque<LaneKey>,
    /// Events in the ledger or on their way there, over all lanes.
    parked: u64,
}

/// One lane.
#[derive(Default)]
struct Lane {
    /// Events in memory, the head first. While the head runs it is not here. Either all of them came out of the ledger, or none.
    queue: VecDeque<Box<Job>>,
    head: Head,
    /// Set while the lane's events wait in the ledger.
    parked: Option<Parked>,
    /// Something of it came into the ledger while it ran from memory: it is to be parked when none of its events runs. Were it parked at once,
    /// a later event could be settled in the ledger before an earlier one, which after a crash would come behind it.
    is_noted: bool,
}

impl Lane {
    fn is_idle(&self) -> bool {
        self.head == Head::Absent && self.queue.is_empty()
    }
}

/// What the head of a lane does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Head {
    /// There is none.
    #[default]
    Absent,
    /// It may run.
    Ready,
    /// It runs, or its outcome is being committed.
    Running,
    /// It waits for its next attempt.
    Waiting {
        /// When it may run.
        until: Instant,
        /// Since when the lane has not moved.
        since: Instant,
    },
}

/// What is known of a parked lane.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Parked {
    /// Events that wait there, about: to be shown only.
    waiting: u64,
    /// Events on their way there.
    moving: u64,
    /// Whether some of its events may be there that are not here.
    has_more: bool,
    /// The dead letter it waits for.
    held_by: Option<DeadId>,
    /// Whether the event of that dead letter may be at its front.
    is_redriven: bool,
    /// Whether its first events are about to be loaded.
    is_loading: bool,
}

impl Parked {
    fn count(&self) -> u64 {
        self.waiting + self.moving
    }

    /// Events of it may be in the ledger.
    fn look_again(&mut self) {
        (self.has_more, self.is_redriven) = (true, true);
    }
}

/// What a lane does that waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Wait {
    /// When its head may run.
    pub until: Instant,
    /// Since when it has not moved.
    pub since: Instant,
    /// Events of it in memory.
    pub queued: usize,
}

impl Lanes {
    /// Puts an event at the end of its lane, which is not parked.
    pub(super) fn push(&mut self, job: Box<Job>) {
        let key = job.lane.clone();
        let lane = self.lanes.entry(key.clone()).or_default();
        lane.queue.push_back(job);
        if lane.head == Head::Absent {
            lane.head = Head::Ready;
            self.ready.push_back(key);
        }
    }

    /// The next event that may run; its lane runs from now on.
    pub(super) fn take_ready(&mut self) -> Option<Box<Job>> {
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
    pub(super) fn is_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// The running head is done with: the lane goes on.
    pub(super) fn advance(&mut self, key: &LaneKey) {
        let Entry::Occupied(mut lane) = self.lanes.entry(key.clone()) else {
            return;
        };
        if !lane.get().queue.is_empty() {
            lane.get_mut().head = Head::Ready;
            self.ready.push_back(key.clone());
        } else if lane.get().parked.is_some() {
            lane.get_mut().head = Head::Absent;
        } else {
            lane.remove();
        }
    }

    /// The running head comes back, to run again at once.
    pub(super) fn again(&mut self, mut job: Box<Job>) {
        job.is_head = false;
        let key = job.lane.clone();
        let lane = self.lanes.entry(key.clone()).or_default();
        lane.queue.push_front(job);
        lane.head = Head::Ready;
        self.ready.push_back(key);
    }

    /// The running head comes back, to run again later. If it is of a parked lane, it and what was loaded with it is forgotten: it is
    /// in the ledger, and is loaded again when it is time.
    pub(super) fn wait(&mut self, mut job: Box<Job>, until: Instant, now: Instant) {
        let since = *job.waiting_since.get_or_insert(now);
        let lane = self.lanes.entry(job.lane.clone()).or_default();
        lane.head = Head::Waiting { until, since };
        if job.parked.is_some() {
            lane.queue.clear();
            lane.parked.get_or_insert_default().look_again();
        } else {
            job.is_head = false;
            lane.queue.push_front(job);
            #[cfg(test)]
            super::tests::simulation::bugs::taken_back(&mut lane.queue);
        }
    }

    /// A waiting head may run now. Says whether it has to be loaded first.
    pub(super) fn wake(&mut self, key: &LaneKey, now: Instant) -> bool {
        let Some(lane) = self.lanes.get_mut(key) else {
            return false;
        };
        match lane.head {
            Head::Waiting { until, .. } if until <= now => {}
            _ => return false,
        }
        if lane.queue.is_empty() {
            lane.head = Head::Absent;
            return true;
        }
        lane.head = Head::Ready;
        self.ready.push_back(key.clone());
        false
    }

    /// Events of a lane that runs from memory and wait behind its head.
    #[must_use]
    pub(super) fn behind(&self, key: &LaneKey) -> usize {
        let lane = self.lanes.get(key).filter(|lane| lane.parked.is_none());
        lane.map_or(0, |lane| lane.queue.len())
    }

    /// Whether a lane waits in memory, and for how long.
    #[must_use]
    pub(super) fn waiting(&self, key: &LaneKey) -> Option<Wait> {
        let lane = self.lanes.get(key).filter(|lane| lane.parked.is_none())?;
        match lane.head {
            Head::Waiting { until, since } => Some(Wait {
                until,
                since,
                queued: lane.queue.len(),
            }),
            _ => None,
        }
    }

    /// How many lanes there are.
    #[must_use]
    pub(super) fn len(&self) -> usize {
        self.lanes.len()
    }

    /// How many events wait in the ledger or are on their way there, about.
    #[must_use]
    pub(super) fn parked(&self) -> u64 {
        self.parked
    }

    /// Takes out everything that does not run, in the order of the stream.
    pub(super) fn drain(&mut self) -> Vec<Box<Job>> {
        self.ready.clear();
        let mut jobs: Vec<Box<Job>> = Vec::new();
        for lane in self.lanes.values_mut() {
            jobs.extend(lane.queue.drain(..));
            if lane.head != Head::Running {
                lane.head = Head::Absent;
            }
        }
        jobs.sort_by_key(|job| job.position);
        jobs
    }
}

/// What is parked.
impl Lanes {
    /// Whether a lane is parked: whatever arrives for it goes into the ledger.
    #[must_use]
    pub(super) fn is_parked(&self, key: &LaneKey) -> bool {
        self.lanes.get(key).is_some_and(|lane| lane.parked.is_some())
    }

    /// Parks a lane. Gives its events that are only in memory, to be moved into the ledger in this order.
    pub(super) fn park(&mut self, key: &LaneKey) -> Vec<Box<Job>> {
        let lane = self.lanes.entry(key.clone()).or_default();
        let jobs: Vec<_> = lane.queue.drain(..).filter(|job| job.parked.is_none()).collect();
        if lane.head != Head::Running {
            lane.head = Head::Absent;
        }
        lane.parked.get_or_insert_default();
        lane.is_noted = false;
        let moving = jobs.len() as u64;
        self.change(key, |parked| {
            parked.moving += moving;
            // Of what was loaded before nothing is kept.
            parked.look_again();
        });
        jobs
    }

    /// One more event of a parked lane is on its way into the ledger.
    pub(super) fn moving(&mut self, key: &LaneKey) {
        self.change(key, |parked| parked.moving += 1);
    }

    /// An event has arrived in the ledger.
    pub(super) fn moved(&mut self, key: &LaneKey) {
        self.change(key, |parked| {
            parked.moving = parked.moving.saturating_sub(1);
            parked.waiting += 1;
            parked.has_more = true;
        });
    }

    /// An event does not go into the ledger after all.
    pub(super) fn not_moved(&mut self, key: &LaneKey) {
        self.change(key, |parked| parked.moving = parked.moving.saturating_sub(1));
    }

    /// An event of a parked lane is out of the ledger.
    pub(super) fn taken(&mut self, key: &LaneKey) {
        self.change(key, |parked| parked.waiting = parked.waiting.saturating_sub(1));
    }

    /// Whether a lane that runs from memory is to be parked.
    #[must_use]
    pub(super) fn is_noted(&self, key: &LaneKey) -> bool {
        self.lanes.get(key).is_some_and(|lane| lane.is_noted)
    }

    /// Lets a parked lane run from memory what found no room in the ledger, if nothing of it can be there. Gives the events back if it
    /// can't.
    pub(super) fn resume(&mut self, key: &LaneKey, jobs: Vec<Box<Job>>) -> Vec<Box<Job>> {
        let Some(lane) = self.lanes.get_mut(key).filter(|lane| lane.is_idle()) else {
            return jobs;
        };
        let Some(parked) = lane.parked else { return jobs };
        if parked.has_more || parked.is_loading || parked.held_by.is_some() || parked.moving != jobs.len() as u64 {
            return jobs;
        }
        self.parked -= parked.count();
        lane.parked = None;
        lane.queue.extend(jobs);
        lane.head = Head::Ready;
        self.ready.push_back(key.clone());
        Vec::new()
    }

    /// So many events of a lane are in the ledger, as was seen there.
    pub(super) fn listed(&mut self, key: &LaneKey, waiting: u64) {
        let lane = self.lanes.entry(key.clone()).or_default();
        if lane.parked.is_none() && !lane.is_idle() {
            lane.is_noted = true;
            return;
        }
        lane.parked.get_or_insert_default();
        self.change(key, |parked| {
            parked.waiting = waiting;
            if waiting > 0 {
                parked.look_again();
            }
        });
    }

    /// A lane waits for a dead letter from now on.
    pub(super) fn hold(&mut self, key: &LaneKey, by: DeadId) {
        self.change(key, |parked| parked.held_by = Some(by));
    }

    /// A lane does not wait for a dead letter any more, if it waits for this one. Says whether it did.
    pub(super) fn release(&mut self, key: &LaneKey, by: DeadId) -> bool {
        let parked = self.lanes.get_mut(key).and_then(|lane| lane.parked.as_mut());
        let held_by = parked.map(|parked| &mut parked.held_by);
        held_by
            .and_then(|held_by| held_by.take_if(|held_by| *held_by == by))
            .is_some()
    }

    /// What a lane waits for.
    #[must_use]
    pub(super) fn held_by(&self, key: &LaneKey) -> Option<DeadId> {
        self.lanes.get(key)?.parked?.held_by
    }

    /// Lanes that wait for a dead letter, and which.
    pub(super) fn held(&self) -> impl Iterator<Item = (&LaneKey, DeadId)> {
        let held = |(key, lane): (_, &Lane)| Some((key, lane.parked?.held_by?));
        self.lanes.iter().filter_map(held)
    }

    /// Whether the first events of a lane are to be loaded: nothing of it is here, and some may be there. It counts as loading from now
    /// on.
    pub(super) fn wants_load(&mut self, key: &LaneKey) -> bool {
        let Some(lane) = self.lanes.get_mut(key).filter(|lane| lane.head == Head::Absent) else {
            return false;
        };
        let Some(parked) = &mut lane.parked else { return false };
        let wants = !parked.is_loading && parked.has_more && (parked.held_by.is_none() || parked.is_redriven);
        parked.is_loading |= wants;
        wants
    }

    /// A lane is read from the ledger now: what comes there later is not seen.
    pub(super) fn reading(&mut self, key: &LaneKey) {
        self.change(key, |parked| (parked.has_more, parked.is_redriven) = (false, false));
    }

    /// Takes what was read of a parked lane. `has_more`: there are others behind it.
    pub(super) fn load(&mut self, key: &LaneKey, jobs: Vec<Box<Job>>, has_more: bool) {
        let Some(lane) = self.lanes.get_mut(key) else { return };
        let Some(parked) = &mut lane.parked else { return };
        parked.is_loading = false;
        parked.has_more |= has_more;
        if lane.head == Head::Absent && !jobs.is_empty() {
            lane.queue.extend(jobs);
            lane.head = Head::Ready;
            self.ready.push_back(key.clone());
        } else if !jobs.is_empty() {
            parked.look_again();
        }
    }

    /// Lets a lane run from memory again, if nothing of it can be in the ledger any more.
    pub(super) fn unpark(&mut self, key: &LaneKey) {
        let Entry::Occupied(lane) = self.lanes.entry(key.clone()) else {
            return;
        };
        if let Some(parked) = lane.get().parked
            && lane.get().is_idle()
            && parked.moving == 0
            && !parked.has_more
            && !parked.is_loading
            && parked.held_by.is_none()
        {
            self.parked -= parked.count();
            lane.remove();
        }
    }

    fn change(&mut self, key: &LaneKey, change: impl FnOnce(&mut Parked)) {
        if let Some(parked) = self.lanes.get_mut(key).and_then(|lane| lane.parked.as_mut()) {
            let before = parked.count();
            change(parked);
            self.parked = self.parked - before + parked.count();
        }
    }
}
