//! The shop as it must be: what comes of everything that was published, by arithmetic alone.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use bytes::Bytes;
use serde::Deserialize;

use super::Said;
use crate::event::Event;
use crate::outcome::Reason;

/// What the example's config says, as far as it decides what comes of an order.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// Pieces of each article when the sale begins: `initial_stock` of the inventory.
    pub initial_stock: u32,
    /// `retry.attempts` of the payment.
    pub payment_attempts: u32,
}

impl Default for Rules {
    /// Those of `examples/flash-sale/tidegate.toml`.
    fn default() -> Self {
        Self {
            initial_stock: 80,
            payment_attempts: 5,
        }
    }
}

/// What must be there.
#[derive(Debug)]
pub(super) struct Shop {
    rules: Rules,
    left: HashMap<String, u32>,
    /// The first data of each event, by source and id.
    known: HashMap<(String, String), Option<Bytes>>,
    /// What must come out, by order.
    pub(super) sales: BTreeMap<String, Sale>,
    /// The dead letters that must be there, and whether they were seen.
    pub(super) letters: BTreeMap<Letter, bool>,
    counted: Counted,
}

#[derive(Debug, Default)]
struct Counted {
    orders: i64,
    units: i64,
    unreadable: i64,
}

/// What must come of one order that was taken.
#[derive(Debug)]
pub(super) struct Sale {
    pub(super) sku: String,
    pub(super) seq: u64,
    customer: String,
    quantity: u32,
    left: u32,
    amount_cents: u64,
    pub(super) fate: Fate,
    /// The stages whose outputs were found.
    pub(super) seen: BTreeSet<Stage>,
}

/// How far an order gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// Its article is sold out.
    Rejected,
    /// It is reserved; its payment is a dead letter.
    Unpaid,
    /// The customer is told that it is on its way.
    Notified,
}

impl Fate {
    /// Its outputs.
    pub(super) fn stages(self) -> &'static [Stage] {
        match self {
            Self::Rejected => &[Stage::Rejected],
            Self::Unpaid => &[Stage::Reserved],
            Self::Notified => &[Stage::Reserved, Stage::Paid, Stage::Dispatched, Stage::Notified],
        }
    }
}

/// The kinds of output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Stage {
    Reserved,
    Rejected,
    Paid,
    Dispatched,
    Notified,
}

impl Stage {
    const ALL: [Self; 5] = [
        Self::Reserved,
        Self::Rejected,
        Self::Paid,
        Self::Dispatched,
        Self::Notified,
    ];

    pub(super) fn of(stream: &str, kind: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|stage| stage.stream() == stream && stage.kind() == kind)
    }

    pub(super) fn stream(self) -> &'static str {
        match self {
            Self::Reserved | Self::Rejected => "stock",
            Self::Paid => "payments",
            Self::Dispatched => "shipments",
            Self::Notified => "notifications",
        }
    }

    pub(super) fn kind(self) -> &'static str {
        match self {
            Self::Reserved => "com.example.stock.reserved",
            Self::Rejected => "com.example.stock.rejected",
            Self::Paid => "com.example.payment.processed",
            Self::Dispatched => "com.example.shipment.dispatched",
            Self::Notified => "com.example.notification.sent",
        }
    }
}

/// What tells dead letters apart: whose, of what, why. Their own ids are the host's affair.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Letter {
    consumer: String,
    /// The order in the body; where there is none, the body.
    order: String,
    reason: Reason,
}

impl Letter {
    pub(super) fn new(consumer: &str, reason: Reason, payload: &[u8]) -> Self {
        #[derive(Deserialize)]
        struct Body {
            order: String,
        }
        let order = serde_json::from_slice(payload).map_or_else(
            |_| String::from_utf8_lossy(payload).into_owned(),
            |body: Body| body.order,
        );
        Self {
            consumer: consumer.to_owned(),
            order,
            reason,
        }
    }
}

#[derive(Deserialize)]
struct Order {
    order: String,
    customer: String,
    sku: String,
    seq: u64,
    quantity: u32,
    price_cents: u64,
    coupon: Option<String>,
    card: String,
}

