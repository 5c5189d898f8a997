//! The service, put together once, in order of need: store, ledger, brokers, plugins, an ingress; relays, pipelines.
//!
//! [`Prepared`] is all that can be wrong, [`Prepared::start`] the parts list of what runs. [`Host`] is what the admin API sees of a
//! running app. Brokers may be away while it starts; everything else must be right, or nothing is taken from any of them.

pub mod connect;
pub mod dead_letters;
pub mod host;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use serde::Serialize;
use tokio::sync::broadcast;
use tokio::task::{JoinHandle, JoinSet};
use tracing::{error, info, warn};

use crate::broker::http::ingress;
use crate::broker::{self, Broker};
use crate::clock::Clock;
use crate::crash::{self, Point};
use crate::event::codec;
use crate::ledger::embedded::Embedded;
use crate::ledger::{self, Outbox, Row};
use crate::metrics;
use crate::metrics::Metrics;
use crate::pipeline::ages::Ages;
use crate::pipeline::quarantine::Quarantine;
use crate::pipeline::relay::{self, Relay};
use crate::pipeline::unconfirmed::Inherited;
use crate::pipeline::{self, Left, Pipeline};
use crate::plan::{BrokerKind, LedgerPlace, Name, Place, Plan, Stream};
use crate::plugin::{self, Handler};
use crate::store::{self, Store};

pub use host::Host;

/// Happenings that a slow watcher may lag behind before it misses some.
const FEED: usize = 4_096;
/// Rows of the outbox in one page when a host starts.
const PAGE: usize = 10_000;
/// How long another process may hold the ledger before a start gives up, and how often it looks meanwhile.
const LOCK_PATIENCE: Duration = Duration::from_secs(3);
const LOCK_LOOK: Duration = Duration::from_millis(50);
/// How often old records and log entries are looked for.
const SWEEP: Duration = Duration::from_secs(5);

/// A running service. [`App::drain`] stops it; dropping it is a crash in small.
pub struct App {
    /// What its doors see.
    pub host: Arc<Host>,
    ingress: Option<ingress::Serving>,
    pipelines: BTreeMap<Name, Pipeline>,
    /// Ended by `drain`: what they still hold is in the ledger.
    relays: JoinSet<()>,
    sweeper: JoinHandle<()>,
    store: Arc<Store>,
    clock: Clock,
}

/// The service can't start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The ledger can't be opened.
    #[error(transparent)]
    Ledger(#[from] ledger::Error),
    /// The engine can't be made.
    #[error(transparent)]
    Engine(#[from] plugin::EngineError),
    /// A plugin can't be loaded.
    #[error("consumer {consumer}: {error}")]
    Plugin {
        /// Whose.
        consumer: Name,
        /// Why.
        error: plugin::LoadError,
    },
    /// A broker can't be set up at all.
    #[error(transparent)]
    Broker(#[from] broker::Error),
    /// The ingress can't listen.
    #[error(transparent)]
    Ingress(#[from] ingress::Error),
}

impl Error {
    /// Codes that are no other module's.
    pub const CODES: [&str; 2] = [plugin::EngineError::CODE, Self::LISTEN];
    /// The code of an address that can't be listened on.
    pub const LISTEN: &str = "listen-failed";

    /// The heading in `docs/errors.md`.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Ledger(error) => error.code(),
            Self::Engine(_) => plugin::EngineError::CODE,
            Self::Plugin { error, .. } => error.code(),
            Self::Broker(error) => error.code(),
            Self::Ingress(ingress::Error::Listen { .. }) => Self::LISTEN,
        }
    }
}

/// What a drain left, by consumer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Drained {
    /// By consumer, only where something was left.
    pub left: BTreeMap<String, Left>,
    /// Whether the ledger is closed cleanly.
    pub clean: bool,
}

/// Everything a service needs, proven. Nothing runs yet.
pub struct Prepared {
    plan: Arc<Plan>,
    clock: Clock,
    store: Arc<Store>,
    ledger: Arc<Embedded>,
    brokers: BTreeMap<Name, Arc<dyn Broker>>,
    handlers: HashMap<Name, Arc<dyn Handler>>,
    ingress: Option<ingress::Door>,
}

impl Prepared {
    /// Opens and loads everything.
    ///
    /// # Errors
    /// [`Error`]: a person must act.
    pub async fn new(plan: Plan, clock: Clock) -> Result<Self, Error> {
        let store = open_store(&plan, &clock).await?;
        store.heed(&readers(&plan));
        let ledger = ledger::embedded::open(store.clone(), logs(&plan));
        let brokers = brokers(&plan, &store, &clock)?;
        let handlers = load_plugins(&plan, &clock).await?;
        let ingress = match &plan.ingress {
            Some(ingress) => Some(ingress::Door::open(ingress.clone()).await?),
            None => None,
        };
        Ok(Self {
            plan: Arc::new(plan),
            clock,
            store,
            ledger,
            brokers,
            handlers,
            ingress,
        })
    }

