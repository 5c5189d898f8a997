//! How fast a contender works off a stream that is full already, and what that costs.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use serde::Deserialize;
use tokio::time::MissedTickBehavior;

use super::contender::{Contender, Kind, Place};
use super::{Bench, stream, watch};
use crate::broker::{self, Broker, nats};
use crate::cli::client::Client;
use crate::clock::Clock;
use crate::plan::{BrokerKind, LedgerPlace, Name, Plan};
use crate::store::{Settings, Store};

/// How often a contender is looked at.
const LOOK: Duration = Duration::from_millis(50);
/// What is measured lasts at least so long: the CPU of processes is known in steps of 10 ms.
const MEASURED_MIN: Duration = Duration::from_millis(200);
/// One that makes no progress for so long is stuck.
const STUCK: Duration = Duration::from_secs(30);
/// Measuring begins after the first of so many parts of the orders: the start of a process is measured elsewhere.
const WARM: u64 = 10;

/// What one run showed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Run {
    pub(super) per_second: f64,
    /// CPU of the contender per order, in microseconds.
    pub(super) cpu_us: f64,
    /// CPU of the NATS server per order, in microseconds; 0 where it has no part.
    pub(super) server_cpu_us: f64,
    /// The most resident memory seen, in bytes.
    pub(super) memory: u64,
    /// Allocations of the contender per order, those of its start and end included, if it counts them.
    pub(super) allocations: Option<f64>,
}

/// One look at a contender.
#[derive(Clone, Copy)]
struct Look {
    at: tokio::time::Instant,
    done: u64,
    contender: watch::Usage,
    server: watch::Usage,
}

/// Lets one contender work off all orders, and checks what it wrote.
#[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
///
/// # Errors
/// It is stuck, has ended, or is wrong.
pub(super) async fn run(bench: &Bench, kind: Kind, number: usize) -> anyhow::Result<Run> {
    let place = Place::prepare(bench, kind, "orders", number)?;
    let plan = place.plan()?;
    let before = Broking::open(&plan, &bench.clock).await?;
    if kind == Kind::Embedded {
        let orders = stream(&plan, &place.orders)?;
        let publisher = before.broker.publisher(orders.clone()).await?;
        bench.orders.fill(publisher.as_ref(), &orders, bench.events).await?;
    }
    // Creates the stream: the peer expects that there is one.
    let invoices = stream(&plan, &place.invoices)?;
    before.broker.publisher(invoices.clone()).await?;
    before.close().await?;

    let mut contender = Contender::start(&place, &bench.server.url, &bench.built)?;
    let watched = watch_it(bench, &place, &plan, &mut contender).await?;
    let run = Run {
        allocations: contender.stop().await?.map(|all| all as f64 / f64::from(bench.events)),
        ..watched
    };

    let after = Broking::open(&plan, &bench.clock).await?;
    let written = after.written(bench, &invoices.name).await?;
    ensure!(
        written == u64::from(bench.events),
        "{} orders became {written} invoices",
        bench.events
    );
    let checked = bench
        .orders
        .check(after.broker.as_ref(), &invoices, bench.events, kind.order());
    checked.await?;
    after.close().await?;
    place.remove();
    Ok(run)
}

