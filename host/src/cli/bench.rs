//! `tidegate bench`: the host against a consumer written by hand, on this machine, in one run.
//!
//! Contenders are processes of their own and take turns, round by round, on one NATS server that is started for them. What they wrote is
//! read back and checked: a contender that loses, repeats or reorders an event ends the benchmark.

mod allocations;
mod benthos;
mod contender;
mod growth;
mod latency;
mod orders;
mod report;
mod server;
mod start;
mod throughput;
mod watch;

use std::fmt::Display;
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

use self::benthos::Benthos;
use self::contender::{Built, Kind, Place, Setup};
use self::orders::Orders;
use self::report::{Paced, Report, Runs, Spread, Throughput, ratio};
use self::server::Server;
use super::{Global, complain, example, say};
use crate::broker::nats;
use crate::clock::Clock;
use crate::plan::{Name, Plan, Stream};

/// Orders of a round, rounds and seconds at a rate, where nothing else is asked for.
const EVENTS: u32 = 100_000;
const ROUNDS: u8 = 5;
const SECONDS: u16 = 8;
/// Rounds at each rate.
const PACED_ROUNDS: usize = 3;
/// Writes through to the disk, for the median.
const FSYNCS: usize = 200;

/// Arguments of `tidegate bench`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// How many orders each contender works off in a round. Default: 100000; with --grow 50000, or fewer where they are dear.
    #[arg(long, value_parser = clap::value_parser!(u32).range(10_000..=10_000_000))]
    pub events: Option<u32>,
    /// How many times each contender has its turn. Default: 5, with --grow 3.
    #[arg(long, value_parser = clap::value_parser!(u8).range(1..=100))]
    pub rounds: Option<u8>,
    /// Rates in orders per second at which latency is measured, three times each; "none" leaves it out.
    #[arg(long, value_delimiter = ',', default_value = "1000,3000,10000", value_parser = rate)]
    pub rates: Vec<Option<u32>>,
    /// How long orders come at each rate, in seconds. Default: 8, with --grow 3.
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=3_600))]
    pub seconds: Option<u16>,
    #[command(flatten)]
    growth: growth::Args,
    /// Also lets this contender have its turn: the engine of Redpanda Connect with a record of ids in memory, which needs Go.
    #[arg(long, value_name = "CONTENDER", conflicts_with = "grow")]
    pub with: Option<Extra>,
    /// Measures nothing but the start of a host whose ten consumers have this plugin.
    #[arg(long, value_name = "FILE", conflicts_with = "grow")]
    pub start_with: Option<PathBuf>,
    /// The folder of the repository, which has the contenders. Default: here or above, or where this binary was built.
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
}

/// A contender that is measured only if it is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Extra {
    /// `examples/handwritten/benthos`.
    Benthos,
}

fn rate(text: &str) -> Result<Option<u32>, String> {
    match text.parse() {
        Ok(rate @ 1..=1_000_000) => Ok(Some(rate)),
        _ if text == "none" => Ok(None),
        _ => Err("from 1 to 1000000, or none".to_owned()),
    }
}

/// What every run of a contender needs.
struct Bench {
    built: Built,
    server: Server,
    clock: Clock,
    events: u32,
    orders: Orders,
    setup: Setup,
    /// How long orders come at a fixed rate.
    paced: Duration,
    /// For the contenders' ledgers.
    folder: tempfile::TempDir,
}

/// Builds the contenders, lets them run, and prints what they showed.
///
/// # Errors
/// Something is missing, or a contender is stuck or wrong.
///
/// # Cancellation
/// Leaves its folder of temporary files.
pub async fn run(args: &Args, global: &Global) -> anyhow::Result<()> {
    if let Some(plugin) = &args.start_with {
        return start_with(plugin, global).await;
    }
    let repository = example::find(args.dir.as_deref(), "examples/handwritten/README.md", "the benchmark")?;
    // The contenders' configs name what is in it, and lie elsewhere.
    let repository = std::path::absolute(repository)?;
    if cfg!(debug_assertions) {
        complain("this host is a debug build and the other contender is not: build with --release to compare them");
    }
    let mut built = build(&repository).await?;
    let mut kinds = Kind::USUAL.to_vec();
    if let Some(Extra::Benthos) = args.with {
        built.benthos = Some(Benthos::build(&repository).await?);
        kinds.push(Kind::Benthos);
    }
    let folder = tempfile::Builder::new().prefix("tidegate-bench-").tempdir()?;
    if !args.growth.grow.is_empty() {
        let report = growth::run(args, &repository, &built, folder.path()).await?;
        return print(&report, global);
    }
    let (events, rounds) = (args.events.unwrap_or(EVENTS), args.rounds.unwrap_or(ROUNDS));
    let bench = Bench {
        built,
        server: Server::start(&repository, folder.path().join("nats")).await?,
        clock: Clock::system(),
        events,
        orders: Orders::default(),
        setup: Setup::default(),
        paced: Duration::from_secs(args.seconds.unwrap_or(SECONDS).into()),
        folder,
    };
    let rates: Vec<u32> = args.rates.iter().copied().flatten().collect();
    let progress = Progress::new(kinds.len() * usize::from(rounds) + Kind::PACED.len() * rates.len() * PACED_ROUNDS);
    let runs = full_speed(&bench, &kinds, rounds.into(), &progress).await?;
    let latency = paced(&bench, &rates, &progress).await?;
    let report = Report {
        ratio: ratio(&runs, Kind::Full, Kind::Handwritten)
            .context("the full pipeline was not measured")?
            .median,
        to_benthos: ratio(&runs, Kind::Full, Kind::Benthos),
        version: env!("CARGO_PKG_VERSION"),
        cores: std::thread::available_parallelism()?.get(),
        events,
        rounds: rounds.into(),
        fsync_ms: fsync(bench.folder.path(), &bench.clock)?,
        start: bench.start().await?,
        throughput: Throughput::all(&runs),
        latency,
    };
    progress.end();
    print(&report, global)
}

