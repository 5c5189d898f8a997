//! Runs attempts in chunks: many events on one task, their results handed back as they come.
//!
//! A task per event costs more than a small guest does. In a chunk, guests that only compute run one after the other on
//! one worker, guests that wait overlap, and what has ended together is reported together.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::sync::{Semaphore, mpsc};

use super::job::Job;
use super::quarantine::Quarantine;
use super::{Parts, until_answered};
use crate::clock::{Clock, Timestamp};
use crate::crash::{self, Point};
use crate::ledger::{self, Entry, Ledger, Read, StateBucket, StateKey, StateReader};
use crate::metrics::Consumer;
use crate::plugin::{Attempted, Call, Handler};

/// How long a chunk computes before everything else in the host has its turn, reading from sockets included: other consumers wait about
/// so long at each step of an event. A chunk is not left for another one of its consumer meanwhile, so that results come one by one.
const TURN: Duration = Duration::from_micros(200);

/// An attempt that ended.
pub struct Finished {
    /// Of which event.
    pub job: Box<Job>,
    /// How.
    pub attempted: Attempted,
    /// When it began.
    pub at: Timestamp,
}

/// What a chunk of attempts needs. Cloning it costs a few reference counts.
#[derive(Clone)]
pub struct Bench {
    /// Runs the plugin.
    pub handler: Arc<dyn Handler>,
    /// For the state that attempts read.
    pub ledger: Arc<dyn Ledger>,
    /// For deadlines.
    pub clock: Clock,
    /// How long one attempt may take.
    pub time: Duration,
    /// Keeps apart what may have killed a host.
    pub quarantine: Arc<Quarantine>,
    /// Chunks that can compute at once.
    pub workers: usize,
    /// One for each attempt that may be under way: chunks that wait for a worker hold more events than that.
    pub permits: Arc<Semaphore>,
    /// One for each chunk that may compute; the others of the consumer wait, in order, and not in the way of other consumers.
    pub turns: Arc<Semaphore>,
}

impl Bench {
    /// The bench of a consumer.
    #[must_use]
    pub fn of(parts: &Parts) -> Self {
        Self {
            handler: parts.handler.clone(),
            ledger: parts.ledger.clone(),
            clock: parts.clock.clone(),
            time: parts.consumer.limits.time,
            quarantine: parts.quarantine.clone(),
            workers: parts.workers.get(),
            permits: Arc::new(Semaphore::new(parts.consumer.concurrency.get())),
            turns: Arc::new(Semaphore::new(parts.workers.get())),
        }
    }

    /// Runs a chunk to its end.
    ///
    /// # Cancellation
    /// Safe: what has not been reported has not happened.
    pub async fn run(self, jobs: Vec<Box<Job>>, finished: mpsc::Sender<Vec<Finished>>) {
        let _leave = self.quarantine.shared().await;
        self.run_all(jobs, finished).await;
    }

    /// Runs one event that an earlier host may have died of. That it begins is written when it really does: what merely waits for
    /// its turn when a host dies is not suspected any further.
    ///
    /// # Cancellation
    /// As for `run`.
    pub async fn run_suspect(
        self,
        job: Box<Job>,
        begin: Option<Entry>,
        metrics: Consumer,
        finished: mpsc::Sender<Vec<Finished>>,
    ) {
        let _leave = self.quarantine.suspect(job.started).await;
        if let Some(begin) = begin {
            let begin = Arc::new(vec![begin]);
            // If it is refused, so will be what the attempt wants to commit.
            until_answered(&metrics, "write", || self.ledger.write(begin.clone())).await;
            crash::at(Point::Begun);
        }
        self.run_all(vec![job], finished).await;
    }

    async fn run_all(&self, jobs: Vec<Box<Job>>, finished: mpsc::Sender<Vec<Finished>>) {
        let mut running: FuturesUnordered<_> = jobs.into_iter().map(|job| self.attempt(job)).collect();
        let mut group = Vec::new();
        loop {
            self.compute(&mut running, &mut group).await;
            if !group.is_empty() && finished.send(std::mem::take(&mut group)).await.is_err() {
                return;
            }
            match running.next().await {
                Some(first) => group.push(first),
                None => return,
            }
        }
    }

    /// Lets attempts compute until each has ended or waits for something.
    async fn compute(&self, running: &mut FuturesUnordered<impl Future<Output = Finished>>, group: &mut Vec<Finished>) {
        // Nobody closes it, so that this is no error.
        let _turn = self.turns.acquire().await;
        let mut since = self.clock.now();
        while let Some(Some(ended)) = running.next().now_or_never() {
            group.push(ended);
            if self.clock.now().saturating_duration_since(since) >= TURN {
                tokio::task::yield_now().await;
                since = self.clock.now();
            }
        }
    }

    async fn attempt(&self, job: Box<Job>) -> Finished {
        // Nobody closes it, so that this is no error.
        let _permit = self.permits.acquire().await;
        let at = self.clock.wall();
        let state = Committed(self.ledger.as_ref());
        let call = Call {
            event: &job.event,
            headers: &job.message.headers,
            attempt: job.history.failed + 1,
            deadline: self.clock.now() + self.time,
            lane: &job.lane,
            record: job.record,
            state: &state,
        };
        let attempted = self.handler.attempt(call).await;
        Finished { job, attempted, at }
    }
}

/// Committed state, as the ledger has it now.
struct Committed<'l>(&'l dyn Ledger);

impl StateReader for Committed<'_> {
    fn read<'a>(&'a self, key: &'a StateKey) -> BoxFuture<'a, Result<Read, ledger::Error>> {
        self.0.read_state(key)
    }

    fn list<'a>(
        &'a self,
        bucket: &'a StateBucket,
        after: Option<&'a str>,
        limit: usize,
    ) -> BoxFuture<'a, Result<Vec<String>, ledger::Error>> {
        self.0.list_state(bucket, after, limit)
    }
}
