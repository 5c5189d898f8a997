//! Putting events on streams.

use super::*;
use crate::admin::BODY_BYTES_MAX;

const ONE: &str = "application/cloudevents+json";
const BATCH: &str = "application/cloudevents-batch+json";

async fn send(host: &Running, stream: &str, content_type: &str, body: impl Into<reqwest::Body>) -> (u16, Value) {
    let url = host.url(&format!("/api/v1/streams/{stream}/events"));
    read(host.client.post(url).header("content-type", content_type).body(body)).await
}

fn event(id: &str) -> Value {
    json!({ "specversion": "1.0", "id": id, "source": "/shop", "type": "a.b", "subject": "s", "data": { "x": 1 } })
}

#[tokio::test]
async fn events_are_published_alone_and_in_batches() {
    let host = Running::start().await;
    assert_eq!(
        send(&host, "orders", ONE, event("1").to_string()).await,
        (202, json!({ "accepted": 1 }))
    );
    let batch = json!([event("2"), event("3")]).to_string();
    assert_eq!(
        send(&host, "orders", BATCH, batch).await,
        (202, json!({ "accepted": 2 }))
    );
    assert_eq!(
        send(&host, "orders", BATCH, "[]").await,
        (202, json!({ "accepted": 0 }))
    );
    let published = host.broker.published();
    let ids: Vec<_> = published
        .iter()
        .map(|outgoing| outgoing.message.headers.get("ce-id").unwrap())
        .collect();
    assert_eq!(ids, [b"1", b"2", b"3"]);
    assert_eq!(published[0].message.payload, "{\"x\":1}");
}

#[tokio::test]
async fn what_is_no_event_or_no_stream_is_refused() {
    let host = Running::start().await;
    let check = async |stream, content_type, body: String, status, code| {
        let (found, answer) = send(&host, stream, content_type, body).await;
        assert_eq!((found, &answer["error"]), (status, &json!(code)), "{answer}");
        assert!(!answer["message"].as_str().unwrap().is_empty());
    };
    check("orders", ONE, "{".to_owned(), 400, "event-bad-json").await;
    check(
        "orders",
        ONE,
        json!({ "specversion": "1.0" }).to_string(),
        400,
        "event-missing-attribute",
    )
    .await;
    check(
        "orders",
        BATCH,
        json!([event("1"), {}]).to_string(),
        400,
        "event-missing-attribute",
    )
    .await;
    check("orders", "application/json", "{}".to_owned(), 415, "admin-content-type").await;
    check("deliveries", ONE, event("1").to_string(), 400, "stream-not-writable").await;
    check("nothing", ONE, event("1").to_string(), 404, "no-stream").await;
    check("NO%20NAME", ONE, event("1").to_string(), 404, "no-stream").await;
    check("orders", ONE, "x".repeat(BODY_BYTES_MAX + 1), 413, "admin-too-large").await;
    assert!(host.broker.published().is_empty());
}

#[tokio::test]
async fn a_broker_that_is_away_or_refuses_is_told_apart() {
    let host = Running::start().await;
    host.broker.go(true);
    let url = host.url("/api/v1/streams/orders/events");
    let request = host
        .client
        .post(&url)
        .header("content-type", ONE)
        .body(event("1").to_string());
    let response = request.send().await.unwrap();
    assert_eq!(response.status(), 503);
    assert_eq!(response.headers()["retry-after"], "2", "1.5 s, rounded up");
    assert!(response.text().await.unwrap().contains("broker-unreachable"));

    host.broker.go(false);
    host.broker.refuse();
    let (status, body) = send(&host, "orders", ONE, event("1").to_string()).await;
    assert_eq!((status, &body["error"]), (400, &json!("broker-refused")));
}

/// A web page can send a form's content types to another origin without asking: none of them may do anything.
#[tokio::test]
async fn content_types_of_forms_do_nothing() {
    let host = Running::start().await;
    host.letters.add([fakes::letter(1)]);
    for content_type in ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data"] {
        let (status, _) = send(&host, "orders", content_type, event("1").to_string()).await;
        assert_eq!(status, 415, "{content_type}");
        let purge = host
            .client
            .post(host.url("/api/v1/dead-letters/purge"))
            .header("content-type", content_type);
        assert_eq!(read(purge.body("{\"all\":true}")).await.0, 415, "{content_type}");
    }
    assert!(host.broker.published().is_empty());
    assert_eq!(host.letters.all().len(), 1);
}
