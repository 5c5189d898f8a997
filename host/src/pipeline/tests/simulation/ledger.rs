//! A simulated ledger: it passes the suite that every ledger passes, survives its hosts, and fails in every way that the traits allow.
//!
//! A write is under way on its own once it was asked for, as in a committer's queue: who asked may be gone when it becomes durable, and writes that are
//! under way together become durable in any order. When a host dies, chance decides about each write of it that is under way.

mod access;
mod tables;
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use tokio::sync::oneshot;

use super::bugs::Bug;
use super::case::Fault;
use super::events::Events;
use super::trace::{self, Fact, Put};
use super::world::World;
use crate::ledger::{
    Change, DeadFilter, DeadLetter, Entry, Error, Output, ParkedLane, Refused, Row, RowId, StateWrite, Written,
};
use crate::plan::Name;
pub(super) use access::Access;
use tables::Tables;

type Results = Vec<Result<Written, Refused>>;

/// The ledger. It outlives the hosts of a run.
pub(super) struct Vault {
    world: Arc<World>,
    events: Arc<Events>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    tables: Tables,
    writes: u64,
    /// Writes under way.
    under_way: BTreeMap<u64, Write>,
    /// Rows that are to be forgotten with the next write.
    confirmed: Vec<RowId>,
    /// Consumers with a mark that are not through what they had in hand.
    recovering: BTreeSet<Name>,
    is_unclean: bool,
    is_open: bool,
    /// Until when it is away.
    away_until: u64,
}

struct Write {
    entries: Arc<Vec<Entry>>,
    /// What became of the records, if those are durable before what they stand for: a bug.
    recorded: Option<Results>,
    answer: oneshot::Sender<Results>,
}

impl Vault {
    pub(super) fn new(world: Arc<World>, events: Arc<Events>) -> Arc<Self> {
        Arc::new(Self {
            world,
            events,
            state: Mutex::default(),
        })
    }

    /// A host opens it.
    pub(super) fn open(self: &Arc<Self>, life: u32) -> Arc<Access> {
        let mut state = self.state.lock().unwrap();
        state.recovering = state.tables.marked();
        if self.world.has_bug(Bug::AttemptsInMemory) {
            state.tables.forget_attempts();
        }
        state.is_unclean = std::mem::replace(&mut state.is_open, true);
        let vault = self.clone();
        Arc::new(Access { vault, life })
    }

    /// Everything that is under way is durable, then it is closed.
    pub(super) fn close(&self) {
        let mut state = self.state.lock().unwrap();
        self.finish_writes(&mut state, |_| true);
        let confirmed = std::mem::take(&mut state.confirmed);
        state.tables.forget_rows(confirmed);
        state.is_open = false;
    }

    /// Its host is dead. Of what was under way some became durable, in any case in order of asking.
    pub(super) fn crash(&self) {
        let mut state = self.state.lock().unwrap();
        self.finish_writes(&mut state, |_| self.world.choose(2) == 0);
        state.confirmed.clear();
    }

    fn finish_writes(&self, state: &mut State, is_durable: impl Fn(u64) -> bool) {
        for (number, write) in std::mem::take(&mut state.under_way) {
            if is_durable(number) {
                self.apply(state, &write.entries, write.recorded);
            }
        }
    }

    fn apply(&self, state: &mut State, entries: &[Entry], recorded: Option<Results>) -> Results {
        let confirmed = std::mem::take(&mut state.confirmed);
        if !self.world.has_bug(Bug::NeverForgotten) {
            state.tables.forget_rows(confirmed);
        }
        match recorded {
            None => entries.iter().map(|entry| self.apply_one(state, entry)).collect(),
            Some(mut results) => {
                for (entry, result) in entries.iter().zip(&mut results) {
                    if let (Change::Applied(effects), Ok(written)) = (&entry.change, result) {
                        *written = state.tables.perform(entry, effects);
                    }
                }
                results
            }
        }
    }

    fn apply_one(&self, state: &mut State, entry: &Entry) -> Result<Written, Refused> {
        if self.world.has_bug(Bug::AppliedTwice) {
            state.tables.forget_record(entry.record);
        }
        let result = state.tables.apply(&self.spoiled(entry));
        let event = self.events.of_entry(entry);
        match result {
            Ok(_) => self.world.note(Fact::Wrote {
                event,
                was_parked: entry.parked.is_some(),
                change: self.seen(state, entry),
            }),
            Err(refused) => self.world.note(Fact::Unwritten {
                event,
                why: format!("{refused:?}"),
            }),
        }
        result
    }

    /// What is written instead if the ledger has a bug.
    fn spoiled(&self, entry: &Entry) -> Entry {
        let mut entry = entry.clone();
        if let Change::Applied(effects) = &mut entry.change {
            if self.world.has_bug(Bug::LostUpdates) {
                effects.reads.clear();
            }
            if self.world.has_bug(Bug::RecordBeforeEffects) {
                (effects.writes, effects.outputs) = Default::default();
            }
        }
        entry
    }

