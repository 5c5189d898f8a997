//! Records in time buckets: each has a keyspace of its own, so that forgetting is dropping a keyspace instead of deleting rows,
//! and costs the same however much there is to forget. Only what is not over may not be forgotten: before a bucket is dropped it
//! is read once, and the few such records in it are carried forward.

use std::ops::Bound;
use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use fjall::{Database, Keyspace};

use super::tables::{Record, RecordState, Rows, damaged, record_options};
use super::{Error, keys};
use crate::clock::Timestamp;

/// Buckets in one retention. More of them forget more exactly; each costs every look-up of a new event one more filter.
const PER_RETENTION: u32 = 8;

/// A bucket is at least this long, in milliseconds.
const LENGTH_MIN_MS: u64 = 1000;

const PREFIX: &str = "records-";

/// Rows that one page of a bucket reads at most, and those of them that it gives: so many are written in one batch.
const PAGE_ROWS: usize = 10_000;
const PAGE_OPEN: usize = 500;

/// The buckets there are, newest first.
pub(super) struct Buckets {
    retention: Duration,
    length_ms: u64,
    live: RwLock<Arc<[Bucket]>>,
}

/// A bucket.
#[derive(Clone)]
pub(super) struct Bucket {
    /// When it began, in milliseconds since 1970.
    pub(super) start: u64,
    /// Its rows.
    pub(super) rows: Keyspace,
}

/// Records of a bucket whose events are not over.
#[derive(Default)]
pub(super) struct OpenPage {
    pub(super) records: Vec<([u8; 16], Record)>,
    /// Where to go on after, if there is more.
    pub(super) next: Option<[u8; 16]>,
}

impl Buckets {
    pub(super) fn new(retention: Duration) -> Self {
        let length = u64::try_from((retention / PER_RETENTION).as_millis()).unwrap_or(u64::MAX);
        Self {
            retention,
            length_ms: length.max(LENGTH_MIN_MS),
            live: RwLock::new(Arc::new([])),
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
            live.push(Bucket {
                start: *start,
                rows: open(database, &name)?,
            });
        }
        live.sort_by_key(|bucket| std::cmp::Reverse(bucket.start));
        self.set(live);
        Ok(())
    }

    /// What is remembered of an event. An id that is written again while it waits is in several buckets: the newest holds.
    pub(super) fn get(&self, key: [u8; 16]) -> Result<Option<Record>, Error> {
        self.get_outside(key, &[])
    }

    /// The same, as it will be without some of the buckets.
    pub(super) fn get_outside(&self, key: [u8; 16], without: &[u64]) -> Result<Option<Record>, Error> {
        for bucket in self.live().iter().filter(|bucket| !without.contains(&bucket.start)) {
            let row = bucket.rows.get(key);
            if let Some(row) = row.map_err(|error| Error::engine(&error))? {
                return Record::from_bytes(&row).map(Some);
            }
        }
        Ok(None)
    }

    /// The start of the bucket that is written at `now`. If the wall clock was set back, the newest goes on.
    pub(super) fn start_at(&self, now: Timestamp) -> u64 {
        let start = now.0 - now.0 % self.length_ms;
        self.live().first().map_or(start, |newest| start.max(newest.start))
    }

    /// The rows of a bucket, if there is one that starts then.
    pub(super) fn find(&self, start: u64) -> Option<Keyspace> {
        self.live()
            .iter()
            .find(|bucket| bucket.start == start)
            .map(|bucket| bucket.rows.clone())
    }

    /// Makes a bucket. What was the newest is written to disk soon, as nothing will be added to it: else its rows would pin the
    /// journals that they are in.
    pub(super) fn create(&self, database: &Database, start: u64) -> Result<Keyspace, Error> {
        let rows = open(database, &name_of(start))?;
        let mut live = self.live().to_vec();
        if let Some(newest) = live.first() {
            newest.rows.rotate_memtable().map_err(|error| Error::engine(&error))?;
        }
        live.insert(
            0,
            Bucket {
                start,
                rows: rows.clone(),
            },
        );
        self.set(live);
        Ok(rows)
    }

    /// Records in a bucket after `after` whose events are not over. There are few, so that whoever wants them all reads the
    /// bucket once.
    pub(super) fn open_after(&self, start: u64, after: Option<[u8; 16]>) -> Result<OpenPage, Error> {
        let mut page = OpenPage::default();
        let Some(rows) = self.find(start) else {
            return Ok(page);
        };
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        for (number, row) in Rows::Of(rows.range((from, Bound::Unbounded))).enumerate() {
            let (key, row) = row?;
            let key: [u8; 16] = key
                .as_ref()
                .try_into()
                .map_err(|_| keys::unreadable("a record has another key than 16 bytes"))?;
            let record = Record::from_bytes(&row)?;
            if record.state != RecordState::Done {
                page.records.push((key, record));
            }
            if number + 1 >= PAGE_ROWS || page.records.len() >= PAGE_OPEN {
                page.next = Some(key);
                break;
            }
        }
        Ok(page)
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
