//! Dead letters: buried in the transaction that gives the event up, put back, forgotten.

use std::ops::Bound;

use bytes::Bytes;
use futures_util::future::BoxFuture;

use super::commit::{self, Subject};
use super::outbox::Emitted;
use super::rows::{self, Lane, Letter, Ordered, Parked};
use super::{Embedded, Error};
use crate::ledger::{
    DeadFilter, DeadId, DeadLetter, DeadLetters, DeadPage, DeadPlace, Output, ParkedId, PayloadHash, Redriven, Refused,
    Written,
};
use crate::outcome::Reason;
use crate::plan::Name;
use crate::store::{self, Batch, Record, Table, Tables, Weight};

type Stored<T> = Result<T, store::Error>;

/// Dead letters that one piece of work handles at most.
const CHUNK: usize = 256;

/// Writes the dead letter of an event, in place of the one it may have been put back from.
pub(super) fn bury(batch: &mut Batch<'_>, subject: &Subject<'_>, letter: DeadLetter, hold: bool) -> Stored<()> {
    // This lets go of the lane, too.
    remove(batch, letter.id)?;
    let key = rows::lane_key(&letter.consumer, &letter.lane);
    let mut lane: Lane = rows::load(batch, Table::Lanes, &key)?.unwrap_or_default();
    lane.letters += 1;
    if hold {
        lane.held_by = Some(letter.id);
    }
    commit::put_lane(batch, key, &lane)?;
    count(batch, &letter, 1)?;
    let order = batch.number();
    let ordered = Ordered {
        id: letter.id,
        consumer: letter.consumer.clone(),
        reason: letter.reason,
    };
    batch.put(Table::LetterOrder, rows::number_key(order), store::encode(&ordered)?);
    put(
        batch,
        &Letter {
            order,
            applied: lane.applied,
            parked: None,
            payload: subject.payload.0,
            letter,
        },
    )
}

/// Writes the dead letter of a conflict: beside the event, whose record stays as it is. Its own id is recorded as well, so that a
/// redelivery does not bring it back after it was purged. If the event came from the parking, it leaves it.
pub(super) fn conflict(
    batch: &mut Batch<'_>,
    emitted: &mut Emitted<'_>,
    subject: &Subject<'_>,
    letter: &DeadLetter,
    publish: Option<&Output>,
) -> Stored<Result<Written, Refused>> {
    commit::leave(batch, subject)?;
    let is_recorded = letter.id != subject.record && batch.record(letter.id.0)?.is_some();
    if is_recorded || load(batch, letter.id)?.is_some() {
        return Ok(Err(Refused::Done(subject.payload)));
    }
    batch.remember(letter.id.0, Record::done(subject.payload.0));
    bury(batch, subject, letter.clone(), false)?;
    let rows = emitted.emit(batch, subject.consumer, publish)?;
    Ok(Ok(Written { rows, started: 0 }))
}

/// Removes a dead letter, if there is one, and lets go of the lane that waits for it.
pub(super) fn remove(batch: &mut Batch<'_>, id: DeadId) -> Stored<Option<Letter>> {
    let Some(letter) = load(batch, id)? else {
        return Ok(None);
    };
    batch.remove(Table::Letters, rows::record_key(id));
    batch.remove(Table::LetterOrder, rows::number_key(letter.order));
    count(batch, &letter.letter, -1)?;
    let key = rows::lane_key(&letter.letter.consumer, &letter.letter.lane);
    let mut lane: Lane = rows::load(batch, Table::Lanes, &key)?.unwrap_or_default();
    lane.letters = lane.letters.saturating_sub(1);
    lane.held_by = lane.held_by.filter(|held_by| *held_by != id);
    commit::put_lane(batch, key, &lane)?;
    Ok(Some(letter))
}

/// Removes a dead letter if its event was put back to this place.
pub(super) fn remove_redriven(batch: &mut Batch<'_>, id: DeadId, place: ParkedId) -> Stored<()> {
    if load(batch, id)?.is_some_and(|letter| letter.parked == Some(place)) {
        remove(batch, id)?;
    }
    Ok(())
}

