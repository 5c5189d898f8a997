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
        writeln!(
            f,
            "| fault | rounds | events | lost | applied twice | out of order | otherwise wrong | said after, at most |"
        )?;
        writeln!(f, "| --- | --: | --: | --: | --: | --: | --: | --: |")?;
        for (fault, Found { tally, said_after }) in &self.0 {
            let Tally {
                rounds,
                events,
                lost,
                applied_twice,
                out_of_order,
                dead_and_applied,
                unexpected,
            } = tally;
            let otherwise = dead_and_applied + unexpected;
            let said = match said_after {
                Some(time) => format!("{:.1} s", time.as_secs_f64()),
                None => "-".to_owned(),
            };
            writeln!(
                f,
                "| {} | {rounds} | {events} | {lost} | {applied_twice} | {out_of_order} | {otherwise} | {said} |",
                fault.name()
            )?;
        }
        Ok(())
    }
}
