//! Config files, with secrets in them and in the environment.
#![no_main]

use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use tidegate::config::{self, Code, Loaded, Problem, Problems};
use tidegate::plan::{BrokerKind, Consumer, Plan};
use toml::Value;

/// Stands in no key and no section header, whatever else a file has: those are shown.
const CANARY: &str = "C4N4RY";

/// A folder with the files that a config may name.
static FOLDER: LazyLock<PathBuf> = LazyLock::new(|| {
    let folder = std::env::temp_dir().join(format!("tidegate-fuzz-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    for name in ["plugin.wasm", "file.pem"] {
        std::fs::write(folder.join(name), "").unwrap();
    }
    folder
});

fuzz_target!(|input: &[u8]| {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let file = FOLDER.join("tidegate.toml");
    let is_hidden = is_hidden(text);
    match config::parse(text, &file, &environment) {
        Ok(Loaded { plan, warnings }) => {
            for warning in &warnings {
                stands_in_the_file(warning, text);
            }
            is_within_bounds(&plan);
            if is_hidden && !text.contains("://") {
                assert!(!format!("{plan:?}").contains(CANARY));
            }
            comes_back(&plan, &file);
        }
        Err(Problems(problems)) => {
            assert!(!problems.is_empty());
            for problem in &problems {
                stands_in_the_file(problem, text);
            }
            let shown = Problems(problems);
            let shown = format!("{shown}\n{}", serde_json::to_string(&shown).unwrap());
            assert!(!is_hidden || !shown.contains(CANARY), "{shown}");
        }
    }
});

fn environment(name: &str) -> Option<String> {
    match name {
        "SECRET" => Some(format!("{CANARY}-of-the-environment")),
        "EMPTY" => Some(String::new()),
        "URL" => Some("nats://127.0.0.1:4222".to_owned()),
        "NUMBER" => Some("64".to_owned()),
        _ => None,
    }
}

/// A refused config names a place in the file, and draws it on lines of its own.
fn stands_in_the_file(problem: &Problem, text: &str) {
    assert!(Code::ALL.contains(&problem.code));
    let place = problem.place.as_ref().unwrap();
    let lines: Vec<&str> = text.split('\n').collect();
    let line = lines.get(place.line - 1).unwrap();
    assert!((1..=line.chars().count() + 1).contains(&place.column), "{problem}");
    assert!(
        place.width >= 1 && place.width <= line.chars().count().max(1),
        "{problem}"
    );
    let shown = problem.to_string();
    let drawn = 5 + usize::from(problem.hint.is_some());
    assert_eq!(shown.lines().count(), drawn, "{shown:?}");
    assert!(
        shown.chars().all(|c| !c.is_control() || matches!(c, '\n' | '\t')),
        "{shown:?}"
    );
}

/// Whether every canary of a file stands where secrets belong. Of what is no TOML everything but its keys is taken for one.
fn is_hidden(text: &str) -> bool {
    let Ok(table) = text.parse::<toml::Table>() else {
        return true;
    };
    let mut found = 0;
    count(&mut Vec::new(), &Value::Table(table), &mut found);
    let of = |what: &str| text.matches(what).count();
    found == of(CANARY) + of("${SECRET")
}

fn count<'a>(path: &mut Vec<&'a str>, value: &'a Value, found: &mut usize) {
    match value {
        Value::Table(table) => {
            for (key, value) in table {
                path.push(key);
                count(path, value, found);
                path.pop();
            }
        }
        Value::String(text) => {
            let is_secret = matches!(
                path.as_slice(),
                ["broker", _, "token" | "password" | "nkey"]
                    | ["admin" | "ingress", "token"]
                    | ["consumer", _, "grants", "config", _]
            );
            let is_url = matches!(path.as_slice(), ["broker", _, "url"] | ["ledger", "url"]);
            let (at, more) = (
                text.rfind('@').unwrap_or(0),
                text.find(['?', '#']).unwrap_or(text.len()),
            );
            for what in [CANARY, "${SECRET"] {
                let places = text
                    .match_indices(what)
                    .filter(|(place, _)| is_secret || is_url && (place + what.len() <= at || *place > more));
                *found += places.count();
            }
        }
        _ => {}
    }
}

