//! What would run, for people and as JSON. Shows no secret: of granted config values only the names.

use std::path::Path;

use serde::ser::SerializeSeq;
use serde::{Serialize, Serializer};

use super::Doubt;
use crate::config::{Problem, show_period, show_size};
use crate::plan::{Broker, BrokerKind, Consumer, Instances, Key, LedgerPlace, Place, Plan, Stream, TypePattern};
use crate::plan::{Template, TemplatePart};

/// What would run, as JSON shows it.
#[derive(Debug, Serialize)]
pub(super) struct Summary<'a> {
    config: String,
    ledger: LedgerSummary,
    brokers: Vec<BrokerSummary>,
    streams: Vec<StreamSummary>,
    consumers: Vec<ConsumerSummary>,
    admin: String,
    ingress: Option<IngressSummary>,
    warnings: Warnings<'a>,
}

/// What someone should look at. In JSON, one list.
#[derive(Debug)]
pub(super) struct Warnings<'a> {
    pub(super) config: &'a [Problem],
    pub(super) plugins: &'a [Doubt],
}

impl Serialize for Warnings<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut list = serializer.serialize_seq(Some(self.config.len() + self.plugins.len()))?;
        for problem in self.config {
            list.serialize_element(problem)?;
        }
        for doubt in self.plugins {
            list.serialize_element(doubt)?;
        }
        list.end()
    }
}

#[derive(Debug, Serialize)]
struct LedgerSummary {
    place: String,
    retention: String,
}

#[derive(Debug, Serialize)]
struct BrokerSummary {
    name: String,
    place: String,
}

#[derive(Debug, Serialize)]
struct StreamSummary {
    name: String,
    broker: String,
    place: String,
}

#[derive(Debug, Serialize)]
struct IngressSummary {
    listen: String,
    /// Path and stream.
    routes: Vec<(String, String)>,
}

#[derive(Debug, Serialize)]
pub(super) struct ConsumerSummary {
    name: String,
    plugin: String,
    revision: String,
    reads: String,
    types: Vec<String>,
    /// Types and stream, the first that matches wins.
    writes: Vec<(String, String)>,
    dead_letter: Option<String>,
    key: String,
    concurrency: usize,
    attempts: u32,
    backoff: String,
    memory: String,
    time: String,
    instances: String,
    /// Names only: the values of `config` may be secrets.
    grants: Vec<String>,
}

impl<'a> Summary<'a> {
    pub(super) fn of(plan: &Plan, consumers: Vec<ConsumerSummary>, warnings: Warnings<'a>, config: &Path) -> Self {
        let LedgerPlace::Embedded(folder) = &plan.ledger.place;
        Self {
            config: config.display().to_string(),
            ledger: LedgerSummary {
                place: format!("embedded:{}", folder.display()),
                retention: show_period(plan.ledger.retention),
            },
            brokers: plan.brokers.values().map(|broker| BrokerSummary::of(broker)).collect(),
            streams: plan.streams.values().map(|stream| StreamSummary::of(stream)).collect(),
            consumers,
            admin: plan.admin.listen.to_string(),
            ingress: plan.ingress.as_ref().map(|ingress| IngressSummary {
                listen: ingress.listen.to_string(),
                routes: ingress
                    .routes
                    .iter()
                    .map(|(path, stream)| (path.clone(), stream.name.to_string()))
                    .collect(),
            }),
            warnings,
        }
    }

    /// For people: a block per part, a line per fact.
    pub(super) fn text(&self) -> String {
        let mut lines = vec![
            format!("{} is good", self.config),
            format!(
                "ledger    {}, remembers ids for {}",
                self.ledger.place, self.ledger.retention
            ),
        ];
        lines.extend(
            self.brokers
                .iter()
                .map(|broker| format!("broker    {}: {}", broker.name, broker.place)),
        );
        lines.extend(
            self.streams
                .iter()
                .map(|stream| format!("stream    {}: {} on {}", stream.name, stream.place, stream.broker)),
        );
        lines.push(format!("admin     http://{}", self.admin));
        if let Some(ingress) = &self.ingress {
            lines.extend(
                ingress
                    .routes
                    .iter()
                    .map(|(path, stream)| format!("ingress   http://{}{path} -> {stream}", ingress.listen)),
            );
        }
        lines.extend(self.consumers.iter().map(ConsumerSummary::text));
        lines.join("\n")
    }
}

impl BrokerSummary {
    fn of(broker: &Broker) -> Self {
        let place = match &broker.kind {
            BrokerKind::Embedded => "embedded".to_owned(),
            BrokerKind::Nats(nats) => nats.servers.join(","),
            BrokerKind::Webhook(webhook) => webhook.url.clone(),
        };
        Self {
            name: broker.name.to_string(),
            place,
        }
    }
}

impl StreamSummary {
    fn of(stream: &Stream) -> Self {
        let place = match &stream.place {
            Place::Log(_) => "log".to_owned(),
            Place::JetStream(jetstream) => {
                let reads = jetstream.subjects.join(" ");
                let writes = jetstream.subject.as_ref().map(show_template);
                let writes = writes.map_or_else(String::new, |subject| format!(" -> {subject}"));
                format!("{reads}{writes}")
            }
            Place::Path(path) => format!("POST {}", show_template(path)),
        };
        Self {
            name: stream.name.to_string(),
            broker: stream.broker.name.to_string(),
            place: place.trim().to_owned(),
        }
    }
}