/// Looks at a contender until it has worked off all orders.
///
/// # Errors
/// It is stuck, has ended, or is too quick to be measured.
pub(super) async fn watch_it(
    bench: &Bench,
    place: &Place,
    plan: &Plan,
    contender: &mut Contender,
) -> anyhow::Result<Run> {
    let all = u64::from(bench.events) * u64::from(bench.setup.consumers);
    let warm = all / WARM;
    let (mut first, mut last, mut memory) = (None, None, 0);
    let mut moved = (0, bench.clock.now());
    let mut pause = tokio::time::interval(LOOK);
    // On a busy machine, looks that are late are not made up for at once.
    pause.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        pause.tick().await;
        contender.expect_running()?;
        let done = done(bench, place, plan).await?;
        let [contender, server] = watch::usage([contender.pid, bench.server.pid])?;
        let at = bench.clock.now();
        memory = memory.max(contender.memory);
        let look = Look {
            at,
            done,
            contender,
            server,
        };
        if done >= all {
            break;
        }
        if done > warm {
            first = first.or(Some(look));
            last = Some(look);
        }
        if done != moved.0 {
            moved = (done, at);
        }
        if at - moved.1 > STUCK {
            bail!(
                "{}: {done} of {all} orders done, and nothing has moved for {} s",
                place.kind.name(),
                STUCK.as_secs()
            );
        }
    }
    let (Some(first), Some(last)) = (first, last) else {
        bail!("the orders were worked off before two looks: take more with --events");
    };
    ensure!(
        last.done > first.done && last.at - first.at >= MEASURED_MIN,
        "the orders were worked off too soon to be measured: take more with --events"
    );
    Ok(between(first, last, memory, place.kind))
}

#[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
fn between(first: Look, last: Look, memory: u64, kind: Kind) -> Run {
    let done = (last.done - first.done) as f64;
    let cpu = |first: watch::Usage, last: watch::Usage| (last.cpu_ms - first.cpu_ms) as f64 * 1_000.0 / done;
    Run {
        per_second: done / (last.at - first.at).as_secs_f64(),
        cpu_us: cpu(first.contender, last.contender),
        server_cpu_us: if kind == Kind::Embedded {
            0.0
        } else {
            cpu(first.server, last.server)
        },
        memory,
        allocations: None,
    }
}

/// How many invoices there are: by the server, or where it has no part by the host's own count.
async fn done(bench: &Bench, place: &Place, plan: &Plan) -> anyhow::Result<u64> {
    #[derive(Deserialize)]
    struct Consumer {
        counts: Counts,
    }
    #[derive(Deserialize)]
    struct Counts {
        committed: u64,
    }
    if place.kind != Kind::Embedded {
        return bench.server.messages(&place.written()).await;
    }
    let Some(client) = Client::find(&plan.admin).await? else {
        return Ok(0);
    };
    let consumers: Vec<Consumer> = client.get("/api/v1/consumers", &[]).await?;
    Ok(consumers.iter().map(|consumer| consumer.counts.committed).sum())
}

/// The broker of a contender, while the contender does not run.
struct Broking {
    broker: Arc<dyn Broker>,
    /// Where the broker is an embedded one.
    store: Option<Arc<Store>>,
}

impl Broking {
    async fn open(plan: &Plan, clock: &Clock) -> anyhow::Result<Self> {
        let main = plan
            .brokers
            .get(&Name::new("main")?)
            .context("the config has no broker main")?;
        if !matches!(main.kind, BrokerKind::Embedded) {
            let broker = nats::connect(main, clock.clone()).await?;
            return Ok(Self { broker, store: None });
        }
        let LedgerPlace::Embedded(path) = &plan.ledger.place;
        let settings = Settings {
            path: path.clone(),
            retention: plan.ledger.retention,
            fsync: plan.ledger.fsync,
        };
        let clock_of_store = clock.clone();
        let store = tokio::task::spawn_blocking(|| Store::open(settings, clock_of_store)).await??;
        Ok(Self {
            broker: broker::embedded::open(store.clone(), main, clock.clone()),
            store: Some(store),
        })
    }

    /// How many messages a stream holds.
    async fn written(&self, bench: &Bench, stream: &Name) -> anyhow::Result<u64> {
        let Some(store) = &self.store else {
            return bench.server.messages(&[stream.as_str().to_owned()]).await;
        };
        let logs = store.logs()?;
        let found = logs.iter().find(|log| log.stream == *stream);
        Ok(found.map_or(0, |log| log.length))
    }

    async fn close(self) -> anyhow::Result<()> {
        drop(self.broker);
        if let Some(store) = self.store {
            store.close().await?;
        }
        Ok(())
    }
}
