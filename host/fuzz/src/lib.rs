//! What the fuzzers share: plans to decode by, and the rules that whatever is accepted must keep, written down a second time so that
//! they share nothing with the code that they check.

use std::path::Path;

use bytes::Bytes;
use tidegate::config;
use tidegate::event::codec::{self, Binding};
use tidegate::event::{Event, Message, Value};
use tidegate::plan::{ContentMode, Plan, Stream};

/// A stream of every kind.
pub const CONFIG: &str = r#"
[ledger]
url = "embedded:./data"
[broker.log]
url = "embedded:"
[broker.bus]
url = "nats://127.0.0.1:1"
[broker.hook]
url = "http://127.0.0.1:1/base"
[stream.log]
broker = "log"
[stream.log-structured]
broker = "log"
mode = "structured"
[stream.bus]
broker = "bus"
subject = "stock.{type}"
[stream.hook]
broker = "hook"
path = "{type}/{id}"
[stream.hook-structured]
broker = "hook"
mode = "structured"
[stream.foreign]
broker = "log"
mapping = { id = "data:/id", source = "header:x-source", type = "subject", subject = "data:/order/0/id" }
[stream.hashed]
broker = "log"
mapping = { id = "hash", source = "/shop", type = "header:x-type", datacontenttype = "application/json" }
"#;

/// The plan of a config that is right.
pub fn plan(config: &str) -> Plan {
    match config::parse(config, Path::new("tidegate.toml"), &|_| None) {
        Ok(loaded) => loaded.plan,
        Err(problems) => panic!("{problems}"),
    }
}

/// A message as text: its place on the first line, header lines, an empty line, the body.
pub fn message(input: &[u8]) -> Message {
    let mut message = Message::default();
    let mut rest = input;
    let (place, after) = line(rest);
    message.subject = String::from_utf8_lossy(place).into_owned();
    rest = after;
    while !rest.is_empty() {
        let (header, after) = line(rest);
        rest = after;
        if header.is_empty() {
            break;
        }
        let colon = header.iter().position(|byte| *byte == b':').unwrap_or(header.len());
        let (name, value) = header.split_at(colon);
        let value = value.strip_prefix(b":").unwrap_or(value).trim_ascii();
        message.headers.push(String::from_utf8_lossy(name), value);
    }
    message.payload = Bytes::copy_from_slice(rest);
    message
}

/// The first line of what is there, and the rest.
pub fn line(bytes: &[u8]) -> (&[u8], &[u8]) {
    match bytes.iter().position(|byte| *byte == b'\n') {
        Some(end) => (&bytes[..end], &bytes[end + 1..]),
        None => (bytes, &[]),
    }
}

/// CloudEvents 1.0, sections 2.2 and 3.1, as far as the host promises them.
pub fn keeps_the_rules(event: &Event) {
    let Event {
        id,
        source,
        kind,
        subject,
        time,
        datacontenttype,
        dataschema,
        extensions,
        ..
    } = event;
    let mut bytes = 0;
    for (name, value, required) in [
        ("id", Some(id), true),
        ("source", Some(source), true),
        ("type", Some(kind), true),
        ("subject", subject.as_ref(), false),
        ("time", time.as_ref(), false),
        ("datacontenttype", datacontenttype.as_ref(), false),
        ("dataschema", dataschema.as_ref(), false),
    ] {
        assert!(value.is_some() || !required);
        let Some(value) = value else { continue };
        assert!(!value.is_empty(), "{name} is empty");
        has_no_controls(value);
        bytes += name.len() + value.len();
    }
    for uri in [Some(source), dataschema.as_ref()].into_iter().flatten() {
        assert!(!uri.contains(char::is_whitespace), "{uri:?}");
    }
    assert!(
        time.as_ref().is_none_or(|time| time.is_ascii() && time.len() >= 20),
        "{time:?}"
    );
    let core = [
        "id",
        "source",
        "type",
        "specversion",
        "subject",
        "time",
        "datacontenttype",
        "dataschema",
        "data",
    ];
    for (index, extension) in extensions.iter().enumerate() {
        let name = extension.name.as_str();
        assert!(
            !name.is_empty()
                && name
                    .bytes()
                    .all(|byte| byte.is_ascii_digit() || byte.is_ascii_lowercase())
        );
        assert!(!core.contains(&name), "{name}");
        assert!(
            extensions.iter().skip(index + 1).all(|other| other.name != name),
            "{name} twice"
        );
        let value = extension.value.to_string();
        has_no_controls(&value);
        bytes += name.len();
        bytes += if let Value::String(text) = &extension.value {
            text.len()
        } else {
            0
        };
    }
    assert!(extensions.len() <= 128 && bytes <= 64 * 1024);
    assert_eq!(codec::check(event), Ok(()));
}

fn has_no_controls(text: &str) {
    assert!(
        text.chars().all(|c| !matches!(c as u32, 0..0x20 | 0x7f..0xa0)),
        "{text:?}"
    );
}

/// What an error says goes into logs and headers: one line, and not a long one.
pub fn is_said_on_a_line(text: &str) {
    has_no_controls(text);
    assert!(!text.is_empty() && text.len() < 1_500, "{text:?}");
}

/// What is written on a stream is read back as the same event, save for what the format can't say.
pub fn comes_back(event: &Event, stream: &Stream) {
    let message = match codec::encode(event, stream) {
        Ok(message) => message,
        Err(error) => return is_said_on_a_line(&error.to_string()),
    };
    let binding = Binding::of(&stream.broker.kind);
    let read = codec::decode(&message, binding, None);
    let read = read.unwrap_or_else(|error| panic!("{error}: {event:?} as {message:?}"));
    let is_structured = codec::mode(&message.headers, binding) == codec::Mode::Structured;
    if stream.mode == ContentMode::Structured {
        assert!(is_structured);
    }
    let expected = if is_structured {
        structured(event, &read)
    } else {
        binary(event)
    };
    assert_eq!(read, expected, "as {message:?}");
}

/// Binary mode has no types, and no data that is empty.
fn binary(event: &Event) -> Event {
    let mut event = event.clone();
    for extension in &mut event.extensions {
        extension.value = Value::String(extension.value.to_string());
    }
    event.data = event.data.filter(|data| !data.is_empty());
    event
}

/// Structured mode drops white space around JSON.
fn structured(event: &Event, read: &Event) -> Event {
    let mut event = event.clone();
    let trim = |data: &Bytes| {
        let is_space = |byte: &u8| matches!(byte, b' ' | b'\n' | b'\r' | b'\t');
        let start = data.iter().position(|byte| !is_space(byte))?;
        let end = data.iter().rposition(|byte| !is_space(byte))?;
        Some(data.slice(start..=end))
    };
    if event.data != read.data
        && let Some(trimmed) = event.data.as_ref().and_then(trim)
        && serde_json::from_slice::<&serde_json::value::RawValue>(&trimmed).is_ok()
    {
        event.data = Some(trimmed);
    }
    event
}
