//! Structured mode: the whole event in the body, in the JSON event format.

use std::borrow::Cow;
use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use serde::de::{Error as _, MapAccess, Visitor};
use serde::ser::SerializeMap as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;

use super::attribute::{self, Attributes};
use super::error::Error;
use super::media;
use crate::event::{Event, Headers, Value};

const CONTENT_TYPE: &str = "application/cloudevents+json";
/// Members of one object: more than any event may have attributes, so that a hostile body costs no more than its own bytes.
const MEMBERS_MAX: usize = 512;
/// What `data` is if nothing says so (JSON event format, section 3.1).
const IMPLIED: &str = "application/json";

/// Whether a body without headers is worth reading as an event.
pub(super) fn is_likely(payload: &[u8]) -> bool {
    payload.trim_ascii_start().starts_with(b"{")
        && std::str::from_utf8(payload).is_ok_and(|text| text.contains("\"specversion\""))
}

/// Reads an event. JSON data is the exact text that stands in the body, and shares it.
pub(super) fn decode(payload: &Bytes) -> Result<Event, Error> {
    let Members(members) = serde_json::from_slice(payload).map_err(|error| Error::json(&error))?;
    let mut attributes = Attributes::default();
    let mut data = None;
    for (Member(name), raw) in &members {
        match name.as_ref() {
            "data" | "data_base64" => set_data(&mut data, name, raw)?,
            name => set_attribute(&mut attributes, name, raw.get())?,
        }
    }
    let data = match data {
        Some(Data::Plain(raw)) => read_plain(payload, &mut attributes, raw)?,
        Some(Data::Base64(raw)) => read_base64(raw)?,
        None => None,
    };
    attributes.finish(data)
}

enum Data<'a> {
    Plain(&'a RawValue),
    Base64(&'a RawValue),
}

fn set_data<'a>(data: &mut Option<Data<'a>>, name: &str, raw: &'a RawValue) -> Result<(), Error> {
    let found = match name {
        "data" => Data::Plain(raw),
        _ => Data::Base64(raw),
    };
    match data.replace(found) {
        Some(_) => Err(Error::Data {
            rule: "data and data_base64 exclude each other, and each is there once",
        }),
        None => Ok(()),
    }
}

fn set_attribute(attributes: &mut Attributes, name: &str, raw: &str) -> Result<(), Error> {
    let value = match raw.as_bytes().first() {
        Some(b'n') => return Ok(()),
        Some(b't') => Some(Value::Boolean(true)),
        Some(b'f') => Some(Value::Boolean(false)),
        Some(b'"') => serde_json::from_str(raw).ok().map(Value::String),
        // Objects and arrays are no numbers either.
        _ => raw.parse().ok().map(Value::Integer),
    };
    let rule = "an attribute is a string, a boolean or a whole number of 32 bits";
    attributes.set(name, value.ok_or_else(|| Error::value(name, raw, rule))?)
}

/// Reads `data`. An event that does not say what it is has JSON, and says so from here on: in another mode nothing would imply it.
fn read_plain(payload: &Bytes, attributes: &mut Attributes, raw: &RawValue) -> Result<Option<Bytes>, Error> {
    let implied = attributes.datacontenttype().is_none();
    if implied {
        attributes.set("datacontenttype", Value::String(IMPLIED.to_owned()))?;
    }
    let is_json = attributes.datacontenttype().is_some_and(media::is_json);
    match raw.get().as_bytes().first() {
        // A JSON string or null is JSON like any other; in another type the string is the text, and null is nothing.
        _ if is_json => Ok(Some(payload.slice_ref(raw.get().as_bytes()))),
        Some(b'"') => string(raw).map(|text| Some(text.into())),
        Some(b'n') => Ok(None),
        _ => Err(Error::Data {
            rule: "with a datacontenttype that is not JSON, data must be a string",
        }),
    }
}

fn read_base64(raw: &RawValue) -> Result<Option<Bytes>, Error> {
    if raw.get() == "null" {
        return Ok(None);
    }
    let bytes = BASE64.decode(string(raw)?).map_err(|_| Error::Data {
        rule: "data_base64 is not base64 with padding",
    })?;
    Ok(Some(bytes.into()))
}

fn string(raw: &RawValue) -> Result<String, Error> {
    serde_json::from_str(raw.get()).map_err(|_| Error::Data {
        rule: "it is no string, or no Unicode",
    })
}

/// The members of a JSON object, in order, values unread.
struct Members<'a>(Vec<(Member<'a>, &'a RawValue)>);

#[derive(Deserialize)]
struct Member<'a>(#[serde(borrow)] Cow<'a, str>);

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;

        impl<'de> Visitor<'de> for Object {
            type Value = Members<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::with_capacity(16);
                while let Some(member) = map.next_entry()? {
                    if members.len() == MEMBERS_MAX {
                        return Err(A::Error::custom("more members than an event may have"));
                    }
                    members.push(member);
                }
                Ok(Members(members))
            }
        }

        deserializer.deserialize_map(Object)
    }
}

/// Writes an event.
pub(super) fn encode(event: &Event) -> (Headers, Bytes) {
    let mut headers = Headers::default();
    headers.push("Content-Type", CONTENT_TYPE);
    // Serialising strings, numbers and checked raw JSON into memory can't fail.
    let body = serde_json::to_vec(&Envelope(event)).unwrap_or_default();
    (headers, body.into())
}

struct Envelope<'a>(&'a Event);

impl Serialize for Envelope<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let event = self.0;
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("specversion", "1.0")?;
        for (name, value) in attribute::named(event) {
            map.serialize_entry(name, value)?;
        }
        for extension in &event.extensions {
            match &extension.value {
                Value::Boolean(value) => map.serialize_entry(&extension.name, value)?,
                Value::Integer(value) => map.serialize_entry(&extension.name, value)?,
                Value::String(value) => map.serialize_entry(&extension.name, value)?,
            }
        }
        match written(event) {
            Some(Written::Json(raw)) => map.serialize_entry("data", raw)?,
            Some(Written::Text(text)) => map.serialize_entry("data", text)?,
            Some(Written::Binary(bytes)) => {
                map.serialize_entry("data_base64", &BASE64.encode(bytes))?;
            }
            None => {}
        }
        map.end()
    }
}

enum Written<'a> {
    Json(&'a RawValue),
    Text(&'a str),
    Binary(&'a [u8]),
}

/// How the data stands in JSON. Without a `datacontenttype` nothing may be assumed of it, so it is base64 even if it looks like
/// JSON (JSON event format, section 3.1.1).
fn written(event: &Event) -> Option<Written<'_>> {
    let data = event.data.as_deref()?;
    let datacontenttype = event.datacontenttype.as_deref().unwrap_or_default();
    let readable = if media::is_json(datacontenttype) {
        serde_json::from_slice(data).ok().map(Written::Json)
    } else if media::is_text(datacontenttype) {
        std::str::from_utf8(data).ok().map(Written::Text)
    } else {
        None
    };
    Some(readable.unwrap_or(Written::Binary(data)))
}
