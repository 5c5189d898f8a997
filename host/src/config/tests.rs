//! What a person meets who writes a config: the plan it becomes, or what is said about it.

use std::path::Path;
use std::time::Duration;

use super::*;
use crate::plan::{
    BrokerKind, Instances, Key, LedgerPlace, Name, NatsCredentials, OnDead, Origin, Place, SettleWhen, Template,
    TemplatePart, TypePattern,
};

/// The example of the design, with the one stream that it only names in a comment's place.
const EXAMPLE: &str = r#"# tidegate.toml: a whole working config
[ledger]
url = "embedded:./data"              # or redis://, postgres://
retention = "7d"                     # how long an event id is remembered

[broker.main]
url = "${NATS_URL:-embedded:./data}" # nats:// kafka:// amqp:// redis:// sqs:// pubsub:// http:// postgres:// (outbox)

[stream.orders]
broker = "main"
subjects = ["orders.>"]              # the words of that broker: stream, subjects · topic · queue, exchange · subscription

[stream.stock]
broker = "main"
subject = "stock.{type}"             # where it is written

[stream.orders-dead]
broker = "main"
subject = "dead.orders"

[consumer.inventory]
plugin = "plugins/inventory"         # a plugin folder, a .wasm file, later an OCI reference; all may pin a digest
reads = "orders"
writes = "stock"                     # or a table: { "com.example.stock.*" = "stock", "*" = "bus" }
types = ["com.example.order.placed"]
key = "subject"                      # an attribute or extension, or "data:/orderId"
concurrency = 64
retry = { attempts = 5, backoff = "100ms..10s" }   # and park_after, on_dead, breaker
limits = { memory = "64MiB", time = "2s" }
grants = { state = true, http = ["https://api.example.com"], config = { currency = "EUR" } }
dead_letter = "orders-dead"          # optional: also published here; they are always kept in the ledger

[admin]
listen = "127.0.0.1:7070"
"#;

/// A folder with the plugin that the examples name.
fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(folder.path().join("plugins/inventory")).unwrap();
    std::fs::write(folder.path().join("plugins/inventory/plugin.wasm"), b"").unwrap();
    folder
}

fn parsed(text: &str, env: &dyn Fn(&str) -> Option<String>) -> Result<Loaded, Problems> {
    let folder = folder();
    parse(text, &folder.path().join("tidegate.toml"), env)
}

fn no_env(_: &str) -> Option<String> {
    None
}

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

#[test]
fn the_example_of_the_design_runs_embedded() {
    let folder = folder();
    let Loaded { plan, warnings } = parse(EXAMPLE, &folder.path().join("tidegate.toml"), &no_env)
        .map_err(|problems| problems.to_string())
        .unwrap();
    assert_eq!(warnings, []);
    assert_eq!(plan.ledger.place, LedgerPlace::Embedded(folder.path().join("data")));
    assert_eq!(plan.ledger.retention, Duration::from_secs(7 * 86_400));
    assert!(plan.ledger.fsync);
    let consumer = &plan.consumers[&name("inventory")];
    assert_eq!(consumer.plugin, folder.path().join("plugins/inventory/plugin.wasm"));
    assert!(matches!(consumer.reads.broker.kind, BrokerKind::Embedded));
    assert!(matches!(&consumer.reads.place, Place::Log(log) if log.bytes_max == 1 << 30));
    assert_eq!(consumer.writes[0].stream.name, name("stock"));
    assert!(consumer.writes[0].types.matches("anything"));
    assert_eq!(
        consumer.types,
        [TypePattern::Exact("com.example.order.placed".to_owned())]
    );
    assert_eq!(consumer.key, Key::Attribute("subject".to_owned()));
    assert_eq!(consumer.budget.events.get(), 1_024);
    assert_eq!(consumer.retry.park_over.get(), 128);
    assert_eq!(consumer.limits.memory, 64 << 20);
    assert!(consumer.grants.state && consumer.grants.logging);
    assert_eq!(consumer.grants.http, ["https://api.example.com"]);
    assert_eq!(consumer.instances, Instances::Fresh);
    assert_eq!(consumer.dead_letter.as_ref().unwrap().name, name("orders-dead"));
    assert_eq!(plan.admin.listen.to_string(), "127.0.0.1:7070");
    assert_eq!(plan.host.instances_max.get(), 64);
}

#[test]
fn the_same_file_runs_on_nats_where_the_variable_says_so() {
    let nats = |name: &str| (name == "NATS_URL").then(|| "nats://bob:s%40crit@nats.example".to_owned());
    let plan = parsed(EXAMPLE, &nats).unwrap().plan;
    let BrokerKind::Nats(nats) = &plan.brokers[&name("main")].kind else {
        panic!("no NATS broker");
    };
    assert_eq!(nats.servers, ["nats://nats.example:4222"]);
    assert!(matches!(
        &nats.credentials,
        NatsCredentials::Password { user, password } if user == "bob" && password.reveal() == "s@crit"
    ));
    assert!(nats.tls.is_none());
    let Place::JetStream(orders) = &plan.streams[&name("orders")].place else {
        panic!("no JetStream stream");
    };
    assert_eq!(orders.subjects, ["orders.>"]);
    assert_eq!(orders.ack_wait, Duration::from_secs(30));
    let Place::JetStream(stock) = &plan.streams[&name("stock")].place else {
        panic!("no JetStream stream");
    };
    let subject = Template {
        parts: vec![
            TemplatePart::Literal("stock.".to_owned()),
            TemplatePart::Attribute("type".to_owned()),
        ],
    };
    assert_eq!(stock.subject, Some(subject));
}

