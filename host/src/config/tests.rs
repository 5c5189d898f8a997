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
