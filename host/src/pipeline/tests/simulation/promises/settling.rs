//! Write first, acknowledge second.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::Story;
use crate::pipeline::tests::simulation::trace::{Change, Fact, Kind, Number};
use crate::plan::SettleWhen;

pub(super) fn after_commit(story: &Story<'_>) -> Result<(), String> {
    let mut kept: BTreeSet<Number> = BTreeSet::new();
    for (line, fact) in story.facts() {
        match fact {
            Fact::Wrote {
                event: Some(event),
                change: Change::Applied { .. } | Change::Dead { .. } | Change::Parked { .. },
                ..
            } => {
                kept.insert(*event);
            }
            Fact::Settled {
                position,
                is_done: true,
            } => {
                let event = story.by_position[position];
                if story.sent[&event].kind != Kind::Unwanted && !kept.contains(&event) {
                    return Err(format!("event {event} is settled before the ledger holds it: {line}"));
                }
            }
            _ => {}
        }
    }
    Ok(())
}

/// Outputs of an event that a host ran out of a delivery, not confirmed yet.
type Waiting<'p> = BTreeMap<Number, BTreeSet<&'p Arc<str>>>;

pub(super) fn after_confirmation(story: &Story<'_>) -> Result<(), String> {
    if story.plan.settle != SettleWhen::Confirmed {
        return Ok(());
    }
    let mut waiting = Waiting::new();
    let mut given: BTreeMap<Number, u32> = BTreeMap::new();
    for (line, fact) in story.facts() {
        match fact {
            // What an earlier host committed is in the outbox, so that its delivery is a duplicate that waits for nothing.
            Fact::Started => (waiting, given) = Default::default(),
            Fact::Given { position } => *given.entry(story.by_position[position]).or_default() += 1,
            Fact::Wrote {
                event: Some(event),
                was_parked: false,
                change: Change::Applied { puts, .. },
            } => {
                waiting.insert(*event, puts.iter().map(|put| &put.id).collect());
            }
            Fact::Answered { id, .. } => waiting.values_mut().for_each(|ids| _ = ids.remove(id)),
            Fact::Settled {
                position,
                is_done: true,
            } => {
                let event = story.by_position[position];
                let is_waiting = waiting.get(&event).is_some_and(|ids| !ids.is_empty());
                // Of several deliveries of an event all but one are duplicates, which wait for nothing either.
                if is_waiting && given.get(&event) == Some(&1) {
                    return Err(format!(
                        "event {event} is settled before its outputs are confirmed: {line}"
                    ));
                }
            }
            _ => {}
        }
    }
    Ok(())
}
