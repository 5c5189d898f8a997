//! What a start finds: a lock, a newer format, damage of every kind, a write that was cut off, a clean stop, a crash.

use std::fs::{self, File, OpenOptions};
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use bytes::Bytes;
use tempfile::TempDir;

use super::*;
use crate::broker::Room;
use crate::event::Message;
use crate::plan;

const AT: Timestamp = Timestamp(1_000_000_000);

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

struct Folder(TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("data")
    }

    fn open_at(&self, at: Timestamp) -> Result<Arc<Store>, Error> {
        let settings = Settings {
            path: self.path(),
            retention: Duration::from_secs(80),
            fsync: true,
        };
        Store::open(settings, Clock::seeded(at, 1))
    }

    fn open(&self) -> Result<Arc<Store>, Error> {
        self.open_at(AT)
    }

    fn journal(&self) -> PathBuf {
        self.path().join("database/0.jnl")
    }

    /// A folder with `batches` records, each committed by itself, and a stop.
    async fn with_records(batches: u8, clean: bool) -> Self {
        let folder = Self::new();
        let store = folder.open().unwrap();
        for number in 1..=batches {
            remember(&store, number).await.unwrap();
        }
        if clean {
            store.close().await.unwrap();
        }
        folder
    }

    fn refusal(&self) -> String {
        match self.open() {
            Err(error @ Error::Damaged { .. }) => error.to_string(),
            Err(error) => panic!("another error: {error}"),
            Ok(_) => panic!("a damaged store was opened"),
        }
    }
}

fn key(number: u8) -> [u8; 16] {
    [number; 16]
}

async fn remember(store: &Store, number: u8) -> Result<(), Error> {
    let work = move |batch: &mut Batch<'_>| {
        batch.number();
        batch.remember(key(number), Record::done(u64::from(number)));
        Ok(())
    };
    store.commit(Weight::LIGHT, work).await
}

fn remembers(store: &Store, number: u8) -> bool {
    store.read(|tables| tables.record(key(number))).unwrap().is_some()
}

/// The first of a file: the journals of these tests use little of their 64 MiB.
fn read_used(file: &PathBuf) -> Vec<u8> {
    let mut bytes = Vec::new();
    File::open(file).unwrap().take(1 << 16).read_to_end(&mut bytes).unwrap();
    bytes
}

/// The byte at which the last of something begins in a file.
fn find_last(file: &PathBuf, what: &[u8]) -> usize {
    let bytes = read_used(file);
    bytes.windows(what.len()).rposition(|window| window == what).unwrap()
}

fn flip(file: &PathBuf, at: usize) {
    let file = OpenOptions::new().read(true).write(true).open(file).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at as u64).unwrap();
    file.write_all_at(&[byte[0] ^ 0x40], at as u64).unwrap();
}

#[tokio::test]
async fn a_second_owner_is_refused() {
    let folder = Folder::new();
    let store = folder.open().unwrap();
    let refused = folder.open().map(|_| ());
    assert!(matches!(refused, Err(Error::Locked(_))), "{refused:?}");
    store.close().await.unwrap();
    folder.open().unwrap();
}

#[tokio::test]
async fn a_stop_is_clean_only_after_close() {
    let folder = Folder::new();
    let mut was_unclean = Vec::new();
    for closes in [true, false, false, true, true] {
        let store = folder.open().unwrap();
        was_unclean.push(store.was_unclean());
        remember(&store, 1).await.unwrap();
        if closes {
            store.close().await.unwrap();
        }
    }
    assert_eq!(was_unclean, [false, false, true, true, false]);
}

#[tokio::test]
async fn a_newer_format_is_refused() {
    let folder = Folder::with_records(1, true).await;
    let file = folder.path().join("tidegate-store");
    let text = fs::read_to_string(&file).unwrap();
    fs::write(&file, text.replace("format 1", "format 2")).unwrap();
    let refused = folder.open().map(|_| ());
    assert!(
        matches!(refused, Err(Error::Newer { found: 2, known: 1, .. })),
        "{refused:?}"
    );
    fs::write(&file, text).unwrap();
    assert!(remembers(&folder.open().unwrap(), 1));
}

