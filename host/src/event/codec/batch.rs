//! Batch mode: a JSON array of events, over HTTP only.

use bytes::Bytes;
use serde_json::value::RawValue;

use super::error::Error;
use super::structured;
use crate::event::Event;

/// Reads the events of a batch, in order. An empty batch is one.
///
/// # Errors
/// [`Error::Json`] if the body is no array, [`Error::InBatch`] with the index of the first that is no event: take all or none.
pub fn decode_batch(payload: &Bytes) -> Result<Vec<Event>, Error> {
    let items: Vec<&RawValue> = serde_json::from_slice(payload).map_err(|error| Error::json(&error))?;
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
