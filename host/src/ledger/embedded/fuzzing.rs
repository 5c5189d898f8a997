//! What `host/fuzz` reaches here: rows that are read back from the disk.

use bytes::Bytes;

use super::outbox;
use super::rows::{self, Attempts, Lane, Letter, Ordered, Parked};
use crate::ledger::{DeadLetter, RowId};
use crate::store;
use crate::store::fuzzing::{self, Read};

/// The kinds of rows.
pub const KINDS: u8 = 8;

/// Reads a row of one of the [`KINDS`].
#[must_use]
pub fn read(kind: u8, row: &Bytes) -> Read {
    match kind % KINDS {
        0 => fuzzing::value::<Letter>(row),
        1 => fuzzing::value::<Ordered>(row),
        2 => fuzzing::value::<Parked>(row),
        3 => fuzzing::value::<Lane>(row),
        4 => fuzzing::value::<Attempts>(row),
        5 => fuzzing::value::<Vec<u64>>(row),
        6 => {
            let read = rows::read_state(Some(row.clone())).ok()?;
            let again = rows::write_state(read.version.0, read.value.as_deref().unwrap_or_default());
            Some((format!("{read:?}"), again))
        }
        _ => {
            let rows = outbox::read_sheet(row).ok()?;
            let again = rows.iter().try_fold(Vec::new(), |sheet, row| {
                let RowId(id) = row.id;
                store::encode_onto(sheet, &(id, &row.consumer, &row.output))
            });
            Some((format!("{rows:?}"), again.ok()?.into()))
        }
    }
}

/// The dead letter in a row of the first kind.
#[must_use]
pub fn letter(row: &[u8]) -> Option<DeadLetter> {
    store::decode::<Letter>(row).ok().map(|row| row.letter)
}

/// A row of the first kind.
#[must_use]
pub fn row(letter: DeadLetter) -> Option<Bytes> {
    let row = Letter {
        order: 1,
        applied: 0,
        parked: None,
        payload: 0,
        letter,
    };
    store::encode(&row).ok()
}

/// Takes a key apart in every way.
pub fn key(key: &[u8]) {
    let _ = (
        rows::read_number(key),
        rows::read_parked_key(key),
        rows::read_count_key(key),
    );
    let _ = (rows::read_lane_key(b"", key), rows::state_name(b"", key));
}