/// A consumer with every key.
const WHOLE: &str = r#"
[ledger]
url = "embedded:data"

[broker.main]
url = "tls://one.example:4443,tls://two.example"
token = "t0ken"

[broker.local]
url = "embedded:"

[broker.hook]
url = "https://hooks.example/base"
token = "${HOOK_TOKEN:-h00k}"
timeout = "5s"
concurrency = 8

[stream.orders]
broker = "main"
stream = "ORDERS"
subjects = ["orders.*", "returns.>"]
create = true
ack_wait = "1m"
mode = "structured"
mapping = { id = "data:/id", source = "urn:shop", type = "header:Kind", subject = "subject" }

[stream.new]
broker = "main"
subjects = ["new"]
create = true

[stream.stock]
broker = "local"
age_max = "30d"
bytes_max = "10MB"

[stream.bus]
broker = "local"

[stream.alerts]
broker = "hook"
path = "/alerts/{type}?brace={{"

[consumer.all]
plugin = "plugins/inventory/plugin.wasm"
digest = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
reads = "orders"
writes = { "*" = "bus", "com.*" = "stock", "com.example.*" = "alerts", "com.example.stock" = "stock" }
types = ["com.example.*", "org.example.order"]
key = "data:/orderId"
concurrency = 100
budget = { events = 200, bytes = "1MiB" }
retry = { attempts = 3, backoff = "1s..1m", park_after = "1m", park_over = 20 }
limits = { memory = 1048576, time = "500ms", table_elements = 10, emits = 1, emit_bytes = "2KiB", state_writes = 2, effect_bytes = "4KiB", log_lines = 3, log_line_bytes = "64B" }
grants = { state = true, config = { api_key = "k3y" }, logging = false, http = ["https://api.example.com:8443"] }
instances = { uses_max = 7, age_max = "1h" }
on_dead = "hold_key"
dead_letter = "alerts"
settle = "committed"
breaker = { failure_rate = 1, window = 4, keys_min = 2, open = "1s..2s" }

[consumer.plain]
plugin = "plugins/inventory"
reads = "stock"
key = "none"
instances = "reuse"

[admin]
listen = "0.0.0.0:0"
token = "adm1n"

[ingress]
listen = "[::1]:8080"
routes = { "/orders/new" = "stock" }
body_max = "2MiB"
concurrency = 2

[host]
grace = "1m"
cache = "cache"
instances_max = 12
"#;

