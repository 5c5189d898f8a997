//! How long an order takes to become a confirmed invoice that a reader has, when orders come at a fixed rate.
//!
//! Measured from the moment at which an order was meant to be published, so that a publisher that is held up hides nothing.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use futures_util::future::try_join_all;
use hdrhistogram::Histogram;
use serde::Serialize;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::contender::{Contender, Kind, Place};
use super::orders::{Checker, Orders};
use super::{Bench, stream};
use crate::broker::{self, Broker, Publisher, Room, Settlement, Subscribed, Subscription, nats};
use crate::clock::Clock;
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
pub(super) struct Schedule {
    /// When the first one is.
    pub(super) start: Instant,
    /// Orders per second.
    pub(super) rate: u32,
    /// The number of the first one.
    pub(super) first: u32,
    /// The number after the last one.
    pub(super) end: u32,
    /// How long orders come before measuring begins.
    pub(super) warm: Duration,
}

impl Schedule {
    fn due(&self, number: u32) -> Instant {
        self.start + Duration::from_secs_f64(f64::from(number - self.first) / f64::from(self.rate))
    }

    fn is_warm(&self, number: u32) -> bool {
        number >= self.first && f64::from(number - self.first) >= self.warm.as_secs_f64() * f64::from(self.rate)
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
    let end = rate * u32::try_from((WARM + bench.paced).as_secs())?;
    let checker = Checker::new(bench.orders, end, kind.order());
    let mut readers = [Reader::open(broker.as_ref(), to, checker).await?];
    let contender = Contender::start(&place, &bench.server.url, &bench.built)?;
    // The first orders wait for it to start, and are not measured.
    let schedule = Schedule {
        start: bench.clock.now(),
        rate,
        first: 0,
        end,
        warm: WARM,
    };
    let latency = measure(bench, publisher, &from, &mut readers, schedule).await;
    let latency = latency.with_context(|| kind.name())?;
    contender.stop().await?;
    place.remove();
    Ok(latency)
}

/// Publishes the orders of a schedule, and takes the time of each of their invoices in each stream.
///
/// # Errors
/// One is wrong, or they do not all come in time.
pub(super) async fn measure(
    bench: &Bench,
    publisher: Arc<dyn Publisher>,
    stream: &Arc<Stream>,
    readers: &mut [Reader],
    schedule: Schedule,
) -> anyhow::Result<Latency> {
    let publishing = tokio::spawn(publish(publisher, Arc::clone(stream), bench.orders, schedule));
    let measured = try_join_all(readers.iter_mut().map(|reader| reader.measure(&bench.clock, schedule)));
    let patience = schedule.due(schedule.end) - schedule.start + PATIENCE;
    let measured = tokio::time::timeout(patience, measured).await;
    let measured = measured.with_context(|| format!("it does not keep up with {}/s", schedule.rate))??;
    publishing.await??;
    let mut all = histogram()?;
    for histogram in measured {
        all.add(histogram)?;
    }
    Ok(percentiles(&all))
}

/// Reads and checks the invoices of one stream.
pub(super) struct Reader {
    subscribed: Subscribed,
    checker: Checker,
}

impl Reader {
    /// Begins with the first invoice.
    ///
    /// # Errors
    /// The broker refuses.
    pub(super) async fn open(broker: &dyn Broker, stream: Arc<Stream>, checker: Checker) -> anyhow::Result<Self> {
        let subscription = Subscription {
            consumer: Name::new("bench-latency")?,
            stream,
            room: ROOM,
        };
        Ok(Self {
            subscribed: broker.subscribe(subscription).await?,
            checker,
        })
    }

    /// Reads until so many orders have their invoice.
    ///
    /// # Errors
    /// One is wrong or missing.
    pub(super) async fn read_upto(&mut self, count: u32) -> anyhow::Result<()> {
        while self.checker.seen < count {
            let numbers = self.read().await?;
            ensure!(
                !numbers.is_empty(),
                "{count} orders became {} invoices",
                self.checker.seen
            );
        }
        Ok(())
    }

    async fn measure(&mut self, clock: &Clock, schedule: Schedule) -> anyhow::Result<Histogram<u64>> {
        let mut histogram = histogram()?;
        while self.checker.seen < schedule.end {
            let numbers = self.read().await?;
            let now = clock.now();
            for number in numbers.into_iter().filter(|number| schedule.is_warm(*number)) {
                let waited = now.saturating_duration_since(schedule.due(number));
                histogram.saturating_record(u64::try_from(waited.as_micros())?);
            }
        }
        Ok(histogram)
    }

    /// The numbers of the orders whose invoices have come.
    async fn read(&mut self) -> anyhow::Result<Vec<u32>> {
        let deliveries = self.subscribed.source.next(ROOM).await?;
        let mut numbers = Vec::with_capacity(deliveries.len());
        let mut receipts = Vec::with_capacity(deliveries.len());
        for delivery in deliveries {
            numbers.push(self.checker.invoice(&delivery.message.payload)?);
            receipts.push((delivery.receipt, Settlement::Done));
        }
        self.subscribed.settle.settle(receipts).await?;
        Ok(numbers)
    }
}

fn histogram() -> anyhow::Result<Histogram<u64>> {
    Ok(Histogram::new_with_bounds(1, 60_000_000, 3)?)
}

/// Publishes each order when it is due, whether or not the earlier ones are confirmed: only those of its own customer must be, or it might
/// overtake them.
async fn publish(
    publisher: Arc<dyn Publisher>,
    stream: Arc<Stream>,
    orders: Orders,
    schedule: Schedule,
) -> anyhow::Result<()> {
    // Batches with the numbers of their first orders, which are not confirmed.
    let mut under_way: VecDeque<(u32, JoinHandle<_>)> = VecDeque::new();
    let mut next = schedule.first;
    let mut tick = tokio::time::interval(TICK);
    while next < schedule.end {
        let now = tick.tick().await;
        while let Some((_, published)) = under_way.pop_front_if(|(_, published)| published.is_finished()) {
            all_confirmed(published.await?)?;
        }
        let first = next;
        let oldest = under_way.front().map_or(u32::MAX, |(first, _)| *first);
        let mut batch = Vec::new();
        while next < schedule.end && schedule.due(next) <= now && orders.may_follow(next, oldest) {
            batch.push(orders.order(next, &stream)?);
            next += 1;
        }
        if !batch.is_empty() {
            let publisher = Arc::clone(&publisher);
            let published = tokio::spawn(async move { publisher.publish(batch).await });
            under_way.push_back((first, published));
        }
    }
    for (_, published) in under_way {
        all_confirmed(published.await?)?;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_are_due_at_their_rate_and_measured_when_it_is_warm() {
        let schedule = Schedule {
            start: Clock::system().now(),
            rate: 10,
            first: 100,
            end: 200,
            warm: Duration::from_secs(2),
        };
        assert_eq!(schedule.due(100), schedule.start);
        assert_eq!(schedule.due(115), schedule.start + Duration::from_millis(1_500));
        // What is below the first one came before.
        assert_eq!(
            [99, 119, 120].map(|number| schedule.is_warm(number)),
            [false, false, true]
        );
    }
}
