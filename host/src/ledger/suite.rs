//! What every ledger must do, whatever it is built on. Each function is one promise of the traits in `ledger.rs`; [`suite`]
//! makes a test of each.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;

use super::*;
use crate::clock::Timestamp;
use crate::event::key::LaneKey;
use crate::outcome::{Class, Failure};

/// A ledger's four sides.
pub(crate) struct Sides {
    pub(crate) ledger: Arc<dyn Ledger>,
    pub(crate) outbox: Arc<dyn Outbox>,
    pub(crate) parking: Arc<dyn Parking>,
    pub(crate) letters: Arc<dyn DeadLetters>,
}

/// How a ledger is stopped.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stop {
    /// As at a drain.
    Clean,
    /// As if the process were killed.
    Crash,
}

/// A ledger under test.
pub(crate) trait Subject: Send {
    /// Opens it: the same one each time.
    fn open(&mut self) -> BoxFuture<'_, Sides>;

    /// Stops it; every handle is gone by now.
    fn stop(&mut self, stop: Stop) -> BoxFuture<'_, ()>;

    /// Lets the retention of everything that is recorded pass, and expires it.
    fn outlive(&mut self) -> BoxFuture<'_, ()>;

    /// Records that an event took effect, whatever else is known of it.
    fn finish_elsewhere(&mut self, record: RecordKey, payload: PayloadHash) -> BoxFuture<'_, ()>;
}

/// Makes a test of each promise.
macro_rules! suite {
    ($subject:expr; $($promise:ident)*) => { $(
        #[tokio::test]
        async fn $promise() {
            crate::ledger::suite::$promise(&mut $subject).await;
        }
    )* };
    ($subject:expr) => { crate::ledger::suite::suite! { $subject;
        applied_once
        twice_in_one_write_is_applied_once
        of_two_writers_one_wins
        everything_of_an_entry_survives_a_crash
        a_refused_entry_writes_nothing
        a_read_that_is_stale_conflicts
        entries_of_one_write_see_each_other
        deleted_state_has_version_zero
        counters_merge_and_saturate
        state_keys_are_listed_in_order
        buckets_and_consumers_do_not_share_state
        outbox_rows_ascend_across_restarts
        confirmed_rows_are_forgotten
        rows_confirmed_bit_by_bit_are_forgotten
        large_outputs_of_one_write_come_back_page_by_page
        failed_attempts_survive_and_end_with_success
        starts_are_counted_across_crashes
        a_parked_lane_keeps_its_order
        parked_twice_is_refused
        a_parked_event_runs_from_its_place_only
        attempts_of_a_parked_event_survive
        a_dead_letter_keeps_everything
        a_dead_event_is_done
        dead_letters_are_listed_oldest_first
        a_list_goes_on_where_it_was_whatever_vanishes
        events_applied_meanwhile_are_counted
        a_held_lane_waits_for_its_letter
        a_redriven_event_runs_and_its_letter_is_gone
        a_redriven_event_that_dies_again_is_one_letter
        redriving_twice_parks_once
        without_a_hold_a_redriven_event_goes_behind
        a_purged_letter_frees_its_lane_and_never_runs
        purging_takes_a_redriven_event_out_again
        a_conflict_is_a_letter_beside_its_event
        a_refused_output_is_never_redriven
        marks_are_suspect_only_after_a_crash
        records_are_forgotten_after_the_retention
        what_is_parked_is_never_forgotten
        what_is_being_tried_is_forgotten_a_retention_later
        an_event_that_is_done_already_leaves_the_parking
    } };
}
pub(crate) use suite;

pub(crate) fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

fn key(number: u8) -> RecordKey {
    RecordKey([number; 16])
}

fn lane(text: &str) -> LaneKey {
    LaneKey(text.as_bytes().into())
}

fn message(text: &str) -> Message {
    let mut message = Message {
        subject: format!("orders.{text}"),
        payload: Bytes::from(text.to_owned()),
        ..Message::default()
    };
    message.headers.push("ce-id", text);
    message
}

pub(crate) fn output(id: &str, stream: &str) -> Output {
    Output {
        id: id.into(),
        stream: name(stream),
        key: lane("a"),
        message: message(id),
    }
}

pub(crate) fn entry(number: u8, change: Change) -> Entry {
    Entry {
        consumer: name("inventory"),
        record: key(number),
        payload: PayloadHash(u64::from(number)),
        lane: lane("a"),
        parked: None,
        change,
    }
}

fn from_parking(number: u8, parked: ParkedId, change: Change) -> Entry {
    Entry {
        parked: Some(parked),
        ..entry(number, change)
    }
}

pub(crate) fn applied(number: u8) -> Entry {
    entry(number, Change::Applied(Effects::default()))
}

fn parked(number: u8) -> Entry {
    let message = Box::new(message(&number.to_string()));
    entry(number, Change::Parked(message, Position(number.into())))
}

pub(crate) fn letter(number: u8, reason: Reason) -> DeadLetter {
    DeadLetter {
        id: key(number),
        consumer: name("inventory"),
        stream: name("orders"),
        position: Position(number.into()),
        reason,
        detail: format!("event {number}\nwas no good"),
        revision: "sha256:1".to_owned(),
        lane: lane("a"),
        event: Some(("/shop".to_owned(), number.to_string())),
        kind: Some("order.placed".to_owned()),
        message: message(&number.to_string()),
        attempts: history(2).attempts,
        failed: 2,
        first_at: Timestamp(1000),
        last_at: Timestamp(2000),
        applied_meanwhile: 0,
        redriving: false,
    }
}