#[tokio::test]
async fn a_folder_of_something_else_is_refused_untouched() {
    let folder = Folder::new();
    fs::create_dir_all(folder.path()).unwrap();
    fs::write(folder.path().join("precious"), "x").unwrap();
    assert!(folder.refusal().contains("not empty"));
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[tokio::test]
async fn what_is_missing_is_never_made_anew() {
    let missing = [
        "tidegate-store",
        "database",
        "database/version",
        "database/0.jnl",
        "database/keyspaces",
        "database/keyspaces/0",
        "database/keyspaces/1",
        "database/keyspaces/9",
        "database/keyspaces/10",
    ];
    for (number, what) in missing.iter().enumerate() {
        let folder = Folder::with_records(3, number % 2 == 0).await;
        let path = folder.path().join(what);
        if path.is_dir() {
            fs::remove_dir_all(&path).unwrap();
        } else {
            fs::remove_file(&path).unwrap();
        }
        let first = folder.refusal();
        assert!(first.contains("damaged"), "{what}: {first}");
        // Nor at the second try.
        folder.refusal();
    }
}

#[tokio::test]
async fn a_garbled_state_file_is_refused() {
    for text in [
        "",
        "tidegate store\n",
        "tidegate store\nformat 1\nclosed x\n",
        "x\nformat 1\nopen\n",
    ] {
        let folder = Folder::with_records(1, true).await;
        fs::write(folder.path().join("tidegate-store"), text).unwrap();
        assert!(folder.refusal().contains("garbled"));
    }
}

#[tokio::test]
async fn a_flipped_bit_in_the_journal_is_refused() {
    // In the row of the second of four batches: its key, and the tag before it, 22 bytes earlier.
    for back in [0, 21] {
        for clean in [true, false] {
            let folder = Folder::with_records(4, clean).await;
            let before = read_used(&folder.journal());
            let at = find_last(&folder.journal(), &key(2)) - back;
            flip(&folder.journal(), at);
            let refusal = folder.refusal();
            assert!(refusal.contains("0.jnl"), "{refusal}");
            folder.refusal();
            // Nothing was changed: flipped back, all is there.
            flip(&folder.journal(), at);
            assert_eq!(read_used(&folder.journal()), before);
            let store = folder.open().unwrap();
            assert!((1..=4).all(|number| remembers(&store, number)));
        }
    }
}

#[tokio::test]
async fn after_a_clean_stop_a_journal_that_ends_early_is_refused() {
    let folder = Folder::with_records(4, true).await;
    let cut = find_last(&folder.journal(), &key(3));
    let file = OpenOptions::new().write(true).open(folder.journal()).unwrap();
    file.set_len(cut as u64).unwrap();
    folder.refusal();
    // Even where it ends between two batches, so that it looks whole.
    let start = find_start(&folder.journal(), cut);
    file.set_len(start as u64).unwrap();
    let refusal = folder.refusal();
    assert!(refusal.contains("closed at"), "{refusal}");
}

/// Where the batch begins that has byte `within` in it.
fn find_start(file: &PathBuf, within: usize) -> usize {
    let bytes = read_used(file);
    let end = bytes[..within].windows(4).rposition(|window| window == b"FJL\x03");
    end.unwrap() + 4
}

#[tokio::test]
async fn a_write_that_was_cut_off_is_dropped_and_the_rest_is_there() {
    let folder = Folder::with_records(4, false).await;
    let at = find_last(&folder.journal(), &key(4));
    let start = find_start(&folder.journal(), at);
    let whole = read_used(&folder.journal());
    let end = at + 100;
    // Cut short at every byte, and with a hole of zeros, as a power cut may leave it.
    for cut in (start + 1..at + 20).step_by(7) {
        let mut torn = whole.clone();
        torn.truncate(cut);
        fs::write(folder.journal(), torn).unwrap();
        check_torn(&folder);
        let mut holed = whole.clone();
        holed[cut..at + 20].fill(0);
        holed.truncate(end);
        fs::write(folder.journal(), holed).unwrap();
        check_torn(&folder);
    }
}

fn check_torn(folder: &Folder) {
    let store = folder.open().unwrap();
    assert!((1..=3).all(|number| remembers(&store, number)));
    assert!(!remembers(&store, 4));
}

#[tokio::test]
async fn a_first_start_that_was_cut_off_begins_again() {
    let folder = Folder::new();
    fs::create_dir_all(folder.path().join("database")).unwrap();
    File::create(folder.path().join("database/0.jnl")).unwrap();
    fs::write(folder.path().join("tidegate-store"), "tidegate store\nformat 1\nnew\n").unwrap();
    remember(&folder.open().unwrap(), 1).await.unwrap();
    assert!(remembers(&folder.open().unwrap(), 1));
}

#[tokio::test]
async fn numbers_never_come_twice() {
    let folder = Folder::new();
    let mut last = 0;
    for closes in [true, false, true] {
        let store = folder.open().unwrap();
        for _ in 0..3 {
            let number = store.commit(Weight::LIGHT, |batch| Ok(batch.number())).await.unwrap();
            assert!(number > last);
            last = number;
        }
        if closes {
            store.close().await.unwrap();
        }
    }
}

#[tokio::test]
async fn work_that_fails_leaves_nothing() {
    let folder = Folder::new();
    let store = folder.open().unwrap();
    let failed: Result<(), Error> = store
        .commit(Weight::LIGHT, |batch| {
            batch.remember(key(1), Record::done(1));
            Err(Error::Unavailable("no".to_owned()))
        })
        .await;
    assert!(failed.is_err());
    assert!(!remembers(&store, 1));
    remember(&store, 2).await.unwrap();
    assert!(remembers(&store, 2));
}

/// Work that came behind it was once told that the store was closed.
#[tokio::test]
async fn work_that_fails_tells_its_whole_batch_why() {
    let folder = Folder::new();
    let store = folder.open().unwrap();
    // While the first is under way, the others gather behind it.
    let (began, has_begun) = oneshot::channel();
    let (go, wait) = std::sync::mpsc::sync_channel::<()>(1);
    let first = store.commit(Weight::LIGHT, move |_| {
        began.send(()).unwrap();
        wait.recv().unwrap();
        Ok(())
    });
    let others = async {
        has_begun.await.unwrap();
        let failing = store.commit(Weight::LIGHT, |_| Err::<(), _>(Error::Unavailable("no".to_owned())));
        let go = async { go.send(()).unwrap() };
        let (failed, behind, ()) = tokio::join!(biased; failing, remember(&store, 1), go);
        (failed, behind)
    };
    let (first, (failed, behind)) = tokio::join!(first, others);
    first.unwrap();
    assert!(failed.unwrap_err().to_string().contains("no"));
    assert!(behind.unwrap_err().to_string().ends_with(": no"));
    assert!(!remembers(&store, 1));
}

#[tokio::test]
async fn an_engine_that_does_not_open_tells_everybody_why() {
    let folder = Folder::new();
    let store = folder.open().unwrap();
    let reader = store.shared.tables().unwrap();
    store.shared.set_tables(None);
    let refused = remember(&store, 1).await.unwrap_err();
    assert!(refused.to_string().contains("uses the store"), "{refused}");
    drop(reader);
    remember(&store, 1).await.unwrap();
}

#[tokio::test]
async fn the_engine_is_opened_anew_after_it_failed() {
    let folder = Folder::new();
    let store = folder.open().unwrap();
    remember(&store, 1).await.unwrap();
    // What a failed commit does, short of a disk that fails.
    store.shared.set_tables(None);
    assert!(store.read(|_| Ok(())).is_err());
    remember(&store, 2).await.unwrap();
    assert!(remembers(&store, 1) && remembers(&store, 2));
    store.close().await.unwrap();
    assert!(!folder.open().unwrap().was_unclean());
}

async fn check_failed_write(failing: Failing, is_durable: bool) {
    let folder = Folder::new();
    let store = folder.open().unwrap();
    remember(&store, 1).await.unwrap();
    let mut tail = store.tail(&name("log")).unwrap();
    tail.mark_unchanged();
    store.fail_next(failing);
    let work = move |batch: &mut Batch<'_>| {
        batch.remember(key(2), Record::done(2));
        batch.append(&name("log"), &Message::default())
    };
    let appended = store.commit(Weight::LIGHT, work).await;
    assert_eq!(appended.is_ok(), is_durable, "{appended:?}");
    assert_eq!(remembers(&store, 2), is_durable);
    // Whoever follows the log hears of it, as of any other.
    assert_eq!(tail.has_changed().unwrap(), is_durable);
    assert_eq!(*tail.borrow_and_update(), if is_durable { 2 } else { 1 });
    let last = store.commit(Weight::LIGHT, work).await.unwrap();
    assert_eq!(last, if is_durable { 2 } else { 1 });
    store.close().await.unwrap();
    let store = folder.open().unwrap();
    assert!(!store.was_unclean() && remembers(&store, 1) && remembers(&store, 2));
    assert_eq!(store.logs().unwrap()[0].length, last);
}

