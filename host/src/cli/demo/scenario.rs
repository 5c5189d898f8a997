//! What is published in a flash sale: orders of many customers for a few hot articles, with everything that goes wrong in one.
//!
//! The same number of events and seed give the same events. About one in ten is published a second time at a later place; about
//! one in a hundred is poison, of every kind in [`Poison`] in turn; about one in thirty meets a bank that is away at first.
//! Articles are interleaved. Each order carries the number that it has among the orders of its article, so that whoever reads
//! what came of them can see whether they stayed in order.
//!
//! What must come of them is not said here: that is for [`verify`](super::verify), which looks only at what was published.

use std::collections::VecDeque;

use bytes::Bytes;
use serde::Serialize;

use crate::clock::Timestamp;
use crate::event::{Event, Extension, Headers, Message, Value};

/// The type of the events.
pub const KIND: &str = "com.example.order.placed";

/// The source of the events.
pub const SOURCE: &str = "/shop";

/// Duplicates and conflicts are drawn from the latest orders, as many as this: far enough back to find their original done, or not.
const RECENT_ORDERS: usize = 2_000;

/// Orders per article at the mean: with 1 to 3 pieces each, a few more than there are of it.
const ORDERS_PER_SKU: u32 = 50;

/// 2025-12-01, when the sale begins.
const BEGIN: Timestamp = Timestamp(1_764_547_200_000);

/// Yields what is published, in order.
#[derive(Clone, Debug)]
pub struct Scenario {
    events: u32,
    published: u32,
    random: fastrand::Rng,
    /// Orders so far, by article.
    seqs: Vec<u64>,
    recent: VecDeque<(Draft, Flag)>,
    poisoned: usize,
}

/// One thing that is published on the stream of orders.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Published {
    /// What it is.
    pub content: Content,
    /// What the generator meant by it.
    pub flag: Flag,
}

/// What is published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// An event, to be encoded as its stream says.
    Event(Event),
    /// A message as it is. Its place is left to the publisher.
    Raw(Message),
}

/// What the generator meant by something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Flag {
    /// An order like any other.
    Order,
    /// An order whose payment fails at first.
    Flaky,
    /// What was published before, once more.
    Duplicate,
    /// An event that can't be handled.
    Poison(Poison),
}

/// The kinds of poison.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Poison {
    /// Bytes that are no event.
    NoEvent,
    /// An event without an id.
    NoId,
    /// Data that is cut off.
    BrokenJson,
    /// An order for no pieces: the plugin refuses it for good.
    Nothing,
    /// An empty coupon: the plugin panics, always.
    EmptyCoupon,
    /// The id of another order, with other data.
    IdConflict,
    /// A stolen card: the second plugin in the chain refuses it for good.
    StolenCard,
    /// A bank that never answers: every attempt fails for a passing reason.
    DeadBank,
}

impl Poison {
    /// Every kind.
    pub const ALL: [Self; 8] = [
        Self::NoEvent,
        Self::NoId,
        Self::BrokenJson,
        Self::Nothing,
        Self::EmptyCoupon,
        Self::IdConflict,
        Self::StolenCard,
        Self::DeadBank,
    ];
}

/// The data of an order.
#[derive(Clone, Debug, Serialize)]
struct Draft {
    order: String,
    customer: String,
    sku: String,
    seq: u64,
    quantity: u32,
    price_cents: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    coupon: Option<&'static str>,
    card: String,
    #[serde(skip)]
    time: Timestamp,
}

impl Scenario {
    /// A scenario of this many published events, duplicates and poison included.
    #[must_use]
    pub fn new(events: u32, seed: u64) -> Self {
        let skus = (events / ORDERS_PER_SKU).clamp(4, 2_000) as usize;
        Self {
            events,
            published: 0,
            random: fastrand::Rng::with_seed(seed),
            seqs: vec![0; skus],
            recent: VecDeque::with_capacity(RECENT_ORDERS),
            poisoned: 0,
        }
    }

