//! The outbox: what one write emits lies in one row, a sheet, so that the engine keeps and deletes one row instead of one for
//! each output. Of a sheet that is confirmed in part a second row, its note, says what is left.
//!
//! Sheets do not overlap and ascend as ids do: an id belongs to the last sheet that begins at it or before it.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use futures_util::future::BoxFuture;

use super::{Embedded, rows};
use crate::ledger::{Error, Outbox, Output, Row, RowId};
use crate::plan::Name;
use crate::store::{self, Batch, Key, Ride, Rider, Table, Tables};

type Stored<T> = Result<T, store::Error>;

/// A sheet is closed at so many bytes.
const SHEET_BYTES: usize = 256 * 1024;

/// Confirmed rows that wait for a batch to ride with; beyond, one is asked for.
const CONFIRMED_MAX: usize = 1000;

/// A sheet as memory knows it.
#[derive(Default)]
pub(super) struct Sheet {
    /// The id it begins at, and is known by.
    first: u64,
    /// Ids that are not confirmed, ascending.
    left: Vec<u64>,
    /// Whether there is a note.
    is_noted: bool,
}

/// What one write emits.
pub(super) struct Emitted<'a> {
    logs: &'a BTreeSet<Name>,
    open: Vec<u8>,
    ids: Vec<u64>,
    sheets: Vec<Sheet>,
}

impl<'a> Emitted<'a> {
    /// Outputs onto the streams in `logs` go straight into their embedded logs.
    pub(super) fn new(logs: &'a BTreeSet<Name>) -> Self {
        Self {
            logs,
            open: Vec::new(),
            ids: Vec::new(),
            sheets: Vec::new(),
        }
    }

    /// Appends outputs onto embedded logs, and puts the others into the outbox; returns the rows of the latter.
    pub(super) fn emit<'o>(
        &mut self,
        batch: &mut Batch<'_>,
        consumer: &Name,
        outputs: impl IntoIterator<Item = &'o Output>,
    ) -> Stored<Vec<RowId>> {
        let mut rows = Vec::new();
        for output in outputs {
            if self.logs.contains(&output.stream) {
                batch.append(&output.stream, &output.message)?;
            } else {
                rows.push(self.put(batch, consumer, output)?);
            }
        }
        Ok(rows)
    }

    fn put(&mut self, batch: &mut Batch<'_>, consumer: &Name, output: &Output) -> Stored<RowId> {
        let id = batch.number();
        self.open = store::encode_onto(std::mem::take(&mut self.open), &(id, consumer, output))?;
        self.ids.push(id);
        if self.open.len() >= SHEET_BYTES {
            self.close(batch)?;
        }
        Ok(RowId(id))
    }

    /// Writes what is not written yet. The sheets are for [`Sheets::add`], once they are durable.
    pub(super) fn finish(mut self, batch: &mut Batch<'_>) -> Stored<Vec<Sheet>> {
        self.close(batch)?;
        Ok(self.sheets)
    }

    fn close(&mut self, batch: &mut Batch<'_>) -> Stored<()> {
        let Some(first) = self.ids.first().copied() else {
            return Ok(());
        };
        batch.add(Table::Outbox, &rows::number_key(first), &self.open)?;
        self.open.clear();
        self.sheets.push(Sheet {
            first,
            left: std::mem::take(&mut self.ids),
            is_noted: false,
        });
        Ok(())
    }
}

/// The sheets there are, and confirmed rows that wait for a batch to be forgotten with. Bounded by the rows there are; if that
/// batch fails the rows stay in the outbox, and are published once more, under their ids, after the next start.
#[derive(Default)]
pub(super) struct Sheets(Mutex<State>);

#[derive(Default)]
struct State {
    sheets: BTreeMap<u64, Sheet>,
    confirmed: Vec<u64>,
}

impl Sheets {
    /// Notes sheets that were written, or found.
    pub(super) fn add(&self, sheets: Vec<Sheet>) {
        let mut state = self.state();
        for sheet in sheets {
            state.sheets.entry(sheet.first).or_insert(sheet);
        }
    }

