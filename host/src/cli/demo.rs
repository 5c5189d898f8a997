//! `tidegate demo`: the flash sale on the embedded broker, with nothing to install beyond the Rust toolchain.
//!
//! It runs what `tidegate run` runs, on a folder of its own that is removed afterwards, publishes a seeded scenario, waits until
//! every consumer has settled everything, and then looks from outside at what came of it: the output streams, the dead letters and the
//! counters. Whether that is right is for [`verify`], which shares no code with the pipeline.

pub mod latency;
pub mod report;
pub mod scenario;
mod stage;
pub mod verify;

use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use bytes::Bytes;
use indicatif::{ProgressBar, ProgressStyle};

use self::report::{Counted, Report};
use self::scenario::{Content, Scenario};
use self::verify::{Checker, Dead, Rules};
use super::{Global, example, say};
use crate::app::{App, Host, Prepared};
use crate::broker::{Outgoing, Room, Subscription};
use crate::clock::Clock;
use crate::event::codec::{self, Binding};
use crate::ledger::{DeadFilter, DeadLetter};
use crate::plan::{Name, Stream};

/// The folder of the example in the repository.
const EXAMPLE: &str = "examples/flash-sale";
/// The streams that the plugins write, in the order of the sale.
const OUTPUTS: [&str; 4] = ["stock", "payments", "shipments", "notifications"];
/// Events published in one batch.
const BATCH: usize = 500;
/// A demo in which nothing moves for this long is stuck.
const STUCK: Duration = Duration::from_secs(60);

/// Arguments of `tidegate demo`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// How many events are published, duplicates and poison included.
    #[arg(long, default_value_t = 20_000, value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    pub events: u32,
    /// The same seed publishes the same events.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// The folder of the example. Default: `examples/flash-sale` here or above, or where this binary was built.
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
    /// Where the ledger is kept; it must not exist. Default: a temporary folder that is removed.
    #[arg(long, value_name = "DIR")]
    pub keep: Option<PathBuf>,
}

/// Builds the plugins, runs the sale, and says whether it came out right.
///
/// # Errors
/// What is missing, or that the run is wrong.
///
/// # Cancellation
/// Leaves the temporary folder.
pub async fn run(args: &Args, global: &Global) -> anyhow::Result<()> {
    let example = example(args)?;
    example::build_plugins(&example.join("plugins")).await?;
    let data = stage::Data::new(args.keep.as_deref())?;
    let clock = Clock::system();
    let prepared = Prepared::new(stage::plan(&example, data.path())?, clock.clone()).await?;
    let app = prepared.start().await?;

    let mut checker = Checker::new(Rules::default());
    let progress = Progress::new(args.events);
    let began = clock.now();
    publish(&app.host, args, &mut checker, &progress).await?;
    settle(&app, &progress, &clock).await?;
    let seconds = (clock.now() - began).as_secs_f64();
    progress.end();

    look(&app, &mut checker).await?;
    let counted = counted(&app.host);
    let metrics = app.host.metrics.text();
    let latency = [0.5, 0.99].map(|quantile| latency::quantile(&metrics, quantile).unwrap_or_default() * 1_000.0);
    let report = Report::new(counted, &checker.finish(), seconds, latency);
    app.drain().await.close().await;
    drop(data);
    say(&if global.json {
        serde_json::to_string(&report)?
    } else {
        text(args, &report)
    });
    if !report.is_clean() {
        bail!("the sale did not come out as it must");
    }
    Ok(())
}

fn example(args: &Args) -> anyhow::Result<PathBuf> {
    if args.dir.is_some() {
        return example::find(args.dir.as_deref(), stage::CONFIG, "the demo");
    }
    let repository = example::find(None, &format!("{EXAMPLE}/{}", stage::CONFIG), "the demo")?;
    Ok(repository.join(EXAMPLE))
}

fn text(args: &Args, report: &Report) -> String {
    #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
    let rate = report.deliveries as f64 / report.seconds.max(0.001);
    format!("\nFlash sale, seed {}: {rate:.0} deliveries/s\n\n{report}", args.seed)
}

async fn publish(host: &Arc<Host>, args: &Args, checker: &mut Checker, progress: &Progress) -> anyhow::Result<()> {
    let stream = stream(host, "orders")?;
    let publisher = host.publisher(&stream).await?;
    let mut batch = Vec::with_capacity(BATCH);
    let mut scenario = Scenario::new(args.events, args.seed).enumerate().peekable();
    while let Some((number, published)) = scenario.next() {
        checker.published(&published.content);
        let message = match published.content {
            Content::Event(event) => codec::encode(&event, &stream)?,
            Content::Raw(message) => message,
        };
        // Every publication under an id of its own: the duplicates are the scenario's, and must reach the consumers.
        batch.push(Outgoing {
            id: format!("demo-{number}").into(),
            key: Arc::from(&b""[..]),
            message,
        });
        if batch.len() == BATCH || scenario.peek().is_none() {
            let count = batch.len();
            for result in publisher.publish(std::mem::take(&mut batch)).await {
                result?;
            }
            progress.published(count);
        }
    }
    Ok(())
}

