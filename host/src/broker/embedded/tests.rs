//! The embedded broker against the suite, and what only it can do: retention, lag, cursors that a crash leaves behind.

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use tempfile::TempDir;
use tokio::time::timeout;

use crate::broker::suite::{Host, Reader, Stand, assert_ascending, numbers};
use crate::broker::{Broker, Error, Outgoing, Room, Settlement, Subscription};
use crate::clock::{Clock, Timestamp};
use crate::event::Message;
use crate::plan::{self, BrokerKind, ContentMode, Log, Name, Place};
use crate::store::{Settings, Store};

crate::broker_suite!(fresh);

/// A store in a folder that goes away with it.
struct Folder {
    folder: TempDir,
    store: Mutex<Option<Arc<Store>>>,
}

async fn fresh() -> Folder {
    Folder {
        folder: tempfile::tempdir().unwrap(),
        store: Mutex::default(),
    }
}

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

fn broker_plan() -> plan::Broker {
    plan::Broker {
        name: name("main"),
        kind: BrokerKind::Embedded,
    }
}

fn stream_plan() -> Arc<plan::Stream> {
    Arc::new(plan::Stream {
        name: name("orders"),
        broker: Arc::new(broker_plan()),
        place: Place::Log(Log {
            age_max: None,
            bytes_max: 1 << 30,
        }),
        mode: ContentMode::Binary,
        mapping: None,
    })
}

fn open_store(path: &Path) -> Arc<Store> {
    let settings = Settings {
        path: path.to_owned(),
        retention: Duration::from_secs(600),
        fsync: false,
    };
    Store::open(settings, Clock::seeded(Timestamp(1_000_000_000), 1)).unwrap()
}

impl Folder {
    fn store(&self) -> Arc<Store> {
        self.store.lock().unwrap().clone().unwrap()
    }

    /// The next opening finds what a kill leaves. No handle may be left.
    fn crash(&self) {
        self.store.lock().unwrap().take();
    }
}

impl Stand for Folder {
    fn stream(&self) -> Arc<plan::Stream> {
        stream_plan()
    }

    fn subject(&self) -> String {
        String::new()
    }

    fn open(&self) -> BoxFuture<'_, Result<Arc<dyn Broker>, Error>> {
        Box::pin(async move {
            // A host that starts was stopped before, cleanly if it could.
            let before = self.store.lock().unwrap().take();
            if let Some(before) = before {
                before.close().await.unwrap();
            }
            let store = open_store(self.folder.path());
            *self.store.lock().unwrap() = Some(store.clone());
            let clock = Clock::seeded(Timestamp(1_000_000_000), 1);
            Ok(super::open(store, &broker_plan(), clock))
        })
    }

    fn ack_deadline(&self) -> Option<Duration> {
        None
    }

    fn stop(&self) -> BoxFuture<'_, bool> {
        Box::pin(std::future::ready(false))
    }

    fn start(&self) -> BoxFuture<'_, ()> {
        Box::pin(std::future::ready(()))
    }
}

async fn settle(reader: &Reader, taken: Vec<crate::broker::Delivery>, settlement: Settlement) {
    reader.settle(taken, settlement).await;
}

#[tokio::test]
async fn a_crash_gives_everything_again_from_the_lowest_unsettled() {
    let folder = fresh().await;
    let host = Host::start(&folder).await;
    let mut reader = host.read("reader").await;
    host.publish_numbers(0..3000).await;
    let mut taken = reader.take(3000).await;
    settle(&reader, taken.drain(..1200).collect(), Settlement::Done).await;
    settle(&reader, taken.drain(800..).collect(), Settlement::Done).await;
    // The 1,200 are more than what is settled at most before it is written.
    host.publish_numbers(3000..3001).await;
    drop((taken, reader, host));
    folder.crash();

    let host = Host::start(&folder).await;
    let mut reader = host.read("reader").await;
    let again = reader.take(1801).await;
    assert_eq!(numbers(&again), Vec::from_iter(1200..3001));
    assert_ascending(&again);
}

#[tokio::test]
async fn handed_back_comes_before_what_is_new_and_in_order() {
    let folder = fresh().await;
    let host = Host::start(&folder).await;
    let mut reader = host.read("reader").await;
    host.publish_numbers(0..10).await;
    let mut taken = reader.take_in_rooms_of(5, 5).await;
    let third = taken.remove(3);
    let first = taken.remove(1);
    settle(&reader, vec![third, first], Settlement::HandBack).await;
    assert_eq!(numbers(&reader.take(7).await), [1, 3, 5, 6, 7, 8, 9]);
    let lag = folder.store().logs().unwrap().remove(0).consumers.remove(0);
    assert_eq!((lag.position, lag.lag), (1, 10));
}

