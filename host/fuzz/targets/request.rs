//! Whole HTTP requests, as text, to the ingress and to the admin API with and without a token.
#![no_main]

use std::cell::RefCell;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::{Body, HttpBody as _, to_bytes};
use axum::http::{HeaderValue, Method, Request, StatusCode, Uri, header};
use futures_util::future::BoxFuture;
use libfuzzer_sys::fuzz_target;
use serde_json::Value;
use tidegate::admin;
use tidegate::broker::http::ingress;
use tidegate::broker::{Error, Outgoing, Publisher};
use tidegate::event::Message;
use tidegate::event::codec::{self, Binding};
use tidegate_fuzz::{is_said_on_a_line, keeps_the_rules, message, plan};
use tokio::runtime::Runtime;
use tower_service::Service;

const TOKEN: &str = "t0ken";
const CONFIG: &str = r#"
[ledger]
url = "embedded:./data"
[broker.main]
url = "embedded:"
[broker.bus]
url = "nats://127.0.0.1:1"
[stream.orders]
broker = "main"
[stream.foreign]
broker = "main"
mapping = { id = "hash", source = "header:x-source", type = "data:/type" }
[stream.deliveries]
broker = "bus"
subjects = ["deliveries.>"]
[stream.stock]
broker = "bus"
subject = "stock.{type}.{tenant}"
[consumer.inventory]
plugin = "/dev/null"
reads = "orders"
[admin]
token = "t0ken"
[ingress]
listen = "127.0.0.1:0"
token = "t0ken"
routes = { "/orders" = "orders", "/foreign" = "foreign", "/stock" = "stock" }
"#;

/// The doors, made once.
struct Doors {
    runtime: Runtime,
    ingress: Router,
    taken: Arc<Shelf>,
    guarded: admin::fuzzing::Served,
    local: admin::fuzzing::Served,
}

#[derive(Default)]
struct Shelf(Mutex<Vec<Outgoing>>);

impl Publisher for Shelf {
    fn publish(&self, batch: Vec<Outgoing>) -> BoxFuture<'_, Vec<Result<(), Error>>> {
        let answers = batch.iter().map(|_| Ok(())).collect();
        self.0.lock().unwrap().extend(batch);
        Box::pin(async { answers })
    }

    fn size_max(&self) -> usize {
        1_024
    }
}

impl Doors {
    fn open() -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let plan = {
            let folder = std::env::temp_dir().join(format!("tidegate-fuzz-{}", std::process::id()));
            std::fs::create_dir_all(&folder).unwrap();
            std::fs::write(folder.join("plugin.wasm"), "").unwrap();
            plan(&CONFIG.replace("/dev/null", folder.to_str().unwrap()))
        };
        let taken = Arc::new(Shelf::default());
        let shelf = taken.clone();
        let lookup: ingress::Lookup = Arc::new(move |_| Some(shelf.clone()));
        let router = ingress::fuzzing::ingress(plan.ingress.clone().unwrap(), lookup);
        let (guarded, local) = {
            let _entered = runtime.enter();
            (
                admin::fuzzing::api(plan.clone(), Some(TOKEN)),
                admin::fuzzing::api(plan, None),
            )
        };
        Self {
            runtime,
            ingress: router,
            taken,
            guarded,
            local,
        }
    }

    fn ask(&self, router: &Router, request: &Message) -> Option<Answer> {
        let request = http(request)?;
        self.runtime.block_on(async {
            let response = router.clone().call(request).await.unwrap();
            let (parts, body) = response.into_parts();
            // A watcher's stream has no end.
            let body = match body.size_hint().exact() {
                Some(_) => to_bytes(body, 1 << 20).await.unwrap().to_vec(),
                None => Vec::new(),
            };
            Some(Answer {
                status: parts.status,
                body,
                retry_after: parts.headers.get(header::RETRY_AFTER).cloned(),
            })
        })
    }
}

struct Answer {
    status: StatusCode,
    body: Vec<u8>,
    retry_after: Option<HeaderValue>,
}

thread_local! {
    static DOORS: RefCell<Option<Doors>> = const { RefCell::new(None) };
}

