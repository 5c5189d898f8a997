use axum::Router;
use axum::extract::Request;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::sync::Barrier;

use super::*;
use crate::broker::{Room, Subscription};
use crate::event::Message;
use crate::plan;

pub(super) fn webhook_plan(url: String) -> plan::Webhook {
    plan::Webhook {
        url,
        token: Some(Secret::new("s3cret".to_owned())),
        timeout: Duration::from_secs(10),
        concurrency: NonZeroUsize::new(2).expect("not zero"),
    }
}

pub(super) fn webhook(plan: &plan::Webhook) -> Webhook {
    Webhook::new(name("hook"), plan, Clock::system()).expect("a webhook")
}

pub(super) async fn publisher(plan: &plan::Webhook) -> Arc<dyn Publisher> {
    let stream = embedded("any", None);
    webhook(plan).publisher(stream).await.expect("a publisher")
}

/// A receiver that answers by this function, and its base URL.
async fn receiver<F>(answer: fn(Request) -> F) -> String
where
    F: Future<Output = Response> + Send + 'static,
{
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("binds");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    tokio::spawn(axum::serve(listener, Router::new().fallback(answer)).into_future());
    url
}

fn outgoing(place: &str, headers: &[(&str, &str)]) -> Outgoing {
    let mut message = Message {
        subject: place.to_owned(),
        payload: Bytes::from_static(b"body"),
        ..Message::default()
    };
    for (name, value) in headers {
        message.headers.push(*name, value);
    }
    Outgoing {
        id: "out-1".into(),
        key: Arc::from([]),
        message,
    }
}

async fn send(url: String, place: &str) -> Result<(), Error> {
    let publisher = publisher(&webhook_plan(url)).await;
    soon(publisher.publish(vec![outgoing(place, &[])])).await.remove(0)
}

/// Answers with the status that the path names; 2xx only if everything of the request is as it must be.
async fn by_path(request: Request) -> Response {
    let status = request
        .uri()
        .path()
        .rsplit('/')
        .next()
        .and_then(|text| text.parse().ok())
        .unwrap_or(404);
    let headers = [("location", "/base/200"), ("retry-after", "17")];
    (StatusCode::from_u16(status).expect("a status"), headers, "because").into_response()
}

#[tokio::test]
async fn answers_mean_what_they_say() {
    let url = format!("{}/base/", receiver(by_path).await);
    assert!(send(url.clone(), "200").await.is_ok());
    for status in ["408", "429", "500", "503"] {
        let error = send(url.clone(), status).await.expect_err(status);
        let Error::Unreachable {
            reason, retry_after, ..
        } = error
        else {
            panic!("{status}: {error}")
        };
        assert!(reason.contains(status) && reason.contains("because"), "{reason}");
        assert_eq!(retry_after, Some(Duration::from_secs(17)));
    }
    let error = send(url.clone(), "422").await.expect_err("refused");
    assert!(matches!(&error, Error::Refused { reason, .. } if reason.contains("422") && reason.contains("because")));
    // Had the redirect been followed, it would have been confirmed.
    let error = send(url, "307").await.expect_err("not followed");
    assert!(
        matches!(&error, Error::Misconfigured { reason, .. } if reason.contains("redirects")),
        "{error}"
    );
}

/// Repeats the request in the reason of a refusal.
async fn repeat(request: Request) -> Response {
    let header = |name: &str| {
        request
            .headers()
            .get(name)
            .map_or("-".into(), |value| String::from_utf8_lossy(value.as_bytes()))
    };
    let text = format!(
        "{} {} {} {} {} {} {}",
        request.method(),
        request.uri(),
        header("authorization").len(),
        header("authorization"),
        header("idempotency-key"),
        header("ce-id"),
        header("content-type")
    );
    (StatusCode::BAD_REQUEST, text).into_response()
}

