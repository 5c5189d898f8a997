//! Health, and who may ask.

use reqwest::header::HOST;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::*;
use crate::admin::{Door, Error};

#[tokio::test]
async fn readiness_says_which_consumer_is_not_subscribed_and_why() {
    let broker = FakeBroker::default();
    broker.go(true);
    let host = Running::start_with(None, broker).await;
    let body = host.wait_for("/readyz", 503).await;
    assert_eq!(
        (&body["ready"], &body["consumers"][0]["subscribed"]),
        (&json!(false), &json!(false))
    );
    let (status, alive) = host.get("/healthz").await;
    assert_eq!((status, &alive["service"]), (200, &json!("tidegate")));

    host.broker.go(false);
    let body = host.wait_for("/readyz", 200).await;
    let consumer = json!({ "consumer": "inventory", "subscribed": true });
    assert_eq!(body, json!({ "ready": true, "consumers": [consumer] }));

    host.broker.go(true);
    let body = host.wait_for("/readyz", 503).await;
    let trouble = body["consumers"][0]["trouble"].as_str().unwrap();
    assert!(trouble.contains("nobody is at home"), "{trouble}");
}

#[tokio::test]
async fn metrics_are_open_metrics() {
    let host = Running::start().await;
    let response = host.client.get(host.url("/metrics")).send().await.unwrap();
    let content_type = response.headers()["content-type"].to_str().unwrap().to_owned();
    assert_eq!(
        content_type,
        "application/openmetrics-text; version=1.0.0; charset=utf-8"
    );
    let text = response.text().await.unwrap();
    assert!(
        text.contains("tidegate_deliveries_total{consumer=\"inventory\",outcome=\"committed\"} 0"),
        "{text}"
    );
    assert!(text.ends_with("# EOF\n"));
}

#[tokio::test]
async fn consumers_and_streams_are_listed() {
    let host = Running::start().await;
    let (status, consumers) = host.get("/api/v1/consumers").await;
    assert_eq!((status, &consumers[0]["reads"]), (200, &json!("orders")));
    assert_eq!(consumers[0]["breaker"], "closed");
    let (status, streams) = host.get("/api/v1/streams").await;
    assert_eq!(status, 200);
    assert_eq!(streams[1], json!({ "stream": "orders", "broker": "main", "outbox": 0 }));
}

#[tokio::test]
async fn api_demands_the_token_and_health_does_not() {
    let host = Running::start_with(Some("s3cret"), FakeBroker::default()).await;
    let with = |value: &str| {
        read(
            host.client
                .get(host.url("/api/v1/streams"))
                .header("authorization", value),
        )
    };
    for wrong in ["Bearer s3cre", "Bearer s3crets", "Basic s3cret", "s3cret", "Bearer "] {
        let (status, body) = with(wrong).await;
        assert_eq!((status, &body["error"]), (401, &json!("admin-token")), "{wrong}");
    }
    assert_eq!(host.get("/api/v1/streams").await.0, 401);
    assert_eq!(
        host.get("/api/v1/nothing").await.0,
        401,
        "who may not ask learns no routes"
    );
    assert_eq!(with("Bearer s3cret").await.0, 200);
    assert_eq!(with("bearer s3cret").await.0, 200);
    assert_eq!(host.get("/healthz").await.0, 200);
    assert_eq!(host.get("/metrics").await.0, 200);
}

/// What a request of these bytes is answered.
async fn raw(host: &Running, request: &str) -> String {
    let mut stream = tokio::net::TcpStream::connect(host.address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test]
async fn no_spelling_of_a_path_goes_round_the_token() {
    let host = Running::start_with(Some("s3cret"), FakeBroker::default()).await;
    for path in [
        "/api/v1/streams",
        "//api/v1/streams",
        "/%61pi/v1/streams",
        "/API/v1/streams",
        "/./api/v1/streams",
        "/healthz/../api/v1/streams",
        "/api/v1/streams/",
        "/api/v1/streams?x=/healthz",
        "http://localhost/api/v1/streams",
        "/metrics/../api/v1/streams",
    ] {
        let request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
        let answer = raw(&host, &request).await;
        let status = answer.get(9..12).unwrap();
        assert!(status == "401" || status == "404", "{path}: {answer}");
        assert!(!answer.contains("orders"), "{path}: {answer}");
    }
}

#[tokio::test]
async fn without_a_token_only_local_names_are_answered() {
    let host = Running::start().await;
    let port = host.address.port();
    let named = |name: String| read(host.client.get(host.url("/api/v1/streams")).header(HOST, name));
    for local in ["localhost", "LOCALHOST", "127.0.0.1", "[::1]"] {
        assert_eq!(named(local.to_owned()).await.0, 200, "{local}");
        assert_eq!(named(format!("{local}:{port}")).await.0, 200, "{local}");
    }
    for foreign in [
        "rebound.example.com",
        "localhost.example.com",
        "127.0.0.1.example.com",
        "10.0.0.1",
    ] {
        let (status, body) = named(format!("{foreign}:{port}")).await;
        assert_eq!((status, &body["error"]), (403, &json!("admin-host")), "{foreign}");
    }
    let health = host
        .client
        .get(host.url("/metrics"))
        .header(HOST, "rebound.example.com");
    assert_eq!(read(health).await.0, 403);
}

#[tokio::test]
async fn with_a_token_any_name_is_answered() {
    let host = Running::start_with(Some("s3cret"), FakeBroker::default()).await;
    let request = host
        .client
        .get(host.url("/api/v1/streams"))
        .header(HOST, "tidegate.example.com");
    assert_eq!(read(request.bearer_auth("s3cret")).await.0, 200);
}

#[tokio::test]
async fn other_addresses_are_refused_without_a_token_and_taken_ones_said_so() {
    let host = Running::start().await;
    let admin = |listen: &str| plan::Admin {
        listen: listen.parse().unwrap(),
        token: None,
    };
    let refused = Door::open(&admin("0.0.0.0:0")).await.unwrap_err();
    assert!(matches!(refused, Error::Unprotected { .. }), "{refused}");
    let taken = Door::open(&admin(&host.address.to_string())).await.unwrap_err();
    assert!(taken.to_string().contains(&host.address.to_string()), "{taken}");
}
