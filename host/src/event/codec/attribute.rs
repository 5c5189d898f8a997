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
        self.weight.add(name, &value)?;
        check_characters(name, &value)?;
        match name {
            "specversion" => self.set_specversion(value),
            "id" => fill(&mut self.event.id, name, text(name, value)?),
            "source" => fill(&mut self.event.source, name, text(name, value)?),
            "type" => fill(&mut self.event.kind, name, text(name, value)?),
            "subject" => once(&mut self.event.subject, name, text(name, value)?),
            "time" => once(&mut self.event.time, name, text(name, value)?),
            "datacontenttype" => once(&mut self.event.datacontenttype, name, text(name, value)?),
            "dataschema" => once(&mut self.event.dataschema, name, text(name, value)?),
            _ => self.set_extension(name, value),
        }
    }

    /// The `datacontenttype` so far.
    pub(super) fn datacontenttype(&self) -> Option<&str> {
        self.event.datacontenttype.as_deref()
    }

    /// The event, if nothing required is absent.
    pub(super) fn finish(self, data: Option<Bytes>) -> Result<Event, Error> {
        let required = [
            ("specversion", self.is_versioned),
            ("id", !self.event.id.is_empty()),
            ("source", !self.event.source.is_empty()),
            ("type", !self.event.kind.is_empty()),
        ];
        match required.into_iter().find(|(_, is_set)| !is_set) {
            Some((name, _)) => Err(Error::Missing { name }),
            None => Ok(Event { data, ..self.event }),
        }
    }

    fn set_specversion(&mut self, value: Value) -> Result<(), Error> {
        let found = text("specversion", value)?;
        if found != "1.0" {
            let found = super::error::cut(&found);
            return Err(Error::Specversion { found });
        }
        if std::mem::replace(&mut self.is_versioned, true) {
            return Err(twice("specversion"));
        }
        Ok(())
    }

    fn set_extension(&mut self, name: &str, value: Value) -> Result<(), Error> {
        check_name(name)?;
        if self.event.extension(name).is_some() {
            return Err(twice(name));
        }
        check_count(self.event.extensions.len())?;
        self.event.extensions.push(Extension {
            name: name.to_owned(),
            value,
        });
        Ok(())
    }
}

/// The bytes of names and values so far.
#[derive(Default)]
struct Weight(usize);

impl Weight {
    fn add(&mut self, name: &str, value: &Value) -> Result<(), Error> {
        match value {
            Value::String(text) => self.add_text(name, text),
            // About what either is in any format.
            Value::Boolean(_) | Value::Integer(_) => self.add_text(name, "true"),
        }
    }

    fn add_text(&mut self, name: &str, value: &str) -> Result<(), Error> {
        self.0 = self.0.saturating_add(name.len() + value.len());
        if self.0 > BYTES_MAX {
            return Err(Error::TooLarge {
                max: BYTES_MAX,
                unit: "bytes",
            });
        }
        Ok(())
    }
}

/// Checks an event that was built by hand.
pub(super) fn check(event: &Event) -> Result<(), Error> {
    let mut weight = Weight::default();
    let mut missing = None;
    weight.add_text("specversion", "1.0")?;
    for (name, value) in named(event) {
        if value.is_empty() && matches!(name, "id" | "source" | "type") {
            missing = missing.or(Some(name));
            continue;
        }
        weight.add_text(name, value)?;
        check_text_characters(name, value)?;
        check_text(name, value)?;
    }
    for (before, Extension { name, value }) in event.extensions.iter().enumerate() {
        weight.add(name, value)?;
        check_characters(name, value)?;
        check_name(name)?;
        if is_core(name) || event.extensions.iter().take(before).any(|known| known.name == *name) {
            return Err(twice(name));
        }
        check_count(before)?;
    }
    missing.map_or(Ok(()), |name| Err(Error::Missing { name }))
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

fn check_name(name: &str) -> Result<(), Error> {
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    if name.is_empty() || name == "data" || !name.bytes().all(allowed) {
        return Err(Error::name(name));
    }
    Ok(())
}

/// Whether there may be one more extension.
fn check_count(before: usize) -> Result<(), Error> {
    if before >= EXTENSIONS_MAX {
        return Err(Error::TooLarge {
            max: EXTENSIONS_MAX,
            unit: "extensions",
        });
    }
    Ok(())
}

fn check_characters(name: &str, value: &Value) -> Result<(), Error> {
    match value {
        Value::String(text) => check_text_characters(name, text),
        Value::Boolean(_) | Value::Integer(_) => Ok(()),
    }
}

/// Section 2.3 of the specification forbids U+0000-U+001F and U+007F-U+009F, which is what `is_control` says.
fn check_text_characters(name: &str, text: &str) -> Result<(), Error> {
    if text.chars().any(char::is_control) {
        return Err(Error::value(name, text, "control characters are not allowed"));
    }
    Ok(())
}

/// The text of an attribute that has a field of its own.
fn text(name: &str, value: Value) -> Result<String, Error> {
    match value {
        Value::String(text) => check_text(name, &text).map(|()| text),
        other => Err(Error::value(name, &other.to_string(), "it must be a string")),
    }
}

fn check_text(name: &str, text: &str) -> Result<(), Error> {
    let rule = match name {
        _ if text.is_empty() => "it must not be empty",
        // A lenient check: producers put much into `source` that no URI parser takes, and nothing here follows it.
        "source" | "dataschema" if text.chars().any(char::is_whitespace) => {
            "a URI has no white space: escape it as %20"
        }
        "time" if !is_rfc3339(text) => "it must be RFC 3339, like 2026-04-05T17:31:00Z",
        _ => return Ok(()),
    };
    Err(Error::value(name, text, rule))
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
