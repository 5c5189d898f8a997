//! What others answer the host: a NATS server (confirmations, reply subjects, header blocks, its version), a webhook's receiver. The
//! first line is the token that the receiver was sent.
#![no_main]

use std::time::Duration;

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use tidegate::broker::http::webhook;
use tidegate::broker::nats;
use tidegate::clock::Timestamp;
use tidegate_fuzz::{is_said_on_a_line, line};

fuzz_target!(|input: &[u8]| {
    let (first, body) = line(input);
    receiver(&String::from_utf8_lossy(first), body);
    let (readable, lines) = nats::fuzzing::block(body);
    assert!(!readable || std::str::from_utf8(body).is_ok());
    assert!(lines.size() <= 3 * body.len(), "no more than each byte replaced");
    assert!(
        lines
            .iter()
            .all(|(name, value)| !name.contains('\n') && !value.contains(&b'\n'))
    );
    assert!(!nats::fuzzing::confirmation(Bytes::copy_from_slice(body)).is_empty());
    let text = String::from_utf8_lossy(body);
    let _ = nats::fuzzing::version(&text);
    reply(&text);
});

/// A token that the config takes is in nothing that is said of an answer.
fn receiver(token: &str, body: &[u8]) {
    let is_token = !token.is_empty() && !token.contains(|c: char| c.is_whitespace() || c.is_control());
    // One of asterisks is no token (RFC 6750, section 2.1), and looks like what stands in its place.
    if is_token && token.is_ascii() && token.len() >= 4 && !token.contains('*') {
        let said = webhook::fuzzing::described(500, body, token).unwrap();
        is_said_on_a_line(&said);
        // The words around what the receiver says may have it in them.
        let own = webhook::fuzzing::described(500, b"", token).unwrap();
        let more = said.strip_prefix(&own).unwrap();
        assert!(!more.contains(token), "{said:?}");
    }
    let now = Timestamp(1_790_000_000_000);
    let pause = webhook::fuzzing::retry_after(body, now);
    assert!(pause.is_none_or(|pause| pause <= Duration::from_secs(86_400)));
    assert_eq!(
        webhook::fuzzing::retry_after(b"120", now),
        Some(Duration::from_secs(120))
    );
}

/// The numbers of a reply subject are those that another reader finds, counted from the end where it has no token more.
fn reply(text: &str) {
    let Some((position, delivery)) = nats::fuzzing::numbers(text) else {
        return;
    };
    let tokens: Vec<&str> = text.split('.').collect();
    assert!(tokens.len() >= 7 && tokens[0] == "$JS" && tokens[1] == "ACK", "{text}");
    let at = if tokens.len() >= 11 { 7 } else { 5 };
    assert_eq!(
        (tokens[at].parse(), tokens[at + 1].parse()),
        (Ok(position), Ok(delivery)),
        "{text}"
    );
}
