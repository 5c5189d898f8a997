//! What a plugin is given and what it gives back.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "tests report by panicking, also from their helpers"
)]

use std::time::Duration;

use tidegate::event::key::LaneKey;
use tidegate::event::{Event, Extension, Headers, Value};
use tidegate::outcome::{Class, Outcome};
use tidegate::plugin::{Attempted, Handler};
use tidegate_tests::guests::build;
use tidegate_tests::plugins::{State, call, call_with_headers, consumer, event, failure, record, try_load};

/// The only output's header lines and data.
fn said(attempted: &Attempted) -> (Vec<String>, String) {
    let [output] = attempted.effects.outputs.as_slice() else {
        panic!("{attempted:?}")
    };
    let lines = output.message.headers.iter();
    let lines = lines.map(|(name, value)| format!("{name}={}", String::from_utf8_lossy(value)));
    let data = String::from_utf8(output.message.payload.to_vec()).unwrap();
    (lines.collect(), data)
}

#[tokio::test]
async fn an_output_has_what_the_host_knows_of_it() {
    let plugin = try_load(consumer(build("plain"))).await.unwrap();
    let event = event("echo", "größe");
    let done = call(&plugin, &event, &State::default()).await;
    assert_eq!(done.outcome, Outcome::Succeeded);
    let (lines, data) = said(&done);
    assert_eq!(data, "größe");
    let id = record(&event).output_id(0);
    let output = &done.effects.outputs[0];
    assert_eq!(&*output.id, id);
    assert_eq!(output.stream.as_str(), "out");
    assert_eq!(output.key, LaneKey(b"s1".as_slice().into()));
    let has = |line: &str| assert!(lines.iter().any(|known| known == line), "{line}: {lines:?}");
    has(&format!("id={id}"));
    has("source=/tidegate/test");
    has("type=plain.echo");
    has("subject=s1");
    has("datacontenttype=text/plain");
    has("priority=7");
    has("causationid=e1");
    has("correlationid=e1");
    has("traceparent=00-ab-cd-01");
    assert_eq!(lines.iter().filter(|line| line.starts_with("traceparent")).count(), 1);
    assert!(lines.iter().any(|line| line.starts_with("time=20")), "{lines:?}");
}

/// A sender's long headers once made each output too large, and a dead letter of an event that nobody was to blame for.
#[tokio::test]
async fn trace_headers_go_on_as_far_as_there_is_room_and_are_no_fault_of_the_plugin() {
    let mut consumer = consumer(build("plain"));
    consumer.limits.emit_bytes = 2_048;
    consumer.limits.effect_bytes = 2_048;
    let plugin = try_load(consumer).await.unwrap();
    let mut headers = Headers::default();
    headers.push("tracestate", "a=1");
    headers.push("baggage", "x".repeat(4_096));
    let (state, time) = (State::default(), Duration::from_secs(2));
    let done = call_with_headers(&plugin, &event("echo", "größe"), &headers, &state, time).await;
    assert_eq!(done.outcome, Outcome::Succeeded);
    let (lines, _) = said(&done);
    assert!(lines.contains(&"tracestate=a=1".to_owned()), "{lines:?}");
    assert!(!lines.iter().any(|line| line.starts_with("baggage")), "{lines:?}");
}

#[tokio::test]
async fn a_chain_keeps_its_correlation() {
    let plugin = try_load(consumer(build("plain"))).await.unwrap();
    let mut event = event("context", "");
    event.extensions.push(extension("correlationid", "c9"));
    let done = call(&plugin, &event, &State::default()).await;
    let (lines, data) = said(&done);
    assert!(lines.contains(&"correlationid=c9".to_owned()), "{lines:?}");
    assert!(lines.contains(&"tone=calm".to_owned()), "{lines:?}");
    let idempotency_key = format!("idempotency-key: \"{}\"", record(&event));
    for known in ["consumer: \"test\"", "attempt: 1", "key: \"s1\"", &idempotency_key] {
        assert!(data.contains(known), "{data}");
    }
    assert!(data.contains(&*plugin.revision()), "{data}");
}

#[tokio::test]
async fn a_type_without_a_route_is_refused() {
    let mut silent = consumer(build("plain"));
    silent.writes.clear();
    let plugin = try_load(silent).await.unwrap();
    let failed = failure(call(&plugin, &event("echo", ""), &State::default()).await);
    assert_eq!(failed.class, Class::Permanent);
    assert!(failed.message.contains("NoRoute"), "{failed:?}");
    assert!(failed.message.contains("plain.echo"), "{failed:?}");
}

#[tokio::test]
async fn a_draft_that_can_not_be_written_there_is_invalid() {
    let plugin = try_load(consumer(build("plain"))).await.unwrap();
    let mut event = event("echo", "");
    event.extensions.push(Extension {
        name: "refused".to_owned(),
        value: Value::Boolean(true),
    });
    let failed = failure(call(&plugin, &event, &State::default()).await);
    assert!(
        failed.message.contains("Invalid(\"it can't be written there\")"),
        "{failed:?}"
    );
}

fn extension(name: &str, value: &str) -> Extension {
    Extension {
        name: name.to_owned(),
        value: Value::String(value.to_owned()),
    }
}

/// Echoes an event that is no good output; the plugin is told why.
async fn check_invalid(event: Event, reason: &str) {
    let plugin = try_load(consumer(build("plain"))).await.unwrap();
    let failed = failure(call(&plugin, &event, &State::default()).await);
    assert!(failed.message.contains("Invalid("), "{failed:?}");
    assert!(failed.message.contains(reason), "{failed:?}");
}