/// Its caller was once told that it had failed, and its repetition that it had been done.
#[tokio::test]
async fn a_write_that_fails_and_is_durable_succeeds() {
    check_failed_write(Failing::After, true).await;
}

#[tokio::test]
async fn a_write_that_fails_and_is_not_durable_is_unavailable() {
    check_failed_write(Failing::Before, false).await;
}

/// A store whose last write failed, durably, while somebody who reads keeps the engine from being opened anew.
async fn stuck(folder: &Folder) -> (Arc<Store>, Arc<Tables>, tokio::task::JoinHandle<Result<(), Error>>) {
    let store = folder.open().unwrap();
    let reader = store.shared.tables().unwrap();
    store.fail_next(Failing::After);
    let stuck = store.clone();
    let waiting = tokio::spawn(async move { remember(&stuck, 1).await });
    while store.shared.tables().is_ok() {
        tokio::task::yield_now().await;
    }
    (store, reader, waiting)
}

#[tokio::test]
async fn while_a_failed_write_is_looked_into_others_are_told_why() {
    let folder = Folder::new();
    let (store, reader, waiting) = stuck(&folder).await;
    let refused = remember(&store, 2).await.unwrap_err();
    assert!(refused.to_string().contains("the disk is full"), "{refused}");
    assert!(!waiting.is_finished());
    drop(reader);
    waiting.await.unwrap().unwrap();
    assert!(remembers(&store, 1) && !remembers(&store, 2));
}

