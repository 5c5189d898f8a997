//! What `host/fuzz` reaches here: rows that are read back from the disk.

use std::fmt::Debug;

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::keys::{self, KeyReader};
use super::logs::{self, Head};
use super::tables::Record;
use super::{cursors, journal};
use crate::broker::Position;

/// A row as it was understood, and as it is written again.
pub type Read = Option<(String, Bytes)>;

/// The kinds of rows that the store has of its own.
pub const KINDS: u8 = 5;

/// Reads a row of one of the [`KINDS`].
#[must_use]
pub fn read(kind: u8, row: &Bytes) -> Read {
    match kind % KINDS {
        0 => value::<Head>(row),
        1 => value::<u64>(row),
        2 => value::<Position>(row),
        3 => {
            let record = Record::from_bytes(row).ok()?;
            Some((format!("{record:?}"), Bytes::copy_from_slice(&record.to_bytes())))
        }
        _ => {
            let (at, message) = (logs::appended_at(row), logs::decode_entry(row).ok()?);
            let again = logs::encode_entry(at, &message).ok()?;
            Some((format!("{at} {message:?}"), again.into()))
        }
    }
}

/// Reads a row that is one value.
pub(crate) fn value<T: Serialize + DeserializeOwned + Debug>(row: &[u8]) -> Read {
    let value: T = keys::decode(row).ok()?;
    Some((format!("{value:?}"), keys::encode(&value).ok()?))
}

/// Takes a key apart in every way; gives its parts.
#[must_use]
pub fn key(key: &[u8]) -> Vec<Vec<u8>> {
    let mut reader = KeyReader::new(key);
    let _ = (
        logs::log_number(key),
        cursors::read_key(key),
        KeyReader::new(key).signed(),
    );
    std::iter::from_fn(|| reader.part().map(<[u8]>::to_vec)).collect()
}

/// The length of the whole batch that a piece of a journal begins with, and whether one begins anywhere in it.
#[must_use]
pub fn batch(journal: &[u8]) -> (Option<usize>, bool) {
    (journal::batch_length(journal), journal::has_batch(journal))
}
