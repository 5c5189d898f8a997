//! What `host/fuzz` reaches here: headers in both directions, and what is read of a server's answers.

use async_nats::{HeaderMap, HeaderName, HeaderValue, Message, header};
use bytes::Bytes;

use super::inbox::Numbers;
use super::{headers, link, publisher, unreadable};
use crate::event::Headers;

/// Lines as they are read of a message; `None` if its client takes one of them for none.
#[must_use]
pub fn received(lines: &[(String, String)]) -> Option<Headers> {
    let mut map = HeaderMap::new();
    for (name, value) in lines {
        map.append(name.parse::<HeaderName>().ok()?, value.parse::<HeaderValue>().ok()?);
    }
    Some(headers::read(Some(&map)))
}

/// What stands behind `Nats-Msg-Id: ` in a message that is sent: the id, then the lines.
///
/// # Errors
/// Says which line NATS can't carry.
pub fn sent(lines: &Headers, id: &str) -> Result<String, String> {
    let map = headers::write(lines, id)?;
    let text = map.get(header::NATS_MESSAGE_ID).map(HeaderValue::as_str);
    Ok(text.unwrap_or_default().to_owned())
}

/// Whether the client reads a header block, and the lines that are told in one that it does not.
#[must_use]
pub fn block(bytes: &[u8]) -> (bool, Headers) {
    (unreadable::is_readable(bytes), unreadable::headers(bytes))
}

/// The numbers in a delivery's reply subject: its position, and which delivery it is.
#[must_use]
pub fn numbers(reply: &str) -> Option<(u64, u64)> {
    Numbers::parse(reply).map(|numbers| (numbers.stream, numbers.delivery))
}

/// Major and minor version of a server.
#[must_use]
pub fn version(text: &str) -> Option<(u32, u32)> {
    link::parse_version(text)
}

/// What is made of a confirmation.
#[must_use]
pub fn confirmation(payload: Bytes) -> String {
    let message = Message {
        subject: "inbox".into(),
        reply: None,
        length: payload.len(),
        payload,
        headers: None,
        status: None,
        description: None,
    };
    format!("{:?}", publisher::parse(&message))
}
