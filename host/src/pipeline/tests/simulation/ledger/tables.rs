//! What a ledger has to keep, in the plainest form: maps, one change after the other. A host that dies leaves them as they are.

mod letters;

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use crate::broker::Position;
use crate::event::Message;
use crate::event::key::LaneKey;
use crate::ledger::{
    Change, DeadId, DeadLetter, Effects, Entry, History, Known, Output, ParkedEvent, ParkedId, ParkedLane, PayloadHash,
    Read, RecordKey, Refused, Row, RowId, StateBucket, StateKey, StateWrite, Version, Written,
};
use crate::plan::Name;

type Lane = (Name, LaneKey);
type Place = (Lane, ParkedId);

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Trying,
    Parked,
    Done,
}

struct Letter {
    place: u64,
    payload: PayloadHash,
    /// Where its event waits, if it was put back.
    parked: Option<ParkedId>,
    letter: DeadLetter,
}

struct Parked {
    record: RecordKey,
    position: Position,
    message: Message,
}

/// Everything durable.
#[derive(Default)]
pub(super) struct Tables {
    numbers: u64,
    records: BTreeMap<RecordKey, (State, PayloadHash)>,
    attempts: BTreeMap<RecordKey, (Option<Box<History>>, u32)>,
    state: BTreeMap<StateKey, (Version, Bytes)>,
    outbox: BTreeMap<RowId, Row>,
    parked: BTreeMap<Place, Parked>,
    held: BTreeMap<Lane, DeadId>,
    letters: BTreeMap<DeadId, Letter>,
    marks: BTreeMap<Name, Position>,
}

impl Tables {
    fn number(&mut self) -> u64 {
        self.numbers += 1;
        self.numbers
    }

    pub(super) fn known(&self, key: RecordKey) -> Known {
        match self.records.get(&key) {
            None => Known::New,
            Some((State::Done, payload)) => Known::Done(*payload),
            Some((State::Parked, payload)) => Known::Parked(*payload),
            Some((State::Trying, _)) => match self.tried(key) {
                (Some(history), started) => Known::Failing { history, started },
                (None, 0) => Known::New,
                (None, started) => Known::Started(started),
            },
        }
    }

    fn tried(&self, key: RecordKey) -> (Option<Box<History>>, u32) {
        self.attempts.get(&key).cloned().unwrap_or_default()
    }

    /// Applies one entry: all of it or nothing.
    pub(super) fn apply(&mut self, entry: &Entry) -> Result<Written, Refused> {
        if let Change::Conflict { letter, publish } = &entry.change {
            return self.conflict(entry, letter, publish.as_ref());
        }
        if let Some(refused) = self.refusal(entry) {
            if refused == Refused::Done(entry.payload) {
                self.leave(entry);
            }
            return Err(refused);
        }
        match &entry.change {
            Change::Applied(effects) => return self.applied(entry, effects),
            Change::Dead { letter, publish, hold } => {
                self.finish(entry);
                self.bury(entry.payload, letter, *hold);
                return Ok(self.emit(entry, publish.as_slice()));
            }
            Change::Failed(history) => self.try_on(entry, (Some(history.clone()), 0)),
            Change::Started => {
                let (history, started) = self.tried(entry.record);
                self.try_on(entry, (history, started + 1));
                let started = started + 1;
                return Ok(Written {
                    started,
                    ..Written::default()
                });
            }
            Change::Parked(message, position) => {
                let id = ParkedId(self.number().cast_signed());
                let parked = Parked {
                    record: entry.record,
                    position: *position,
                    message: (**message).clone(),
                };
                self.park(lane(entry), id, entry.payload, parked);
            }
            Change::Conflict { .. } => {}
        }
        Ok(Written::default())
    }

    fn refusal(&self, entry: &Entry) -> Option<Refused> {
        let record = self.records.get(&entry.record);
        let parked = match record {
            Some((State::Done, payload)) => return Some(Refused::Done(*payload)),
            Some((State::Parked, payload)) => Some(Refused::Parked(*payload)),
            _ => None,
        };
        match entry.parked {
            None => parked,
            Some(id) if self.parked.contains_key(&(lane(entry), id)) => None,
            Some(_) => parked.or(Some(Refused::Done(entry.payload))),
        }
    }