#[test]
fn every_key_reaches_the_plan() {
    let folder = folder();
    let loaded = parse(WHOLE, &folder.path().join("tidegate.toml"), &no_env)
        .map_err(|problems| problems.to_string())
        .unwrap();
    assert_eq!(loaded.warnings, []);
    let plan = loaded.plan;

    let BrokerKind::Nats(nats) = &plan.brokers[&name("main")].kind else {
        panic!("no NATS broker");
    };
    assert_eq!(nats.servers, ["tls://one.example:4443", "tls://two.example:4222"]);
    assert!(matches!(&nats.credentials, NatsCredentials::Token(token) if token.reveal() == "t0ken"));
    assert!(nats.tls.is_some());
    let BrokerKind::Webhook(hook) = &plan.brokers[&name("hook")].kind else {
        panic!("no webhook");
    };
    assert_eq!(hook.url, "https://hooks.example/base");
    assert_eq!(hook.token.as_ref().unwrap().reveal(), "h00k");
    assert_eq!((hook.timeout, hook.concurrency.get()), (Duration::from_secs(5), 8));

    let orders = &plan.streams[&name("orders")];
    let mapping = orders.mapping.as_ref().unwrap();
    assert_eq!(mapping.id, Origin::Data("/id".to_owned()));
    assert_eq!(mapping.source, Origin::Fixed("urn:shop".to_owned()));
    assert_eq!(mapping.kind, Origin::Header("Kind".to_owned()));
    assert_eq!(mapping.subject, Some(Origin::Subject));
    let jetstream = |stream: &str| match &plan.streams[&name(stream)].place {
        Place::JetStream(jetstream) => jetstream.clone(),
        _ => panic!("no JetStream stream"),
    };
    assert_eq!(jetstream("orders").stream.as_deref(), Some("ORDERS"));
    assert_eq!(jetstream("orders").ack_wait, Duration::from_secs(60));
    assert_eq!(jetstream("new").stream.as_deref(), Some("new"));
    let Place::Log(log) = &plan.streams[&name("stock")].place else {
        panic!("no log");
    };
    assert_eq!(log.age_max, Some(Duration::from_secs(30 * 86_400)));
    assert_eq!(log.bytes_max, 10_000_000);
    let Place::Path(path) = &plan.streams[&name("alerts")].place else {
        panic!("no path");
    };
    assert_eq!(path.parts[2], TemplatePart::Literal("?brace={".to_owned()));

    let consumer = &plan.consumers[&name("all")];
    let rules: Vec<_> = consumer
        .writes
        .iter()
        .map(|rule| (&rule.types, rule.stream.name.as_str()))
        .collect();
    let prefix = |text: &str| TypePattern::Prefix(text.to_owned());
    assert_eq!(
        rules,
        [
            (&TypePattern::Exact("com.example.stock".to_owned()), "stock"),
            (&prefix("com.example."), "alerts"),
            (&prefix("com."), "stock"),
            (&prefix(""), "bus"),
        ]
    );
    assert_eq!(consumer.key, Key::Data("/orderId".to_owned()));
    assert_eq!(
        (consumer.budget.events.get(), consumer.budget.bytes.get()),
        (200, 1 << 20)
    );
    assert_eq!(consumer.retry.attempts.get(), 3);
    assert_eq!(consumer.retry.backoff_max, Duration::from_secs(60));
    assert_eq!(consumer.retry.park_over.get(), 20);
    assert_eq!((consumer.limits.memory, consumer.limits.log_line_bytes), (1 << 20, 64));
    assert_eq!(consumer.limits.effect_bytes, 4_096);
    assert_eq!(consumer.grants.config.as_ref().unwrap()["api_key"], "k3y");
    assert!(!consumer.grants.logging);
    assert!(matches!(consumer.instances, Instances::Reuse { uses_max, .. } if uses_max.get() == 7));
    assert_eq!(consumer.on_dead, OnDead::HoldKey);
    assert_eq!(consumer.settle, SettleWhen::Committed);
    assert_eq!(consumer.breaker.window.get(), 4);
    assert_eq!(consumer.breaker.open_max, Duration::from_secs(2));
    let plain = &plan.consumers[&name("plain")];
    assert_eq!(plain.key, Key::None);
    assert!(plain.writes.is_empty() && !plain.grants.state && plain.grants.logging);
    assert!(matches!(plain.instances, Instances::Reuse { uses_max, .. } if uses_max.get() == 10_000));

    let ingress = plan.ingress.unwrap();
    assert_eq!(ingress.routes["/orders/new"].name, name("stock"));
    assert_eq!(ingress.body_bytes_max, 2 << 20);
    assert_eq!(plan.host.cache, Some(folder.path().join("cache")));
    assert_eq!(plan.host.instances_max.get(), 12);
}

#[test]
fn secrets_are_never_shown() {
    let plan = parsed(WHOLE, &no_env).unwrap().plan;
    let shown = format!("{plan:?}");
    for secret in ["t0ken", "h00k", "k3y", "adm1n"] {
        assert!(!shown.contains(secret), "{secret} is shown");
    }

    let wrong = [
        ("pasword = \"hunter2\"", "unknown key"),
        ("url2 = \"nats://bob:hunter2@h\"", "unknown key"),
        ("token = \"hunter2\"\nuser = 1", "two types"),
        ("token = \"hunter2", "unclosed string"),
        ("token = \"hunter2\" \"hunter2\"", "two strings"),
        ("mapping = { token = \"hunter2\", id = }", "no value"),
    ];
    for (line, what) in wrong {
        let text = format!("[ledger]\nurl = \"embedded:d\"\n[broker.main]\nurl = \"nats://h\"\n{line}\n");
        let problems = parsed(&text, &no_env).unwrap_err();
        let json = serde_json::to_string(&problems).unwrap();
        for shown in [format!("{problems}"), format!("{problems:?}"), json] {
            assert!(!shown.contains("hunter2"), "{what}: {shown}");
        }
    }
    for url in [
        "nats://bob:hunter2@h:1/path",
        "ftp://bob:hunter2@h",
        "nats:bob:hunter2@h",
        "http://bob:hunter2@h",
        "nats://hunter2@h:port",
        "nats://bob:hunter2@a,nats://eve:hunter2@b",
    ] {
        let from_env = |_: &str| Some(url.to_owned());
        for text in [url, "${URL}"] {
            let text = format!("[ledger]\nurl = \"embedded:d\"\n[broker.main]\nurl = \"{text}\"\n");
            let problems = parsed(&text, &from_env).unwrap_err().to_string();
            assert!(!problems.contains("hunter2"), "{problems}");
        }
    }
}

