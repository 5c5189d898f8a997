//! Starts what may run: as many attempts as the consumer's concurrency, its breaker and what waits to be published allow.

use std::time::Duration;

use tokio::time::Instant;

use super::breaker::Phase;
use super::dispatch::{Back, Dispatcher};
use super::job::Job;
use super::until_answered;
use crate::ledger::{Change, RecordKey};
use crate::outcome::Reason;

/// Events in one chunk at most, and about how long a chunk may compute: long enough that handing it over costs nothing beside it,
/// short enough that the other core is not left idle.
const CHUNK_EVENTS: usize = 32;
const CHUNK_TIME: Duration = Duration::from_millis(1);
/// How much work a worker is given ahead, where attempts are that short: its next chunk lies ready when it ends one, and what ends meanwhile is
/// committed together. With 64 events in hand instead, most chunks were a commit of their own, and an event cost 7 % more in all.
const AHEAD_TIME: Duration = Duration::from_millis(8);
const AHEAD_EVENTS: usize = 512;

/// What the next event of a lane does.
enum Next {
    /// It runs.
    Run,
    /// It may have been done meanwhile: the ledger is asked again.
    Ask,
    /// It waits for its next attempt.
    Wait(Instant),
    /// It must not run.
    Bury(Reason, String),
}

impl Dispatcher {
    /// Starts what may run.
    pub(super) fn start(&mut self) {
        if self.is_draining() || !self.lanes.is_ready() {
            return;
        }
        let mut allowed = self.allowed();
        let (mut chunk, mut twins, mut steps) = (Vec::new(), Vec::new(), Vec::new());
        while allowed > 0
            && let Some(mut job) = self.lanes.take_ready()
        {
            match self.next(&job) {
                Next::Ask => twins.push(job),
                Next::Bury(reason, detail) => steps.push(self.bury(job, reason, &detail)),
                Next::Wait(until) => {
                    let key = job.lane.clone();
                    self.wait(job, until);
                    self.park_if_long(&key);
                }
                Next::Run => {
                    allowed -= 1;
                    self.running += 1;
                    self.running_in_era += 1;
                    job.era = self.breaker.era();
                    match job.is_suspect {
                        true => self.run_suspect(job),
                        false => chunk.push(job),
                    }
                }
            }
        }
        self.run_chunks(chunk);
        self.write(steps);
        self.look_up(twins);
        self.move_parked();
    }

    /// How many attempts may be started now.
    fn allowed(&mut self) -> usize {
        if self.unconfirmed.is_full() {
            return 0;
        }
        match self.breaker.phase(self.now()) {
            Phase::Closed => {
                let room = self.unconfirmed.attempts(self.effects_size);
                self.in_hand_max().min(room).saturating_sub(self.running)
            }
            Phase::HalfOpen => usize::from(self.running_in_era == 0),
            Phase::Open(_) => 0,
        }
    }

    /// How many events may run or wait for a worker. More than the concurrency only of attempts that compute for a moment; how many of
    /// them are under way is for the bench's permits.
    fn in_hand_max(&self) -> usize {
        let concurrency = self.parts.consumer.concurrency.get();
        match attempts_in(AHEAD_TIME, self.attempt_time) {
            Some(ahead) => concurrency.max(ahead.min(AHEAD_EVENTS) * self.bench.workers),
            None => concurrency,
        }
    }

    fn next(&self, job: &Job) -> Next {
        if job.is_twin {
            return Next::Ask;
        }
        if let Some((reason, detail)) = job.unfit() {
            return Next::Bury(reason, detail);
        }
        let next_at = job.history.next_at;
        match job.history.failed > 0 && next_at > self.parts.clock.wall() {
            true => Next::Wait(self.parts.clock.instant_of(next_at)),
            false => Next::Run,
        }
    }

    fn run_chunks(&mut self, mut jobs: Vec<Box<Job>>) {
        if jobs.is_empty() {
            return;
        }
        let by_time = attempts_in(CHUNK_TIME, self.attempt_time)
            .unwrap_or(CHUNK_EVENTS)
            .clamp(1, CHUNK_EVENTS);
        let size = jobs.len().div_ceil(self.bench.workers).clamp(1, by_time);
        while !jobs.is_empty() {
            let chunk = jobs.drain(..size.min(jobs.len())).collect();
            self.tasks.spawn(self.bench.clone().run(chunk, self.finished.clone()));
        }
    }

    /// Runs what an earlier host may have died of. A beginning that is on record already is not written again.
    fn run_suspect(&mut self, mut job: Box<Job>) {
        let begin = (!job.is_begun).then(|| self.entry(&job, Change::Started));
        self.begun(&mut job);
        let metrics = self.parts.metrics.clone();
        self.tasks.spawn(
            self.bench
                .clone()
                .run_suspect(job, begin, metrics, self.finished.clone()),
        );
    }

    /// Its beginning will be on record: a stop that is no crash takes it back.
    fn begun(&mut self, job: &mut Job) {
        job.is_begun = true;
        let ended = self.entry(job, Change::Failed(job.history.clone()));
        self.begun.insert(job.record, ended);
    }

    /// The running head of a lane runs once more, at once.
    pub(super) fn run_again(&mut self, job: Box<Job>) {
        match self.is_draining() {
            true => self.hand_back(job),
            false => self.lanes.again(job),
        }
    }

    fn look_up(&mut self, twins: Vec<Box<Job>>) {
        if twins.is_empty() {
            return;
        }
        self.in_ledger += twins.len();
        let (ledger, metrics) = (self.parts.ledger.clone(), self.parts.metrics.clone());
        self.back.push(Box::pin(async move {
            let keys: Vec<RecordKey> = twins.iter().map(|job| job.record).collect();
            let known = until_answered(&metrics, "look_up", || ledger.look_up(keys.clone())).await;
            Back::LookedUp(twins.into_iter().zip(known).collect())
        }));
    }
}

/// How many attempts fit into a time; `None` as long as nothing is known of them.
fn attempts_in(time: Duration, attempt: Duration) -> Option<usize> {
    let attempts = time.as_nanos().checked_div(attempt.as_nanos())?;
    usize::try_from(attempts).ok()
}