fn dead(number: u8, hold: bool) -> Entry {
    let change = Change::Dead {
        letter: Box::new(letter(number, Reason::Permanent)),
        publish: None,
        hold,
    };
    entry(number, change)
}

fn failing(failed: u32, started: u32) -> Known {
    let history = Box::new(history(failed));
    Known::Failing { history, started }
}

fn history(failed: u32) -> History {
    let attempt = |number| Attempt {
        number,
        at: Timestamp(1000),
        duration: Duration::from_millis(3),
        memory: 65536,
        revision: "sha256:1".to_owned(),
        failure: Failure {
            class: Class::Trap,
            message: "unreachable".to_owned(),
            backtrace: vec!["handle".to_owned()],
            retry_after: Some(Duration::from_secs(1)),
        },
    };
    History {
        failed,
        attempts: (1..=failed).map(attempt).collect(),
        next_at: Timestamp(5000),
    }
}

fn state(key: &str) -> StateKey {
    state_of("inventory", "default", key)
}

fn state_of(consumer: &str, bucket: &str, key: &str) -> StateKey {
    StateKey {
        bucket: StateBucket {
            consumer: name(consumer),
            bucket: bucket.into(),
        },
        key: key.into(),
    }
}

fn writes(number: u8, writes: Vec<StateWrite>) -> Entry {
    let effects = Effects {
        writes,
        ..Effects::default()
    };
    entry(number, Change::Applied(effects))
}

fn set(key: &str, value: &str) -> StateWrite {
    StateWrite::Set(state(key), Bytes::from(value.to_owned()))
}

fn reads(number: u8, reads: impl IntoIterator<Item = (StateKey, Version)>) -> Entry {
    let effects = Effects {
        reads: reads.into_iter().collect::<BTreeSet<_>>(),
        writes: vec![set("stock", "read")],
        outputs: vec![output("o", "stock")],
    };
    entry(number, Change::Applied(effects))
}

impl Sides {
    async fn write(&self, entry: Entry) -> Result<Written, Refused> {
        self.write_all(vec![entry]).await.remove(0)
    }

    pub(crate) async fn write_all(&self, entries: Vec<Entry>) -> Vec<Result<Written, Refused>> {
        self.ledger.write(Arc::new(entries)).await.unwrap()
    }

    async fn known(&self, number: u8) -> Known {
        self.ledger.look_up(vec![key(number)]).await.unwrap().remove(0)
    }

    async fn value(&self, key: &str) -> Option<String> {
        let read = self.ledger.read_state(&state(key)).await.unwrap();
        read.value.map(|value| String::from_utf8(value.to_vec()).unwrap())
    }

    async fn version(&self, key: &str) -> Version {
        self.ledger.read_state(&state(key)).await.unwrap().version
    }

    async fn pending(&self) -> Vec<Row> {
        self.outbox.pending(None, 100).await.unwrap()
    }

    async fn lanes(&self) -> Vec<ParkedLane> {
        self.parking.lanes(&name("inventory")).await.unwrap()
    }

    async fn waiting(&self) -> Vec<ParkedEvent> {
        self.parking.first(&name("inventory"), &lane("a"), 100).await.unwrap()
    }

    async fn all_letters(&self) -> Vec<DeadLetter> {
        let page = self.letters.list(&DeadFilter::default(), None, 100).await.unwrap();
        assert_eq!(page.next, None);
        page.letters
    }
}

async fn reopen(subject: &mut dyn Subject, sides: Sides, stop: Stop) -> Sides {
    drop(sides);
    subject.stop(stop).await;
    subject.open().await
}

pub(crate) async fn applied_once(subject: &mut dyn Subject) {
    let sides = subject.open().await;
    assert_eq!(sides.known(1).await, Known::New);
    assert_eq!(sides.write(applied(1)).await, Ok(Written::default()));
    assert_eq!(sides.known(1).await, Known::Done(PayloadHash(1)));
    assert_eq!(sides.write(applied(1)).await, Err(Refused::Done(PayloadHash(1))));
    let many = (0..200).map(key).collect();
    let known = sides.ledger.look_up(many).await.unwrap();
    assert_eq!(known[1], Known::Done(PayloadHash(1)));
    assert_eq!(known.iter().filter(|known| **known == Known::New).count(), 199);
}

pub(crate) async fn twice_in_one_write_is_applied_once(subject: &mut dyn Subject) {
    let sides = subject.open().await;
    let entries = vec![
        writes(1, vec![set("stock", "1")]),
        writes(1, vec![set("stock", "2")]),
        applied(2),
    ];
    let written = sides.write_all(entries).await;
    assert_eq!(written[0], Ok(Written::default()));
    assert_eq!(written[1], Err(Refused::Done(PayloadHash(1))));
    assert_eq!(written[2], Ok(Written::default()));
    assert_eq!(sides.value("stock").await.as_deref(), Some("1"));
}

pub(crate) async fn of_two_writers_one_wins(subject: &mut dyn Subject) {
    let sides = Arc::new(subject.open().await);
    let writers = (0..20).map(|_| {
        let sides = sides.clone();
        tokio::spawn(async move { sides.write(writes(1, vec![StateWrite::Add(state("count"), 1)])).await })
    });
    let mut won = 0;
    for writer in writers.collect::<Vec<_>>() {
        match writer.await.unwrap() {
            Ok(_) => won += 1,
            Err(refused) => assert_eq!(refused, Refused::Done(PayloadHash(1))),
        }
    }
    assert_eq!(won, 1);
    assert_eq!(sides.value("count").await.as_deref(), Some("1"));
}

