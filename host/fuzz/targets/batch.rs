//! Bodies that are JSON: a batch, one event, data that a key is read from.
#![no_main]

use std::sync::LazyLock;

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use serde_json::Value;
use tidegate::cli::printed;
use tidegate::event::codec::{self, BATCH_EVENTS_MAX, Binding, Error};
use tidegate::event::key::key;
use tidegate::event::{Event, Message};
use tidegate::plan::{Key, Plan};
use tidegate_fuzz::{CONFIG, comes_back, is_said_on_a_line, keeps_the_rules, plan};

static PLAN: LazyLock<Plan> = LazyLock::new(|| plan(CONFIG));
/// Values of one document whose pointers are followed: each costs a read of all of it.
const FOLLOWED_MAX: usize = 8;

fuzz_target!(|input: &[u8]| {
    let body = Bytes::copy_from_slice(input);
    match codec::decode_batch(&body) {
        Ok(events) => taken(&events),
        Err(error) => refused(&error),
    }
    one(&body);
    if let Ok(value) = serde_json::from_slice::<Value>(input) {
        let mut left = FOLLOWED_MAX;
        follow(&body, &value, &value, String::new(), &mut left);
        let shown = printed::indented(std::str::from_utf8(input).unwrap()).unwrap();
        assert_eq!(
            serde_json::from_str::<Value>(&shown).unwrap(),
            value,
            "shown as {shown}"
        );
    }
});

/// The events written one after the other are the same batch.
fn taken(events: &[Event]) {
    assert!(events.len() <= BATCH_EVENTS_MAX);
    let stream = PLAN
        .streams
        .values()
        .find(|stream| stream.name.as_str() == "log-structured")
        .unwrap();
    let mut bodies = Vec::new();
    for event in events {
        keeps_the_rules(event);
        comes_back(event, stream);
        bodies.push(codec::encode(event, stream).unwrap().payload);
    }
    let again: Vec<u8> = [&b"["[..], &bodies.join(&b','), b"]"].concat();
    let again = codec::decode_batch(&again.into()).unwrap();
    assert_eq!(again.len(), events.len());
    assert!(
        again
            .iter()
            .zip(events)
            .all(|(again, event)| again.id == event.id && again.extensions == event.extensions)
    );
}

fn refused(error: &Error) {
    is_said_on_a_line(&error.to_string());
    assert!(!error.code().is_empty());
    if let Error::InBatch { index, .. } = error {
        assert!(*index < BATCH_EVENTS_MAX);
    }
}

fn one(body: &Bytes) {
    let mut message = Message {
        payload: body.clone(),
        ..Message::default()
    };
    let bare = codec::decode(&message, Binding::Nats, None);
    message.headers.push("Content-Type", "application/cloudevents+json");
    match codec::decode(&message, Binding::Http, None) {
        Ok(event) => {
            keeps_the_rules(&event);
            // Without a header it is found to be one by its text, unless its member is spelled with escapes.
            assert!(bare.is_err() || bare == Ok(event));
        }
        Err(error) => is_said_on_a_line(&error.to_string()),
    }
}

/// Whatever stands at a pointer by another reader is what a key is read from.
fn follow(body: &Bytes, whole: &Value, value: &Value, pointer: String, left: &mut usize) {
    if *left == 0 {
        return;
    }
    *left -= 1;
    let event = Event {
        data: Some(body.clone()),
        ..Event::default()
    };
    // The config takes no empty pointer.
    if pointer.starts_with('/') {
        assert_eq!(whole.pointer(&pointer), Some(value));
        let found = key(&event, &Key::Data(pointer.clone())).ok().map(|lane| lane.0);
        match value {
            Value::String(text) if text.len() <= 1_024 => assert_eq!(found.as_deref(), Some(text.as_bytes())),
            Value::Bool(flag) => assert_eq!(found.as_deref(), Some(flag.to_string().as_bytes())),
            Value::String(_) | Value::Number(_) => assert!(found.is_some(), "{pointer}"),
            Value::Null | Value::Array(_) | Value::Object(_) => assert_eq!(found, None, "{pointer}"),
        }
    }
    match value {
        Value::Array(values) => {
            for (index, value) in values.iter().enumerate() {
                follow(body, whole, value, format!("{pointer}/{index}"), left);
            }
        }
        Value::Object(members) => {
            for (name, value) in members {
                let name = name.replace('~', "~0").replace('/', "~1");
                follow(body, whole, value, format!("{pointer}/{name}"), left);
            }
        }
        _ => {}
    }
}
