//! The first steps of every event: take within the budget, decode, sort out, ask the ledger what is known.
//!
//! One task per consumer owns the source, so that events arrive at the dispatcher in the broker's order. Whatever fails here (broker
//! away, ledger silent) is waited out; nothing is dropped and nothing runs without the ledger's answer.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};

use super::ages::Ages;
use super::arrival::{Arrival, Arrived, Spent};
use super::breaker::Era;
use super::budget::Budget;
use super::in_hand::InHand;
use super::job::Job;
use super::letter;
use super::until_answered;
use crate::broker::{Broker, Delivery, Position, Receipt, Room, Settle, Source, Subscription};
use crate::crash::{self, Point};
use crate::event::codec::{self, Binding};
use crate::event::key::LaneKey;
use crate::event::{Event, key};
use crate::ledger::{History, Known, Ledger, PayloadHash, RecordKey, TakenBefore};
use crate::metrics;
use crate::outcome::Reason;
use crate::plan;

/// Positions that are marked as taken ahead of those that are, so that the mark costs one durable write per so many events.
/// After an unclean stop this many events at most are attempted with a record written first.
const MARK_AHEAD: u64 = 512;
/// Deliveries that are decoded and looked up at once: a few hundred microseconds of work.
const PART: usize = 128;
const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// What the last host may have had in hand, until it has come again.
#[derive(Clone, Copy, Debug)]
struct Returning {
    taken: TakenBefore,
    /// New events that can be among them still: no more than a host can have had in hand, and marked ahead. Where a stream was made anew on its
    /// broker, positions alone would say nothing.
    left: u64,
}

/// What an intake works with.
pub(super) struct Intake {
    /// Whose.
    pub consumer: Arc<plan::Consumer>,
    /// What it reads from.
    pub broker: Arc<dyn Broker>,
    /// What is asked.
    pub ledger: Arc<dyn Ledger>,
    /// What an earlier host may have had in hand.
    pub taken: Option<TakenBefore>,
    /// What it takes from.
    pub budget: Arc<Budget>,
    /// Where it notes which.
    pub in_hand: Arc<InHand>,
    /// Where it notes when.
    pub ages: Arc<Ages>,
    /// Where arrivals go.
    pub arrivals: mpsc::Sender<Arrival>,
    /// Whether it pauses (the breaker is open).
    pub paused: watch::Receiver<bool>,
    /// What it counts.
    pub metrics: metrics::Consumer,
}

impl Intake {
    /// Takes until it is cancelled or the dispatcher is gone.
    ///
    /// # Cancellation
    /// Safe: what was taken and not handed over is given again by the broker.
    pub(super) async fn run(self) {
        let (source, settle) = self.subscribe().await;
        if self.arrivals.send(Arrival::Open(settle)).await.is_ok() {
            self.metrics.subscribed(true);
            self.take(source).await;
        }
    }

