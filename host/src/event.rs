//! A CloudEvents 1.0 event, and the message that carries it.
//!
//! A [`Message`] is what a broker moves: headers and bytes, uninterpreted. An [`Event`] is what a plugin handles. [`codec`]
//! turns one into the other; what it refuses keeps its message untouched, so that a dead letter can show it.

use std::fmt;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

pub mod codec;
mod headers;
pub mod key;
mod pointer;

pub use headers::Headers;

/// Headers that say to which trace a hop belongs (W3C Trace Context, W3C Baggage). They are no attributes of the event, and go on with whatever
/// it causes.
pub const TRACE_HEADERS: [&str; 3] = ["traceparent", "tracestate", "baggage"];

/// One CloudEvents 1.0 event. Attribute names and values were checked by whoever built it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// `id`: with `source`, what makes the event itself. Not empty.
    pub id: String,
    /// `source`: a URI reference. Not empty.
    pub source: String,
    /// `type`: what happened. Not empty.
    pub kind: String,
    /// `subject`, if any. Not empty.
    pub subject: Option<String>,
    /// `time`, if any, as RFC 3339 text exactly as it arrived.
    pub time: Option<String>,
    /// `datacontenttype`, if any: the media type of `data`.
    pub datacontenttype: Option<String>,
    /// `dataschema`, if any: a URI.
    pub dataschema: Option<String>,
    /// Extension attributes, in order of arrival; names are `[a-z0-9]+` and unique.
    pub extensions: Vec<Extension>,
    /// The payload; `None` if the event has none, which is not the same as empty.
    pub data: Option<Bytes>,
}

impl Event {
    /// The value of an attribute or extension in its canonical string form, by its CloudEvents name.
    #[must_use]
    pub fn attribute(&self, name: &str) -> Option<String> {
        match name {
            "id" => Some(self.id.clone()),
            "source" => Some(self.source.clone()),
            "type" => Some(self.kind.clone()),
            "specversion" => Some("1.0".to_owned()),
            "subject" => self.subject.clone(),
            "time" => self.time.clone(),
            "datacontenttype" => self.datacontenttype.clone(),
            "dataschema" => self.dataschema.clone(),
            _ => self.extension(name).map(ToString::to_string),
        }
    }

    /// The value of an extension.
    #[must_use]
    pub fn extension(&self, name: &str) -> Option<&Value> {
        self.extensions
            .iter()
            .find(|extension| extension.name == name)
            .map(|extension| &extension.value)
    }
}

/// An extension attribute.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Extension {
    /// `[a-z0-9]+`.
    pub name: String,
    /// Its value, with the type it arrived with where the format carries types.
    pub value: Value,
}

/// A value of the CloudEvents type system. URIs and timestamps are strings in every format we speak. `Display` gives the
/// canonical string form (CloudEvents 1.0, section 2.3).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Value {
    /// `true` or `false`.
    Boolean(bool),
    /// A 32-bit signed whole number.
    Integer(i32),
    /// Text.
    String(String),
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Boolean(value) => value.fmt(f),
            Self::Integer(value) => value.fmt(f),
            Self::String(value) => f.write_str(value),
        }
    }
}

/// What a broker moves: headers and bytes as they are on the wire. Cloning shares the payload.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// The place in the broker's own words: a NATS subject, a topic, a path. Empty where a broker has no such word.
    pub subject: String,
    /// Header lines in order of arrival.
    pub headers: Headers,
    /// The body.
    pub payload: Bytes,
}

impl Message {
    /// What the message weighs against a budget: payload, headers and subject, in bytes.
    #[must_use]
    pub fn size(&self) -> usize {
        self.payload.len() + self.subject.len() + self.headers.size()
    }
}
