//! What the producer sends: made of the seed and the number alone, so that fewer events are a part of more.

use std::collections::BTreeMap;
use std::sync::Mutex;

use bytes::Bytes;

use super::case::{Case, Fault, draw};
use super::policy;
use super::trace::{Kind, Number};
use super::world::World;
use crate::broker::Position;
use crate::event::{Event, Message, codec};
use crate::ledger::{Change, Entry, PayloadHash, RecordKey};
use crate::plan::Name;

/// All events of a run, and what they are known by.
pub(super) struct Events {
    case: Case,
    consumer: Name,
    keys: u64,
    by_record: Mutex<BTreeMap<(RecordKey, Option<u64>), Number>>,
}

/// A message to be sent.
pub(super) struct Sending {
    pub number: Number,
    pub kind: Kind,
    pub key: u32,
    pub message: Message,
}

impl Events {
    pub(super) fn new(world: &World) -> Self {
        Self {
            case: world.case.clone(),
            consumer: world.plan.name.clone(),
            keys: 1 + draw(world.case.seed, format_args!("keys")) % 6,
            by_record: Mutex::default(),
        }
    }

    fn draw(&self, what: &str, number: Number) -> u64 {
        draw(self.case.seed, format_args!("{what} {number}"))
    }

    /// What is sent as message `index`, and what it is.
    pub(super) fn sending(&self, index: Number) -> Sending {
        let (number, kind) = self.what(index);
        let key = self.key(number, kind);
        let message = match kind {
            Kind::Undecodable => Message {
                payload: Bytes::from(format!("no event {number}")),
                ..Message::default()
            },
            _ => codec::encode(&self.event(number, kind), &policy::stream()).unwrap(),
        };
        Sending {
            number,
            kind,
            key,
            message,
        }
    }

    /// Which event message `index` is.
    fn what(&self, index: Number) -> (Number, Kind) {
        let earlier = (index > 0).then(|| self.earlier(index));
        match (self.draw("kind", index), earlier) {
            (0..120, Some(earlier)) if self.case.has(Fault::Copies) => match self.what(earlier) {
                (_, Kind::Undecodable) => (index, Kind::Plain),
                what => what,
            },
            (120..180, Some(earlier)) if self.case.has(Fault::OtherData) => match self.what(earlier) {
                (_, Kind::Plain) => (index, Kind::OtherData),
                _ => (index, Kind::Plain),
            },
            (180..210, _) if self.case.has(Fault::Undecodable) => (index, Kind::Undecodable),
            (210..250, _) if self.case.has(Fault::Unwanted) => (index, Kind::Unwanted),
            _ => (index, Kind::Plain),
        }
    }

    /// What has the id of another event has its key, too.
    fn key(&self, number: Number, kind: Kind) -> u32 {
        (self.draw("key", self.named(number, kind)) % self.keys) as u32
    }

    fn event(&self, number: Number, kind: Kind) -> Event {
        let id = self.named(number, kind);
        Event {
            id: format!("e{id}"),
            source: "/shop".to_owned(),
            kind: if kind == Kind::Unwanted {
                "stock.taken"
            } else {
                "order.placed"
            }
            .to_owned(),
            subject: Some(format!("k{}", self.key(number, kind))),
            data: Some(Bytes::from(number.to_string())),
            ..Event::default()
        }
    }

    /// The event whose id an event has: its own, or that of an earlier one.
    fn named(&self, number: Number, kind: Kind) -> Number {
        match kind {
            Kind::OtherData => self.what(self.earlier(number)).0,
            _ => number,
        }
    }

    fn earlier(&self, index: Number) -> Number {
        index - 1 - self.draw("earlier", index) as u32 % index.min(8)
    }

    /// Notes by what a message that is sent will be known.
    pub(super) fn sent(&self, sending: &Sending, position: u64) {
        let event = self.event(sending.number, sending.kind);
        let record = RecordKey::of(&self.consumer, &event);
        let payload = PayloadHash::of(event.data.as_ref());
        let known_by = match sending.kind {
            Kind::Undecodable => {
                let place = RecordKey::of_place(&self.consumer, &policy::stream().name, Position(position));
                vec![(place, None)]
            }
            Kind::OtherData => vec![
                (RecordKey::of_conflict(record, payload), None),
                (record, Some(payload.0)),
            ],
            Kind::Plain | Kind::Unwanted => vec![(record, None)],
        };
        let mut by_record = self.by_record.lock().unwrap();
        by_record.extend(known_by.into_iter().map(|known_by| (known_by, sending.number)));
    }

    /// The event of a record.
    pub(super) fn of_record(&self, record: RecordKey) -> Option<Number> {
        self.by_record.lock().unwrap().get(&(record, None)).copied()
    }

    /// The event of an entry.
    pub(super) fn of_entry(&self, entry: &Entry) -> Option<Number> {
        if let Change::Conflict { letter, .. } = &entry.change {
            return self.of_record(letter.id);
        }
        let of_data = self
            .by_record
            .lock()
            .unwrap()
            .get(&(entry.record, Some(entry.payload.0)))
            .copied();
        of_data.or_else(|| self.of_record(entry.record))
    }

    /// The event that a plugin is given.
    pub(super) fn of_event(event: &Event) -> Number {
        let data = event.data.as_deref().unwrap_or_default();
        std::str::from_utf8(data).unwrap().parse().unwrap()
    }
}