    fn publish(&mut self) -> Published {
        match self.random.u32(0..1_000) {
            0..100 => self.duplicate(),
            100..110 => self.poison(),
            110..140 => self.flaky(),
            _ => None,
        }
        .unwrap_or_else(|| self.order())
    }

    fn order(&mut self) -> Published {
        let draft = self.draft();
        self.remember(draft, Flag::Order)
    }

    fn flaky(&mut self) -> Option<Published> {
        let mut draft = self.draft();
        draft.card = format!("tok_flaky_{}", self.random.u32(1..=2));
        Some(self.remember(draft, Flag::Flaky))
    }

    /// None as long as there is nothing to repeat.
    fn duplicate(&mut self) -> Option<Published> {
        let index = self.pick()?;
        let (draft, flag) = self.recent.get(index)?;
        Some(Published {
            content: Content::Event(event(draft, *flag)),
            flag: Flag::Duplicate,
        })
    }

    fn poison(&mut self) -> Option<Published> {
        let kind = Poison::ALL.get(self.poisoned % Poison::ALL.len()).copied()?;
        self.poisoned += 1;
        let flag = Flag::Poison(kind);
        if kind == Poison::IdConflict {
            return self.conflict();
        }
        let mut draft = self.draft();
        match kind {
            Poison::NoEvent | Poison::NoId => {
                let content = Content::Raw(no_event(&draft, kind));
                return Some(Published { content, flag });
            }
            Poison::Nothing => draft.quantity = 0,
            Poison::EmptyCoupon => draft.coupon = Some(""),
            Poison::StolenCard => draft.card = "tok_stolen".to_owned(),
            Poison::DeadBank => draft.card = "tok_flaky_99".to_owned(),
            Poison::BrokenJson | Poison::IdConflict => {}
        }
        Some(self.remember(draft, flag))
    }

    /// Takes its victim out of the recent orders, so that each has one conflict at most. None if the draw falls on what is poison
    /// already.
    fn conflict(&mut self) -> Option<Published> {
        let index = self.pick()?;
        let (_, flag) = self.recent.get(index)?;
        if *flag != Flag::Order {
            return None;
        }
        let (mut draft, _) = self.recent.remove(index)?;
        draft.quantity += 1;
        let flag = Flag::Poison(Poison::IdConflict);
        Some(Published {
            content: Content::Event(event(&draft, flag)),
            flag,
        })
    }

    fn pick(&mut self) -> Option<usize> {
        (!self.recent.is_empty()).then(|| self.random.usize(0..self.recent.len()))
    }

    fn draft(&mut self) -> Draft {
        let skus = self.seqs.len();
        // The lower of two draws: the first articles are the hot ones.
        let sku = self.random.usize(0..skus).min(self.random.usize(0..skus));
        let seq = self.seqs.get_mut(sku).map_or(0, |seq| {
            *seq += 1;
            *seq
        });
        Draft {
            order: format!("o-{:07}", self.published),
            customer: format!("c-{:05}", self.random.u32(0..=self.events / 10)),
            sku: format!("sku-{sku:04}"),
            seq,
            quantity: self.random.u32(1..=3),
            price_cents: 500 + 250 * (sku as u64 % 40),
            coupon: self
                .random
                .choice([None, None, None, Some("VIP"), Some("SALE")])
                .flatten(),
            card: "tok_visa".to_owned(),
            time: Timestamp(BEGIN.0 + 7 * u64::from(self.published)),
        }
    }

    fn remember(&mut self, draft: Draft, flag: Flag) -> Published {
        let content = Content::Event(event(&draft, flag));
        if self.recent.len() == RECENT_ORDERS {
            self.recent.pop_front();
        }
        self.recent.push_back((draft, flag));
        Published { content, flag }
    }
}

impl Iterator for Scenario {
    type Item = Published;

    fn next(&mut self) -> Option<Published> {
        if self.published == self.events {
            return None;
        }
        let published = self.publish();
        self.published += 1;
        Some(published)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = (self.events - self.published) as usize;
        (left, Some(left))
    }
}

impl ExactSizeIterator for Scenario {}

