//! Messages as they come over NATS and over HTTP, in binary and structured mode, and foreign ones.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use tidegate::broker::http::webhook::{self, Webhook};
use tidegate::broker::nats;
use tidegate::clock::{Clock, Timestamp};
use tidegate::event::codec::{self, Binding, Mode};
use tidegate::event::key::key;
use tidegate::event::{Event, Headers, Message};
use tidegate::plan::{BrokerKind, Key, Plan};
use tidegate_fuzz::{CONFIG, comes_back, is_said_on_a_line, keeps_the_rules, message, plan};

static PLAN: LazyLock<Plan> = LazyLock::new(|| plan(CONFIG));
static HOOK: LazyLock<Webhook> = LazyLock::new(|| {
    let broker = PLAN
        .brokers
        .values()
        .find(|broker| broker.name.as_str() == "hook")
        .unwrap();
    let BrokerKind::Webhook(hook) = &broker.kind else {
        panic!("it is one")
    };
    Webhook::new(broker.name.clone(), hook, Clock::seeded(Timestamp(0), 1)).unwrap()
});

fuzz_target!(|input: &[u8]| {
    let message = message(input);
    arrives(&message.headers);
    for binding in [Binding::Nats, Binding::Http] {
        let mappings = PLAN.streams.values().map(|stream| stream.mapping.as_ref());
        for mapping in mappings.filter(Option::is_some).chain([None]) {
            match codec::decode(&message, binding, mapping) {
                Ok(event) => accepted(&event),
                Err(error) => is_said_on_a_line(&error.to_string()),
            }
        }
        if codec::mode(&message.headers, binding) == Mode::Batch {
            assert_eq!(binding, Binding::Http);
        }
    }
});

/// The client's map and back: no line is lost or changed.
fn arrives(headers: &Headers) {
    let text = |value: &[u8]| String::from_utf8(value.to_vec()).ok();
    let lines: Option<Vec<_>> = headers
        .iter()
        .map(|(name, value)| Some((name.to_owned(), text(value)?)))
        .collect();
    let Some(lines) = lines else { return };
    if let Some(received) = nats::fuzzing::received(&lines) {
        let mut lines: Vec<_> = lines
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_bytes()))
            .collect();
        lines.sort_by_key(|(name, _)| *name);
        let received: Vec<_> = received
            .iter()
            .map(|(name, value)| (name, value.trim_ascii()))
            .collect();
        assert_eq!(received, lines);
    }
}

fn accepted(event: &Event) {
    keeps_the_rules(event);
    for stream in PLAN.streams.values() {
        comes_back(event, stream);
        if let Ok(message) = codec::encode(event, stream) {
            let is_printable = |value: &[u8]| value.iter().all(|byte| matches!(byte, b' '..=b'~'));
            assert!(
                message.headers.iter().all(|(_, value)| is_printable(value)),
                "{message:?}"
            );
            match &stream.broker.kind {
                BrokerKind::Nats(_) => is_sent(&message),
                BrokerKind::Webhook(_) => stays_below(&message),
                BrokerKind::Embedded => {}
            }
        }
    }
    for way in [
        Key::None,
        Key::Attribute("subject".to_owned()),
        Key::Data("/id".to_owned()),
    ] {
        match key(event, &way) {
            Ok(lane) => assert!(lane.0.len() <= 1_024),
            Err(error) => is_said_on_a_line(&error.to_string()),
        }
    }
}

/// NATS carries what is encoded for it: as many lines as it has, to a subject that is one.
fn is_sent(message: &Message) {
    let text = nats::fuzzing::sent(&message.headers, "id").unwrap();
    let lines: Vec<_> = text.split("\r\n").collect();
    assert_eq!(lines.len(), message.headers.iter().count() + 1);
    assert!(lines.iter().all(|line| !line.contains(['\r', '\n'])));
    assert!(message.subject.starts_with("stock."));
    let is_token = |token: &str| !token.is_empty() && !token.contains(|c: char| c.is_whitespace() || c.is_control());
    assert!(
        message.subject.split('.').all(is_token) && !message.subject.contains(['*', '>']),
        "{}",
        message.subject
    );
}

/// A request goes to the host of the config and below its path.
fn stays_below(message: &Message) {
    let url = webhook::fuzzing::url(&HOOK, message).unwrap();
    assert_eq!(url.origin().ascii_serialization(), "http://127.0.0.1:1");
    assert!(url.path() == "/base" || url.path().starts_with("/base/"), "{url}");
    assert!(
        url.username().is_empty() && url.password().is_none() && url.fragment().is_none(),
        "{url}"
    );
}
