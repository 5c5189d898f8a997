//! Canaries: a host with a secret wherever one may stand works, fails, is refused and is stopped, and none of them is in anything that it
//! says or keeps: not in logs at their finest, answers, metrics, errors, dead letters, nor files.

mod ear;
mod receiver;
mod refused;

use serde_json::{Value, json};
use tidegate_tests::guests;
use tidegate_tests::host::{Home, Host, until};
use tidegate_tests::servers::Nats;

use ear::Ear;
use receiver::Receiver;

/// No secret: it must be heard.
const DATA: &str = "canary-of-an-event";
const PASSWORD: &str = "canary-nats-password";
const URL_PASSWORD: &str = "canary-nats-url";
const HOOK: &str = "canary-webhook-token";
const INGRESS: &str = "canary-ingress-token";
const ADMIN: &str = "canary-admin-token";
const GRANT: &str = "canary-grant-in-the-file";
const GRANT_OF_VARIABLE: &str = "canary-grant-of-a-variable";
const WRONG: &str = "canary-that-is-wrong";
const SECRETS: [&str; 8] = [
    PASSWORD,
    URL_PASSWORD,
    HOOK,
    INGRESS,
    ADMIN,
    GRANT,
    GRANT_OF_VARIABLE,
    WRONG,
];
/// What a host is configured by, and what NATS keeps of its own configuration.
const CONFIGS: [&str; 2] = ["tidegate.toml", "server.conf"];

fn config(nats: &str, receiver: &str) -> String {
    let plugin = guests::build("plain");
    let consumer = |name: &str, reads: &str, writes: &str| {
        format!(
            r#"
[consumer.{name}]
plugin = "{}"
reads = "{reads}"
writes = "{writes}"
dead_letter = "dead"
grants = {{ state = true, config = {{ apikey = "{GRANT}", other = "${{GRANT}}" }} }}
retry = {{ attempts = 2, backoff = "1ms..10ms" }}
"#,
            plugin.display()
        )
    };
    let hook = |name: &str, status: u16| {
        format!(
            "\n[broker.{name}]\nurl = \"{receiver}/{status}\"\ntoken = \"{HOOK}\"\n[stream.{name}]\nbroker = \"{name}\"\n"
        )
    };
    let mut text = format!(
        r#"
[ledger]
url = "embedded:./data"

[broker.main]
url = "embedded:./data"
[stream.scripts]
broker = "main"

[broker.bus]
url = "{nats}"
user = "host"
password = "${{NATS_PASSWORD:-{WRONG}}}"
[stream.dead]
broker = "bus"
subjects = ["dead.>"]
subject = "dead.letters"
create = true

[broker.away]
url = "nats://host:{URL_PASSWORD}@127.0.0.1:1"
[stream.away]
broker = "away"
subjects = ["away.>"]

[ingress]
listen = "127.0.0.1:0"
token = "{INGRESS}"
routes = {{ "/in" = "scripts", "/dead" = "dead" }}

[admin]
listen = "${{ADMIN:-127.0.0.1:0}}"
token = "${{ADMIN_TOKEN:-{ADMIN}}}"

[host]
cache = "${{CACHE}}"
grace = "2s"
"#
    );
    for (name, status) in [("taken", 204), ("refused", 400), ("failing", 500), ("forbidden", 403)] {
        text.push_str(&hook(name, status));
        text.push_str(&consumer(name, "scripts", name));
    }
    text.push_str(&consumer("waiting", "away", "taken"));
    text
}

/// A folder with a config that is whole.
fn home(config: &str) -> Home {
    let home = Home::new("");
    std::fs::write(home.path().join("tidegate.toml"), config).unwrap();
    home
}

fn environment(password: &str) -> Vec<(&'static str, String)> {
    vec![
        ("TIDEGATE_LOG", "trace".to_owned()),
        ("NATS_PASSWORD", password.to_owned()),
        ("GRANT", GRANT_OF_VARIABLE.to_owned()),
        ("ADMIN_TOKEN", ADMIN.to_owned()),
    ]
}

fn server() -> Nats {
    Nats::with_config(&format!("authorization {{ user: host, password: \"{PASSWORD}\" }}"))
}

/// Asks for something, with what is meant to be the token.
async fn ask(ear: &mut Ear, what: &str, request: reqwest::RequestBuilder, token: &str) -> (u16, Value) {
    let response = request.bearer_auth(token).send().await.unwrap();
    let (status, headers) = (response.status().as_u16(), format!("{:?}", response.headers()));
    let body = response.text().await.unwrap();
    ear.hear(format!("headers of {what}"), headers);
    let json = serde_json::from_str(&body).unwrap_or_default();
    ear.hear(format!("body of {what}"), body);
    (status, json)
}

fn client() -> reqwest::Client {
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder().no_proxy().build().unwrap()
}

/// Puts in an event for every consumer.
async fn send(ear: &mut Ear, host: &Host<'_>, kind: &str, token: &str) -> u16 {
    let mut request = host.post(DATA).header("content-type", "text/plain");
    for (name, value) in [
        ("specversion", "1.0"),
        ("type", kind),
        ("id", kind),
        ("source", "/test"),
        ("subject", "k"),
    ] {
        request = request.header(format!("ce-{name}"), value);
    }
    ask(ear, &format!("POST /in ({kind})"), request, token).await.0
}