    fn seen(&self, state: &State, entry: &Entry) -> trace::Change {
        match &entry.change {
            Change::Applied(effects) => trace::Change::Applied {
                puts: effects.outputs.iter().map(put).collect(),
                counted: effects.writes.iter().find_map(counter),
            },
            Change::Dead { letter, publish, hold } => dead(letter, publish.as_ref(), *hold),
            Change::Conflict { letter, publish } => dead(letter, publish.as_ref(), false),
            Change::Failed(history) => trace::Change::Failed {
                failed: history.failed,
                next_at: self.world.of_wall(history.next_at),
            },
            Change::Started => trace::Change::Begun,
            Change::Parked(..) => trace::Change::Parked {
                now: state.tables.parked(),
            },
        }
    }

    /// Starts a write that goes on by itself.
    fn begin(self: &Arc<Self>, entries: Arc<Vec<Entry>>) -> oneshot::Receiver<Results> {
        let (answer, answered) = oneshot::channel();
        let mut state = self.state.lock().unwrap();
        state.writes += 1;
        let number = state.writes;
        let is_early = self.world.has_bug(Bug::RecordBeforeEffects);
        let recorded = is_early.then(|| entries.iter().map(|entry| self.apply_one(&mut state, entry)).collect());
        let write = Write {
            entries,
            recorded,
            answer,
        };
        state.under_way.insert(number, write);
        drop(state);
        let vault = self.clone();
        tokio::spawn(async move {
            vault.world.delay().await;
            let mut state = vault.state.lock().unwrap();
            if let Some(write) = state.under_way.remove(&number) {
                let results = vault.apply(&mut state, &write.entries, write.recorded);
                let _ = write.answer.send(results);
            }
        });
        answered
    }

    /// Whether it is out of reach now.
    fn fails(&self) -> Result<(), Error> {
        let unavailable = |why: &str| Err(Error::Unavailable(why.to_owned()));
        let now = self.world.at();
        let mut state = self.state.lock().unwrap();
        if self.world.strikes(Fault::LedgerOutages, 4) {
            state.away_until = now + 1 + self.world.choose(8_000) as u64;
            self.world.note(Fact::Trouble(format!(
                "the ledger is away until {} ms",
                state.away_until
            )));
        }
        if now < state.away_until && !self.world.is_calm() {
            return unavailable("it is away");
        }
        match self.world.strikes(Fault::LedgerErrors, 40) {
            true => unavailable("it failed"),
            false => Ok(()),
        }
    }

    /// Whether nothing is left to do in it, but for lanes that are held.
    pub(super) fn is_idle(&self) -> bool {
        let state = self.state.lock().unwrap();
        let rows = state.tables.pending(None, usize::MAX);
        let is_left = rows.iter().any(|row| !state.confirmed.contains(&row.id));
        state.under_way.is_empty() && !is_left
    }

    pub(super) fn lanes(&self) -> Vec<ParkedLane> {
        self.state.lock().unwrap().tables.lanes(&self.world.plan.name)
    }

    pub(super) fn outbox(&self) -> Vec<Row> {
        self.state.lock().unwrap().tables.pending(None, usize::MAX)
    }

    pub(super) fn is_recovering(&self) -> bool {
        !self.state.lock().unwrap().recovering.is_empty()
    }

    pub(super) fn counters(&self) -> Vec<(String, u64)> {
        self.state.lock().unwrap().tables.counters()
    }
}

/// What people do to dead letters.
impl Vault {
    pub(super) fn letters(&self) -> Vec<DeadLetter> {
        let state = self.state.lock().unwrap();
        state.tables.letters(&DeadFilter::default(), None, usize::MAX).letters
    }

    pub(super) fn redrive(&self, letter: &DeadLetter) {
        let mut state = self.state.lock().unwrap();
        let is_new = state.tables.redrive(letter.id).is_some() && !letter.redriving;
        if let Some(event) = self.events.of_record(letter.id).filter(|_| is_new) {
            self.world.note(Fact::Redriven { event });
        }
    }

    pub(super) fn purge(&self, letter: &DeadLetter) {
        let mut state = self.state.lock().unwrap();
        state.tables.purge(letter.id);
        let event = self.events.of_record(letter.id);
        self.world.note(Fact::Purged { event });
    }
}

fn put(output: &Output) -> Put {
    Put {
        stream: output.stream.clone(),
        key: String::from_utf8_lossy(&output.key.0).into_owned(),
        id: output.id.clone(),
        content: String::from_utf8_lossy(&output.message.payload).into_owned(),
    }
}

fn counter(write: &StateWrite) -> Option<String> {
    match write {
        StateWrite::Set(key, _) => Some(key.key.to_string()),
        _ => None,
    }
}

fn dead(letter: &DeadLetter, publish: Option<&Output>, holds: bool) -> trace::Change {
    trace::Change::Dead {
        reason: letter.reason,
        failed: letter.failed,
        puts: publish.map(put).into_iter().collect(),
        holds,
    }
}
