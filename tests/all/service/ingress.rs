//! What comes over HTTP and is no event is refused with a reason; what is one and does harm is a dead letter; others go on.

use reqwest::RequestBuilder;
use reqwest::header::HeaderValue;
use serde_json::Value;
use tidegate_tests::host::{Home, Host, until};
use tidegate_tests::sink::Sink;

use super::{hostile, through};

fn event(host: &Host<'_>, without: &str) -> RequestBuilder {
    let attributes = [("specversion", "1.0"), ("id", "e"), ("type", "ok"), ("source", "/test")];
    let attributes = attributes.into_iter().filter(|(name, _)| *name != without);
    attributes.fold(host.post("x"), |request, (name, value)| {
        request.header(format!("ce-{name}"), value)
    })
}

async fn check(request: RequestBuilder, status: u16, code: &str) {
    let response = request.send().await.unwrap();
    assert_eq!(response.status().as_u16(), status, "{code}");
    let body: Value = serde_json::from_str(&response.text().await.unwrap()).unwrap();
    assert_eq!(body["error"], code, "{body}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_event_is_refused_with_a_reason_and_what_follows_is_taken() {
    let sink = Sink::start().await;
    let home = Home::new(&through(&sink.url()));
    let host = home.start().await;
    check(event(&host, "id"), 400, "event-missing-attribute").await;
    check(
        event(&host, "specversion").header("ce-specversion", "0.3"),
        400,
        "event-bad-specversion",
    )
    .await;
    let not_utf8 = HeaderValue::from_bytes(b"\xff\xfe").unwrap();
    check(
        event(&host, "").header("ce-subject", not_utf8),
        400,
        "event-bad-encoding",
    )
    .await;
    check(host.post(""), 415, "event-not-recognised").await;
    check(
        host.post("").header("content-type", "application/cloudevents+json"),
        400,
        "event-bad-json",
    )
    .await;
    check(event(&host, "").body(vec![b'x'; 64 << 20]), 413, "ingress-too-large").await;
    assert_eq!(host.send("context", "good", "k", "").await.unwrap(), 202);
    until("the good one", async || sink.received().len() == 1).await;
    assert_eq!(sink.received()[0].cause, "good");
    assert_eq!(host.deliveries("plain", "committed").await, 1.0);
    assert_eq!(host.deliveries("plain", "dead").await, 0.0);
    host.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_under_a_used_id_is_a_dead_letter_and_the_same_event_again_is_nothing() {
    let home = Home::new(&hostile());
    let host = home.start().await;
    for data in ["one", "one", "two", "two"] {
        assert_eq!(host.send("ok", "e1", "k", data).await.unwrap(), 202);
    }
    assert_eq!(host.send("ok", "e2", "k", "").await.unwrap(), 202);
    until("both", async || host.deliveries("hostile", "committed").await == 2.0).await;
    let dead = host.ask(&["dlq", "list", "--json"]).await.json();
    assert_eq!(dead.len(), 1, "{dead:?}");
    assert_eq!(dead[0]["reason"], "id-conflict");
    host.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_without_data_is_an_event() {
    let home = Home::new(&hostile());
    let host = home.start().await;
    assert_eq!(host.send("ok", "empty", "k", "").await.unwrap(), 202);
    until("it", async || host.deliveries("hostile", "committed").await == 1.0).await;
    host.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_does_not_fit_the_plugins_memory_is_a_dead_letter_and_others_go_on() {
    let home = Home::new(&hostile().replace("limits = { ", "limits = { memory = \"4MiB\", "));
    let host = home.start().await;
    let large = event(&host, "").body(vec![b'x'; 6 << 20]);
    assert_eq!(large.send().await.unwrap().status().as_u16(), 202);
    assert_eq!(host.send("ok", "small", "k", "x").await.unwrap(), 202);
    until("both", async || {
        host.deliveries("hostile", "committed").await == 1.0 && host.deliveries("hostile", "dead").await == 1.0
    })
    .await;
    let dead = host.ask(&["dlq", "list", "--json"]).await.json();
    assert_eq!(dead[0]["reason"], "memory-limit", "{dead:?}");
    host.stop().await;
}
