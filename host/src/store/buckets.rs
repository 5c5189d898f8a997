//! Records in time buckets: each has a keyspace of its own, so that forgetting is dropping a keyspace instead of deleting rows,
//! and costs the same however much there is to forget. Only what is not over may not be forgotten: before a bucket is dropped, the few such
//! records in it are carried forward.
//!
//! What is known of the buckets in memory is read from the disk in the background after a start, and until then the engine is asked. Of buckets
//! to which nothing is added any more it is kept in files: see [`known`](super::known).

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::thread::JoinHandle;
use std::time::Duration;

use fjall::{Database, Keyspace};

use super::Error;
use super::bloom::Bloom;
use super::bucket::{Bucket, OpenPage};
use super::known::Shelf;
use super::tables::{Record, damaged, keep_name, record_options};
use crate::clock::Timestamp;

/// Buckets in one retention. More of them forget more exactly; each costs every look-up of a new event a line of memory.
const PER_RETENTION: u32 = 8;

/// A bucket is at least this long, in milliseconds.
const LENGTH_MIN_MS: u64 = 1000;

const PREFIX: &str = "records-";

/// The buckets there are, newest first.
pub(super) struct Buckets {
    retention: Duration,
    length_ms: u64,
    live: RwLock<Arc<[Bucket]>>,
    /// The start of the newest bucket that is durable. Those before it are closed: whatever crashes, nothing is added to them any more.
    durable: AtomicU64,
    shelf: Arc<Shelf>,
    recall: Option<Recall>,
}

impl Buckets {
    pub(super) fn new(retention: Duration, shelf: Shelf) -> Self {
        let length = u64::try_from((retention / PER_RETENTION).as_millis()).unwrap_or(u64::MAX);
        Self {
            retention,
            length_ms: length.max(LENGTH_MIN_MS),
            live: RwLock::new(Arc::new([])),
            durable: AtomicU64::new(0),
            shelf: Arc::new(shelf),
            recall: None,
        }
    }

    /// Opens the buckets that the store knows, and drops those that it does not know: a crash stood between their keyspace
    /// and their row in the one direction or the other, so they are empty or expired.
    pub(super) fn load(&mut self, database: &Database, path: &Path, starts: &[u64]) -> Result<(), Error> {
        for name in database.list_keyspace_names() {
            let is_known = |start: &str| starts.iter().any(|known| known.to_string() == start);
            if name.strip_prefix(PREFIX).is_some_and(|start| !is_known(start)) {
                drop_keyspace(database, open(database, &name)?)?;
            }
        }
        let mut live = Vec::new();
        for start in starts {
            let name = name_of(*start);
            if !database.keyspace_exists(&name) {
                return Err(damaged(
                    path,
                    &format!("the records of {} are missing", Timestamp(*start)),
                ));
            }
            let rows = open(database, &name)?;
            let ids = Bloom::new(rows.approximate_len() as u64, false);
            live.push(Bucket::new(*start, rows, ids));
        }
        live.sort_by_key(|bucket| std::cmp::Reverse(bucket.start));
        // The newest is added to again. Only a power cut where commits do not wait for the disk can leave a file of it: that of what came next
        // was lost.
        let closed: Vec<u64> = live.iter().skip(1).map(|bucket| bucket.start).collect();
        self.shelf
            .keep_only(&closed)
            .map_err(|error| Error::io("clear what is known of buckets", &error))?;
        self.recall = Some(Recall::start(live.clone(), self.shelf.clone())?);
        self.set(live);
        self.durable();
        Ok(())
    }

    /// Whether a look-up of this event may have to ask the engine, and so the disk.
    pub(super) fn may_hold(&self, key: [u8; 16]) -> bool {
        self.live().iter().any(|bucket| bucket.ids.may_hold(key))
    }

    /// What is remembered of an event. An id that is written again while it waits is in several buckets: the newest holds.
    pub(super) fn get(&self, key: [u8; 16]) -> Result<Option<Record>, Error> {
        self.get_outside(key, &[])
    }

    /// The same, as it will be without some of the buckets.
    pub(super) fn get_outside(&self, key: [u8; 16], without: &[u64]) -> Result<Option<Record>, Error> {
        for bucket in self.live().iter().filter(|bucket| !without.contains(&bucket.start)) {
            if let Some(record) = bucket.get(key)? {
                return Ok(Some(record));
            }
        }
        Ok(None)
    }

    /// The start of the bucket that is written at `now`. If the wall clock was set back, the newest goes on.
    pub(super) fn start_at(&self, now: Timestamp) -> u64 {
        let start = now.0 - now.0 % self.length_ms;
        self.live().first().map_or(start, |newest| start.max(newest.start))
    }

    /// The bucket that starts then, if there is one.
    pub(super) fn find(&self, start: u64) -> Option<Bucket> {
        self.live().iter().find(|bucket| bucket.start == start).cloned()
    }

