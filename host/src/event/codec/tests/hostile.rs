//! What arrives from whoever wants to break a consumer.

use super::*;

#[test]
fn nothing_at_all_is_no_event() {
    for binding in [Binding::Nats, Binding::Http] {
        refuses(&Message::default(), binding, "event-not-recognised", "mapping");
    }
    let empty = message(&[("content-type", "application/cloudevents+json")], "");
    refuses(&empty, Binding::Nats, "event-bad-json", "EOF");
}

#[test]
fn an_attribute_twice_is_refused() {
    for header in ["ce-id", "CE-ID", "ce-specversion", "ce-subject", "ce-x"] {
        let value = if header == "ce-specversion" { "1.0" } else { "b" };
        let more = [("ce-x", "a"), ("ce-subject", "a"), (header, value)];
        refuses(
            &binary_with(&more, ""),
            Binding::Nats,
            "event-duplicate-attribute",
            "twice",
        );
    }
    for more in [r#","id":"b""#, r#","x":1,"x":1"#, r#","specversion":"1.0""#] {
        refuses(
            &structured_with(more),
            Binding::Nats,
            "event-duplicate-attribute",
            "twice",
        );
    }
}

#[test]
fn data_twice_is_refused() {
    for more in [
        r#","data":1,"data_base64":"AA==""#,
        r#","data_base64":"AA==","data":null"#,
        r#","data":1,"data":1"#,
    ] {
        refuses(&structured_with(more), Binding::Http, "event-bad-data", "exclude");
    }
}

#[test]
fn bad_data_is_refused() {
    for (more, names) in [
        (r#","data_base64":"A""#, "base64"),
        (r#","data_base64":{}"#, "no string"),
        (r#","datacontenttype":"text/plain","data":{"a":1}"#, "must be a string"),
        (r#","datacontenttype":"text/plain","data":"\ud800""#, "Unicode"),
    ] {
        refuses(&structured_with(more), Binding::Http, "event-bad-data", names);
    }
}

#[test]
fn attributes_of_other_types_are_refused() {
    for value in [
        "{}",
        "[1]",
        "1.5",
        "1e3",
        "2147483648",
        "-2147483649",
        "9".repeat(5_000).as_str(),
        "-0.0",
        r#""\ud800""#,
    ] {
        let message = structured_with(&format!(r#","x":{value}"#));
        refuses(&message, Binding::Http, "event-bad-attribute", "32 bits");
    }
    refuses(
        &structured_with(r#","subject":1"#),
        Binding::Http,
        "event-bad-attribute",
        "must be a string",
    );
    let limits = structured_with(r#","x":2147483647,"y":-2147483648"#);
    assert_eq!(
        decoded(&limits, Binding::Http).extension("y"),
        Some(&Value::Integer(i32::MIN))
    );
}

#[test]
fn control_characters_are_refused_whatever_hides_them() {
    refuses(
        &binary_with(&[("ce-x", "a%0d%0aSet-Cookie:%20b")], ""),
        Binding::Http,
        "event-bad-attribute",
        "control",
    );
    refuses(
        &binary_with(&[("ce-x", "%C2%85")], ""),
        Binding::Http,
        "event-bad-attribute",
        "control",
    );
    refuses(
        &structured_with(r#","x":"\u0000""#),
        Binding::Http,
        "event-bad-attribute",
        "control",
    );
}

#[test]
fn deep_json_is_no_danger() {
    let (open, close) = ("[".repeat(200_000), "]".repeat(200_000));
    let message = structured_with(&format!(r#","data":{open}{close}"#));
    let event = decoded(&message, Binding::Nats);
    assert_eq!(event.data.as_ref().map(Bytes::len), Some(400_000));
    let stream = stream(BrokerKind::Embedded, log(), ContentMode::Structured);
    let again = encode(&event, &stream).expect("encodes");
    assert_eq!(decoded(&again, Binding::Nats), event);

    let attribute = structured_with(&format!(r#","x":{open}{close}"#));
    refuses(&attribute, Binding::Nats, "event-bad-attribute", "32 bits");
    assert!(decode_batch(&Bytes::from(open)).is_err());
}

#[test]
fn too_many_or_too_large_attributes_are_refused() {
    let long = "x".repeat(64 * 1024);
    refuses(
        &binary_with(&[("ce-x", &long)], ""),
        Binding::Nats,
        "event-too-large",
        "65536 bytes",
    );
    let members: String = (0..129).map(|i| format!(r#","x{i}":1"#)).collect();
    refuses(
        &structured_with(&members),
        Binding::Nats,
        "event-too-large",
        "128 extensions",
    );
    let members: String = (0..513).map(|i| format!(r#","x{i}":null"#)).collect();
    refuses(&structured_with(&members), Binding::Nats, "event-bad-json", "members");
}

/// However small they are: each takes memory beyond its bytes.
#[test]
fn a_batch_of_more_events_than_are_taken_is_refused() {
    let event = r#"{"specversion":"1.0","id":"1","source":"s","type":"t"}"#;
    let batch = |count: usize| Bytes::from(format!("[{}]", vec![event; count].join(",")));
    assert_eq!(decode_batch(&batch(1_000)).map(|events| events.len()), Ok(1_000));
    let error = decode_batch(&batch(1_001)).expect_err("one too many");
    assert_eq!(error.code(), "event-batch-too-long");
    assert!(error.to_string().contains("1000"), "{error}");
}

#[test]
fn errors_stay_short_and_on_one_line() {
    let value = format!("%0a{}", "x".repeat(10_000));
    let error = decode(&binary_with(&[("ce-x", &value)], ""), Binding::Nats, None).expect_err("control");
    let shown = error.to_string();
    assert!(shown.len() < 300 && !shown.contains('\n'), "{shown}");
}

#[test]
fn arbitrary_bytes_never_panic() {
    let mut rng = fastrand::Rng::with_seed(7);
    let valid = structured_with(r#","x":true,"data":{"a":[1,"\u00e9",null]}"#);
    for _ in 0..20_000 {
        let mut bytes = valid.payload.to_vec();
        for _ in 0..rng.usize(1..4) {
            let at = rng.usize(..bytes.len());
            match rng.u8(..10) {
                0 => bytes.truncate(at.max(8)),
                1 | 2 => drop(bytes.remove(at)),
                _ => bytes[at] = rng.u8(..),
            }
        }
        let broken = Message {
            payload: bytes.into(),
            ..valid.clone()
        };
        if let Ok(event) = decode(&broken, Binding::Nats, None) {
            assert_eq!(check(&event), Ok(()));
        }
        let _ = decode_batch(&broken.payload);
    }
}