pub(crate) async fn everything_of_an_entry_survives_a_crash(subject: &mut dyn Subject) {
    let mut sides = subject.open().await;
    let effects = Effects {
        writes: vec![set("stock", "7")],
        outputs: vec![output("1-0", "stock"), output("1-1", "bus")],
        ..Effects::default()
    };
    let written = sides.write(entry(1, Change::Applied(effects))).await.unwrap();
    assert_eq!(written.rows.len(), 2);
    for stop in [Stop::Crash, Stop::Clean] {
        sides = reopen(subject, sides, stop).await;
        assert_eq!(sides.known(1).await, Known::Done(PayloadHash(1)));
        assert_eq!(sides.value("stock").await.as_deref(), Some("7"));
        let pending = sides.pending().await;
        let ids: Vec<_> = pending.iter().map(|row| row.id).collect();
        assert_eq!(ids, written.rows);
        assert_eq!(pending[0].output, output("1-0", "stock"));
        assert_eq!(pending[1].output, output("1-1", "bus"));
        assert_eq!(pending[0].consumer, name("inventory"));
    }
}

pub(crate) async fn a_refused_entry_writes_nothing(subject: &mut dyn Subject) {
    let sides = subject.open().await;
    sides.write(applied(1)).await.unwrap();
    let effects = Effects {
        writes: vec![set("stock", "9")],
        outputs: vec![output("1-0", "stock")],
        ..Effects::default()
    };
    let again = entry(1, Change::Applied(effects));
    assert_eq!(sides.write(again).await, Err(Refused::Done(PayloadHash(1))));
    assert_eq!(sides.write(dead(1, true)).await, Err(Refused::Done(PayloadHash(1))));
    assert_eq!(sides.write(parked(1)).await, Err(Refused::Done(PayloadHash(1))));
    let failed = entry(1, Change::Failed(Box::new(history(1))));
    assert_eq!(sides.write(failed).await, Err(Refused::Done(PayloadHash(1))));
    assert_eq!(sides.value("stock").await, None);
    assert_eq!(sides.pending().await, []);
    assert_eq!(sides.lanes().await, []);
    assert_eq!(sides.all_letters().await, []);
}

pub(crate) async fn a_read_that_is_stale_conflicts(subject: &mut dyn Subject) {
    let sides = subject.open().await;
    let absent = sides.version("stock").await;
    assert_eq!(absent, Version(0));
    sides.write(writes(1, vec![set("stock", "1")])).await.unwrap();
    let stale = sides.write(reads(2, [(state("stock"), absent)])).await;
    assert_eq!(stale, Err(Refused::Conflict));
    assert_eq!(sides.known(2).await, Known::New);
    assert_eq!(sides.pending().await, []);
    let version = sides.version("stock").await;
    assert_ne!(version, absent);
    sides.write(reads(2, [(state("stock"), version)])).await.unwrap();
    assert_ne!(sides.version("stock").await, version);
}

pub(crate) async fn entries_of_one_write_see_each_other(subject: &mut dyn Subject) {
    let sides = subject.open().await;
    let entries = vec![
        writes(1, vec![set("stock", "1")]),
        reads(2, [(state("stock"), Version(0))]),
        parked(3),
        parked(3),
    ];
    let written = sides.write_all(entries).await;
    assert!(written[0].is_ok());
    assert_eq!(written[1], Err(Refused::Conflict));
    assert!(written[2].is_ok());
    assert_eq!(written[3], Err(Refused::Parked(PayloadHash(3))));
}

pub(crate) async fn deleted_state_has_version_zero(subject: &mut dyn Subject) {
    let sides = subject.open().await;
    let both = vec![set("stock", "1"), StateWrite::Delete(state("stock")), set("left", "")];
    sides.write(writes(1, both)).await.unwrap();
    assert_eq!(sides.value("stock").await, None);
    assert_eq!(sides.version("stock").await, Version(0));
    assert_eq!(sides.value("left").await.as_deref(), Some(""));
    sides
        .write(writes(2, vec![StateWrite::Delete(state("left"))]))
        .await
        .unwrap();
    assert_eq!(sides.version("left").await, Version(0));
}

pub(crate) async fn counters_merge_and_saturate(subject: &mut dyn Subject) {
    let sides = subject.open().await;
    let add = |delta| StateWrite::Add(state("count"), delta);
    let entries = vec![writes(1, vec![add(2), add(3)]), writes(2, vec![add(-1)])];
    assert!(sides.write_all(entries).await.iter().all(Result::is_ok));
    assert_eq!(sides.value("count").await.as_deref(), Some("4"));
    sides.write(writes(3, vec![add(i64::MAX)])).await.unwrap();
    assert_eq!(sides.value("count").await, Some(i64::MAX.to_string()));
    let entry = writes(4, vec![set("count", "many"), add(1)]);
    sides.write(entry).await.unwrap();
    assert_eq!(sides.value("count").await.as_deref(), Some("1"));
}

pub(crate) async fn state_keys_are_listed_in_order(subject: &mut dyn Subject) {
    let sides = subject.open().await;
    let keys = ["b", "a", "c", "\u{e9}", "aa"].map(|key| set(key, "x"));
    sides.write(writes(1, keys.to_vec())).await.unwrap();
    let bucket = state("a").bucket;
    let list = |after, limit| sides.ledger.list_state(&bucket, after, limit);
    assert_eq!(list(None, 3).await.unwrap(), ["a", "aa", "b"]);
    assert_eq!(list(Some("b"), 10).await.unwrap(), ["c", "\u{e9}"]);
    assert_eq!(list(Some("az"), 1).await.unwrap(), ["b"]);
}

