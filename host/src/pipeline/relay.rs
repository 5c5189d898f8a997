//! Publishes committed outputs, in the order of their keys, until their broker confirms them.
//!
//! One relay per stream that is written. Rows come straight from the commit; the store is read once, at start, for what the last host
//! left. A crash between publishing a row and forgetting it publishes it again under the same id.
//!
//! Order: of one key, one row is on its way at a time, unless the publisher keeps order through failures.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::letter;
use super::unconfirmed::Confirmations;
use crate::broker::{self, Broker, Outgoing, Publisher};
use crate::clock::Clock;
use crate::crash::{self, Point};
use crate::event::key::LaneKey;
use crate::ledger::{Ledger, Outbox, Row, RowId};
use crate::metrics;
use crate::plan;

/// Rows in one call of the publisher. The sweet spot of the measurements is above 64 and flat from there.
const BATCH_ROWS: usize = 256;
/// Calls of the publisher under way at once.
const BATCHES: usize = 8;
/// Between two tries while the broker is away.
const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(5);
/// The longest that a broker may ask to be left alone.
const ASKED_MAX: Duration = Duration::from_secs(60);

/// A row on its way, and who waits for it.
pub struct Posted {
    /// The row.
    pub row: Row,
    /// Whom to tell when it is confirmed, and by what number.
    pub waiter: (Confirmations, u64),
}

/// The way into a relay. Cloning shares it; its queue holds as much as all consumers may hold unsettled.
#[derive(Clone)]
pub struct Relay {
    rows: mpsc::Sender<Vec<Posted>>,
    metrics: metrics::Stream,
}

impl Relay {
    /// Hands over rows in the order of their commits.
    pub async fn post(&self, rows: Vec<Posted>) {
        self.metrics.queued(rows.len());
        // The relay outlives every consumer; if it is gone the host is stopping, and the rows are in the ledger.
        let _ = self.rows.send(rows).await;
    }

    /// Why rows wait, if it is for the broker's sake.
    #[must_use]
    pub fn trouble(&self) -> Option<String> {
        self.metrics.trouble()
    }

    /// How many rows wait to be confirmed.
    #[must_use]
    pub fn waiting(&self) -> i64 {
        self.metrics.waiting()
    }
}

/// What a relay works with.
pub struct Parts {
    /// Which stream.
    pub stream: Arc<plan::Stream>,
    /// Its broker.
    pub broker: Arc<dyn Broker>,
    /// Where confirmed rows are forgotten.
    pub outbox: Arc<dyn Outbox>,
    /// Where the dead letters of refused rows go.
    pub ledger: Arc<dyn Ledger>,
    /// For pauses.
    pub clock: Clock,
    /// What it counts.
    pub metrics: metrics::Stream,
}

impl Parts {
    /// Starts the relay with what an earlier host left, oldest first. It ends when every [`Relay`] is dropped and nothing is on its way,
    /// or when its task is aborted: its rows are in the ledger.
    #[must_use]
    pub fn start(self, left: Vec<Posted>, capacity: usize) -> (Relay, BoxFuture<'static, ()>) {
        let (sender, receiver) = mpsc::channel(capacity);
        let relay = Relay {
            rows: sender,
            metrics: self.metrics.clone(),
        };
        relay.metrics.queued(left.len());
        let mut run = Run {
            pause: PAUSE_MIN,
            not_before: None,
            publisher: None,
            keys: HashMap::new(),
            ready: VecDeque::new(),
            failing: BTreeSet::new(),
            parts: self,
        };
        run.accept(left);
        (relay, Box::pin(run.run(receiver)))
    }
}

struct Run {
    parts: Parts,
    publisher: Option<Arc<dyn Publisher>>,
    /// Rows of keys that have one on its way, behind it.
    keys: HashMap<LaneKey, VecDeque<Posted>>,
    ready: VecDeque<Posted>,
    /// Rows that failed and are not confirmed yet: some may be well while others wait.
    failing: BTreeSet<RowId>,
    pause: Duration,
    not_before: Option<Instant>,
}

type Batch = (Vec<Posted>, Vec<Result<(), broker::Error>>);

impl Run {
    async fn run(mut self, mut rows: mpsc::Receiver<Vec<Posted>>) {
        let mut under_way: FuturesUnordered<BoxFuture<'static, Batch>> = FuturesUnordered::new();
        let mut is_open = true;
        while is_open || !under_way.is_empty() || !self.ready.is_empty() {
            self.publish(&mut under_way).await;
            let wake = self.not_before;
            tokio::select! {
                // As in the dispatcher: a seed repeats a run, and of what stands first there is only so much.
                biased;
                () = sleep_until(wake), if wake.is_some() => self.not_before = None,
                Some((batch, results)) = under_way.next() => self.settle(batch, results).await,
                posted = rows.recv(), if is_open => match posted {
                    Some(posted) => self.accept(posted),
                    None => is_open = false,
                },
            }
        }
    }

    fn keeps_order(&self) -> bool {
        self.publisher.as_ref().is_some_and(|publisher| publisher.keeps_order())
    }

    fn accept(&mut self, posted: Vec<Posted>) {
        let keeps_order = self.keeps_order();
        for posted in posted {
            match self.keys.get_mut(&posted.row.output.key) {
                Some(behind) => behind.push_back(posted),
                None if keeps_order => self.ready.push_back(posted),
                None => {
                    self.keys.insert(posted.row.output.key.clone(), VecDeque::new());
                    self.ready.push_back(posted);
                }
            }
        }
    }

