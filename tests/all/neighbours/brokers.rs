//! What a broker does to slow events, and what goes through it with an event.

use async_nats::HeaderMap;
use async_nats::jetstream::{self, consumer, message::StreamMessage};
use percent_encoding::percent_decode_str;
use tidegate_tests::host::{Home, until};
use tidegate_tests::servers::Nats;

use super::{consumer as plugin, failed};

/// A server with a stream `in`, `out` and `dead`, and a host's config for them with further lines for the consumer.
async fn nats(guest: &str, lines: &str) -> (Nats, jetstream::Context, Home) {
    let server = Nats::start();
    let context = jetstream::new(async_nats::connect(server.url()).await.unwrap());
    let mut config = format!(
        "[ledger]\nurl = \"embedded:./data\"\n[broker.main]\nurl = \"{}\"\n",
        server.url()
    );
    for name in ["in", "out", "dead"] {
        config += &format!(
            "[stream.{name}]\nbroker = \"main\"\nsubjects = [\"{name}.>\"]\nsubject = \"{name}.all\"\ncreate = true\nack_wait = \"1s\"\n"
        );
        let stream = jetstream::stream::Config {
            name: name.to_owned(),
            subjects: vec![format!("{name}.>")],
            ..Default::default()
        };
        context.create_stream(stream).await.unwrap();
    }
    config += &plugin(guest, "in");
    (server, context, Home::new(&format!("{config}{lines}\n")))
}

async fn publish(context: &jetstream::Context, kind: &str, id: &str, more: &[(&str, &str)], data: &str) {
    let mut headers = HeaderMap::new();
    let attributes = [
        ("ce-specversion", "1.0"),
        ("ce-source", "/test"),
        ("ce-type", kind),
        ("ce-id", id),
        ("ce-subject", id),
    ];
    for (name, value) in attributes.iter().chain(more) {
        headers.insert(*name, *value);
    }
    let sent = context
        .publish_with_headers("in.all", headers, data.to_owned().into())
        .await;
    sent.unwrap().await.unwrap();
}

async fn first(context: &jetstream::Context, stream: &str) -> StreamMessage {
    let stream = context.get_stream(stream).await.unwrap();
    until("a message", async || {
        stream.get_info().await.unwrap().state.messages > 0
    })
    .await;
    stream.get_raw_message(1).await.unwrap()
}

fn header(message: &StreamMessage, name: &str) -> String {
    let value = message.headers.get(name).map(ToString::to_string);
    value.unwrap_or_else(|| panic!("no {name}: {:?}", message.headers))
}

/// Slow events came again after the broker's 30 seconds, and events fetched ahead expired before their turn.
#[tokio::test(flavor = "multi_thread")]
async fn slow_events_and_those_taken_ahead_of_their_turn_do_not_come_again() {
    let (_server, context, home) = nats("work", "concurrency = 1\nlimits = { time = \"10s\" }").await;
    let host = home.start().await;
    // Each runs for longer than the broker waits, and the last has waited for three of them.
    for id in ["e1", "e2", "e3", "e4"] {
        publish(&context, "wait", id, &[], "1500").await;
    }
    until("all are taken", async || {
        host.metric("tidegate_in_flight{").await == 4.0
    })
    .await;
    until("all", async || host.deliveries("work", "committed").await == 4.0).await;
    let stream = context.get_stream("in").await.unwrap();
    let mut durable = stream
        .get_consumer::<consumer::pull::Config>("tidegate-work")
        .await
        .unwrap();
    let state = durable.info().await.unwrap();
    // Every message was delivered once.
    assert_eq!(state.num_redelivered, 0, "{state:?}");
    assert_eq!(state.delivered.consumer_sequence, 4, "{state:?}");
    assert_eq!(host.deliveries("work", "duplicate").await, 0.0);
    host.stop().await;
}

