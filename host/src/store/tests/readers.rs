//! Who counts when logs are trimmed and records expire.

use super::*;
use crate::broker::Room;
use crate::event::Message;
use crate::plan;

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
