//! The promises of the pipeline, each held against a trace by a checker that knows nothing of how it is kept.

mod attempts;
mod bounds;
mod once;
mod order;
mod outputs;
mod settling;

use std::collections::BTreeMap;

use super::run::Run;
use super::trace::{End, Fact, Kind, Line, Number};
use crate::outcome::Reason;
use crate::plan::{Consumer, OnDead};

/// A promise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Promise {
    /// An event takes effect once, or is one dead letter, never both; what is over is not attempted.
    Once,
    /// Every event that was sent is in the end one of the two, and every delivery is settled.
    NothingLost,
    /// An attempt begins when everything before it in its key is over.
    AttemptsInOrder,
    /// Effects of a key become durable in its order.
    EffectsInOrder,
    /// One event of a key at a time.
    OneOfAKey,
    /// Outputs of a key reach the receiver in the order of their commits, and none is published while one before it is not confirmed.
    OutputsInOrder,
    /// What is published was committed before, with this id and this content.
    OutputsCommitted,
    /// What was committed is published, or a dead letter if it is refused.
    OutputsArrive,
    /// A delivery is settled when the ledger holds it.
    SettledAfterCommit,
    /// A delivery is settled when its outputs are confirmed, if it is to wait for that.
    SettledAfterConfirmation,
    /// Attempts are counted durably: those that failed, and no others.
    AttemptsCounted,
    /// An attempt is not made before its time, and dead letters are made for the reasons that the policy gives.
    RetriesByPolicy,
    /// What kills hosts is found, and only that.
    KillersFound,
    /// No more is taken, run or parked than the plan allows.
    WithinBounds,
    /// State is what the applied events made of it.
    StateExact,
    /// When nothing goes wrong any more everything is done, and nothing is left in memory or in the ledger.
    ComesToRest,
}

type Check = fn(&Story<'_>) -> Result<(), String>;

const CHECKS: [(Promise, Check); 16] = [
    (Promise::Once, once::once),
    (Promise::NothingLost, once::nothing_lost),
    (Promise::AttemptsInOrder, order::attempts),
    (Promise::EffectsInOrder, order::effects),
    (Promise::OneOfAKey, order::one_of_a_key),
    (Promise::OutputsInOrder, outputs::in_order),
    (Promise::OutputsCommitted, outputs::committed),
    (Promise::OutputsArrive, outputs::arrive),
    (Promise::SettledAfterCommit, settling::after_commit),
    (Promise::SettledAfterConfirmation, settling::after_confirmation),
    (Promise::AttemptsCounted, attempts::counted),
    (Promise::RetriesByPolicy, attempts::by_policy),
    (Promise::KillersFound, attempts::killers_found),
    (Promise::WithinBounds, bounds::within),
    (Promise::StateExact, bounds::state_exact),
    (Promise::ComesToRest, bounds::comes_to_rest),
];

/// A promise that a run broke, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Broken {
    pub promise: Promise,
    pub how: String,
}

/// What was sent.
struct Sent {
    /// Where it stands first in its stream.
    position: u64,
    key: u32,
    kind: Kind,
}

/// A run as the checkers read it.
struct Story<'r> {
    plan: &'r Consumer,
    lines: &'r [Line],
    end: &'r End,
    sent: BTreeMap<Number, Sent>,
    by_position: BTreeMap<u64, Number>,
    by_call: BTreeMap<u32, Number>,
}

/// The promises that a run broke.
pub(super) fn broken(run: &Run, plan: &Consumer) -> Vec<Broken> {
    let story = Story::of(run, plan);
    let check = |(promise, check): (Promise, Check)| {
        let how = check(&story).err()?;
        Some(Broken { promise, how })
    };
    CHECKS.into_iter().filter_map(check).collect()
}

impl<'r> Story<'r> {
    fn of(run: &'r Run, plan: &'r Consumer) -> Self {
        let mut story = Self {
            plan,
            lines: &run.lines,
            end: &run.end,
            sent: BTreeMap::new(),
            by_position: BTreeMap::new(),
            by_call: BTreeMap::new(),
        };
        for line in &run.lines {
            match line.fact {
                Fact::Sent {
                    position,
                    event,
                    key,
                    kind,
                } => {
                    story.by_position.insert(position, event);
                    story.sent.entry(event).or_insert(Sent { position, key, kind });
                }
                Fact::Called { call, event, .. } => _ = story.by_call.insert(call, event),
                _ => {}
            }
        }
        story
    }

    fn facts(&self) -> impl Iterator<Item = (&'r Line, &'r Fact)> {
        self.lines.iter().map(|line| (line, &line.fact))
    }

    /// The events that are in the order of a key.
    fn is_plain(&self, event: Number) -> bool {
        self.sent.get(&event).is_some_and(|sent| sent.kind == Kind::Plain)
    }

    /// Whether later events of its key wait for a dead letter.
    fn holds(&self, reason: Reason) -> bool {
        let of_event = !matches!(reason, Reason::Undecodable | Reason::IdConflict | Reason::OutputRefused);
        self.plan.on_dead == OnDead::HoldKey && of_event
    }
}
