//! Writes what follows from attempts, grouped, and acts on the ledger's answers.
//!
//! Commit first, then relay, then settle. A crash after the commit leaves rows in the outbox and a record by which the redelivery is
//! known; a crash before it leaves nothing.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use super::dispatch::{Back, Dispatcher};
use super::job::Job;
use super::relay::Posted;
use super::until_answered;
use crate::ledger::{Change, Entry, Output, Refused, Row, RowId, Written};
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
}

impl Dispatcher {
    /// Hands a group of steps to the ledger.
    pub(super) fn write(&mut self, steps: Vec<Step>) {
        if steps.is_empty() {
            return;
        }
        let (ledger, metrics) = (self.parts.ledger.clone(), self.parts.metrics.clone());
        self.back.push(Box::pin(async move {
            let (mut jobs, mut entries) = (Vec::with_capacity(steps.len()), Vec::with_capacity(steps.len()));
            for step in steps {
                jobs.push((step.job, step.then));
                entries.push(step.entry);
            }
            let entries = Arc::new(entries);
            let results = until_answered(&metrics, "write", || ledger.write(entries.clone())).await;
            Back::Answer(Answer { jobs, entries, results })
        }));
    }

    pub(super) async fn answered(&mut self, answer: Answer) {
        let mut posts: HashMap<Name, Vec<Posted>> = HashMap::new();
        let mut steps = Vec::new();
        for (((job, then), entry), result) in answer.jobs.into_iter().zip(answer.entries.iter()).zip(answer.results) {
            match result {
                Ok(written) => self.wrote(job, then, entry, &written, &mut posts).await,
                Err(refused) => steps.extend(self.refused(job, then, refused).await),
            }
            if matches!(then, Then::Parked) {
                self.is_moving = false;
            }
        }
        for (stream, rows) in posts {
            if let Some(relay) = self.parts.relays.get(&stream) {
                relay.post(rows).await;
            }
        }
        self.write(steps);
    }

    async fn wrote(
        &mut self,
        job: Box<Job>,
        then: Then,
        entry: &Entry,
        written: &Written,
        posts: &mut HashMap<Name, Vec<Posted>>,
    ) {
        match then {
            Then::Applied => {
                let outputs = match &entry.change {
                    Change::Applied(effects) => effects.outputs.as_slice(),
                    _ => &[],
                };
                self.parts.metrics.committed(outputs.len());
                let ids: Vec<Arc<str>> = outputs.iter().map(|output| output.id.clone()).collect();
                self.tell(&job, "committed", &ids, None);
                let (waits_for, number) = self.post(outputs, written, posts);
                self.release_hold(&job);
                self.done(job, waits_for, number).await;
            }
            Then::Dead(reason) => {
                let (detail, publish, hold) = match &entry.change {
                    Change::Dead { letter, publish, hold } => (letter.detail.as_str(), publish, *hold),
                    Change::Conflict { letter, publish } => (letter.detail.as_str(), publish, false),
                    _ => ("", &None, false),
                };
                self.parts.metrics.dead(&job.event.id, reason, detail);
                self.tell(&job, "dead", &[], Some(format!("{reason}: {detail}")));
                let (waits_for, number) = self.post(publish.as_slice(), written, posts);
                if hold {
                    self.hold_lane(&job);
                }
                self.done(job, waits_for, number).await;
            }
            Then::Failed(pause) => {
                let error = job
                    .history
                    .attempts
                    .last()
                    .map(|attempt| attempt.failure.message.clone());
                self.tell(&job, "retry", &[], error);
                self.retry_later(job, pause);
            }
            Then::Parked => self.moved(job).await,
        }
    }

    /// Collects the rows of an entry for their relays; says how many its delivery waits for, and by what number.
    fn post(&mut self, outputs: &[Output], written: &Written, posts: &mut HashMap<Name, Vec<Posted>>) -> (usize, u64) {
        let relayed: Vec<&Output> = outputs
            .iter()
            .filter(|output| self.is_relayed(&output.stream))
            .collect();
        let waits = self.parts.consumer.settle == SettleWhen::Confirmed;
        if relayed.is_empty() {
            return (0, 0);
        }
        let (sender, number) = self.number();
        for (output, id) in relayed.iter().zip(&written.rows) {
            let row = Row {
                id: RowId(id.0),
                consumer: self.parts.consumer.name.clone(),
                output: (*output).clone(),
            };
            let waiter = waits.then(|| (sender.clone(), number));
            posts
                .entry(output.stream.clone())
                .or_default()
                .push(Posted { row, waiter });
        }
        (if waits { relayed.len() } else { 0 }, number)
    }

    fn retry_later(&mut self, job: Box<Job>, pause: Duration) {
        if self.is_draining() {
            // The count is durable; the next host goes on from it.
            self.forget(&job.record);
            return;
        }
        let now = self.now();
        let (key, until) = (job.lane.clone(), now + pause);
        self.timers.push(Reverse((until, key.clone())));
        self.lanes.wait(job, until, now);
        self.park_if_long(&key);
    }

    async fn refused(&mut self, job: Box<Job>, then: Then, refused: Refused) -> Option<Step> {
        if matches!(then, Then::Parked) {
            self.not_moved(&job);
        }
        match refused {
            Refused::Conflict => {
                self.parts.metrics.conflict();
                self.lanes.again(job);
                None
            }
            // Another delivery of it, or another host, was faster.
            Refused::Done(payload) if payload != job.payload => Some(self.conflict(job)),
            Refused::Done(_) | Refused::Parked => {
                self.parts.metrics.duplicate();
                match then {
                    // It was not the head of its lane.
                    Then::Parked => {
                        self.forget(&job.record);
                        self.settle(job.into()).await;
                    }
                    _ => self.done(job, 0, 0).await,
                }
                None
            }
        }
    }
}