#[tokio::test]
async fn a_subscription_holds_no_more_than_its_room() {
    let folder = fresh().await;
    let host = Host::start(&folder).await;
    host.publish_numbers(0..10).await;
    let subscription = Subscription {
        consumer: name("reader"),
        stream: stream_plan(),
        room: Room {
            count: 3,
            bytes: 1 << 20,
        },
    };
    let mut subscribed = host.broker.subscribe(subscription).await.unwrap();
    let room = Room {
        count: 100,
        bytes: 1 << 20,
    };
    let mut taken = subscribed.source.next(room).await.unwrap();
    assert_eq!(numbers(&taken), [0, 1, 2]);
    let more = timeout(Duration::from_millis(50), subscribed.source.next(room)).await;
    assert!(more.is_err(), "{more:?}");
    let one = (taken.remove(0).receipt, Settlement::Done);
    subscribed.settle.settle(vec![one]).await.unwrap();
    assert_eq!(numbers(&subscribed.source.next(room).await.unwrap()), [3]);
}

#[tokio::test]
async fn a_cursor_has_one_reader() {
    let folder = fresh().await;
    let host = Host::start(&folder).await;
    let reader = host.read("reader").await;
    let again = || Subscription {
        consumer: name("reader"),
        stream: stream_plan(),
        room: Room { count: 1, bytes: 1 },
    };
    let refused = host.broker.subscribe(again()).await.map(|_| ());
    assert!(matches!(refused, Err(Error::Misconfigured { .. })), "{refused:?}");
    drop(reader);
    host.broker.subscribe(again()).await.unwrap();
}

fn big(number: usize) -> Outgoing {
    Outgoing {
        id: format!("big-{number}").into(),
        key: Arc::from(*b""),
        message: Message {
            payload: Bytes::from(vec![b'x'; 1000]),
            ..Message::default()
        },
    }
}

async fn trim(folder: &Folder, keep: Log, now: u64) -> u64 {
    let trim = folder.store();
    trim.trim(&name("orders"), &keep, Timestamp(now)).await.unwrap()
}

#[tokio::test]
async fn bytes_are_trimmed_below_the_slowest_consumer_only() {
    let folder = fresh().await;
    let host = Host::start(&folder).await;
    let mut fast = host.read("fast").await;
    let mut slow = host.read("slow").await;
    let all = (0..3000).map(big).collect();
    assert!(host.publisher.publish(all).await.iter().all(Result::is_ok));
    let keep = || Log {
        age_max: None,
        bytes_max: 100_000,
    };
    let taken = fast.take(3000).await;
    settle(&fast, taken, Settlement::Done).await;
    assert_eq!(trim(&folder, keep(), 1_000_000_000).await, 0);
    let taken = slow.take(2500).await;
    settle(&slow, taken, Settlement::Done).await;
    assert_eq!(trim(&folder, keep(), 1_000_000_000).await, 2500);
    let taken = slow.take(500).await;
    settle(&slow, taken, Settlement::Done).await;
    trim(&folder, keep(), 1_000_000_000).await;
    let log = folder.store().logs().unwrap().remove(0);
    assert!((50..=100).contains(&log.length), "{log:?}");
    assert!(log.bytes <= 100_000, "{log:?}");
    // One that comes new begins at what is left.
    let mut late = host.read("late").await;
    let first = late.take(1).await;
    assert_eq!(first[0].position.0, log.first);
}

#[tokio::test]
async fn age_is_trimmed_whoever_reads() {
    let folder = fresh().await;
    let host = Host::start(&folder).await;
    let mut reader = host.read("reader").await;
    host.publish_numbers(0..5).await;
    let mut taken = reader.take(5).await;
    settle(&reader, vec![taken.pop().unwrap()], Settlement::HandBack).await;
    let keep = || Log {
        age_max: Some(Duration::from_secs(3600)),
        bytes_max: 1 << 30,
    };
    assert_eq!(trim(&folder, keep(), 1_000_000_000).await, 0);
    let later = 1_000_000_000 + 3_700_000;
    assert_eq!(trim(&folder, keep(), later).await, 5);
    host.publish_numbers(10..12).await;
    assert_eq!(numbers(&reader.take(2).await), [10, 11]);
    let log = folder.store().logs().unwrap().remove(0);
    assert_eq!((log.first, log.length, log.consumers[0].lag), (6, 2, 2));
    drop((reader, taken, host));

    // The numbers go on where they were, even if nothing is left to count from.
    assert_eq!(trim(&folder, keep(), later * 2).await, 2);
    folder.crash();
    let host = Host::start(&folder).await;
    let mut reader = host.read("reader").await;
    host.publish_numbers(20..21).await;
    assert_eq!(reader.take(1).await[0].position.0, 8);
}

#[tokio::test]
async fn a_store_that_is_closed_is_unreachable() {
    let folder = fresh().await;
    let host = Host::start(&folder).await;
    let mut reader = host.read("reader").await;
    folder.store().close().await.unwrap();
    let checked = host.broker.check().await;
    assert!(matches!(checked, Err(Error::Unreachable { .. })), "{checked:?}");
    let published = host.try_publish_numbers(0..1).await;
    assert!(matches!(published[0], Err(Error::Unreachable { .. })), "{published:?}");
    let room = Room { count: 1, bytes: 1 };
    let waiting = timeout(Duration::from_millis(50), reader.source.next(room)).await;
    assert!(waiting.is_err(), "{waiting:?}");
    folder.crash();
}
