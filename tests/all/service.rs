//! The host as a process: what its users see of it from outside.

mod away;
mod commands;
mod crash;
mod floods;
mod ingress;
mod refused;
mod stopping;

use tidegate_tests::guests;

/// From the ingress over a stream and the plain guest to a webhook.
pub(crate) fn through(sink: &str) -> String {
    let plugin = guests::build("plain");
    format!(
        r#"
[ledger]
url = "embedded:./data"

[broker.main]
url = "embedded:./data"

[broker.shop]
url = "{sink}"

[stream.scripts]
broker = "main"

[stream.answers]
broker = "shop"

[ingress]
listen = "127.0.0.1:0"
routes = {{ "/in" = "scripts" }}

[consumer.plain]
plugin = "{}"
reads = "scripts"
writes = "answers"
grants = {{ state = true, config = {{}} }}
retry = {{ attempts = 3, backoff = "1ms..10ms" }}
"#,
        plugin.display()
    )
}

/// From the ingress to a guest that misbehaves as the event's type says.
fn hostile() -> String {
    let plugin = guests::build("hostile");
    format!(
        r#"
[ledger]
url = "embedded:./data"

[broker.main]
url = "embedded:./data"

[stream.scripts]
broker = "main"

[ingress]
listen = "127.0.0.1:0"
routes = {{ "/in" = "scripts" }}
body_max = "8MiB"

[consumer.hostile]
plugin = "{}"
reads = "scripts"
writes = "scripts"
grants = {{ state = true }}
retry = {{ attempts = 1 }}
limits = {{ time = "30s" }}
"#,
        plugin.display()
    )
}
