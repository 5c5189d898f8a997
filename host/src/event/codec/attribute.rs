//! The rules of CloudEvents attributes, whatever carries them: names, values, bounds.

use bytes::Bytes;

use super::error::Error;
use crate::event::{Event, Extension, Value};

/// Names and values of one event in all. What intermediaries must forward is 64 KiB with the data, so more is never portable.
const BYTES_MAX: usize = 64 * 1024;
/// Extensions of one event. Finding one is a linear search, which this keeps short; known producers send fewer than 30.
pub(crate) const EXTENSIONS_MAX: usize = 128;

/// Collects attributes into an event, each checked as it comes.
#[derive(Default)]
pub(super) struct Attributes {
    event: Event,
    is_versioned: bool,
    weight: Weight,
}

impl Attributes {
    /// Sets an attribute once.
    pub(super) fn set(&mut self, name: &str, value: Value) -> Result<(), Error> {
        self.weight.add(name, bytes(&value))?;
        if !is_core(name) {
            return self.set_extension(name, value);
        }
        let text = text(name, value)?;
        check_core(name, &text)?;
        match name {
            "specversion" if std::mem::replace(&mut self.is_versioned, true) => Err(twice(name)),
            "specversion" => Ok(()),
            "id" => fill(&mut self.event.id, name, text),
            "source" => fill(&mut self.event.source, name, text),
            "type" => fill(&mut self.event.kind, name, text),
            "subject" => once(&mut self.event.subject, name, text),
            "time" => once(&mut self.event.time, name, text),
            "datacontenttype" => once(&mut self.event.datacontenttype, name, text),
            _ => once(&mut self.event.dataschema, name, text),
        }
    }

    /// The `datacontenttype` so far.
    pub(super) fn datacontenttype(&self) -> Option<&str> {
        self.event.datacontenttype.as_deref()
    }

    /// The event, if nothing required is absent.
    pub(super) fn finish(self, data: Option<Bytes>) -> Result<Event, Error> {
        if !self.is_versioned {
            return Err(Error::Missing { name: "specversion" });
        }
        check_required(&self.event)?;
        Ok(Event { data, ..self.event })
    }

    fn set_extension(&mut self, name: &str, value: Value) -> Result<(), Error> {
        check_extension(name, &value, &self.event.extensions)?;
        self.event.extensions.push(Extension {
            name: name.to_owned(),
            value,
        });
        Ok(())
    }
}

/// The bytes of the names and values so far.
#[derive(Default)]
struct Weight(usize);

impl Weight {
    fn add(&mut self, name: &str, value_bytes: usize) -> Result<(), Error> {
        self.0 = self.0.saturating_add(name.len() + value_bytes);
        if self.0 > BYTES_MAX {
            return Err(Error::TooLarge {
                max: BYTES_MAX,
                unit: "bytes",
            });
        }
        Ok(())
    }
}

fn bytes(value: &Value) -> usize {
    match value {
        Value::String(text) => text.len(),
        Value::Boolean(_) | Value::Integer(_) => 4,
    }
}

/// Checks an event that was built by hand.
pub(super) fn check(event: &Event) -> Result<(), Error> {
    check_required(event)?;
    let mut weight = Weight::default();
    weight.add("specversion", "1.0".len())?;
    for (name, value) in named(event) {
        weight.add(name, value.len())?;
        check_core(name, value)?;
    }
    let mut before: &[Extension] = &[];
    for (index, extension) in event.extensions.iter().enumerate() {
        weight.add(&extension.name, bytes(&extension.value))?;
        if is_core(&extension.name) {
            return Err(twice(&extension.name));
        }
        check_extension(&extension.name, &extension.value, before)?;
        before = event.extensions.get(..=index).unwrap_or_default();
    }
    Ok(())
}

fn check_required(event: &Event) -> Result<(), Error> {
    let required = [("id", &event.id), ("source", &event.source), ("type", &event.kind)];
    match required.into_iter().find(|(_, value)| value.is_empty()) {
        Some((name, _)) => Err(Error::Missing { name }),
        None => Ok(()),
    }
}

