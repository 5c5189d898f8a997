//! Writes what follows from attempts, grouped, and acts on the ledger's answers.
//!
//! Commit first, then relay, then settle. A crash after the commit leaves rows in the outbox and a record by which the redelivery is
//! known; a crash before it leaves nothing.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::arrival::Spent;
use super::dispatch::{Back, Dispatcher};
use super::job::Job;
use super::relay::Posted;
use super::unconfirmed::Posting;
use super::until_answered;
use crate::crash::{self, Point};
use crate::ledger::{Change, Entry, Output, Refused, Row, Written};
use crate::outcome::Reason;
use crate::plan::{Name, SettleWhen};

/// One event, what is written of it, and what follows when it is durable.
pub(super) struct Step {
    /// The event.
    pub job: Box<Job>,
    /// What is written.
    pub entry: Entry,
    /// What follows.
    pub then: Then,
}

/// What follows a durable step.
#[derive(Clone, Copy, Debug)]
pub(super) enum Then {
    /// It took effect.
    Applied,
    /// It waits for its next attempt.
    Failed(Duration),
    /// Its attempt ended without an outcome: it was not what a host dies of, and waits until then.
    Held(Instant),
    /// It is a dead letter.
    Dead(Reason),
    /// It waits in the ledger.
    Parked,
}

/// The ledger's answer to a group of steps.
pub(super) struct Answer {
    jobs: Vec<(Box<Job>, Then)>,
    entries: Arc<Vec<Entry>>,
    results: Vec<Result<Written, Refused>>,
    /// How often the parking had been looked at when they were written.
    looks: u64,
    /// The bytes of their effects.
    bytes: usize,
}

impl Dispatcher {
    /// Hands a group of steps to the ledger.
    pub(super) fn write(&mut self, steps: Vec<Step>) {
        if steps.is_empty() {
            return;
        }
        self.in_ledger += steps.len();
        let bytes = steps.iter().map(|step| effects_of(&step.entry)).sum();
        self.unconfirmed.commit(bytes);
        let (ledger, metrics, looks) = (
            self.parts.ledger.clone(),
            self.parts.metrics.clone(),
            self.listing.asked,
        );
        self.back.push(Box::pin(async move {
            let (mut jobs, mut entries) = (Vec::with_capacity(steps.len()), Vec::with_capacity(steps.len()));
            for step in steps {
                jobs.push((step.job, step.then));
                entries.push(step.entry);
            }
            let entries = Arc::new(entries);
            let results = until_answered(&metrics, "write", || ledger.write(entries.clone())).await;
            Back::Answer(Answer {
                jobs,
                entries,
                results,
                looks,
                bytes,
            })
        }));
    }

    pub(super) async fn answered(&mut self, answer: Answer) {
        self.in_ledger -= answer.jobs.len();
        self.unconfirmed.committed(answer.bytes);
        let is_hold = |entry: &Entry| matches!(entry.change, Change::Dead { hold: true, .. });
        let holds = answer.entries.iter().any(is_hold);
        let mut posts: BTreeMap<Name, Vec<Posted>> = BTreeMap::new();
        let mut steps = Vec::new();
        for (((job, then), entry), result) in answer.jobs.into_iter().zip(answer.entries.iter()).zip(answer.results) {
            match result {
                Ok(written) => self.wrote(job, then, entry, &written, &mut posts).await,
                Err(refused) => steps.extend(self.refused(job, then, refused).await),
            }
            if matches!(then, Then::Parked) {
                self.moves.is_under_way = false;
            }
        }
        for (stream, rows) in posts {
            if let Some(relay) = self.parts.relays.get(&stream) {
                relay.post(rows).await;
            }
        }
        if holds && answer.looks != self.listing.asked && !self.is_draining() {
            // Whoever redrove or purged the letter before it was known here has told it already.
            self.list_lanes();
        }
        self.write(steps);
    }

