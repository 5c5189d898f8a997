//! The store as its users see it, in a folder that goes away.

mod committing;
mod expiry;
mod knowing;
mod opening;
mod readers;

use std::path::PathBuf;

use tempfile::TempDir;

use super::*;

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