/// Puts an event back into its lane. One that was put back already stays where it is, and one that took effect (only an output of it
/// was refused) must never run again.
fn redrive(batch: &mut Batch<'_>, id: DeadId) -> Stored<Option<Redriven>> {
    let Some(mut row) = load(batch, id)? else {
        return Ok(None);
    };
    if row.letter.reason == Reason::OutputRefused {
        return Ok(None);
    }
    let subject = subject_of(&row);
    let key = rows::lane_key(subject.consumer, subject.lane);
    let lane: Lane = rows::load(batch, Table::Lanes, &key)?.unwrap_or_default();
    if row.parked.is_none() {
        let number = batch.number().cast_signed();
        // Places at the end ascend from 1, those at the front descend from -1.
        let is_first = lane.held_by == Some(id);
        let place = ParkedId(if is_first { -number } else { number });
        let parked = Parked {
            record: id,
            position: row.letter.position,
            message: row.letter.message.clone(),
        };
        commit::put_parked(batch, &subject, place, &parked)?;
        row.parked = Some(place);
        put(batch, &row)?;
    }
    Ok(Some(Redriven {
        id,
        applied_meanwhile: lane.applied.saturating_sub(row.applied),
        consumer: row.letter.consumer,
        lane: row.letter.lane,
    }))
}

/// Forgets a dead letter. If its event was put back and waits, it is taken out again: it stays recorded and never runs.
fn purge(batch: &mut Batch<'_>, id: DeadId) -> Stored<Option<DeadLetter>> {
    let Some(row) = load(batch, id)? else {
        return Ok(None);
    };
    let shown = show(&row, applied_in(batch, &row)?);
    if let Some(place) = row.parked {
        let subject = subject_of(&row);
        commit::unpark(batch, subject.consumer, subject.lane, place)?;
        batch.remember(id.0, Record::done(row.payload));
        batch.remove(Table::Attempts, rows::record_key(id));
    }
    remove(batch, id)?;
    Ok(Some(shown))
}

fn subject_of(row: &Letter) -> Subject<'_> {
    Subject {
        consumer: &row.letter.consumer,
        record: row.letter.id,
        payload: PayloadHash(row.payload),
        lane: &row.letter.lane,
        parked: row.parked,
    }
}

fn load(batch: &Batch<'_>, id: DeadId) -> Stored<Option<Letter>> {
    rows::load(batch, Table::Letters, &rows::record_key(id))
}

fn put(batch: &mut Batch<'_>, letter: &Letter) -> Stored<()> {
    let key = rows::record_key(letter.letter.id);
    batch.put(Table::Letters, key, store::encode(letter)?);
    Ok(())
}

fn count(batch: &mut Batch<'_>, letter: &DeadLetter, change: i64) -> Stored<()> {
    let key = rows::count_key(&letter.consumer, letter.reason);
    let count: u64 = rows::load(batch, Table::Meta, &key)?.unwrap_or_default();
    match count.saturating_add_signed(change) {
        0 => batch.remove(Table::Meta, key),
        count => batch.put(Table::Meta, key, store::encode(&count)?),
    }
    Ok(())
}

fn applied_in(batch: &Batch<'_>, row: &Letter) -> Stored<u64> {
    let key = rows::lane_key(&row.letter.consumer, &row.letter.lane);
    let lane: Option<Lane> = rows::load(batch, Table::Lanes, &key)?;
    Ok(lane.unwrap_or_default().applied)
}

/// The letter as others see it, with what the ledger keeps of it.
fn show(row: &Letter, applied: u64) -> DeadLetter {
    DeadLetter {
        applied_meanwhile: applied.saturating_sub(row.applied),
        redriving: row.parked.is_some(),
        ..row.letter.clone()
    }
}

fn load_committed(tables: &Tables, id: DeadId) -> Stored<Option<Letter>> {
    let row = tables.get(Table::Letters, &id.0)?;
    row.map(|row| store::decode(&row)).transpose()
}

fn show_committed(tables: &Tables, row: &Letter) -> Stored<DeadLetter> {
    let lane = rows::lane_key(&row.letter.consumer, &row.letter.lane);
    let lane = tables.get(Table::Lanes, &lane)?;
    let lane: Option<Lane> = lane.map(|lane| store::decode(&lane)).transpose()?;
    Ok(show(row, lane.unwrap_or_default().applied))
}

