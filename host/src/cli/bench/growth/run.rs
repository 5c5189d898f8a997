//! One run of one size: at full speed, and then, by the same host, at a fixed rate.

use std::time::Duration;

use anyhow::ensure;

use super::ledgers::Ledgers;
use super::size::Size;
use crate::broker::nats;
use crate::cli::bench::contender::{Contender, Kind, Place};
use crate::cli::bench::latency::{self, Latency, Reader, Schedule};
use crate::cli::bench::orders::Checker;
use crate::cli::bench::{Bench, stream, throughput};

/// What is published at the rate before measuring begins. The host is warm; only the reader is not.
const WARM: Duration = Duration::from_millis(500);

/// What one run showed.
#[derive(Clone)]
pub(super) struct Run {
    pub(super) throughput: throughput::Run,
    pub(super) latency: Latency,
}

/// Lets a host work off orders, then orders at a fixed rate, and checks each invoice of both.
///
/// # Errors
/// The host is stuck, has ended, or is wrong.
pub(super) async fn run(bench: &Bench, size: &Size, ledgers: &mut Ledgers) -> anyhow::Result<Run> {
    let place = Place::prepare(bench, Kind::Full, "orders", 0)?;
    let plan = place.plan()?;
    ledgers.place(size.ids, &plan.ledger, &bench.clock).await?;
    let orders = stream(&plan, &place.orders)?;
    let broker = nats::connect(&orders.broker, bench.clock.clone()).await?;
    let publisher = broker.publisher(orders.clone()).await?;
    bench.orders.fill(publisher.as_ref(), &orders, bench.events).await?;
    let paced = f64::from(size.rate) * (WARM + bench.paced).as_secs_f64();
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a million orders a second for an hour"
    )]
    let end = bench.events + paced as u32;
    let mut invoices = Vec::new();
    for name in place.written() {
        let stream = stream(&plan, &name)?;
        // Creates it, so that none is missing when it is counted.
        broker.publisher(stream.clone()).await?;
        invoices.push(stream);
    }

    let mut contender = Contender::start(&place, &bench.server.url, &bench.built)?;
    let throughput = throughput::watch_it(bench, &place, &plan, &mut contender).await?;
    let mut readers = Vec::new();
    for stream in invoices {
        let checker = Checker::new(bench.orders, end, place.kind.order());
        let mut reader = Reader::open(broker.as_ref(), stream, checker).await?;
        reader.read_upto(bench.events).await?;
        readers.push(reader);
    }
    let schedule = Schedule {
        start: bench.clock.now(),
        rate: size.rate,
        first: bench.events,
        end,
        warm: WARM,
    };
    let latency = latency::measure(bench, publisher, &orders, &mut readers, schedule).await?;
    contender.stop().await?;

    // The readers have seen each order's invoice; this is that there are no more.
    let wanted = u64::from(end) * u64::from(size.setup.consumers);
    let written = bench.server.messages(&place.written()).await?;
    ensure!(
        written == wanted,
        "{wanted} invoices were to be written, and there are {written}"
    );
    place.remove();
    Ok(Run { throughput, latency })
}
