//! The tables of the store as the engine keeps them: one keyspace each, and one for each time bucket of records.

use std::collections::BTreeSet;
use std::ops::Bound;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use fjall::config::{
    BlockSizePolicy, BloomConstructionPolicy, CompressionPolicy, FilterPolicy, FilterPolicyEntry, RestartIntervalPolicy,
};
use fjall::{CompressionType, Database, Keyspace, KeyspaceCreateOptions, PersistMode};

use super::buckets::Buckets;
use super::fault::Fault;
use super::folder::Found;
use super::keys::{self, Key, KeyReader};
use super::known::Shelf;
use super::{Error, journal, sync_folder};
use crate::broker::Position;
use crate::plan::Name;

/// The engine's own mark of a database.
const ENGINE_VERSION: &str = "version";

/// Memory for blocks and filters of all tables, in bytes.
const CACHE_BYTES: u64 = 64 * 1024 * 1024;

/// Memory for rows of one table before they go into a file of their own, in bytes.
const MEMTABLE_BYTES: u64 = 32 * 1024 * 1024;

/// A table with rows of its own; records have buckets instead.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Table {
    /// Record key: what was tried of an event that is not done.
    Attempts,
    /// Consumer, bucket, key: version and value.
    State,
    /// Row id: an output that is not confirmed.
    Outbox,
    /// Consumer, lane, place: an event that waits.
    Parked,
    /// Dead id: a dead letter.
    Letters,
    /// Number: the dead letters in the order of their deaths.
    LetterOrder,
    /// Consumer, lane: what is kept of a lane while it is parked, held or has dead letters.
    Lanes,
    /// Stream, number: a message of an embedded log.
    Logs,
    /// What the store keeps of itself; see the tags below.
    Meta,
}

/// Kinds of rows in [`Table::Meta`].
pub(super) mod tag {
    /// The next number to give out.
    pub(crate) const NEXT: u8 = 1;
    /// A live bucket of records, by its start.
    pub(crate) const BUCKET: u8 = 2;
    /// First and next number and bytes of a log, by stream.
    pub(crate) const LOG: u8 = 3;
    /// The lowest unsettled number, by stream and consumer.
    pub(crate) const CURSOR: u8 = 4;
    /// How far a consumer may have taken.
    pub(crate) const TAKEN: u8 = 5;
    /// Counts that the ledger keeps.
    pub(crate) const COUNT: u8 = 6;
}

impl Table {
    pub(super) const ALL: [Self; 9] = [
        Self::Attempts,
        Self::State,
        Self::Outbox,
        Self::Parked,
        Self::Letters,
        Self::LetterOrder,
        Self::Lanes,
        Self::Logs,
        Self::Meta,
    ];

    /// Small tables that the committer has whole in memory, because it asks them for every event.
    pub(super) const RESIDENT: [Self; 2] = [Self::Lanes, Self::Meta];

    pub(super) fn is_resident(self) -> bool {
        Self::RESIDENT.contains(&self)
    }

    /// The key of a count that the ledger keeps in [`Table::Meta`].
    pub(crate) fn count_key() -> Key {
        Key::new().tag(tag::COUNT)
    }

    fn name(self) -> &'static str {
        match self {
            Self::Attempts => "attempts",
            Self::State => "state",
            Self::Outbox => "outbox",
            Self::Parked => "parked",
            Self::Letters => "letters",
            Self::LetterOrder => "letter-order",
            Self::Lanes => "lanes",
            Self::Logs => "logs",
            Self::Meta => "meta",
        }
    }
}

/// What is remembered of an event: 9 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Record {
    /// How far it is.
    pub(crate) state: RecordState,
    /// The hash of its data.
    pub(crate) payload: u64,
}

/// How far an event is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RecordState {
    /// There is a row of attempts.
    Trying,
    /// The same, and for a whole retention nothing more was tried: it is remembered for one more.
    Stale,
    /// It waits in the parking.
    Parked,
    /// It took effect.
    Done,
}

impl Record {
    pub(super) fn to_bytes(self) -> [u8; 9] {
        let mut bytes = [0; 9];
        let (state, payload) = bytes.split_at_mut(1);
        state.fill(match self.state {
            RecordState::Trying => 1,
            RecordState::Parked => 2,
            RecordState::Done => 3,
            RecordState::Stale => 4,
        });
        payload.copy_from_slice(&self.payload.to_be_bytes());
        bytes
    }

