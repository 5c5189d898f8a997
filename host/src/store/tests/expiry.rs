//! What is forgotten and when, and what is not.

use bytes::Bytes;

use super::bucket::OPEN_MAX;
use super::*;

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

async fn check_carrying(count: u32, restarts: bool) {
    let folder = Folder::new();
    let mut store = folder.open().unwrap();
    let all = (0..count).map(|number| {
        let state = [RecordState::Parked, RecordState::Trying, RecordState::Done][number as usize % 3];
        remember_as(&store, number, state)
    });
    futures_util::future::join_all(all).await;
    if restarts {
        store.close().await.unwrap();
        store = folder.open().unwrap();
    }
    let late = |times: u32| AT.after(Duration::from_secs(200) * times);
    assert_eq!(store.expire(late(1), Duration::ZERO).await.unwrap(), 1);
    for (number, state) in (0..count).zip(states(&store, count)) {
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
    for (number, state) in (0..count).zip(states(&store, count)) {
        assert_eq!(
            state,
            [Some((RecordState::Parked, true)), None, None][number as usize % 3]
        );
    }
}

#[tokio::test]
async fn what_is_not_over_is_carried_page_by_page() {
    const KNOWN: u32 = 1_300;
    const TOO_MANY: u32 = 2_000;
    assert!((KNOWN as usize * 2 / 3) < OPEN_MAX && (TOO_MANY as usize * 2 / 3) > OPEN_MAX);
    for count in [KNOWN, TOO_MANY] {
        check_carrying(count, false).await;
        check_carrying(count, true).await;
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
