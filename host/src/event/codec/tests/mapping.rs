//! Events out of messages that are none.

use super::*;
use crate::plan::{Mapping, Origin};

fn mapping() -> Mapping {
    Mapping {
        id: Origin::Data("/event/id".to_owned()),
        source: Origin::Fixed("/legacy".to_owned()),
        kind: Origin::Header("Event-Type".to_owned()),
        subject: Some(Origin::Subject),
        datacontenttype: Some("application/json".to_owned()),
    }
}

#[test]
fn a_foreign_message_becomes_an_event_by_mapping() {
    let payload = r#"{"event":{"id":1234567890123456789012}}"#;
    let foreign = message(&[("event-type", "created"), ("ce-foo", "x")], payload);
    let event = decode(&foreign, Binding::Nats, Some(&mapping())).expect("maps");
    assert_eq!(event.id, "1234567890123456789012");
    assert_eq!(event.source, "/legacy");
    assert_eq!(event.kind, "created");
    assert_eq!(event.subject.as_deref(), Some("orders.created"));
    assert_eq!(event.datacontenttype.as_deref(), Some("application/json"));
    assert_eq!(event.data.as_deref(), Some(payload.as_bytes()));
    assert!(event.extensions.is_empty());
}

#[test]
fn a_real_event_needs_no_mapping() {
    let event = decode(&structured_with(""), Binding::Nats, Some(&mapping())).expect("an event");
    assert_eq!(event.source, "/mycontext");
    let mut bare = structured_with("");
    bare.headers = Headers::default();
    let event = decode(&bare, Binding::Nats, Some(&mapping())).expect("an event");
    assert_eq!(event.source, "/mycontext");
}

#[test]
fn a_mapping_that_finds_nothing_says_where_it_looked() {
    let none = message(&[("event-type", "created")], r#"{"event":{"id":null}}"#);
    let error = decode(&none, Binding::Nats, Some(&mapping())).expect_err("no id");
    assert_eq!(error.code(), "event-no-origin");
    assert!(error.to_string().contains("data:/event/id"), "{error}");
    let none = message(&[], r#"{"event":{"id":1}}"#);
    let error = decode(&none, Binding::Nats, Some(&mapping())).expect_err("no type");
    assert!(error.to_string().contains("header:Event-Type"), "{error}");
}

#[test]
fn a_hashed_id_is_stable_and_depends_on_place_and_body() {
    let mapping = Mapping {
        id: Origin::Hash,
        kind: Origin::Fixed("t".to_owned()),
        datacontenttype: None,
        ..mapping()
    };
    let id = |subject: &str, body: &str| {
        let message = Message {
            subject: subject.to_owned(),
            ..message(&[("content-type", "text/csv")], body)
        };
        let event = decode(&message, Binding::Nats, Some(&mapping)).expect("maps");
        assert_eq!(event.datacontenttype.as_deref(), Some("text/csv"));
        event.id
    };
    assert_eq!(id("a", "b").len(), 32);
    assert_eq!(id("a", "b"), id("a", "b"));
    assert_ne!(id("a", "b"), id("ab", ""));
    assert_ne!(id("a", "b"), id("a", "c"));
}