#[test]
fn all_problems_are_told_at_once_by_line_as_a_compiler_would() {
    let text = r#"[ledger]
url = "embedded:./data"
retention = "1 fortnight"

[stream.orders]
broker = "mian"

[broker.main]
url = "embedded:"

[consumer.inventory]
plugin = "plugins/inventory"
	reads = "ordesr"
concurency = 64
"#;
    let problems = parse(text, Path::new("/nowhere/tidegate.toml"), &no_env).unwrap_err();
    let expected = r#"error[config-bad-duration]: "1 fortnight" is no duration: there is no unit "fortnight"
 --> /nowhere/tidegate.toml:3:13
  |
3 | retention = "1 fortnight"
  |             ^^^^^^^^^^^^^
  = help: write a number and a unit: "100ms", "30s", "1h30m", "7d"

error[config-unknown-reference]: there is no broker "mian"
 --> /nowhere/tidegate.toml:6:10
  |
6 | broker = "mian"
  |          ^^^^^^
  = help: did you mean "main"?

error[config-plugin-not-found]: there is no /nowhere/plugins/inventory
  --> /nowhere/tidegate.toml:12:10
   |
12 | plugin = "plugins/inventory"
   |          ^^^^^^^^^^^^^^^^^^^

error[config-unknown-reference]: there is no stream "ordesr"
  --> /nowhere/tidegate.toml:13:10
   |
13 | 	reads = "ordesr"
   | 	        ^^^^^^^^
   = help: did you mean "orders"?

error[config-unknown-key]: unknown key `concurency` in [consumer.inventory]
  --> /nowhere/tidegate.toml:14:1
   |
14 | concurency = 64
   | ^^^^^^^^^^
   = help: did you mean `concurrency`?

5 errors in /nowhere/tidegate.toml"#;
    assert_eq!(problems.to_string(), expected);
    let json = serde_json::to_value(&problems).unwrap();
    let first = serde_json::json!({
        "code": "config-bad-duration",
        "severity": "error",
        "message": "\"1 fortnight\" is no duration: there is no unit \"fortnight\"",
        "file": "/nowhere/tidegate.toml",
        "line": 3,
        "column": 13,
        "hint": "write a number and a unit: \"100ms\", \"30s\", \"1h30m\", \"7d\"",
    });
    assert_eq!(json[0], first);
}

/// A good config to put wrong lines into: line 1 is `[ledger]`, and each wrong text stands at the end.
const BASE: &str = r#"[ledger]
url = "embedded:data"
[broker.log]
url = "embedded:"
[broker.nats]
url = "nats://h"
[broker.hook]
url = "http://h"
[stream.in]
broker = "log"
[stream.out]
broker = "hook"
[stream.js]
broker = "nats"
subjects = ["a.>"]
[stream.js-out]
broker = "nats"
subject = "a.b"
"#;

/// What is said of a text at the end of [`BASE`]: code, line below the base, column, message and hint of each problem.
fn said(text: &str) -> Vec<(&'static str, usize, usize, String, String)> {
    let problems = match parsed(&format!("{BASE}{text}"), &no_env) {
        Ok(loaded) => loaded.warnings,
        Err(Problems(problems)) => problems,
    };
    let base = BASE.lines().count();
    problems
        .into_iter()
        .map(|problem| {
            let place = problem.place.unwrap();
            let hint = problem.hint.unwrap_or_default();
            (
                problem.code.as_str(),
                place.line - base,
                place.column,
                problem.message,
                hint,
            )
        })
        .collect()
}

/// One problem is said of a text: with this code, at this line and column, with these words in message or hint.
fn check(text: &str, code: &str, (line, column): (usize, usize), words: &[&str]) {
    let said = said(text);
    let [(found, found_line, found_column, message, hint)] = said.as_slice() else {
        panic!("{text}: {said:#?}");
    };
    assert_eq!(
        (*found, *found_line, *found_column),
        (code, line, column),
        "{text}: {message}"
    );
    for word in words {
        assert!(
            message.contains(word) || hint.contains(word),
            "{text}: {message} ({hint})"
        );
    }
}

