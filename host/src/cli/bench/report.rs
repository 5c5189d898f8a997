//! What a benchmark showed, as a table and as JSON.

use std::fmt;

use serde::Serialize;

use super::contender::Kind;
use super::latency::Latency;
use super::start::Start;
use super::throughput::Run;
use super::watch;

/// All of it. `ratio` is the one figure to watch.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    /// Events per second of the full pipeline to those of the peer: the median of the rounds.
    pub(super) ratio: f64,
    /// Events per second of the full pipeline to those of Benthos, if that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) to_benthos: Option<Spread>,
    pub(super) version: &'static str,
    pub(super) cores: usize,
    pub(super) events: u32,
    pub(super) rounds: usize,
    /// One write of 4 KiB through to the disk: the median, in milliseconds.
    pub(super) fsync_ms: f64,
    /// A host with ten consumers, their plugin compiled already.
    #[serde(flatten)]
    pub(super) start: Start,
    pub(super) throughput: Vec<Throughput>,
    pub(super) latency: Vec<Paced>,
}

/// One contender over all rounds.
#[derive(Debug, Serialize)]
pub(super) struct Throughput {
    pub(super) contender: Kind,
    pub(super) per_second: Spread,
    /// To the peer in the same round.
    pub(super) ratio: Spread,
    pub(super) cpu_us: Spread,
    pub(super) server_cpu_us: Spread,
    /// CPU per event of peer and server to that of the contender and server, in the same round: more is cheaper.
    pub(super) cpu_ratio: Spread,
    pub(super) memory_mib: Spread,
    /// Allocations per event, of hosts: the allocator of other contenders does not count.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) allocations: Option<Spread>,
}

/// One contender at one rate: medians of the rounds, in milliseconds.
#[derive(Debug, Serialize)]
pub(super) struct Paced {
    pub(super) contender: Kind,
    pub(super) rate: u32,
    #[serde(flatten)]
    pub(super) latency: Latency,
}

/// One figure over all rounds.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct Spread {
    pub(super) median: f64,
    pub(super) min: f64,
    pub(super) max: f64,
}

impl Spread {
    /// Of figures, of which there is at least one.
    pub(super) fn of(figures: impl IntoIterator<Item = f64>) -> Self {
        let mut figures: Vec<f64> = figures.into_iter().collect();
        figures.sort_by(f64::total_cmp);
        let at = |index: usize| figures.get(index).copied().unwrap_or(f64::NAN);
        Self {
            median: f64::midpoint(at((figures.len().max(1) - 1) / 2), at(figures.len() / 2)),
            min: at(0),
            max: at(figures.len().max(1) - 1),
        }
    }
}

/// A contender's runs, round by round.
pub(super) type Runs = (Kind, Vec<Run>);

/// Events per second of one contender to those of another in the same round, if both were measured.
pub(super) fn ratio(runs: &[Runs], of: Kind, to: Kind) -> Option<Spread> {
    let runs = |kind| runs.iter().find(|(found, _)| *found == kind).map(|(_, runs)| runs);
    let rounds = runs(of)?.iter().zip(runs(to)?);
    Some(Spread::of(rounds.map(|(of, to)| of.per_second / to.per_second)))
}

impl Throughput {
    /// A line for each contender, the peer being the first.
    pub(super) fn all(runs: &[Runs]) -> Vec<Self> {
        let peers = runs.first().map_or(&[][..], |(_, peers)| peers);
        runs.iter().map(|(kind, runs)| Self::of(*kind, runs, peers)).collect()
    }

    /// Of a contender's runs and the peer's in the same rounds.
    fn of(contender: Kind, runs: &[Run], peers: &[Run]) -> Self {
        let total = |run: &Run| run.cpu_us + run.server_cpu_us;
        let beside =
            |ratio: &dyn Fn(&Run, &Run) -> f64| Spread::of(runs.iter().zip(peers).map(|(run, peer)| ratio(run, peer)));
        let counted = runs.iter().any(|run| run.allocations.is_some());
        Self {
            contender,
            per_second: Spread::of(runs.iter().map(|run| run.per_second)),
            ratio: beside(&|run, peer| run.per_second / peer.per_second),
            cpu_us: Spread::of(runs.iter().map(|run| run.cpu_us)),
            server_cpu_us: Spread::of(runs.iter().map(|run| run.server_cpu_us)),
            cpu_ratio: beside(&|run, peer| total(peer) / total(run)),
            memory_mib: Spread::of(runs.iter().map(|run| watch::mib(run.memory))),
            allocations: counted.then(|| Spread::of(runs.iter().filter_map(|run| run.allocations))),
        }
    }
}

