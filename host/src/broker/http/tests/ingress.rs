use futures_util::stream;
use reqwest::header::HeaderMap;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::*;

const BINARY: [(&str, &str); 4] = [
    ("ce-specversion", "1.0"),
    ("ce-id", "1"),
    ("ce-source", "/shop"),
    ("ce-type", "order.placed"),
];
const STRUCTURED: &str = r#"{"specversion":"1.0","id":"1","source":"/shop","type":"order.placed","data":{"a":1}}"#;

struct Reply {
    status: u16,
    headers: HeaderMap,
    body: serde_json::Value,
}

impl Reply {
    /// A refusal has its code in the body, beside a text.
    fn refuses(&self, status: u16, code: &str) {
        assert_eq!(
            (self.status, self.body["error"].as_str()),
            (status, Some(code)),
            "{}",
            self.body
        );
        assert!(self.body["message"].as_str().is_some_and(|text| !text.is_empty()));
    }

    fn accepts(&self, count: usize) {
        assert_eq!(
            (self.status, &self.body),
            (202, &serde_json::json!({ "accepted": count }))
        );
    }

    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().expect("text"))
    }
}

fn client() -> reqwest::Client {
    rustls::crypto::ring::default_provider().install_default().ok();
    reqwest::Client::builder()
        .no_proxy()
        .tls_certs_only([])
        .build()
        .expect("a client")
}

async fn reply(request: reqwest::RequestBuilder) -> Reply {
    let response = soon(request.send()).await.expect("an answer");
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    let body = soon(response.bytes()).await.expect("a body");
    let body = serde_json::from_slice(&body).expect("JSON");
    Reply { status, headers, body }
}

fn request(serving: &Serving, path: &str, headers: &[(&str, &str)], body: &str) -> reqwest::RequestBuilder {
    let request = client()
        .post(format!("http://{}{path}", serving.address()))
        .body(body.to_owned());
    headers
        .iter()
        .fold(request, |request, (name, value)| request.header(*name, *value))
}

async fn post(serving: &Serving, path: &str, headers: &[(&str, &str)], body: &str) -> Reply {
    reply(request(serving, path, headers, body)).await
}

async fn post_json(serving: &Serving, content_type: &str, body: &str) -> Reply {
    post(serving, "/orders", &[("content-type", content_type)], body).await
}