#[tokio::test]
async fn closing_does_not_wait_for_a_disk_that_fails() {
    let folder = Folder::new();
    let (store, reader, waiting) = stuck(&folder).await;
    assert!(store.close().await.is_err());
    assert!(waiting.await.unwrap().is_err());
    drop((store, reader));
    let store = folder.open().unwrap();
    assert!(store.was_unclean() && remembers(&store, 1));
}

#[tokio::test]
async fn dropping_does_not_wait_for_a_disk_that_fails() {
    let folder = Folder::new();
    let (store, reader, waiting) = stuck(&folder).await;
    waiting.abort();
    drop(waiting.await);
    drop(store);
    drop(reader);
    assert!(remembers(&folder.open().unwrap(), 1));
}

#[tokio::test]
async fn buckets_are_dropped_one_by_one_and_looked_up_together() {
    let folder = Folder::new();
    // A bucket is 10 s long, and the retention 80 s.
    for (number, at) in [(1, 0), (2, 25), (3, 50)] {
        let store = folder.open_at(AT.after(Duration::from_secs(at))).unwrap();
        remember(&store, number).await.unwrap();
        store.close().await.unwrap();
    }
    let store = folder.open_at(AT.after(Duration::from_secs(60))).unwrap();
    assert!((1..=3).all(|number| remembers(&store, number)));
    let mut left = Vec::new();
    for at in [79, 90, 110, 140] {
        store
            .expire(AT.after(Duration::from_secs(at)), Duration::ZERO)
            .await
            .unwrap();
        left.push((1..=3).filter(|number| remembers(&store, *number)).collect::<Vec<_>>());
    }
    assert_eq!(left, [vec![1, 2, 3], vec![2, 3], vec![3], vec![]]);
    drop(store);
    let store = folder.open_at(AT.after(Duration::from_secs(150))).unwrap();
    assert!(!(1..=3).any(|number| remembers(&store, number)));
}

async fn remember_as(store: &Store, number: u32, state: RecordState) {
    let work = move |batch: &mut Batch<'_>| {
        let payload = u64::from(number);
        batch.remember(wide_key(number), Record { state, payload });
        batch.put(
            Table::Attempts,
            Bytes::copy_from_slice(&wide_key(number)),
            Bytes::from_static(b"x"),
        );
        Ok(())
    };
    store.commit(Weight::LIGHT, work).await.unwrap();
}

fn wide_key(number: u32) -> [u8; 16] {
    let mut key = [0; 16];
    key[..4].copy_from_slice(&number.to_be_bytes());
    key
}

/// What is remembered of so many events, and whether there are attempts of it.
fn states(store: &Store, count: u32) -> Vec<Option<(RecordState, bool)>> {
    let state = |tables: &Tables, number| {
        let key = wide_key(number);
        let has_attempts = tables.get(Table::Attempts, &key)?.is_some();
        Ok(tables.record(key)?.map(|record| (record.state, has_attempts)))
    };
    store
        .read(|tables| (0..count).map(|number| state(tables, number)).collect())
        .unwrap()
}