    /// Starts everything.
    ///
    /// # Errors
    /// [`Error::Ledger`]: what the last host left in the outbox can't be read. Nothing was taken from any broker.
    pub async fn start(self) -> Result<App, Error> {
        let Self {
            plan,
            clock,
            store,
            ledger,
            brokers,
            handlers,
            ingress,
        } = self;
        let metrics = Metrics::new();
        let (feed, _) = broadcast::channel(FEED);

        let mut relays = JoinSet::new();
        let relay = relay_parts(&plan, &brokers, &ledger, &clock, &metrics);
        let (relay, mut inherited) = start_relays(relay, relay_capacity(&plan), ledger.as_ref(), &mut relays).await?;

        let mut parts = Vec::new();
        let ages: Vec<Arc<Ages>> = plan
            .consumers
            .iter()
            .map(|_| Arc::new(Ages::since(clock.now())))
            .collect();
        let quarantine = Arc::new(Quarantine::default());
        let workers = std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
        for ((name, consumer), ages) in plan.consumers.iter().zip(&ages) {
            let (Some(handler), Some(broker)) = (handlers.get(name), brokers.get(&consumer.reads.broker.name)) else {
                continue;
            };
            parts.push(pipeline::Parts {
                consumer: consumer.clone(),
                broker: broker.clone(),
                handler: handler.clone(),
                ledger: ledger.clone(),
                parking: ledger.clone(),
                relays: relay.clone(),
                inherited: inherited.remove(name).unwrap_or_default(),
                ages: ages.clone(),
                quarantine: quarantine.clone(),
                workers,
                metrics: metrics.consumer(name),
                feed: feed.clone(),
                clock: clock.clone(),
            });
        }
        let (pipelines, consumers) = start_pipelines(parts);

        let host = Arc::new(Host {
            plan: plan.clone(),
            metrics,
            consumers,
            relays: relay,
            ledger: ledger.clone(),
            dead_letters: ledger.clone(),
            brokers,
            publishers: Mutex::default(),
            feed,
        });
        let ingress = match ingress {
            Some(door) => Some(serve_ingress(door, &host).await),
            None => None,
        };
        let sweeper = tokio::spawn(sweep(store.clone(), plan, ages, clock.clone()));
        Ok(App {
            host,
            ingress,
            pipelines,
            relays,
            sweeper,
            store,
            clock,
        })
    }
}

impl App {
    /// Where the ingress listens, if there is one.
    #[must_use]
    pub fn ingress_address(&self) -> Option<std::net::SocketAddr> {
        self.ingress.as_ref().map(ingress::Serving::address)
    }

    /// The embedded store, for whoever reads its logs from outside the pipelines.
    #[must_use]
    pub fn store(&self) -> &Arc<Store> {
        &self.store
    }

    /// Whether every pipeline runs. One that does not has panicked: the process should end, the next one finds the event by its record.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.pipelines.values().all(Pipeline::is_running)
    }

    /// Stops taking, finishes what runs within the plan's grace time, and hands the rest back.
    pub async fn drain(mut self) -> Idle {
        let grace = self.host.plan.host.grace;
        let deadline = self.clock.now() + grace;
        let mut drains = JoinSet::new();
        for (name, pipeline) in self.pipelines {
            drains.spawn(async move { (name, pipeline.drain(deadline).await) });
        }
        // All at once: a client that is slow with its request takes nothing from the time of the consumers.
        if let Some(ingress) = self.ingress.take() {
            ingress.stop(grace).await;
        }
        let mut left = BTreeMap::new();
        for (name, consumer) in drains.join_all().await {
            if consumer != Left::default() {
                left.insert(name.to_string(), consumer);
            }
        }
        // Whatever a relay still holds is in the outbox: the next host publishes it, under the same ids.
        self.relays.shutdown().await;
        self.sweeper.abort();
        crash::at(Point::Drained);
        Idle {
            left,
            store: self.store,
        }
    }
}

/// A service that is drained, and whose ledger is still open.
pub struct Idle {
    left: BTreeMap<String, Left>,
    store: Arc<Store>,
}

