//! Foreign messages: an event made of a message by its stream's mapping.

use sha2::{Digest as _, Sha256};

use super::attribute::Attributes;
use super::error::Error;
use crate::event::{Event, Message, Value, pointer};
use crate::plan::{Mapping, Origin};

/// Makes an event of a message. Its data is the whole body; its `datacontenttype` the mapping's, else the message's `Content-Type`.
pub(super) fn decode(message: &Message, mapping: &Mapping) -> Result<Event, Error> {
    let mut attributes = Attributes::default();
    attributes.set("specversion", Value::String("1.0".to_owned()))?;
    let origins = [
        ("id", Some(&mapping.id)),
        ("source", Some(&mapping.source)),
        ("type", Some(&mapping.kind)),
        ("subject", mapping.subject.as_ref()),
    ];
    for (name, origin) in origins {
        if let Some(origin) = origin {
            attributes.set(name, Value::String(find(message, name, origin)?))?;
        }
    }
    if let Some(media_type) = datacontenttype(message, mapping) {
        attributes.set("datacontenttype", Value::String(media_type))?;
    }
    let data = (!message.payload.is_empty()).then(|| message.payload.clone());
    attributes.finish(data)
}

fn datacontenttype(message: &Message, mapping: &Mapping) -> Option<String> {
    let header = || {
        let header = message.headers.get("content-type")?.trim_ascii();
        String::from_utf8(header.to_vec()).ok()
    };
    mapping
        .datacontenttype
        .clone()
        .or_else(header)
        .filter(|media_type| !media_type.is_empty())
}

fn find(message: &Message, name: &'static str, origin: &Origin) -> Result<String, Error> {
    let found = match origin {
        Origin::Fixed(text) => Some(text.clone()),
        Origin::Header(header) => message
            .headers
            .get(header)
            .and_then(|value| String::from_utf8(value.trim_ascii().to_vec()).ok()),
        Origin::Data(path) => pointer::scalar(&message.payload, path),
        Origin::Subject => Some(message.subject.clone()),
        Origin::Hash => Some(hash(message)),
    };
    found.filter(|text| !text.is_empty()).ok_or_else(|| Error::Origin {
        name,
        origin: words(origin),
    })
}

/// Hex of the first 128 bits of SHA-256 over place and body, the place with its length before it.
fn hash(message: &Message) -> String {
    let mut hasher = Sha256::new();
    hasher.update((message.subject.len() as u64).to_le_bytes());
    hasher.update(&message.subject);
    hasher.update(&message.payload);
    hasher
        .finalize()
        .iter()
        .take(16)
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

fn words(origin: &Origin) -> String {
    match origin {
        Origin::Fixed(text) => format!("\"{text}\""),
        Origin::Header(name) => format!("header:{name}"),
        Origin::Data(path) => format!("data:{path}"),
        Origin::Subject => "subject".to_owned(),
        Origin::Hash => "hash".to_owned(),
    }
}
