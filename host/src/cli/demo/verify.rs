//! Says whether a flash sale came out right.
//!
//! How it knows: it is shown everything that was published, in order, and computes from that alone what must come of it, with
//! its own model of a shop (`model`, a page of arithmetic) that shares no code with the plugins, the pipeline or the generator. Then it
//! is shown what an outsider finds afterwards: the events on the output streams, in order, and the dead letters. Every
//! difference is counted and the first of them are told in words.
//!
//! What each count catches:
//! - `lost`: an effect that must be there is not: an output of any stage, a dead letter, a count of the analytics.
//! - `applied_twice`: an effect is there again, under whatever id.
//! - `out_of_order`: on one output stream, an order comes after a later order of the same article.
//! - `unexpected`: an effect that must not be: an output of poison (so an event that is both dead and applied), an output that
//!   says something else than the model (stock below zero, a wrong amount), a dead letter for another reason.

mod model;

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;
use serde::Deserialize;

use super::scenario::Content;
use crate::event::Event;
use crate::outcome::Reason;
use model::{Shop, Stage};

pub use model::Rules;

/// At most this many differences are told in words.
const NOTES_MAX: usize = 20;

/// Checks one run: first [`Checker::published`] for everything in order, then [`Checker::output`], [`Checker::dead`] and, if it
/// is known, [`Checker::sales`], then [`Checker::finish`].
#[derive(Debug)]
pub struct Checker {
    shop: Shop,
    /// The latest order seen on a stream, by article.
    latest: HashMap<(&'static str, String), u64>,
    verdict: Verdict,
}

/// A dead letter, as far as it matters here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dead {
    /// Whose.
    pub consumer: String,
    /// Why.
    pub reason: Reason,
    /// The body of its message.
    pub payload: Bytes,
}

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// What was published, duplicates and poison included.
    pub events: u64,
    /// Effects that must be there and are not.
    pub lost: u64,
    /// Effects that are there more than once.
    pub applied_twice: u64,
    /// Outputs that come after a later one of their article.
    pub out_of_order: u64,
    /// Effects that must not be there.
    pub unexpected: u64,
    /// Outputs seen.
    pub outputs: u64,
    /// Dead letters seen, by reason.
    pub dead: BTreeMap<Reason, u64>,
    /// The first differences, for people.
    pub notes: Vec<String>,
}

impl Verdict {
    /// Whether everything came out as it must.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.lost + self.applied_twice + self.out_of_order + self.unexpected == 0
    }

    fn note(&mut self, note: impl FnOnce() -> String) {
        if self.notes.len() < NOTES_MAX {
            self.notes.push(note());
        }
    }

    fn unexpected(&mut self, note: impl FnOnce() -> String) {
        self.unexpected += 1;
        self.note(note);
    }
}

/// What every output of the sale says. Fields that its stage does not have stay empty.
#[derive(Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
struct Said {
    order: String,
    customer: String,
    sku: String,
    seq: u64,
    quantity: Option<u32>,
    left: Option<u32>,
    amount_cents: Option<u64>,
    parcel: Option<String>,
}

impl Checker {
    /// A checker of a sale by these rules.
    #[must_use]
    pub fn new(rules: Rules) -> Self {
        Self {
            shop: Shop::new(rules),
            latest: HashMap::new(),
            verdict: Verdict::default(),
        }
    }

    /// Something was published on the stream of orders.
    pub fn published(&mut self, content: &Content) {
        self.verdict.events += 1;
        match content {
            Content::Event(event) => self.shop.event(event),
            Content::Raw(message) => self.shop.undecodable(&message.payload),
        }
    }

    /// The next event on an output stream (`stock`, `payments`, `shipments`, `notifications`), in the order of the stream.
    pub fn output(&mut self, stream: &str, event: &Event) {
        self.verdict.outputs += 1;
        let data = event.data.as_deref().unwrap_or_default();
        let said: Result<Said, _> = serde_json::from_slice(data);
        let stage = Stage::of(stream, &event.kind);
        let (Some(stage), Ok(said)) = (stage, said) else {
            let told = (event.kind.clone(), String::from_utf8_lossy(data).into_owned());
            self.verdict
                .unexpected(|| format!("{stream} has an event of no known kind or form: {told:?}"));
            return;
        };
        if let Some((sku, seq)) = self.compare(stage, &said) {
            self.follow(stage, sku, seq);
        }
    }

    /// Article and number of the order, if this is its first output of the stage: a second one counts as such, not as out of order
    /// too.
    fn compare(&mut self, stage: Stage, said: &Said) -> Option<(String, u64)> {
        let verdict = &mut self.verdict;
        let Some(sale) = self.shop.sales.get_mut(&said.order) else {
            verdict.unexpected(|| format!("{stage:?} of order {}, which has no effects", said.order));
            return None;
        };
        if !sale.fate.stages().contains(&stage) {
            verdict.unexpected(|| format!("{stage:?} of order {}, whose fate is {:?}", said.order, sale.fate));
            return None;
        }
        let expected = sale.says(stage, &said.order);
        if *said != expected {
            verdict.unexpected(|| format!("{stage:?} says {said:?}, the model {expected:?}"));
        }
        if !sale.seen.insert(stage) {
            verdict.applied_twice += 1;
            verdict.note(|| format!("{stage:?} of order {} comes twice", said.order));
            return None;
        }
        Some((sale.sku.clone(), sale.seq))
    }

    fn follow(&mut self, stage: Stage, sku: String, seq: u64) {
        let verdict = &mut self.verdict;
        let latest = self.latest.entry((stage.stream(), sku)).or_default();
        if seq < *latest {
            verdict.out_of_order += 1;
            verdict.note(|| format!("{stage:?} of number {seq} comes after that of {latest} of its article"));
        }
        *latest = seq.max(*latest);
    }

    /// One dead letter, in any order.
    pub fn dead(&mut self, dead: &Dead) {
        *self.verdict.dead.entry(dead.reason).or_default() += 1;
        let letter = model::Letter::new(&dead.consumer, dead.reason, &dead.payload);
        match self.shop.letters.get_mut(&letter) {
            None => self
                .verdict
                .unexpected(|| format!("dead letter {letter:?} must not be")),
            Some(seen) if *seen => {
                self.verdict.applied_twice += 1;
                self.verdict.note(|| format!("dead letter {letter:?} is there twice"));
            }
            Some(seen) => *seen = true,
        }
    }

    /// The counters of the analytics, by name.
    pub fn sales(&mut self, counters: &BTreeMap<String, i64>) {
        for (name, expected) in self.shop.counters() {
            let found = counters.get(name).copied().unwrap_or_default();
            self.verdict.lost += u64::try_from(expected - found).unwrap_or_default();
            self.verdict.applied_twice += u64::try_from(found - expected).unwrap_or_default();
            if found != expected {
                self.verdict
                    .note(|| format!("analytics counted {found} {name}, the model {expected}"));
            }
        }
    }

    /// What came of it.
    #[must_use]
    pub fn finish(self) -> Verdict {
        let Self { shop, mut verdict, .. } = self;
        for (order, sale) in &shop.sales {
            for stage in sale.fate.stages().iter().filter(|stage| !sale.seen.contains(stage)) {
                verdict.lost += 1;
                verdict.note(|| format!("{stage:?} of order {order} is missing"));
            }
        }
        for letter in shop
            .letters
            .iter()
            .filter(|(_, seen)| !**seen)
            .map(|(letter, _)| letter)
        {
            verdict.lost += 1;
            verdict.note(|| format!("dead letter {letter:?} is missing"));
        }
        verdict
    }
}

#[cfg(test)]
mod tests;
