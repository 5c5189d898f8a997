//! What is published, when, and in which order.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::Story;
use crate::outcome::Reason;
use crate::pipeline::tests::simulation::trace::{Change, Fact, Line, Put};
use crate::plan::Name;

type Id = (Name, Arc<str>);
type Key<'p> = (&'p Name, &'p str);

/// What a durable change publishes.
fn committed_by(fact: &Fact) -> &[Put] {
    match fact {
        Fact::Wrote {
            change: Change::Applied { puts, .. } | Change::Dead { puts, .. },
            ..
        } => puts,
        _ => &[],
    }
}

/// Whether that is the copy of a dead letter that is made when it arrives, whatever its key does.
fn is_apart(fact: &Fact) -> bool {
    matches!(
        fact,
        Fact::Wrote {
            change: Change::Dead {
                reason: Reason::IdConflict,
                ..
            },
            ..
        }
    )
}

fn id(put: &Put) -> Id {
    (put.stream.clone(), put.id.clone())
}

pub(super) fn committed(story: &Story<'_>) -> Result<(), String> {
    let mut committed: BTreeMap<Id, &Put> = BTreeMap::new();
    for (line, fact) in story.facts() {
        committed.extend(committed_by(fact).iter().map(|put| (id(put), put)));
        if let Fact::Publishing(put) | Fact::Published { put, .. } = fact {
            match committed.get(&id(put)) {
                None => return Err(format!("an output is published that no commit made: {line}")),
                Some(known) if *known != put => {
                    return Err(format!(
                        "an output is published that was committed as {known:?}: {line}"
                    ));
                }
                Some(_) => {}
            }
        }
    }
    Ok(())
}

pub(super) fn arrive(story: &Story<'_>) -> Result<(), String> {
    let (mut there, mut refused): (BTreeSet<Id>, BTreeSet<&Arc<str>>) = Default::default();
    let (mut letters, mut purged) = (0, 0);
    for (_, fact) in story.facts() {
        match fact {
            Fact::Published { put, .. } => _ = there.insert(id(put)),
            Fact::Answered { id, is_refused: true } => _ = refused.insert(id),
            Fact::Purged { event: None } => purged += 1,
            Fact::Wrote {
                change:
                    Change::Dead {
                        reason: Reason::OutputRefused,
                        ..
                    },
                ..
            } => letters += 1,
            _ => {}
        }
    }
    for put in story.facts().flat_map(|(_, fact)| committed_by(fact)) {
        if !there.contains(&id(put)) && !refused.contains(&put.id) {
            return Err(format!("an output was committed and never published: {put:?}"));
        }
    }
    // One that was purged may come back, if its host dies before the refused output is forgotten.
    match (refused.len()..=refused.len() + purged).contains(&letters) {
        true => Ok(()),
        false => Err(format!(
            "{} outputs were refused, and {letters} are dead letters",
            refused.len()
        )),
    }
}

/// Outputs of one key on their way, by the order of their commits.
#[derive(Default)]
struct Ways<'p> {
    commits: usize,
    /// Not confirmed yet.
    open: BTreeMap<Key<'p>, BTreeMap<usize, &'p Arc<str>>>,
    first: BTreeMap<Id, usize>,
    /// Committed more than once: of an event that died again. Which of them is published can't be told.
    again: BTreeSet<Id>,
    /// Committed apart from the order of their keys. Redriven, their events may die again, and be copied under the same ids.
    apart: BTreeSet<Id>,
    latest: BTreeMap<Key<'p>, usize>,
}

fn key(put: &Put) -> Key<'_> {
    (&put.stream, &put.key)
}

impl<'p> Ways<'p> {
    fn commit(&mut self, put: &'p Put, is_apart: bool) {
        if is_apart || self.apart.contains(&id(put)) {
            self.apart.insert(id(put));
            return;
        }
        self.commits += 1;
        self.open.entry(key(put)).or_default().insert(self.commits, &put.id);
        if *self.first.entry(id(put)).or_insert(self.commits) != self.commits {
            self.again.insert(id(put));
        }
    }

    /// An output is given to the publisher. If it is confirmed already it may come again at any time.
    fn publishing(&self, put: &'p Put, line: &Line) -> Result<(), String> {
        let open = self.open.get(&key(put));
        let mut before = open.into_iter().flatten().take_while(|(_, id)| **id != &put.id);
        let is_open = open.is_some_and(|open| open.values().any(|id| *id == &put.id));
        match before.next().filter(|_| is_open && !self.again.contains(&id(put))) {
            Some((_, before)) => Err(format!(
                "an output is published while {before} before it is not confirmed: {line}"
            )),
            None => Ok(()),
        }
    }

    fn answered(&mut self, answered: &Arc<str>) {
        for open in self.open.values_mut() {
            let found = open.iter().find(|(_, id)| **id == answered).map(|(commit, _)| *commit);
            found.map(|commit| open.remove(&commit));
        }
    }

    fn published(&mut self, put: &'p Put, line: &Line) -> Result<(), String> {
        let Some(commit) = self.first.get(&id(put)).copied() else {
            return Ok(());
        };
        let before = self.latest.insert(key(put), commit);
        match before.is_some_and(|before| before > commit) {
            true => Err(format!("an output arrives after one that was committed later: {line}")),
            false => Ok(()),
        }
    }
}

pub(super) fn in_order(story: &Story<'_>) -> Result<(), String> {
    let mut ways = Ways::default();
    for (line, fact) in story.facts() {
        committed_by(fact)
            .iter()
            .for_each(|put| ways.commit(put, is_apart(fact)));
        match fact {
            Fact::Publishing(put) => ways.publishing(put, line)?,
            Fact::Published { put, is_new: true } => ways.published(put, line)?,
            Fact::Answered { id, .. } => ways.answered(id),
            _ => {}
        }
    }
    Ok(())
}