impl Idle {
    /// Closes the ledger, and says what was left.
    pub async fn close(self) -> Drained {
        let closed = self.store.close().await;
        if let Err(error) = &closed {
            error!(error = %error, "ledger could not be closed: the next start counts this stop as a crash");
        }
        Drained {
            left: self.left,
            clean: closed.is_ok(),
        }
    }
}

async fn open_store(plan: &Plan, clock: &Clock) -> Result<Arc<Store>, ledger::Error> {
    let LedgerPlace::Embedded(path) = &plan.ledger.place;
    let settings = store::Settings {
        path: path.clone(),
        retention: plan.ledger.retention,
        fsync: plan.ledger.fsync,
    };
    let patient_until = clock.now() + LOCK_PATIENCE;
    loop {
        let (settings, clock_of_store) = (settings.clone(), clock.clone());
        let opened = tokio::task::spawn_blocking(move || Store::open(settings, clock_of_store)).await;
        match opened.map_err(|error| ledger::Error::Unavailable(error.to_string()))? {
            // A command that looks at a stopped host's dead letters is gone in a moment, a host that drains soon.
            Err(store::Error::Locked(_)) if clock.now() < patient_until => tokio::time::sleep(LOCK_LOOK).await,
            opened => return Ok(opened?),
        }
    }
}

/// The streams that are logs in the ledger's own store.
fn logs(plan: &Plan) -> BTreeSet<Name> {
    let logs = plan
        .streams
        .values()
        .filter(|stream| matches!(stream.place, Place::Log(_)));
    logs.map(|stream| stream.name.clone()).collect()
}

/// Who reads what.
fn readers(plan: &Plan) -> BTreeSet<(Name, Name)> {
    let consumers = plan.consumers.values();
    consumers
        .map(|consumer| (consumer.reads.name.clone(), consumer.name.clone()))
        .collect()
}

fn brokers(plan: &Plan, store: &Arc<Store>, clock: &Clock) -> Result<BTreeMap<Name, Arc<dyn Broker>>, broker::Error> {
    let mut brokers = BTreeMap::new();
    for (name, broker) in &plan.brokers {
        let opened: Arc<dyn Broker> = match &broker.kind {
            BrokerKind::Embedded => broker::embedded::open(store.clone(), broker, clock.clone()),
            BrokerKind::Nats(_) => Arc::new(connect::Connecting::new(broker.clone(), clock.clone())),
            BrokerKind::Webhook(webhook) => Arc::new(broker::http::webhook::Webhook::new(
                name.clone(),
                webhook,
                clock.clone(),
            )?),
        };
        brokers.insert(name.clone(), opened);
    }
    Ok(brokers)
}

async fn load_plugins(plan: &Plan, clock: &Clock) -> Result<HashMap<Name, Arc<dyn Handler>>, Error> {
    let engine = plugin::Engine::new(&plugin::Settings::of(plan))?;
    let mut handlers: HashMap<Name, Arc<dyn Handler>> = HashMap::new();
    for (name, consumer) in &plan.consumers {
        let loaded = plugin::load(&engine, consumer, clock, encode).await;
        let handler = loaded.map_err(|error| Error::Plugin {
            consumer: name.clone(),
            error,
        })?;
        info!(consumer = %name, plugin = %consumer.plugin.display(), revision = %handler.revision(), "plugin is loaded");
        handlers.insert(name.clone(), Arc::new(handler));
    }
    Ok(handlers)
}

/// How a plugin's event is encoded for the stream it goes to.
fn encode(event: &crate::event::Event, stream: &Stream) -> Result<crate::event::Message, String> {
    codec::encode(event, stream).map_err(|error| error.to_string())
}

/// A relay for every stream that consumers write and that is not a log in the ledger's own store.
fn relay_parts(
    plan: &Plan,
    brokers: &BTreeMap<Name, Arc<dyn Broker>>,
    ledger: &Arc<Embedded>,
    clock: &Clock,
    metrics: &Metrics,
) -> HashMap<Name, relay::Parts> {
    let mut parts = HashMap::new();
    let written = plan.consumers.values().flat_map(|consumer| {
        consumer
            .writes
            .iter()
            .map(|rule| &rule.stream)
            .chain(consumer.dead_letter.iter())
    });
    for stream in written.filter(|stream| !matches!(stream.place, Place::Log(_))) {
        let Some(broker) = brokers.get(&stream.broker.name) else {
            continue;
        };
        parts.entry(stream.name.clone()).or_insert_with(|| relay::Parts {
            stream: stream.clone(),
            broker: broker.clone(),
            outbox: ledger.clone(),
            ledger: ledger.clone(),
            clock: clock.clone(),
            metrics: metrics.stream(&stream.name),
        });
    }
    parts
}

