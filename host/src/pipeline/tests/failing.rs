//! A ledger that is out of reach when a test says so, and else the real one.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use futures_util::future::BoxFuture;

use super::handler::Gate;
use crate::broker::Position;
use crate::event::key::LaneKey;
use crate::ledger::embedded::Embedded;
use crate::ledger::{
    Change, Entry, Error, Known, Ledger, ParkedEvent, ParkedLane, Parking, Read, RecordKey, Refused, StateBucket,
    StateKey, TakenBefore, Written,
};
use crate::plan::Name;

/// Puts the ledger out of reach. It outlives the hosts of a test.
#[derive(Default)]
pub(super) struct Switch {
    is_away: AtomicBool,
    refused: AtomicUsize,
    listings: Mutex<Option<Gate>>,
    loads: Mutex<Option<Gate>>,
    look_ups: Mutex<Option<Gate>>,
    ends: Mutex<Option<Gate>>,
    held_up: AtomicUsize,
}

impl Switch {
    pub(super) fn turn(&self, is_away: bool) {
        self.is_away.store(is_away, Ordering::SeqCst);
    }

    /// From now on a listing of the parked lanes waits at the gate after it was read: what it says is old when it comes.
    pub(super) fn hold_up_listings(&self, gate: &Gate) {
        *self.listings.lock().unwrap() = Some(gate.clone());
    }

    /// The same for the first events of a lane.
    pub(super) fn hold_up_loads(&self, gate: &Gate) {
        *self.loads.lock().unwrap() = Some(gate.clone());
    }

    /// The same for look-ups.
    pub(super) fn hold_up_look_ups(&self, gate: &Gate) {
        *self.look_ups.lock().unwrap() = Some(gate.clone());
    }

    /// From now on a write that ends an attempt without success waits at the gate when it is durable, before it is answered.
    pub(super) fn hold_up_failures(&self, gate: &Gate) {
        *self.ends.lock().unwrap() = Some(gate.clone());
    }

    /// How many were held up so far.
    pub(super) fn held_up(&self) -> usize {
        self.held_up.load(Ordering::SeqCst)
    }

    async fn wait_at(&self, gate: &Mutex<Option<Gate>>) {
        let gate = gate.lock().unwrap().clone();
        if let Some(gate) = gate {
            self.held_up.fetch_add(1, Ordering::SeqCst);
            gate.pass().await;
        }
    }

    /// Calls that failed so far.
    pub(super) fn refused(&self) -> usize {
        self.refused.load(Ordering::SeqCst)
    }
}

/// The ledger of a host, with a switch.
pub(super) struct Failing {
    pub inner: Arc<Embedded>,
    pub switch: Arc<Switch>,
}

impl Failing {
    fn check(&self) -> Result<(), Error> {
        if self.switch.is_away.load(Ordering::SeqCst) {
            self.switch.refused.fetch_add(1, Ordering::SeqCst);
            return Err(Error::Unavailable("the disk is full".to_owned()));
        }
        Ok(())
    }
}

impl Ledger for Failing {
    fn look_up(&self, keys: Vec<RecordKey>) -> BoxFuture<'_, Result<Vec<Known>, Error>> {
        Box::pin(async move {
            self.check()?;
            let known = self.inner.look_up(keys).await;
            self.switch.wait_at(&self.switch.look_ups).await;
            known
        })
    }

    fn write(&self, entries: Arc<Vec<Entry>>) -> BoxFuture<'_, Result<Vec<Result<Written, Refused>>, Error>> {
        Box::pin(async move {
            self.check()?;
            let is_failure = |entry: &Entry| matches!(entry.change, Change::Failed(_) | Change::Dead { .. });
            let is_failure = entries.iter().any(is_failure);
            let written = self.inner.write(entries).await;
            if is_failure {
                self.switch.wait_at(&self.switch.ends).await;
            }
            written
        })
    }

    fn read_state<'a>(&'a self, key: &'a StateKey) -> BoxFuture<'a, Result<Read, Error>> {
        self.inner.read_state(key)
    }

    fn list_state<'a>(
        &'a self,
        bucket: &'a StateBucket,
        after: Option<&'a str>,
        limit: usize,
    ) -> BoxFuture<'a, Result<Vec<String>, Error>> {
        self.inner.list_state(bucket, after, limit)
    }

    fn taken_before<'a>(&'a self, consumer: &'a Name) -> BoxFuture<'a, Result<Option<TakenBefore>, Error>> {
        self.inner.taken_before(consumer)
    }

    fn recovered(&self, consumer: &Name) {
        self.inner.recovered(consumer);
    }

    fn mark_taken<'a>(&'a self, consumer: &'a Name, upto: Position) -> BoxFuture<'a, Result<(), Error>> {
        Box::pin(async move {
            self.check()?;
            self.inner.mark_taken(consumer, upto).await
        })
    }
}

impl Parking for Failing {
    fn lanes<'a>(&'a self, consumer: &'a Name) -> BoxFuture<'a, Result<Vec<ParkedLane>, Error>> {
        Box::pin(async move {
            self.check()?;
            let lanes = self.inner.lanes(consumer).await;
            self.switch.wait_at(&self.switch.listings).await;
            lanes
        })
    }

    fn first<'a>(
        &'a self,
        consumer: &'a Name,
        lane: &'a LaneKey,
        limit: usize,
    ) -> BoxFuture<'a, Result<Vec<ParkedEvent>, Error>> {
        Box::pin(async move {
            self.check()?;
            let first = self.inner.first(consumer, lane, limit).await;
            self.switch.wait_at(&self.switch.loads).await;
            first
        })
    }
}