    fn applied(&mut self, entry: &Entry, effects: &Effects) -> Result<Written, Refused> {
        if effects
            .reads
            .iter()
            .any(|(key, version)| self.read(key).version != *version)
        {
            return Err(Refused::Conflict);
        }
        self.finish(entry);
        if entry.parked.is_some() {
            self.forget_letter(entry.record);
        }
        for row in self.letters.values_mut() {
            if row.letter.consumer == entry.consumer && row.letter.lane == entry.lane {
                row.letter.applied_meanwhile += 1;
            }
        }
        Ok(self.perform(entry, effects))
    }

    pub(super) fn perform(&mut self, entry: &Entry, effects: &Effects) -> Written {
        effects.writes.iter().for_each(|write| self.write(write));
        self.emit(entry, &effects.outputs)
    }

    fn finish(&mut self, entry: &Entry) {
        self.records.insert(entry.record, (State::Done, entry.payload));
        self.attempts.remove(&entry.record);
        if let Some(id) = entry.parked {
            self.parked.remove(&(lane(entry), id));
        }
    }

    fn try_on(&mut self, entry: &Entry, tried: (Option<Box<History>>, u32)) {
        self.attempts.insert(entry.record, tried);
        let state = if entry.parked.is_some() {
            State::Parked
        } else {
            State::Trying
        };
        self.records.insert(entry.record, (state, entry.payload));
    }

    fn park(&mut self, lane: Lane, id: ParkedId, payload: PayloadHash, parked: Parked) {
        self.records.insert(parked.record, (State::Parked, payload));
        self.parked.insert((lane, id), parked);
    }

    /// An event that is over gives up its place in the parking.
    fn leave(&mut self, entry: &Entry) {
        let Some(id) = entry.parked else { return };
        let place = (lane(entry), id);
        if self
            .parked
            .get(&place)
            .is_none_or(|parked| parked.record != entry.record)
        {
            return;
        }
        self.parked.remove(&place);
        if self
            .letters
            .get(&entry.record)
            .is_some_and(|letter| letter.parked == Some(id))
        {
            self.forget_letter(entry.record);
        }
    }

    fn conflict(&mut self, entry: &Entry, letter: &DeadLetter, publish: Option<&Output>) -> Result<Written, Refused> {
        self.leave(entry);
        let is_other = letter.id != entry.record;
        if is_other && self.records.contains_key(&letter.id) || self.letters.contains_key(&letter.id) {
            return Err(Refused::Done(entry.payload));
        }
        self.records.insert(letter.id, (State::Done, entry.payload));
        self.bury(entry.payload, letter, false);
        Ok(self.emit(entry, publish))
    }

    fn bury(&mut self, payload: PayloadHash, letter: &DeadLetter, hold: bool) {
        self.forget_letter(letter.id);
        if hold {
            self.held
                .insert((letter.consumer.clone(), letter.lane.clone()), letter.id);
        }
        let place = self.number();
        let letter = letter.clone();
        let row = Letter {
            place,
            payload,
            parked: None,
            letter,
        };
        self.letters.insert(row.letter.id, row);
    }

    fn forget_letter(&mut self, id: DeadId) -> Option<Letter> {
        self.held.retain(|_, by| *by != id);
        self.letters.remove(&id)
    }

