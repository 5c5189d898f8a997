//! Header lines, from the client's map and into it.
//!
//! Limits of the client: values are text, blanks around them are lost, and names come in no order (they are sorted here, so that
//! the same message always looks the same; repeated lines keep theirs).

use async_nats::{HeaderMap, HeaderValue, header};
use serde::Deserialize;
use serde::de::IntoDeserializer;

use crate::event::Headers;

/// What stands around the names and values of sixteen lines: most messages have fewer.
const SEPARATORS: usize = 16 * "\r\n: ".len();

/// Header lines of a message that arrived.
pub(super) fn read(map: Option<&HeaderMap>) -> Headers {
    let Some(map) = map else {
        return Headers::default();
    };
    let mut lines: Vec<(&str, &[HeaderValue])> = Vec::with_capacity(map.len());
    lines.extend(map.iter().map(|(name, values)| (name.as_ref(), values.as_slice())));
    lines.sort_unstable_by_key(|(name, _)| *name);
    let each = || {
        lines
            .iter()
            .flat_map(|(name, values)| values.iter().map(move |value| (*name, value.as_str())))
    };
    let bytes = each().map(|(name, value)| name.len() + value.len()).sum();
    let mut headers = Headers::with_capacity(each().count(), bytes);
    for (name, value) in each() {
        headers.push(name, value);
    }
    headers
}

/// Header lines of a message to publish, with its id. Lines that begin with `Nats-` are orders to the server (deduplicate,
/// roll up, expire), not data: those that came with another message are left out.
///
/// The client's map costs four allocations a line, and writes what it holds as it stands. So all lines are one value in it, checked
/// here as the client would: the id's, which the others follow.
///
/// # Errors
/// Says which line NATS can't carry.
pub(super) fn write(headers: &Headers, id: &str) -> Result<HeaderMap, String> {
    let mut lines = String::with_capacity(id.len() + headers.size() + SEPARATORS);
    lines.push_str(value("Nats-Msg-Id", id.as_bytes())?);
    for (name, bytes) in headers.iter().filter(|(name, _)| !is_order(name)) {
        if name.is_empty() || !name.bytes().all(is_in_name) {
            return Err(format!("header name {name:?} is no printable ASCII"));
        }
        lines.extend(["\r\n", name, ": ", value(name, bytes)?]);
    }
    let lines = HeaderValue::deserialize(lines.into_deserializer());
    let lines = lines.map_err(|error: serde::de::value::Error| format!("the client takes no header lines: {error}"))?;
    let mut map = HeaderMap::new();
    map.insert(header::NATS_MESSAGE_ID, lines);
    Ok(map)
}

fn value<'a>(name: &str, bytes: &'a [u8]) -> Result<&'a str, String> {
    std::str::from_utf8(bytes)
        .ok()
        .filter(|text| !text.contains(['\r', '\n']))
        .ok_or_else(|| format!("the value of header {name} is no single line of UTF-8"))
}

/// Printable ASCII but `:` (RFC 822, as the client has it).
fn is_in_name(byte: u8) -> bool {
    byte.is_ascii_graphic() && byte != b':'
}

fn is_order(name: &str) -> bool {
    name.get(..5).is_some_and(|start| start.eq_ignore_ascii_case("nats-"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(lines: &[(&str, &[u8])]) -> Headers {
        let mut headers = Headers::default();
        for (name, value) in lines {
            headers.push(*name, value);
        }
        headers
    }

    #[test]
    fn every_line_is_kept_but_orders_to_the_server() {
        let sent = headers(&[("b", "ü".as_bytes()), ("a", b"2"), ("a", b"1"), ("nats-rollup", b"all")]);
        let map = write(&sent, "id").unwrap();
        let lines = map.get(header::NATS_MESSAGE_ID).unwrap();
        assert_eq!(lines.as_str(), "id\r\nb: ü\r\na: 2\r\na: 1");
        assert_eq!(map.len(), 1);
    }

    #[test]
    fn lines_are_read_in_the_order_of_their_names() {
        let mut map = HeaderMap::new();
        for (name, value) in [("b", "ü"), ("a", "2"), ("Nats-Msg-Id", "id"), ("a", "1")] {
            map.append(name, value);
        }
        let expected = headers(&[("Nats-Msg-Id", b"id"), ("a", b"2"), ("a", b"1"), ("b", "ü".as_bytes())]);
        assert_eq!(read(Some(&map)), expected);
        assert_eq!(read(None), Headers::default());
    }

    #[test]
    fn what_nats_cannot_carry_is_refused() {
        for (name, value) in [
            ("a b", "x"),
            ("", "x"),
            ("ä", "x"),
            ("a:", "x"),
            ("a", "x\r\nb: y"),
            ("a", "x\n"),
        ] {
            let sent = headers(&[(name, value.as_bytes())]);
            assert!(write(&sent, "id").is_err(), "{name:?}: {value:?}");
        }
        assert!(write(&headers(&[("a", b"\xff")]), "id").is_err());
        assert!(write(&Headers::default(), "a\nb").is_err());
    }
}
