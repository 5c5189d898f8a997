//! What it costs to look an event up, to commit what it caused and to forget its output when that is confirmed, all durable; and
//! the same from an embedded stream to an embedded stream.
//!
//! `cargo bench -p tidegate --bench ledger` measures an empty ledger; `-- 10000000` one that remembers so many ids in eight
//! buckets, what they cost, and how long commits take while one of the buckets is dropped.

#![expect(clippy::expect_used, reason = "a benchmark that can't measure ends")]

mod meter;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use meter::Sample;
use sysinfo::{Pid, ProcessRefreshKind, ProcessesToUpdate, System};
use tidegate::broker::{self, Receipt, Room, Settlement, Subscription};
use tidegate::clock::{Clock, Timestamp};
use tidegate::event::key::LaneKey;
use tidegate::event::{Headers, Message};
use tidegate::ledger::embedded::{self, Embedded};
use tidegate::ledger::{Change, Effects, Entry, Ledger, Outbox, Output, PayloadHash, RecordKey, RowId};
use tidegate::plan::{self, BrokerKind, ContentMode, Log, Name, Place};
use tidegate::store::{Settings, Store};

/// Events of a round, by the size of their batches.
const ROUNDS: [(u64, u32); 3] = [(1, 8_192), (64, 131_072), (256, 131_072)];
/// Rounds of each size. The first one warms up.
const REPEATS: usize = 4;
const LANES: u64 = 1_000;

/// Buckets that are filled beforehand, an hour each.
const BUCKETS: u64 = 8;
const BUCKET: Duration = Duration::from_hours(1);
/// Ids in one write while they are filled.
const FILL: u64 = 10_000;
/// Commits whose times are taken.
const TIMED: u64 = 2_000;

fn main() {
    let ids = std::env::args().find_map(|argument| argument.parse().ok()).unwrap_or(0);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("the runtime starts");
    let folder = tempfile::tempdir().expect("there is a folder for what is temporary");
    runtime.block_on(run(folder.path(), ids));
}

async fn run(folder: &Path, ids: u64) {
    if ids > 0 {
        fill(folder, ids).await;
    }
    let mut host = Host::open(folder, BUCKETS);
    host.time("while what was remembered last is compacted").await;
    for (batch, events) in ROUNDS {
        let name = format!("outbox, batches of {batch}");
        for _ in 0..REPEATS {
            host.run_outbox(&name, batch, events).await;
        }
    }
    for (batch, events) in ROUNDS {
        let mut reader = Reader::open(&host, batch).await;
        for _ in 0..REPEATS {
            reader.run_log(&mut host, batch, events).await;
        }
    }
    host.time("in quiet").await;
    if ids > 0 {
        host.time_drop().await;
    }
    host.store.close().await.expect("the store closes");
}

/// Remembers ids, an eighth of them in each bucket, and says what they cost.
async fn fill(folder: &Path, ids: u64) {
    let before = resident_bytes();
    let mut next = 0;
    for bucket in 0..BUCKETS {
        let host = Host::open(folder, bucket);
        let sample = Sample::start();
        while next < ids * (bucket + 1) / BUCKETS {
            host.write((next..next + FILL).map(remembered).collect()).await;
            next += FILL;
        }
        println!(
            "remember, batches of {FILL}                 {}",
            sample.end(u32::try_from(ids / BUCKETS).expect("it fits"))
        );
        host.store.close().await.expect("the store closes");
    }
    // Only what is needed to go on is in memory, not what the filling needed.
    let host = Host::open(folder, BUCKETS);
    let keys = (0..FILL).map(|number| entry(number, Vec::new()).record).collect();
    host.ledger.look_up(keys).await.expect("the ledger answers");
    let (memory, disk) = (resident_bytes().saturating_sub(before), disk_bytes(folder));
    println!(
        "{next} ids: {} bytes of memory and {} of disk each",
        per(memory, next),
        per(disk, next)
    );
    host.store.close().await.expect("the store closes");
}

/// A ledger in a store whose clock stands at the beginning of a bucket.
struct Host {
    store: Arc<Store>,
    ledger: Arc<Embedded>,
    clock: Clock,
    next: u64,
}

impl Host {
    fn open(folder: &Path, bucket: u64) -> Self {
        let at = Timestamp(0).after(BUCKET * 1_000 + BUCKET * u32::try_from(bucket).expect("there are few"));
        let clock = Clock::seeded(at, 1);
        let settings = Settings {
            path: folder.join("store"),
            retention: BUCKET * 8,
            fsync: true,
        };
        let store = Store::open(settings, clock.clone()).expect("the store opens");
        let ledger = embedded::open(store.clone(), [name("log")].into());
        Self {
            store,
            ledger,
            clock,
            // Apart from those that are remembered.
            next: 1 << 40,
        }
    }

