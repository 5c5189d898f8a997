//! What is known of closed buckets over a restart.

use std::path::Path;

use super::known::{Known, Shelf};
use super::*;

/// Ids in each of two buckets of 10 s, the first of which is closed.
const COUNT: u8 = 20;

fn later() -> Timestamp {
    AT.after(Duration::from_secs(15))
}

/// A folder with a closed bucket, what is known of which has been kept, and a newer one.
async fn with_closed() -> Folder {
    let folder = Folder::with_records(COUNT, true).await;
    let store = folder.open_at(later()).unwrap();
    remember(&store, COUNT + 1).await.unwrap();
    until_whole(&store).await;
    store.expire(later(), Duration::ZERO).await.unwrap();
    store.close().await.unwrap();
    folder
}

async fn until_whole(store: &Store) {
    let is_whole = |tables: &Tables| Ok(tables.buckets.live().iter().all(|bucket| bucket.ids.is_whole()));
    while !store.read(is_whole).unwrap() {
        tokio::task::yield_now().await;
    }
}

/// The starts of the buckets, the newest first.
fn starts(store: &Store) -> Vec<u64> {
    let starts = |tables: &Tables| Ok(tables.buckets.live().iter().map(|bucket| bucket.start).collect());
    store.read(starts).unwrap()
}

fn files(folder: &Path) -> Vec<String> {
    let Ok(files) = std::fs::read_dir(folder.join("known")) else {
        return Vec::new();
    };
    let mut names: Vec<_> = files
        .map(|file| file.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

fn check_remembers(store: &Store) {
    assert!((1..=COUNT + 1).all(|number| remembers(store, number)));
    assert!(!(COUNT + 2..=u8::MAX).any(|number| remembers(store, number)));
}

/// Whether what is known of a bucket came from its file, and need not be kept again.
fn was_restored(store: &Store, start: u64) -> bool {
    store
        .read(|tables| Ok(tables.buckets.find(start).unwrap().to_keep().is_none()))
        .unwrap()
}

#[tokio::test]
async fn what_is_known_of_a_closed_bucket_is_kept_and_of_the_newest_is_not() {
    let folder = with_closed().await;
    let store = folder.open_at(later()).unwrap();
    until_whole(&store).await;
    let [newest, closed] = starts(&store)[..] else {
        panic!("two buckets")
    };
    assert_eq!(files(&folder.path()), [closed.to_string()]);
    check_remembers(&store);
    assert!(was_restored(&store, closed));
    assert!(!was_restored(&store, newest));
}

#[tokio::test]
async fn what_was_kept_of_a_bucket_goes_with_it() {
    let folder = with_closed().await;
    let store = folder.open_at(later()).unwrap();
    let over = AT.after(Duration::from_secs(95));
    assert_eq!(store.expire(over, Duration::ZERO).await.unwrap(), 1);
    assert_eq!(files(&folder.path()), [starts(&store)[1].to_string()]);
}

#[tokio::test]
async fn what_is_not_over_in_a_closed_bucket_is_known_over_a_restart() {
    let folder = Folder::new();
    let store = folder.open().unwrap();
    let park = |batch: &mut Batch<'_>| {
        let state = RecordState::Parked;
        batch.remember(key(1), Record { state, payload: 1 });
        Ok(())
    };
    store.commit(Weight::LIGHT, park).await.unwrap();
    store.close().await.unwrap();
    for _ in 0..2 {
        let store = folder.open_at(later()).unwrap();
        remember(&store, 2).await.unwrap();
        until_whole(&store).await;
        store.expire(later(), Duration::ZERO).await.unwrap();
        let closed = starts(&store)[1];
        let open = store.read(|tables| tables.buckets.open_after(closed, None)).unwrap();
        assert_eq!(open.records.len(), 1);
        store.close().await.unwrap();
    }
    assert_eq!(files(&folder.path()).len(), 1);
}

/// A power cut where commits do not wait for the disk can take the bucket that came next, and leave the file.
#[tokio::test]
async fn a_file_of_the_newest_bucket_is_gone_before_anything_is_added() {
    let folder = Folder::with_records(COUNT, true).await;
    let store = folder.open().unwrap();
    let newest = starts(&store)[0];
    store.close().await.unwrap();
    let known = Known {
        filters: vec![vec![0; 64]],
        open: Some(Vec::new()),
    };
    Shelf::beside(&folder.path().join("database"))
        .write(newest, &known)
        .unwrap();
    let store = folder.open().unwrap();
    assert_eq!(files(&folder.path()), [""; 0]);
    remember(&store, COUNT + 1).await.unwrap();
    until_whole(&store).await;
    check_remembers(&store);
}

#[tokio::test]
async fn a_file_that_does_not_know_its_buckets_rows_is_not_believed() {
    let folder = with_closed().await;
    let closed = files(&folder.path())[0].parse().unwrap();
    let known = Known {
        filters: vec![vec![0; 64]],
        open: Some(Vec::new()),
    };
    Shelf::beside(&folder.path().join("database"))
        .write(closed, &known)
        .unwrap();
    let store = folder.open_at(later()).unwrap();
    until_whole(&store).await;
    check_remembers(&store);
    assert!(!was_restored(&store, closed));
}

/// Until a newer bucket is durable, a crash makes this one the newest again.
#[tokio::test]
async fn a_bucket_is_not_closed_by_one_that_is_not_durable() {
    let folder = Folder::with_records(COUNT, true).await;
    let store = folder.open_at(later()).unwrap();
    until_whole(&store).await;
    let tables = store.shared.tables().unwrap();
    tables
        .buckets
        .create(&tables.database, tables.buckets.start_at(later()))
        .unwrap();
    assert_eq!(starts(&store).len(), 2);
    tables.buckets.keep();
    assert_eq!(files(&folder.path()), [""; 0]);
    tables.buckets.durable();
    tables.buckets.keep();
    assert_eq!(files(&folder.path()).len(), 1);
}
