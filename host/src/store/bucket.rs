//! One time bucket: its rows, and what is known of them in memory, so that neither a look-up nor forgetting reads through it.

use std::collections::BTreeSet;
use std::ops::Bound;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use fjall::Keyspace;

use super::bloom::Bloom;
use super::known::Known;
use super::tables::{Record, RecordState, Rows};
use super::{Error, keys, lock};

/// Records that may not be over are known of a bucket up to so many, 4 MiB of memory; of more, it is read through.
pub(super) const OPEN_MAX: usize = if cfg!(test) { 1_000 } else { 1 << 16 };

/// Rows that one page of a bucket reads at most, and those of them that it gives: so many are written in one batch.
const PAGE_ROWS: usize = 10_000;
const PAGE_OPEN: usize = 500;

/// Rows that are looked up in what was kept of a bucket before it is believed.
const SAMPLE: usize = 1_000;

/// How long whoever reads whole buckets in the background pauses after each page, which takes about as long: what is going on needs the cores and
/// the disk.
const PAGE_PAUSE: Duration = Duration::from_millis(2);

/// A bucket.
#[derive(Clone)]
pub(super) struct Bucket {
    /// When it began, in milliseconds since 1970.
    pub(super) start: u64,
    pub(super) rows: Keyspace,
    pub(super) ids: Arc<Bloom>,
    /// The records that were not over when they were written; `None` if they are too many.
    open: Arc<Mutex<Option<BTreeSet<[u8; 16]>>>>,
    /// Whether what is known of it was put on the shelf, or could not be.
    is_kept: Arc<AtomicBool>,
}

impl Bucket {
    pub(super) fn new(start: u64, rows: Keyspace, ids: Bloom) -> Self {
        Self {
            start,
            rows,
            ids: Arc::new(ids),
            open: Arc::new(Mutex::new(Some(BTreeSet::new()))),
            is_kept: Arc::default(),
        }
    }

    /// Adds a record to a batch.
    pub(super) fn insert(&self, batch: &mut fjall::OwnedWriteBatch, key: [u8; 16], record: Record) {
        self.know(key, record);
        batch.insert(&self.rows, key, record.to_bytes().as_slice());
    }

    /// Knows in memory of a record, before anybody can find it in the rows.
    fn know(&self, key: [u8; 16], record: Record) {
        self.ids.add(key);
        if record.state != RecordState::Done {
            let mut open = lock(&self.open);
            if let Some(keys) = &mut *open {
                keys.insert(key);
            }
            open.take_if(|keys| keys.len() > OPEN_MAX);
        }
    }

    pub(super) fn get(&self, key: [u8; 16]) -> Result<Option<Record>, Error> {
        if !self.ids.may_hold(key) {
            return Ok(None);
        }
        let row = self.rows.get(key).map_err(|error| Error::engine(&error))?;
        row.map(|row| Record::from_bytes(&row)).transpose()
    }

    /// Reads what there was before this host. A scan sees what was there when it began; what comes later is known to whoever writes it.
    pub(super) fn recall(&self, is_over: &AtomicBool) -> Result<(), Error> {
        for (number, row) in self.records_after(None).enumerate() {
            if number % PAGE_ROWS == PAGE_ROWS - 1 {
                std::thread::sleep(PAGE_PAUSE);
            }
            if is_over.load(Ordering::Relaxed) {
                return Ok(());
            }
            let (key, record) = row?;
            self.know(key, record);
        }
        self.ids.complete();
        Ok(())
    }

    /// What is known of it, unless it is not whole, or this was asked before.
    pub(super) fn to_keep(&self) -> Option<Known> {
        if !self.ids.is_whole() || self.is_kept.swap(true, Ordering::Relaxed) {
            return None;
        }
        let open = lock(&self.open).as_ref().map(|keys| keys.iter().copied().collect());
        Some(Known {
            filters: self.ids.words(),
            open,
        })
    }

    /// Knows what was kept of it, unless some of its rows are not among that: then it is of other rows or by other rules, and not believed.
    pub(super) fn restore(&self, known: Known) -> Result<bool, Error> {
        self.ids.restore(known.filters);
        for row in self.records_after(None).take(SAMPLE) {
            if !self.ids.holds(row?.0) {
                return Ok(false);
            }
        }
        *lock(&self.open) = known.open.map(BTreeSet::from_iter);
        self.is_kept.store(true, Ordering::Relaxed);
        self.ids.complete();
        Ok(true)
    }

    /// Records after `after` whose events are not over. There are few; where they are not known, the bucket is read through.
    pub(super) fn open_after(&self, after: Option<[u8; 16]>) -> Result<OpenPage, Error> {
        match self.known_open_after(after) {
            Some(keys) => OpenPage::of(self, &keys),
            None => OpenPage::read(self, after),
        }
    }

    /// As many as fill a page of the records that may not be over, in order; `None` if they are not known.
    fn known_open_after(&self, after: Option<[u8; 16]>) -> Option<Vec<[u8; 16]>> {
        let open = lock(&self.open);
        let keys = open.as_ref().filter(|_| self.ids.is_whole())?;
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        Some(keys.range((from, Bound::Unbounded)).take(PAGE_OPEN).copied().collect())
    }

    fn records_after(&self, after: Option<[u8; 16]>) -> impl Iterator<Item = Result<([u8; 16], Record), Error>> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        Rows::Of(self.rows.range((from, Bound::Unbounded))).map(|row| {
            let (key, row) = row?;
            let key = key.as_ref().try_into();
            let key = key.map_err(|_| keys::unreadable("a record has another key than 16 bytes"))?;
            Ok((key, Record::from_bytes(&row)?))
        })
    }
}

/// Records of a bucket whose events are not over.
#[derive(Default)]
pub(super) struct OpenPage {
    pub(super) records: Vec<([u8; 16], Record)>,
    /// Where to go on after, if there is more.
    pub(super) next: Option<[u8; 16]>,
}

impl OpenPage {
    /// What is open of these.
    fn of(bucket: &Bucket, keys: &[[u8; 16]]) -> Result<Self, Error> {
        let mut page = Self {
            records: Vec::new(),
            next: keys.last().filter(|_| keys.len() >= PAGE_OPEN).copied(),
        };
        for key in keys {
            let record = bucket.get(*key)?.filter(|record| record.state != RecordState::Done);
            page.records.extend(record.map(|record| (*key, record)));
        }
        Ok(page)
    }

    /// What is open of the next rows.
    fn read(bucket: &Bucket, after: Option<[u8; 16]>) -> Result<Self, Error> {
        let mut page = Self::default();
        for (number, row) in bucket.records_after(after).enumerate() {
            let (key, record) = row?;
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
}
