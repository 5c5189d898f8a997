//! A plugin that is loaded as the host loads it, and threads that call it.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::{BoxFuture, join_all, ready};
use tidegate::clock::Clock;
use tidegate::config;
use tidegate::event::key::LaneKey;
use tidegate::event::{Event, Extension, Headers, Value, codec};
use tidegate::ledger::{self, Read, RecordKey, StateBucket, StateKey, StateReader};
use tidegate::outcome::Outcome;
use tidegate::plan::Plan;
use tidegate::plugin::{self, Call, Engine, Handler, Plugin, Settings};
use tokio::runtime::{self, Runtime};

use super::meter::{Cost, Sample};

/// A loaded plugin and the threads that call it.
pub(crate) struct Bench {
    pub(crate) runtime: Runtime,
    pub(crate) plugin: Arc<Plugin>,
    engine: Engine,
    threads: u32,
}

impl Bench {
    pub(crate) fn new(threads: u32, instances: &str, plugin: &Path) -> Self {
        let runtime = runtime(threads);
        let plan = plan(instances, plugin, None);
        let engine = engine(&plan);
        let plugin = runtime.block_on(load(&engine, &plan));
        Self {
            runtime,
            plugin: Arc::new(plugin),
            engine,
            threads,
        }
    }

    /// The plugin of another consumer, on the same engine.
    pub(crate) fn another(&self, plugin: &Path) -> Plugin {
        self.runtime.block_on(load(&self.engine, &plan("fresh", plugin, None)))
    }

    /// Runs so many events, one after the other on each thread, and gives the cost of one.
    pub(crate) fn run_all(&self, event: Event, events: u32) -> Cost {
        let each = events / self.threads;
        self.run(&event, self.threads, each / 10 + 1);
        let sample = Sample::start();
        self.run(&event, self.threads, each);
        sample.end(each * self.threads)
    }

    /// Runs the event so many times at once, and each again and again.
    pub(crate) fn run(&self, event: &Event, at_once: u32, each: u32) {
        let tasks = (0..at_once).map(|_| {
            let (plugin, event) = (Arc::clone(&self.plugin), event.clone());
            self.runtime.spawn(async move {
                for _ in 0..each {
                    attempt(&plugin, &event).await;
                }
            })
        });
        for ended in self.runtime.block_on(join_all(tasks)) {
            ended.expect("it does not panic");
        }
    }
}

/// Runs one attempt, which must succeed.
pub(crate) async fn attempt(plugin: &Plugin, event: &Event) {
    let call = Call {
        event,
        headers: &Headers::default(),
        attempt: 1,
        deadline: Clock::system().now() + Duration::from_secs(2),
        lane: &LaneKey(Arc::from(&b"customer-17"[..])),
        record: RecordKey([7; 16]),
        state: &NoState,
    };
    let attempted = plugin.attempt(call).await;
    assert_eq!(attempted.outcome, Outcome::Succeeded);
}

pub(crate) fn runtime(threads: u32) -> Runtime {
    runtime::Builder::new_multi_thread()
        .worker_threads(threads as usize)
        .enable_all()
        .build()
        .expect("threads")
}

/// A host with one consumer, and all defaults.
pub(crate) fn plan(instances: &str, plugin: &Path, cache: Option<&Path>) -> Plan {
    let root = root().display().to_string();
    let cache = cache.map_or_else(
        || format!("{root}/target/guests/compiled"),
        |cache| cache.display().to_string(),
    );
    let plugin = plugin.display();
    let text = format!(
        r#"
            [host]
            cache = "{cache}"
            [ledger]
            url = "embedded:{root}/target/bench"
            [broker.main]
            url = "embedded:{root}/target/bench"
            [stream.orders]
            broker = "main"
            [stream.invoices]
            broker = "main"
            [consumer.billing]
            plugin = "{plugin}"
            reads = "orders"
            writes = "invoices"
            concurrency = 256
            instances = "{instances}"
        "#
    );
    let loaded = config::parse(&text, Path::new("bench.toml"), &|_| None);
    loaded.unwrap_or_else(|problems| panic!("{problems}")).plan
}

pub(crate) fn engine(plan: &Plan) -> Engine {
    Engine::new(&Settings::of(plan)).expect("the machine has room for an engine")
}

pub(crate) async fn load(engine: &Engine, plan: &Plan) -> Plugin {
    let consumer = plan.consumers.values().next().expect("there is one");
    plugin::load(engine, consumer, &Clock::system(), |event, stream| {
        codec::encode(event, stream).map_err(|error| error.to_string())
    })
    .await
    .unwrap_or_else(|error| panic!("{error}"))
}

/// An event as it comes from a JetStream stream, with the attributes that most have.
pub(crate) fn event(kind: &str, data: &str) -> Event {
    Event {
        id: "order-0000001234".to_owned(),
        source: "/shops/berlin".to_owned(),
        kind: kind.to_owned(),
        subject: None,
        time: Some("2026-11-24T09:00:00Z".to_owned()),
        datacontenttype: Some("application/json".to_owned()),
        dataschema: None,
        extensions: vec![Extension {
            name: "partitionkey".to_owned(),
            value: Value::String("customer-17".to_owned()),
        }],
        data: Some(Bytes::copy_from_slice(data.as_bytes())),
    }
}

/// An order of so many bytes.
pub(crate) fn order(bytes: usize) -> Event {
    let order = r#"{"id":"order-0000001234","quantity":3,"price_cents":1250,"note":""#;
    let note = "x".repeat(bytes - order.len() - 2);
    event("shop.order.placed", &format!("{order}{note}\"}}"))
}

/// The template for plugins in Rust.
pub(crate) fn template() -> PathBuf {
    build("plugins/rust/template", "my_plugin")
}

/// A guest of the tests.
pub(crate) fn guest(name: &str) -> PathBuf {
    build(&format!("tests/guests/{name}"), name)
}

fn build(folder: &str, name: &str) -> PathBuf {
    let target = root().join("target/guests");
    let status = Command::new(env!("CARGO"))
        .args(["build", "--quiet", "--release", "--target", "wasm32-wasip2"])
        .arg("--manifest-path")
        .arg(root().join(folder).join("Cargo.toml"))
        .arg("--target-dir")
        .arg(&target)
        .status();
    assert!(
        status.expect("cargo can be started").success(),
        "{folder} does not build"
    );
    target.join("wasm32-wasip2/release").join(name).with_extension("wasm")
}

/// A core module of the tests' guests in its frame, as a component.
pub(crate) fn assemble(name: &str) -> PathBuf {
    let read = |name| {
        let path = root().join("tests/guests").join(name).with_extension("wat");
        std::fs::read_to_string(path).expect("the guest is there")
    };
    let text = read("frame").replacen(";; MODULE\n", &read(name), 1);
    let path = root().join("target/guests").join(name).with_extension("wasm");
    std::fs::write(&path, wat::parse_str(text).expect("it is a component")).expect("target can be written");
    path
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Committed state that nobody asks for.
struct NoState;

impl StateReader for NoState {
    fn read<'a>(&'a self, _key: &'a StateKey) -> BoxFuture<'a, Result<Read, ledger::Error>> {
        Box::pin(ready(Ok(Read::default())))
    }

    fn list<'a>(
        &'a self,
        _bucket: &'a StateBucket,
        _after: Option<&'a str>,
        _limit: usize,
    ) -> BoxFuture<'a, Result<Vec<String>, ledger::Error>> {
        Box::pin(ready(Ok(Vec::new())))
    }
}