/// The attributes that have a field of their own, without `specversion`, in the order in which they are written.
pub(super) fn named(event: &Event) -> impl Iterator<Item = (&'static str, &str)> {
    [
        ("id", Some(event.id.as_str())),
        ("source", Some(event.source.as_str())),
        ("type", Some(event.kind.as_str())),
        ("subject", event.subject.as_deref()),
        ("time", event.time.as_deref()),
        ("datacontenttype", event.datacontenttype.as_deref()),
        ("dataschema", event.dataschema.as_deref()),
    ]
    .into_iter()
    .filter_map(|(name, value)| value.map(|value| (name, value)))
}

fn is_core(name: &str) -> bool {
    matches!(
        name,
        "specversion" | "id" | "source" | "type" | "subject" | "time" | "datacontenttype" | "dataschema"
    )
}

fn check_core(name: &str, value: &str) -> Result<(), Error> {
    check_characters(name, value)?;
    let broken = match name {
        _ if value.is_empty() => "it must not be empty",
        "specversion" if value != "1.0" => {
            let found = super::error::cut(value);
            return Err(Error::Specversion { found });
        }
        // Lenient: producers put much into `source` that no URI parser takes, and nothing here follows it.
        "source" | "dataschema" if value.chars().any(char::is_whitespace) => {
            "a URI has no white space: escape it as %20"
        }
        "time" if !is_rfc3339(value) => "it must be RFC 3339, like 2026-04-05T17:31:00Z",
        _ => return Ok(()),
    };
    Err(Error::value(name, value, broken))
}

fn check_extension(name: &str, value: &Value, others: &[Extension]) -> Result<(), Error> {
    if let Value::String(text) = value {
        check_characters(name, text)?;
    }
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    if name.is_empty() || name == "data" || !name.bytes().all(allowed) {
        return Err(Error::name(name));
    }
    if others.iter().any(|other| other.name == name) {
        return Err(twice(name));
    }
    if others.len() == EXTENSIONS_MAX {
        return Err(Error::TooLarge {
            max: EXTENSIONS_MAX,
            unit: "extensions",
        });
    }
    Ok(())
}

/// Section 2.3 of the specification forbids U+0000-U+001F and U+007F-U+009F, which is what `is_control` says.
fn check_characters(name: &str, value: &str) -> Result<(), Error> {
    if value.chars().any(char::is_control) {
        return Err(Error::value(name, value, "control characters are not allowed"));
    }
    Ok(())
}

fn text(name: &str, value: Value) -> Result<String, Error> {
    match value {
        Value::String(text) => Ok(text),
        other => Err(Error::value(name, &other.to_string(), "it must be a string")),
    }
}

/// jiff alone would take more than RFC 3339 (basic format, no seconds, annotations), so the shape is checked first.
fn is_rfc3339(text: &str) -> bool {
    let (Some(local), Some(rest)) = (text.get(..19), text.get(19..)) else {
        return false;
    };
    let has_shape = local.bytes().enumerate().all(|(i, byte)| match i {
        4 | 7 => byte == b'-',
        10 => matches!(byte, b'T' | b't' | b' '),
        13 | 16 => byte == b':',
        _ => byte.is_ascii_digit(),
    });
    has_shape && local.parse::<jiff::civil::DateTime>().is_ok() && is_fraction_and_offset(rest)
}

fn is_fraction_and_offset(rest: &str) -> bool {
    let offset = match rest.strip_prefix('.') {
        Some(fraction) => {
            let offset = fraction.trim_start_matches(|c: char| c.is_ascii_digit());
            if offset.len() == fraction.len() {
                return false;
            }
            offset
        }
        None => rest,
    };
    matches!(offset, "Z" | "z") || is_numeric_offset(offset.as_bytes())
}

fn is_numeric_offset(offset: &[u8]) -> bool {
    match offset {
        [b'+' | b'-', h1, h2, b':', m1, m2] => {
            [h1, h2, m1, m2].into_iter().all(u8::is_ascii_digit) && (*h1, *h2) <= (b'2', b'3') && *m1 <= b'5'
        }
        _ => false,
    }
}

fn fill(field: &mut String, name: &str, value: String) -> Result<(), Error> {
    if !field.is_empty() {
        return Err(twice(name));
    }
    *field = value;
    Ok(())
}

fn once(field: &mut Option<String>, name: &str, value: String) -> Result<(), Error> {
    match field.replace(value) {
        Some(_) => Err(twice(name)),
        None => Ok(()),
    }
}

fn twice(name: &str) -> Error {
    Error::Duplicate {
        name: super::error::cut(name),
    }
}
