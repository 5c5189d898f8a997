//! What one entry writes, and when it is refused. Runs on the store's committer: between the decision and the write nothing
//! else happens, and what earlier entries of the batch wrote counts as written.

use bytes::Bytes;

use super::letters;
use super::outbox::Emitted;
use super::rows::{self, Attempts, Lane, Parked};
use crate::broker::Position;
use crate::event::Message;
use crate::event::key::LaneKey;
use crate::ledger::{
    Change, Effects, Entry, ParkedId, PayloadHash, RecordKey, Refused, StateKey, StateWrite, Version, Written,
};
use crate::plan::Name;
use crate::store::{self, Batch, Error, Record, RecordState, Table};

/// An entry without its change.
#[derive(Clone, Copy)]
pub(super) struct Subject<'a> {
    pub(super) consumer: &'a Name,
    pub(super) record: RecordKey,
    pub(super) payload: PayloadHash,
    pub(super) lane: &'a LaneKey,
    pub(super) parked: Option<ParkedId>,
}

/// Applies one entry: all of it, or, refused, nothing.
pub(super) fn apply(
    batch: &mut Batch<'_>,
    emitted: &mut Emitted<'_>,
    entry: &Entry,
) -> Result<Result<Written, Refused>, Error> {
    let subject = Subject {
        consumer: &entry.consumer,
        record: entry.record,
        payload: entry.payload,
        lane: &entry.lane,
        parked: entry.parked,
    };
    if let Change::Conflict { letter, publish } = &entry.change {
        return letters::conflict(batch, emitted, &subject, letter, publish.as_ref());
    }
    let record = batch.record(subject.record.0)?;
    if let Some(refused) = refuse(batch, &subject, record)? {
        // Other data under the same id is a conflict: it stays until that is a dead letter.
        if refused == Refused::Done(subject.payload) {
            leave(batch, &subject)?;
        }
        return Ok(Err(refused));
    }
    match &entry.change {
        Change::Applied(effects) => applied(batch, emitted, &subject, record, effects),
        Change::Dead { letter, publish, hold } => {
            finish(batch, &subject, record)?;
            letters::bury(batch, &subject, (**letter).clone(), *hold)?;
            let rows = emitted.emit(batch, subject.consumer, publish.as_slice())?;
            Ok(Ok(Written { rows, started: 0 }))
        }
        Change::Failed(history) => {
            let attempts = Attempts {
                history: Some(history.clone()),
                started: 0,
            };
            try_on(batch, &subject, record, &attempts)?;
            Ok(Ok(Written::default()))
        }
        Change::Started => started(batch, &subject, record),
        Change::Parked(message, position) => park(batch, &subject, record, message, *position),
        // Taken out above: it is no change of the event's own.
        Change::Conflict { .. } => Ok(Ok(Written::default())),
    }
}

/// Whether an event may still change. One that waits in the parking may be changed only from its place there.
fn refuse(batch: &Batch<'_>, subject: &Subject<'_>, record: Option<Record>) -> Result<Option<Refused>, Error> {
    let parked = match record {
        Some(record) if record.state == RecordState::Done => {
            return Ok(Some(Refused::Done(PayloadHash(record.payload))));
        }
        Some(record) if record.state == RecordState::Parked => Some(Refused::Parked(PayloadHash(record.payload))),
        _ => None,
    };
    let Some(id) = subject.parked else {
        return Ok(parked);
    };
    let place = rows::parked_key(subject.consumer, subject.lane, id);
    Ok(match batch.get(Table::Parked, &place)? {
        Some(_) => None,
        // It ran from there already, or was purged, so long ago that its record is forgotten.
        None => Some(parked.unwrap_or(Refused::Done(subject.payload))),
    })
}

fn applied(
    batch: &mut Batch<'_>,
    emitted: &mut Emitted<'_>,
    subject: &Subject<'_>,
    record: Option<Record>,
    effects: &Effects,
) -> Result<Result<Written, Refused>, Error> {
    for (key, version) in &effects.reads {
        let row = batch.get(Table::State, &rows::state_key(key))?;
        if rows::read_state(row)?.version != *version {
            return Ok(Err(Refused::Conflict));
        }
    }
    finish(batch, subject, record)?;
    if subject.parked.is_some() {
        letters::remove(batch, subject.record)?;
    }
    let key = rows::lane_key(subject.consumer, subject.lane);
    if let Some(mut lane) = rows::load::<Lane>(batch, Table::Lanes, &key)?
        && lane.letters > 0
    {
        lane.applied += 1;
        put_lane(batch, key, &lane)?;
    }
    for write in &effects.writes {
        write_state(batch, write)?;
    }
    let rows = emitted.emit(batch, subject.consumer, &effects.outputs)?;
    Ok(Ok(Written { rows, started: 0 }))
}

/// The event is done with: recorded, and gone from everywhere else. Most events are recorded nowhere before, and then there is
/// nothing to delete.
fn finish(batch: &mut Batch<'_>, subject: &Subject<'_>, record: Option<Record>) -> Result<(), Error> {
    batch.remember(subject.record.0, Record::done(subject.payload.0));
    if record.is_some() || subject.parked.is_some() {
        let attempts = rows::record_key(subject.record);
        if batch.get(Table::Attempts, &attempts)?.is_some() {
            batch.remove(Table::Attempts, attempts);
        }
    }
    if let Some(id) = subject.parked {
        unpark(batch, subject.consumer, subject.lane, id)?;
    }
    Ok(())
}