pub(crate) async fn buckets_and_consumers_do_not_share_state(subject: &mut dyn Subject) {
    let sides = subject.open().await;
    let places = [("inventory", "default"), ("inventory", "d"), ("invent", "default")];
    let all = places.map(|(consumer, bucket)| {
        let value = Bytes::from(format!("{consumer}/{bucket}"));
        StateWrite::Set(state_of(consumer, bucket, "key"), value)
    });
    sides.write(writes(1, all.to_vec())).await.unwrap();
    for (consumer, bucket) in places {
        let key = state_of(consumer, bucket, "key");
        let read = sides.ledger.read_state(&key).await.unwrap();
        assert_eq!(read.value.unwrap(), format!("{consumer}/{bucket}").as_bytes());
        let list = sides.ledger.list_state(&key.bucket, None, 10).await.unwrap();
        assert_eq!(list, ["key"]);
    }
}

fn emits(number: u8, outputs: usize) -> Entry {
    let output = |index| output(&format!("{number}-{index}"), "stock");
    let effects = Effects {
        outputs: (0..outputs).map(output).collect(),
        ..Effects::default()
    };
    entry(number, Change::Applied(effects))
}

pub(crate) async fn outbox_rows_ascend_across_restarts(subject: &mut dyn Subject) {
    let mut sides = subject.open().await;
    let mut rows = Vec::new();
    for (number, stop) in [(1, Stop::Crash), (2, Stop::Clean), (3, Stop::Crash)] {
        rows.extend(sides.write(emits(number, 2)).await.unwrap().rows);
        sides = reopen(subject, sides, stop).await;
    }
    assert!(rows.is_sorted_by(|a, b| a < b));
    let pending = sides.pending().await;
    assert_eq!(pending.iter().map(|row| row.id).collect::<Vec<_>>(), rows);
    let ids: Vec<_> = pending.iter().map(|row| &*row.output.id).collect();
    assert_eq!(ids, ["1-0", "1-1", "2-0", "2-1", "3-0", "3-1"]);
    let after = sides.outbox.pending(Some(rows[3]), 1).await.unwrap();
    assert_eq!(&*after[0].output.id, "3-0");
    assert_eq!(after.len(), 1);
}

pub(crate) async fn confirmed_rows_are_forgotten(subject: &mut dyn Subject) {
    let sides = subject.open().await;
    let rows = sides.write(emits(1, 3)).await.unwrap().rows;
    sides.outbox.confirmed(vec![rows[0], rows[2]]);
    let sides = reopen(subject, sides, Stop::Clean).await;
    let pending = sides.pending().await;
    assert_eq!(pending.iter().map(|row| row.id).collect::<Vec<_>>(), [rows[1]]);
}

pub(crate) async fn rows_confirmed_bit_by_bit_are_forgotten(subject: &mut dyn Subject) {
    let mut sides = subject.open().await;
    let rows = sides.write(emits(1, 5)).await.unwrap().rows;
    for (number, confirmed) in [(2, rows[3]), (3, rows[0])] {
        sides.outbox.confirmed(vec![confirmed]);
        // What was confirmed before a write is forgotten with it.
        sides.write(applied(number)).await.unwrap();
        sides = reopen(subject, sides, Stop::Crash).await;
        assert!(!ids(&sides.pending().await).contains(&confirmed));
    }
    assert_eq!(ids(&sides.pending().await), [rows[1], rows[2], rows[4]]);
    assert_eq!(ids(&sides.outbox.pending(Some(rows[1]), 1).await.unwrap()), [rows[2]]);
    sides.outbox.confirmed(vec![rows[1], rows[2], rows[4]]);
    sides.write(applied(4)).await.unwrap();
    let sides = reopen(subject, sides, Stop::Crash).await;
    assert_eq!(ids(&sides.pending().await), []);
}

pub(crate) async fn large_outputs_of_one_write_come_back_page_by_page(subject: &mut dyn Subject) {
    let sides = subject.open().await;
    let mut large = emits(1, 9);
    if let Change::Applied(effects) = &mut large.change {
        for output in &mut effects.outputs {
            output.message.payload = vec![b'x'; 100 * 1_024].into();
        }
    }
    let rows = sides.write(large).await.unwrap().rows;
    sides.outbox.confirmed(vec![rows[2], rows[5]]);
    let sides = reopen(subject, sides, Stop::Clean).await;
    let left: Vec<RowId> = rows
        .iter()
        .copied()
        .filter(|id| ![rows[2], rows[5]].contains(id))
        .collect();
    let (mut found, mut after) = (Vec::new(), None);
    loop {
        let page = sides.outbox.pending(after, 2).await.unwrap();
        assert!(page.iter().all(|row| row.output.message.payload.len() == 100 * 1_024));
        let Some(last) = page.last() else { break };
        after = Some(last.id);
        found.extend(ids(&page));
    }
    assert_eq!(found, left);
}

fn ids(rows: &[Row]) -> Vec<RowId> {
    rows.iter().map(|row| row.id).collect()
}

pub(crate) async fn failed_attempts_survive_and_end_with_success(subject: &mut dyn Subject) {
    let mut sides = subject.open().await;
    for failed in 1..=2 {
        let change = Change::Failed(Box::new(history(failed)));
        sides.write(entry(1, change)).await.unwrap();
        sides = reopen(subject, sides, Stop::Crash).await;
        assert_eq!(sides.known(1).await, failing(failed, 0));
    }
    sides.write(applied(1)).await.unwrap();
    assert_eq!(sides.known(1).await, Known::Done(PayloadHash(1)));
}

