//! The last thing a demo says: what went in, what came out, and whether it is right.

use std::fmt;

use serde::Serialize;

use super::verify::Verdict;

/// What the host counted itself. Shown beside what the checker found, and never used by it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counted {
    /// Attempts whose effects were committed.
    pub committed: u64,
    /// Arrivals of what had taken effect already.
    pub duplicates: u64,
    /// Arrivals of a type that their consumer does not take.
    pub unwanted: u64,
    /// Arrivals that became dead letters.
    pub dead: u64,
    /// Events published by the plugins.
    pub emitted: u64,
}

impl Counted {
    /// Arrivals over all consumers: each ends in one of four ways. What is held or parked goes on to one of them.
    fn deliveries(&self) -> u64 {
        self.committed + self.duplicates + self.unwanted + self.dead
    }
}

/// The report. As JSON it is one object.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// What was published on the stream of orders, duplicates and poison included.
    pub events: u64,
    /// Arrivals over all consumers.
    pub deliveries: u64,
    /// Attempts whose effects were committed.
    pub committed: u64,
    /// Arrivals of what had taken effect already.
    pub duplicates: u64,
    /// Arrivals of a type that their consumer does not take.
    pub unwanted: u64,
    /// Dead letters found.
    pub dead: u64,
    /// Events published by the plugins.
    pub emitted: u64,
    /// Effects that must be there and are not.
    pub lost: u64,
    /// Effects that are there more than once.
    pub applied_twice: u64,
    /// Outputs that come after a later one of their key.
    pub out_of_order: u64,
    /// Effects that must not be there.
    pub unexpected: u64,
    /// How long it took.
    pub seconds: f64,
    /// From taking a delivery to settling it, in milliseconds: half of them were quicker. By the host's own histogram.
    pub p50_ms: f64,
    /// As `p50_ms`, 99 of 100.
    pub p99_ms: f64,
    #[serde(skip)]
    reasons: Vec<(String, u64)>,
    #[serde(skip)]
    notes: Vec<String>,
}

impl Report {
    /// Puts together what the host counted and what the checker found.
    #[must_use]
    pub fn new(counted: Counted, verdict: &Verdict, seconds: f64, [p50_ms, p99_ms]: [f64; 2]) -> Self {
        Self {
            events: verdict.events,
            deliveries: counted.deliveries(),
            committed: counted.committed,
            duplicates: counted.duplicates,
            unwanted: counted.unwanted,
            dead: verdict.dead.values().sum(),
            emitted: counted.emitted,
            lost: verdict.lost,
            applied_twice: verdict.applied_twice,
            out_of_order: verdict.out_of_order,
            unexpected: verdict.unexpected,
            seconds,
            p50_ms,
            p99_ms,
            reasons: verdict
                .dead
                .iter()
                .map(|(reason, count)| (reason.to_string(), *count))
                .collect(),
            notes: verdict.notes.clone(),
        }
    }

    /// Whether everything came out as it must.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.lost + self.applied_twice + self.out_of_order + self.unexpected == 0
    }
}

/// For people.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let line = |f: &mut fmt::Formatter<'_>, name: &str, count: u64, text: &str| {
            let line = format!("  {name:<22}{:>12}   {text}", grouped(count));
            writeln!(f, "{}", line.trim_end())
        };
        line(f, "events", self.events, "published, duplicates and poison included")?;
        line(f, "deliveries", self.deliveries, "arrivals at all consumers")?;
        line(f, "committed", self.committed, "took effect")?;
        line(f, "duplicates", self.duplicates, "had taken effect already")?;
        line(
            f,
            "unwanted",
            self.unwanted,
            "of a type that their consumer does not take",
        )?;
        line(f, "dead letters", self.dead, "")?;
        for (reason, count) in &self.reasons {
            line(f, &format!("  {reason}"), *count, "")?;
        }
        line(f, "emitted", self.emitted, "published by the plugins")?;
        writeln!(f)?;
        line(f, "lost", self.lost, "")?;
        line(f, "applied twice", self.applied_twice, "")?;
        line(f, "out of order", self.out_of_order, "")?;
        line(f, "unexpected", self.unexpected, "")?;
        writeln!(f, "  {:<22}{:>12.1}", "seconds", self.seconds)?;
        writeln!(
            f,
            "  {:<22}{:>12.1}   from taking to settling, half of the deliveries",
            "p50 ms", self.p50_ms
        )?;
        writeln!(f, "  {:<22}{:>12.1}   99 of 100", "p99 ms", self.p99_ms)?;
        for note in &self.notes {
            writeln!(f, "  ! {note}")?;
        }
        let verdict = if self.is_clean() {
            "Each event took effect once, in order, or is a dead letter."
        } else {
            "This run is wrong."
        };
        write!(f, "\n{verdict}")
    }
}

/// `1234567` as `1,234,567`.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outcome::Reason;

    fn report(lost: u64) -> Report {
        let mut verdict = Verdict {
            events: 1_234_567,
            lost,
            ..Verdict::default()
        };
        verdict.dead.insert(Reason::Trap, 7);
        verdict.dead.insert(Reason::Undecodable, 5);
        let counted = Counted {
            committed: 1_000,
            duplicates: 100,
            unwanted: 20,
            dead: 12,
            emitted: 900,
        };
        Report::new(counted, &verdict, 12.34, [1.5, 9.0])
    }

    #[test]
    fn json_has_every_field() {
        let json = serde_json::to_value(report(0)).unwrap();

        assert_eq!(
            json,
            serde_json::json!({
                "events": 1_234_567, "deliveries": 1_132, "committed": 1_000, "duplicates": 100, "unwanted": 20, "dead": 12,
                "emitted": 900,
                "lost": 0, "applied_twice": 0, "out_of_order": 0, "unexpected": 0, "seconds": 12.34, "p50_ms": 1.5, "p99_ms": 9.0,
            })
        );
    }

    #[test]
    fn people_are_told_whether_it_is_right() {
        let text = report(0).to_string();
        assert!(
            text.contains("  events                   1,234,567   published"),
            "{text}"
        );
        assert!(
            text.lines()
                .any(|line| line.split_whitespace().eq(["undecodable", "5"])),
            "{text}"
        );
        assert!(text.ends_with("or is a dead letter."));
        assert!(report(1).to_string().ends_with("This run is wrong."));
    }

    /// Whoever adds the lines up must not find that some arrivals are missing.
    #[test]
    fn every_delivery_is_in_one_of_the_lines_below_it() {
        let text = report(0).to_string();
        let number = |name: &str| {
            let line = text.lines().find(|line| line.trim_start().starts_with(name)).unwrap();
            let rest = line.trim_start().strip_prefix(name).unwrap();
            let digits = rest.split_whitespace().next().unwrap().replace(',', "");
            digits.parse::<u64>().unwrap()
        };
        let parts = ["committed", "duplicates", "unwanted", "dead letters"].map(number);
        assert_eq!(number("deliveries"), parts.iter().sum::<u64>());
        assert_eq!(number("dead letters"), number("trap") + number("undecodable"));
    }

    #[test]
    fn digits_are_grouped() {
        assert_eq!(
            [0, 12, 123, 1_234, 123_456].map(grouped),
            ["0", "12", "123", "1,234", "123,456"]
        );
    }
}
