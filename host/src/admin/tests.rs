//! The API over real HTTP, on a host whose broker, ledger and dead letters are small fakes; its pipeline is the real one.

mod describe;
pub(crate) mod fakes;
mod letters;
mod publish;
mod watch;
mod who;

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::broadcast;

use super::{Door, Serving};
use crate::app::{Host, host};
use crate::clock::{Clock, Timestamp};
use crate::metrics::Metrics;
use crate::pipeline::ages::Ages;
use crate::pipeline::unconfirmed::Inherited;
use crate::pipeline::{self, Happening, Pipeline};
use crate::plan::{Name, Plan, Secret};
use crate::{config, plan};
use fakes::{FakeBroker, FakeHandler, FakeLedger, FakeLetters};

/// Nothing can be written to `deliveries`.
const CONFIG: &str = r#"
[ledger]
url = "embedded:./data"
[broker.main]
url = "embedded:./data"
[broker.nats]
url = "nats://127.0.0.1:1"
[stream.orders]
broker = "main"
[stream.deliveries]
broker = "nats"
subjects = ["deliveries.>"]
[consumer.inventory]
plugin = "plugin.wasm"
reads = "orders"
"#;

/// A host with its API.
pub(crate) struct Running {
    pub(crate) address: SocketAddr,
    serving: Option<Serving>,
    pub(crate) broker: Arc<FakeBroker>,
    ledger: Arc<FakeLedger>,
    pub(crate) letters: Arc<FakeLetters>,
    pub(crate) feed: broadcast::Sender<Happening>,
    client: reqwest::Client,
    _pipeline: Pipeline,
}

impl Running {
    pub(crate) async fn start() -> Self {
        Self::start_with(None, FakeBroker::default()).await
    }

    pub(crate) async fn start_with(token: Option<&str>, broker: FakeBroker) -> Self {
        let plan = Arc::new(proven());
        let (broker, ledger) = (Arc::new(broker), Arc::new(FakeLedger::default()));
        let letters = Arc::new(FakeLetters::default());
        let (feed, _) = broadcast::channel(8);
        let metrics = Metrics::new();
        let name = Name::new("inventory").unwrap();
        let parts = pipeline::Parts {
            consumer: plan.consumers[&name].clone(),
            broker: broker.clone(),
            handler: Arc::new(FakeHandler),
            ledger: ledger.clone(),
            parking: ledger.clone(),
            relays: HashMap::new(),
            inherited: Inherited::default(),
            ages: Arc::new(Ages::since(Clock::system().now())),
            quarantine: Arc::default(),
            workers: NonZeroUsize::MIN,
            metrics: metrics.consumer(&name),
            feed: feed.clone(),
            clock: Clock::seeded(Timestamp(1_790_000_000_000), 1),
        };
        let counted = parts.metrics.clone();
        let pipeline = parts.start();
        let consumer = host::Consumer {
            revision: "sha256:abc".into(),
            metrics: counted,
            pipeline: pipeline.handle(),
        };
        let host = Arc::new(Host {
            brokers: plan
                .brokers
                .keys()
                .map(|name| (name.clone(), broker.clone() as _))
                .collect(),
            plan,
            metrics,
            consumers: BTreeMap::from([(name, consumer)]),
            relays: HashMap::new(),
            ledger: ledger.clone(),
            dead_letters: letters.clone(),
            publishers: Mutex::default(),
            feed: feed.clone(),
        });
        let admin = plan::Admin {
            listen: "127.0.0.1:0".parse().unwrap(),
            token: token.map(|token| Secret::new(token.to_owned())),
        };
        let serving = Door::open(&admin).await.unwrap().serve(host);
        Self {
            address: serving.address(),
            serving: Some(serving),
            broker,
            ledger,
            letters,
            feed,
            client: client(),
            _pipeline: pipeline,
        }
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    async fn get(&self, path: &str) -> (u16, Value) {
        read(self.client.get(self.url(path))).await
    }

    async fn post(&self, path: &str, body: &Value) -> (u16, Value) {
        read(self.client.post(self.url(path)).json(body)).await
    }

    /// Asks until the status is right; fails with what was answered last.
    async fn wait_for(&self, path: &str, status: u16) -> Value {
        let mut last = Value::Null;
        for _ in 0..500 {
            let (found, body) = self.get(path).await;
            if found == status {
                return body;
            }
            last = body;
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("{path} never answered {status}: {last}");
    }
}

async fn read(request: reqwest::RequestBuilder) -> (u16, Value) {
    let response = request.send().await.unwrap();
    let status = response.status().as_u16();
    let text = response.text().await.unwrap();
    let body = serde_json::from_str(&text).unwrap_or_else(|_| json!(text));
    (status, body)
}

fn client() -> reqwest::Client {
    // The second of two tests finds it installed.
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::new()
}

pub(crate) fn proven() -> Plan {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("plugin.wasm"), b"").unwrap();
    let file: &Path = &folder.path().join("tidegate.toml");
    config::parse(CONFIG, file, &|_| None).unwrap().plan
}