pub(crate) async fn starts_are_counted_across_crashes(subject: &mut dyn Subject) {
    let mut sides = subject.open().await;
    for count in 1..=3 {
        let written = sides.write(entry(1, Change::Started)).await.unwrap();
        assert_eq!(written.started, count);
        sides = reopen(subject, sides, Stop::Crash).await;
        assert_eq!(sides.known(1).await, Known::Started(count));
    }
    // An attempt that ended did not kill the host.
    let failed = entry(1, Change::Failed(Box::new(history(1))));
    sides.write(failed).await.unwrap();
    let written = sides.write(entry(1, Change::Started)).await.unwrap();
    assert_eq!(written.started, 1);
    assert_eq!(sides.known(1).await, failing(1, 1));
}

pub(crate) async fn a_parked_lane_keeps_its_order(subject: &mut dyn Subject) {
    let sides = subject.open().await;
    for number in [3, 1, 2] {
        sides.write(parked(number)).await.unwrap();
    }
    let sides = reopen(subject, sides, Stop::Crash).await;
    assert_eq!(sides.known(1).await, Known::Parked(PayloadHash(1)));
    let waiting = sides.waiting().await;
    assert!(waiting.is_sorted_by(|a, b| a.id < b.id));
    let records: Vec<_> = waiting.iter().map(|event| event.record).collect();
    assert_eq!(records, [key(3), key(1), key(2)]);
    assert_eq!(waiting[0].message, message("3"));
    assert_eq!(waiting[0].position, Position(3));
    let lanes = sides.lanes().await;
    let expected = ParkedLane {
        lane: lane("a"),
        waiting: 3,
        held_by: None,
    };
    assert_eq!(lanes, [expected]);
    let other = sides.parking.lanes(&name("invent")).await.unwrap();
    assert_eq!(other, []);
    let first = sides.parking.first(&name("inventory"), &lane("a"), 1).await.unwrap();
    assert_eq!(first.len(), 1);
    let prefix = sides.parking.first(&name("inventory"), &lane(""), 9).await.unwrap();
    assert_eq!(prefix, []);
}

pub(crate) async fn parked_twice_is_refused(subject: &mut dyn Subject) {
    let sides = subject.open().await;
    sides.write(parked(1)).await.unwrap();
    assert_eq!(sides.write(parked(1)).await, Err(Refused::Parked(PayloadHash(1))));
    assert_eq!(sides.waiting().await.len(), 1);
}

pub(crate) async fn a_parked_event_runs_from_its_place_only(subject: &mut dyn Subject) {
    let sides = subject.open().await;
    sides.write(parked(1)).await.unwrap();
    sides.write(parked(2)).await.unwrap();
    let place = sides.waiting().await[0].id;
    assert_eq!(sides.write(applied(1)).await, Err(Refused::Parked(PayloadHash(1))));
    let effects = || Change::Applied(Effects::default());
    let elsewhere = from_parking(1, ParkedId(place.0 + 100), effects());
    assert_eq!(sides.write(elsewhere).await, Err(Refused::Parked(PayloadHash(1))));
    sides.write(from_parking(1, place, effects())).await.unwrap();
    assert_eq!(sides.known(1).await, Known::Done(PayloadHash(1)));
    assert_eq!(sides.waiting().await.len(), 1);
    assert_eq!(sides.lanes().await[0].waiting, 1);
    let again = sides.write(from_parking(1, place, effects())).await;
    assert_eq!(again, Err(Refused::Done(PayloadHash(1))));
    let place = sides.waiting().await[0].id;
    sides.write(from_parking(2, place, effects())).await.unwrap();
    assert_eq!(sides.lanes().await, []);
}

pub(crate) async fn attempts_of_a_parked_event_survive(subject: &mut dyn Subject) {
    let sides = subject.open().await;
    let failed = |failed| Change::Failed(Box::new(history(failed)));
    sides.write(entry(1, failed(1))).await.unwrap();
    sides.write(parked(1)).await.unwrap();
    let place = sides.waiting().await[0].id;
    sides.write(from_parking(1, place, failed(2))).await.unwrap();
    sides.write(from_parking(1, place, Change::Started)).await.unwrap();
    let sides = reopen(subject, sides, Stop::Crash).await;
    assert_eq!(sides.known(1).await, Known::Parked(PayloadHash(1)));
    let event = sides.waiting().await.remove(0);
    assert_eq!(event.history, Some(Box::new(history(2))));
    assert_eq!(event.started, 1);
}

pub(crate) async fn a_dead_letter_keeps_everything(subject: &mut dyn Subject) {
    let sides = subject.open().await;
    let change = Change::Dead {
        letter: Box::new(letter(1, Reason::AttemptsExhausted)),
        publish: Some(output("1-dead", "orders-dead")),
        hold: false,
    };
    let written = sides.write(entry(1, change)).await.unwrap();
    assert_eq!(written.rows.len(), 1);
    let sides = reopen(subject, sides, Stop::Crash).await;
    let kept = sides.letters.get(key(1)).await.unwrap();
    assert_eq!(kept, Some(letter(1, Reason::AttemptsExhausted)));
    assert_eq!(sides.pending().await[0].output, output("1-dead", "orders-dead"));
    let count = sides.letters.count().await.unwrap();
    assert_eq!(count, [(name("inventory"), Reason::AttemptsExhausted, 1)]);
    assert_eq!(sides.lanes().await, []);
}

pub(crate) async fn a_dead_event_is_done(subject: &mut dyn Subject) {
    let sides = subject.open().await;
    sides.write(dead(1, false)).await.unwrap();
    assert_eq!(sides.known(1).await, Known::Done(PayloadHash(1)));
    assert_eq!(sides.write(applied(1)).await, Err(Refused::Done(PayloadHash(1))));
    assert_eq!(sides.write(dead(1, false)).await, Err(Refused::Done(PayloadHash(1))));
    assert_eq!(sides.all_letters().await.len(), 1);
}