    fn emit<'o>(&mut self, entry: &Entry, outputs: impl IntoIterator<Item = &'o Output>) -> Written {
        let mut written = Written::default();
        for output in outputs {
            let id = RowId(self.number());
            let (consumer, output) = (entry.consumer.clone(), output.clone());
            self.outbox.insert(id, Row { id, consumer, output });
            written.rows.push(id);
        }
        written
    }

    fn write(&mut self, write: &StateWrite) {
        let (key, value) = match write {
            StateWrite::Delete(key) => {
                self.state.remove(key);
                return;
            }
            StateWrite::Set(key, value) => (key, value.clone()),
            StateWrite::Add(key, delta) => {
                let text = self.read(key).value.unwrap_or_default();
                let count: i64 = std::str::from_utf8(&text).unwrap().parse().unwrap_or(0);
                (key, count.saturating_add(*delta).to_string().into())
            }
        };
        let version = Version(self.number());
        self.state.insert(key.clone(), (version, value));
    }

    pub(super) fn read(&self, key: &StateKey) -> Read {
        let (version, value) = self.state.get(key).cloned().unzip();
        Read {
            value,
            version: version.unwrap_or_default(),
        }
    }

    pub(super) fn list(&self, bucket: &StateBucket, after: Option<&str>, limit: usize) -> Vec<String> {
        let keys = self.state.keys().filter(|key| key.bucket == *bucket);
        let keys = keys.map(|key| key.key.to_string());
        keys.filter(|key| after.is_none_or(|after| key.as_str() > after))
            .take(limit)
            .collect()
    }

    pub(super) fn pending(&self, after: Option<RowId>, limit: usize) -> Vec<Row> {
        let rows = self
            .outbox
            .values()
            .filter(|row| after.is_none_or(|after| row.id > after));
        rows.take(limit).cloned().collect()
    }

    pub(super) fn forget_rows(&mut self, rows: Vec<RowId>) {
        rows.iter().for_each(|id| _ = self.outbox.remove(id));
    }

    pub(super) fn lanes(&self, consumer: &Name) -> Vec<ParkedLane> {
        let waiting = self.parked.keys().map(|(lane, _)| lane);
        let lanes: BTreeSet<&Lane> = waiting.chain(self.held.keys()).collect();
        let lanes = lanes.into_iter().filter(|(of, _)| of == consumer);
        let listed = lanes.map(|lane| ParkedLane {
            lane: lane.1.clone(),
            waiting: self.parked.keys().filter(|(of, _)| of == lane).count() as u64,
            held_by: self.held.get(lane).copied(),
        });
        listed.collect()
    }

    pub(super) fn first(&self, consumer: &Name, key: &LaneKey, limit: usize) -> Vec<ParkedEvent> {
        let mine = self
            .parked
            .iter()
            .filter(|((lane, _), _)| lane.0 == *consumer && lane.1 == *key);
        let events = mine.take(limit).map(|((_, id), parked)| {
            let (history, started) = self.tried(parked.record);
            ParkedEvent {
                id: *id,
                record: parked.record,
                position: parked.position,
                message: parked.message.clone(),
                history,
                started,
            }
        });
        events.collect()
    }

    pub(super) fn parked(&self) -> usize {
        self.parked.len()
    }

    pub(super) fn mark(&self, consumer: &Name) -> Option<Position> {
        self.marks.get(consumer).copied()
    }

    pub(super) fn marked(&self) -> BTreeSet<Name> {
        self.marks.keys().cloned().collect()
    }

    pub(super) fn mark_taken(&mut self, consumer: &Name, upto: Position) {
        let mark = self.marks.entry(consumer.clone()).or_default();
        *mark = upto.max(*mark);
    }

    /// Forgets which attempts failed.
    pub(super) fn forget_attempts(&mut self) {
        self.attempts.clear();
    }

    /// Forgets that an event is over.
    pub(super) fn forget_record(&mut self, record: RecordKey) {
        self.records
            .retain(|known, (state, _)| *known != record || *state != State::Done);
    }

    pub(super) fn finish_elsewhere(&mut self, record: RecordKey, payload: PayloadHash) {
        self.records.insert(record, (State::Done, payload));
    }

    pub(super) fn counters(&self) -> Vec<(String, u64)> {
        let text = |value: &Bytes| std::str::from_utf8(value).unwrap().parse().unwrap();
        let counters = self
            .state
            .iter()
            .map(|(key, (_, value))| (key.key.to_string(), text(value)));
        counters.collect()
    }
}

fn lane(entry: &Entry) -> Lane {
    (entry.consumer.clone(), entry.lane.clone())
}
