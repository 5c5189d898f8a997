//! What was found, by fault.

use std::collections::BTreeMap;
use std::fmt;

use super::fault::Fault;
use super::trial::Found;
use crate::restart::findings::Tally;

/// What was found, by fault.
#[derive(Default)]
pub(super) struct Table(BTreeMap<Fault, Found>);

impl Table {
    pub(super) fn add(&mut self, fault: Fault, found: Found) {
        let row = self.0.entry(fault).or_default();
        row.tally += found.tally;
        row.said_after = row.said_after.max(found.said_after);
    }

    pub(super) fn is_clean(&self) -> bool {
        self.0.values().all(|row| row.tally.is_clean())
    }

    /// Whether each of these was played, with events.
    pub(super) fn has(&self, faults: &[Fault]) -> bool {
        let is_there = |fault| self.0.get(fault).is_some_and(|row| row.tally.events > 0);
        faults.iter().all(is_there)
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "| fault | {} | said after, at most |", Tally::COLUMNS)?;
        writeln!(f, "| --- |{} --: |", " --: |".repeat(Tally::COLUMNS.split('|').count()))?;
        for (fault, Found { tally, said_after }) in &self.0 {
            let said = match said_after {
                Some(time) => format!("{:.1} s", time.as_secs_f64()),
                None => "-".to_owned(),
            };
            writeln!(f, "| {} | {} | {said} |", fault.name(), tally.cells())?;
        }
        Ok(())
    }
}