pub(crate) async fn dead_letters_are_listed_oldest_first(subject: &mut dyn Subject) {
    let sides = subject.open().await;
    for (number, reason) in [(9, Reason::Trap), (1, Reason::NoKey), (5, Reason::Trap)] {
        let change = Change::Dead {
            letter: Box::new(letter(number, reason)),
            publish: None,
            hold: false,
        };
        sides.write(entry(number, change)).await.unwrap();
    }
    let all = sides.all_letters().await;
    let ids = |letters: &[DeadLetter]| letters.iter().map(|letter| letter.id).collect::<Vec<_>>();
    assert_eq!(ids(&all), [key(9), key(1), key(5)]);
    let list = |filter: DeadFilter, after, limit| {
        let letters = sides.letters.clone();
        async move { letters.list(&filter, after, limit).await.unwrap() }
    };
    let traps = DeadFilter {
        reason: Some(Reason::Trap),
        ..DeadFilter::default()
    };
    let page = list(traps.clone(), None, 1).await;
    assert_eq!(ids(&page.letters), [key(9)]);
    let page = list(traps, page.next, 5).await;
    assert_eq!((ids(&page.letters), page.next), (vec![key(5)], None));
    let others = DeadFilter {
        consumer: Some(name("billing")),
        ..DeadFilter::default()
    };
    assert_eq!(list(others, None, 5).await, DeadPage::default());
    let mut count = sides.letters.count().await.unwrap();
    count.sort();
    let mut expected = vec![
        (name("inventory"), Reason::Trap, 2),
        (name("inventory"), Reason::NoKey, 1),
    ];
    expected.sort();
    assert_eq!(count, expected);
}

/// It once began anew when the last letter of a page was gone.
pub(crate) async fn a_list_goes_on_where_it_was_whatever_vanishes(subject: &mut dyn Subject) {
    let sides = subject.open().await;
    for number in 1..=5 {
        sides.write(dead(number, false)).await.unwrap();
    }
    let list = |after| {
        let letters = sides.letters.clone();
        async move { letters.list(&DeadFilter::default(), after, 2).await.unwrap() }
    };
    let ids = |page: &DeadPage| page.letters.iter().map(|letter| letter.id).collect::<Vec<_>>();
    let first = list(None).await;
    assert_eq!(ids(&first), [key(1), key(2)]);
    sides.letters.purge(vec![key(2), key(3)]).await.unwrap();
    // One that dies again comes again, behind the others.
    sides.letters.redrive(vec![key(4)]).await.unwrap();
    let Change::Dead { letter, publish, hold } = dead(4, false).change else {
        unreachable!()
    };
    let again = from_parking(4, sides.waiting().await[0].id, Change::Dead { letter, publish, hold });
    sides.write(again).await.unwrap();
    let second = list(first.next).await;
    assert_eq!((ids(&second), second.next), (vec![key(5), key(4)], None));
}

pub(crate) async fn events_applied_meanwhile_are_counted(subject: &mut dyn Subject) {
    let sides = subject.open().await;
    sides.write(applied(1)).await.unwrap();
    sides.write(dead(2, false)).await.unwrap();
    sides.write_all(vec![applied(3), applied(4)]).await;
    sides.write(dead(5, false)).await.unwrap();
    let sides = reopen(subject, sides, Stop::Crash).await;
    let elsewhere = Entry {
        lane: lane("b"),
        ..applied(6)
    };
    sides.write_all(vec![applied(7), elsewhere]).await;
    let all = sides.all_letters().await;
    let meanwhile: Vec<_> = all.iter().map(|letter| letter.applied_meanwhile).collect();
    assert_eq!(meanwhile, [3, 1]);
}

pub(crate) async fn a_held_lane_waits_for_its_letter(subject: &mut dyn Subject) {
    let sides = subject.open().await;
    sides.write(dead(1, true)).await.unwrap();
    let held = |waiting| ParkedLane {
        lane: lane("a"),
        waiting,
        held_by: Some(key(1)),
    };
    assert_eq!(sides.lanes().await, [held(0)]);
    sides.write(parked(2)).await.unwrap();
    let sides = reopen(subject, sides, Stop::Crash).await;
    assert_eq!(sides.lanes().await, [held(1)]);
}

pub(crate) async fn a_redriven_event_runs_and_its_letter_is_gone(subject: &mut dyn Subject) {
    let sides = subject.open().await;
    sides.write(dead(1, true)).await.unwrap();
    sides.write(parked(2)).await.unwrap();
    let redriven = sides.letters.redrive(vec![key(1), key(99)]).await.unwrap();
    let expected = Redriven {
        id: key(1),
        consumer: name("inventory"),
        lane: lane("a"),
        applied_meanwhile: 0,
    };
    assert_eq!(redriven, [expected]);
    let sides = reopen(subject, sides, Stop::Crash).await;
    assert_eq!(sides.known(1).await, Known::Parked(PayloadHash(1)));
    assert!(sides.letters.get(key(1)).await.unwrap().unwrap().redriving);
    let waiting = sides.waiting().await;
    assert_eq!(
        waiting.iter().map(|event| event.record).collect::<Vec<_>>(),
        [key(1), key(2)]
    );
    assert_eq!(waiting[0].message, message("1"));
    assert_eq!(waiting[0].position, Position(1));
    let run = from_parking(1, waiting[0].id, Change::Applied(Effects::default()));
    sides.write(run).await.unwrap();
    assert_eq!(sides.known(1).await, Known::Done(PayloadHash(1)));
    assert_eq!(sides.all_letters().await, []);
    assert_eq!(sides.letters.count().await.unwrap(), []);
    let freed = ParkedLane {
        lane: lane("a"),
        waiting: 1,
        held_by: None,
    };
    assert_eq!(sides.lanes().await, [freed]);
}