#[tokio::test]
async fn a_draft_that_no_reader_would_take_is_invalid() {
    let with = |change: &dyn Fn(&mut Event)| {
        let mut event = event("echo", "");
        event.extensions.clear();
        change(&mut event);
        event
    };
    check_invalid(with(&|event| event.dataschema = Some("a b".to_owned())), "white space").await;
    check_invalid(with(&|event| event.subject = Some(String::new())), "subject").await;
    check_invalid(with(&|event| event.subject = Some("a\nb".to_owned())), "control").await;
    for (name, value, reason) in [
        ("Region", "eu", "Region"),
        ("", "eu", "no attribute name"),
        ("source", "eu", "can't be set"),
        ("big", &"x".repeat(65 << 10), "too large"),
    ] {
        check_invalid(with(&|event| event.extensions = vec![extension(name, value)]), reason).await;
    }
    let twice = vec![extension("a", "1"), extension("a", "2")];
    check_invalid(with(&|event| event.extensions = twice.clone()), "twice").await;
}

/// It was compared each with each: a minute of a worker's time, in a call that nothing interrupts.
#[tokio::test]
async fn a_flood_of_extensions_is_refused_by_its_count() {
    let mut flood = event("echo", "");
    flood.extensions = (0..60_000).map(|n| extension(&format!("a{n}"), "")).collect();
    check_invalid(flood, "60000 extensions are more than 128").await;
}

#[tokio::test]
async fn an_output_is_not_refused_for_what_it_is_given() {
    let plugin = try_load(consumer(build("plain"))).await.unwrap();
    let mut event = event("echo", "");
    event.id = "x".repeat(60 << 10);
    let done = call(&plugin, &event, &State::default()).await;
    let (lines, _) = said(&done);
    let has = |name: &str| lines.iter().any(|line| line.starts_with(&format!("{name}=")));
    assert!(
        has("causationid") && has("traceparent") && !has("correlationid"),
        "{lines:?}"
    );
}

#[tokio::test]
async fn failures_come_as_the_plugin_said_them() {
    let plugin = try_load(consumer(build("plain"))).await.unwrap();
    let failed = failure(call(&plugin, &event("transient", ""), &State::default()).await);
    assert_eq!(failed.class, Class::Transient);
    assert_eq!(failed.message, "the warehouse is closed");
    assert_eq!(failed.retry_after, Some(Duration::from_millis(1500)));
    let failed = failure(call(&plugin, &event("permanent", ""), &State::default()).await);
    assert_eq!(failed.class, Class::Permanent);
    assert_eq!(failed.message, "no such product");
}

#[tokio::test]
async fn a_plugin_reads_its_config() {
    let plugin = try_load(consumer(build("plain"))).await.unwrap();
    let done = call(&plugin, &event("config", ""), &State::default()).await;
    assert_eq!(said(&done).1, "Ok(Some(\"EUR\")) Ok(None) 1");
}

mod lines {
    use std::io;
    use std::sync::{Arc, Mutex};

    use tidegate_tests::guests::build;
    use tidegate_tests::plugins::{State, call, consumer, event, try_load};
    use tracing_subscriber::fmt::MakeWriter;

    #[derive(Clone, Default)]
    struct Kept(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Kept {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl<'a> MakeWriter<'a> for Kept {
        type Writer = Self;

        fn make_writer(&'a self) -> Self {
            self.clone()
        }
    }

    /// The host's log while a plugin handles one event.
    async fn logged(guest: &str, kind: &str, granted: bool) -> String {
        let mut consumer = consumer(build(guest));
        consumer.grants.logging = granted;
        let plugin = try_load(consumer).await.unwrap();
        let kept = Kept::default();
        let subscriber = tracing_subscriber::fmt()
            .with_ansi(false)
            .with_writer(kept.clone())
            .finish();
        // The test's runtime has one thread: whatever runs meanwhile runs on this one.
        let guard = tracing::subscriber::set_default(subscriber);
        call(&plugin, &event(kind, ""), &State::default()).await;
        drop(guard);
        String::from_utf8(kept.0.lock().unwrap().clone()).unwrap()
    }

    #[tokio::test]
    async fn what_a_plugin_says_is_in_the_hosts_log_with_its_event() {
        let log = logged("plain", "log", true).await;
        let lines: Vec<&str> = log.lines().collect();
        assert_eq!(lines.len(), 3, "{log}");
        for (line, level, context, text) in [
            (lines[0], " WARN ", "\"plain\"", "\"a line\""),
            (lines[1], " INFO ", "\"stdout\"", "\"to standard output\""),
            (lines[2], " WARN ", "\"stderr\"", "\"to standard error\""),
        ] {
            let event = "consumer=test event_id=\"e1\"";
            for part in [level, "plugin: the plugin says", event, context, text] {
                assert!(line.contains(part), "{part} in {line}");
            }
        }
    }

    #[tokio::test]
    async fn lines_over_their_limit_are_counted() {
        let log = logged("hostile", "log-flood", true).await;
        let lines: Vec<&str> = log.lines().collect();
        assert_eq!(lines.len(), 101);
        // 100,000 lines and one on the standard output, less the 100 that were said.
        assert!(lines[100].contains("dropped=99901"), "{}", lines[100]);
    }

    #[tokio::test]
    async fn a_line_over_its_length_is_cut() {
        let log = logged("hostile", "huge-log", true).await;
        assert!(log.len() > 4096 && log.len() < 4096 + 300, "{}", log.len());
    }

    #[tokio::test]
    async fn nothing_is_said_without_the_grant() {
        assert_eq!(logged("plain", "log", false).await, "");
    }
}