    pub(super) fn from_bytes(bytes: &[u8]) -> Result<Self, Error> {
        let [state, payload @ ..] = bytes else {
            return Err(keys::unreadable("a record is empty"));
        };
        let state = match state {
            1 => RecordState::Trying,
            2 => RecordState::Parked,
            3 => RecordState::Done,
            4 => RecordState::Stale,
            other => return Err(keys::unreadable(&format!("no record state is {other}"))),
        };
        let payload = payload
            .try_into()
            .map_err(|_| keys::unreadable("a record has another length than 9"))?;
        Ok(Self {
            state,
            payload: u64::from_be_bytes(payload),
        })
    }
}

/// The engine, open.
pub(crate) struct Tables {
    pub(super) database: Database,
    keyspaces: Vec<(Table, Keyspace)>,
    pub(super) buckets: Buckets,
    pub(super) fault: Fault,
}

impl Tables {
    /// Opens the engine, after a look at its journals: it would cut a damaged one short and go on.
    pub(super) fn open(path: &Path, retention: Duration, found: Found) -> Result<Self, Error> {
        if found != Found::New {
            // Without it the engine makes a new database.
            if !path.join(ENGINE_VERSION).exists() {
                return Err(damaged(path, &format!("its file {ENGINE_VERSION} is missing")));
            }
            journal::check(path, found)?;
        }
        let database = open_database(path)?;
        let keyspaces = Table::ALL
            .into_iter()
            .map(|table| Ok((table, open_table(&database, path, table, found)?)))
            .collect::<Result<Vec<_>, Error>>()?;
        if let (Found::New, Some((_, any))) = (found, keyspaces.first()) {
            keep_name(any)?;
        }
        let mut tables = Self {
            buckets: Buckets::new(retention, Shelf::beside(path)),
            database,
            keyspaces,
            fault: Fault::default(),
        };
        let starts = tables.bucket_starts()?;
        tables.buckets.load(&tables.database, path, &starts)?;
        Ok(tables)
    }

    fn bucket_starts(&self) -> Result<Vec<u64>, Error> {
        self.prefix(Table::Meta, &Key::new().tag(tag::BUCKET).done())
            .map(|row| {
                let (key, _) = row?;
                let mut key = KeyReader::new(&key);
                key.skip_tag()
                    .and_then(|()| key.number())
                    .ok_or_else(|| keys::unreadable("a bucket has no start"))
            })
            .collect()
    }

    pub(super) fn keyspace(&self, table: Table) -> Result<&Keyspace, Error> {
        self.keyspaces
            .iter()
            .find(|(of, _)| *of == table)
            .map(|(_, keyspace)| keyspace)
            .ok_or_else(|| Error::Unavailable(format!("there is no table {}", table.name())))
    }

    /// A row.
    pub(crate) fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, Error> {
        let row = self.keyspace(table)?.get(key);
        Ok(row.map_err(|error| Error::engine(&error))?.map(Bytes::from_owner))
    }

    /// Rows whose keys begin with `prefix`, in order.
    pub(crate) fn prefix(&self, table: Table, prefix: &[u8]) -> Rows {
        self.range(table, Bound::Included(prefix), prefix)
    }

    /// Rows from `from` on whose keys begin with `prefix`, in order.
    pub(crate) fn range(&self, table: Table, from: Bound<&[u8]>, prefix: &[u8]) -> Rows {
        let end = keys::after_prefix(prefix).map_or(Bound::Unbounded, Bound::Excluded);
        match self.keyspace(table) {
            Ok(keyspace) => Rows::Of(keyspace.range((from.map(<[u8]>::to_vec), end))),
            Err(error) => Rows::Failed(Some(error)),
        }
    }

    /// What is remembered of an event.
    pub(crate) fn record(&self, key: [u8; 16]) -> Result<Option<Record>, Error> {
        self.buckets.get(key)
    }

    /// Whether a look-up of this event may have to wait for the disk.
    pub(crate) fn may_hold(&self, key: [u8; 16]) -> bool {
        self.buckets.may_hold(key)
    }

    /// How far a consumer said that it may take.
    pub(super) fn mark(&self, consumer: &Name) -> Result<Option<Position>, Error> {
        self.get(Table::Meta, &mark_key(consumer))?
            .map(|row| keys::decode(&row))
            .transpose()
    }

