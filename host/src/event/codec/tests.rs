use std::sync::Arc;

use bytes::Bytes;

use super::*;
use crate::event::{Extension, Value};
use crate::plan::{
    Broker, BrokerKind, ContentMode, JetStream, Log, Name, Place, Stream, Template, TemplatePart, Webhook,
};

mod hostile;
mod mapping;
mod place;
mod round_trip;

pub(super) fn name(text: &str) -> Name {
    Name::new(text).expect("a name")
}

fn template(parts: &[&str]) -> Template {
    let parts = parts
        .iter()
        .map(|part| match part.strip_prefix(':') {
            Some(attribute) => TemplatePart::Attribute(attribute.to_owned()),
            None => TemplatePart::Literal((*part).to_owned()),
        })
        .collect();
    Template { parts }
}

fn webhook() -> BrokerKind {
    BrokerKind::Webhook(Webhook {
        url: "http://localhost".to_owned(),
        token: None,
        timeout: std::time::Duration::from_secs(1),
        concurrency: std::num::NonZeroUsize::MIN,
    })
}

fn stream(kind: BrokerKind, place: Place, mode: ContentMode) -> Stream {
    Stream {
        name: name("orders"),
        broker: Arc::new(Broker {
            name: name("main"),
            kind,
        }),
        place,
        mode,
        mapping: None,
    }
}

fn log() -> Place {
    Place::Log(Log {
        age_max: None,
        bytes_max: 1 << 20,
    })
}

fn jetstream(subject: Option<Template>) -> Place {
    Place::JetStream(JetStream {
        stream: None,
        subjects: Vec::new(),
        subject,
        create: false,
        ack_wait: std::time::Duration::from_secs(30),
    })
}

fn message(headers: &[(&str, &str)], payload: &str) -> Message {
    let mut message = Message {
        subject: "orders.created".to_owned(),
        payload: Bytes::from(payload.to_owned()),
        ..Message::default()
    };
    for (name, value) in headers {
        message.headers.push(*name, value);
    }
    message
}

const REQUIRED: [(&str, &str); 4] = [
    ("ce-specversion", "1.0"),
    ("ce-type", "com.example.someevent"),
    ("ce-id", "1234-1234-1234"),
    ("ce-source", "/mycontext/subcontext"),
];

/// A binary message with the required attributes and more.
fn binary_with(more: &[(&str, &str)], payload: &str) -> Message {
    message(&[&REQUIRED[..], more].concat(), payload)
}

/// A structured message with the required attributes and more members.
fn structured_with(more: &str) -> Message {
    let body = format!(
        r#"{{"specversion":"1.0","type":"com.example.someevent","id":"A234-1234-1234","source":"/mycontext"{more}}}"#
    );
    message(&[("Content-Type", "application/cloudevents+json")], &body)
}

fn extension(name: &str, value: Value) -> Extension {
    Extension {
        name: name.to_owned(),
        value,
    }
}

fn text(value: &str) -> Value {
    Value::String(value.to_owned())
}

/// Decoding fails with this code, and the error's text names what is wrong.
fn refuses(message: &Message, binding: Binding, code: &str, names: &str) {
    let error = decode(message, binding, None).expect_err("it must be refused");
    assert_eq!(error.code(), code, "{error}");
    assert!(error.to_string().contains(names), "{names:?} in {error}");
}

fn decoded(message: &Message, binding: Binding) -> Event {
    decode(message, binding, None).unwrap_or_else(|error| panic!("{error}"))
}

