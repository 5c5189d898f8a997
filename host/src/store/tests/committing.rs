//! What callers are told of their commits, above all when the work or the disk fails.

use super::*;
use crate::event::Message;

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