/// Dead letters were "pointless without context", and an error of several lines broke the header and dropped the event.
#[tokio::test(flavor = "multi_thread")]
async fn a_dead_letter_has_its_context_even_if_the_error_has_several_lines() {
    let (_server, context, home) = nats(
        "hostile",
        "dead_letter = \"dead\"\ngrants = { state = true }\nretry = { attempts = 2, backoff = \"1ms..10ms\" }",
    )
    .await;
    let host = home.start().await;
    publish(&context, "panic", "größe", &[("ce-priority", "7")], "the order").await;
    let dead = first(&context, "dead").await;
    assert_eq!(&dead.payload[..], b"the order");
    assert_eq!(header(&dead, "ce-priority"), "7");
    assert_eq!(header(&dead, "Tidegate-Consumer"), "hostile");
    assert_eq!(header(&dead, "Tidegate-Stream"), "in");
    assert_eq!(header(&dead, "Tidegate-Position"), "1");
    assert_eq!(header(&dead, "Tidegate-Attempts"), "2");
    let detail = header(&dead, "Tidegate-Detail");
    let detail = percent_decode_str(&detail).decode_utf8().unwrap();
    assert!(
        detail.contains("no stock for größe") && detail.contains("at all"),
        "{detail}"
    );
    let kept = host.ask(&["dlq", "list", "--json"]).await.json();
    let id = kept[0]["id"].as_str().unwrap();
    let shown = host.ask(&["dlq", "show", id, "--json"]).await.json();
    assert_eq!(shown[0]["attempts"].as_array().unwrap().len(), 2, "{shown:?}");
    host.stop().await;
}

/// Headers were dropped on the way: no attributes of the event, no trace.
#[tokio::test(flavor = "multi_thread")]
async fn attributes_and_trace_go_through_in_both_directions() {
    let (_server, context, home) = nats("plain", "grants = { state = true, config = {} }").await;
    let host = home.start().await;
    let more = [
        ("ce-datacontenttype", "text/plain"),
        ("ce-dataschema", "https://example.com/schema"),
        ("ce-priority", "7"),
        (
            "ce-traceparent",
            "00-11111111111111111111111111111111-1111111111111111-01",
        ),
        ("traceparent", "00-11111111111111111111111111111111-2222222222222222-01"),
        ("tracestate", "a=1"),
        ("baggage", "team=shop"),
    ];
    publish(&context, "echo", "e1", &more, "the order").await;
    let out = first(&context, "out").await;
    assert_eq!(&out.payload[..], b"the order");
    for (name, value) in more {
        assert_eq!(header(&out, name), value, "{name}");
    }
    for (name, value) in [
        ("ce-subject", "e1"),
        ("ce-type", "plain.echo"),
        ("ce-causationid", "e1"),
        ("ce-correlationid", "e1"),
    ] {
        assert_eq!(header(&out, name), value, "{name}");
    }
    host.stop().await;
}

/// A record that was written before success let the redelivery of a failed event pass as a duplicate.
#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_failed_is_no_duplicate_and_one_that_took_effect_is() {
    let lines = "grants = { state = true, config = {} }\nretry = { attempts = 9, backoff = \"1ms..10ms\" }";
    let (_server, context, home) = nats("plain", lines).await;
    let host = home.start().await;
    let script = "attempt 3\nadd n 1";
    publish(&context, "state", "e1", &[], script).await;
    until("an attempt that failed", async || failed(&host).await >= 1.0).await;
    host.kill().await;
    let host = home.start().await;
    until("its effect", async || {
        host.deliveries("plain", "committed").await == 1.0
    })
    .await;
    let before = failed(&host).await;
    // The broker takes the copies: they come without a message id.
    for _ in 0..3 {
        publish(&context, "state", "e1", &[], script).await;
    }
    until("copies", async || host.deliveries("plain", "duplicate").await >= 3.0).await;
    assert_eq!(failed(&host).await, before, "a copy ran");
    assert_eq!(host.deliveries("plain", "committed").await, 1.0);
    host.stop().await;
}
