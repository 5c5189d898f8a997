//! Where events are written.

use super::*;

/// The place of an event of this type, or the error's code.
fn placed(kind: BrokerKind, place: Place, event_type: &str) -> Result<String, &'static str> {
    let mut event = decoded(&binary_with(&[], ""), Binding::Nats);
    event.kind = event_type.to_owned();
    encode(&event, &stream(kind, place, ContentMode::Binary))
        .map(|message| message.subject)
        .map_err(|error| error.code())
}

#[test]
fn a_nats_subject_is_filled_in_and_safe() {
    let place =
        |parts: &[&str], event_type: &str| placed(BrokerKind::Embedded, jetstream(Some(template(parts))), event_type);
    assert_eq!(
        place(&["stock.", ":type"], "com.example.order"),
        Ok("stock.com.example.order".to_owned())
    );
    assert_eq!(place(&[":type"], "é"), Ok("é".to_owned()));
    assert_eq!(place(&["$KV.bucket.", ":type"], "a"), Ok("$KV.bucket.a".to_owned()));
    for bad in [
        "a b",
        "a*",
        ">",
        ".a",
        "a.",
        "a..b",
        "a\u{2003}b",
        "\u{7f}",
        &"x".repeat(3_000),
    ] {
        assert_eq!(place(&["stock.", ":type"], bad), Err("event-bad-place"), "{bad}");
    }
    assert_eq!(place(&[":type"], "$JS.API.STREAM.DELETE.X"), Err("event-bad-place"));
    assert_eq!(place(&["s.", ":subject"], "t"), Err("event-bad-place"));
    assert_eq!(
        placed(BrokerKind::Embedded, jetstream(None), "t"),
        Err("stream-not-writable")
    );
    assert_eq!(placed(BrokerKind::Embedded, log(), "t"), Ok("orders".to_owned()));
}

#[test]
fn a_path_is_filled_in_and_stays_below_its_url() {
    let place = |parts: &[&str], event_type: &str| placed(webhook(), Place::Path(template(parts)), event_type);
    assert_eq!(
        place(&["hooks/", ":type"], "com.example.order"),
        Ok("hooks/com.example.order".to_owned())
    );
    assert_eq!(
        place(&["hooks/", ":type", "?x=1"], "a/../b?c#é"),
        Ok("hooks/a%2F..%2Fb%3Fc%23%C3%A9?x=1".to_owned())
    );
    assert_eq!(
        place(&["hooks/", ":type"], "//h@evil:80\\"),
        Ok("hooks/%2F%2Fh%40evil%3A80%5C".to_owned())
    );
    for bad in ["..", "."] {
        assert_eq!(place(&["hooks/", ":type"], bad), Err("event-bad-place"), "{bad}");
    }
    assert_eq!(place(&["hooks/", ":subject"], "t"), Err("event-bad-place"));
}