#[tokio::test]
async fn a_request_carries_headers_token_and_idempotency_key_to_its_place() {
    let url = receiver(repeat).await;
    for (base, place, expected) in [
        ("", "orders/new", "/orders/new"),
        ("/", "/orders", "/orders"),
        ("/hooks", "orders%2Fnew", "/hooks/orders%2Fnew"),
        ("/hooks/", "", "/hooks/"),
        ("/hooks?key=1", "orders", "/hooks/orders?key=1"),
        ("/hooks?key=1", "orders?x=2", "/hooks/orders?x=2&key=1"),
        ("/hooks", "/evil.example.com/", "/hooks/evil.example.com/"),
    ] {
        let publisher = publisher(&webhook_plan(format!("{url}{base}"))).await;
        let sent = outgoing(place, &[("ce-id", "a%20b"), ("Content-Type", "text/x")]);
        let error = soon(publisher.publish(vec![sent]))
            .await
            .remove(0)
            .expect_err("repeated");
        let wanted = format!("POST {expected} 13 Bearer *** out-1 a%20b text/x");
        assert!(error.to_string().contains(&wanted), "{wanted:?} in {error}");
    }
}

async fn echo(request: Request) -> Response {
    let token = request.headers()["authorization"].to_str().expect("text");
    // So that a cut of what is repeated would leave a part of it.
    let page = format!("{}{token}", "x".repeat(190));
    let status = request.uri().path().trim_start_matches('/').parse().expect("a status");
    (StatusCode::from_u16(status).expect("a status"), page).into_response()
}

/// It was repeated in the reason, and so in the log, in readiness and in dead letters.
#[tokio::test]
async fn a_token_that_a_receiver_sends_back_is_not_repeated() {
    let url = receiver(echo).await;
    for status in ["400", "401", "503"] {
        let error = send(url.clone(), status).await.expect_err("refused").to_string();
        assert!(error.contains(status) && error.contains("Bearer"), "{error}");
        assert!(!error.contains("s3"), "{error}");
    }
}

#[tokio::test]
async fn what_can_not_be_sent_is_refused() {
    let url = format!("{}/hooks", receiver(repeat).await);
    let publisher = publisher(&webhook_plan(url)).await;
    for sent in [
        outgoing("../other", &[]),
        outgoing("%2e%2e/other", &[]),
        outgoing("x", &[("a b", "c")]),
        outgoing("x", &[("a", "b\nc")]),
        Outgoing {
            id: "a\nb".into(),
            ..outgoing("x", &[])
        },
    ] {
        let error = soon(publisher.publish(vec![sent]))
            .await
            .remove(0)
            .expect_err("refused");
        assert!(
            matches!(&error, Error::Refused { reason, .. } if !reason.contains("answers")),
            "{error}"
        );
    }
}

/// Events fill in places, and must not choose whom the host talks to.
#[tokio::test]
async fn no_place_leads_to_another_host() {
    let url = format!("{}/hooks", receiver(repeat).await);
    let publisher = publisher(&webhook_plan(url)).await;
    for place in [
        "//127.0.0.2/x",
        "///127.0.0.2/x",
        "\\\\127.0.0.2\\x",
        "/\t/127.0.0.2/x",
        "http://127.0.0.2/x",
        "@127.0.0.2/x",
        ":80@127.0.0.2/x",
        "%2f%2f127.0.0.2",
    ] {
        let error = soon(publisher.publish(vec![outgoing(place, &[])]))
            .await
            .remove(0)
            .expect_err("repeated");
        assert!(
            error.to_string().contains("400 Bad Request: POST /hooks/"),
            "{place:?}: {error}"
        );
    }
}

#[tokio::test]
async fn nobody_there_is_unreachable() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("binds");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    drop(listener);
    let error = send(url.clone(), "x").await.expect_err("nobody");
    assert!(
        matches!(&error, Error::Unreachable { reason, .. } if reason.contains("refused")),
        "{error}"
    );
    let error = soon(webhook(&webhook_plan(url)).check()).await.expect_err("nobody");
    assert!(matches!(error, Error::Unreachable { .. }));
}

async fn never(_: Request) -> Response {
    std::future::pending().await
}

#[tokio::test]
async fn an_answer_that_does_not_come_is_unreachable() {
    let url = receiver(never).await;
    let plan = plan::Webhook {
        timeout: Duration::from_millis(100),
        ..webhook_plan(url)
    };
    let error = soon(publisher(&plan).await.publish(vec![outgoing("x", &[])]))
        .await
        .remove(0)
        .expect_err("too late");
    assert!(
        matches!(&error, Error::Unreachable { reason, .. } if reason.contains("timed out")),
        "{error}"
    );
}