    /// Sends what is ready, as far as the publisher can be had.
    async fn publish(&mut self, under_way: &mut FuturesUnordered<BoxFuture<'static, Batch>>) {
        while !self.ready.is_empty() && self.not_before.is_none() && under_way.len() < BATCHES {
            let Some(publisher) = self.publisher().await else {
                return;
            };
            let count = self.ready.len().min(BATCH_ROWS);
            let batch: Vec<_> = self.ready.drain(..count).collect();
            let outgoing = batch.iter().map(|posted| outgoing(&posted.row)).collect();
            crash::at(Point::Publishing);
            under_way.push(Box::pin(async move {
                let results = publisher.publish(outgoing).await;
                (batch, results)
            }));
        }
    }

    async fn publisher(&mut self) -> Option<Arc<dyn Publisher>> {
        if self.publisher.is_none() {
            match self.parts.broker.publisher(self.parts.stream.clone()).await {
                Ok(publisher) => self.publisher = Some(publisher),
                Err(error) => {
                    self.parts.metrics.stuck(&error);
                    self.back_off(None);
                }
            }
        }
        self.publisher.clone()
    }

    async fn settle(&mut self, batch: Vec<Posted>, results: Vec<Result<(), broker::Error>>) {
        let mut confirmed = Vec::with_capacity(batch.len());
        let mut failed = Vec::new();
        let mut error = None;
        for (posted, result) in batch.into_iter().zip(results) {
            match result {
                Ok(()) => confirmed.push(posted),
                Err(refused @ broker::Error::Refused { .. }) => match self.bury(&posted, &refused).await {
                    true => confirmed.push(posted),
                    false => failed.push(posted),
                },
                Err(other) => {
                    failed.push(posted);
                    error = Some(other);
                }
            }
        }
        if !confirmed.is_empty() {
            crash::at(Point::Published);
            // It takes some: it is not away, and others need not wait for those it does not take now.
            self.pause = PAUSE_MIN;
        }
        self.retry(failed, error);
        self.confirm(confirmed);
    }

    /// Makes a dead letter of a row that its broker refuses for good; says whether it is durable.
    async fn bury(&self, posted: &Posted, error: &broker::Error) -> bool {
        let Parts {
            ledger, clock, metrics, ..
        } = &self.parts;
        let entry = letter::refused_output(&posted.row, error, clock.wall());
        match ledger.write(Arc::new(vec![entry])).await {
            Ok(_) => {
                metrics.refused(&posted.row.output.id, error);
                // `confirm` counts it off the outbox.
                metrics.queued(1);
                true
            }
            Err(unavailable) => {
                metrics.stuck(&unavailable);
                false
            }
        }
    }

    /// Puts rows back where they were, before anything newer of their keys.
    fn retry(&mut self, failed: Vec<Posted>, error: Option<broker::Error>) {
        if failed.is_empty() {
            return;
        }
        let mut asked = None;
        if let Some(error) = &error {
            self.parts.metrics.failed(failed.len(), error);
            if let broker::Error::Unreachable { retry_after, .. } = error {
                asked = *retry_after;
            } else {
                // The stream may have to be opened anew.
                self.publisher = None;
            }
        }
        for posted in failed.into_iter().rev() {
            self.failing.insert(posted.row.id);
            self.ready.push_front(posted);
        }
        self.back_off(asked);
    }

    fn back_off(&mut self, asked: Option<Duration>) {
        let pause = asked.map_or(self.pause, |asked| asked.min(ASKED_MAX));
        let until = self.parts.clock.now() + pause;
        // Calls that were under way together fail together: that is one failure.
        if self.not_before.is_none() {
            self.pause = (self.pause * 2).min(PAUSE_MAX);
        }
        self.not_before = self.not_before.max(Some(until));
    }

    fn confirm(&mut self, confirmed: Vec<Posted>) {
        let mut rows: Vec<RowId> = Vec::with_capacity(confirmed.len());
        let mut waiters: Vec<(Confirmations, Vec<u64>)> = Vec::new();
        self.parts.metrics.confirmed(confirmed.len());
        for posted in confirmed {
            rows.push(posted.row.id);
            self.failing.remove(&posted.row.id);
            self.go_on(&posted.row.output.key);
            let (waiter, number) = posted.waiter;
            match waiters.iter_mut().find(|(known, _)| known.is_same(&waiter)) {
                Some((_, numbers)) => numbers.push(number),
                None => waiters.push((waiter, vec![number])),
            }
        }
        if !rows.is_empty() && self.failing.is_empty() {
            self.parts.metrics.recovered();
        }
        // First forget, then tell: a crash between them publishes the rows again under their ids.
        self.parts.outbox.confirmed(rows);
        crash::at(Point::Confirmed);
        for (waiter, numbers) in waiters {
            waiter.tell(&numbers);
        }
    }

    /// The next row of a key may go.
    fn go_on(&mut self, key: &LaneKey) {
        match self.keys.get_mut(key).map(VecDeque::pop_front) {
            Some(Some(next)) => self.ready.push_back(next),
            Some(None) => _ = self.keys.remove(key),
            None => {}
        }
    }
}

fn outgoing(row: &Row) -> Outgoing {
    Outgoing {
        id: row.output.id.clone(),
        key: row.output.key.0.clone(),
        message: row.output.message.clone(),
    }
}

async fn sleep_until(wake: Option<Instant>) {
    if let Some(wake) = wake {
        tokio::time::sleep_until(wake).await;
    }
}
