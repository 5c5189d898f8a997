//! What a subscription holds: which positions were handed out and are not settled. Pure: values in, decisions out.
//!
//! The server numbers messages and gives them in order, but gives some again: after an ack wait, after going back, after a
//! reconnect. Here each position is handed out once, and a repeated delivery only renews the subject that it is settled by.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use async_nats::Subject;
use tokio::time::Instant;

use crate::broker::Settlement;

/// The positions that one subscription holds.
#[derive(Debug, Default)]
pub(super) struct Held {
    /// Added to a position to make a receipt. It grows when the stream is replaced by another that counts from 1 again, so that a
    /// receipt of the old stream never settles a message of the new one.
    base: u64,
    /// Everything up to here was handed out in this life or settled before it.
    highest: u64,
    /// Handed out and not settled.
    entries: BTreeMap<u64, Entry>,
    /// Handed back, and to be handed out again when they come.
    returned: BTreeSet<u64>,
}

#[derive(Debug)]
struct Entry {
    reply: Subject,
    /// When the server last began to count the ack wait.
    touched: Instant,
}

/// What to do with a delivery that arrived.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Arrival {
    /// Hand it out, with this receipt.
    New(u64),
    /// It is held already: drop it.
    Held,
    /// It was settled, and the server did not hear of it: settle it again by this subject, and drop it.
    Settled(Subject),
}

impl Held {
    /// Decides about a delivery.
    pub(super) fn arrive(&mut self, position: u64, reply: Subject, now: Instant) -> Arrival {
        if let Some(entry) = self.entries.get_mut(&position) {
            *entry = Entry { reply, touched: now };
            return Arrival::Held;
        }
        if position <= self.highest && !self.returned.remove(&position) {
            return Arrival::Settled(reply);
        }
        self.highest = self.highest.max(position);
        self.entries.insert(position, Entry { reply, touched: now });
        Arrival::New(self.base + position)
    }

    /// Settles by receipt; gives the subject to tell the server by. `None` for what is no longer held: its stream is gone.
    pub(super) fn settle(&mut self, receipt: u64, settlement: Settlement) -> Option<Subject> {
        let position = receipt.checked_sub(self.base)?;
        let entry = self.entries.remove(&position)?;
        if settlement == Settlement::HandBack {
            self.returned.insert(position);
        }
        Some(entry.reply)
    }

    /// Forgets what was taken and never handed to anyone.
    pub(super) fn forget(&mut self, receipt: u64) {
        self.settle(receipt, Settlement::HandBack);
    }

    /// The subjects of what the server has not heard of for `age`; from now on it has.
    pub(super) fn due(&mut self, age: Duration, now: Instant) -> Vec<Subject> {
        let is_due = |entry: &&mut Entry| entry.touched + age <= now;
        let touch = |entry: &mut Entry| {
            entry.touched = now;
            entry.reply.clone()
        };
        self.entries.values_mut().filter(is_due).map(touch).collect()
    }

    /// The server says that everything up to `floor` is settled.
    pub(super) fn settled_up_to(&mut self, floor: u64) {
        self.highest = self.highest.max(floor);
    }

    /// Whether anything is handed out and not settled.
    pub(super) fn holds_any(&self) -> bool {
        !self.entries.is_empty()
    }

    /// Whether anything was handed back and has not come again.
    pub(super) fn returned_any(&self) -> bool {
        !self.returned.is_empty()
    }

    /// Whether this position was handed back and has not come again.
    pub(super) fn is_returned(&self, position: u64) -> bool {
        self.returned.contains(&position)
    }

    /// The highest position that was handed out.
    pub(super) fn highest(&self) -> u64 {
        self.highest
    }

    /// The lowest position that is not settled.
    pub(super) fn resume(&self) -> u64 {
        let entry = self.entries.keys().next().copied();
        let returned = self.returned.first().copied();
        let lowest = entry.into_iter().chain(returned).min();
        lowest.unwrap_or(self.highest + 1)
    }

    /// The stream was replaced: positions begin anew, and old receipts settle nothing.
    pub(super) fn begin_anew(&mut self) {
        *self = Self {
            base: self.base + self.highest,
            ..Self::default()
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[expect(clippy::disallowed_methods, reason = "any instant will do")]
    fn now() -> Instant {
        Instant::now()
    }

    fn arrive(held: &mut Held, position: u64) -> Arrival {
        held.arrive(position, Subject::from(format!("reply.{position}")), now())
    }

    #[test]
    fn a_position_is_handed_out_once() {
        let mut held = Held::default();
        assert_eq!(arrive(&mut held, 1), Arrival::New(1));
        assert_eq!(arrive(&mut held, 1), Arrival::Held);
        held.settle(1, Settlement::Done);
        assert_eq!(arrive(&mut held, 1), Arrival::Settled("reply.1".into()));
    }

    #[test]
    fn a_repeated_delivery_is_settled_by_its_latest_subject() {
        let mut held = Held::default();
        arrive(&mut held, 1);
        held.arrive(1, "later".into(), now());
        assert_eq!(held.settle(1, Settlement::Done), Some("later".into()));
        assert_eq!(held.settle(1, Settlement::Done), None);
    }

    #[test]
    fn what_is_handed_back_is_handed_out_again() {
        let mut held = Held::default();
        arrive(&mut held, 1);
        arrive(&mut held, 2);
        held.settle(1, Settlement::HandBack);
        assert_eq!(held.resume(), 1);
        assert_eq!(arrive(&mut held, 1), Arrival::New(1));
        assert_eq!(arrive(&mut held, 1), Arrival::Held);
    }

    #[test]
    fn it_resumes_from_the_lowest_that_is_not_settled() {
        let mut held = Held::default();
        held.settled_up_to(4);
        assert_eq!(held.resume(), 5);
        for position in 5..=8 {
            arrive(&mut held, position);
        }
        held.settle(5, Settlement::Done);
        held.settle(7, Settlement::Done);
        assert_eq!(held.resume(), 6);
    }

    #[test]
    fn a_receipt_of_a_replaced_stream_settles_nothing() {
        let mut held = Held::default();
        arrive(&mut held, 1);
        arrive(&mut held, 2);
        held.begin_anew();
        assert_eq!(arrive(&mut held, 1), Arrival::New(3));
        assert_eq!(held.settle(1, Settlement::Done), None);
        assert_eq!(held.settle(3, Settlement::Done), Some("reply.1".into()));
    }

    #[test]
    fn only_what_is_old_enough_is_due() {
        let mut held = Held::default();
        let start = now();
        let age = Duration::from_secs(10);
        held.arrive(1, "a".into(), start);
        held.arrive(2, "b".into(), start + Duration::from_secs(5));
        assert_eq!(held.due(age, start + age), ["a".into()]);
        assert!(held.due(age, start + age).is_empty());
    }
}