/// Waits until every consumer has settled everything that is on its stream, and nothing waits in the ledger.
async fn settle(app: &App, progress: &Progress, clock: &Clock) -> anyhow::Result<()> {
    let (mut before, mut moved) = (u64::MAX, clock.now());
    loop {
        let left = left(app)?;
        progress.left(left);
        if left == 0 {
            return Ok(());
        }
        if left != before {
            (before, moved) = (left, clock.now());
        }
        if clock.now() - moved > STUCK {
            bail!(
                "nothing has moved for {} s and {left} events are left: this is a fault of the host",
                STUCK.as_secs()
            );
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// How many events are not done with: behind each consumer in its stream, or parked.
fn left(app: &App) -> anyhow::Result<u64> {
    let lag: u64 = app
        .store()
        .logs()?
        .iter()
        .flat_map(|log| &log.consumers)
        .map(|cursor| cursor.lag)
        .sum();
    let parked: i64 = app
        .host
        .consumers()
        .iter()
        .map(|consumer| consumer.parked + consumer.in_flight)
        .sum();
    Ok(lag + u64::try_from(parked).unwrap_or_default())
}

/// Shows the checker what an outsider finds.
async fn look(app: &App, checker: &mut Checker) -> anyhow::Result<()> {
    let lengths: BTreeMap<Name, u64> = app
        .store()
        .logs()?
        .into_iter()
        .map(|log| (log.stream, log.length))
        .collect();
    for output in OUTPUTS {
        let stream = stream(&app.host, output)?;
        let length = lengths.get(&stream.name).copied().unwrap_or_default();
        read(&app.host, &stream, length, |event| checker.output(output, &event)).await?;
    }
    let mut after = None;
    loop {
        let shown = |letter: &DeadLetter| Dead {
            consumer: letter.consumer.to_string(),
            reason: letter.reason,
            payload: letter.message.payload.clone(),
        };
        let all = DeadFilter::default();
        let (page, next) = app.host.dead_letters(&all, after, BATCH, shown).await?;
        page.iter().for_each(|dead| checker.dead(dead));
        after = next;
        if after.is_none() {
            break;
        }
    }
    checker.sales(&counters(app).await?);
    Ok(())
}

/// Reads a stream from its beginning, as a consumer of its own.
async fn read(
    host: &Host,
    stream: &Arc<Stream>,
    length: u64,
    mut each: impl FnMut(crate::event::Event),
) -> anyhow::Result<()> {
    let room = Room {
        count: BATCH,
        bytes: 64 << 20,
    };
    let subscription = Subscription {
        consumer: Name::new("demo-check")?,
        stream: stream.clone(),
        room,
    };
    let broker = host.broker(&stream.broker.name).context("the stream has no broker")?;
    let mut subscribed = broker.subscribe(subscription).await?;
    let mut seen = 0;
    while seen < length {
        let deliveries = subscribed.source.next(room).await?;
        seen += deliveries.len() as u64;
        let mut receipts = Vec::with_capacity(deliveries.len());
        for delivery in deliveries {
            each(codec::decode(
                &delivery.message,
                Binding::of(&stream.broker.kind),
                None,
            )?);
            receipts.push((delivery.receipt, crate::broker::Settlement::Done));
        }
        subscribed.settle.settle(receipts).await?;
    }
    Ok(())
}

/// What the analytics counted, by counter.
async fn counters(app: &App) -> anyhow::Result<BTreeMap<String, i64>> {
    let state = app.host.state(&Name::new("analytics")?, "sales").await?;
    let count = |(key, value): (String, Bytes)| Some((key, std::str::from_utf8(&value).ok()?.parse().ok()?));
    Ok(state.into_iter().filter_map(count).collect())
}

fn counted(host: &Host) -> Counted {
    let mut counted = Counted::default();
    for consumer in host.consumers() {
        let counts = consumer.counts;
        counted.committed += counts.committed;
        counted.duplicates += counts.duplicate;
        counted.unwanted += counts.unwanted;
        counted.dead += counts.dead;
        counted.emitted += counts.emitted;
    }
    counted
}

fn stream(host: &Host, name: &str) -> anyhow::Result<Arc<Stream>> {
    host.plan
        .streams
        .get(&Name::new(name)?)
        .cloned()
        .with_context(|| format!("the example has no stream {name}"))
}

/// A bar for people; nothing for programs.
struct Progress(Option<ProgressBar>);

impl Progress {
    fn new(events: u32) -> Self {
        let style = ProgressStyle::with_template("{msg:>10} {bar:40} {pos}/{len} {elapsed}");
        let bar = std::io::stderr().is_terminal().then(|| ProgressBar::new(events.into()));
        if let (Some(bar), Ok(style)) = (&bar, style) {
            bar.set_style(style);
            bar.set_message("publishing");
        }
        Self(bar)
    }

    fn published(&self, count: usize) {
        if let Some(bar) = &self.0 {
            bar.inc(count as u64);
        }
    }

    fn left(&self, left: u64) {
        if let Some(bar) = &self.0 {
            bar.set_message("settling");
            bar.set_length(bar.length().unwrap_or_default().max(left));
            bar.set_position(bar.length().unwrap_or_default() - left);
        }
    }

    fn end(&self) {
        if let Some(bar) = &self.0 {
            bar.finish_and_clear();
        }
    }
}