fn read(tables: &Tables, id: DeadId) -> Stored<Option<DeadLetter>> {
    let row = load_committed(tables, id)?;
    row.map(|row| show_committed(tables, &row)).transpose()
}

fn list(tables: &Tables, which: &DeadFilter, after: Option<DeadPlace>, limit: usize) -> Stored<DeadPage> {
    let from = rows::number_key(after.map_or(0, |after| after.0.saturating_add(1)));
    let mut page = DeadPage::default();
    let mut last = None;
    for row in tables.range(Table::LetterOrder, Bound::Included(&from), &[]) {
        let (key, value) = row?;
        let ordered: Ordered = store::decode(&value)?;
        if !matches(which, &ordered) {
            continue;
        }
        if page.letters.len() >= limit {
            page.next = last;
            break;
        }
        let place = DeadPlace(rows::read_number(&key)?);
        // It may be gone since, or have died again, and then its turn comes later.
        if let Some(row) = load_committed(tables, ordered.id)?.filter(|row| row.order == place.0) {
            page.letters.push(show_committed(tables, &row)?);
            last = Some(place);
        }
    }
    Ok(page)
}

fn matches(which: &DeadFilter, ordered: &Ordered) -> bool {
    which
        .consumer
        .as_ref()
        .is_none_or(|consumer| *consumer == ordered.consumer)
        && which.reason.is_none_or(|reason| reason == ordered.reason)
}

fn counts(tables: &Tables) -> Stored<Vec<(Name, Reason, u64)>> {
    let prefix: Bytes = Table::count_key().done();
    tables
        .prefix(Table::Meta, &prefix)
        .map(|row| {
            let (key, value) = row?;
            let (consumer, reason) = rows::read_count_key(&key)?;
            Ok((consumer, reason, store::decode(&value)?))
        })
        .collect()
}

impl Embedded {
    /// Does one thing to each of many dead letters, a piece of work for some at a time, so that commits go on in between.
    async fn each<T: Send + 'static>(
        &self,
        ids: Vec<DeadId>,
        act: fn(&mut Batch<'_>, DeadId) -> Stored<Option<T>>,
    ) -> Result<Vec<T>, Error> {
        let mut done = Vec::with_capacity(ids.len());
        for ids in ids.chunks(CHUNK) {
            let ids = ids.to_vec();
            let weight = Weight {
                entries: ids.len(),
                bytes: 1024 * ids.len(),
            };
            let acted = self.store.commit(weight, move |batch| {
                let each = ids.into_iter().map(|id| act(batch, id));
                each.filter_map(Result::transpose).collect::<Stored<Vec<T>>>()
            });
            done.extend(acted.await?);
        }
        Ok(done)
    }
}

impl DeadLetters for Embedded {
    fn list<'a>(
        &'a self,
        which: &'a DeadFilter,
        after: Option<DeadPlace>,
        limit: usize,
    ) -> BoxFuture<'a, Result<DeadPage, Error>> {
        let which = which.clone();
        let letters = self.store.read_apart(move |tables| list(tables, &which, after, limit));
        Box::pin(async move { Ok(letters.await?) })
    }

    fn get(&self, id: DeadId) -> BoxFuture<'_, Result<Option<DeadLetter>, Error>> {
        let letter = self.store.read_apart(move |tables| read(tables, id));
        Box::pin(async move { Ok(letter.await?) })
    }

    fn redrive(&self, ids: Vec<DeadId>) -> BoxFuture<'_, Result<Vec<Redriven>, Error>> {
        Box::pin(self.each(ids, redrive))
    }

    fn purge(&self, ids: Vec<DeadId>) -> BoxFuture<'_, Result<Vec<DeadLetter>, Error>> {
        Box::pin(self.each(ids, purge))
    }

    fn count(&self) -> BoxFuture<'_, Result<Vec<(Name, Reason, u64)>, Error>> {
        let counts = self.store.read_apart(counts);
        Box::pin(async move { Ok(counts.await?) })
    }
}
