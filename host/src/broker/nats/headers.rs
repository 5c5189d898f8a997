//! Header lines, from the client's map and into it.
//!
//! Limits of the client: values are text, blanks around them are lost, and names come in no order (they are sorted here, so that
//! the same message always looks the same; repeated lines keep theirs).

use std::str::FromStr;

use async_nats::{HeaderMap, HeaderName, HeaderValue, header};
use bytes::Bytes;

use crate::event::Headers;

/// Header lines of a message that arrived.
pub(super) fn read(map: Option<&HeaderMap>) -> Headers {
    let mut headers = Headers::default();
    let Some(map) = map else { return headers };
    let mut names: Vec<(&str, &Vec<HeaderValue>)> = map
        .iter()
        .map(|(name, values)| (AsRef::<str>::as_ref(name), values))
        .collect();
    names.sort_unstable_by_key(|(name, _)| *name);
    for (name, values) in names {
        for value in values {
            headers.push(name, Bytes::copy_from_slice(value.as_str().as_bytes()));
        }
    }
    headers
}

/// Header lines of a message to publish, with its id. Lines that begin with `Nats-` are orders to the server (deduplicate,
/// roll up, expire), not data: those that came with another message are left out.
///
/// # Errors
/// Says which line NATS can't carry.
pub(super) fn write(headers: &Headers, id: &str) -> Result<HeaderMap, String> {
    let mut map = HeaderMap::new();
    map.insert(header::NATS_MESSAGE_ID, value("Nats-Msg-Id", id.as_bytes())?);
    for (name, bytes) in headers.iter().filter(|(name, _)| !is_order(name)) {
        let parsed = HeaderName::from_str(name).ok().filter(|_| !name.is_empty());
        let parsed = parsed.ok_or_else(|| format!("header name {name:?} is no printable ASCII"))?;
        map.append(parsed, value(name, bytes)?);
    }
    Ok(map)
}

fn value(name: &str, bytes: &[u8]) -> Result<HeaderValue, String> {
    std::str::from_utf8(bytes)
        .ok()
        .and_then(|text| HeaderValue::from_str(text).ok())
        .ok_or_else(|| format!("the value of header {name} is no single line of UTF-8"))
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
            headers.push(*name, value.to_vec());
        }
        headers
    }

    #[test]
    fn every_line_is_kept_but_orders_to_the_server() {
        let sent = headers(&[("b", "ü".as_bytes()), ("a", b"2"), ("a", b"1"), ("nats-rollup", b"all")]);
        let map = write(&sent, "id").unwrap();
        let got = read(Some(&map));
        let expected = headers(&[("Nats-Msg-Id", b"id"), ("a", b"2"), ("a", b"1"), ("b", "ü".as_bytes())]);
        assert_eq!(got, expected);
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