impl ConsumerSummary {
    pub(super) fn of(consumer: &Consumer, revision: String) -> Self {
        let show_all = |patterns: &[TypePattern]| patterns.iter().map(show_types).collect();
        Self {
            name: consumer.name.to_string(),
            plugin: consumer.plugin.display().to_string(),
            revision,
            reads: consumer.reads.name.to_string(),
            types: show_all(&consumer.types),
            writes: consumer
                .writes
                .iter()
                .map(|rule| (show_types(&rule.types), rule.stream.name.to_string()))
                .collect(),
            dead_letter: consumer.dead_letter.as_ref().map(|stream| stream.name.to_string()),
            key: show_key(&consumer.key),
            concurrency: consumer.concurrency.get(),
            attempts: consumer.retry.attempts.get(),
            backoff: format!(
                "{}..{}",
                show_period(consumer.retry.backoff_min),
                show_period(consumer.retry.backoff_max)
            ),
            memory: show_size(consumer.limits.memory as u64),
            time: show_period(consumer.limits.time),
            instances: show_instances(consumer.instances),
            grants: show_grants(consumer),
        }
    }

    fn text(&self) -> String {
        let types = if self.types.is_empty() {
            "all types".to_owned()
        } else {
            self.types.join(", ")
        };
        let mut lines = vec![
            format!("consumer  {}", self.name),
            format!("  plugin  {} ({})", self.plugin, self.revision),
            format!("  reads   {}: {types}; in order by {}", self.reads, self.key),
        ];
        if self.writes.is_empty() {
            lines.push("  writes  nothing".to_owned());
        }
        lines.extend(
            self.writes
                .iter()
                .map(|(types, stream)| format!("  writes  {types} -> {stream}")),
        );
        lines.extend(
            self.dead_letter
                .iter()
                .map(|stream| format!("  dead    the ledger, and {stream}")),
        );
        lines.push(format!(
            "  limits  {} at once, {} and {} each, {} attempts {} apart, instances {}",
            self.concurrency, self.memory, self.time, self.attempts, self.backoff, self.instances
        ));
        lines.push(format!("  grants  {}", self.grants.join(", ")));
        lines.join("\n")
    }
}

fn show_template(template: &Template) -> String {
    let part = |part: &TemplatePart| match part {
        TemplatePart::Literal(literal) => literal.clone(),
        TemplatePart::Attribute(name) => format!("{{{name}}}"),
    };
    template.parts.iter().map(part).collect()
}

fn show_types(types: &TypePattern) -> String {
    match types {
        TypePattern::Exact(exact) => exact.clone(),
        TypePattern::Prefix(prefix) => format!("{prefix}*"),
    }
}

fn show_key(key: &Key) -> String {
    match key {
        Key::Attribute(name) => name.clone(),
        Key::Data(pointer) => format!("data:{pointer}"),
        Key::None => "none".to_owned(),
    }
}

fn show_instances(instances: Instances) -> String {
    match instances {
        Instances::Fresh => "fresh".to_owned(),
        Instances::Reuse { uses_max, age_max } => format!("reused {uses_max} times or {}", show_period(age_max)),
    }
}

fn show_grants(consumer: &Consumer) -> Vec<String> {
    let grants = &consumer.grants;
    let mut shown = Vec::new();
    if grants.state {
        shown.push("state".to_owned());
    }
    if grants.logging {
        shown.push("logging".to_owned());
    }
    shown.extend(grants.config.iter().flatten().map(|(key, _)| format!("config {key}")));
    shown.extend(grants.http.iter().map(|origin| format!("http {origin}")));
    if shown.is_empty() {
        shown.push("nothing".to_owned());
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;

    #[test]
    fn a_summary_says_what_would_run_and_no_secret() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("x.wasm"), b"").unwrap();
        let file = folder.path().join("tidegate.toml");
        let text = r#"
            ledger.url = "embedded:data"
            broker.main.url = "nats://bob:s3cret@one,nats://two"
            stream.in = { broker = "main", subjects = ["a.>", "b"] }
            stream.out = { broker = "main", subject = "stock.{type}" }
            ingress = { listen = "127.0.0.1:80", routes = { "/out" = "out" } }
            [consumer.x]
            plugin = "x.wasm"
            reads = "in"
            writes = { "com.*" = "out" }
            key = "data:/id"
            grants.config.api_key = "s3cret"
            "#;
        let plan = config::parse(text, &file, &|_| None).unwrap().plan;
        let consumers = plan.consumers.values();
        let consumers = consumers.map(|consumer| ConsumerSummary::of(consumer, "sha256:0".to_owned()));
        let doubts = [Doubt::writes_nowhere(&plan.consumers.keys().next().unwrap().clone())];
        let warnings = Warnings {
            config: &[],
            plugins: &doubts,
        };
        let summary = Summary::of(&plan, consumers.collect(), warnings, Path::new("tidegate.toml"));
        let expected = format!(
            "tidegate.toml is good
ledger    embedded:{folder}/data, remembers ids for 7d
broker    main: nats://one:4222,nats://two:4222
stream    in: a.> b on main
stream    out: -> stock.{{type}} on main
admin     http://127.0.0.1:7070
ingress   http://127.0.0.1:80/out -> out
consumer  x
  plugin  {folder}/x.wasm (sha256:0)
  reads   in: all types; in order by data:/id
  writes  com.* -> out
  limits  64 at once, 64MiB and 2s each, 5 attempts 100ms..10s apart, instances fresh
  grants  logging, config api_key",
            folder = folder.path().display()
        );
        assert_eq!(summary.text(), expected);
        let json = serde_json::to_value(&summary).unwrap();
        assert_eq!(json["consumers"][0]["writes"][0], serde_json::json!(["com.*", "out"]));
        assert_eq!(json["warnings"][0]["consumer"], "x");
        assert!(!json.to_string().contains("s3cret"));
    }
}