fuzz_target!(|input: &[u8]| {
    let request = message(input);
    let has_token = has_token(&request);
    DOORS.with_borrow_mut(|doors| {
        let doors = doors.get_or_insert_with(Doors::open);
        if let Some(answer) = doors.ask(&doors.ingress, &request) {
            through_the_ingress(&answer, doors, has_token);
        }
        for (served, is_guarded) in [(&doors.guarded, true), (&doors.local, false)] {
            let before = served.letters();
            if let Some(answer) = doors.ask(&served.router, &request) {
                let is_let_in = !is_guarded || has_token;
                through_the_api(&answer, &request, is_let_in);
                // Nothing is purged but by saying so, and by who may.
                let is_purge = request.subject.contains("purge") && is_let_in && answer.status == StatusCode::OK;
                assert!(is_purge || served.letters() == before);
            }
            served.refill();
        }
    });
});

/// The first line is `METHOD TARGET`.
fn http(message: &Message) -> Option<Request<Body>> {
    let (method, target) = message.subject.split_once(' ')?;
    let mut request = Request::builder()
        .method(Method::from_bytes(method.as_bytes()).ok()?)
        .uri(target.trim().parse::<Uri>().ok()?);
    for (name, value) in message.headers.iter() {
        request = request.header(name, HeaderValue::from_bytes(value).ok()?);
    }
    request.body(Body::from(message.payload.clone())).ok()
}

/// Whether a request may have the token: where else than in its headers or its target could it be.
fn has_token(request: &Message) -> bool {
    let headers = request.headers.iter().any(|(_, value)| has(value, TOKEN.as_bytes()));
    headers || request.subject.contains("access_token=")
}

fn has(bytes: &[u8], what: &[u8]) -> bool {
    bytes.windows(what.len()).any(|window| window == what)
}

fn through_the_ingress(answer: &Answer, doors: &Doors, has_token: bool) {
    let taken = std::mem::take(&mut *doors.taken.0.lock().unwrap());
    let body: Value = serde_json::from_slice(&answer.body).unwrap();
    match answer.status.as_u16() {
        202 => {
            assert!(has_token);
            assert_eq!(body["accepted"].as_u64(), Some(taken.len() as u64));
        }
        200 => assert_eq!(body, serde_json::json!({})),
        400 | 401 | 404 | 405 | 408 | 413 | 415 => is_said_on_a_line(is_a_problem(&body)),
        503 => {
            is_said_on_a_line(is_a_problem(&body));
            assert!(answer.retry_after.is_some());
        }
        other => panic!("the ingress answers {other}: {body}"),
    }
    assert!(answer.status == StatusCode::ACCEPTED || taken.is_empty());
    for outgoing in taken {
        assert_eq!(outgoing.id.len(), 64);
        let event = codec::decode(&outgoing.message, Binding::Nats, None).unwrap();
        keeps_the_rules(&event);
    }
}

fn through_the_api(answer: &Answer, request: &Message, is_let_in: bool) {
    let (_, target) = request.subject.split_once(' ').unwrap();
    let status = answer.status.as_u16();
    match status {
        200 | 202 => assert!(is_let_in || is_open(target), "{status} for {target}"),
        400 | 401 | 403 | 404 | 405 | 408 | 413 | 415 | 421 | 503 => {
            // An answer to HEAD has no body, and that of a host that is not ready says why.
            let is_other = request.subject.starts_with("HEAD ") || status == 503 && is_open(target);
            if !is_other {
                is_a_problem(&serde_json::from_slice(&answer.body).unwrap());
            }
        }
        other => panic!("the API answers {other}"),
    }
    // A client may be told what it sent, decoded.
    let sent: Vec<u8> = [target.as_bytes(), &request.payload].concat();
    if !has(&sent, b"%") && !has(&sent, b"\\") && !has(&sent, TOKEN.as_bytes()) && !has_token(request) {
        assert!(!has(&answer.body, TOKEN.as_bytes()));
    }
}

fn is_open(target: &str) -> bool {
    let path = target.trim().parse::<Uri>().map(|uri| uri.path().to_owned()).unwrap();
    !path.starts_with("/api")
}

fn is_a_problem(body: &Value) -> &str {
    assert!(!body["error"].as_str().unwrap().is_empty());
    body["message"].as_str().unwrap()
}