#[test]
fn what_is_wrong_with_a_stream_is_said() {
    let at = |line| format!("[stream.x]\nbroker = \"{}\"\n", line);
    let [log, nats, hook] = ["log", "nats", "hook"].map(at);
    check("[stream.x]\n", "config-missing-key", (1, 1), &["`broker` is missing"]);
    check(
        "[stream.X]\nbroker = \"log\"\n",
        "config-bad-name",
        (1, 9),
        &["\"X\" is no name"],
    );
    check(
        "[stream.x]\nbroker = \"nope\"\n",
        "config-unknown-reference",
        (2, 10),
        &["no broker \"nope\"", "add [broker.nope]"],
    );
    check(
        "[stream.x]\nbroker = 5\n",
        "config-wrong-type",
        (2, 10),
        &["expected a string, found an integer"],
    );
    check(
        &(log.clone() + "subjects = [\"a\"]"),
        "config-misplaced-key",
        (3, 12),
        &["`subjects`", "an embedded broker's stream"],
    );
    check(
        &(log.clone() + "path = \"/x\""),
        "config-misplaced-key",
        (3, 8),
        &["`path`"],
    );
    check(
        &(nats.clone() + "age_max = \"1h\""),
        "config-misplaced-key",
        (3, 11),
        &["`age_max`", "a NATS stream"],
    );
    check(
        &(hook.clone() + "subject = \"a\""),
        "config-misplaced-key",
        (3, 11),
        &["`subject`", "a webhook's stream"],
    );
    check(
        &(nats.clone() + "subject = \"a.*\""),
        "config-bad-place",
        (3, 11),
        &["wildcard"],
    );
    check(
        &(nats.clone() + "subject = \"a..b\""),
        "config-bad-place",
        (3, 11),
        &["\"a..b\" is no NATS subject"],
    );
    check(
        &(nats.clone() + "subject = \"a.{Type}\""),
        "config-bad-place",
        (3, 11),
        &["\"Type\" is no attribute"],
    );
    check(
        &(nats.clone() + "subject = \"a.{type\""),
        "config-bad-place",
        (3, 11),
        &["a brace without its other half"],
    );
    check(
        &(nats.clone() + "subjects = [\"a.>.b\"]"),
        "config-bad-place",
        (3, 13),
        &["\"a.>.b\" is no NATS subject"],
    );
    check(
        &(nats.clone() + "subjects = []"),
        "config-bad-place",
        (3, 12),
        &["`subjects` is empty"],
    );
    check(
        &(nats.clone() + "stream = \"A.B\""),
        "config-bad-place",
        (3, 10),
        &["\"A.B\" is no name"],
    );
    check(
        &(nats.clone() + "create = true"),
        "config-missing-key",
        (3, 10),
        &["needs `subjects`"],
    );
    check(
        &(nats.clone() + "ack_wait = \"10ms\""),
        "config-out-of-bounds",
        (3, 12),
        &["`ack_wait` is 10ms", "at least 1s and at most 1h"],
    );
    check(
        &(log.clone() + "bytes_max = \"1kB\""),
        "config-out-of-bounds",
        (3, 13),
        &["`bytes_max` is 1000B", "at least 1MiB"],
    );
    check(
        &(log.clone() + "mode = \"binry\""),
        "config-bad-value",
        (3, 8),
        &["\"binary\", \"structured\"", "did you mean \"binary\"?"],
    );
    let mapped = |mapping: &str| format!("{nats}mapping = {{ {mapping} }}");
    check(
        &mapped("id = \"hash\", source = \"s\""),
        "config-missing-key",
        (3, 11),
        &["`type` is missing"],
    );
    check(
        &mapped("id = \"fix\", source = \"s\", type = \"t\""),
        "config-bad-value",
        (3, 18),
        &["the id \"fix\"", "write hash"],
    );
    check(
        &mapped("id = \"data:id\", source = \"s\", type = \"t\""),
        "config-bad-value",
        (3, 18),
        &["no JSON pointer"],
    );
    check(
        &mapped("id = \"header:\", source = \"s\", type = \"t\""),
        "config-bad-value",
        (3, 18),
        &["no name of a header"],
    );
}

#[test]
fn what_is_wrong_with_a_broker_is_said() {
    let of = |lines: &str| format!("[broker.x]\n{lines}\n");
    let nkey = format!("url = \"nats://h\"\nnkey = \"U{}\"", "A".repeat(55));
    check("[broker.x]\n", "config-missing-key", (1, 1), &["`url` is missing"]);
    for (lines, code, place, words) in [
        (
            "url = \"embedded:other\"",
            "config-ledger-mismatch",
            (2, 7),
            &["broker \"x\" is in ", "one store"][..],
        ),
        (
            "url = \"kafka://h\"",
            "config-unsupported",
            (2, 7),
            &["this version has no kafka: broker"],
        ),
        (
            "url = \"gopher://h\"",
            "config-bad-url",
            (2, 7),
            &["\"gopher://h\" is no broker"],
        ),
        ("url = \"nats://\"", "config-bad-url", (2, 7), &["it names no host"]),
        (
            "url = \"nats://h:x\"",
            "config-bad-url",
            (2, 7),
            &["invalid port number"],
        ),
        (
            "url = \"nats://h/x\"",
            "config-bad-url",
            (2, 7),
            &["more than a host and a port"],
        ),
        (
            "url = \"nats://h,http://h\"",
            "config-bad-url",
            (2, 7),
            &["\"http://h\" is no NATS server"],
        ),
        (
            "url = \"nats://a@h,nats://b@h\"",
            "config-conflict",
            (2, 7),
            &["different users"],
        ),
        (
            "url = \"nats://a@h\"\ntoken = \"t\"",
            "config-conflict",
            (3, 9),
            &["in two ways"],
        ),
        (
            "url = \"nats://h\"\nuser = \"u\"",
            "config-missing-key",
            (3, 8),
            &["`password` is missing"],
        ),
        (
            "url = \"nats://h\"\ncreds = \"none.creds\"",
            "config-file-not-found",
            (3, 9),
            &["there is no file"],
        ),
        (&nkey, "config-bad-value", (3, 8), &["no nkey seed", "begins with SU"]),
        (
            "url = \"nats://h\"\ntimeout = \"1s\"",
            "config-misplaced-key",
            (3, 11),
            &["`timeout`", "a NATS broker"],
        ),
        (
            "url = \"nats://${H:-h}\"\ntimeout = \"1s\"",
            "config-misplaced-key",
            (3, 11),
            &["`timeout`"],
        ),
        (
            "url = \"http://h\"\nuser = \"u\"",
            "config-misplaced-key",
            (3, 8),
            &["`user`", "a webhook"],
        ),
        (
            "url = \"embedded:\"\ntoken = \"t\"",
            "config-misplaced-key",
            (3, 9),
            &["an embedded broker"],
        ),
        (
            "url = \"http://u@h\"",
            "config-bad-url",
            (2, 7),
            &["has a user in it", "`token`"],
        ),
        ("url = \"http://h?a=b\"", "config-bad-url", (2, 7), &["has a ? or #"]),
        (
            "url = \"http://h\"\ntoken = \"\"",
            "config-bad-value",
            (3, 9),
            &["the secret is empty"],
        ),
        (
            "url = \"${NONE}\"",
            "config-missing-variable",
            (2, 8),
            &["variable NONE is not set", "${NONE:-...}"],
        ),
        (
            "url = \"${NO NE}\"",
            "config-bad-variable",
            (2, 7),
            &["\"NO NE\" is no name"],
        ),
        ("url = \"${NONE\"", "config-bad-variable", (2, 7), &["without its `}`"]),
    ] {
        check(&of(lines), code, place, words);
    }
}