    /// The consumers that said so.
    pub(super) fn marked(&self) -> Result<BTreeSet<Name>, Error> {
        self.prefix(Table::Meta, &Key::new().tag(tag::TAKEN).done())
            .map(|row| {
                let (key, _) = row?;
                let mut key = KeyReader::new(&key);
                key.skip_tag()
                    .and_then(|()| key.text())
                    .and_then(|name| Name::new(name).ok())
                    .ok_or_else(|| keys::unreadable("a mark has no consumer"))
            })
            .collect()
    }
}

pub(super) fn mark_key(consumer: &Name) -> Bytes {
    Key::new().tag(tag::TAKEN).part(consumer.as_str()).done()
}

/// Rows of a scan.
pub(crate) enum Rows {
    /// From the engine.
    Of(fjall::Iter),
    /// The scan could not begin; said once.
    Failed(Option<Error>),
}

impl Iterator for Rows {
    type Item = Result<(Bytes, Bytes), Error>;

    fn next(&mut self) -> Option<Self::Item> {
        match self {
            Self::Of(rows) => {
                let row = rows.next()?.into_inner();
                Some(
                    row.map(|(key, value)| (Bytes::copy_from_slice(&key), Bytes::from_owner(value)))
                        .map_err(|error| Error::engine(&error)),
                )
            }
            Self::Failed(error) => error.take().map(Err),
        }
    }
}

/// How a commit is written: into the journal, and with `fsync` through to the disk. `SyncData` is enough: the engine gives the
/// journal its length beforehand, and what has to reach the disk of a file's length when it grows, `fdatasync` covers.
pub(super) fn persist_mode(fsync: bool) -> PersistMode {
    if fsync {
        PersistMode::SyncData
    } else {
        PersistMode::Buffer
    }
}

fn open_database(path: &Path) -> Result<Database, Error> {
    let open = || Database::builder(path).cache_size(CACHE_BYTES).worker_threads(2).open();
    // The engine asserts what it expects of its files; on a damaged folder such an assertion is an answer, not a bug of ours.
    match catch_unwind(AssertUnwindSafe(open)) {
        Ok(opened) => opened.map_err(|error| refusal(path, &error)),
        Err(_) => Err(damaged(path, "the engine gave up on its files")),
    }
}

/// What the engine's error at opening means.
fn refusal(path: &Path, error: &fjall::Error) -> Error {
    match error {
        fjall::Error::Locked => Error::Locked(path.display().to_string()),
        fjall::Error::Io(error) if error.kind() != std::io::ErrorKind::NotFound => Error::io("open the store", error),
        other => damaged(path, &other.to_string()),
    }
}

pub(super) fn damaged(path: &Path, reason: &str) -> Error {
    Error::Damaged {
        folder: path.display().to_string(),
        reason: reason.to_owned(),
    }
}

fn open_table(database: &Database, path: &Path, table: Table, found: Found) -> Result<Keyspace, Error> {
    let name = table.name();
    if found != Found::New && !database.keyspace_exists(name) {
        return Err(damaged(path, &format!("the table {name} is missing")));
    }
    database
        .keyspace(name, || {
            KeyspaceCreateOptions::default().max_memtable_size(MEMTABLE_BYTES)
        })
        .map_err(|error| refusal(path, &error))
}

/// Makes sure that a new keyspace is there after a power cut: the engine syncs what is in its folder, but not the folder's name.
/// That of every other new one comes with it.
pub(super) fn keep_name(keyspace: &Keyspace) -> Result<(), Error> {
    let folder = keyspace.path().parent().unwrap_or(keyspace.path());
    sync_folder(folder).map_err(|error| Error::io("sync the folder of the tables", &error))
}

/// The same for records, whose keys are random: the larger the list in memory, the more of it is looked at to insert into it.
const RECORDS_MEMTABLE_BYTES: u64 = 4 * 1024 * 1024;

/// Records are 25 bytes of hash: nothing to compress. The engine's own filters, 10 bits for each id, are for ids that the bucket holds, in one
/// of its files, and for all until its ids are in memory.
pub(super) fn record_options() -> KeyspaceCreateOptions {
    let filter = FilterPolicyEntry::Bloom(BloomConstructionPolicy::BitsPerKey(10.0));
    KeyspaceCreateOptions::default()
        .max_memtable_size(RECORDS_MEMTABLE_BYTES)
        .filter_policy(FilterPolicy::all(filter))
        .data_block_compression_policy(CompressionPolicy::all(CompressionType::None))
        .data_block_size_policy(BlockSizePolicy::all(4 * 1024))
        .data_block_restart_interval_policy(RestartIntervalPolicy::all(16))
}
