//! What arrives from the intake, and what becomes of it: queued in its lane, settled at once, or buried.

use std::sync::Arc;

use tokio::time::Instant;

use super::commit::Step;
use super::dispatch::Dispatcher;
use super::job::Job;
use super::settle::Order;
use crate::broker::{Receipt, Room, Settle, Settlement};
use crate::ledger::Known;
use crate::outcome::Reason;

/// What the intake hands to the dispatcher.
pub(super) enum Arrival {
    /// A subscription is open: settle through this from now on.
    Open(Arc<dyn Settle>),
    /// Events, in order.
    Batch(Vec<Arrived>),
}

/// A delivery that was looked at.
pub(super) enum Arrived {
    /// An event to run.
    Fresh(Box<Job>),
    /// It took effect before: settle it.
    Duplicate(Box<Job>),
    /// It waits in the parking already: settle it.
    Parked(Spent),
    /// It is of a type that the consumer does not want: settle it.
    Unwanted(Spent),
    /// It can't be run: a dead letter.
    Dead(Box<Job>, Reason, String),
    /// Its id was used before for other data: a dead letter beside it.
    Conflict(Box<Job>),
}

/// What is left of a delivery that needs no attempt.
pub(super) struct Spent {
    /// To settle it with; `None` if it came out of the ledger.
    pub receipt: Option<Receipt>,
    /// What it weighs.
    pub weight: Room,
    /// When it was taken.
    pub taken: Instant,
}

impl Arrived {
    /// What the ledger knows decides what becomes of an arrival.
    #[must_use]
    pub(super) fn judged(self, known: Known) -> Self {
        match (self, known) {
            (Self::Fresh(job) | Self::Dead(job, ..), Known::Done(payload) | Known::Parked(payload))
                if payload != job.payload =>
            {
                Self::Conflict(job)
            }
            (Self::Fresh(job) | Self::Dead(job, ..), Known::Done(_)) => Self::Duplicate(job),
            (Self::Fresh(job) | Self::Dead(job, ..), Known::Parked(_)) => Self::Parked(job.into()),
            (Self::Fresh(mut job), Known::Failing { history, started }) => {
                (job.history, job.started) = (history, started);
                Self::Fresh(job)
            }
            (Self::Fresh(mut job), Known::Started(started)) => {
                job.started = started;
                Self::Fresh(job)
            }
            (other, _) => other,
        }
    }

    /// What is left of it when it is handed back.
    fn spent(self) -> Spent {
        match self {
            Self::Fresh(job) | Self::Dead(job, ..) | Self::Conflict(job) | Self::Duplicate(job) => job.into(),
            Self::Parked(spent) | Self::Unwanted(spent) => spent,
        }
    }
}

impl From<Box<Job>> for Spent {
    fn from(job: Box<Job>) -> Self {
        Self {
            weight: job.weight(),
            receipt: job.receipt,
            taken: job.taken,
        }
    }
}

impl Dispatcher {
    pub(super) async fn arrive(&mut self, arrival: Arrival) {
        let mut steps = Vec::new();
        match arrival {
            Arrival::Open(settle) => _ = self.settler.send(Order::Through(settle)).await,
            Arrival::Batch(batch) => {
                for arrived in batch {
                    self.sort(arrived, &mut steps).await;
                }
            }
        }
        self.write(steps);
        self.move_parked();
    }

    async fn sort(&mut self, arrived: Arrived, steps: &mut Vec<Step>) {
        match arrived {
            Arrived::Fresh(job) => self.enqueue(job),
            Arrived::Dead(job, reason, detail) => steps.push(self.bury(job, reason, &detail)),
            Arrived::Conflict(job) => steps.push(self.conflict(job)),
            Arrived::Parked(spent) => self.settle(spent).await,
            Arrived::Duplicate(job) => {
                self.parts.metrics.duplicate();
                self.tell(&job, "duplicate", &[], None);
                self.settle(job.into()).await;
            }
            Arrived::Unwanted(spent) => {
                self.parts.metrics.unwanted(1);
                self.settle(spent).await;
            }
        }
    }

    fn enqueue(&mut self, job: Box<Job>) {
        if self.lanes.is_parked(&job.lane) {
            self.park_job(job);
            return;
        }
        let key = job.lane.clone();
        self.lanes.push(job);
        self.park_if_long(&key);
    }

    /// What became meanwhile of events whose twin was on its way when they arrived. Each is the running head of its lane.
    pub(super) async fn looked_up(&mut self, known: Vec<(Box<Job>, Known)>) {
        self.in_ledger -= known.len();
        let mut steps = Vec::new();
        for (mut job, known) in known {
            job.is_twin = false;
            let (key, record) = (job.lane.clone(), job.record);
            match Arrived::Fresh(job).judged(known) {
                Arrived::Fresh(job) => self.run_again(job),
                // Its lane goes on when its dead letter is durable.
                Arrived::Conflict(job) => steps.push(self.conflict(job)),
                done => {
                    self.in_hand.remove(record);
                    self.sort(done, &mut steps).await;
                    self.go_on(&key);
                }
            }
        }
        self.write(steps);
    }

    /// Tells the broker that a delivery is done with.
    pub(super) async fn settle(&mut self, spent: Spent) {
        if spent.receipt.is_some() {
            // The settler outlives the dispatcher's work; its queue has room for the whole budget.
            let _ = self.settler.send(Order::Settle(spent, Settlement::Done)).await;
        }
    }

    /// Gives back what arrived and was not looked at.
    pub(super) fn hand_back_arrival(&mut self, arrival: Arrival) {
        if let Arrival::Batch(batch) = arrival {
            for arrived in batch {
                self.hand_back_spent(arrived.spent());
            }
        }
    }
}