/// Messages in the queue of a relay: each has the rows of one event or more, and a consumer has no more events unconfirmed than its budget, what
/// runs meanwhile, and a batch that was taken meanwhile and only buried. So whoever posts never waits.
fn relay_capacity(plan: &Plan) -> usize {
    let events = |consumer: &Arc<crate::plan::Consumer>| 2 * consumer.budget.events.get() + consumer.concurrency.get();
    plan.consumers.values().map(events).sum::<usize>().max(1)
}

/// Starts the relays with what the last host left in the outbox, before anything newer can be committed. Says how much that was, by
/// consumer.
async fn start_relays(
    parts: HashMap<Name, relay::Parts>,
    capacity: usize,
    outbox: &dyn Outbox,
    tasks: &mut JoinSet<()>,
) -> Result<(HashMap<Name, Relay>, HashMap<Name, Inherited>), ledger::Error> {
    let mut left: HashMap<Name, Vec<Row>> = HashMap::new();
    let mut after = None;
    loop {
        let page = outbox.pending(after, PAGE).await?;
        let Some(last) = page.last() else { break };
        after = Some(last.id);
        for row in page {
            left.entry(row.output.stream.clone()).or_default().push(row);
        }
    }
    let (mut relays, mut inherited) = (HashMap::new(), HashMap::<Name, Inherited>::new());
    for (name, parts) in parts {
        let rows = left.remove(&name).unwrap_or_default().into_iter();
        let rows = rows.map(|row| inherited.entry(row.consumer.clone()).or_default().post(row));
        let (relay, task) = parts.start(rows.collect(), capacity);
        tasks.spawn(task);
        relays.insert(name, relay);
    }
    for (stream, rows) in left {
        warn!(stream = %stream, rows = rows.len(), "outbox holds events for a stream that nobody writes any more: they wait until it is back in the config");
    }
    Ok((relays, inherited))
}

fn start_pipelines(parts: Vec<pipeline::Parts>) -> (BTreeMap<Name, Pipeline>, BTreeMap<Name, host::Consumer>) {
    let (mut pipelines, mut consumers) = (BTreeMap::new(), BTreeMap::new());
    for parts in parts {
        let name = parts.consumer.name.clone();
        let (revision, metrics): (_, metrics::Consumer) = (parts.handler.revision(), parts.metrics.clone());
        let pipeline = parts.start();
        consumers.insert(
            name.clone(),
            host::Consumer {
                revision,
                metrics,
                pipeline: pipeline.handle(),
            },
        );
        pipelines.insert(name, pipeline);
    }
    (pipelines, consumers)
}

async fn serve_ingress(door: ingress::Door, host: &Arc<Host>) -> ingress::Serving {
    let routes = host.plan.ingress.iter().flat_map(|ingress| ingress.routes.values());
    for stream in routes {
        let opening = open(Arc::downgrade(host), stream.clone());
        match stream.place {
            // There is nothing to wait for, and who posts as soon as the address is known must not be sent away.
            Place::Log(_) => opening.await,
            _ => _ = tokio::spawn(opening),
        }
    }
    let doors = host.clone();
    let lookup: ingress::Lookup = Arc::new(move |stream: &Stream| doors.opened(&stream.name));
    door.serve(lookup)
}

/// Opens the publisher of a stream that the ingress writes, however long its broker is away.
async fn open(host: Weak<Host>, stream: Arc<Stream>) {
    let mut pause = Duration::from_millis(100);
    while let Some(host) = host.upgrade() {
        match host.publisher(&stream).await {
            Ok(_) => return,
            Err(error) => {
                warn!(stream = %stream.name, error = %error, "ingress can't write the stream yet: trying again")
            }
        }
        drop(host);
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_secs(5));
    }
}

/// Drops what is too old, every few seconds.
async fn sweep(store: Arc<Store>, plan: Arc<Plan>, ages: Vec<Arc<Ages>>, clock: Clock) {
    let mut ticks = tokio::time::interval(SWEEP);
    loop {
        ticks.tick().await;
        let now = clock.wall();
        // What came after a delivery that is not settled may come again with it, and must be known then.
        let oldest = ages.iter().map(|ages| ages.oldest(clock.now())).max();
        if let Err(error) = store.expire(now, oldest.unwrap_or_default()).await {
            warn!(error = %error, "old records could not be dropped: trying again");
        }
        for stream in plan.streams.values() {
            if let Place::Log(log) = &stream.place
                && let Err(error) = store.trim(&stream.name, log, now).await
            {
                warn!(stream = %stream.name, error = %error, "stream could not be trimmed: trying again");
            }
        }
    }
}