fn started(
    batch: &mut Batch<'_>,
    subject: &Subject<'_>,
    record: Option<Record>,
) -> Result<Result<Written, Refused>, Error> {
    let key = rows::record_key(subject.record);
    let mut attempts: Attempts = rows::load(batch, Table::Attempts, &key)?.unwrap_or_default();
    attempts.started = attempts.started.saturating_add(1);
    try_on(batch, subject, record, &attempts)?;
    Ok(Ok(Written {
        rows: Vec::new(),
        started: attempts.started,
    }))
}

/// Keeps what was tried. An event in the parking stays parked.
fn try_on(
    batch: &mut Batch<'_>,
    subject: &Subject<'_>,
    record: Option<Record>,
    attempts: &Attempts,
) -> Result<(), Error> {
    let key = rows::record_key(subject.record);
    batch.put(Table::Attempts, key, store::encode(attempts)?);
    let is_parked = record.map_or(subject.parked.is_some(), |record| record.state == RecordState::Parked);
    let state = if is_parked {
        RecordState::Parked
    } else {
        RecordState::Trying
    };
    batch.remember(
        subject.record.0,
        Record {
            state,
            payload: subject.payload.0,
        },
    );
    Ok(())
}

fn park(
    batch: &mut Batch<'_>,
    subject: &Subject<'_>,
    record: Option<Record>,
    message: &Message,
    position: Position,
) -> Result<Result<Written, Refused>, Error> {
    if let Some(record) = record.filter(|record| record.state == RecordState::Parked) {
        return Ok(Err(Refused::Parked(PayloadHash(record.payload))));
    }
    let id = ParkedId(batch.number().cast_signed());
    let parked = Parked {
        record: subject.record,
        position,
        message: message.clone(),
    };
    put_parked(batch, subject, id, &parked)?;
    Ok(Ok(Written::default()))
}

/// Puts an event into the parking and says so in its record and its lane.
pub(super) fn put_parked(
    batch: &mut Batch<'_>,
    subject: &Subject<'_>,
    id: ParkedId,
    parked: &Parked,
) -> Result<(), Error> {
    let place = rows::parked_key(subject.consumer, subject.lane, id);
    batch.put(Table::Parked, place, store::encode(parked)?);
    batch.remember(
        subject.record.0,
        Record {
            state: RecordState::Parked,
            payload: subject.payload.0,
        },
    );
    let key = rows::lane_key(subject.consumer, subject.lane);
    let mut lane: Lane = rows::load(batch, Table::Lanes, &key)?.unwrap_or_default();
    lane.waiting += 1;
    put_lane(batch, key, &lane)
}

/// Takes an event out of the parking.
pub(super) fn unpark(batch: &mut Batch<'_>, consumer: &Name, lane: &LaneKey, id: ParkedId) -> Result<(), Error> {
    batch.remove(Table::Parked, rows::parked_key(consumer, lane, id));
    let key = rows::lane_key(consumer, lane);
    let mut lane: Lane = rows::load(batch, Table::Lanes, &key)?.unwrap_or_default();
    lane.waiting = lane.waiting.saturating_sub(1);
    put_lane(batch, key, &lane)
}

/// Takes an event that is over already out of the parking: nothing else would, and its lane would come back to it for ever. The
/// dead letter that it was put back from goes with it.
pub(super) fn leave(batch: &mut Batch<'_>, subject: &Subject<'_>) -> Result<(), Error> {
    let Some(id) = subject.parked else {
        return Ok(());
    };
    let place = rows::parked_key(subject.consumer, subject.lane, id);
    let parked: Option<Parked> = rows::load(batch, Table::Parked, &place)?;
    if parked.is_none_or(|parked| parked.record != subject.record) {
        return Ok(());
    }
    unpark(batch, subject.consumer, subject.lane, id)?;
    letters::remove_redriven(batch, subject.record, id)
}

/// Keeps a lane for as long as there is anything to keep. Without dead letters its count starts anew: nobody compares with it.
pub(super) fn put_lane(batch: &mut Batch<'_>, key: Bytes, lane: &Lane) -> Result<(), Error> {
    if lane.letters == 0 && lane.waiting == 0 && lane.held_by.is_none() {
        batch.remove(Table::Lanes, key);
    } else {
        batch.put(Table::Lanes, key, store::encode(lane)?);
    }
    Ok(())
}

fn write_state(batch: &mut Batch<'_>, write: &StateWrite) -> Result<(), Error> {
    let (key, value) = match write {
        StateWrite::Set(key, value) => (key, Some(value.clone())),
        StateWrite::Delete(key) => (key, None),
        StateWrite::Add(key, delta) => (key, Some(add(batch, key, *delta)?)),
    };
    let row = rows::state_key(key);
    match value {
        Some(value) => {
            let version = Version(batch.number());
            batch.put(Table::State, row, rows::write_state(version.0, &value));
        }
        None => batch.remove(Table::State, row),
    }
    Ok(())
}

/// A counter's new text. What is no number counts as 0: whoever set it knew that it was a counter to others.
fn add(batch: &Batch<'_>, key: &StateKey, delta: i64) -> Result<Bytes, Error> {
    let row = batch.get(Table::State, &rows::state_key(key))?;
    let value = rows::read_state(row)?.value.unwrap_or_default();
    let text = std::str::from_utf8(&value).unwrap_or_default();
    let sum = text.parse().unwrap_or(0_i64).saturating_add(delta);
    Ok(sum.to_string().into())
}