#[tokio::test]
async fn what_is_not_over_is_carried_page_by_page() {
    const COUNT: u32 = 1_300;
    let folder = Folder::new();
    let store = folder.open().unwrap();
    let all = (0..COUNT).map(|number| {
        let state = [RecordState::Parked, RecordState::Trying, RecordState::Done][number as usize % 3];
        remember_as(&store, number, state)
    });
    futures_util::future::join_all(all).await;
    let late = |times: u32| AT.after(Duration::from_secs(200) * times);
    assert_eq!(store.expire(late(1), Duration::ZERO).await.unwrap(), 1);
    for (number, state) in (0..COUNT).zip(states(&store, COUNT)) {
        let expected = [
            Some((RecordState::Parked, true)),
            Some((RecordState::Stale, true)),
            None,
        ];
        assert_eq!(state, expected[number as usize % 3]);
    }
    assert_eq!(store.expire(late(2), Duration::ZERO).await.unwrap(), 1);
    let attempts = store.read(|tables| Ok(tables.prefix(Table::Attempts, &wide_key(1)).count()));
    assert_eq!(attempts.unwrap(), 0);
    for (number, state) in (0..COUNT).zip(states(&store, COUNT)) {
        assert_eq!(
            state,
            [Some((RecordState::Parked, true)), None, None][number as usize % 3]
        );
    }
}

/// Of two expired buckets the newer holds, and so does what is written while they are dropped.
#[tokio::test]
async fn what_was_recorded_later_is_not_carried_over() {
    let folder = Folder::new();
    for (at, state) in [(0, RecordState::Trying), (20, RecordState::Parked)] {
        let store = folder.open_at(AT.after(Duration::from_secs(at))).unwrap();
        for number in 0..3 {
            remember_as(&store, number, state).await;
        }
        store.close().await.unwrap();
    }
    let late = AT.after(Duration::from_secs(200));
    let store = folder.open_at(late).unwrap();
    remember_as(&store, 0, RecordState::Done).await;
    assert_eq!(store.expire(late, Duration::ZERO).await.unwrap(), 2);
    let parked = Some((RecordState::Parked, true));
    assert_eq!(states(&store, 3), [Some((RecordState::Done, true)), parked, parked]);
}

#[tokio::test]
async fn a_crash_between_carrying_and_dropping_loses_nothing() {
    let folder = Folder::new();
    let store = folder.open().unwrap();
    remember_as(&store, 0, RecordState::Parked).await;
    let late = AT.after(Duration::from_secs(200));
    let start = store
        .read(|tables| Ok(tables.buckets.expired(late, Duration::ZERO)))
        .unwrap()[0];
    let begin = move |batch: &mut Batch<'_>| {
        batch.begin_bucket(late);
        Ok(())
    };
    store.commit(Weight::LIGHT, begin).await.unwrap();
    store.carry(start).await.unwrap();
    drop(store);
    let store = folder.open_at(late).unwrap();
    assert_eq!(store.expire(late, Duration::ZERO).await.unwrap(), 1);
    assert_eq!(states(&store, 1), [Some((RecordState::Parked, true))]);
}

#[tokio::test]
async fn a_clock_that_was_set_back_forgets_nothing() {
    let folder = Folder::new();
    let store = folder.open_at(AT.after(Duration::from_secs(60))).unwrap();
    remember(&store, 1).await.unwrap();
    drop(store);
    let store = folder.open().unwrap();
    remember(&store, 2).await.unwrap();
    store
        .expire(AT.after(Duration::from_secs(100)), Duration::ZERO)
        .await
        .unwrap();
    assert!(remembers(&store, 1) && remembers(&store, 2));
}

async fn check_recovery(closes: bool) {
    let folder = Folder::new();
    let store = folder.open().unwrap();
    remember(&store, 1).await.unwrap();
    for consumer in ["a", "b"] {
        store.mark_taken(&name(consumer), Position(7)).await.unwrap();
    }
    if closes {
        store.close().await.unwrap();
    }
    drop(store);
    let late = AT.after(Duration::from_secs(100_000));
    let store = folder.open_at(late).unwrap();
    assert_eq!(store.taken_before(&name("a")).unwrap(), Some((Position(7), !closes)));
    assert_eq!(store.expire(late, Duration::ZERO).await.unwrap(), 0);
    store.recovered(&name("a"));
    assert_eq!(store.taken_before(&name("a")).unwrap(), None);
    assert_eq!(store.expire(late, Duration::ZERO).await.unwrap(), 0);
    assert!(remembers(&store, 1));
    store.recovered(&name("b"));
    assert_eq!(store.expire(late, Duration::ZERO).await.unwrap(), 1);
    assert!(!remembers(&store, 1));
}