#[test]
fn what_is_wrong_with_a_consumer_is_said() {
    let of = |lines: &str| format!("[consumer.x]\nplugin = \"plugins/inventory\"\nreads = \"in\"\n{lines}\n");
    check(
        "[consumer.x]\nreads = \"in\"",
        "config-missing-key",
        (1, 1),
        &["`plugin` is missing"],
    );
    check(
        "[consumer.x]\nplugin = \"plugins/inventory\"",
        "config-missing-key",
        (1, 1),
        &["`reads` is missing"],
    );
    let reads = |stream: &str| format!("[consumer.x]\nplugin = \"plugins/inventory\"\nreads = \"{stream}\"\n");
    check(
        &reads("out"),
        "config-not-readable",
        (3, 9),
        &["\"out\" can't be read: it is a webhook", "[ingress]"],
    );
    check(
        &reads("js-out"),
        "config-not-readable",
        (3, 9),
        &["it has no `subjects`", "[stream.js-out]"],
    );
    check(
        "[consumer.x]\nplugin = \"oci://x/y\"\nreads = \"in\"",
        "config-unsupported",
        (2, 10),
        &["from the disk only"],
    );
    check(
        "[consumer.x]\nplugin = \"plugins\"\nreads = \"in\"",
        "config-plugin-not-found",
        (2, 10),
        &["has no .wasm file"],
    );
    for (lines, code, place, words) in [
        (
            "writes = \"js\"",
            "config-not-writable",
            (4, 10),
            &["it has no `subject`", "[stream.js]"][..],
        ),
        (
            "writes = { \"a.*\" = \"otu\" }",
            "config-unknown-reference",
            (4, 20),
            &["did you mean \"out\"?"],
        ),
        (
            "writes = { \"a.*.b\" = \"out\" }",
            "config-bad-value",
            (4, 12),
            &["a * that is not at its end"],
        ),
        ("dead_letter = \"js\"", "config-not-writable", (4, 15), &[]),
        (
            "dead_letter = \"in\"",
            "config-loop",
            (4, 15),
            &["read its own dead letters"],
        ),
        ("types = []", "config-bad-value", (4, 9), &["would want nothing"]),
        ("types = [\"\"]", "config-bad-value", (4, 10), &["no type"]),
        ("digest = \"sha256:12\"", "config-bad-value", (4, 10), &["no digest"]),
        (
            "key = \"Subject\"",
            "config-bad-value",
            (4, 7),
            &["\"Subject\" is no attribute"],
        ),
        (
            "key = \"data:orderId\"",
            "config-bad-value",
            (4, 7),
            &["no JSON pointer", "data:/name"],
        ),
        (
            "concurrency = 0",
            "config-out-of-bounds",
            (4, 15),
            &["`concurrency` is 0", "at least 1 and at most 4096"],
        ),
        (
            "concurrency = -1",
            "config-out-of-bounds",
            (4, 15),
            &["-1 is out of bounds"],
        ),
        (
            "concurrency = \"64\"",
            "config-wrong-type",
            (4, 15),
            &["expected a whole number, found a string"],
        ),
        (
            "budget = { events = 10 }",
            "config-out-of-bounds",
            (4, 21),
            &["at least 64"],
        ),
        (
            "retry = { attempts = 1001 }",
            "config-out-of-bounds",
            (4, 22),
            &["at most 1000"],
        ),
        (
            "retry = { backoff = \"1us..1s\" }",
            "config-out-of-bounds",
            (4, 21),
            &["within 1ms..1d"],
        ),
        (
            "retry = { backoff = \"1s..1ms\" }",
            "config-bad-duration",
            (4, 21),
            &["begins above its end"],
        ),
        (
            "retry = { backoff = \"1s\" }",
            "config-bad-duration",
            (4, 21),
            &["no range", "100ms..10s"],
        ),
        (
            "retry = { park_over = 2000 }",
            "config-out-of-bounds",
            (4, 23),
            &["at most 1024"],
        ),
        (
            "limits = { time = 2 }",
            "config-wrong-type",
            (4, 19),
            &["expected a duration such as \"30s\""],
        ),
        (
            "limits = { memory = \"64MiX\" }",
            "config-bad-size",
            (4, 21),
            &["\"64MiX\" is no size"],
        ),
        (
            "limits = { emit_bytes = \"9MiB\" }",
            "config-out-of-bounds",
            (4, 25),
            &["at most 8MiB"],
        ),
        (
            "limits = { emit = 1 }",
            "config-unknown-key",
            (4, 12),
            &["in [consumer.x.limits]", "`emits`"],
        ),
        (
            "grants = { http = [\"api.example.com\"] }",
            "config-bad-url",
            (4, 20),
            &["no origin"],
        ),
        (
            "grants = { http = [\"https://h/path\"] }",
            "config-bad-url",
            (4, 20),
            &["no origin"],
        ),
        (
            "grants = { state = 1 }",
            "config-wrong-type",
            (4, 20),
            &["expected true or false"],
        ),
        (
            "instances = \"reused\"",
            "config-bad-value",
            (4, 13),
            &["did you mean \"reuse\"?"],
        ),
        (
            "instances = { uses_max = 0 }",
            "config-out-of-bounds",
            (4, 26),
            &["at least 1"],
        ),
        (
            "on_dead = \"hold-key\"",
            "config-bad-value",
            (4, 11),
            &["did you mean \"hold_key\"?"],
        ),
        (
            "breaker = { failure_rate = 1.5 }",
            "config-out-of-bounds",
            (4, 28),
            &["above 0 and at most 1"],
        ),
        (
            "breaker = { failure_rate = nan }",
            "config-out-of-bounds",
            (4, 28),
            &["NaN"],
        ),
        (
            "breaker = { keys_min = 101 }",
            "config-out-of-bounds",
            (4, 24),
            &["at most 100"],
        ),
    ] {
        check(&of(lines), code, place, words);
    }
}

