//! The stage of every test here: a consumer on the real store, ledger and embedded broker in a temporary folder, with a fake
//! plugin and a fake broker to publish to. Hosts come and go on it, by a drain or by a crash.

use std::collections::{BTreeSet, HashMap};
use std::num::{NonZeroU32, NonZeroUsize};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tempfile::TempDir;
use tokio::sync::broadcast;
use tokio::task::JoinSet;

use super::failing::{Failing, Switch};
use super::handler::{Answer, SENTINEL, Scripted, counter};
use super::outside::{Door, Outside};
use crate::broker::{self, Outgoing, Publisher};
use crate::clock::Clock;
use crate::event::{Event, Message, codec};
use crate::ledger::embedded::{self, Embedded};
use crate::ledger::{DeadFilter, DeadId, DeadLetter, DeadLetters, Ledger, Outbox, Row};
use crate::metrics::{self, Counts, Metrics};
use crate::pipeline::ages::Ages;
use crate::pipeline::unconfirmed::Inherited;
use crate::pipeline::{Happening, Left, Parts, Pipeline, relay};
use crate::plan::{self, BrokerKind, ContentMode, Name, Place, Template, TemplatePart};
use crate::store::{Settings, Store};

/// How long anything may take that has to come.
const PATIENCE: Duration = Duration::from_secs(20);
const PAUSE: Duration = Duration::from_millis(2);

pub(super) fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

/// A stage, with or without a host on it.
pub(super) struct Stage {
    pub plan: plan::Consumer,
    pub plugin: Arc<Scripted>,
    pub outside: Arc<Outside>,
    /// Puts the ledger out of reach.
    pub ledger_switch: Arc<Switch>,
    /// Tells watchers.
    pub feed: broadcast::Sender<Happening>,
    folder: TempDir,
    sent: AtomicUsize,
    host: Option<Host>,
}

/// A running host.
struct Host {
    store: Arc<Store>,
    ledger: Arc<Embedded>,
    publisher: Arc<dyn Publisher>,
    pipeline: Pipeline,
    outputs: HashMap<Name, relay::Relay>,
    relays: JoinSet<()>,
    metrics: metrics::Consumer,
    all_metrics: Metrics,
}

impl Stage {
    /// A stage without a host. The plugin answers by the event and the number of the attempt.
    pub(super) fn new(script: impl Fn(&Event, u32) -> Answer + Send + Sync + 'static) -> Self {
        Self {
            plan: consumer(),
            plugin: Scripted::new(script),
            outside: Outside::new(),
            ledger_switch: Arc::default(),
            feed: broadcast::channel(16).0,
            folder: tempfile::tempdir().unwrap(),
            sent: AtomicUsize::new(0),
            host: None,
        }
    }

    /// A stage with a host.
    pub(super) async fn started(script: impl Fn(&Event, u32) -> Answer + Send + Sync + 'static) -> Self {
        let mut stage = Self::new(script);
        stage.start().await;
        stage
    }

    /// Starts a host. The last one must be gone.
    pub(super) async fn start(&mut self) {
        assert!(self.host.is_none());
        let clock = Clock::system();
        let store = self.open_store(&clock).await;
        let ledger = embedded::open(store.clone(), BTreeSet::from([name("orders"), name("log")]));
        let orders = broker::embedded::open(store.clone(), &main_broker(), clock.clone());
        let publisher = orders.publisher(self.plan.reads.clone()).await.unwrap();
        let failing = Arc::new(Failing {
            inner: ledger.clone(),
            switch: self.ledger_switch.clone(),
        });
        let metrics = Metrics::new();
        let (relays, tasks, inherited) = self.relays(&ledger, &metrics, &clock).await;
        let consumer = metrics.consumer(&self.plan.name);
        let parts = Parts {
            consumer: Arc::new(self.plan.clone()),
            broker: orders,
            handler: self.plugin.clone(),
            ledger: failing.clone(),
            parking: failing,
            relays: relays.clone(),
            inherited,
            ages: Arc::new(Ages::since(clock.now())),
            quarantine: Arc::default(),
            workers: many(2),
            metrics: consumer.clone(),
            feed: self.feed.clone(),
            clock,
        };
        self.host = Some(Host {
            store,
            ledger,
            publisher,
            pipeline: parts.start(),
            outputs: relays,
            relays: tasks,
            metrics: consumer,
            all_metrics: metrics,
        });
    }