#[tokio::test]
async fn nothing_is_forgotten_while_a_consumer_recovers() {
    check_recovery(false).await;
}

/// A host that was down for longer than the retention once forgot what it had done above what it then handed back.
#[tokio::test]
async fn after_a_clean_stop_too_nothing_is_forgotten_while_a_consumer_recovers() {
    check_recovery(true).await;
}

#[tokio::test]
async fn what_was_done_since_an_unsettled_delivery_is_remembered() {
    let folder = Folder::new();
    let store = folder.open().unwrap();
    remember(&store, 1).await.unwrap();
    let later = AT.after(Duration::from_secs(100));
    let expire = |unsettled| store.expire(later, Duration::from_secs(unsettled));
    assert_eq!(expire(20).await.unwrap(), 0);
    assert_eq!(expire(Duration::MAX.as_secs()).await.unwrap(), 0);
    assert!(remembers(&store, 1));
    assert_eq!(expire(1).await.unwrap(), 1);
    assert!(!remembers(&store, 1));
}

#[tokio::test(start_paused = true)]
async fn a_consumer_that_never_comes_back_holds_up_one_retention_only() {
    let folder = Folder::new();
    let store = folder.open().unwrap();
    remember(&store, 1).await.unwrap();
    store.mark_taken(&name("gone"), Position(7)).await.unwrap();
    drop(store);
    let late = AT.after(Duration::from_secs(100_000));
    let store = folder.open_at(late).unwrap();
    assert_eq!(store.expire(late, Duration::ZERO).await.unwrap(), 0);
    tokio::time::advance(Duration::from_secs(81)).await;
    assert_eq!(store.expire(late, Duration::ZERO).await.unwrap(), 1);
}

async fn append(store: &Store, count: u64) {
    let work = move |batch: &mut Batch<'_>| {
        for _ in 0..count {
            batch.append(&name("log"), &Message::default())?;
        }
        Ok(())
    };
    store.commit(Weight::LIGHT, work).await.unwrap();
}

/// One that had been renamed once kept its log from being trimmed for ever, and for a retention records from being forgotten.
#[tokio::test]
async fn a_consumer_that_is_gone_holds_up_nothing_and_may_come_back() {
    let folder = Folder::new();
    let store = folder.open().unwrap();
    remember(&store, 1).await.unwrap();
    append(&store, 10).await;
    for consumer in ["stays", "gone"] {
        store.start_cursor(&name("log"), &name(consumer)).await.unwrap();
        store.mark_taken(&name(consumer), Position(9)).await.unwrap();
    }
    store.advance_cursor(&name("log"), &name("gone"), 4, 3);
    store.advance_cursor(&name("log"), &name("stays"), 8, 7);
    store.close().await.unwrap();

    let keep = plan::Log {
        age_max: None,
        bytes_max: 0,
    };
    let late = AT.after(Duration::from_secs(200));
    let store = folder.open_at(late).unwrap();
    store.recovered(&name("stays"));
    assert_eq!(store.trim(&name("log"), &keep, late).await.unwrap(), 3);
    assert_eq!(store.expire(late, Duration::ZERO).await.unwrap(), 0);
    store.heed(&BTreeSet::from([(name("log"), name("stays"))]));
    assert_eq!(store.trim(&name("log"), &keep, late).await.unwrap(), 4);
    assert_eq!(store.expire(late, Duration::ZERO).await.unwrap(), 1);
    store.close().await.unwrap();

    let store = folder.open_at(late).unwrap();
    let (log, gone) = (name("log"), name("gone"));
    store.heed(&BTreeSet::from([(log.clone(), gone.clone())]));
    assert_eq!(store.start_cursor(&log, &gone).await.unwrap(), 4);
    let all = Room {
        count: 100,
        bytes: usize::MAX,
    };
    assert_eq!(store.read_log(&log, 4, all).unwrap()[0].number, 8);
    // It counts again, where it is now.
    store.advance_cursor(&log, &gone, 9, 1);
    assert_eq!(store.trim(&log, &keep, late).await.unwrap(), 1);
}
