//! Batch mode: a JSON array of events, over HTTP only.

use std::fmt;

use bytes::Bytes;
use serde::de::{IgnoredAny, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use super::error::Error;
use super::structured;
use crate::event::Event;

/// Events of one batch. An event in memory weighs a kilobyte however short its text is: so a batch of nothing but small ones weighs no more than
/// the largest body that is taken.
pub const BATCH_EVENTS_MAX: usize = 1_000;

/// Reads the events of a batch, in order. An empty batch is one.
///
/// # Errors
/// [`Error::Json`] if the body is no array, [`Error::LongBatch`] if it has more than [`BATCH_EVENTS_MAX`] events, [`Error::InBatch`] with the
/// index of the first that is no event: take all or none.
pub fn decode_batch(payload: &Bytes) -> Result<Vec<Event>, Error> {
    let Items(items) = serde_json::from_slice(payload).map_err(|error| Error::json(&error))?;
    if items.len() > BATCH_EVENTS_MAX {
        return Err(Error::LongBatch { max: BATCH_EVENTS_MAX });
    }
    items
        .into_iter()
        .enumerate()
        .map(|(index, item)| {
            structured::decode(&payload.slice_ref(item.get().as_bytes())).map_err(|error| Error::InBatch {
                index,
                error: Box::new(error),
            })
        })
        .collect()
}

/// The elements of a JSON array, unread; of those that are too many, one.
struct Items<'a>(Vec<&'a RawValue>);

impl<'de> Deserialize<'de> for Items<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Array;

        impl<'de> Visitor<'de> for Array {
            type Value = Items<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an array")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
                let mut items = Vec::new();
                while items.len() <= BATCH_EVENTS_MAX {
                    match seq.next_element()? {
                        Some(item) => items.push(item),
                        None => return Ok(Items(items)),
                    }
                }
                while seq.next_element::<IgnoredAny>()?.is_some() {}
                Ok(Items(items))
            }
        }

        deserializer.deserialize_seq(Array)
    }
}
