//! The order of a key, in attempts and in effects.

use std::collections::{BTreeMap, BTreeSet};

use super::Story;
use crate::pipeline::tests::simulation::trace::{Change, Fact, Number};

pub(super) fn attempts(story: &Story<'_>) -> Result<(), String> {
    // What of each key is not over, by its place in the stream.
    let mut open: BTreeMap<u32, BTreeMap<u64, Number>> = BTreeMap::new();
    for (event, sent) in story.sent.iter().filter(|(event, _)| story.is_plain(**event)) {
        open.entry(sent.key).or_default().insert(sent.position, *event);
    }
    for (line, fact) in story.facts() {
        let over = match fact {
            Fact::Called { event, .. } if story.is_plain(*event) => {
                let sent = &story.sent[event];
                let before = open.get(&sent.key).and_then(|open| open.range(..sent.position).next());
                if let Some((_, before)) = before {
                    return Err(format!("event {event} overtakes event {before} of its key: {line}"));
                }
                continue;
            }
            Fact::Wrote {
                event: Some(event),
                change: Change::Applied { .. },
                ..
            } => event,
            Fact::Wrote {
                event: Some(event),
                change: Change::Dead { reason, .. },
                ..
            } if !story.holds(*reason) => event,
            Fact::Purged { event: Some(event) } => event,
            _ => continue,
        };
        if let Some(sent) = story.sent.get(over)
            && let Some(open) = open.get_mut(&sent.key)
        {
            open.remove(&sent.position);
        }
    }
    Ok(())
}

pub(super) fn effects(story: &Story<'_>) -> Result<(), String> {
    let mut latest: BTreeMap<u32, (u64, Number)> = BTreeMap::new();
    let mut redriven: BTreeSet<Number> = BTreeSet::new();
    for (line, fact) in story.facts() {
        match fact {
            Fact::Redriven { event } => _ = redriven.insert(*event),
            Fact::Wrote {
                event: Some(event),
                change: Change::Applied { .. },
                ..
            } if story.is_plain(*event) && !redriven.contains(event) => {
                let sent = &story.sent[event];
                let here = (sent.position, *event);
                let before = latest.insert(sent.key, here);
                if let Some((_, before)) = before.filter(|before| *before > here) {
                    return Err(format!(
                        "event {event} takes effect after event {before}, which came later: {line}"
                    ));
                }
            }
            _ => {}
        }
    }
    Ok(())
}

pub(super) fn one_of_a_key(story: &Story<'_>) -> Result<(), String> {
    let mut running: BTreeMap<u32, Number> = BTreeMap::new();
    for (line, fact) in story.facts() {
        match fact {
            Fact::Started => running.clear(),
            Fact::Called { event, .. } => {
                let before = story.sent.get(event).and_then(|sent| running.insert(sent.key, *event));
                if let Some(before) = before {
                    return Err(format!(
                        "event {event} begins while event {before} of its key runs: {line}"
                    ));
                }
            }
            Fact::Ended { call, .. } | Fact::Cut { call } => {
                let key = story.by_call.get(call).and_then(|event| story.sent.get(event));
                key.map(|sent| running.remove(&sent.key));
            }
            _ => {}
        }
    }
    Ok(())
}