pub(crate) async fn a_redriven_event_that_dies_again_is_one_letter(subject: &mut dyn Subject) {
    let sides = subject.open().await;
    sides.write(dead(1, true)).await.unwrap();
    sides.letters.redrive(vec![key(1)]).await.unwrap();
    let place = sides.waiting().await[0].id;
    let mut again = letter(1, Reason::Trap);
    again.detail = "again".to_owned();
    let change = Change::Dead {
        letter: Box::new(again.clone()),
        publish: None,
        hold: true,
    };
    sides.write(from_parking(1, place, change)).await.unwrap();
    assert_eq!(sides.all_letters().await, [again]);
    assert_eq!(sides.known(1).await, Known::Done(PayloadHash(1)));
    assert_eq!(sides.waiting().await, []);
    assert_eq!(sides.lanes().await[0].held_by, Some(key(1)));
    let count = sides.letters.count().await.unwrap();
    assert_eq!(count, [(name("inventory"), Reason::Trap, 1)]);
}

pub(crate) async fn redriving_twice_parks_once(subject: &mut dyn Subject) {
    let sides = subject.open().await;
    sides.write(dead(1, false)).await.unwrap();
    let twice = sides.letters.redrive(vec![key(1), key(1)]).await.unwrap();
    assert_eq!(twice.len(), 2);
    sides.letters.redrive(vec![key(1)]).await.unwrap();
    assert_eq!(sides.waiting().await.len(), 1);
    assert_eq!(sides.lanes().await[0].waiting, 1);
}

pub(crate) async fn without_a_hold_a_redriven_event_goes_behind(subject: &mut dyn Subject) {
    let sides = subject.open().await;
    sides.write(dead(1, false)).await.unwrap();
    sides.write(applied(2)).await.unwrap();
    sides.write(parked(3)).await.unwrap();
    let redriven = sides.letters.redrive(vec![key(1)]).await.unwrap();
    assert_eq!(redriven[0].applied_meanwhile, 1);
    let waiting = sides.waiting().await;
    assert_eq!(
        waiting.iter().map(|event| event.record).collect::<Vec<_>>(),
        [key(3), key(1)]
    );
}

pub(crate) async fn a_purged_letter_frees_its_lane_and_never_runs(subject: &mut dyn Subject) {
    let sides = subject.open().await;
    sides.write(dead(1, true)).await.unwrap();
    let purged = sides.letters.purge(vec![key(1), key(2)]).await.unwrap();
    assert_eq!(purged, [letter(1, Reason::Permanent)]);
    let sides = reopen(subject, sides, Stop::Crash).await;
    assert_eq!(sides.lanes().await, []);
    assert_eq!(sides.all_letters().await, []);
    assert_eq!(sides.known(1).await, Known::Done(PayloadHash(1)));
    assert_eq!(sides.letters.redrive(vec![key(1)]).await.unwrap(), []);
}

pub(crate) async fn purging_takes_a_redriven_event_out_again(subject: &mut dyn Subject) {
    let sides = subject.open().await;
    sides.write(dead(1, true)).await.unwrap();
    sides.letters.redrive(vec![key(1)]).await.unwrap();
    let place = sides.waiting().await[0].id;
    sides.letters.purge(vec![key(1)]).await.unwrap();
    assert_eq!(sides.waiting().await, []);
    assert_eq!(sides.lanes().await, []);
    let run = from_parking(1, place, Change::Applied(Effects::default()));
    assert_eq!(sides.write(run).await, Err(Refused::Done(PayloadHash(1))));
}

pub(crate) async fn a_conflict_is_a_letter_beside_its_event(subject: &mut dyn Subject) {
    let sides = subject.open().await;
    sides.write(applied(1)).await.unwrap();
    let conflict = || {
        let change = Change::Conflict {
            letter: Box::new(letter(50, Reason::IdConflict)),
            publish: Some(output("50-dead", "orders-dead")),
        };
        entry(1, change)
    };
    assert_eq!(sides.write(conflict()).await.unwrap().rows.len(), 1);
    assert_eq!(sides.write(conflict()).await, Err(Refused::Done(PayloadHash(1))));
    assert_eq!(sides.known(1).await, Known::Done(PayloadHash(1)));
    assert_eq!(sides.all_letters().await, [letter(50, Reason::IdConflict)]);
    assert_eq!(sides.pending().await.len(), 1);
    // Redriven, it runs under a record of its own.
    sides.letters.redrive(vec![key(50)]).await.unwrap();
    let event = sides.waiting().await.remove(0);
    assert_eq!(event.record, key(50));
    let run = from_parking(50, event.id, Change::Applied(Effects::default()));
    sides.write(run).await.unwrap();
    assert_eq!(sides.all_letters().await, []);
    assert_eq!(sides.write(conflict()).await, Err(Refused::Done(PayloadHash(1))));
}

pub(crate) async fn a_refused_output_is_never_redriven(subject: &mut dyn Subject) {
    let sides = subject.open().await;
    sides.write(applied(1)).await.unwrap();
    let change = Change::Conflict {
        letter: Box::new(letter(1, Reason::OutputRefused)),
        publish: None,
    };
    sides.write(entry(1, change)).await.unwrap();
    assert_eq!(sides.letters.redrive(vec![key(1)]).await.unwrap(), []);
    assert_eq!(sides.waiting().await, []);
    assert_eq!(sides.known(1).await, Known::Done(PayloadHash(1)));
    assert_eq!(sides.letters.purge(vec![key(1)]).await.unwrap().len(), 1);
}

