//! The ledger as one host has it.

use std::sync::Arc;

use futures_util::future::BoxFuture;

use super::{Results, State, Vault};
use crate::broker::Position;
use crate::event::key::LaneKey;
use crate::ledger::{
    DeadCounts, DeadFilter, DeadId, DeadLetter, DeadLetters, DeadPage, DeadPlace, Entry, Error, Known, Ledger, Outbox,
    ParkedEvent, ParkedLane, Parking, Read, RecordKey, Redriven, Row, RowId, StateBucket, StateKey, TakenBefore,
};
use crate::pipeline::tests::simulation::bugs::Bug;
use crate::pipeline::tests::simulation::case::Fault;
use crate::plan::Name;

/// What a host holds of it, until it dies.
pub(in super::super) struct Access {
    pub(super) vault: Arc<Vault>,
    pub(super) life: u32,
}

impl Access {
    /// Reads or writes something at once, if the ledger can be had and the host lives long enough.
    async fn ask<T>(&self, ask: impl FnOnce(&mut State) -> T) -> Result<T, Error> {
        self.vault.world.pass(self.life).await;
        self.vault.fails()?;
        let answer = ask(&mut self.vault.state.lock().unwrap());
        self.vault.world.pass(self.life).await;
        Ok(answer)
    }
}

impl Ledger for Access {
    fn look_up(&self, keys: Vec<RecordKey>) -> BoxFuture<'_, Result<Vec<Known>, Error>> {
        Box::pin(async move {
            let is_blind = [Bug::NeverLookedUp, Bug::AppliedTwice].map(|bug| self.vault.world.has_bug(bug));
            let is_blind = is_blind.contains(&true);
            let known = |state: &State, key| match state.tables.known(key) {
                Known::Done(_) if is_blind => Known::New,
                known => known,
            };
            self.ask(|state| keys.into_iter().map(|key| known(state, key)).collect())
                .await
        })
    }

    fn write(&self, entries: Arc<Vec<Entry>>) -> BoxFuture<'_, Result<Results, Error>> {
        Box::pin(async move {
            let world = &self.vault.world;
            world.pass(self.life).await;
            self.vault.fails()?;
            let is_failed = world.has_bug(Bug::FailedButDurable) && world.strikes(Fault::LedgerErrors, 100);
            let answered = self.vault.begin(entries);
            let Ok(results) = answered.await else {
                return std::future::pending().await;
            };
            world.pass(self.life).await;
            match is_failed {
                true => Err(Error::Unavailable("it failed".to_owned())),
                false => Ok(results),
            }
        })
    }

    fn read_state<'a>(&'a self, key: &'a StateKey) -> BoxFuture<'a, Result<Read, Error>> {
        Box::pin(self.ask(|state| state.tables.read(key)))
    }

    fn list_state<'a>(
        &'a self,
        bucket: &'a StateBucket,
        after: Option<&'a str>,
        limit: usize,
    ) -> BoxFuture<'a, Result<Vec<String>, Error>> {
        Box::pin(self.ask(move |state| state.tables.list(bucket, after, limit)))
    }

    fn taken_before<'a>(&'a self, consumer: &'a Name) -> BoxFuture<'a, Result<Option<TakenBefore>, Error>> {
        let taken = |state: &mut State| {
            let upto = state
                .tables
                .mark(consumer)
                .filter(|_| state.recovering.contains(consumer));
            let is_suspect = state.is_unclean;
            upto.map(|upto| TakenBefore { upto, is_suspect })
        };
        Box::pin(self.ask(taken))
    }

    fn recovered(&self, consumer: &Name) {
        if self.vault.world.step(self.life) {
            self.vault.state.lock().unwrap().recovering.remove(consumer);
        }
    }

    fn mark_taken<'a>(&'a self, consumer: &'a Name, upto: Position) -> BoxFuture<'a, Result<(), Error>> {
        Box::pin(self.ask(move |state| state.tables.mark_taken(consumer, upto)))
    }
}

impl Outbox for Access {
    fn pending(&self, after: Option<RowId>, limit: usize) -> BoxFuture<'_, Result<Vec<Row>, Error>> {
        Box::pin(self.ask(move |state| state.tables.pending(after, limit)))
    }

    fn confirmed(&self, rows: Vec<RowId>) {
        if self.vault.world.step(self.life) {
            self.vault.state.lock().unwrap().confirmed.extend(rows);
        }
    }
}

impl Parking for Access {
    fn lanes<'a>(&'a self, consumer: &'a Name) -> BoxFuture<'a, Result<Vec<ParkedLane>, Error>> {
        Box::pin(self.ask(|state| state.tables.lanes(consumer)))
    }

    fn first<'a>(
        &'a self,
        consumer: &'a Name,
        lane: &'a LaneKey,
        limit: usize,
    ) -> BoxFuture<'a, Result<Vec<ParkedEvent>, Error>> {
        Box::pin(async move {
            let mut first = self.ask(|state| state.tables.first(consumer, lane, limit)).await?;
            if self.vault.world.has_bug(Bug::ParkedShuffled) {
                first.reverse();
            }
            Ok(first)
        })
    }
}

impl DeadLetters for Access {
    fn list<'a>(
        &'a self,
        which: &'a DeadFilter,
        after: Option<DeadPlace>,
        limit: usize,
    ) -> BoxFuture<'a, Result<DeadPage, Error>> {
        Box::pin(self.ask(move |state| state.tables.letters(which, after, limit)))
    }

    fn get(&self, id: DeadId) -> BoxFuture<'_, Result<Option<DeadLetter>, Error>> {
        Box::pin(self.ask(move |state| state.tables.letter(id)))
    }

    fn redrive(&self, ids: Vec<DeadId>) -> BoxFuture<'_, Result<Vec<Redriven>, Error>> {
        Box::pin(self.ask(|state| ids.into_iter().filter_map(|id| state.tables.redrive(id)).collect()))
    }

    fn purge(&self, ids: Vec<DeadId>) -> BoxFuture<'_, Result<Vec<DeadLetter>, Error>> {
        Box::pin(self.ask(|state| ids.into_iter().filter_map(|id| state.tables.purge(id)).collect()))
    }

    fn count(&self) -> BoxFuture<'_, Result<DeadCounts, Error>> {
        Box::pin(self.ask(|state| state.tables.count()))
    }
}