fn print<R: Serialize + Display>(report: &R, global: &Global) -> anyhow::Result<()> {
    say(&if global.json {
        serde_json::to_string(report)?
    } else {
        report.to_string()
    });
    Ok(())
}

async fn start_with(plugin: &Path, global: &Global) -> anyhow::Result<()> {
    let folder = tempfile::Builder::new().prefix("tidegate-bench-").tempdir()?;
    let plugin = std::path::absolute(plugin)?;
    let start = start::run(&std::env::current_exe()?, &plugin, folder.path(), &Clock::system()).await?;
    say(&if global.json {
        serde_json::to_string(&start)?
    } else {
        start.to_string()
    });
    Ok(())
}

async fn build(repository: &Path) -> anyhow::Result<Built> {
    // Before cargo may put a newer binary in its place.
    let host = std::env::current_exe()?;
    let plugin = repository.join("examples/handwritten/plugin");
    example::build_plugins(&plugin).await?;
    example::build(
        repository,
        "the consumer written by hand",
        &["build", "--quiet", "--release"],
    )
    .await?;
    Ok(Built {
        host,
        peer: repository.join("target/release/handwritten"),
        plugin: plugin.join("target/wasm32-wasip2/release/invoice.wasm"),
        benthos: None,
    })
}

/// Every contender in its turn, round by round.
async fn full_speed(bench: &Bench, kinds: &[Kind], rounds: usize, progress: &Progress) -> anyhow::Result<Vec<Runs>> {
    bench.fill().await?;
    let mut runs: Vec<Runs> = kinds.iter().map(|kind| (*kind, Vec::new())).collect();
    for round in 0..rounds {
        for (kind, runs) in &mut runs {
            progress.step(kind.name());
            let run = throughput::run(bench, *kind, round).await;
            runs.push(run.with_context(|| format!("{} in round {}", kind.name(), round + 1))?);
        }
    }
    Ok(runs)
}

/// Every contender in its turn at each rate, round by round.
async fn paced(bench: &Bench, rates: &[u32], progress: &Progress) -> anyhow::Result<Vec<Paced>> {
    let mut lines = Vec::new();
    for (at, rate) in rates.iter().enumerate() {
        let mut rounds = Kind::PACED.map(|_| Vec::new());
        for round in 0..PACED_ROUNDS {
            for (kind, rounds) in Kind::PACED.into_iter().zip(&mut rounds) {
                progress.step(&format!("{} at {rate}/s", kind.name()));
                // Numbers that no run at full speed has.
                let number = 1_000 + at * PACED_ROUNDS + round;
                rounds.push(latency::run(bench, kind, *rate, number).await?);
            }
        }
        let rounds = Kind::PACED.into_iter().zip(&rounds);
        lines.extend(rounds.map(|(kind, rounds)| Paced::of(kind, *rate, rounds)));
    }
    Ok(lines)
}

impl Bench {
    async fn start(&self) -> anyhow::Result<start::Start> {
        let folder = self.folder.path().join("start");
        start::run(&self.built.host, &self.built.plugin, &folder, &self.clock).await
    }

    /// Fills the stream that all contenders on NATS read.
    async fn fill(&self) -> anyhow::Result<()> {
        let place = Place::prepare(self, Kind::Full, "orders", usize::MAX)?;
        let stream = stream(&place.plan()?, "orders")?;
        let broker = nats::connect(&stream.broker, self.clock.clone()).await?;
        let publisher = broker.publisher(stream.clone()).await?;
        self.orders.fill(publisher.as_ref(), &stream, self.events).await
    }
}

fn stream(plan: &Plan, name: &str) -> anyhow::Result<Arc<Stream>> {
    let stream = plan.streams.get(&Name::new(name)?).cloned();
    stream.with_context(|| format!("the config has no stream {name}"))
}

/// How long one write through to the disk takes where the ledgers are: the median, in milliseconds.
fn fsync(folder: &Path, clock: &Clock) -> anyhow::Result<f64> {
    let mut file = std::fs::File::create(folder.join("fsync"))?;
    let mut took = Vec::with_capacity(FSYNCS);
    for _ in 0..FSYNCS {
        let start = clock.now();
        file.write_all(&[0; 4_096])?;
        file.sync_data()?;
        took.push((clock.now() - start).as_secs_f64() * 1_000.0);
    }
    Ok(Spread::of(took).median)
}

/// A bar for people; nothing for programs.
struct Progress(Option<ProgressBar>);

impl Progress {
    fn new(steps: usize) -> Self {
        let style = ProgressStyle::with_template("{msg:>22} {bar:40} {pos}/{len} {elapsed}");
        let bar = std::io::stderr().is_terminal().then(|| ProgressBar::new(steps as u64));
        if let (Some(bar), Ok(style)) = (&bar, style) {
            bar.set_style(style);
            bar.set_message("filling the stream");
        }
        Self(bar)
    }

    fn step(&self, what: &str) {
        if let Some(bar) = &self.0 {
            bar.set_message(what.to_owned());
            bar.inc(1);
        }
    }

    fn end(&self) {
        if let Some(bar) = &self.0 {
            bar.finish_and_clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_a_number_or_none() {
        assert_eq!(rate("3000"), Ok(Some(3_000)));
        assert_eq!(rate("none"), Ok(None));
        for wrong in ["0", "1000001", "fast", ""] {
            assert!(rate(wrong).is_err(), "{wrong}");
        }
    }
}
