//! The rows of the ledger: their keys and what is in them.

use bytes::{BufMut, Bytes, BytesMut};
use serde::{Deserialize, Serialize};

use crate::broker::Position;
use crate::event::Message;
use crate::event::key::LaneKey;
use crate::ledger::{DeadId, DeadLetter, History, ParkedId, Read, RecordKey, StateBucket, StateKey, Version};
use crate::outcome::Reason;
use crate::plan::Name;
use crate::store::{self, Batch, Error, Key, KeyReader, Table, Tables};

/// What was tried of an event that is not done.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Attempts {
    /// The attempts that failed.
    pub(super) history: Option<Box<History>>,
    /// How many began since and never ended.
    pub(super) started: u32,
}

/// What is kept of a lane while there is anything to keep.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Lane {
    /// Its dead letters.
    pub(super) letters: u32,
    /// Events that took effect since the row is there: a dead letter keeps what it was at its death, so that one counter serves all.
    pub(super) applied: u64,
    /// The dead letter it waits for.
    pub(super) held_by: Option<DeadId>,
    /// Events in its parking.
    pub(super) waiting: u64,
}

/// A dead letter and what the ledger keeps with it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Letter {
    /// Its place in the order of deaths.
    pub(super) order: u64,
    /// The lane's count of applied events at its death.
    pub(super) applied: u64,
    /// Its event's place in the parking, if it was put back.
    pub(super) parked: Option<ParkedId>,
    /// The hash of its event's data.
    pub(super) payload: u64,
    /// The letter.
    pub(super) letter: DeadLetter,
}

/// A dead letter in the order of deaths: what a filter needs to know.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Ordered {
    pub(super) id: DeadId,
    pub(super) consumer: Name,
    pub(super) reason: Reason,
}

/// An event in the parking.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Parked {
    pub(super) record: RecordKey,
    pub(super) position: Position,
    pub(super) message: Message,
}

/// What a key of ours that is only a number says.
pub(super) fn number_key(number: u64) -> Bytes {
    Key::new().number(number).done()
}

pub(super) fn read_number(key: &[u8]) -> Result<u64, Error> {
    KeyReader::new(key).number().ok_or_else(|| bad_key("a number"))
}

pub(super) fn record_key(record: RecordKey) -> Bytes {
    Bytes::copy_from_slice(&record.0)
}

pub(super) fn attempts(tables: &Tables, record: RecordKey) -> Result<Attempts, Error> {
    let row = tables.get(Table::Attempts, &record.0)?;
    Ok(row.map(|row| store::decode(&row)).transpose()?.unwrap_or_default())
}

pub(super) fn lane_prefix(consumer: &Name) -> Key {
    Key::new().part(consumer.as_str())
}

pub(super) fn lane_key(consumer: &Name, lane: &LaneKey) -> Bytes {
    lane_prefix(consumer).rest(&*lane.0).done()
}

/// The lane of a key that begins with `prefix`.
pub(super) fn read_lane_key(prefix: &[u8], key: &[u8]) -> Result<LaneKey, Error> {
    key.strip_prefix(prefix)
        .map(|lane| LaneKey(lane.into()))
        .ok_or_else(|| bad_key("a lane"))
}

pub(super) fn parked_prefix(consumer: &Name, lane: &LaneKey) -> Key {
    Key::new().part(consumer.as_str()).part(&*lane.0)
}

pub(super) fn parked_key(consumer: &Name, lane: &LaneKey, id: ParkedId) -> Bytes {
    parked_prefix(consumer, lane).signed(id.0).done()
}

pub(super) fn read_parked_key(key: &[u8]) -> Result<ParkedId, Error> {
    let mut key = KeyReader::new(key);
    key.part()
        .and_then(|_| key.part())
        .and_then(|_| key.signed())
        .map(ParkedId)
        .ok_or_else(|| bad_key("a place in the parking"))
}

/// The key of how many dead letters a consumer has for a reason.
pub(super) fn count_key(consumer: &Name, reason: Reason) -> Bytes {
    Table::count_key().part(consumer.as_str()).part(reason.as_str()).done()
}

pub(super) fn read_count_key(key: &[u8]) -> Result<(Name, Reason), Error> {
    let mut key = KeyReader::new(key);
    let mut read = || {
        key.skip_tag()?;
        let consumer = Name::new(key.text()?).ok()?;
        Some((consumer, key.text()?.parse().ok()?))
    };
    read().ok_or_else(|| bad_key("a count"))
}

pub(super) fn state_prefix(bucket: &StateBucket) -> Key {
    Key::new().part(bucket.consumer.as_str()).part(bucket.bucket.as_bytes())
}

pub(super) fn state_key(key: &StateKey) -> Bytes {
    state_prefix(&key.bucket).rest(key.key.as_bytes()).done()
}

pub(super) fn state_name(prefix: &[u8], key: &[u8]) -> Result<String, Error> {
    key.strip_prefix(prefix)
        .and_then(|name| String::from_utf8(name.to_vec()).ok())
        .ok_or_else(|| bad_key("a state key"))
}

/// A value and the version it has from now on. The version stands before the bytes, so that they are read without a copy.
pub(super) fn write_state(version: u64, value: &[u8]) -> Bytes {
    let mut row = BytesMut::with_capacity(8 + value.len());
    row.put_u64(version);
    row.put_slice(value);
    row.freeze()
}

pub(super) fn read_state(row: Option<Bytes>) -> Result<Read, Error> {
    let Some(row) = row else {
        return Ok(Read::default());
    };
    let version = KeyReader::new(&row).number();
    Ok(Read {
        version: Version(version.ok_or_else(|| bad_key("a state row"))?),
        value: Some(row.slice(8..)),
    })
}

/// A row as a batch sees it.
pub(super) fn load<T: serde::de::DeserializeOwned>(
    batch: &Batch<'_>,
    table: Table,
    key: &Bytes,
) -> Result<Option<T>, Error> {
    let row = batch.get(table, key)?;
    row.map(|row| store::decode(&row)).transpose()
}

fn bad_key(of: &str) -> Error {
    Error::Unavailable(format!(
        "the key of {of} can't be read: run the version that wrote the store"
    ))
}
