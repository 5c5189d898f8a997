//! Binary mode: attributes in headers, data in the body.

use bytes::Bytes;

use super::attribute::{self, Attributes};
use super::error::Error;
use super::{Binding, media, percent};
use crate::event::{Event, Headers, Message, Value};

const PREFIX: &str = "ce-";

/// Whether a header of a required attribute marks the message as an event. Other `ce-` headers alone do not: they may be anyone's.
pub(super) fn is_marked(headers: &Headers) -> bool {
    headers.iter().filter_map(|(name, _)| attribute_name(name)).any(|name| {
        ["specversion", "id", "source", "type"]
            .iter()
            .any(|required| name.eq_ignore_ascii_case(required))
    })
}

/// Reads an event.
pub(super) fn decode(message: &Message, binding: Binding) -> Result<Event, Error> {
    let mut attributes = Attributes::default();
    let mut name = String::new();
    for (header, value) in message.headers.iter() {
        if let Some(found) = attribute_name(header) {
            found.clone_into(&mut name);
            name.make_ascii_lowercase();
            set(&mut attributes, &name, value, binding)?;
        }
    }
    if binding == Binding::Http {
        set_content_type(&mut attributes, &message.headers)?;
    }
    let data = (!message.payload.is_empty()).then(|| message.payload.clone());
    attributes.finish(data)
}

fn set(attributes: &mut Attributes, name: &str, header: &[u8], binding: Binding) -> Result<(), Error> {
    let value = percent::decode(header).map_err(|rule| Error::encoding(name, header, rule))?;
    if binding == Binding::Http && name == "datacontenttype" {
        return Err(Error::value(
            name,
            &value,
            "over HTTP, Content-Type says it and ce-datacontenttype is not allowed",
        ));
    }
    attributes.set(name, Value::String(value))
}

/// `Content-Type` is taken as it stands: it has a syntax of its own and is not percent-encoded.
fn set_content_type(attributes: &mut Attributes, headers: &Headers) -> Result<(), Error> {
    let header = headers.get("content-type").unwrap_or_default().trim_ascii();
    if header.is_empty() {
        return Ok(());
    }
    let value = std::str::from_utf8(header)
        .map_err(|_| Error::encoding("datacontenttype", header, "Content-Type is not UTF-8"))?;
    attributes.set("datacontenttype", Value::String(value.to_owned()))
}

/// Whether binary mode can carry an event. Not over HTTP if its data is itself declared a CloudEvent, as `Content-Type` would then
/// say that the whole message is structured; nor if its `datacontenttype` has blanks around it, which a header loses, or more than ASCII.
pub(super) fn can_carry(event: &Event, binding: Binding) -> bool {
    let content_type = event.datacontenttype.as_deref().unwrap_or_default().as_bytes();
    let is_kept = content_type.trim_ascii() == content_type && content_type.is_ascii();
    binding == Binding::Nats || is_kept && media::declared(content_type).is_none()
}

/// Writes an event.
pub(super) fn encode(event: &Event, binding: Binding) -> (Headers, Bytes) {
    let mut lines = Lines::for_one();
    lines.push("specversion", "1.0");
    for (name, value) in attribute::named(event) {
        match (name, binding) {
            ("datacontenttype", Binding::Http) => lines.headers.push("Content-Type", value),
            _ => lines.push(name, value),
        }
    }
    for extension in &event.extensions {
        match &extension.value {
            Value::String(value) => lines.push(&extension.name, value),
            other => lines.push(&extension.name, &other.to_string()),
        }
    }
    (lines.headers, event.data.clone().unwrap_or_default())
}

/// Headers, and the name of the line that is written, which keeps its prefix from one to the next.
struct Lines {
    headers: Headers,
    name: String,
}

impl Lines {
    /// With memory for what most events have.
    fn for_one() -> Self {
        let mut name = String::with_capacity(32);
        name.push_str(PREFIX);
        Self {
            headers: Headers::with_capacity(12, 512),
            name,
        }
    }

    fn push(&mut self, attribute: &str, value: &str) {
        self.name.truncate(PREFIX.len());
        self.name.push_str(attribute);
        self.headers.push(&self.name, percent::encode(value).as_bytes());
    }
}

fn attribute_name(header: &str) -> Option<&str> {
    let (prefix, name) = header.split_at_checked(PREFIX.len())?;
    prefix.eq_ignore_ascii_case(PREFIX).then_some(name)
}