pub(crate) async fn marks_are_suspect_only_after_a_crash(subject: &mut dyn Subject) {
    let consumer = name("inventory");
    let sides = subject.open().await;
    assert_eq!(sides.ledger.taken_before(&consumer).await.unwrap(), None);
    sides.ledger.mark_taken(&consumer, Position(7)).await.unwrap();
    sides.ledger.mark_taken(&consumer, Position(5)).await.unwrap();
    assert_eq!(sides.ledger.taken_before(&consumer).await.unwrap(), None);
    let sides = reopen(subject, sides, Stop::Crash).await;
    let taken = |is_suspect| {
        Some(TakenBefore {
            upto: Position(7),
            is_suspect,
        })
    };
    assert_eq!(sides.ledger.taken_before(&consumer).await.unwrap(), taken(true));
    let other = sides.ledger.taken_before(&name("billing")).await.unwrap();
    assert_eq!(other, None);
    let sides = reopen(subject, sides, Stop::Clean).await;
    assert_eq!(sides.ledger.taken_before(&consumer).await.unwrap(), taken(false));
    sides.ledger.recovered(&consumer);
    assert_eq!(sides.ledger.taken_before(&consumer).await.unwrap(), None);
}

pub(crate) async fn records_are_forgotten_after_the_retention(subject: &mut dyn Subject) {
    let sides = subject.open().await;
    sides.write(applied(1)).await.unwrap();
    sides.write(dead(2, false)).await.unwrap();
    subject.outlive().await;
    assert_eq!(sides.known(1).await, Known::New);
    assert_eq!(sides.known(2).await, Known::New);
    sides.write(applied(1)).await.unwrap();
    assert_eq!(sides.known(1).await, Known::Done(PayloadHash(1)));
}

/// Its record once was, so that the same event was parked a second time, and the second one never left the parking.
pub(crate) async fn what_is_parked_is_never_forgotten(subject: &mut dyn Subject) {
    let mut sides = subject.open().await;
    sides.write(dead(1, true)).await.unwrap();
    sides.write(parked(2)).await.unwrap();
    let place = sides.waiting().await[0].id;
    let failed = Change::Failed(Box::new(history(1)));
    sides.write(from_parking(2, place, failed)).await.unwrap();
    for _ in 0..3 {
        subject.outlive().await;
        assert_eq!(sides.known(2).await, Known::Parked(PayloadHash(2)));
        assert_eq!(sides.write(parked(2)).await, Err(Refused::Parked(PayloadHash(2))));
        assert_eq!(sides.waiting().await[0].history, Some(Box::new(history(1))));
        sides = reopen(subject, sides, Stop::Crash).await;
    }
    let run = from_parking(2, place, Change::Applied(Effects::default()));
    sides.write(run).await.unwrap();
    assert_eq!(sides.known(2).await, Known::Done(PayloadHash(2)));
    assert_eq!(sides.waiting().await, []);
}

pub(crate) async fn what_is_being_tried_is_forgotten_a_retention_later(subject: &mut dyn Subject) {
    let sides = subject.open().await;
    for number in [1, 2] {
        let failed = Change::Failed(Box::new(history(1)));
        sides.write(entry(number, failed)).await.unwrap();
        sides.write(entry(number, Change::Started)).await.unwrap();
    }
    subject.outlive().await;
    assert_eq!(sides.known(1).await, failing(1, 1));
    // What is tried again begins its time anew.
    let written = sides.write(entry(2, Change::Started)).await.unwrap();
    assert_eq!(written.started, 2);
    subject.outlive().await;
    assert_eq!(sides.known(1).await, Known::New);
    assert_eq!(sides.known(2).await, failing(1, 2));
    // Nothing of its first life is left to an id that comes again.
    let written = sides.write(entry(1, Change::Started)).await.unwrap();
    assert_eq!(written.started, 1);
    assert_eq!(sides.known(1).await, Known::Started(1));
}

/// It never did, and its lane ran it again and again.
pub(crate) async fn an_event_that_is_done_already_leaves_the_parking(subject: &mut dyn Subject) {
    let sides = subject.open().await;
    let effects = || Change::Applied(Effects::default());
    for number in 1..=4 {
        sides.write(parked(number)).await.unwrap();
    }
    let places: Vec<_> = sides.waiting().await.iter().map(|event| event.id).collect();
    subject.finish_elsewhere(key(1), PayloadHash(1)).await;
    subject.finish_elsewhere(key(2), PayloadHash(9)).await;
    let refused = sides.write(from_parking(1, places[0], effects())).await;
    assert_eq!(refused, Err(Refused::Done(PayloadHash(1))));
    assert_eq!(sides.lanes().await[0].waiting, 3);
    // Under the id of another event it waits until it is a dead letter.
    let refused = sides.write(from_parking(2, places[1], effects())).await;
    assert_eq!(refused, Err(Refused::Done(PayloadHash(9))));
    assert_eq!(sides.lanes().await[0].waiting, 3);
    let conflict = Change::Conflict {
        letter: Box::new(letter(50, Reason::IdConflict)),
        publish: None,
    };
    sides.write(from_parking(2, places[1], conflict)).await.unwrap();
    assert_eq!(sides.all_letters().await.len(), 1);
    let left = sides.waiting().await;
    assert_eq!(
        left.iter().map(|event| event.record).collect::<Vec<_>>(),
        [key(3), key(4)]
    );
    assert_eq!(sides.lanes().await[0].waiting, 2);
}
