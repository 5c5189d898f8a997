//! A batch under construction: what the pieces of work in it have written so far lies over what is committed, so that each sees
//! what the earlier ones did. It is written in one piece or dropped whole.

use std::collections::HashMap;

use bytes::Bytes;
use xxhash_rust::xxh3::Xxh3DefaultBuilder;

use super::bucket::Bucket;
use super::committer::Memory;
use super::tables::{self, Record, RecordState, Table, Tables, tag};
use super::{Error, Key, keys, logs};
use crate::broker::Position;
use crate::clock::Timestamp;
use crate::crash::{self, Point};
use crate::plan::Name;

pub(super) type Map<K, V> = HashMap<K, V, Xxh3DefaultBuilder>;

/// Rows that there is room for from the beginning.
const ROWS: usize = 256;

/// A batch under construction.
pub(crate) struct Batch<'a> {
    tables: &'a Tables,
    memory: &'a Memory,
    now: Timestamp,
    next: u64,
    records: Map<[u8; 16], Record>,
    /// Rows that later work in the batch may ask for. `None` deletes.
    rows: Map<(Table, Bytes), Option<Bytes>>,
    /// Rows that nobody asks for before they are committed, and in the end all others.
    written: fjall::OwnedWriteBatch,
    /// The logs that have changed.
    heads: logs::Heads,
    begins_bucket: bool,
    expired: Vec<u64>,
}

/// What a batch leaves to do in memory when it is durable.
pub(super) struct Committed {
    /// The next number to give out, by which the batch is known.
    pub(super) next: u64,
    pub(super) resident: Vec<((Table, Bytes), Option<Bytes>)>,
    pub(super) tails: logs::Ends,
}

impl<'a> Batch<'a> {
    pub(super) fn new(tables: &'a Tables, memory: &'a Memory, now: Timestamp) -> Self {
        Self {
            tables,
            memory,
            now,
            next: memory.next(),
            records: Map::default(),
            rows: Map::default(),
            written: fjall::OwnedWriteBatch::with_capacity(tables.database.clone(), ROWS),
            heads: logs::Heads::default(),
            begins_bucket: false,
            expired: Vec::new(),
        }
    }

    /// When the latest piece of work in the batch was asked for.
    pub(crate) fn now(&self) -> Timestamp {
        self.now
    }

    /// A number that was never given out before; each is larger than the one before, across restarts too.
    pub(crate) fn number(&mut self) -> u64 {
        let number = self.next;
        self.next += 1;
        number
    }

