//! Once, and never nothing.

use std::collections::BTreeMap;

use super::Story;
use crate::outcome::Reason;
use crate::pipeline::tests::simulation::trace::{Change, Fact, Kind, Number};

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Fate {
    #[default]
    Open,
    Applied,
    Dead(Reason),
    /// Put back from the dead letters.
    Redriven,
    Purged,
}

pub(super) fn once(story: &Story<'_>) -> Result<(), String> {
    fates(story).map(|_| ())
}

/// What became of each event, if that is once.
fn fates(story: &Story<'_>) -> Result<BTreeMap<Number, Fate>, String> {
    let mut fates: BTreeMap<Number, Fate> = BTreeMap::new();
    for (line, fact) in story.facts() {
        match fact {
            Fact::Called { event, .. } => {
                let fate = fates.get(event).copied().unwrap_or_default();
                let is_runnable = fate == Fate::Redriven || fate == Fate::Open && story.is_plain(*event);
                // One that was put back may be on its way to an attempt when it is purged: what it does is refused.
                if !is_runnable && fate != Fate::Purged {
                    return Err(format!("event {event} is attempted though it is {fate:?}: {line}"));
                }
            }
            Fact::Wrote {
                event: Some(event),
                change: Change::Applied { .. },
                ..
            } => {
                let fate = fates.entry(*event).or_default();
                if !matches!(fate, Fate::Open | Fate::Redriven) {
                    return Err(format!("event {event} takes effect though it is {fate:?}: {line}"));
                }
                *fate = Fate::Applied;
            }
            Fact::Wrote {
                event: Some(event),
                change: Change::Dead { reason, .. },
                ..
            } => {
                let fate = fates.entry(*event).or_default();
                if !matches!(fate, Fate::Open | Fate::Redriven) {
                    return Err(format!(
                        "event {event} becomes a dead letter though it is {fate:?}: {line}"
                    ));
                }
                *fate = Fate::Dead(*reason);
            }
            Fact::Redriven { event } => _ = fates.insert(*event, Fate::Redriven),
            Fact::Purged { event: Some(event) } => _ = fates.insert(*event, Fate::Purged),
            _ => {}
        }
    }
    Ok(fates)
}

pub(super) fn nothing_lost(story: &Story<'_>) -> Result<(), String> {
    let Ok(fates) = fates(story) else { return Ok(()) };
    if !story.end.strange.is_empty() {
        return Err(format!(
            "there are dead letters of nothing that was sent: {:?}",
            story.end.strange
        ));
    }
    let letters: BTreeMap<Number, Reason> = story.end.letters.iter().copied().collect();
    for (event, sent) in &story.sent {
        let fate = fates.get(event).copied().unwrap_or_default();
        let is_right = match fate {
            Fate::Open => sent.kind == Kind::Unwanted,
            Fate::Dead(reason) => letters.get(event) == Some(&reason) && sent.kind != Kind::Unwanted,
            Fate::Applied | Fate::Purged => !letters.contains_key(event),
            Fate::Redriven => false,
        };
        let is_fitting = match (sent.kind, fate) {
            (Kind::Undecodable, Fate::Dead(reason)) => reason == Reason::Undecodable,
            (Kind::Plain, Fate::Dead(reason)) => !matches!(reason, Reason::Undecodable | Reason::IdConflict),
            _ => true,
        };
        if !is_right || !is_fitting {
            return Err(format!(
                "event {event} ({:?}) is {fate:?} in the end, with a letter {:?}",
                sent.kind,
                letters.get(event)
            ));
        }
    }
    Ok(())
}
