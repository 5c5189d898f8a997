//! The ordering key of an event.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::{Event, pointer};
use crate::plan;

/// The longest key that is kept as it is, in bytes.
const BYTES_MAX: usize = 1_024;

/// The ordering key of a lane, whole: two keys never share a lane. At most 1 KiB.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct LaneKey(pub Arc<[u8]>);

/// The event's data has no key where the consumer reads it: a dead letter `no-key`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the event's data has no string, number or boolean at \"{pointer}\": it needs an ordering key there, or the consumer another `key`"
)]
pub struct NoKey {
    /// The JSON pointer that the consumer's `key` names.
    pub pointer: String,
}

/// The lane of an event. Numbers and booleans count as their text; a key over 1 KiB is its SHA-256 in hex.
///
/// # Errors
/// [`NoKey`] if the key is read from the data and nothing fit is there: the event will never have one.
pub fn key(event: &Event, key: &plan::Key) -> Result<LaneKey, NoKey> {
    let text = match key {
        plan::Key::Attribute(name) => attribute(event, name),
        plan::Key::Data(pointer) => data(event, pointer)?,
        // Ids are unique by source only. No source has a control character, so no other pair gives the same text.
        plan::Key::None => format!("{}\0{}", event.source, event.id),
    };
    Ok(LaneKey(bounded(text)))
}

/// An event without the attribute, or with an empty one, waits for nobody: its id is its key.
fn attribute(event: &Event, name: &str) -> String {
    event
        .attribute(name)
        .filter(|value| !value.is_empty())
        .unwrap_or_else(|| event.id.clone())
}

fn data(event: &Event, pointer: &str) -> Result<String, NoKey> {
    let data = event.data.as_deref().unwrap_or_default();
    pointer::scalar(data, pointer).ok_or_else(|| NoKey {
        pointer: pointer.to_owned(),
    })
}

fn bounded(text: String) -> Arc<[u8]> {
    if text.len() <= BYTES_MAX {
        return text.into_bytes().into();
    }
    let hex: String = Sha256::digest(text).iter().map(|byte| format!("{byte:02x}")).collect();
    hex.into_bytes().into()
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::event::{Extension, Value};

    fn event() -> Event {
        Event {
            id: "e-1".to_owned(),
            source: "/shop".to_owned(),
            kind: "order.placed".to_owned(),
            subject: Some("order-7".to_owned()),
            extensions: vec![Extension {
                name: "shard".to_owned(),
                value: Value::Integer(3),
            }],
            data: Some(Bytes::from_static(br#"{"orderId":42,"lines":[{"sku":"A"}]}"#)),
            ..Event::default()
        }
    }

    fn check(key: plan::Key, expected: &str) {
        let lane = super::key(&event(), &key).expect("there is a key");
        assert_eq!(String::from_utf8_lossy(&lane.0), expected);
    }

    #[test]
    fn attributes_extensions_and_data_are_keys() {
        check(plan::Key::Attribute("subject".to_owned()), "order-7");
        check(plan::Key::Attribute("shard".to_owned()), "3");
        check(plan::Key::Data("/orderId".to_owned()), "42");
        check(plan::Key::Data("/lines/0/sku".to_owned()), "A");
        check(plan::Key::None, "/shop\0e-1");
    }

    #[test]
    fn an_absent_attribute_makes_the_id_the_key() {
        check(plan::Key::Attribute("partitionkey".to_owned()), "e-1");
    }

    #[test]
    fn data_without_the_key_is_an_error_that_names_the_pointer() {
        for data in [
            None,
            Some("plain text"),
            Some(r#"{"orderId":{}}"#),
            Some(r#"{"orderId":null}"#),
        ] {
            let event = Event {
                data: data.map(|text| Bytes::from_static(text.as_bytes())),
                ..event()
            };
            let error = key(&event, &plan::Key::Data("/orderId".to_owned())).expect_err("no key");
            assert_eq!(error.pointer, "/orderId");
        }
    }

    #[test]
    fn a_long_key_is_hashed_and_still_tells_apart() {
        let lane = |subject: String| {
            let event = Event {
                subject: Some(subject),
                ..event()
            };
            key(&event, &plan::Key::Attribute("subject".to_owned()))
                .expect("a key")
                .0
        };
        assert_eq!(lane("x".repeat(1_024)).len(), 1_024);
        let (one, other) = (lane("x".repeat(1_025)), lane("x".repeat(1_026)));
        assert_eq!((one.len(), other.len()), (64, 64));
        assert_ne!(one, other);
    }
}
