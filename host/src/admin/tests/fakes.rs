//! What stands behind the host: remembers what was asked of it, and fails when it is told to.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;

use crate::broker::{
    self, Broker, Delivery, Outgoing, Position, Promises, Publisher, Receipt, Room, Settle, Settlement, Source,
    Subscribed, Subscription,
};
use crate::clock::Timestamp;
use crate::event::key::LaneKey;
use crate::event::{Headers, Message};
use crate::ledger::{
    DeadFilter, DeadId, DeadLetter, DeadLetters, DeadPage, DeadPlace, Entry, Error, Known, Ledger, ParkedEvent,
    ParkedLane, Parking, Read, RecordKey, Redriven, Refused, StateBucket, StateKey, TakenBefore, Written,
};
use crate::outcome::{Attempt, Class, Failure, Reason};
use crate::plan::{self, Name};
use crate::plugin::{Attempted, Call, Handler};

/// A broker that gives nothing and takes everything, unless it is away.
#[derive(Default)]
pub(crate) struct FakeBroker(Arc<FakeBrokerState>);

#[derive(Default)]
struct FakeBrokerState {
    away: AtomicBool,
    refuses: AtomicBool,
    published: Mutex<Vec<Outgoing>>,
}

impl FakeBroker {
    pub(crate) fn go(&self, away: bool) {
        self.0.away.store(away, Ordering::Relaxed);
    }

    pub(crate) fn refuse(&self) {
        self.0.refuses.store(true, Ordering::Relaxed);
    }

    pub(crate) fn published(&self) -> Vec<Outgoing> {
        self.0.published.lock().unwrap().clone()
    }
}

impl FakeBrokerState {
    fn answer(&self) -> Result<(), broker::Error> {
        let broker = Name::new("main").unwrap();
        if self.away.load(Ordering::Relaxed) {
            return Err(broker::Error::Unreachable {
                broker,
                reason: "nobody is at home".to_owned(),
                retry_after: Some(Duration::from_millis(1_500)),
            });
        }
        match self.refuses.load(Ordering::Relaxed) {
            true => Err(broker::Error::Refused {
                broker,
                reason: "too blue".to_owned(),
            }),
            false => Ok(()),
        }
    }
}

impl Broker for FakeBroker {
    fn subscribe(&self, _: Subscription) -> BoxFuture<'_, Result<Subscribed, broker::Error>> {
        Box::pin(async {
            self.0.answer()?;
            Ok(Subscribed {
                source: Box::new(FakeSource(self.0.clone())),
                settle: Arc::new(FakeSettle),
                promises: Promises { goes_back: true },
            })
        })
    }

    fn publisher(&self, _: Arc<plan::Stream>) -> BoxFuture<'_, Result<Arc<dyn Publisher>, broker::Error>> {
        Box::pin(async { Ok(Arc::new(FakePublisher(self.0.clone())) as Arc<dyn Publisher>) })
    }

    fn check(&self) -> BoxFuture<'_, Result<(), broker::Error>> {
        Box::pin(async { self.0.answer() })
    }
}

/// Waits until its broker is away.
struct FakeSource(Arc<FakeBrokerState>);

impl Source for FakeSource {
    fn next(&mut self, _: Room) -> BoxFuture<'_, Result<Vec<Delivery>, broker::Error>> {
        Box::pin(async {
            loop {
                self.0.answer()?;
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
    }
}

struct FakeSettle;

impl Settle for FakeSettle {
    fn settle(&self, _: Vec<(Receipt, Settlement)>) -> BoxFuture<'_, Result<(), broker::Error>> {
        Box::pin(async { Ok(()) })
    }
}

struct FakePublisher(Arc<FakeBrokerState>);

impl Publisher for FakePublisher {
    fn publish(&self, batch: Vec<Outgoing>) -> BoxFuture<'_, Vec<Result<(), broker::Error>>> {
        Box::pin(async move {
            let answers = batch.iter().map(|_| self.0.answer()).collect();
            if self.0.answer().is_ok() {
                self.0.published.lock().unwrap().extend(batch);
            }
            answers
        })
    }

    fn size_max(&self) -> usize {
        1024 * 1024
    }
}