#[tokio::test]
async fn events_of_each_mode_are_published_and_accepted() {
    let recorder = Recorder::new();
    let serving = start(ingress_plan(), &recorder).await;
    let binary = [&BINARY[..], &[("content-type", "text/plain"), ("ce-shard", "3")]].concat();
    post(&serving, "/orders", &binary, "hello").await.accepts(1);
    post_json(&serving, "application/cloudevents+json; charset=utf-8", STRUCTURED)
        .await
        .accepts(1);
    let batch = format!("[{STRUCTURED},{}]", STRUCTURED.replace("\"1\"", "\"2\""));
    post_json(&serving, "application/cloudevents-batch+json", &batch)
        .await
        .accepts(2);
    post_json(&serving, "application/cloudevents-batch+json", "[]")
        .await
        .accepts(0);
    post(&serving, "/legacy/in?x=1", &[("x-event", "created")], r#"{"id":7}"#)
        .await
        .accepts(1);

    let events = recorder.events();
    let ids: Vec<_> = events
        .iter()
        .map(|event| (event.source.as_str(), event.id.as_str()))
        .collect();
    assert_eq!(
        ids,
        [
            ("/shop", "1"),
            ("/shop", "1"),
            ("/shop", "1"),
            ("/shop", "2"),
            ("/legacy", "7")
        ]
    );
    assert_eq!(events[0].data.as_deref(), Some(&b"hello"[..]));
    assert_eq!(events[0].datacontenttype.as_deref(), Some("text/plain"));
    assert_eq!(events[0].attribute("shard").as_deref(), Some("3"));
    assert_eq!(events[1].data.as_deref(), Some(&br#"{"a":1}"#[..]));
    assert_eq!(recorder.published()[4].message.subject, "legacy");
}

#[tokio::test]
async fn the_same_event_has_the_same_publish_id_and_any_other_has_another() {
    let recorder = Recorder::new();
    let mut plan = ingress_plan();
    plan.routes.insert("/other".to_owned(), embedded("other", None));
    let serving = start(plan, &recorder).await;
    let with = |name, value| BINARY.map(|header| if header.0 == name { (name, value) } else { header });
    for (path, headers) in [
        ("/orders", BINARY),
        ("/orders", with("ce-type", "another.type")),
        ("/orders", with("ce-id", "2")),
        ("/orders", with("ce-source", "/shop2")),
        ("/other", BINARY),
    ] {
        post(&serving, path, &headers, "").await.accepts(1);
    }
    let ids: Vec<_> = recorder.published().into_iter().map(|outgoing| outgoing.id).collect();
    assert_eq!(ids[0].len(), 64);
    assert_eq!(ids[0], ids[1]);
    let distinct: std::collections::BTreeSet<_> = ids.iter().collect();
    assert_eq!(distinct.len(), 4);
}

#[tokio::test]
async fn the_trace_of_the_request_goes_with_the_message_and_nothing_else_does() {
    let recorder = Recorder::new();
    let serving = start(ingress_plan(), &recorder).await;
    let headers = [
        &BINARY[..],
        &[
            ("traceparent", "00-1-2-01"),
            ("cookie", "secret"),
            ("ce-subject", "o-1"),
        ],
    ]
    .concat();
    post(&serving, "/orders", &headers, "").await.accepts(1);
    let outgoing = recorder.published().remove(0);
    assert_eq!(outgoing.message.headers.get("traceparent"), Some(&b"00-1-2-01"[..]));
    assert_eq!(outgoing.message.headers.get("cookie"), None);
    assert_eq!(&outgoing.key[..], b"o-1");
}

#[tokio::test]
async fn what_is_no_event_is_refused_with_its_code() {
    let recorder = Recorder::new();
    let serving = start(ingress_plan(), &recorder).await;
    post(&serving, "/orders", &BINARY[..3], "")
        .await
        .refuses(400, "event-missing-attribute");
    post_json(&serving, "application/cloudevents+json", "{")
        .await
        .refuses(400, "event-bad-json");
    post(&serving, "/legacy/in", &[("x-event", "created")], "{}")
        .await
        .refuses(400, "event-no-origin");
    let half = format!("[{STRUCTURED},{}]", STRUCTURED.replace("1.0", "0.3"));
    let reply = post_json(&serving, "application/cloudevents-batch+json", &half).await;
    reply.refuses(400, "event-bad-specversion");
    assert!(
        reply.body["message"]
            .as_str()
            .is_some_and(|text| text.contains("event 1 of the batch"))
    );
    post_json(&serving, "application/json", "{}")
        .await
        .refuses(415, "event-not-recognised");
    post_json(&serving, "application/cloudevents+avro", "x")
        .await
        .refuses(415, "event-unsupported-format");
    assert!(recorder.published().is_empty(), "nothing of it is published");
}

#[tokio::test]
async fn routes_and_methods_are_checked() {
    let serving = start(ingress_plan(), &Recorder::new()).await;
    post(&serving, "/nowhere", &BINARY, "")
        .await
        .refuses(404, "ingress-no-route");
    post(&serving, "/orders/", &BINARY, "")
        .await
        .refuses(404, "ingress-no-route");
    let got = reply(client().get(format!("http://{}/orders", serving.address()))).await;
    got.refuses(405, "ingress-not-post");
    assert_eq!(got.header("allow"), "POST, OPTIONS");
}

#[tokio::test]
async fn a_webhook_sender_is_given_permission() {
    let plan = Ingress {
        token: Some(Secret::new("secret".to_owned())),
        ..ingress_plan()
    };
    let serving = start(plan, &Recorder::new()).await;
    let url = format!("http://{}/orders", serving.address());
    let options = client().request(reqwest::Method::OPTIONS, &url);
    let granted = reply(options.header("WebHook-Request-Origin", "sender.example.com")).await;
    assert_eq!(granted.status, 200);
    assert_eq!(granted.header("webhook-allowed-origin"), "sender.example.com");
    assert_eq!(granted.header("webhook-allowed-rate"), "*");
    let plain = reply(client().request(reqwest::Method::OPTIONS, &url)).await;
    assert_eq!(
        (plain.header("allow"), plain.header("webhook-allowed-origin")),
        ("POST, OPTIONS", "")
    );
}

/// A path that is there was told from one that is not, without the token.
#[tokio::test]
async fn permission_to_send_says_nothing_of_routes() {
    let plan = Ingress {
        token: Some(Secret::new("secret".to_owned())),
        ..ingress_plan()
    };
    let serving = start(plan, &Recorder::new()).await;
    let mut answers = Vec::new();
    for path in ["/orders", "/nowhere"] {
        let url = format!("http://{}{path}", serving.address());
        let asked = client().request(reqwest::Method::OPTIONS, url);
        let answer = reply(asked.header("WebHook-Request-Origin", "sender.example.com")).await;
        let mut headers = answer.headers;
        headers.remove("date");
        answers.push((answer.status, headers, answer.body));
    }
    assert_eq!(answers[0], answers[1]);
}

#[tokio::test]
async fn the_token_is_demanded_before_anything_else() {
    let recorder = Recorder::new();
    let plan = Ingress {
        token: Some(Secret::new("s3 cret".to_owned())),
        ..ingress_plan()
    };
    let serving = start(plan, &recorder).await;
    for (path, given) in [
        ("/orders", ""),
        ("/orders", "Bearer"),
        ("/orders", "Bearer wrong"),
        ("/orders", "Basic s3 cret"),
        ("/orders", "s3 cret"),
        ("/nowhere", "Bearer s3 cre"),
        ("/orders?access_token=wrong", ""),
        ("/orders?access_token=s3%20cret", "Bearer wrong"),
    ] {
        let reply = post(&serving, path, &[&BINARY[..], &[("authorization", given)]].concat(), "").await;
        reply.refuses(401, "ingress-token");
        assert_eq!(reply.header("www-authenticate"), "Bearer");
    }
    assert!(recorder.published().is_empty());
    post(
        &serving,
        "/orders",
        &[&BINARY[..], &[("authorization", "bearer s3 cret")]].concat(),
        "",
    )
    .await
    .accepts(1);
    post(&serving, "/orders?a=b&access_token=s3%20cret", &BINARY, "")
        .await
        .accepts(1);
}

#[tokio::test]
async fn a_body_over_the_limit_is_refused_declared_or_chunked() {
    let recorder = Recorder::new();
    let serving = start(ingress_plan(), &recorder).await;
    let text = |length| "x".repeat(length);
    post(&serving, "/orders", &BINARY, &text(4_096)).await.accepts(1);
    post(&serving, "/orders", &BINARY, &text(4_097))
        .await
        .refuses(413, "ingress-too-large");
    for (chunks, status) in [(4, 202), (5, 413)] {
        let body = stream::iter((0..chunks).map(|_| Ok::<_, std::io::Error>("x".repeat(1_024))));
        let request = request(&serving, "/orders", &BINARY, "").body(reqwest::Body::wrap_stream(body));
        assert_eq!(reply(request).await.status, status, "{chunks}");
    }
    assert_eq!(recorder.published().len(), 2);
}

/// A server that answers and closes while the client still writes makes it see a reset instead of the answer, and try again for ever.
#[tokio::test]
async fn a_body_far_over_the_limit_still_gets_its_answer() {
    let serving = start(ingress_plan(), &Recorder::new()).await;
    let plan = Ingress {
        token: Some(Secret::new("s".to_owned())),
        ..ingress_plan()
    };
    let closed = start(plan, &Recorder::new()).await;
    let large = "x".repeat(8 << 20);
    for _ in 0..20 {
        post(&serving, "/orders", &BINARY, &large)
            .await
            .refuses(413, "ingress-too-large");
        post(&serving, "/nowhere", &BINARY, &large)
            .await
            .refuses(404, "ingress-no-route");
        post(&closed, "/orders", &BINARY, &large)
            .await
            .refuses(401, "ingress-token");
    }
}

#[tokio::test]
async fn what_the_broker_can_not_take_is_refused_before_it_is_sent() {
    let recorder = Arc::new(Recorder {
        size_max: 500,
        ..Arc::into_inner(Recorder::new()).expect("one owner")
    });
    let serving = start(ingress_plan(), &recorder).await;
    let reply = post(&serving, "/orders", &BINARY, &"x".repeat(600)).await;
    reply.refuses(413, "ingress-too-large");
    assert!(
        reply.body["message"]
            .as_str()
            .is_some_and(|text| text.contains("500 bytes"))
    );
    assert!(recorder.published().is_empty());
}

#[tokio::test]
async fn a_broker_that_is_away_is_503_with_a_pause() {
    let serving = Door::open(ingress_plan())
        .await
        .expect("listens")
        .serve(Arc::new(|_| None));
    let reply = post(&serving, "/orders", &BINARY, "").await;
    reply.refuses(503, "broker-unreachable");
    assert_eq!(reply.header("retry-after"), "1");
}

fn refused() -> Error {
    Error::Refused {
        broker: name("main"),
        reason: "too odd".to_owned(),
    }
}

fn unreachable() -> Error {
    Error::Unreachable {
        broker: name("main"),
        reason: "no quorum".to_owned(),
        retry_after: Some(Duration::from_millis(6_001)),
    }
}

#[tokio::test]
async fn nothing_is_accepted_unless_the_broker_confirms_all_of_it() {
    // The second event of the batch is the one that fails.
    let second = |outgoing: &Outgoing| outgoing.message.headers.get("ce-id") == Some(b"2");
    let batch = format!("[{STRUCTURED},{}]", STRUCTURED.replace("\"1\"", "\"2\""));
    let batch_type = "application/cloudevents-batch+json";
    assert!(!second(&Outgoing {
        id: "".into(),
        key: Arc::from([]),
        message: Default::default()
    }));

    let recorder = Recorder::answering(|outgoing| match outgoing.message.headers.get("ce-id") {
        Some(b"2") => Err(unreachable()),
        _ => Ok(()),
    });
    let serving = start(ingress_plan(), &recorder).await;
    let reply = post_json(&serving, batch_type, &batch).await;
    reply.refuses(503, "broker-unreachable");
    assert_eq!(reply.header("retry-after"), "7");

    let recorder = Recorder::answering(|_| Err(refused()));
    let serving = start(ingress_plan(), &recorder).await;
    post_json(&serving, batch_type, &batch)
        .await
        .refuses(400, "broker-refused");

    let recorder = Recorder::answering(|outgoing| match outgoing.message.headers.get("ce-id") {
        Some(b"1") => Err(refused()),
        _ => Err(unreachable()),
    });
    let serving = start(ingress_plan(), &recorder).await;
    post_json(&serving, batch_type, &batch)
        .await
        .refuses(503, "broker-unreachable");

    let recorder = Recorder::answering(|_| {
        Err(Error::Misconfigured {
            broker: name("main"),
            reason: "no stream".to_owned(),
        })
    });
    let serving = start(ingress_plan(), &recorder).await;
    post_json(&serving, batch_type, &batch)
        .await
        .refuses(503, "broker-misconfigured");
}

/// A recorder whose batches hang until its gate has a permit.
fn hanging() -> Arc<Recorder> {
    Arc::new(Recorder {
        gate: Semaphore::new(0),
        ..Arc::into_inner(Recorder::new()).expect("one owner")
    })
}

#[tokio::test]
async fn a_request_too_many_is_503_and_the_others_go_on() {
    let recorder = hanging();
    let plan = Ingress {
        concurrency: NonZeroUsize::MIN,
        ..ingress_plan()
    };
    let serving = start(plan, &recorder).await;
    let first = tokio::spawn(reply(request(&serving, "/orders", &BINARY, "")));
    soon(recorder.arrived.acquire()).await.expect("open").forget();
    let reply = post(&serving, "/orders", &BINARY, "").await;
    reply.refuses(503, "ingress-busy");
    assert_eq!(reply.header("retry-after"), "1");
    recorder.gate.add_permits(2);
    soon(first).await.expect("answered").accepts(1);
    post(&serving, "/orders", &BINARY, "").await.accepts(1);
}

#[tokio::test]
async fn stopping_answers_what_is_under_way() {
    let recorder = hanging();
    let serving = start(ingress_plan(), &recorder).await;
    let address = serving.address();
    let under_way = tokio::spawn(reply(request(&serving, "/orders", &BINARY, "")));
    soon(recorder.arrived.acquire()).await.expect("open").forget();
    let stopped = tokio::spawn(serving.stop(Duration::from_secs(10)));
    // Nobody listens any more, and the request still has its time.
    soon(async { while tokio::net::TcpStream::connect(address).await.is_ok() {} }).await;
    assert!(!stopped.is_finished());
    recorder.gate.add_permits(1);
    soon(under_way).await.expect("answered").accepts(1);
    assert!(soon(stopped).await.expect("stopped"));
}

#[tokio::test]
async fn stopping_does_not_wait_longer_than_it_may() {
    let serving = start(ingress_plan(), &hanging()).await;
    let mut idle = tokio::net::TcpStream::connect(serving.address())
        .await
        .expect("connects");
    idle.write_all(b"POST /orders HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\n")
        .await
        .expect("written");
    // The server has accepted the connection once this later one is answered.
    post(&serving, "/nowhere", &BINARY, "")
        .await
        .refuses(404, "ingress-no-route");
    assert!(!soon(serving.stop(Duration::from_millis(50))).await);
}

#[tokio::test]
async fn a_body_that_does_not_come_is_given_up() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("binds");
    let address = listener.local_addr().expect("an address");
    let router = super::super::ingress::router(ingress_plan(), Arc::new(|_| None), Duration::from_millis(50));
    let server = tokio::spawn(axum::serve(listener, router).into_future());
    let mut slow = tokio::net::TcpStream::connect(address).await.expect("connects");
    slow.write_all(b"POST /orders HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\nconnection: close\r\n\r\nab")
        .await
        .expect("written");
    let mut answer = String::new();
    soon(slow.read_to_string(&mut answer)).await.expect("an answer");
    assert!(
        answer.starts_with("HTTP/1.1 408") && answer.contains("ingress-no-body"),
        "{answer}"
    );
    server.abort();
}

#[tokio::test]
async fn a_taken_address_is_an_error_that_names_it() {
    let serving = start(ingress_plan(), &Recorder::new()).await;
    let plan = Ingress {
        listen: serving.address(),
        ..ingress_plan()
    };
    let error = Door::open(plan).await.expect_err("it is taken");
    assert!(error.to_string().contains(&serving.address().to_string()), "{error}");
}