    /// Makes a bucket. What was the newest is written to disk soon, as nothing will be added to it: else its rows would pin the
    /// journals that they are in.
    pub(super) fn create(&self, database: &Database, start: u64) -> Result<Bucket, Error> {
        let mut live = self.live().to_vec();
        let mut expected = 0;
        if let Some(newest) = live.first() {
            newest.rows.rotate_memtable().map_err(|error| Error::engine(&error))?;
            expected = newest.ids.len();
        }
        let rows = open(database, &name_of(start))?;
        keep_name(&rows)?;
        let bucket = Bucket::new(start, rows, Bloom::new(expected, true));
        live.insert(0, bucket.clone());
        self.set(live);
        Ok(bucket)
    }

    /// What there is now is durable.
    pub(super) fn durable(&self) {
        if let Some(newest) = self.live().first() {
            self.durable.store(newest.start, Ordering::Release);
        }
    }

    /// Writes what is known of closed buckets to files, for the next start; of each once. Blocks on the disk.
    pub(super) fn keep(&self) {
        let durable = self.durable.load(Ordering::Acquire);
        for bucket in self.live().iter().filter(|bucket| bucket.start < durable) {
            let Some(known) = bucket.to_keep() else { continue };
            if let Err(error) = self.shelf.write(bucket.start, &known) {
                tracing::warn!(%error, "which ids a bucket holds could not be noted: the next start reads them one by one");
            }
        }
    }

    /// Records in a bucket after `after` whose events are not over.
    pub(super) fn open_after(&self, start: u64, after: Option<[u8; 16]>) -> Result<OpenPage, Error> {
        self.find(start)
            .map_or_else(|| Ok(OpenPage::default()), |bucket| bucket.open_after(after))
    }

    /// The buckets of which nothing is to be remembered at `now`, the oldest first. They are kept for the retention and `longer`.
    pub(super) fn expired(&self, now: Timestamp, longer: Duration) -> Vec<u64> {
        let keep = self.retention.saturating_add(longer);
        self.live()
            .iter()
            .rev()
            .map(|bucket| bucket.start)
            .filter(|start| Timestamp(start.saturating_add(self.length_ms)).after(keep) <= now)
            .collect()
    }

    /// Takes buckets out of sight and deletes them. Readers that still hold one keep its files until they are done.
    pub(super) fn drop_all(&self, database: &Database, starts: &[u64]) -> Result<(), Error> {
        let (dropped, live): (Vec<_>, Vec<_>) = self
            .live()
            .iter()
            .cloned()
            .partition(|bucket| starts.contains(&bucket.start));
        self.set(live);
        for bucket in dropped {
            self.shelf
                .remove(bucket.start)
                .map_err(|error| Error::io("forget what is known of a bucket", &error))?;
            drop_keyspace(database, bucket.rows)?;
        }
        Ok(())
    }

    pub(super) fn live(&self) -> Arc<[Bucket]> {
        self.live.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set(&self, live: Vec<Bucket>) {
        *self.live.write().unwrap_or_else(PoisonError::into_inner) = live.into();
    }
}

/// The thread that recalls all buckets after a start, the newest first. Ends when it is dropped.
struct Recall {
    is_over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Recall {
    fn start(buckets: Vec<Bucket>, shelf: Arc<Shelf>) -> Result<Self, Error> {
        let is_over = Arc::new(AtomicBool::new(false));
        let of_thread = is_over.clone();
        let thread = std::thread::Builder::new()
            .name("recall".to_owned())
            .spawn(move || recall(&buckets, &shelf, &of_thread))
            .map_err(|error| Error::io("start the thread that recalls", &error))?;
        Ok(Self {
            is_over,
            thread: Some(thread),
        })
    }
}

/// What is quick first.
fn recall(buckets: &[Bucket], shelf: &Shelf, is_over: &AtomicBool) {
    let is_unknown = |bucket: &&Bucket| !is_over.load(Ordering::Relaxed) && !restore(bucket, shelf);
    let unknown: Vec<_> = buckets.iter().filter(is_unknown).collect();
    for bucket in unknown {
        if let Err(error) = bucket.recall(is_over) {
            tracing::warn!(%error, "the ids of a bucket could not be read: each look-up asks the disk for them, until the next start");
        }
    }
}

/// Whether what is known of a bucket was found in its file.
fn restore(bucket: &Bucket, shelf: &Shelf) -> bool {
    let restored = match shelf.read(bucket.start) {
        Ok(Some(known)) => bucket.restore(known),
        Ok(None) => Ok(false),
        Err(error) => Err(Error::io("read what is known of a bucket", &error)),
    };
    restored.unwrap_or_else(|error| {
        tracing::warn!(%error, "the ids of a bucket are read one by one");
        false
    })
}

impl Drop for Recall {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn name_of(start: u64) -> String {
    format!("{PREFIX}{start}")
}

fn open(database: &Database, name: &str) -> Result<Keyspace, Error> {
    database
        .keyspace(name, record_options)
        .map_err(|error| Error::engine(&error))
}

fn drop_keyspace(database: &Database, keyspace: Keyspace) -> Result<(), Error> {
    database
        .delete_keyspace(keyspace)
        .map_err(|error| Error::engine(&error))
}