/// Never called: the broker gives nothing.
pub(crate) struct FakeHandler;

impl Handler for FakeHandler {
    fn attempt<'a>(&'a self, _: Call<'a>) -> BoxFuture<'a, Attempted> {
        Box::pin(std::future::pending())
    }

    fn revision(&self) -> Arc<str> {
        "sha256:abc".into()
    }
}

/// Knows nothing, and counts how often its parking was looked at.
#[derive(Default)]
pub(crate) struct FakeLedger {
    looked: AtomicUsize,
}

impl FakeLedger {
    pub(crate) fn looked(&self) -> usize {
        self.looked.load(Ordering::Relaxed)
    }
}

impl Ledger for FakeLedger {
    fn look_up(&self, keys: Vec<RecordKey>) -> BoxFuture<'_, Result<Vec<Known>, Error>> {
        Box::pin(async move { Ok(keys.iter().map(|_| Known::New).collect()) })
    }

    fn write(&self, entries: Arc<Vec<Entry>>) -> BoxFuture<'_, Result<Vec<Result<Written, Refused>>, Error>> {
        Box::pin(async move { Ok(entries.iter().map(|_| Ok(Written::default())).collect()) })
    }

    fn read_state<'a>(&'a self, _: &'a StateKey) -> BoxFuture<'a, Result<Read, Error>> {
        Box::pin(async { Ok(Read::default()) })
    }

    fn list_state<'a>(
        &'a self,
        _: &'a StateBucket,
        _: Option<&'a str>,
        _: usize,
    ) -> BoxFuture<'a, Result<Vec<String>, Error>> {
        Box::pin(async { Ok(Vec::new()) })
    }

    fn taken_before<'a>(&'a self, _: &'a Name) -> BoxFuture<'a, Result<Option<TakenBefore>, Error>> {
        Box::pin(async { Ok(None) })
    }

    fn recovered(&self, _: &Name) {}

    fn mark_taken<'a>(&'a self, _: &'a Name, _: Position) -> BoxFuture<'a, Result<(), Error>> {
        Box::pin(async { Ok(()) })
    }
}

impl Parking for FakeLedger {
    fn lanes<'a>(&'a self, _: &'a Name) -> BoxFuture<'a, Result<Vec<ParkedLane>, Error>> {
        self.looked.fetch_add(1, Ordering::Relaxed);
        Box::pin(async { Ok(Vec::new()) })
    }

    fn first<'a>(&'a self, _: &'a Name, _: &'a LaneKey, _: usize) -> BoxFuture<'a, Result<Vec<ParkedEvent>, Error>> {
        Box::pin(async { Ok(Vec::new()) })
    }
}

/// Dead letters in memory, in the order they were added.
#[derive(Default)]
pub(crate) struct FakeLetters {
    letters: Mutex<Vec<DeadLetter>>,
    down: AtomicBool,
}

impl FakeLetters {
    pub(crate) fn add(&self, letters: impl IntoIterator<Item = DeadLetter>) {
        self.letters.lock().unwrap().extend(letters);
    }

    pub(crate) fn break_down(&self) {
        self.down.store(true, Ordering::Relaxed);
    }

    pub(crate) fn all(&self) -> Vec<DeadLetter> {
        self.letters.lock().unwrap().clone()
    }

    fn up(&self) -> Result<(), Error> {
        match self.down.load(Ordering::Relaxed) {
            true => Err(Error::Unavailable("the disk is full".to_owned())),
            false => Ok(()),
        }
    }
}