    /// The first id of the sheet that an id may be in.
    fn begin_of(&self, id: u64) -> u64 {
        let state = self.state();
        let sheet = state.sheets.range(..=id).next_back();
        sheet.map_or(0, |(first, _)| *first)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Rider for Sheets {
    fn ride(&self, batch: &mut Batch<'_>, _: Ride) -> Stored<()> {
        let mut state = self.state();
        let mut confirmed = std::mem::take(&mut state.confirmed);
        confirmed.sort_unstable();
        let mut confirmed = confirmed.as_slice();
        // From the last sheet to the first, as the ids of one are those from its first on that no later one took.
        while let Some(last) = confirmed.last() {
            let Some((first, sheet)) = state.sheets.range_mut(..=last).next_back() else {
                return Ok(());
            };
            let first = *first;
            let (before, of_sheet) = confirmed.split_at(confirmed.partition_point(|id| *id < first));
            sheet.left.retain(|id| of_sheet.binary_search(id).is_err());
            confirmed = before;
            if sheet.write(batch)? {
                state.sheets.remove(&first);
            }
        }
        Ok(())
    }
}

impl Sheet {
    /// Writes what is left; says whether that is nothing.
    fn write(&mut self, batch: &mut Batch<'_>) -> Stored<bool> {
        if !self.left.is_empty() {
            self.is_noted = true;
            batch.add(Table::Outbox, &note_key(self.first), &store::encode(&self.left)?)?;
            return Ok(false);
        }
        batch.forget(Table::Outbox, &rows::number_key(self.first))?;
        if self.is_noted {
            batch.forget(Table::Outbox, &note_key(self.first))?;
        }
        Ok(true)
    }
}

/// Stands right behind its sheet.
fn note_key(first: u64) -> Bytes {
    Key::new().number(first).tag(0).done()
}

impl Outbox for Embedded {
    fn pending(&self, after: Option<RowId>, limit: usize) -> BoxFuture<'_, Result<Vec<Row>, Error>> {
        let from = after.map_or(0, |after| after.0.saturating_add(1));
        let begin = self.sheets.begin_of(from);
        let pending = self.store.read_apart(move |tables| read(tables, begin, from, limit));
        Box::pin(async move {
            let (rows, sheets) = pending.await?;
            self.sheets.add(sheets);
            Ok(rows)
        })
    }

    fn confirmed(&self, rows: Vec<RowId>) {
        let waiting = {
            let confirmed = &mut self.sheets.state().confirmed;
            confirmed.extend(rows.iter().map(|row| row.0));
            confirmed.len()
        };
        if waiting >= CONFIRMED_MAX {
            self.store.nudge();
        }
    }
}

/// Rows with ids of at least `from`, and the sheets that they are in, of which the first begins at `begin`.
fn read(tables: &Tables, begin: u64, from: u64, limit: usize) -> Stored<(Vec<Row>, Vec<Sheet>)> {
    let (mut found, mut sheets) = (Vec::new(), Vec::new());
    let begin = rows::number_key(begin);
    let mut stored = tables.range(Table::Outbox, Bound::Included(&begin), &[]).peekable();
    while let Some(row) = stored.next() {
        let (key, sheet) = row?;
        let first = rows::read_number(&key)?;
        let note_key = note_key(first);
        let note = stored.next_if(|row| row.as_ref().is_ok_and(|(key, _)| *key == note_key));
        let note: Option<Vec<u64>> = note.map(|row| store::decode(&row?.1)).transpose()?;
        let mut of_sheet = read_sheet(&sheet)?;
        if let Some(left) = &note {
            of_sheet.retain(|row| left.binary_search(&row.id.0).is_ok());
        }
        sheets.push(Sheet {
            first,
            left: of_sheet.iter().map(|row| row.id.0).collect(),
            is_noted: note.is_some(),
        });
        found.extend(of_sheet.into_iter().filter(|row| row.id.0 >= from));
        if found.len() >= limit {
            break;
        }
    }
    found.truncate(limit);
    Ok((found, sheets))
}

pub(super) fn read_sheet(mut sheet: &[u8]) -> Stored<Vec<Row>> {
    let mut rows = Vec::new();
    while !sheet.is_empty() {
        let ((id, consumer, output), rest) = store::decode_first(sheet)?;
        let id = RowId(id);
        rows.push(Row { id, consumer, output });
        sheet = rest;
    }
    Ok(rows)
}