#[test]
fn what_is_wrong_with_a_listener_is_said() {
    check(
        "[admin]\nlisten = \"localhost:7070\"",
        "config-bad-address",
        (2, 10),
        &["an IP address and a port"],
    );
    check(
        "[admin]\nlisten = \"0.0.0.0:7070\"",
        "config-token-needed",
        (2, 10),
        &["0.0.0.0:7070 can be reached", "token ="],
    );
    let of = |routes: &str| format!("[ingress]\nlisten = \"127.0.0.1:0\"\nroutes = {routes}");
    check(
        "[ingress]\nlisten = \"10.0.0.1:1\"\nroutes = {}",
        "config-token-needed",
        (2, 10),
        &["10.0.0.1:1"],
    );
    check(
        "[ingress]\nlisten = \"127.0.0.1:0\"",
        "config-missing-key",
        (1, 1),
        &["`routes` is missing"],
    );
    check(
        &of("{ orders = \"in\" }"),
        "config-bad-place",
        (3, 12),
        &["\"orders\" is no path"],
    );
    check(
        &of("{ \"/orders\" = \"nope\" }"),
        "config-unknown-reference",
        (3, 24),
        &["no stream \"nope\""],
    );
    check(
        &of("{ \"/orders\" = \"js\" }"),
        "config-not-writable",
        (3, 24),
        &["no `subject`"],
    );
}

#[test]
fn what_is_wrong_with_the_ledger_is_said() {
    let said = |text: &str| {
        let Problems(problems) = parsed(text, &no_env).unwrap_err();
        let codes: Vec<_> = problems.iter().map(|problem| problem.code.as_str()).collect();
        (codes.join(" "), problems[0].to_string())
    };
    assert_eq!(said("").0, "config-missing-key");
    assert!(said("").1.contains("[ledger] is missing"));
    assert_eq!(said("[ledger]").0, "config-missing-key");
    assert_eq!(said("[ledger]\nurl = \"embedded:\"").0, "config-bad-url");
    assert_eq!(said("[ledger]\nurl = \"data\"").0, "config-bad-url");
    let (code, text) = said("[ledger]\nurl = \"redis://h\"");
    assert_eq!(code, "config-unsupported");
    assert!(text.contains("this version has no redis: ledger"), "{text}");
    assert_eq!(said("ledger = 5").0, "config-wrong-type");
    assert_eq!(
        said("[ledger]\nurl = \"embedded:d\"\nretention = \"1s\"").0,
        "config-out-of-bounds"
    );
}