    /// The store may still be held for a moment by tasks of the last host that are being ended.
    async fn open_store(&self, clock: &Clock) -> Arc<Store> {
        let settings = || Settings {
            path: self.folder.path().join("data"),
            retention: Duration::from_secs(600),
            fsync: false,
        };
        let open = async {
            loop {
                match Store::open(settings(), clock.clone()) {
                    Ok(store) => return store,
                    Err(crate::store::Error::Locked(_)) => tokio::time::sleep(PAUSE).await,
                    Err(error) => panic!("{error}"),
                }
            }
        };
        tokio::time::timeout(PATIENCE, open)
            .await
            .expect("the last host still holds the store")
    }

    async fn relays(
        &self,
        ledger: &Arc<Embedded>,
        metrics: &Metrics,
        clock: &Clock,
    ) -> (HashMap<Name, relay::Relay>, JoinSet<()>, Inherited) {
        let mut inherited = Inherited::default();
        let mut left = ledger.pending(None, 10_000).await.unwrap();
        let (mut relays, mut tasks) = (HashMap::new(), JoinSet::new());
        for stream in [outside_stream("stock"), outside_stream("dead")] {
            let (mine, others) = left.into_iter().partition(|row| row.output.stream == stream.name);
            left = others;
            let parts = relay::Parts {
                stream: stream.clone(),
                broker: Arc::new(Door(self.outside.clone())),
                outbox: ledger.clone(),
                ledger: ledger.clone(),
                clock: clock.clone(),
                metrics: metrics.stream(&stream.name),
            };
            let mine = Vec::<Row>::into_iter(mine).map(|row| inherited.post(row)).collect();
            let (relay, task) = parts.start(mine, 1_024);
            tasks.spawn(task);
            relays.insert(stream.name.clone(), relay);
        }
        (relays, tasks, inherited)
    }

    /// Drains the host and closes the store.
    pub(super) async fn stop(&mut self) -> Left {
        self.stop_within(PATIENCE).await
    }

    pub(super) async fn stop_within(&mut self, grace: Duration) -> Left {
        let mut host = self.host.take().unwrap();
        let deadline = Clock::system().now() + grace;
        let left = host.pipeline.drain(deadline).await;
        host.relays.shutdown().await;
        host.store.close().await.unwrap();
        left
    }

    /// Ends the host as a kill does.
    pub(super) async fn crash(&mut self) {
        let mut host = self.host.take().unwrap();
        drop(host.pipeline);
        host.relays.shutdown().await;
    }

    /// Puts an event on the stream.
    pub(super) async fn send(&self, id: &str, key: &str) {
        self.send_data(id, key, "{}").await;
    }

    pub(super) async fn send_data(&self, id: &str, key: &str, data: &'static str) {
        let event = Event {
            id: id.to_owned(),
            source: "/shop".to_owned(),
            kind: "order".to_owned(),
            subject: Some(key.to_owned()),
            datacontenttype: Some("application/json".to_owned()),
            data: Some(Bytes::from_static(data.as_bytes())),
            ..Event::default()
        };
        self.send_event(&event).await;
    }

    pub(super) async fn send_event(&self, event: &Event) {
        let message = codec::encode(event, &self.plan.reads).unwrap();
        self.send_message(message).await;
    }

    /// Puts a message on the stream, whatever came before.
    pub(super) async fn send_message(&self, message: Message) {
        let id = self.sent.fetch_add(1, Ordering::SeqCst);
        let outgoing = Outgoing {
            id: format!("sent-{}-{id}", self.folder.path().display()).into(),
            key: Arc::from([]),
            message,
        };
        for result in self.host().publisher.publish(vec![outgoing]).await {
            result.unwrap();
        }
    }

