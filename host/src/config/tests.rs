//! What a person meets who writes a config: the plan it becomes, or what is said about it.

mod problems;

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
    assert_eq!(consumer.retry.parked_max.get(), 1_000_000);
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
retry = { attempts = 3, backoff = "1s..1m", park_after = "1m", park_over = 20, parked_max = 30 }
limits = { memory = 1048576, time = "500ms", table_elements = 10, emits = 1, emit_bytes = "2KiB", state_writes = 2, effect_bytes = "4KiB", log_lines = 3, log_line_bytes = "64B" }
grants = { state = true, config = { api_key = "k3y" }, logging = false, http = ["https://api.example.com:8443"] }
instances = { uses_max = 7, age_max = "1h" }
on_dead = "hold_key"
dead_letter = "bus"
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
instances_max = 200
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
    assert_eq!(consumer.retry.parked_max.get(), 30);
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
    assert_eq!(plan.host.instances_max.get(), 200);
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
        ("password = \"hunter2${NONE}\"", "half a variable"),
        ("password = \"${hunter2 x}\"", "no variable"),
        ("password = \"hunter2${\"", "no variable's end"),
        ("password = \"${NONE:-hunter2}\"", "a default, and no user"),
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
        "nats://h?token=hunter2",
        "ftp://h/?token=hunter2",
        "http://h/hook?code=hunter2",
        "http://h/hook#hunter2",
    ] {
        let from_env = |_: &str| Some(url.to_owned());
        for text in [url, "${URL}"] {
            let text = format!("[ledger]\nurl = \"embedded:d\"\n[broker.main]\nurl = \"{text}\"\n");
            let problems = parsed(&text, &from_env).unwrap_err().to_string();
            assert!(!problems.contains("hunter2"), "{problems}");
        }
    }
}

/// The nearest name was shown as it is, and could write over the lines around it.
#[test]
fn a_hint_has_no_terminal_codes() {
    let text = "[ledger]\nurl = \"embedded:d\"\n[broker.\"ma\\u001bin\"]\nurl = \"embedded:\"\n[stream.s]\nbroker = \"ma\\u001bim\"\n";
    let problems = parsed(text, &no_env).unwrap_err().to_string();
    assert!(problems.contains("did you mean \"ma\\u{1b}in\"?"), "{problems}");
    assert!(!problems.contains('\u{1b}'), "{problems}");
}

/// Half of a password was shown if it had a sign in it that ends something in a URL.
#[test]
fn a_password_in_a_url_is_not_shown_by_halves() {
    for url in [
        "nats://bob:hunter2?x@h",
        "nats://bob:hunter2#x@h",
        "http://bob:hunter2?x@h",
        "ftp://bob:hunter2?x@h",
        "nats://bob:hunter2,x@h",
        "nats://bob:1,hunter2@h/path",
        "http://h/?token=x@hunter2",
        "nats:/)hunter2:hunter2@127.0.0.1,nats://x@y?hunter2",
        "nats:hunter2@h://x@y",
    ] {
        let text = format!("[ledger]\nurl = \"embedded:d\"\n[broker.main]\nurl = \"{url}\"\n");
        let problems = parsed(&text, &no_env).unwrap_err().to_string();
        assert!(!problems.contains("hunter2"), "{problems}");
    }
    let text = "[ledger]\nurl = \"embedded:d\"\n[broker.main]\nurl = \"nats://a,ftp://b\"\n";
    let problems = parsed(text, &no_env).unwrap_err().to_string();
    assert!(problems.contains("\"ftp://b\" is no NATS server"), "{problems}");
}

/// A number where text belongs was shown, and it may well be a password.
#[test]
fn a_secret_that_is_no_text_is_not_shown() {
    for line in [
        "password = 7654321",
        "token = [\"7654321\", 1]",
        "nkey = { a = 7654321 }",
        "passwrod = 7654321",
        "timeout = { token = \"7654321\" }",
        "user = [\"7654321\"]",
        "[broker]\nother = \"nats://bob:7654321@h\"",
        "[consumer.x.grants]\nconfig = \"7654321\"",
    ] {
        let text = format!("[ledger]\nurl = \"embedded:d\"\n[broker.main]\nurl = \"nats://h\"\n{line}\n");
        let problems = parsed(&text, &no_env).unwrap_err().to_string();
        assert!(!problems.contains("7654321"), "{problems}");
    }
}

#[test]
fn a_variable_that_is_all_of_a_secret_is_shown() {
    let text = "[ledger]\nurl = \"embedded:d\"\n[admin]\ntoken = \"${TIDEGATE_TOKEN}\"\n";
    let problems = parsed(text, &no_env).unwrap_err().to_string();
    assert!(
        problems.contains("the environment variable TIDEGATE_TOKEN is not set"),
        "{problems}"
    );
    assert!(problems.contains("token = \"${TIDEGATE_TOKEN}\""), "{problems}");
}

/// What stands in a plugin's folder is the plugin's, and must not choose files elsewhere.
#[test]
fn a_plugins_manifest_does_not_lead_out_of_its_folder() {
    let folder = folder();
    let outside = folder.path().join("outside.wasm");
    std::fs::write(&outside, "").unwrap();
    for name in ["../../../../outside", &outside.with_extension("").display().to_string()] {
        let plugin = folder.path().join("led-out");
        std::fs::create_dir_all(plugin.join("target/wasm32-wasip2/release")).unwrap();
        std::fs::write(plugin.join("Cargo.toml"), format!("[package]\nname = {name:?}\n")).unwrap();
        let text = format!("{BASE}[consumer.x]\nplugin = \"led-out\"\nreads = \"in\"\n");
        let problems = parse(&text, &folder.path().join("tidegate.toml"), &no_env).unwrap_err();
        assert_eq!(problems.0[0].code, Code::PluginNotFound, "{problems}");
    }
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