impl DeadLetters for FakeLetters {
    fn list<'a>(
        &'a self,
        which: &'a DeadFilter,
        after: Option<DeadPlace>,
        limit: usize,
    ) -> BoxFuture<'a, Result<DeadPage, Error>> {
        Box::pin(async move {
            self.up()?;
            let all = self.all();
            let from = after.map_or(0, |place| usize::try_from(place.0).unwrap() + 1);
            let is_meant = |letter: &DeadLetter| {
                which.consumer.as_ref().is_none_or(|name| *name == letter.consumer)
                    && which.reason.is_none_or(|reason| reason == letter.reason)
            };
            let meant = all.into_iter().enumerate().skip(from);
            let mut meant = meant.filter(|(_, letter)| is_meant(letter)).peekable();
            let mut page = DeadPage::default();
            while let Some((place, letter)) = meant.next_if(|_| page.letters.len() < limit) {
                page.letters.push(letter);
                page.next = meant.peek().map(|_| DeadPlace(place as u64));
            }
            Ok(page)
        })
    }

    fn get(&self, id: DeadId) -> BoxFuture<'_, Result<Option<DeadLetter>, Error>> {
        Box::pin(async move {
            self.up()?;
            Ok(self.all().into_iter().find(|letter| letter.id == id))
        })
    }

    fn redrive(&self, ids: Vec<DeadId>) -> BoxFuture<'_, Result<Vec<Redriven>, Error>> {
        Box::pin(async move {
            self.up()?;
            let mut letters = self.letters.lock().unwrap();
            let meant = letters.iter_mut().filter(|letter| ids.contains(&letter.id));
            let redrive = |letter: &mut DeadLetter| {
                letter.redriving = true;
                Redriven {
                    id: letter.id,
                    consumer: letter.consumer.clone(),
                    lane: letter.lane.clone(),
                    applied_meanwhile: letter.applied_meanwhile,
                }
            };
            Ok(meant.map(redrive).collect())
        })
    }

    fn purge(&self, ids: Vec<DeadId>) -> BoxFuture<'_, Result<Vec<DeadLetter>, Error>> {
        Box::pin(async move {
            self.up()?;
            let mut letters = self.letters.lock().unwrap();
            Ok(letters.extract_if(.., |letter| ids.contains(&letter.id)).collect())
        })
    }

    fn count(&self) -> BoxFuture<'_, Result<Vec<(Name, Reason, u64)>, Error>> {
        Box::pin(async {
            self.up()?;
            let letters = self.all();
            Ok(letters
                .into_iter()
                .map(|letter| (letter.consumer, letter.reason, 1))
                .collect())
        })
    }
}

/// A dead letter of `inventory` whose every attempt trapped.
pub(crate) fn letter(number: u8) -> DeadLetter {
    let mut headers = Headers::default();
    headers.push("ce-specversion", "1.0");
    headers.push("ce-id", format!("order-{number}"));
    headers.push("ce-source", "/shop");
    headers.push("ce-type", "com.example.order.placed");
    headers.push("ce-subject", "customer-7");
    headers.push("ce-tenant", "blue");
    headers.push("ce-datacontenttype", "application/json");
    headers.push("X-Raw", Bytes::from_static(&[0xff, 0x00]));
    DeadLetter {
        id: RecordKey([number; 16]),
        consumer: Name::new("inventory").unwrap(),
        stream: Name::new("orders").unwrap(),
        position: Position(u64::from(number)),
        reason: Reason::Trap,
        detail: "wasm trap: unreachable".to_owned(),
        revision: "sha256:abc".to_owned(),
        lane: LaneKey(b"customer-7".as_slice().into()),
        event: Some(("/shop".to_owned(), format!("order-{number}"))),
        kind: Some("com.example.order.placed".to_owned()),
        message: Message {
            subject: "orders".to_owned(),
            headers,
            payload: Bytes::from_static(b"{\"item\":\"kettle\",\"quantity\":2}"),
        },
        attempts: vec![attempt(1), attempt(2)],
        failed: 2,
        first_at: Timestamp(1_790_000_000_000),
        last_at: Timestamp(1_790_000_001_250),
        applied_meanwhile: 3,
        redriving: false,
    }
}

fn attempt(number: u32) -> Attempt {
    Attempt {
        number,
        at: Timestamp(1_790_000_000_000).after(Duration::from_secs(u64::from(number))),
        duration: Duration::from_micros(1_234),
        memory: 1_114_112,
        revision: "sha256:abc".to_owned(),
        failure: Failure {
            class: Class::Trap,
            message: "wasm trap: unreachable".to_owned(),
            backtrace: vec!["inventory::reserve".to_owned(), "handle".to_owned()],
            retry_after: None,
        },
    }
}
