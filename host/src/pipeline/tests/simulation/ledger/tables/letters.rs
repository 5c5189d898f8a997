//! What people ask of dead letters.

use std::collections::BTreeMap;

use super::{Letter, Parked, State, Tables};
use crate::ledger::{DeadFilter, DeadId, DeadLetter, DeadPage, DeadPlace, ParkedId, Redriven};
use crate::outcome::Reason;
use crate::plan::Name;

impl Tables {
    pub(in super::super) fn letters(&self, which: &DeadFilter, after: Option<DeadPlace>, limit: usize) -> DeadPage {
        let is_wanted = |row: &&Letter| {
            which
                .consumer
                .as_ref()
                .is_none_or(|consumer| *consumer == row.letter.consumer)
                && which.reason.is_none_or(|reason| reason == row.letter.reason)
                && after.is_none_or(|after| row.place > after.0)
        };
        let mut rows: Vec<&Letter> = self.letters.values().filter(is_wanted).collect();
        rows.sort_by_key(|row| row.place);
        let is_all = rows.len() <= limit;
        rows.truncate(limit);
        DeadPage {
            next: rows.last().filter(|_| !is_all).map(|row| DeadPlace(row.place)),
            letters: rows.into_iter().map(Letter::show).collect(),
        }
    }

    pub(in super::super) fn letter(&self, id: DeadId) -> Option<DeadLetter> {
        self.letters.get(&id).map(Letter::show)
    }

    pub(in super::super) fn count(&self) -> Vec<(Name, Reason, u64)> {
        let mut counts: BTreeMap<(Name, Reason), u64> = BTreeMap::new();
        for row in self.letters.values() {
            *counts
                .entry((row.letter.consumer.clone(), row.letter.reason))
                .or_default() += 1;
        }
        counts
            .into_iter()
            .map(|((consumer, reason), count)| (consumer, reason, count))
            .collect()
    }

    pub(in super::super) fn redrive(&mut self, id: DeadId) -> Option<Redriven> {
        let number = self.number().cast_signed();
        let row = self
            .letters
            .get_mut(&id)
            .filter(|row| row.letter.reason != Reason::OutputRefused)?;
        let lane = (row.letter.consumer.clone(), row.letter.lane.clone());
        let redriven = Redriven {
            id,
            consumer: lane.0.clone(),
            lane: lane.1.clone(),
            applied_meanwhile: row.letter.applied_meanwhile,
        };
        if row.parked.is_none() {
            let place = ParkedId(if self.held.get(&lane) == Some(&id) {
                -number
            } else {
                number
            });
            row.parked = Some(place);
            let (position, message, payload) = (row.letter.position, row.letter.message.clone(), row.payload);
            self.park(
                lane,
                place,
                payload,
                Parked {
                    record: id,
                    position,
                    message,
                },
            );
        }
        Some(redriven)
    }

    pub(in super::super) fn purge(&mut self, id: DeadId) -> Option<DeadLetter> {
        let row = self.forget_letter(id)?;
        if let Some(place) = row.parked {
            let lane = (row.letter.consumer.clone(), row.letter.lane.clone());
            self.parked.remove(&(lane, place));
            self.records.insert(id, (State::Done, row.payload));
            self.attempts.remove(&id);
        }
        Some(row.show())
    }
}

impl Letter {
    fn show(&self) -> DeadLetter {
        DeadLetter {
            redriving: self.parked.is_some(),
            ..self.letter.clone()
        }
    }
}
