//! `tidegate bench --grow`: what an event costs the host as one thing grows, with all else as it is by default.
//!
//! The sizes of a dimension take turns, round by round. Each run has a server, a ledger and a host of its own, so that no size inherits
//! anything of another. What was written is read back and checked, as in every benchmark.

mod ledgers;
mod run;
mod size;
mod table;

use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use clap::ValueEnum;

use self::ledgers::Ledgers;
use self::size::{Dimension, Size};
pub(super) use self::table::Report;
use self::table::{Line, Table};
use super::contender::Built;
use super::server::Server;
use super::{Bench, Progress, fsync};
use crate::clock::Clock;

/// Orders of a run whose events are cheap.
const EVENTS: u32 = 50_000;
const ROUNDS: u8 = 3;
/// How long orders come at a fixed rate in each run, in seconds.
const SECONDS: u16 = 3;

/// Arguments of `tidegate bench --grow`.
#[derive(Debug, clap::Args)]
#[group(id = "growth")]
pub(super) struct Args {
    /// Measures the host alone as one thing grows, instead of the contenders.
    #[arg(long, value_name = "WHAT", value_delimiter = ',', conflicts_with = "rates")]
    pub(super) grow: Vec<Asked>,
    /// With --grow: how many ids the ledger remembers; each ten million take a minute or two and 0.3 GB.
    #[arg(long, value_delimiter = ',', default_value = "0,10000000", requires = "grow",
          value_parser = clap::value_parser!(u32).range(0..=1_000_000_000))]
    ids: Vec<u32>,
}

/// What may be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    All,
    One(Dimension),
}

impl ValueEnum for Asked {
    fn value_variants<'a>() -> &'a [Self] {
        &[
            Self::All,
            Self::One(Dimension::Ids),
            Self::One(Dimension::Keys),
            Self::One(Dimension::Consumers),
            Self::One(Dimension::Payload),
            Self::One(Dimension::InFlight),
        ]
    }

    fn to_possible_value(&self) -> Option<clap::builder::PossibleValue> {
        Some(match self {
            Self::All => "all".into(),
            Self::One(dimension) => dimension.name().into(),
        })
    }
}

/// Lets the host work with each size.
///
/// # Errors
/// A host is stuck or wrong, or the disk is full.
pub(super) async fn run(args: &super::Args, repository: &Path, built: &Built, folder: &Path) -> anyhow::Result<Report> {
    let rounds = args.rounds.unwrap_or(ROUNDS);
    let dimensions = asked(&args.growth.grow);
    let sizes: Vec<Vec<Size>> = dimensions
        .iter()
        .map(|dimension| dimension.sizes(args.events.unwrap_or(EVENTS), &args.growth.ids))
        .collect();
    let mut growth = Growth {
        repository,
        built,
        folder,
        clock: Clock::system(),
        paced: Duration::from_secs(args.seconds.unwrap_or(SECONDS).into()),
        ledgers: Ledgers::new(folder),
        progress: Progress::new(sizes.iter().map(Vec::len).sum::<usize>() * usize::from(rounds)),
    };
    let fsync_ms = fsync(folder, &growth.clock)?;
    let mut tables = Vec::new();
    for (dimension, sizes) in dimensions.into_iter().zip(&sizes) {
        let lines = growth.turns(dimension, sizes, rounds).await?;
        tables.push(Table { dimension, lines });
    }
    growth.progress.end();
    Ok(Report {
        version: env!("CARGO_PKG_VERSION"),
        cores: std::thread::available_parallelism()?.get(),
        rounds,
        seconds: growth.paced.as_secs(),
        fsync_ms,
        tables,
    })
}

/// The dimensions asked for, each once and in their order.
fn asked(asked: &[Asked]) -> Vec<Dimension> {
    let is_asked = |dimension: &Dimension| asked.contains(&Asked::All) || asked.contains(&Asked::One(*dimension));
    Dimension::ALL.into_iter().filter(is_asked).collect()
}

/// What every run needs.
struct Growth<'a> {
    repository: &'a Path,
    built: &'a Built,
    folder: &'a Path,
    clock: Clock,
    paced: Duration,
    ledgers: Ledgers,
    progress: Progress,
}

impl Growth<'_> {
    /// Every size in its turn, round by round.
    async fn turns(&mut self, dimension: Dimension, sizes: &[Size], rounds: u8) -> anyhow::Result<Vec<Line>> {
        let mut runs: Vec<_> = sizes.iter().map(|_| Vec::new()).collect();
        for round in 1..=rounds {
            for (size, runs) in sizes.iter().zip(&mut runs) {
                let name = format!("{}: {}", dimension.title(), size.label);
                self.progress.step(&name);
                let run = self.run(size).await;
                runs.push(run.with_context(|| format!("{name}, in round {round}"))?);
            }
        }
        let smallest = runs.first().cloned().unwrap_or_default();
        let lines = sizes.iter().zip(&runs);
        Ok(lines.map(|(size, runs)| Line::of(size, runs, &smallest)).collect())
    }

    async fn run(&mut self, size: &Size) -> anyhow::Result<run::Run> {
        let folder = tempfile::Builder::new().prefix("run-").tempdir_in(self.folder)?;
        let bench = Bench {
            built: self.built.clone(),
            server: Server::start(self.repository, folder.path().join("nats")).await?,
            clock: self.clock.clone(),
            events: size.events,
            orders: size.orders,
            setup: size.setup,
            paced: self.paced,
            folder,
        };
        run::run(&bench, size, &mut self.ledgers).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_for_twice_is_measured_once() {
        let ids = Asked::One(Dimension::Ids);
        assert_eq!(
            asked(&[Asked::One(Dimension::Keys), ids, ids]),
            [Dimension::Ids, Dimension::Keys]
        );
        assert_eq!(asked(&[ids, Asked::All]), Dimension::ALL);
        assert_eq!(asked(&[]), []);
    }

    #[test]
    fn every_dimension_can_be_asked_for() {
        let all = Asked::value_variants();
        assert_eq!(all.len(), 1 + Dimension::ALL.len());
        for dimension in Dimension::ALL {
            assert_eq!(Asked::from_str(dimension.name(), false), Ok(Asked::One(dimension)));
        }
    }
}