    /// What is committed, without what this batch adds.
    pub(crate) fn committed(&self) -> &'a Tables {
        self.tables
    }

    /// What is remembered of an event.
    pub(crate) fn record(&self, key: [u8; 16]) -> Result<Option<Record>, Error> {
        match self.records.get(&key) {
            Some(record) => Ok(Some(*record)),
            None => self.tables.record(key),
        }
    }

    /// Remembers something of an event, from now on for the retention.
    pub(crate) fn remember(&mut self, key: [u8; 16], record: Record) {
        self.records.insert(key, record);
    }

    /// A row.
    pub(crate) fn get(&self, table: Table, key: &Bytes) -> Result<Option<Bytes>, Error> {
        if let Some(row) = self.rows.get(&(table, key.clone())) {
            return Ok(row.clone());
        }
        match self.memory.get(table, key) {
            Some(row) => Ok(row),
            None => self.tables.get(table, key),
        }
    }

    /// Writes a row.
    pub(crate) fn put(&mut self, table: Table, key: Bytes, value: Bytes) {
        self.rows.insert((table, key), Some(value));
    }

    /// Deletes a row.
    pub(crate) fn remove(&mut self, table: Table, key: Bytes) {
        self.rows.insert((table, key), None);
    }

    /// Writes a row that no work asks the batch for.
    pub(crate) fn add(&mut self, table: Table, key: &[u8], value: &[u8]) -> Result<(), Error> {
        self.written.insert(self.tables.keyspace(table)?, key, value);
        Ok(())
    }

    /// Deletes a committed row that no work asks the batch for.
    pub(crate) fn forget(&mut self, table: Table, key: &[u8]) -> Result<(), Error> {
        self.written.remove(self.tables.keyspace(table)?, key);
        Ok(())
    }

    /// A log as a whole.
    pub(super) fn head(&self, stream: &Name) -> Result<logs::Head, Error> {
        match self.heads.get(stream) {
            Some(head) => Ok(*head),
            None => logs::read_head(self.get(Table::Meta, &logs::head_key(stream))?),
        }
    }

    /// Writes a log as a whole, once however often it changes.
    pub(super) fn set_head(&mut self, stream: &Name, head: logs::Head) {
        match self.heads.get_mut(stream) {
            Some(known) => *known = head,
            None => _ = self.heads.insert(stream.clone(), head),
        }
    }

    /// Notes how far a consumer may take.
    pub(super) fn mark(&mut self, consumer: &Name, upto: Position) -> Result<(), Error> {
        let key = tables::mark_key(consumer);
        let mark: Option<Position> = self.get(Table::Meta, &key)?.map(|row| keys::decode(&row)).transpose()?;
        if mark.is_none_or(|mark| mark < upto) {
            self.put(Table::Meta, key, keys::encode(&upto)?);
        }
        Ok(())
    }

    /// Makes sure that records written at `now` or later go to no bucket that is older: from then on those only shrink.
    pub(super) fn begin_bucket(&mut self, now: Timestamp) {
        self.now = self.now.max(now);
        self.begins_bucket = true;
    }

    /// Carries records of a bucket that is about to be dropped forward, unless there is a newer one. What is parked is kept for
    /// as long as it waits. What is being tried is kept for one more retention: whoever tries on writes anew, and an event that
    /// never comes again must be forgotten some day.
    pub(super) fn carry(&mut self, start: u64, records: &[([u8; 16], Record)]) -> Result<(), Error> {
        for (key, record) in records {
            let is_old = self.records.contains_key(key) || self.tables.buckets.get_outside(*key, &[start])?.is_some();
            match record.state {
                _ if is_old => {}
                RecordState::Parked => self.remember(*key, *record),
                RecordState::Trying => {
                    let state = RecordState::Stale;
                    self.remember(*key, Record { state, ..*record });
                }
                RecordState::Stale => self.remove(Table::Attempts, Bytes::copy_from_slice(key)),
                RecordState::Done => {}
            }
        }
        Ok(())
    }

    /// Drops a bucket of which everything is over, or carried.
    pub(super) fn drop_bucket(&mut self, start: u64) {
        self.remove(Table::Meta, bucket_key(start));
        self.expired.push(start);
    }

    /// Makes the batch durable. What is committed if it is, is said even if the write fails: then it is not known yet.
    pub(super) fn write(mut self, fsync: bool) -> (Committed, Result<(), Error>) {
        let tails = self.heads.iter().map(|(stream, head)| (stream.clone(), head.next));
        let tails = tails.collect();
        let written = self.write_through(fsync);
        let rows = self.rows.into_iter();
        let committed = Committed {
            next: self.next,
            resident: rows.filter(|((table, _), _)| table.is_resident()).collect(),
            tails,
        };
        (committed, written)
    }

    /// The bucket's keyspace is made before the batch that names it, and an expired one dropped after the batch that forgets it:
    /// a crash in between leaves a keyspace without a name, which the next start drops.
    fn write_through(&mut self, fsync: bool) -> Result<(), Error> {
        let unchanged =
            self.records.is_empty() && self.rows.is_empty() && self.written.is_empty() && self.heads.is_empty();
        if unchanged && !self.begins_bucket && self.next == self.memory.next() {
            return Ok(());
        }
        // Every batch takes a number of its own, so that what is stored says which was the last.
        self.number();
        self.write_rows(fsync)?;
        if self.expired.is_empty() {
            return Ok(());
        }
        crash::at(Point::BucketForgotten);
        self.tables.buckets.drop_all(&self.tables.database, &self.expired)?;
        crash::at(Point::BucketDropped);
        Ok(())
    }

    fn write_rows(&mut self, fsync: bool) -> Result<(), Error> {
        let bucket = self.bucket()?;
        let next = keys::encode(&self.next)?;
        self.put(Table::Meta, next_key(), next);
        for (stream, head) in std::mem::take(&mut self.heads) {
            self.put(Table::Meta, logs::head_key(&stream), keys::encode(&head)?);
        }
        let nothing = fjall::OwnedWriteBatch::with_capacity(self.tables.database.clone(), 0);
        let mut batch = std::mem::replace(&mut self.written, nothing).durability(Some(tables::persist_mode(fsync)));
        if let Some(bucket) = bucket {
            for (key, record) in &self.records {
                bucket.insert(&mut batch, *key, *record);
            }
        }
        for ((table, key), row) in &self.rows {
            set(&mut batch, self.tables.keyspace(*table)?, key, row);
        }
        self.tables
            .fault
            .around(|| batch.commit().map_err(|error| Error::engine(&error)))
    }

    /// The bucket that records go to, if one is needed.
    fn bucket(&mut self) -> Result<Option<Bucket>, Error> {
        if self.records.is_empty() && !self.begins_bucket {
            return Ok(None);
        }
        let buckets = &self.tables.buckets;
        let start = buckets.start_at(self.now);
        if let Some(bucket) = buckets.find(start) {
            return Ok(Some(bucket));
        }
        let bucket = buckets.create(&self.tables.database, start)?;
        crash::at(Point::BucketMade);
        self.put(Table::Meta, bucket_key(start), Bytes::from_static(&[1]));
        Ok(Some(bucket))
    }
}

fn set(batch: &mut fjall::OwnedWriteBatch, keyspace: &fjall::Keyspace, key: &Bytes, row: &Option<Bytes>) {
    match row {
        Some(value) => batch.insert(keyspace, key.as_ref(), value.as_ref()),
        None => batch.remove(keyspace, key.as_ref()),
    }
}

pub(super) fn next_key() -> Bytes {
    Key::new().tag(tag::NEXT).done()
}

fn bucket_key(start: u64) -> Bytes {
    Key::new().tag(tag::BUCKET).number(start).done()
}

impl Record {
    /// An event that took effect.
    pub(crate) fn done(payload: u64) -> Self {
        Self {
            state: RecordState::Done,
            payload,
        }
    }
}