    /// Puts events of one key on the stream, all at once.
    pub(super) async fn send_many(&self, ids: &[&str], key: &str) {
        for id in ids {
            self.send(id, key).await;
        }
    }

    fn host(&self) -> &Host {
        self.host.as_ref().expect("no host runs")
    }

    pub(super) fn ledger(&self) -> &Embedded {
        &self.host().ledger
    }

    pub(super) fn store(&self) -> &Store {
        &self.host().store
    }

    pub(super) fn counts(&self) -> Counts {
        self.host().metrics.counts()
    }

    pub(super) fn metrics(&self) -> &metrics::Consumer {
        &self.host().metrics
    }

    pub(super) fn is_running(&self) -> bool {
        self.host().pipeline.is_running()
    }

    /// Looks at the parking again, as after a redrive or a purge.
    pub(super) async fn look_at_parking(&self) {
        self.host().pipeline.handle().parking_changed().await;
    }

    /// A level of the consumer, by its metric.
    pub(super) fn level(&self, name: &str) -> String {
        let text = self.host().all_metrics.text();
        let line = text.lines().find(|line| line.contains(name) && !line.starts_with('#'));
        line.and_then(|line| line.rsplit(' ').next())
            .unwrap_or_default()
            .to_owned()
    }

    /// Waits until nothing is left in memory. Once for a stage: it shows in the levels while an event of its own is in hand.
    pub(super) async fn until_idle(&self) {
        self.until_settled().await;
        self.send(SENTINEL, SENTINEL).await;
        let levels = [("in_flight{", "1"), ("lanes{", "1"), ("parked{", "0")];
        let is_so = |stage: &Self| levels.iter().all(|(level, is)| stage.level(level) == *is);
        self.until("idleness", is_so).await;
        self.plugin.sentinel.open();
        self.until_settled().await;
    }

    /// Why outputs to `stock` wait, if their broker does not take them.
    pub(super) fn trouble(&self) -> Option<String> {
        self.host().outputs[&name("stock")].trouble()
    }

    /// Deliveries that are not settled.
    pub(super) fn lag(&self) -> u64 {
        let logs = self.store().logs().unwrap();
        let orders = logs.iter().find(|log| log.stream == name("orders"));
        let cursor = orders.and_then(|log| log.consumers.first());
        cursor.map_or(u64::MAX, |cursor| cursor.lag)
    }

    /// Waits until something is so.
    pub(super) async fn until(&self, what: &str, is_so: impl Fn(&Self) -> bool) {
        let wait = async {
            while !is_so(self) {
                tokio::time::sleep(PAUSE).await;
            }
        };
        if tokio::time::timeout(PATIENCE, wait).await.is_err() {
            let called = self.plugin.called();
            let latest = called.len().saturating_sub(50);
            panic!(
                "{what} does not come; called: {:?}, lag: {}",
                &called[latest..],
                self.lag()
            );
        }
    }

    /// Waits until every delivery is settled.
    pub(super) async fn until_settled(&self) {
        self.until("settlement", |stage| stage.lag() == 0).await;
    }

    /// Waits until an event was called so often.
    pub(super) async fn until_called(&self, id: &str, times: usize) {
        self.until(&format!("call {times} of {id}"), |stage| {
            stage.plugin.count(id) >= times
        })
        .await;
    }

    /// Shows that nothing more comes for now: an event of a key of its own, sent last, is through.
    pub(super) async fn pass(&self, id: &str) {
        self.send(id, id).await;
        self.until_called(id, 1).await;
    }

    /// The dead letters, oldest first.
    pub(super) async fn dead(&self) -> Vec<DeadLetter> {
        let all = DeadFilter::default();
        self.ledger().list(&all, None, 1_000).await.unwrap().letters
    }

