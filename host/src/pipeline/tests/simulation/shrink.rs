//! Makes a failing case smaller while it fails in the same way, and says how to repeat what is left.

use std::fmt::Write as _;

use super::bugs::Bug;
use super::case::Case;
use super::promises::{Broken, broken};
use super::run::{Run, run};

/// What a case breaks.
pub(super) fn try_out(case: &Case, bug: Option<Bug>) -> (Run, Vec<Broken>) {
    let (run, plan) = run(case, bug);
    let broken = broken(&run, &plan);
    (run, broken)
}

/// The smallest case found that breaks the same promise.
pub(super) fn shrink(case: &Case, bug: Option<Bug>, first: &Broken) -> Case {
    let still_breaks = |case: &Case| {
        let (_, broken) = try_out(case, bug);
        broken.iter().any(|broken| broken.promise == first.promise)
    };
    let mut smallest = case.clone();
    while let Some(smaller) = smaller(&smallest).into_iter().find(|case| still_breaks(case)) {
        smallest = smaller;
    }
    smallest
}

/// Cases with fewer events, the fewest first, and with one fault less.
fn smaller(case: &Case) -> Vec<Case> {
    let fewer = [
        case.events / 4,
        case.events / 2,
        case.events * 3 / 4,
        case.events.saturating_sub(1),
    ];
    let fewer = fewer.into_iter().filter(|events| *events < case.events);
    let fewer = fewer.map(|events| Case { events, ..case.clone() });
    let milder = case.faults.iter().map(|fault| {
        let mut case = case.clone();
        case.faults.remove(fault);
        case
    });
    fewer.chain(milder).collect()
}

/// What a person needs of a failing case: how to repeat it, what is broken, and what happened, in its smallest form.
pub(super) fn report(case: &Case, bug: Option<Bug>, first: &Broken) -> String {
    let smallest = shrink(case, bug, first);
    let (run, broken) = try_out(&smallest, bug);
    let mut text = format!(
        "seed {} breaks a promise, and so does what is left of it when it is shrunk.\n",
        case.seed
    );
    for line in &run.lines {
        writeln!(text, "{line}").unwrap();
    }
    for Broken { promise, how } in &broken {
        writeln!(text, "broken: {promise:?}: {how}").unwrap();
    }
    writeln!(text, "whole:  SEED={} {FILTER}", case.seed).unwrap();
    writeln!(text, "shrunk: {smallest} {FILTER}").unwrap();
    text
}

const FILTER: &str = "cargo test --workspace --lib -- --nocapture every_seed_keeps_every_promise";
