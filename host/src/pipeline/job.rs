//! One event on its way through a consumer.

use tokio::time::Instant;

use super::breaker::Era;
use super::loader::FromParking;
use crate::broker::{Position, Receipt, Room};
use crate::event::key::LaneKey;
use crate::event::{Event, Message};
use crate::ledger::{History, ParkedId, PayloadHash, RecordKey};
use crate::outcome::Reason;

/// One event on its way, from the intake to its settlement.
#[derive(Debug)]
pub struct Job {
    /// What the plugin gets.
    pub event: Event,
    /// As it arrived, untouched, for the dead letter and the parking.
    pub message: Message,
    /// Where it stood in its stream.
    pub position: Position,
    /// What the ledger knows it by.
    pub record: RecordKey,
    /// The hash of its data.
    pub payload: PayloadHash,
    /// Its ordering key.
    pub lane: LaneKey,
    /// To settle its delivery with; `None` if it came out of the ledger.
    pub receipt: Option<Receipt>,
    /// Its place in the parking, if it came from there.
    pub parked: Option<FromParking>,
    /// When it was taken.
    pub taken: Instant,
    /// The attempts that failed so far.
    pub history: Box<History>,
    /// How often it was begun by a host that died of something.
    pub started: u32,
    /// Whether a record is written before its attempt.
    pub is_suspect: bool,
    /// Whether there is such a record, and the attempt has not ended.
    pub is_begun: bool,
    /// Whether the same event was on its way when it arrived: the ledger is asked again before it runs.
    pub is_twin: bool,
    /// Whether it is the running head of its lane.
    pub is_head: bool,
    /// When its attempt began, for the breaker.
    pub era: Era,
    /// Why it can't be run, if that is known already.
    pub problem: Option<(Reason, String)>,
    /// Since when its lane has not moved for it.
    pub waiting_since: Option<Instant>,
}

impl Job {
    /// What it weighs against the budget; nothing if it came out of the ledger.
    #[must_use]
    pub fn weight(&self) -> Room {
        match self.receipt {
            Some(_) => Room {
                count: 1,
                bytes: self.message.size(),
            },
            None => Room { count: 0, bytes: 0 },
        }
    }

    /// Its place in the parking, if it came from there.
    #[must_use]
    pub fn parked_id(&self) -> Option<ParkedId> {
        self.parked.as_ref().map(|parked| parked.id)
    }

    /// Why it must not be attempted, if so.
    #[must_use]
    pub fn unfit(&self) -> Option<(Reason, String)> {
        // Three hosts: one that had no record of it yet, and two that had.
        let is_deadly = self.is_suspect && self.started >= 2;
        let deadly = || {
            let detail = "three hosts stopped uncleanly while they handled this event";
            is_deadly.then(|| (Reason::HostCrash, detail.to_owned()))
        };
        self.problem.clone().or_else(deadly)
    }
}