    async fn subscribe(&self) -> (Box<dyn Source>, Arc<dyn Settle>) {
        let mut pause = PAUSE_MIN;
        loop {
            let subscription = Subscription {
                consumer: self.consumer.name.clone(),
                stream: self.consumer.reads.clone(),
                room: self.budget.whole(),
            };
            match self.broker.subscribe(subscription).await {
                Ok(subscribed) => return (subscribed.source, subscribed.settle),
                Err(error) => self.metrics.source_failed(&error),
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    /// Takes from an open source for ever; `None` when the dispatcher is gone.
    async fn take(&self, mut source: Box<dyn Source>) -> Option<()> {
        let mut paused = self.paused.clone();
        let mut pause = PAUSE_MIN;
        let mut marked = self.taken.map(|taken| taken.upto);
        let mut returning = self.taken.map(|taken| Returning {
            taken,
            left: MARK_AHEAD + self.budget.whole().count as u64,
        });
        loop {
            paused.wait_for(|is_paused| !is_paused).await.ok()?;
            let room = self.budget.room().await;
            let deliveries = match source.next(room).await {
                Ok(deliveries) => deliveries,
                Err(error) => {
                    self.metrics.source_failed(&error);
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(PAUSE_MAX);
                    continue;
                }
            };
            pause = PAUSE_MIN;
            self.metrics.subscribed(true);
            self.recover(&deliveries, &mut returning);
            if deliveries.is_empty() {
                continue;
            }
            self.budget.take(weight(&deliveries));
            self.ages.take(deliveries.iter().map(|delivery| delivery.taken));
            crash::at(Point::Taken);
            self.mark(&deliveries, &mut marked).await;
            crash::at(Point::Marked);
            self.hand_over(deliveries, &mut returning).await?;
        }
    }

    /// Looks at what was taken and hands it to the dispatcher; `None` when that is gone. A part at a time: others want to compute, too.
    async fn hand_over(&self, deliveries: Vec<Delivery>, returning: &mut Option<Returning>) -> Option<()> {
        let mut deliveries = deliveries.into_iter().peekable();
        while deliveries.peek().is_some() {
            let part = deliveries.by_ref().take(PART).collect();
            let arrived = self.look_at(part, returning).await;
            self.arrivals.send(Arrival::Batch(arrived)).await.ok()?;
            if deliveries.peek().is_some() {
                tokio::task::yield_now().await;
            }
        }
        Some(())
    }

    /// Notes when everything that an earlier host may have had in hand has come again: the source gives it before anything
    /// newer, so that a later position, or that there is nothing more, says so.
    fn recover(&self, deliveries: &[Delivery], returning: &mut Option<Returning>) {
        let Some(Returning { taken, left }) = *returning else {
            return;
        };
        if left == 0 || deliveries.iter().all(|delivery| delivery.position > taken.upto) {
            *returning = None;
            self.ledger.recovered(&self.consumer.name);
        }
    }

    /// Before anything of a batch can run, the ledger knows that it may have been taken: a host that dies of it finds it.
    async fn mark(&self, deliveries: &[Delivery], marked: &mut Option<Position>) {
        let Some(last) = deliveries.iter().map(|delivery| delivery.position).max() else {
            return;
        };
        if marked.is_none_or(|marked| last > marked) {
            let ahead = Position(last.0.saturating_add(MARK_AHEAD));
            until_answered(&self.metrics, "mark_taken", || {
                self.ledger.mark_taken(&self.consumer.name, ahead)
            })
            .await;
            *marked = Some(ahead);
        }
    }

    async fn look_at(&self, deliveries: Vec<Delivery>, returning: &mut Option<Returning>) -> Vec<Arrived> {
        let taken = returning.map(|returning| returning.taken);
        let suspect = taken.filter(|taken| taken.is_suspect).map(|taken| taken.upto);
        let open = |delivery| self.open(delivery, suspect);
        let mut arrived: Vec<Arrived> = deliveries.into_iter().map(open).collect();
        // Before the ledger is asked: a twin that is done by then is known there, one that is done later is known here.
        arrived.iter_mut().for_each(|arrived| self.note(arrived));
        let keys: Vec<RecordKey> = arrived.iter().filter_map(asked).collect();
        if keys.is_empty() {
            return arrived;
        }
        let known = until_answered(&self.metrics, "look_up", || self.ledger.look_up(keys.clone())).await;
        let mut known = known.into_iter();
        let judge = |arrived: Arrived| match asked(&arrived).and_then(|_| known.next()) {
            Some(known) => self.judged(arrived, known),
            None => arrived,
        };
        let arrived: Vec<Arrived> = arrived.into_iter().map(judge).collect();
        if let Some(returning) = returning {
            let new = arrived.iter().filter(|arrived| matches!(arrived, Arrived::Fresh(_)));
            returning.left = returning.left.saturating_sub(new.count() as u64);
        }
        arrived
    }

    fn note(&self, arrived: &mut Arrived) {
        if let Arrived::Fresh(job) = arrived {
            job.is_twin = !self.in_hand.insert(job.record);
        }
    }

    /// What the ledger knows decides what becomes of an arrival. If that is no attempt, it is not in hand any more.
    fn judged(&self, arrived: Arrived, known: Known) -> Arrived {
        let noted = match &arrived {
            Arrived::Fresh(job) if !job.is_twin => Some(job.record),
            _ => None,
        };
        let judged = arrived.judged(known);
        if let Some(record) = noted
            && !matches!(judged, Arrived::Fresh(_))
        {
            self.in_hand.remove(record);
        }
        judged
    }

    /// Decodes a delivery and sorts it. Up to `suspect` it may be what the last host died of.
    fn open(&self, delivery: Delivery, suspect: Option<Position>) -> Arrived {
        let Delivery {
            message,
            position,
            taken,
            receipt,
        } = delivery;
        let stream = &self.consumer.reads;
        let is_suspect = suspect.is_some_and(|suspect| position <= suspect);
        let origin = Origin {
            position,
            taken,
            receipt: Some(receipt),
            is_suspect,
        };
        match codec::decode(&message, Binding::of(&stream.broker.kind), stream.mapping.as_ref()) {
            Ok(event) if self.wants(&event) => match key::key(&event, &self.consumer.key) {
                Ok(lane) => {
                    let record = RecordKey::of(&self.consumer.name, &event);
                    Arrived::Fresh(job(event, message, lane, record, origin))
                }
                Err(error) => {
                    let record = RecordKey::of(&self.consumer.name, &event);
                    let job = job(event, message, letter::own_lane(record), record, origin);
                    Arrived::Dead(job, Reason::NoKey, error.to_string())
                }
            },
            Ok(_) => Arrived::Unwanted(Spent {
                weight: Room {
                    count: 1,
                    bytes: message.size(),
                },
                receipt: origin.receipt,
                taken,
            }),
            Err(error) => {
                let record = RecordKey::of_place(&self.consumer.name, &stream.name, position);
                let payload = PayloadHash::of_message(&message);
                let mut job = job(Event::default(), message, letter::own_lane(record), record, origin);
                // Its place may come again with another message in it, when its stream is made anew.
                job.payload = payload;
                Arrived::Dead(job, Reason::Undecodable, error.to_string())
            }
        }
    }

    fn wants(&self, event: &Event) -> bool {
        let types = &self.consumer.types;
        types.is_empty() || types.iter().any(|pattern| pattern.matches(&event.kind))
    }
}

/// Where a job comes from.
struct Origin {
    position: Position,
    taken: tokio::time::Instant,
    receipt: Option<Receipt>,
    is_suspect: bool,
}

fn job(event: Event, message: crate::event::Message, lane: LaneKey, record: RecordKey, origin: Origin) -> Box<Job> {
    Box::new(Job {
        payload: PayloadHash::of(event.data.as_ref()),
        event,
        message,
        position: origin.position,
        record,
        lane,
        receipt: origin.receipt,
        parked: None,
        taken: origin.taken,
        history: Box::new(History::default()),
        started: 0,
        is_suspect: origin.is_suspect,
        is_begun: false,
        is_twin: false,
        is_head: false,
        era: Era::default(),
        problem: None,
        waiting_since: None,
    })
}

/// The key by which the ledger is asked about an arrival, if it is.
fn asked(arrived: &Arrived) -> Option<RecordKey> {
    match arrived {
        Arrived::Fresh(job) | Arrived::Dead(job, ..) => Some(job.record),
        _ => None,
    }
}

fn weight(deliveries: &[Delivery]) -> Room {
    Room {
        count: deliveries.len(),
        bytes: deliveries.iter().map(|delivery| delivery.message.size()).sum(),
    }
}