fn event(draft: &Draft, flag: Flag) -> Event {
    let mut data = json(draft);
    if flag == Flag::Poison(Poison::BrokenJson) {
        data.truncate(data.len() / 2);
    }
    Event {
        id: draft.order.clone(),
        source: SOURCE.to_owned(),
        kind: KIND.to_owned(),
        subject: Some(draft.order.clone()),
        time: Some(draft.time.to_string()),
        datacontenttype: Some("application/json".to_owned()),
        dataschema: None,
        extensions: vec![Extension {
            name: "partitionkey".to_owned(),
            value: Value::String(draft.sku.clone()),
        }],
        data: Some(Bytes::from(data)),
    }
}

fn no_event(draft: &Draft, kind: Poison) -> Message {
    let mut headers = Headers::default();
    if kind == Poison::NoEvent {
        let payload = [b"\xff\xfe no event but ".as_slice(), draft.order.as_bytes()].concat();
        return Message {
            subject: String::new(),
            headers,
            payload: payload.into(),
        };
    }
    for (name, value) in [("ce-specversion", "1.0"), ("ce-type", KIND), ("ce-source", SOURCE)] {
        headers.push(name, value);
    }
    Message {
        subject: String::new(),
        headers,
        payload: json(draft).into(),
    }
}

#[expect(clippy::expect_used, reason = "a struct of strings and numbers has a JSON form")]
fn json(draft: &Draft) -> Vec<u8> {
    serde_json::to_vec(draft).expect("an order is JSON")
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, HashMap};

    use super::*;

    fn counts(events: u32) -> BTreeMap<Flag, u32> {
        let mut counts = BTreeMap::new();
        for published in Scenario::new(events, 7) {
            *counts.entry(published.flag).or_default() += 1;
        }
        counts
    }

    #[test]
    fn same_seed_gives_the_same_events_and_another_seed_others() {
        let events: Vec<_> = Scenario::new(2_000, 7).collect();

        assert_eq!(events.len(), 2_000);
        assert!(Scenario::new(2_000, 7).eq(events.iter().cloned()));
        assert!(Scenario::new(2_000, 8).ne(events));
    }

    #[test]
    fn shares_are_as_promised_and_every_poison_is_there() {
        let counts = counts(20_000);
        let poison: u32 = Poison::ALL.iter().map(|kind| counts[&Flag::Poison(*kind)]).sum();

        assert!((1_800..2_200).contains(&counts[&Flag::Duplicate]), "{counts:?}");
        assert!((150..250).contains(&poison), "{counts:?}");
        assert!((500..700).contains(&counts[&Flag::Flaky]), "{counts:?}");
    }

    #[test]
    fn duplicate_is_the_same_event_at_a_later_place() {
        let mut seen = HashMap::new();
        let mut duplicates = 0;
        for published in Scenario::new(5_000, 7) {
            let Content::Event(event) = published.content else {
                continue;
            };
            let first = seen.entry(event.id.clone()).or_insert_with(|| event.clone());
            match published.flag {
                Flag::Duplicate => {
                    assert_eq!(*first, event);
                    duplicates += 1;
                }
                Flag::Poison(Poison::IdConflict) => assert_ne!(first.data, event.data),
                _ => assert_eq!(*first, event, "an id is used twice"),
            }
        }
        assert!(duplicates > 400);
    }

    #[test]
    fn orders_of_an_article_are_numbered_in_the_order_of_publication() {
        let mut seqs: HashMap<String, u64> = HashMap::new();
        let mut interleaved = 0;
        let mut last = String::new();
        for published in Scenario::new(5_000, 7) {
            let (Content::Event(event), Flag::Order) = (published.content, published.flag) else {
                continue;
            };
            let data: serde_json::Value = serde_json::from_slice(&event.data.unwrap()).unwrap();
            let sku = data["sku"].as_str().unwrap().to_owned();
            let seq = seqs.entry(sku.clone()).or_default();
            assert!(data["seq"].as_u64().unwrap() > *seq);
            *seq = data["seq"].as_u64().unwrap();
            interleaved += u32::from(sku != last);
            last = sku;
        }
        assert!(interleaved > 4_000, "articles come mixed");
    }
}