impl Sale {
    /// What the output of a stage must say.
    pub(super) fn says(&self, stage: Stage, order: &str) -> Said {
        let stock = matches!(stage, Stage::Reserved | Stage::Rejected);
        let money = matches!(stage, Stage::Reserved | Stage::Paid);
        Said {
            order: order.to_owned(),
            customer: self.customer.clone(),
            sku: self.sku.clone(),
            seq: self.seq,
            quantity: stock.then_some(self.quantity),
            left: stock.then_some(self.left),
            amount_cents: money.then_some(self.amount_cents),
            parcel: (stage == Stage::Dispatched).then(|| format!("p-{order}")),
        }
    }
}

impl Shop {
    pub(super) fn new(rules: Rules) -> Self {
        Self {
            rules,
            left: HashMap::new(),
            known: HashMap::new(),
            sales: BTreeMap::new(),
            letters: BTreeMap::new(),
            counted: Counted::default(),
        }
    }

    /// Both readers of the orders have it among their dead letters.
    pub(super) fn undecodable(&mut self, payload: &[u8]) {
        for consumer in ["inventory", "analytics"] {
            self.letter(consumer, Reason::Undecodable, payload);
        }
    }

    pub(super) fn event(&mut self, event: &Event) {
        let id = (event.source.clone(), event.id.clone());
        let data = event.data.as_deref().unwrap_or_default();
        if let Some(first) = self.known.get(&id) {
            if *first != event.data {
                for consumer in ["inventory", "analytics"] {
                    self.letter(consumer, Reason::IdConflict, data);
                }
            }
            return;
        }
        self.known.insert(id, event.data.clone());
        let order: Option<Order> = serde_json::from_slice(data).ok();
        self.count(order.as_ref());
        match order {
            None => self.letter("inventory", Reason::Permanent, data),
            Some(order) if order.quantity == 0 => self.letter("inventory", Reason::Permanent, data),
            Some(order) if order.coupon.as_deref() == Some("") => self.letter("inventory", Reason::Trap, data),
            Some(order) => self.sell(order, data),
        }
    }

    fn count(&mut self, order: Option<&Order>) {
        match order {
            Some(order) => {
                self.counted.orders += 1;
                self.counted.units += i64::from(order.quantity);
            }
            None => self.counted.unreadable += 1,
        }
    }

    fn sell(&mut self, order: Order, data: &[u8]) {
        let left = self.left.entry(order.sku.clone()).or_insert(self.rules.initial_stock);
        let fate = if order.quantity > *left {
            Fate::Rejected
        } else {
            *left -= order.quantity;
            match self.rules.unpaid(&order.card) {
                None => Fate::Notified,
                Some(reason) => {
                    self.letters.insert(Letter::new("payment", reason, data), false);
                    Fate::Unpaid
                }
            }
        };
        let sale = Sale {
            left: *left,
            amount_cents: order.amount_cents(),
            sku: order.sku,
            seq: order.seq,
            customer: order.customer,
            quantity: order.quantity,
            fate,
            seen: BTreeSet::new(),
        };
        self.sales.insert(order.order, sale);
    }

    fn letter(&mut self, consumer: &str, reason: Reason, payload: &[u8]) {
        self.letters.insert(Letter::new(consumer, reason, payload), false);
    }

    /// What the analytics must have counted.
    pub(super) fn counters(&self) -> [(&'static str, i64); 3] {
        [
            ("orders", self.counted.orders),
            ("units", self.counted.units),
            ("unreadable", self.counted.unreadable),
        ]
    }
}

impl Order {
    fn amount_cents(&self) -> u64 {
        let percent = match self.coupon.as_deref() {
            Some(coupon) if coupon.starts_with('V') => 20,
            Some(coupon) if coupon.starts_with('S') => 10,
            _ => 0,
        };
        let full = self.price_cents * u64::from(self.quantity);
        full - full * percent / 100
    }
}

impl Rules {
    /// Why a card is never charged, if it isn't.
    fn unpaid(self, card: &str) -> Option<Reason> {
        if card == "tok_stolen" {
            return Some(Reason::Permanent);
        }
        let failures: u32 = card.strip_prefix("tok_flaky_")?.parse().ok()?;
        (failures >= self.payment_attempts).then_some(Reason::AttemptsExhausted)
    }
}