    /// Waits for so many dead letters.
    pub(super) async fn until_dead(&self, count: usize) -> Vec<DeadLetter> {
        let wait = async {
            loop {
                let dead = self.dead().await;
                if dead.len() == count {
                    return dead;
                }
                tokio::time::sleep(PAUSE).await;
            }
        };
        match tokio::time::timeout(PATIENCE, wait).await {
            Ok(dead) => dead,
            Err(_) => panic!("there are no {count} dead letters but {:?}", self.dead().await),
        }
    }

    pub(super) async fn redrive(&self, id: DeadId) {
        assert_eq!(self.ledger().redrive(vec![id]).await.unwrap().len(), 1);
        self.look_at_parking().await;
    }

    pub(super) async fn purge(&self, id: DeadId) {
        assert_eq!(self.ledger().purge(vec![id]).await.unwrap().len(), 1);
        self.look_at_parking().await;
    }

    /// What [`Answer::Count`] has counted under a key.
    pub(super) async fn counted(&self, key: &str) -> String {
        let read = self.ledger().read_state(&counter(key)).await.unwrap();
        String::from_utf8(read.value.unwrap_or_default().to_vec()).unwrap()
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        let overlaps = self.plugin.overlaps.lock().unwrap();
        assert!(std::thread::panicking() || overlaps.is_empty(), "{overlaps:?}");
    }
}

fn main_broker() -> plan::Broker {
    plan::Broker {
        name: name("main"),
        kind: BrokerKind::Embedded,
    }
}

fn orders() -> Arc<plan::Stream> {
    Arc::new(plan::Stream {
        name: name("orders"),
        broker: Arc::new(main_broker()),
        place: Place::Log(plan::Log {
            age_max: None,
            bytes_max: 1 << 30,
        }),
        mode: ContentMode::Binary,
        mapping: None,
    })
}

/// A stream of the fake broker.
pub(super) fn outside_stream(text: &str) -> Arc<plan::Stream> {
    Arc::new(plan::Stream {
        name: name(text),
        broker: Arc::new(plan::Broker {
            name: name("outside"),
            kind: BrokerKind::Embedded,
        }),
        place: Place::Path(Template {
            parts: vec![TemplatePart::Literal(text.to_owned())],
        }),
        mode: ContentMode::Binary,
        mapping: None,
    })
}

fn many(number: usize) -> NonZeroUsize {
    NonZeroUsize::new(number).unwrap()
}

/// A consumer that never parks and whose breaker never opens, unless a test makes it.
fn consumer() -> plan::Consumer {
    plan::Consumer {
        name: name("test"),
        plugin: PathBuf::new(),
        digest: None,
        reads: orders(),
        writes: Vec::new(),
        types: Vec::new(),
        key: plan::Key::Attribute("subject".to_owned()),
        concurrency: many(16),
        budget: plan::Budget {
            events: many(64),
            bytes: many(1 << 20),
        },
        retry: plan::Retry {
            attempts: NonZeroU32::new(3).unwrap(),
            backoff_min: Duration::from_millis(2),
            backoff_max: Duration::from_secs(60),
            park_after: Duration::from_secs(600),
            park_over: many(64),
            parked_max: many(10_000),
        },
        limits: limits(),
        grants: plan::Grants::default(),
        instances: plan::Instances::Fresh,
        on_dead: plan::OnDead::Continue,
        dead_letter: None,
        settle: plan::SettleWhen::Confirmed,
        breaker: plan::Breaker {
            failure_rate: 0.5,
            window: many(10_000),
            keys_min: many(10_000),
            open_min: Duration::from_millis(50),
            open_max: Duration::from_millis(200),
        },
    }
}

fn limits() -> plan::Limits {
    plan::Limits {
        memory: 1 << 20,
        time: Duration::from_secs(60),
        table_elements: 100,
        emits: 100,
        emit_bytes: 1 << 20,
        state_writes: 100,
        effect_bytes: 1 << 20,
        log_lines: 100,
        log_line_bytes: 1_000,
    }
}
