//! The embedded ledger against the suite, and what only it can do: outputs straight into embedded logs.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use tempfile::TempDir;

use crate::broker::Room;
use crate::clock::{Clock, Timestamp};
use crate::ledger::suite::{self, Sides, Stop, Subject, entry, name, output, suite};
use crate::ledger::{Change, Effects, PayloadHash, RecordKey, RowId};
use crate::store::{Batch, Failing, Record, Settings, Store, Weight};

const RETENTION: Duration = Duration::from_secs(80);

const ROOM: Room = Room {
    count: 10,
    bytes: 1 << 20,
};

/// Ledgers in a folder that goes away with it. Each life begins at a time of its own choice.
struct Folder {
    folder: TempDir,
    at: Timestamp,
    store: Option<Arc<Store>>,
}

impl Folder {
    fn new() -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
            at: Timestamp(1_000_000_000),
            store: None,
        }
    }

    fn store(&mut self) -> Arc<Store> {
        let settings = Settings {
            path: self.folder.path().join("data"),
            retention: RETENTION,
            fsync: false,
        };
        let store = Store::open(settings, Clock::seeded(self.at, 1)).unwrap();
        self.store = Some(store.clone());
        store
    }
}

impl Subject for Folder {
    fn open(&mut self) -> BoxFuture<'_, Sides> {
        let ledger = super::open(self.store(), BTreeSet::from([name("log")]));
        Box::pin(std::future::ready(Sides {
            ledger: ledger.clone(),
            outbox: ledger.clone(),
            parking: ledger.clone(),
            letters: ledger,
        }))
    }

    fn stop(&mut self, stop: Stop) -> BoxFuture<'_, ()> {
        let store = self.store.take().unwrap();
        Box::pin(async move {
            if stop == Stop::Clean {
                store.close().await.unwrap();
            }
        })
    }

    fn outlive(&mut self) -> BoxFuture<'_, ()> {
        let store = self.store.clone().unwrap();
        self.at = self.at.after(RETENTION * 2);
        let now = self.at;
        Box::pin(async move {
            assert_eq!(store.expire(now, Duration::ZERO).await.unwrap(), 1);
        })
    }

    fn finish_elsewhere(&mut self, record: RecordKey, payload: PayloadHash) -> BoxFuture<'_, ()> {
        let store = self.store.clone().unwrap();
        Box::pin(async move {
            let finish = move |batch: &mut Batch<'_>| {
                batch.remember(record.0, Record::done(payload.0));
                Ok(())
            };
            store.commit(Weight::LIGHT, finish).await.unwrap();
        })
    }
}

suite!(Folder::new());

#[tokio::test]
async fn outputs_onto_logs_are_appended_and_have_no_rows() {
    let mut folder = Folder::new();
    let sides = folder.open().await;
    let effects = Effects {
        outputs: vec![output("1-0", "log"), output("1-1", "stock"), output("1-2", "log")],
        ..Effects::default()
    };
    let entry = || entry(1, Change::Applied(effects.clone()));
    let written = sides.write_all(vec![entry(), entry()]).await;
    let rows: &Vec<RowId> = &written[0].as_ref().unwrap().rows;
    assert_eq!(rows.len(), 1);
    assert!(written[1].is_err());
    drop(sides);
    folder.stop(Stop::Crash).await;
    let store = folder.store();
    let log = store.read_log(&name("log"), 0, ROOM).unwrap();
    let messages: Vec<_> = log.into_iter().map(|entry| entry.message).collect();
    assert_eq!(messages, [output("1-0", "log").message, output("1-2", "log").message]);
    let heads = store.logs().unwrap();
    assert_eq!((heads[0].first, heads[0].next, heads[0].length), (1, 3, 2));
}

#[tokio::test]
async fn a_write_after_the_close_is_unavailable() {
    let mut folder = Folder::new();
    let sides = folder.open().await;
    folder.store.clone().unwrap().close().await.unwrap();
    let refused = sides.ledger.write(Arc::new(vec![suite::applied(1)])).await;
    assert!(
        matches!(refused, Err(crate::ledger::Error::Unavailable(_))),
        "{refused:?}"
    );
    let refused = sides.ledger.look_up(vec![]).await;
    assert!(
        matches!(refused, Err(crate::ledger::Error::Unavailable(_))),
        "{refused:?}"
    );
}

/// The same entries came again, were refused as done, and their outputs were never published.
#[tokio::test]
async fn a_write_that_fails_and_is_durable_is_answered_as_written() {
    let mut folder = Folder::new();
    let sides = folder.open().await;
    let store = folder.store.clone().unwrap();
    let effects = Effects {
        outputs: vec![output("1-0", "log"), output("1-1", "stock")],
        ..Effects::default()
    };
    store.fail_next(Failing::After);
    let written = sides.write_all(vec![entry(1, Change::Applied(effects.clone()))]).await;
    let rows: Vec<RowId> = written[0].as_ref().unwrap().rows.clone();
    let pending = sides.outbox.pending(None, 10).await.unwrap();
    assert_eq!(pending.iter().map(|row| row.id).collect::<Vec<_>>(), rows);
    assert_eq!(store.read_log(&name("log"), 0, ROOM).unwrap().len(), 1);

    store.fail_next(Failing::Before);
    let again = || Arc::new(vec![entry(2, Change::Started)]);
    let failed = sides.ledger.write(again()).await;
    assert!(
        matches!(failed, Err(crate::ledger::Error::Unavailable(_))),
        "{failed:?}"
    );
    let written = sides.ledger.write(again()).await.unwrap();
    assert_eq!(written[0].as_ref().unwrap().started, 1);
}