    async fn write(&self, entries: Vec<Entry>) -> Vec<RowId> {
        let written = self.ledger.write(Arc::new(entries)).await.expect("the ledger answers");
        let rows = written
            .into_iter()
            .map(|written| written.expect("each event is new").rows);
        rows.flatten().collect()
    }

    /// The entries of a batch whose events each have one output onto a stream.
    fn batch(&mut self, batch: u64, stream: &Name) -> Vec<Entry> {
        let numbers = self.next..self.next + batch;
        self.next = numbers.end;
        numbers
            .map(|number| entry(number, vec![output(number, stream)]))
            .collect()
    }

    /// Looks events up and commits them, as the pipeline does of each batch.
    async fn commit(&self, entries: Vec<Entry>) -> Vec<RowId> {
        let keys = entries.iter().map(|entry| entry.record).collect();
        self.ledger.look_up(keys).await.expect("the ledger answers");
        self.write(entries).await
    }

    /// Commits events with an output each, which is confirmed when the next batch has been committed.
    async fn run_outbox(&mut self, name: &str, batch: u64, events: u32) {
        let stream = name_of_outbox();
        let batches: Vec<_> = (0..u64::from(events) / batch)
            .map(|_| self.batch(batch, &stream))
            .collect();
        let count = batches.len();
        let sample = Sample::start();
        let mut unconfirmed = Vec::new();
        for entries in batches {
            let rows = self.commit(entries).await;
            self.ledger.confirmed(std::mem::replace(&mut unconfirmed, rows));
        }
        self.ledger.confirmed(unconfirmed);
        println!(
            "{name:<44} {} {:8.4} fsyncs",
            sample.end(events),
            count as f64 / f64::from(events)
        );
    }

    /// Takes the time of commits.
    async fn time(&mut self, when: &str) {
        let timer = Clock::system();
        let stream = name_of_outbox();
        let mut times = Vec::new();
        for _ in 0..TIMED {
            let entries = self.batch(64, &stream);
            let started = timer.now();
            let rows = self.commit(entries).await;
            times.push(timer.now() - started);
            self.ledger.confirmed(rows);
        }
        say(when, times);
    }

    /// Takes the time of commits for as long as it takes to drop the oldest bucket.
    async fn time_drop(&mut self) {
        let timer = Clock::system();
        let store = self.store.clone();
        let late = self.clock.wall().after(BUCKET);
        let dropped = tokio::spawn(async move { store.expire(late, Duration::ZERO).await });
        let stream = name_of_outbox();
        let mut times = Vec::new();
        while !dropped.is_finished() || times.len() < 200 {
            let entries = self.batch(64, &stream);
            let started = timer.now();
            let rows = self.commit(entries).await;
            times.push(timer.now() - started);
            self.ledger.confirmed(rows);
        }
        let dropped = dropped.await.expect("it ends").expect("the ledger answers");
        say(&format!("while {dropped} buckets are dropped"), times);
    }
}

/// A consumer that reads the stream that it writes.
struct Reader {
    source: Box<dyn broker::Source>,
    settle: Arc<dyn broker::Settle>,
    log: Name,
}

impl Reader {
    /// Opens the stream with one batch in it.
    async fn open(host: &Host, batch: u64) -> Self {
        let plan = plan::Broker {
            name: name("embedded"),
            kind: BrokerKind::Embedded,
        };
        let stream = Arc::new(plan::Stream {
            name: name("log"),
            broker: Arc::new(plan.clone()),
            place: Place::Log(KEEP),
            mode: ContentMode::Binary,
            mapping: None,
        });
        let subscription = Subscription {
            consumer: name(&format!("of-{batch}")),
            stream: stream.clone(),
            room: ROOM,
        };
        let logs = broker::embedded::open(host.store.clone(), &plan, host.clock.clone());
        let subscribed = logs.subscribe(subscription).await.expect("the log opens");
        let mut source = subscribed.source;
        // What is there already was for another size.
        let mut there = usize::MAX;
        while there > 0 {
            let given = source.next(ROOM).await.expect("the log is read");
            there = given.len();
            settle(&subscribed.settle, given.into_iter().map(|delivery| delivery.receipt)).await;
        }
        let publisher = logs.publisher(stream).await.expect("the log takes more");
        let first = (0..batch).map(|number| broker::Outgoing {
            id: format!("{batch}-{number}").into(),
            key: Arc::from(*b"any"),
            message: message(number),
        });
        publisher.publish(first.collect()).await;
        Self {
            source,
            settle: subscribed.settle,
            log: name("log"),
        }
    }