impl Paced {
    /// The medians of several rounds.
    pub(super) fn of(contender: Kind, rate: u32, rounds: &[Latency]) -> Self {
        let median = |each: fn(&Latency) -> f64| Spread::of(rounds.iter().map(each)).median;
        let latency = Latency {
            p50: median(|round| round.p50),
            p99: median(|round| round.p99),
            p999: median(|round| round.p999),
        };
        Self {
            contender,
            rate,
            latency,
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "tidegate {} on {} cores: {} orders of about 256 bytes, each to one invoice, {} rounds; one fsync takes {:.2} ms\n",
            self.version, self.cores, self.events, self.rounds, self.fsync_ms
        )?;
        writeln!(
            f,
            "| | events/s: median (min - max) | to handwritten | CPU us per event: own + server | CPU, to handwritten | MiB | allocations per event |"
        )?;
        writeln!(f, "| --- | --- | --- | --- | --- | --- | --- |")?;
        for line in &self.throughput {
            writeln!(f, "{line}")?;
        }
        if !self.latency.is_empty() {
            writeln!(
                f,
                "\n| | orders/s | p50 ms | p99 ms | p99.9 ms |\n| --- | --- | --- | --- | --- |"
            )?;
        }
        for line in &self.latency {
            writeln!(f, "{line}")?;
        }
        writeln!(f, "\n{}", self.start)?;
        write!(f, "full pipeline to handwritten: {:.2}", self.ratio)?;
        if let Some(Spread { median, min, max }) = self.to_benthos {
            write!(f, "\nfull pipeline to benthos: {median:.2} ({min:.2} - {max:.2})")?;
        }
        Ok(())
    }
}

impl fmt::Display for Start {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Spread { median, min, max }, mib) = (self.start_ms, self.start_mib.median);
        write!(
            f,
            "ready {median:.0} ms ({min:.0} - {max:.0}) after its start, with ten consumers and their plugin compiled; {mib:.0} MiB"
        )
    }
}

impl fmt::Display for Throughput {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (rate, ratio, cpu) = (self.per_second, self.ratio, self.cpu_ratio);
        write!(
            f,
            "| {} | {:.0} ({:.0} - {:.0}) | {:.2} ({:.2} - {:.2}) | {:.1} + {:.1} | {:.2} ({:.2} - {:.2}) | {:.0} |",
            self.contender.name(),
            rate.median,
            rate.min,
            rate.max,
            ratio.median,
            ratio.min,
            ratio.max,
            self.cpu_us.median,
            self.server_cpu_us.median,
            cpu.median,
            cpu.min,
            cpu.max,
            self.memory_mib.max,
        )?;
        match self.allocations {
            Some(allocations) => write!(f, " {:.1} |", allocations.median),
            None => write!(f, " |"),
        }
    }
}

impl fmt::Display for Paced {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Latency { p50, p99, p999 } = self.latency;
        let name = self.contender.name();
        write!(f, "| {name} | {} | {p50:.1} | {p99:.1} | {p999:.1} |", self.rate)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(per_second: f64, cpu_us: f64) -> Run {
        Run {
            per_second,
            cpu_us,
            server_cpu_us: 10.0,
            memory: 1 << 20,
            allocations: None,
        }
    }

    #[test]
    fn the_median_of_an_even_number_lies_between() {
        let spread = Spread::of([4.0, 1.0, 2.0, 3.0]);
        assert_eq!((spread.median, spread.min, spread.max), (2.5, 1.0, 4.0));
        assert_eq!(Spread::of([7.0]).median, 7.0);
    }

    #[test]
    fn ratios_are_of_the_same_round() {
        let (runs, peers) = ([run(20.0, 10.0), run(10.0, 10.0)], [run(10.0, 30.0), run(10.0, 10.0)]);
        let throughput = Throughput::of(Kind::Full, &runs, &peers);
        assert_eq!((throughput.ratio.min, throughput.ratio.max), (1.0, 2.0));
        assert_eq!((throughput.cpu_ratio.min, throughput.cpu_ratio.max), (1.0, 2.0));
    }

    #[test]
    fn two_contenders_are_compared_by_round_if_both_were_measured() {
        let runs = [
            (Kind::Full, vec![run(20.0, 10.0), run(30.0, 10.0)]),
            (Kind::Benthos, vec![run(10.0, 10.0), run(10.0, 10.0)]),
        ];
        let compared = ratio(&runs, Kind::Full, Kind::Benthos).unwrap();
        assert_eq!((compared.min, compared.median, compared.max), (2.0, 2.5, 3.0));
        assert!(ratio(&runs[..1], Kind::Full, Kind::Benthos).is_none());
    }
}