#[test]
fn the_binary_example_of_the_http_binding() {
    let message = binary_with(
        &[
            ("ce-time", "2018-04-05T03:56:24Z"),
            ("Content-Type", "application/json; charset=utf-8"),
        ],
        r#"{"a":1}"#,
    );
    let event = decoded(&message, Binding::Http);
    assert_eq!(event.id, "1234-1234-1234");
    assert_eq!(event.source, "/mycontext/subcontext");
    assert_eq!(event.kind, "com.example.someevent");
    assert_eq!(event.time.as_deref(), Some("2018-04-05T03:56:24Z"));
    assert_eq!(
        event.datacontenttype.as_deref(),
        Some("application/json; charset=utf-8")
    );
    assert_eq!(event.data.as_deref(), Some(&br#"{"a":1}"#[..]));
    assert!(event.extensions.is_empty());
}

#[test]
fn the_binary_example_of_the_nats_binding() {
    let message = binary_with(&[("ce-datacontenttype", "application/json")], "{}");
    let event = decoded(&message, Binding::Nats);
    assert_eq!(event.datacontenttype.as_deref(), Some("application/json"));
}

#[test]
fn header_names_have_no_case() {
    let message = message(
        &[
            ("CE-SpecVersion", "1.0"),
            ("Ce-Type", "t"),
            ("cE-ID", "1"),
            ("CE-SOURCE", "/s"),
            ("Ce-TraceParent", "00-1-2-00"),
        ],
        "",
    );
    for binding in [Binding::Nats, Binding::Http] {
        let event = decoded(&message, binding);
        assert_eq!(event.extension("traceparent"), Some(&text("00-1-2-00")));
        assert_eq!(event.data, None);
    }
}

#[test]
fn header_values_are_unquoted_and_percent_decoded_once() {
    for (header, value) in [
        ("Euro%20%E2%82%AC%20%F0%9F%98%80", "Euro € 😀"),
        ("Euro%20%e2%82%ac", "Euro €"),
        ("%41%42", "AB"),
        ("%2520", "%20"),
        ("\"a b\"", "a b"),
        (r#""a \"b\" \\ %20""#, "a \"b\" \\  "),
        ("a\"b c\"d", "ab cd"),
        ("100%", "100%"),
        ("plain", "plain"),
        ("Zoë", "Zoë"),
        ("", ""),
    ] {
        let message = binary_with(&[("ce-note", header)], "");
        let event = decoded(&message, Binding::Http);
        assert_eq!(event.extension("note"), Some(&text(value)), "{header}");
    }
}

#[test]
fn header_values_that_are_no_text_are_refused() {
    for header in ["%C0%A0", "%ff", "\"open", "\"a\\"] {
        let message = binary_with(&[("ce-note", header)], "");
        refuses(&message, Binding::Nats, "event-bad-encoding", header);
    }
    let mut raw = binary_with(&[], "");
    raw.headers.push("ce-note", &b"\xff\xfe"[..]);
    refuses(&raw, Binding::Nats, "event-bad-encoding", "ce-note");
}

#[test]
fn values_are_written_as_the_specification_shows() {
    let mut event = decoded(&binary_with(&[], ""), Binding::Nats);
    event.extensions = vec![
        extension("note", text("Euro € 😀\"%")),
        extension("count", Value::Integer(-5)),
        extension("flag", Value::Boolean(true)),
    ];
    let written = encode(&event, &stream(BrokerKind::Embedded, log(), ContentMode::Binary));
    let headers = written.expect("encodes").headers;
    assert_eq!(
        headers.get("ce-note"),
        Some(&b"Euro%20%E2%82%AC%20%F0%9F%98%80%22%25"[..])
    );
    assert_eq!(headers.get("ce-count"), Some(&b"-5"[..]));
    assert_eq!(headers.get("ce-flag"), Some(&b"true"[..]));
}

#[test]
fn over_http_the_content_type_is_not_a_ce_header() {
    let message = binary_with(&[("ce-datacontenttype", "text/plain")], "x");
    refuses(&message, Binding::Http, "event-bad-attribute", "Content-Type");
    let mut event = decoded(&message, Binding::Nats);
    event.datacontenttype = Some("text/plain; charset=utf-8".to_owned());
    let stream = stream(webhook(), Place::Path(template(&["x"])), ContentMode::Binary);
    let headers = encode(&event, &stream).expect("encodes").headers;
    assert_eq!(headers.get("content-type"), Some(&b"text/plain; charset=utf-8"[..]));
    assert_eq!(headers.get("ce-datacontenttype"), None);
}

#[test]
fn modes_are_told_by_headers() {
    let json = "application/json";
    for (binding, headers, expected) in [
        (
            Binding::Http,
            vec![("content-type", "Application/CloudEvents+JSON; charset=utf-8")],
            Mode::Structured,
        ),
        (
            Binding::Nats,
            vec![("CONTENT-TYPE", "application/cloudevents")],
            Mode::Structured,
        ),
        (
            Binding::Http,
            vec![("content-type", "application/cloudevents-batch+json")],
            Mode::Batch,
        ),
        (
            Binding::Nats,
            vec![("content-type", "application/cloudevents-batch+json")],
            Mode::Unsupported,
        ),
        (
            Binding::Http,
            vec![("content-type", "application/cloudevents+avro")],
            Mode::Unsupported,
        ),
        (
            Binding::Http,
            vec![("content-type", "application/cloudevents+avro"), ("ce-id", "1")],
            Mode::Binary,
        ),
        (
            Binding::Http,
            vec![("content-type", "application/cloudeventsx")],
            Mode::Foreign,
        ),
        (
            Binding::Http,
            vec![("content-type", json), ("ce-id", "1")],
            Mode::Binary,
        ),
        (
            Binding::Http,
            vec![("content-type", json), ("ce-foo", "1")],
            Mode::Foreign,
        ),
        (Binding::Http, vec![], Mode::Foreign),
    ] {
        let message = message(&headers, "");
        assert_eq!(mode(&message.headers, binding), expected, "{headers:?}");
    }
}

#[test]
fn the_structured_examples_of_the_json_format() {
    let more = r#","time":"2018-04-05T17:31:00Z","comexampleextension1":"value","comexampleothervalue":5,"unsetextension":null,"subject":null"#;
    for (tail, content_type, data) in [
        (
            r#","datacontenttype":"application/vnd.apache.thrift.binary","data_base64":"AAEC""#,
            Some("application/vnd.apache.thrift.binary"),
            &[0, 1, 2][..],
        ),
        (
            r#","datacontenttype":"application/xml","data":"<much wow=\"xml\"/>""#,
            Some("application/xml"),
            br#"<much wow="xml"/>"#,
        ),
        (
            r#","datacontenttype":"application/json","data":{ "appinfoA" : "abc",  "appinfoB":1.50 }"#,
            Some("application/json"),
            br#"{ "appinfoA" : "abc",  "appinfoB":1.50 }"#,
        ),
        (
            r#","data":{"first":true},"datacontenttype":"text/x+json""#,
            Some("text/x+json"),
            br#"{"first":true}"#,
        ),
        (
            r#","datacontenttype":"application/json","data":1.5"#,
            Some("application/json"),
            b"1.5",
        ),
        (
            r#","datacontenttype":"application/json","data":null"#,
            Some("application/json"),
            b"null",
        ),
        (
            r#","data":"I'm just a string""#,
            Some("application/json"),
            br#""I'm just a string""#,
        ),
        (r#","data_base64":"eyAieHl6IjogMTIzIH0=""#, None, br#"{ "xyz": 123 }"#),
    ] {
        let event = decoded(&structured_with(&format!("{more}{tail}")), Binding::Http);
        assert_eq!(event.id, "A234-1234-1234");
        assert_eq!(event.subject, None);
        assert_eq!(event.datacontenttype.as_deref(), content_type, "{tail}");
        assert_eq!(event.data.as_deref(), Some(data), "{tail}");
        let extensions = [
            extension("comexampleextension1", text("value")),
            extension("comexampleothervalue", Value::Integer(5)),
        ];
        assert_eq!(event.extensions, extensions);
    }
}

#[test]
fn no_data_is_none() {
    for more in [
        "",
        r#","datacontenttype":"application/json""#,
        r#","datacontenttype":"text/plain","data":null"#,
    ] {
        assert_eq!(decoded(&structured_with(more), Binding::Nats).data, None, "{more}");
    }
}

#[test]
fn structured_data_shares_the_payload() {
    let message = structured_with(r#","data":{"a":1}"#);
    let data = decoded(&message, Binding::Nats).data.expect("data");
    assert!(message.payload.as_ptr_range().contains(&data.as_ptr()));
}

#[test]
fn a_bare_json_event_is_one_on_nats_only() {
    let mut bare = structured_with("");
    bare.headers = Headers::default();
    assert_eq!(decoded(&bare, Binding::Nats).id, "A234-1234-1234");
    refuses(&bare, Binding::Http, "event-not-recognised", "mapping");
    let foreign = message(&[], r#"{"hello":"world"}"#);
    refuses(&foreign, Binding::Nats, "event-not-recognised", "mapping");
    let half = message(&[], r#"{"specversion":"1.0","id":"1"}"#);
    refuses(&half, Binding::Nats, "event-missing-attribute", "source");
}

#[test]
fn required_attributes_are_there_and_not_empty() {
    for absent in REQUIRED {
        let rest: Vec<_> = REQUIRED.into_iter().filter(|header| *header != absent).collect();
        let short = absent.0.strip_prefix("ce-").expect("prefixed");
        refuses(&message(&rest, ""), Binding::Nats, "event-missing-attribute", short);
        let empty = message(&[&rest[..], &[(absent.0, "")]].concat(), "");
        refuses(&empty, Binding::Nats, "event-bad-attribute", "empty");
    }
}

#[test]
fn only_version_1_0_is_read() {
    for version in ["0.3", "1.0.2", "2.0"] {
        let message = message(
            &[
                ("ce-specversion", version),
                ("ce-id", "1"),
                ("ce-source", "/"),
                ("ce-type", "t"),
            ],
            "",
        );
        refuses(&message, Binding::Http, "event-bad-specversion", version);
    }
    let structured = message(
        &[("content-type", "application/cloudevents+json")],
        r#"{"specversion":"0.3","id":"1","source":"/","type":"t"}"#,
    );
    refuses(&structured, Binding::Http, "event-bad-specversion", "0.3");
}

#[test]
fn time_is_rfc_3339() {
    for good in [
        "2018-04-05T17:31:00Z",
        "2018-04-05t17:31:00z",
        "2018-04-05 17:31:00+00:00",
        "2016-12-31T23:59:60Z",
        "2018-04-05T17:31:00.123456789012-23:59",
        "0000-01-01T00:00:00Z",
        "2024-02-29T00:00:00.1Z",
    ] {
        let event = decoded(
            &binary_with(&[("ce-time", &good.replace(' ', "%20"))], ""),
            Binding::Nats,
        );
        assert_eq!(event.time.as_deref(), Some(good));
    }
    for bad in [
        "",
        "yesterday",
        "2018-04-05",
        "2018-04-05T17:31Z",
        "2018-04-05T17:31:00",
        "20180405T173100Z",
        "2023-02-29T00:00:00Z",
        "2018-13-05T17:31:00Z",
        "2018-04-05T24:31:00Z",
        "2018-04-05T17:31:00.Z",
        "2018-04-05T17:31:00+24:00",
        "2018-04-05T17:31:00+2:00",
        "2018-04-05T17:31:00Z[UTC]",
        "1522949460",
        "2018-04-05T17:31:00ZZ",
    ] {
        refuses(
            &binary_with(&[("ce-time", bad)], ""),
            Binding::Nats,
            "event-bad-attribute",
            "time",
        );
    }
}

#[test]
fn uris_have_no_white_space() {
    for (header, value) in [
        ("ce-source", "/a%20b"),
        ("ce-dataschema", "a%E2%80%83b"),
        ("ce-dataschema", ""),
    ] {
        let rest = REQUIRED.into_iter().filter(|(name, _)| *name != header);
        let message = message(&rest.chain([(header, value)]).collect::<Vec<_>>(), "");
        refuses(&message, Binding::Nats, "event-bad-attribute", "attribute");
    }
}

#[test]
fn names_are_lower_case_letters_and_digits() {
    for header in ["ce-my-ext", "ce-my_ext", "ce-", "ce-data", "ce-ä"] {
        refuses(
            &binary_with(&[(header, "x")], ""),
            Binding::Nats,
            "event-bad-name",
            "a-z",
        );
    }
    for member in ["my_ext", "myExt", "my-ext", "", "dataBase64"] {
        let message = structured_with(&format!(r#","{member}":"x""#));
        refuses(&message, Binding::Http, "event-bad-name", member);
    }
}

#[test]
fn a_batch_is_read_in_order_or_not_at_all() {
    let event = |id: &str| format!(r#"{{"specversion":"1.0","id":"{id}","source":"/","type":"t","data":[1, 2]}}"#);
    let batch = |items: &[String]| Bytes::from(format!(" [{}] ", items.join(" , ")));
    let events = decode_batch(&batch(&[event("a"), event("b")])).expect("a batch");
    let ids: Vec<_> = events.iter().map(|event| event.id.as_str()).collect();
    assert_eq!(ids, ["a", "b"]);
    assert_eq!(events[1].data.as_deref(), Some(&b"[1, 2]"[..]));
    assert_eq!(decode_batch(&batch(&[])).expect("empty is a batch"), []);

    let error = decode_batch(&batch(&[event("a"), event(""), event("c")])).expect_err("one is bad");
    assert!(matches!(error, Error::InBatch { index: 1, .. }), "{error:?}");
    assert_eq!(error.code(), "event-bad-attribute");
    for body in ["", "{}", "[1]", "[{}", "null", &event("a")] {
        let error = decode_batch(&Bytes::from(body.to_owned())).expect_err(body);
        assert!(error.code() == "event-bad-json" || body == "[{}]", "{body}: {error}");
    }
    let message = message(&[("content-type", "application/cloudevents-batch+json")], "[]");
    refuses(&message, Binding::Http, "event-unsupported-format", "batch");
}

#[test]
fn an_event_inside_an_event_is_structured_over_http() {
    let mut event = decoded(&binary_with(&[], "{}"), Binding::Nats);
    event.datacontenttype = Some("application/cloudevents+json".to_owned());
    let stream = stream(webhook(), Place::Path(template(&["x"])), ContentMode::Binary);
    let message = encode(&event, &stream).expect("encodes");
    assert_eq!(decoded(&message, Binding::Http), event);
}

#[test]
fn a_built_event_is_checked_by_the_same_rules() {
    let good = decoded(&binary_with(&[("ce-time", "2018-04-05T17:31:00Z")], ""), Binding::Nats);
    assert_eq!(check(&good), Ok(()));
    let code = |change: fn(&mut Event)| {
        let mut event = good.clone();
        change(&mut event);
        check(&event).expect_err("it breaks a rule").code()
    };
    assert_eq!(code(|event| event.id.clear()), "event-missing-attribute");
    assert_eq!(code(|event| event.subject = Some(String::new())), "event-bad-attribute");
    assert_eq!(code(|event| event.kind = "a\nb".to_owned()), "event-bad-attribute");
    assert_eq!(
        code(|event| event.extensions = vec![extension("A", text(""))]),
        "event-bad-name"
    );
    assert_eq!(
        code(|event| event.extensions = vec![extension("id", text("x"))]),
        "event-duplicate-attribute"
    );
    assert_eq!(
        code(|event| event.extensions = vec![extension("a", text("")); 2]),
        "event-duplicate-attribute"
    );
}
