//! What `host/fuzz` reaches here: the whole API, without a socket, before a host whose broker, ledger and dead letters are those of its tests.

use std::collections::{BTreeMap, HashMap};
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex};

use axum::Router;
use tokio::sync::{broadcast, watch};

use self::fakes::{FakeBroker, FakeHandler, FakeLedger, FakeLetters};
use super::guard::Guard;
use super::{Api, router};
use crate::app::{Host, host};
use crate::clock::{Clock, Timestamp};
use crate::metrics::Metrics;
use crate::pipeline::ages::Ages;
use crate::pipeline::unconfirmed::Inherited;
use crate::pipeline::{self, Pipeline};
use crate::plan::{Plan, Secret};

#[path = "tests/fakes.rs"]
#[expect(dead_code, reason = "the tests use more of them")]
mod fakes;

/// The API, and what must live as long.
pub struct Served {
    /// It answers requests.
    pub router: Router,
    letters: Arc<FakeLetters>,
    _pipelines: Vec<Pipeline>,
    _stopping: watch::Sender<bool>,
}

impl Served {
    /// How many dead letters there are.
    #[must_use]
    pub fn letters(&self) -> usize {
        self.letters.all().len()
    }

    /// Adds dead letters until there are as many as in the beginning.
    pub fn refill(&self) {
        let known = self.letters.all();
        let absent = (1..=3)
            .map(fakes::letter)
            .filter(|letter| known.iter().all(|known| known.id != letter.id));
        self.letters.add(absent);
    }
}

/// A host of this plan and three dead letters, within a runtime. Without a token, it is asked as a local one.
#[must_use]
pub fn api(plan: Plan, token: Option<&str>) -> Served {
    let plan = Arc::new(plan);
    let (broker, ledger) = (Arc::new(FakeBroker::default()), Arc::new(FakeLedger::default()));
    let letters = Arc::new(FakeLetters::default());
    let (feed, _) = broadcast::channel(8);
    let metrics = Metrics::new();
    let (mut consumers, mut pipelines) = (BTreeMap::new(), Vec::new());
    for (name, consumer) in &plan.consumers {
        let counted = metrics.consumer(name);
        let parts = pipeline::Parts {
            consumer: consumer.clone(),
            broker: broker.clone(),
            handler: Arc::new(FakeHandler),
            ledger: ledger.clone(),
            parking: ledger.clone(),
            relays: HashMap::new(),
            inherited: Inherited::default(),
            ages: Arc::new(Ages::since(Clock::system().now())),
            quarantine: Arc::default(),
            workers: NonZeroUsize::MIN,
            metrics: counted.clone(),
            feed: feed.clone(),
            clock: Clock::seeded(Timestamp(1_790_000_000_000), 1),
        };
        let pipeline = parts.start();
        let consumer = host::Consumer {
            revision: "sha256:abc".into(),
            metrics: counted,
            pipeline: pipeline.handle(),
        };
        consumers.insert(name.clone(), consumer);
        pipelines.push(pipeline);
    }
    let host = Host {
        brokers: plan
            .brokers
            .keys()
            .map(|name| (name.clone(), broker.clone() as _))
            .collect(),
        metrics,
        consumers,
        relays: HashMap::new(),
        ledger,
        dead_letters: letters.clone(),
        publishers: Mutex::default(),
        feed,
        plan: plan.clone(),
    };
    let (stopping, stopped) = watch::channel(false);
    let guard = Guard::new(token.map(|token| Secret::new(token.to_owned())), plan.admin.listen);
    let served = Served {
        router: router(Api::new(Arc::new(host), stopped), guard),
        letters,
        _pipelines: pipelines,
        _stopping: stopping,
    };
    served.refill();
    served
}