    /// Reads events, commits them with an output each onto the stream itself, and settles them.
    async fn run_log(&mut self, host: &mut Host, batch: u64, events: u32) {
        let batches: Vec<_> = (0..u64::from(events) / batch)
            .map(|_| host.batch(batch, &self.log))
            .collect();
        let sample = Sample::start();
        for entries in batches {
            let mut receipts = Vec::new();
            while receipts.len() < entries.len() {
                let given = self.source.next(ROOM).await.expect("the log is read");
                receipts.extend(given.into_iter().map(|delivery| delivery.receipt));
            }
            host.commit(entries).await;
            settle(&self.settle, receipts.into_iter()).await;
        }
        // As the host does every few seconds.
        let trimmed = host.store.trim(&self.log, &KEEP, host.clock.wall()).await;
        trimmed.expect("the log is trimmed");
        println!(
            "{:<44} {}",
            format!("embedded to embedded, batches of {batch}"),
            sample.end(events)
        );
    }
}

const ROOM: Room = Room {
    count: 1_000,
    bytes: 1 << 20,
};

const KEEP: Log = Log {
    age_max: None,
    bytes_max: 1 << 20,
};

async fn settle(settle: &Arc<dyn broker::Settle>, receipts: impl Iterator<Item = Receipt>) {
    let settled = receipts.map(|receipt| (receipt, Settlement::Done)).collect();
    settle.settle(settled).await.expect("it settles");
}

fn remembered(number: u64) -> Entry {
    entry(number, Vec::new())
}

fn entry(number: u64, outputs: Vec<Output>) -> Entry {
    Entry {
        consumer: name("biller"),
        record: record(number),
        payload: PayloadHash(number),
        lane: lane(number),
        parked: None,
        change: Change::Applied(Effects {
            outputs,
            ..Effects::default()
        }),
    }
}

/// As random as a hash, and cheaper.
fn record(number: u64) -> RecordKey {
    let mut bits = u128::from(number).wrapping_mul(0x2360_ed05_1fc6_5da4_4385_df64_9fcc_f645);
    bits = (bits ^ (bits >> 64)).wrapping_mul(0x2360_ed05_1fc6_5da4_4385_df64_9fcc_f645);
    RecordKey((bits ^ (bits >> 64)).to_be_bytes())
}

fn lane(number: u64) -> LaneKey {
    LaneKey(format!("customer-{}", number % LANES).into_bytes().into())
}

fn output(number: u64, stream: &Name) -> Output {
    Output {
        id: record(number).output_id(0).into(),
        stream: stream.clone(),
        key: lane(number),
        message: message(number),
    }
}

/// An event of about 400 bytes: 256 of data, the rest attributes.
fn message(number: u64) -> Message {
    let mut headers = Headers::default();
    for (name, value) in [
        ("ce-specversion", "1.0"),
        ("ce-source", "/shops/berlin"),
        ("ce-type", "shop.order.placed"),
        ("ce-time", "2026-11-24T09:00:00Z"),
        ("content-type", "application/json"),
    ] {
        headers.push(name, Bytes::from_static(value.as_bytes()));
    }
    headers.push("ce-id", Bytes::from(format!("order-{number:010}")));
    Message {
        subject: "orders.berlin".to_owned(),
        headers,
        payload: Bytes::from(vec![b' '; 256]),
    }
}

fn name(text: &str) -> Name {
    Name::new(text).expect("it is a name")
}

fn name_of_outbox() -> Name {
    name("invoices")
}

fn say(when: &str, mut times: Vec<Duration>) {
    times.sort_unstable();
    let at = |percent: usize| {
        times
            .get(times.len() * percent / 100)
            .map_or(f64::NAN, |time| time.as_secs_f64() * 1_000.0)
    };
    println!(
        "a commit of 64 {when}: p50 {:.2} ms, p99 {:.2} ms, of {}",
        at(50),
        at(99),
        times.len()
    );
}

fn per(bytes: u64, count: u64) -> String {
    format!("{:.1}", bytes as f64 / count as f64)
}

/// Memory of this process.
fn resident_bytes() -> u64 {
    let mut system = System::new().expect("the system tells about its processes");
    let me = Pid::from_u32(std::process::id());
    let memory = ProcessRefreshKind::nothing().with_memory();
    system.refresh_processes_specifics(ProcessesToUpdate::Some(&[me]), false, memory);
    system.process(me).expect("this process is one").memory()
}

/// Bytes in a folder and below, without the journals: those are bounded, whatever is remembered.
fn disk_bytes(folder: &Path) -> u64 {
    let entries = std::fs::read_dir(folder).expect("the folder is there");
    let bytes = entries.map(|entry| {
        let path = entry.expect("the folder is read").path();
        match path.is_dir() {
            true => disk_bytes(&path),
            false if path.extension().is_some_and(|extension| extension == "jnl") => 0,
            false => path.metadata().map_or(0, |metadata| metadata.len()),
        }
    });
    bytes.sum()
}
