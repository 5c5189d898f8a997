//! No more than the plan allows, nothing left over, and state that adds up.

use std::collections::{BTreeMap, BTreeSet};

use super::Story;
use crate::pipeline::tests::simulation::trace::{Change, Fact};

pub(super) fn within(story: &Story<'_>) -> Result<(), String> {
    let plan = story.plan;
    let (mut running, mut held): (BTreeSet<u32>, BTreeSet<u64>) = Default::default();
    // From a look at the parking while it runs a pipeline counts what is parked about, until it starts anew.
    let mut is_exact = true;
    for (line, fact) in story.facts() {
        match fact {
            Fact::Started => {
                (running, held) = Default::default();
                is_exact = true;
            }
            Fact::Called { call, .. } => _ = running.insert(*call),
            Fact::Ended { call, .. } | Fact::Cut { call } => _ = running.remove(call),
            Fact::Given { position } if !held.insert(*position) => {
                return Err(format!("it is given twice: {line}"));
            }
            Fact::Settled { position, .. } if !held.remove(position) => {
                return Err(format!("what is not held is settled: {line}"));
            }
            Fact::Redriven { .. } | Fact::Purged { .. } | Fact::Looked => is_exact = false,
            Fact::Wrote {
                change: Change::Parked { now },
                ..
            } if is_exact && *now > plan.retry.parked_max.get() => {
                return Err(format!("{now} are parked: {line}"));
            }
            _ => {}
        }
        if running.len() > plan.concurrency.get() {
            return Err(format!("{} attempts are under way: {line}", running.len()));
        }
        if held.len() > plan.budget.events.get() {
            return Err(format!("{} deliveries are held: {line}", held.len()));
        }
    }
    Ok(())
}

pub(super) fn state_exact(story: &Story<'_>) -> Result<(), String> {
    let mut counters: BTreeMap<&str, u64> = BTreeMap::new();
    for (_, fact) in story.facts() {
        if let Fact::Wrote {
            change: Change::Applied {
                counted: Some(counter), ..
            },
            ..
        } = fact
        {
            *counters.entry(counter).or_default() += 1;
        }
    }
    let found = story
        .end
        .counters
        .iter()
        .map(|(counter, count)| (counter.as_str(), *count));
    match found
        .clone()
        .eq(counters.iter().map(|(counter, count)| (*counter, *count)))
    {
        true => Ok(()),
        false => Err(format!(
            "the state is {:?}, and {counters:?} was applied",
            story.end.counters
        )),
    }
}

pub(super) fn comes_to_rest(story: &Story<'_>) -> Result<(), String> {
    match &story.end.stuck {
        None => Ok(()),
        Some(why) => Err(why.clone()),
    }
}