#[test]
fn ids_are_remembered_for_longer_than_events_come_again() {
    let text = |retention: &str, stream: &str| {
        format!(
            "[ledger]\nurl = \"embedded:data\"\nretention = \"{retention}\"\n[broker.log]\nurl = \"embedded:\"\n[broker.nats]\nurl = \"nats://h\"\n\
             [stream.log]\nbroker = \"log\"\n[stream.js]\nbroker = \"nats\"\nsubjects = [\"a\"]\nack_wait = \"1m\"\n\
             [consumer.x]\nplugin = \"plugins/inventory\"\nreads = \"{stream}\"\nretry = {{ attempts = 5, backoff = \"1s..15s\" }}\n"
        )
    };
    // 5 attempts of 2 s and 4 pauses of 15 s: 70 s; on JetStream 3 ack waits of 1 m more: 250 s.
    assert!(parsed(&text("71s", "log"), &no_env).is_ok());
    assert!(parsed(&text("251s", "js"), &no_env).is_ok());
    let problem = |retention: &str, stream: &str| parsed(&text(retention, stream), &no_env).unwrap_err().0.remove(0);
    let problem = (problem("70s", "log"), problem("250s", "js"));
    assert_eq!(problem.0.code, Code::RetentionTooShort);
    assert_eq!(
        problem.0.message,
        "`retention` is 1m10s, but consumer \"x\" may be given an event of stream \"log\" again for 1m10s (5 attempts of 2s and 4 pauses of 15s)"
    );
    assert!(
        problem
            .1
            .message
            .contains("again for 4m10s (3 ack waits of 1m, 5 attempts of 2s and 4 pauses of 15s)")
    );
    assert_eq!(problem.1.place.map(|place| (place.line, place.column)), Some((3, 13)));
}

#[test]
fn a_consumer_that_may_read_what_it_writes_is_warned_of() {
    let of = |lines: &str| format!("[consumer.x]\nplugin = \"plugins/inventory\"\nreads = \"in\"\n{lines}\n");
    check(
        &of("writes = \"in\""),
        "config-loop",
        (4, 10),
        &["writes \"*\" to stream \"in\"", "narrow its `types`"],
    );
    check(
        &of("types = [\"a.*\"]\nwrites = { \"a.b\" = \"in\" }"),
        "config-loop",
        (5, 10),
        &["writes \"a.b\""],
    );
    let said = said(&of("types = [\"a.*\"]\nwrites = { \"b.*\" = \"in\" }"));
    assert!(said.is_empty(), "{said:?}");
    let loaded = parsed(&format!("{BASE}{}", of("writes = \"in\"")), &no_env).unwrap();
    assert!(loaded.warnings[0].to_string().starts_with("warning[config-loop]: "));
}

#[test]
fn what_is_no_toml_is_said_with_its_place() {
    let Problems(problems) = parsed("[ledger]\nurl = \"x\nother = 1\nother = 2\na b\n", &no_env).unwrap_err();
    let places: Vec<_> = problems
        .iter()
        .map(|problem| (problem.code, problem.place.as_ref().unwrap().line))
        .collect();
    assert_eq!(places, [(Code::Syntax, 2), (Code::Syntax, 4), (Code::Syntax, 5)]);
}

#[test]
fn a_file_that_can_not_be_read_is_said() {
    let folder = folder();
    let path = folder.path().join("none.toml");
    let problems = load(&path, &no_env).unwrap_err();
    assert_eq!(problems.0[0].code, Code::Unreadable);
    assert!(
        problems
            .to_string()
            .contains("none.toml\n  = help: name another file with --config FILE"),
        "{problems}"
    );
    std::fs::write(&path, EXAMPLE).unwrap();
    assert!(load(&path, &no_env).is_ok());
}

#[test]
fn a_plugin_is_found_in_its_folder() {
    let folder = folder();
    let of = |plugin: &str| {
        let text = format!("{BASE}[consumer.x]\nplugin = \"{plugin}\"\nreads = \"in\"\n");
        parse(&text, &folder.path().join("tidegate.toml"), &no_env)
            .map(|loaded| loaded.plan.consumers[&name("x")].plugin.clone())
            .map_err(|problems| problems.0[0].message.clone())
    };
    let put = |path: &str, text: &str| {
        let path = folder.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
        path
    };
    let only = put("one/any-name.wasm", "");
    assert_eq!(of("one"), Ok(only));
    put("two/a.wasm", "");
    put("two/b.wasm", "");
    assert!(of("two").unwrap_err().contains("has 2 .wasm files"));
    let named = put("two/plugin.wasm", "");
    assert_eq!(of("./two/"), Ok(named));
    put("cargo/Cargo.toml", "[package]\nname = \"my-plugin\"\n");
    assert!(of("cargo").unwrap_err().contains("is not built"));
    let built = put("cargo/target/wasm32-wasip2/release/my_plugin.wasm", "");
    assert_eq!(of("cargo"), Ok(built));
}