    async fn wrote(
        &mut self,
        job: Box<Job>,
        then: Then,
        entry: &Entry,
        written: &Written,
        posts: &mut BTreeMap<Name, Vec<Posted>>,
    ) {
        match then {
            Then::Applied => {
                crash::at(Point::Committed);
                let outputs = match &entry.change {
                    Change::Applied(effects) => effects.outputs.as_slice(),
                    _ => &[],
                };
                self.parts.metrics.committed(outputs.len());
                let ids: Vec<Arc<str>> = outputs.iter().map(|output| output.id.clone()).collect();
                self.tell(&job, "committed", &ids, None);
                let posting = self.post(outputs, written, posts);
                self.release_hold(&job);
                self.done(job, posting).await;
            }
            Then::Dead(reason) => {
                crash::at(Point::Buried);
                let (detail, publish, hold) = match &entry.change {
                    Change::Dead { letter, publish, hold } => (letter.detail.as_str(), publish, *hold),
                    Change::Conflict { letter, publish } => (letter.detail.as_str(), publish, false),
                    _ => ("", &None, false),
                };
                self.parts.metrics.dead(&job.event.id, reason, detail);
                self.tell(&job, "dead", &[], Some(format!("{reason}: {detail}")));
                let posting = self.post(publish.as_slice(), written, posts);
                if hold {
                    self.hold_lane(&job);
                }
                self.done(job, posting).await;
            }
            Then::Failed(pause) => {
                self.begun.remove(&job.record);
                let error = job
                    .history
                    .attempts
                    .last()
                    .map(|attempt| attempt.failure.message.clone());
                self.tell(&job, "retry", &[], error);
                self.retry_later(job, pause);
            }
            Then::Held(until) => {
                self.begun.remove(&job.record);
                match self.is_draining() {
                    true => self.hand_back(job),
                    false => self.wait(job, until),
                }
            }
            Then::Parked => self.moved(job).await,
        }
    }

    /// Collects the rows of an entry for their relays; says what is to be confirmed before the event is through.
    fn post(
        &mut self,
        outputs: &[Output],
        written: &Written,
        posts: &mut BTreeMap<Name, Vec<Posted>>,
    ) -> Option<Posting> {
        let relayed = outputs.iter().filter(|output| self.is_relayed(&output.stream));
        let relayed: Vec<&Output> = relayed.collect();
        if relayed.is_empty() {
            return None;
        }
        let number = self.unconfirmed.number();
        for (output, id) in relayed.iter().zip(&written.rows) {
            let row = Row {
                id: *id,
                consumer: self.parts.consumer.name.clone(),
                output: (*output).clone(),
            };
            let waiter = (self.confirmations.clone(), number);
            let posted = Posted { row, waiter };
            posts.entry(output.stream.clone()).or_default().push(posted);
        }
        Some(Posting {
            number,
            rows: relayed.len(),
            bytes: relayed.iter().map(|output| output.message.size()).sum(),
        })
    }

    /// An event has left the consumer: its lane goes on, its delivery is settled when its outputs are confirmed, if it is to wait for them.
    async fn done(&mut self, job: Box<Job>, posting: Option<Posting>) {
        self.in_hand.remove(job.record);
        self.begun.remove(&job.record);
        let (key, is_head) = (job.lane.clone(), job.is_head);
        if job.parked.is_some() {
            self.lanes.taken(&key);
        }
        let mut spent = Some(Spent::from(job));
        let waits = posting.is_some() && self.parts.consumer.settle == SettleWhen::Confirmed;
        if let Some(spent) = spent.take_if(|_| !waits) {
            self.settle(spent).await;
        }
        if let Some(posting) = posting {
            self.unconfirmed.insert(posting, spent);
        }
        if is_head {
            self.go_on(&key);
        }
    }

    /// Rows of these events are confirmed.
    pub(super) async fn confirmed(&mut self, numbers: &[u64]) {
        for number in numbers {
            if let Some(spent) = self.unconfirmed.confirm(*number) {
                self.settle(spent).await;
            }
        }
    }

    fn retry_later(&mut self, job: Box<Job>, pause: Duration) {
        if self.is_draining() {
            // The count is durable; the next host goes on from it.
            self.hand_back(job);
            return;
        }
        let key = job.lane.clone();
        self.wait(job, self.now() + pause);
        self.park_if_long(&key);
    }

    async fn refused(&mut self, job: Box<Job>, then: Then, refused: Refused) -> Option<Step> {
        if matches!(then, Then::Parked) {
            self.not_moved(&job);
        }
        match refused {
            Refused::Conflict => {
                self.parts.metrics.conflict();
                self.run_again(job);
                None
            }
            // Another delivery of it, or another host, was faster.
            Refused::Done(payload) | Refused::Parked(payload) if payload != job.payload => Some(self.conflict(job)),
            Refused::Done(_) | Refused::Parked(_) => {
                self.parts.metrics.duplicate();
                self.tell(&job, "duplicate", &[], None);
                self.done(job, None).await;
                None
            }
        }
    }
}

/// The bytes of what an attempt wants written.
fn effects_of(entry: &Entry) -> usize {
    match &entry.change {
        Change::Applied(effects) => effects.size(),
        _ => 0,
    }
}
