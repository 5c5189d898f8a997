//! How long an order takes to become a confirmed invoice that a reader has, when orders come at a fixed rate.
//!
//! Measured from the moment at which an order was meant to be published, so that a publisher that is held up hides nothing.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use hdrhistogram::Histogram;
use serde::Serialize;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::contender::{Contender, Kind, Place};
use super::orders::{self, Checker};
use super::{Bench, stream};
use crate::broker::{self, Publisher, Room, Settle, Settlement, Source, Subscription, nats};
use crate::plan::{Name, Stream};

/// How often due orders are published.
const TICK: Duration = Duration::from_millis(1);
/// What is published before measuring begins, by rate and time.
const WARM: Duration = Duration::from_secs(2);
/// An invoice that does not come within this time never will.
const PATIENCE: Duration = Duration::from_secs(20);
const ROOM: Room = Room {
    count: 1_000,
    bytes: 16 << 20,
};

/// In milliseconds.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct Latency {
    pub(super) p50: f64,
    pub(super) p99: f64,
    pub(super) p999: f64,
}

/// Which order is due when.
#[derive(Clone, Copy)]
struct Schedule {
    start: Instant,
    rate: u32,
    count: u32,
}

impl Schedule {
    fn due(&self, number: u32) -> Instant {
        self.start + Duration::from_secs_f64(f64::from(number) / f64::from(self.rate))
    }

    fn is_warm(&self, number: u32) -> bool {
        f64::from(number) >= WARM.as_secs_f64() * f64::from(self.rate)
    }
}

/// Lets one contender work at one rate.
///
/// # Errors
/// It does not keep up, has ended, or an order has no invoice.
pub(super) async fn run(bench: &Bench, kind: Kind, rate: u32, number: usize) -> anyhow::Result<Latency> {
    let place = Place::prepare(bench, kind, &format!("orders-{number}-{}", kind.name()), number)?;
    let plan = place.plan()?;
    let (from, to) = (stream(&plan, &place.orders)?, stream(&plan, &place.invoices)?);
    let broker = nats::connect(&from.broker, bench.clock.clone()).await?;
    let publisher = broker.publisher(from.clone()).await?;
    let subscription = Subscription {
        consumer: Name::new("bench-latency")?,
        stream: to.clone(),
        room: ROOM,
    };
    let mut subscribed = broker.subscribe(subscription).await?;
    let contender = Contender::start(&place, &bench.server.url, &bench.built)?;
    // The first orders wait for it to start, and are not measured.
    let schedule = Schedule {
        start: bench.clock.now(),
        rate,
        count: rate * u32::try_from((WARM + bench.paced).as_secs())?,
    };
    let publishing = tokio::spawn(publish(publisher, from, schedule));
    let measured = async {
        let mut histogram = Histogram::<u64>::new_with_bounds(1, 60_000_000, 3)?;
        let mut checker = Checker::new(schedule.count, kind.order());
        while checker.seen < schedule.count {
            let numbers = read(subscribed.source.as_mut(), &*subscribed.settle, &mut checker).await?;
            let now = bench.clock.now();
            for number in numbers.into_iter().filter(|number| schedule.is_warm(*number)) {
                let waited = now.saturating_duration_since(schedule.due(number));
                histogram.saturating_record(u64::try_from(waited.as_micros())?);
            }
        }
        anyhow::Ok(histogram)
    };
    let patience = WARM + bench.paced + PATIENCE;
    let histogram = tokio::time::timeout(patience, measured).await;
    let histogram = histogram.with_context(|| format!("{} does not keep up with {rate}/s", kind.name()))??;
    publishing.await??;
    contender.stop().await?;
    place.remove();
    Ok(percentiles(&histogram))
}

async fn read(source: &mut dyn Source, settle: &dyn Settle, checker: &mut Checker) -> anyhow::Result<Vec<u32>> {
    let deliveries = source.next(ROOM).await?;
    let mut numbers = Vec::with_capacity(deliveries.len());
    let mut receipts = Vec::with_capacity(deliveries.len());
    for delivery in deliveries {
        numbers.push(checker.invoice(&delivery.message.payload)?);
        receipts.push((delivery.receipt, Settlement::Done));
    }
    settle.settle(receipts).await?;
    Ok(numbers)
}

/// Publishes each order when it is due, whether or not the earlier ones are confirmed.
async fn publish(publisher: Arc<dyn Publisher>, stream: Arc<Stream>, schedule: Schedule) -> anyhow::Result<()> {
    let mut under_way = JoinSet::new();
    let mut next = 0;
    let mut tick = tokio::time::interval(TICK);
    while next < schedule.count {
        let now = tick.tick().await;
        let mut batch = Vec::new();
        while next < schedule.count && schedule.due(next) <= now {
            batch.push(orders::order(next, &stream)?);
            next += 1;
        }
        if !batch.is_empty() {
            let publisher = Arc::clone(&publisher);
            under_way.spawn(async move { publisher.publish(batch).await });
        }
        while let Some(published) = under_way.try_join_next() {
            all_confirmed(published?)?;
        }
    }
    for published in under_way.join_all().await {
        all_confirmed(published)?;
    }
    Ok(())
}

fn all_confirmed(published: Vec<Result<(), broker::Error>>) -> anyhow::Result<()> {
    for result in published {
        if let Err(error) = result {
            bail!("an order could not be published: {error}");
        }
    }
    Ok(())
}

#[expect(clippy::cast_precision_loss, reason = "microseconds of a minute")]
fn percentiles(histogram: &Histogram<u64>) -> Latency {
    let at = |quantile| histogram.value_at_quantile(quantile) as f64 / 1_000.0;
    Latency {
        p50: at(0.5),
        p99: at(0.99),
        p999: at(0.999),
    }
}