#[tokio::test]
async fn any_answer_at_all_shows_that_it_is_there() {
    let url = receiver(by_path).await;
    for place in ["/200", "/404", "/503", "/302"] {
        assert!(
            soon(webhook(&webhook_plan(format!("{url}{place}"))).check())
                .await
                .is_ok(),
            "{place}"
        );
    }
}

#[tokio::test]
async fn answers_come_in_the_order_of_the_batch() {
    let publisher = publisher(&webhook_plan(receiver(by_path).await)).await;
    let statuses = ["200", "500", "204", "400", "200", "429", "201"];
    let batch = statuses.iter().map(|status| outgoing(status, &[])).collect();
    let answers = soon(publisher.publish(batch)).await;
    for (status, answer) in statuses.iter().zip(&answers) {
        assert_eq!(answer.is_ok(), status.starts_with('2'), "{status}");
        assert!(
            answer
                .as_ref()
                .err()
                .is_none_or(|error| error.to_string().contains(status))
        );
    }
    assert_eq!(answers.len(), statuses.len());
}

static UNDER_WAY: AtomicUsize = AtomicUsize::new(0);
static MOST: AtomicUsize = AtomicUsize::new(0);
static PAIR: std::sync::OnceLock<Barrier> = std::sync::OnceLock::new();

/// Answers requests two at a time: one alone would wait for ever.
async fn in_pairs(_: Request) -> Response {
    let under_way = UNDER_WAY.fetch_add(1, Ordering::SeqCst) + 1;
    MOST.fetch_max(under_way, Ordering::SeqCst);
    PAIR.get_or_init(|| Barrier::new(2)).wait().await;
    UNDER_WAY.fetch_sub(1, Ordering::SeqCst);
    StatusCode::NO_CONTENT.into_response()
}

#[tokio::test]
async fn as_many_requests_are_under_way_as_the_plan_says_over_all_batches() {
    let publisher = publisher(&webhook_plan(receiver(in_pairs).await)).await;
    let batch = || (0..6).map(|_| outgoing("x", &[])).collect();
    let (one, other) = soon(async { tokio::join!(publisher.publish(batch()), publisher.publish(batch())) }).await;
    assert!(one.iter().chain(&other).all(Result::is_ok));
    assert_eq!(MOST.load(Ordering::SeqCst), 2);
}

async fn endless(_: Request) -> Response {
    let chunks = futures_util::stream::repeat_with(|| Ok::<_, std::io::Error>(Bytes::from_static(&[b'x'; 1_024])));
    (StatusCode::BAD_REQUEST, axum::body::Body::from_stream(chunks)).into_response()
}

#[tokio::test]
async fn an_endless_answer_is_cut_short() {
    let error = send(receiver(endless).await, "x").await.expect_err("refused");
    assert!(error.to_string().len() < 300, "{error}");
}

#[tokio::test]
async fn a_webhook_is_not_read() {
    let subscription = Subscription {
        consumer: name("c"),
        stream: embedded("orders", None),
        room: Room { count: 1, bytes: 1 },
    };
    let webhook = webhook(&webhook_plan("http://localhost".to_owned()));
    let Err(error) = webhook.subscribe(subscription).await else {
        panic!("it can't be read")
    };
    assert!(
        matches!(&error, Error::Misconfigured { reason, .. } if reason.contains("orders")),
        "{error}"
    );
}

#[test]
fn what_can_not_be_configured_is_said_at_once_and_without_secrets() {
    for (url, token) in [("nonsense", "s3cret"), ("http://localhost", "s3cret\n")] {
        let plan = plan::Webhook {
            token: Some(Secret::new(token.to_owned())),
            ..webhook_plan(url.to_owned())
        };
        let error = Webhook::new(name("hook"), &plan, Clock::system()).expect_err("no webhook");
        assert!(
            matches!(error, Error::Misconfigured { .. }) && !error.to_string().contains("s3cret"),
            "{error}"
        );
    }
}
