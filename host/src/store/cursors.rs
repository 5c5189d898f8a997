//! How far each consumer of an embedded log has settled: kept in memory, written along with other things now and then. What a
//! crash forgets of it is given again, and the ledger knows it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;

use super::keys::{Key, KeyReader};
use super::tables::{Table, Tables, tag};
use super::{Batch, Error, Ride, Rider, keys, lock};
use crate::clock::Timestamp;
use crate::plan::Name;

/// They are written at most this often, unless this many settlements came in between.
const EVERY_MS: u64 = 100;
const EVERY_SETTLED: u64 = 1000;

/// A cursor is known by its stream and its consumer.
pub(super) type CursorKey = (Name, Name);

/// All cursors of the store.
#[derive(Default)]
pub(super) struct Cursors(Mutex<State>);

#[derive(Default)]
struct State {
    lowest: BTreeMap<CursorKey, u64>,
    /// Whose cursors count; `None`: all.
    heeded: Option<BTreeSet<CursorKey>>,
    moved: BTreeSet<CursorKey>,
    settled: u64,
    written: Timestamp,
}

impl Cursors {
    pub(super) fn load(tables: &Tables) -> Result<Self, Error> {
        let mut state = State::default();
        for row in tables.prefix(Table::Meta, &Key::new().tag(tag::CURSOR).done()) {
            let (key, value) = row?;
            let key = read_key(&key).ok_or_else(|| keys::unreadable("a cursor has no name"))?;
            state.lowest.insert(key, keys::decode(&value)?);
        }
        Ok(Self(Mutex::new(state)))
    }

    /// The lowest number that a consumer has not settled.
    pub(super) fn get(&self, key: &CursorKey) -> Option<u64> {
        lock(&self.0).lowest.get(key).copied()
    }

    /// Makes a cursor if there is none. Returns where it stands.
    pub(super) fn start(&self, batch: &mut Batch<'_>, key: CursorKey, first: u64) -> Result<u64, Error> {
        let mut state = lock(&self.0);
        let at = *state.lowest.entry(key.clone()).or_insert(first);
        batch.put(Table::Meta, write_key(&key), keys::encode(&at)?);
        Ok(at)
    }

    /// Moves a cursor on; `settled` settlements led to it. Says whether it is time to write.
    pub(super) fn advance(&self, key: &CursorKey, lowest: u64, settled: u64) -> bool {
        let mut state = lock(&self.0);
        state.settled += settled;
        match state.lowest.get_mut(key) {
            Some(at) if *at < lowest => {
                *at = lowest;
                state.moved.insert(key.clone());
            }
            _ => {}
        }
        state.settled >= EVERY_SETTLED
    }

    /// Lets only these cursors count from now on. Says which others there are.
    pub(super) fn heed(&self, keys: &BTreeSet<CursorKey>) -> Vec<CursorKey> {
        let mut state = lock(&self.0);
        state.heeded = Some(keys.clone());
        state
            .lowest
            .keys()
            .filter(|key| !keys.contains(*key))
            .cloned()
            .collect()
    }

    /// Where the slowest consumer of a stream stands that counts; `None` if it has none.
    pub(super) fn lowest_of(&self, stream: &Name) -> Option<u64> {
        let state = lock(&self.0);
        let counts = |key: &CursorKey| state.heeded.as_ref().is_none_or(|heeded| heeded.contains(key));
        let mine = state.lowest.iter().filter(|(key, _)| key.0 == *stream && counts(key));
        mine.map(|(_, at)| *at).min()
    }

    /// The consumers of a stream, and where each stands.
    pub(super) fn of(&self, stream: &Name) -> Vec<(Name, u64)> {
        let state = lock(&self.0);
        let mine = state.lowest.iter().filter(|((of, _), _)| of == stream);
        mine.map(|((_, consumer), at)| (consumer.clone(), *at)).collect()
    }
}

impl Rider for Cursors {
    fn ride(&self, batch: &mut Batch<'_>, ride: Ride) -> Result<(), Error> {
        let mut state = lock(&self.0);
        let is_due = batch.now() >= Timestamp(state.written.0 + EVERY_MS)
            || state.settled >= EVERY_SETTLED
            || ride == Ride::Last;
        if state.moved.is_empty() || !is_due {
            return Ok(());
        }
        for key in std::mem::take(&mut state.moved) {
            if let Some(at) = state.lowest.get(&key) {
                batch.put(Table::Meta, write_key(&key), keys::encode(at)?);
            }
        }
        state.settled = 0;
        state.written = batch.now();
        Ok(())
    }
}

fn write_key((stream, consumer): &CursorKey) -> bytes::Bytes {
    Key::new()
        .tag(tag::CURSOR)
        .part(stream.as_str())
        .part(consumer.as_str())
        .done()
}

pub(super) fn read_key(key: &[u8]) -> Option<CursorKey> {
    let mut key = KeyReader::new(key);
    key.skip_tag()?;
    let stream = Name::new(key.text()?).ok()?;
    Some((stream, Name::new(key.text()?).ok()?))
}
