//! Where an event is written: the stream's place with the event's attributes in it.
//!
//! Attributes come from outside, so a place is checked for what it would mean to the broker: no wildcard, no subject of the
//! server's own, no way up a URL.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use super::error::{Error, cut};
use crate::event::Event;
use crate::plan::{Place, Stream, Template, TemplatePart};

/// The longest place, in bytes. A NATS control line holds 4,096 with everything else on it.
const BYTES_MAX: usize = 2_048;
/// What stands unescaped in a path segment: the unreserved characters of RFC 3986.
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// The place for an event.
pub(super) fn render(event: &Event, stream: &Stream) -> Result<String, Error> {
    match &stream.place {
        Place::Log(_) => Ok(stream.name.to_string()),
        Place::JetStream(jetstream) => match &jetstream.subject {
            Some(template) => subject(event, stream, template),
            None => Err(Error::NotWritable {
                stream: stream.name.to_string(),
            }),
        },
        Place::Path(template) => path(event, stream, template),
    }
}

fn subject(event: &Event, stream: &Stream, template: &Template) -> Result<String, Error> {
    let place = fill(event, stream, template, |value| value.to_owned())?;
    let forbidden = |c: char| c.is_whitespace() || c.is_control() || matches!(c, '*' | '>');
    let rule = if place.contains(forbidden) {
        "a NATS subject has no white space, no control characters and no wildcard"
    } else if place.split('.').any(str::is_empty) {
        "no token of a NATS subject is empty"
    } else if place.starts_with('$') && !is_literal_start(template, '$') {
        "subjects that begin with $ are the server's own"
    } else {
        return within(place, stream);
    };
    Err(bad(stream, &place, rule))
}

fn path(event: &Event, stream: &Stream, template: &Template) -> Result<String, Error> {
    let place = fill(event, stream, template, |value| {
        utf8_percent_encode(value, ESCAPED).to_string()
    })?;
    if place.split('/').any(|segment| matches!(segment, "." | "..")) {
        return Err(bad(stream, &place, "no segment of a path is . or .."));
    }
    within(place, stream)
}

fn fill(
    event: &Event,
    stream: &Stream,
    template: &Template,
    written: impl Fn(&str) -> String,
) -> Result<String, Error> {
    let mut place = String::new();
    for part in &template.parts {
        match part {
            TemplatePart::Literal(text) => place.push_str(text),
            TemplatePart::Attribute(name) => match event.attribute(name) {
                Some(value) if !value.is_empty() => place.push_str(&written(&value)),
                _ => {
                    let rule = format!("the event has no {name}");
                    return Err(bad(stream, &format!("{place}{{{name}}}"), &rule));
                }
            },
        }
    }
    Ok(place)
}

fn within(place: String, stream: &Stream) -> Result<String, Error> {
    if place.len() > BYTES_MAX {
        let rule = format!("it is {} bytes long, at most {BYTES_MAX} fit", place.len());
        return Err(bad(stream, &place, &rule));
    }
    Ok(place)
}

fn is_literal_start(template: &Template, start: char) -> bool {
    matches!(template.parts.first(), Some(TemplatePart::Literal(text)) if text.starts_with(start))
}

fn bad(stream: &Stream, place: &str, rule: &str) -> Error {
    Error::BadPlace {
        stream: stream.name.to_string(),
        place: cut(place),
        rule: rule.to_owned(),
    }
}