/// Everything that the API answers.
async fn asked_by_the_api(ear: &mut Ear, host: &Host<'_>) {
    let (http, base) = (client(), format!("http://{}", host.admin()));
    for path in [
        "/healthz",
        "/readyz",
        "/metrics",
        "/nowhere",
        "/api/v1/consumers",
        "/api/v1/streams",
        "/api/v1/openapi.json",
    ] {
        ask(ear, path, http.get(format!("{base}{path}")), ADMIN).await;
        ask(ear, path, http.get(format!("{base}{path}")), WRONG).await;
    }
    let (_, list) = ask(ear, "the list", http.get(format!("{base}/api/v1/dead-letters")), ADMIN).await;
    let letters = list["dead_letters"].as_array().unwrap();
    for letter in letters {
        let path = format!("{base}/api/v1/dead-letters/{}", letter["id"].as_str().unwrap());
        let (status, _) = ask(ear, "a dead letter", http.get(path), ADMIN).await;
        assert_eq!(status, 200);
    }
    for (path, body) in [
        ("dead-letters/purge", json!({ "consumer": "taken", "dry_run": true })),
        ("dead-letters/redrive", json!({ "reason": "permanent" })),
        ("dead-letters/purge", json!({ "nonsense": WRONG.len() })),
        ("streams/dead/events", json!({})),
        ("streams/nowhere/events", json!({})),
        ("streams/failing/events", json!({})),
    ] {
        let mut request = http.post(format!("{base}/api/v1/{path}")).json(&body);
        if path.ends_with("events") {
            let event = json!({ "specversion": "1.0", "id": "by-hand", "source": "/test", "type": "t" });
            request = request
                .header("content-type", "application/cloudevents+json")
                .body(event.to_string());
        }
        ask(ear, path, request, ADMIN).await;
    }
}

/// Every command that has something to say of a host.
async fn asked_by_commands(ear: &mut Ear, home: &Home, environment: &[(&str, String)]) {
    let plugin = guests::build("plain").display().to_string();
    for args in [
        &["check"][..],
        &["schema"],
        &["inspect", &plugin],
        &["dlq", "list"],
        &["dlq", "purge", "--all", "--dry-run"],
        &["dlq", "show", "0"],
        &["publish", "scripts", "--type", "log", "--id", "by-command"],
        &["publish", "failing", "--type", "log"],
    ] {
        for json in [&[][..], &["--json"]] {
            let args = [args, json].concat();
            ear.hear_command(&args, home.ask_with(environment, &args).await);
        }
    }
}

/// A line of `tail`, once something has happened.
async fn watched(ear: &mut Ear, host: &Host<'_>) {
    let request = client()
        .get(format!("http://{}/api/v1/tail", host.admin()))
        .bearer_auth(ADMIN);
    let mut tail = request.send().await.unwrap();
    assert_eq!(send(ear, host, "echo", INGRESS).await, 202);
    let line = tail.chunk().await.unwrap().unwrap();
    ear.hear("tail", line.to_vec());
}

#[tokio::test(flavor = "multi_thread")]
async fn no_secret_is_in_anything_that_a_host_says_or_keeps() {
    let (nats, receiver, mut ear) = (server(), Receiver::start().await, Ear::default());
    let home = home(&config(nats.url(), &receiver.url));
    let environment = environment(PASSWORD);
    let host = home.start_with(&environment).await.map_err(|ended| ended.log).unwrap();
    until("the consumers are subscribed", async || {
        host.get("/readyz").await.1.matches("\"subscribed\":true").count() == 4
    })
    .await;
    watched(&mut ear, &host).await;
    for kind in ["config", "log", "transient", "permanent", "no-such-type"] {
        assert_eq!(send(&mut ear, &host, kind, INGRESS).await, 202);
        assert_eq!(send(&mut ear, &host, kind, WRONG).await, 401);
    }
    let (http, letters) = (client(), format!("http://{}/api/v1/dead-letters", host.admin()));
    until("all has gone wrong", async || {
        let letters = http
            .get(&letters)
            .bearer_auth(ADMIN)
            .send()
            .await
            .unwrap()
            .text()
            .await
            .unwrap();
        let (log, reasons) = (host.log(), ["output-refused", "permanent", "attempts-exhausted"]);
        log.contains("the receiver answers 500")
            && log.contains("the receiver answers 403")
            && reasons.iter().all(|reason| letters.contains(reason))
    })
    .await;
    asked_by_the_api(&mut ear, &host).await;
    let mut with_admin = environment.clone();
    with_admin.push(("ADMIN", host.admin().to_string()));
    asked_by_commands(&mut ear, &home, &with_admin).await;
    with_admin.push(("ADMIN_TOKEN", WRONG.to_owned()));
    asked_by_commands(&mut ear, &home, &with_admin).await;
    host.signal("-TERM");
    let (_, last, log) = host.ended().await;
    ear.hear("stdout", format!("{last:?}"));
    ear.hear("the log", log);
    asked_by_commands(&mut ear, &home, &environment).await;
    ear.hear_files(home.path(), &CONFIGS);
    ear.hear_files(nats.folder(), &CONFIGS);
    ear.heard_none_of(&SECRETS);

    // What is no secret is heard where it belongs, so the ear hears.
    let places = ear.places(DATA);
    for place in ["body of a dead letter", "file "] {
        assert!(
            places.iter().any(|found| found.starts_with(place)),
            "not in {place}: {places:?}"
        );
    }
    // Nor was it deaf for what went wrong where a secret was at hand.
    for (place, said) in [
        (
            "body of a dead letter",
            "the receiver answers 400 Bad Request: authorization: ",
        ),
        (
            "the log",
            "the receiver answers 500 Internal Server Error: authorization: ",
        ),
        ("the log", "the receiver answers 403 Forbidden: authorization: "),
        ("body of /readyz", "127.0.0.1:1"),
        ("the log", " TRACE async_nats"),
        ("the log", " TRACE hyper"),
    ] {
        assert!(ear.places(said).contains(&place), "{said}");
    }
}
