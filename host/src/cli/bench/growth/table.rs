//! What growing showed, as tables and as JSON.

use std::fmt;

use serde::Serialize;

use super::run::Run;
use super::size::{Dimension, Size};
use crate::cli::bench::latency::Latency;
use crate::cli::bench::report::Spread;

/// All of it.
#[derive(Debug, Serialize)]
pub(in crate::cli::bench) struct Report {
    pub(super) version: &'static str,
    pub(super) cores: usize,
    pub(super) rounds: u8,
    /// How long orders came at a fixed rate in each run.
    pub(super) seconds: u64,
    /// One write of 4 KiB through to the disk: the median, in milliseconds.
    pub(super) fsync_ms: f64,
    pub(super) tables: Vec<Table>,
}

/// One dimension.
#[derive(Debug, Serialize)]
pub(super) struct Table {
    pub(super) dimension: Dimension,
    pub(super) lines: Vec<Line>,
}

/// One size over all rounds. An event is an order for one consumer.
#[derive(Debug, Serialize)]
pub(super) struct Line {
    /// How much of what grows; of data, in bytes.
    size: u32,
    #[serde(skip)]
    label: String,
    /// Events worked off in a run at full speed.
    events: u64,
    per_second: Spread,
    /// Events per second to those of the smallest size in the same round.
    ratio: Spread,
    cpu_us: Spread,
    server_cpu_us: Spread,
    /// At which latency was measured, in orders per second.
    rate: u32,
    p50_ms: Spread,
    p99_ms: Spread,
    memory_mib: Spread,
}

impl Line {
    /// Of the runs of one size, and those of the smallest in the same rounds.
    pub(super) fn of(size: &Size, runs: &[Run], smallest: &[Run]) -> Self {
        let each = |figure: &dyn Fn(&Run) -> f64| Spread::of(runs.iter().map(figure));
        let latency = |figure: fn(&Latency) -> f64| each(&|run| figure(&run.latency));
        let rounds = runs.iter().zip(smallest);
        #[expect(clippy::cast_precision_loss, reason = "bytes of memory")]
        let mib = |run: &Run| run.throughput.memory as f64 / f64::from(1 << 20);
        Self {
            size: size.figure,
            label: size.label.clone(),
            events: u64::from(size.events) * u64::from(size.setup.consumers),
            per_second: each(&|run| run.throughput.per_second),
            ratio: Spread::of(rounds.map(|(run, least)| run.throughput.per_second / least.throughput.per_second)),
            cpu_us: each(&|run| run.throughput.cpu_us),
            server_cpu_us: each(&|run| run.throughput.server_cpu_us),
            rate: size.rate,
            p50_ms: latency(|latency| latency.p50),
            p99_ms: latency(|latency| latency.p99),
            memory_mib: each(&mib),
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "tidegate {} on {} cores, {} rounds; one fsync takes {:.2} ms. Each size by itself; all else is 1,000 keys, one consumer, \
             256 bytes, the default concurrency and nothing remembered. Latency: {} s at the rate beside it",
            self.version, self.cores, self.rounds, self.fsync_ms, self.seconds
        )?;
        for table in &self.tables {
            write!(f, "\n\n{table}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "| {} | events | events/s: median (min - max) | to the smallest | CPU us per event: host + server | orders/s | p50 ms | \
             p99 ms | MiB |\n| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
            self.dimension.title()
        )?;
        for line in &self.lines {
            write!(f, "\n{line}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (per_second, ratio) = (self.per_second, self.ratio);
        write!(
            f,
            "| {} | {} | {:.0} ({:.0} - {:.0}) | {:.2} ({:.2} - {:.2}) | {:.1} + {:.1} | {} | {:.1} | {:.1} | {:.0} |",
            self.label,
            self.events,
            per_second.median,
            per_second.min,
            per_second.max,
            ratio.median,
            ratio.min,
            ratio.max,
            self.cpu_us.median,
            self.server_cpu_us.median,
            self.rate,
            self.p50_ms.median,
            self.p99_ms.median,
            self.memory_mib.max,
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::bench::throughput;

    fn run(per_second: f64) -> Run {
        Run {
            throughput: throughput::Run {
                per_second,
                cpu_us: 40.0,
                server_cpu_us: 20.0,
                memory: 1 << 20,
                allocations: None,
            },
            latency: Latency {
                p50: 1.0,
                p99: 2.0,
                p999: 3.0,
            },
        }
    }

    #[test]
    fn a_ratio_is_to_the_smallest_in_the_same_round() {
        let sizes = Dimension::Consumers.sizes(50_000, &[]);
        let line = Line::of(&sizes[1], &[run(5.0), run(30.0)], &[run(10.0), run(20.0)]);
        let Spread { median, min, max } = line.ratio;
        assert_eq!((median, min, max), (1.0, 0.5, 1.5));
        // Each of 8 consumers has each order.
        assert_eq!(line.events, 50_000);
    }

    #[test]
    fn a_table_says_what_grew_and_at_which_rate() {
        let sizes = Dimension::Payload.sizes(50_000, &[]);
        let runs = [run(10.0)];
        let table = Table {
            dimension: Dimension::Payload,
            lines: vec![Line::of(&sizes[3], &runs, &runs)],
        };
        let text = table.to_string();
        let rows: Vec<&str> = text.lines().collect();
        assert!(rows[0].starts_with("| data of an event | events |"), "{text}");
        assert_eq!(
            rows[2],
            "| 1023 KiB | 500 | 10 (10 - 10) | 1.00 (1.00 - 1.00) | 40.0 + 20.0 | 20 | 1.0 | 2.0 | 1 |"
        );
        // The rule has as many columns as the head and the rows.
        assert!(rows.iter().all(|row| row.matches('|').count() == 10), "{text}");
    }
}