/// The bounds that the documentation of the config gives.
fn is_within_bounds(plan: &Plan) {
    let seconds = Duration::from_secs;
    assert!((seconds(60)..=seconds(3_650 * 86_400)).contains(&plan.ledger.retention));
    assert!(plan.host.grace <= seconds(3_600) && (1..=10_000).contains(&plan.host.instances_max.get()));
    assert!(plan.admin.listen.ip().is_loopback() || plan.admin.token.is_some());
    let tokens = [
        plan.admin.token.as_ref(),
        plan.ingress.as_ref().and_then(|ingress| ingress.token.as_ref()),
    ];
    assert!(
        tokens
            .into_iter()
            .flatten()
            .all(|token| !token.reveal().trim().is_empty())
    );
    if let Some(ingress) = &plan.ingress {
        assert!(ingress.listen.ip().is_loopback() || ingress.token.is_some());
        assert!((1 << 10..=64 << 20).contains(&ingress.body_bytes_max));
        assert!(ingress.concurrency.get() <= 65_536);
        assert!(ingress.routes.keys().all(|path| path.starts_with('/')));
    }
    for broker in plan.brokers.values() {
        match &broker.kind {
            BrokerKind::Webhook(hook) => {
                assert!(
                    hook.url.starts_with("http") && !hook.url.contains(['@', '?', '#']),
                    "{}",
                    hook.url
                );
                assert!((Duration::from_millis(100)..=seconds(600)).contains(&hook.timeout));
                assert!(hook.concurrency.get() <= 4_096);
            }
            BrokerKind::Nats(nats) => {
                assert!(!nats.servers.is_empty() && nats.servers.iter().all(|server| !server.contains('@')));
            }
            BrokerKind::Embedded => {}
        }
    }
    for consumer in plan.consumers.values() {
        is_bounded(consumer);
        assert!(plan.streams.contains_key(&consumer.reads.name));
        assert!(
            consumer
                .writes
                .iter()
                .all(|rule| plan.streams.contains_key(&rule.stream.name))
        );
    }
}

fn is_bounded(consumer: &Consumer) {
    let (millis, hour) = (Duration::from_millis, Duration::from_secs(3_600));
    let Consumer {
        budget,
        retry,
        limits,
        breaker,
        concurrency,
        ..
    } = consumer;
    assert!(concurrency.get() <= 4_096);
    assert!((concurrency.get()..=65_536).contains(&budget.events.get()));
    assert!((64 << 10..=4 << 30).contains(&budget.bytes.get()));
    assert!(retry.attempts.get() <= 1_000);
    assert!(millis(1) <= retry.backoff_min && retry.backoff_min <= retry.backoff_max && retry.backoff_max <= 24 * hour);
    assert!((millis(10)..=hour).contains(&retry.park_after));
    assert!(retry.park_over <= budget.events && retry.parked_max.get() <= 1_000_000_000);
    assert!((64 << 10..=4 << 30).contains(&limits.memory) && (millis(1)..=hour / 4).contains(&limits.time));
    assert!(limits.table_elements <= 10_000_000 && limits.emits <= 10_000 && limits.state_writes <= 100_000);
    assert!(limits.emit_bytes <= limits.effect_bytes && (1 << 10..=64 << 20).contains(&limits.emit_bytes));
    assert!((1 << 10..=256 << 20).contains(&limits.effect_bytes));
    assert!(limits.log_lines <= 10_000 && (64..=64 << 10).contains(&limits.log_line_bytes));
    assert!(breaker.failure_rate > 0.0 && breaker.failure_rate <= 1.0);
    assert!((2..=10_000).contains(&breaker.window.get()) && breaker.keys_min <= breaker.window);
    assert!(millis(10) <= breaker.open_min && breaker.open_min <= breaker.open_max && breaker.open_max <= hour);
}

/// Quantities are read as they are shown.
fn comes_back(plan: &Plan, file: &Path) {
    let (retention, grace) = (plan.ledger.retention, plan.host.grace);
    let mut text = format!(
        "[ledger]\nurl = \"embedded:./data\"\nretention = \"{}\"\n[host]\ngrace = \"{}\"\n",
        config::show_period(retention),
        config::show_period(grace),
    );
    if let Some(ingress) = &plan.ingress {
        let body_max = config::show_size(ingress.body_bytes_max as u64);
        text.push_str(&format!(
            "[ingress]\nlisten = \"127.0.0.1:0\"\nroutes = {{}}\nbody_max = \"{body_max}\"\n"
        ));
    }
    let again = config::parse(&text, file, &|_| None)
        .unwrap_or_else(|problems| panic!("{problems}"))
        .plan;
    assert_eq!((again.ledger.retention, again.host.grace), (retention, grace));
    let body_max = |plan: &Plan| plan.ingress.as_ref().map(|ingress| ingress.body_bytes_max);
    assert_eq!(body_max(&again), body_max(plan));
}
