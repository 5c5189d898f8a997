//! Acting on all dead letters beside a pipeline that runs them meanwhile.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;

use futures_util::future::{BoxFuture, ready};

use super::*;
use crate::ledger::suite::letter;
use crate::ledger::{DeadCounts, DeadPage};

/// After each page, its last letter is gone, and its first has run and died again.
struct Churning {
    letters: Mutex<BTreeMap<u64, DeadLetter>>,
    redriven: Mutex<Vec<DeadId>>,
}

impl Churning {
    fn new(numbers: impl Iterator<Item = u8>) -> Self {
        let place = |number: u8| (u64::from(number), letter(number, Reason::Trap));
        Self {
            letters: Mutex::new(numbers.map(place).collect()),
            redriven: Mutex::default(),
        }
    }

    fn page(&self, after: Option<DeadPlace>, limit: usize) -> DeadPage {
        let mut letters = self.letters.lock().unwrap();
        let from = after.map_or(0, |place| place.0 + 1);
        let page: Vec<(u64, DeadLetter)> = letters
            .range(from..)
            .take(limit)
            .map(|(at, letter)| (*at, letter.clone()))
            .collect();
        if let [(first, _), .., (last, _)] = page.as_slice() {
            letters.remove(last);
            let again = letters.remove(first).unwrap();
            let end = letters.keys().last().copied().unwrap_or_default().max(*last) + 1;
            letters.insert(end, again);
        }
        let more = page
            .last()
            .filter(|(last, _)| letters.range(last + 1..).next().is_some());
        DeadPage {
            next: more.map(|(last, _)| DeadPlace(*last)),
            letters: page.into_iter().map(|(_, letter)| letter).collect(),
        }
    }
}

impl DeadLetters for Churning {
    fn list<'a>(
        &'a self,
        _: &'a DeadFilter,
        after: Option<DeadPlace>,
        limit: usize,
    ) -> BoxFuture<'a, Result<DeadPage, Error>> {
        Box::pin(ready(Ok(self.page(after, limit))))
    }

    fn get(&self, _: DeadId) -> BoxFuture<'_, Result<Option<DeadLetter>, Error>> {
        Box::pin(ready(Ok(None)))
    }

    fn redrive(&self, ids: Vec<DeadId>) -> BoxFuture<'_, Result<Vec<Redriven>, Error>> {
        self.redriven.lock().unwrap().extend(&ids);
        let redriven = ids.into_iter().map(|id| {
            let letter = letter(id.0[0], Reason::Trap);
            Redriven {
                id,
                consumer: letter.consumer,
                lane: letter.lane,
                applied_meanwhile: 0,
            }
        });
        Box::pin(ready(Ok(redriven.collect())))
    }

    fn purge(&self, _: Vec<DeadId>) -> BoxFuture<'_, Result<Vec<DeadLetter>, Error>> {
        Box::pin(ready(Ok(Vec::new())))
    }

    fn count(&self) -> BoxFuture<'_, Result<DeadCounts, Error>> {
        let letters = self.letters.lock().unwrap();
        let each = letters
            .values()
            .map(|letter| (letter.consumer.clone(), letter.reason, 1));
        Box::pin(ready(Ok(each.collect())))
    }
}

#[tokio::test]
async fn redriving_all_beside_a_running_pipeline_ends_and_takes_each_once() {
    let letters = Churning::new(1..=250);
    let all = Which::Matching(DeadFilter::default());
    let done = redrive(&letters, &all, false).await.unwrap();
    let redriven = letters.redriven.lock().unwrap().clone();
    assert_eq!(done.count, 250);
    assert_eq!(redriven.len(), 250);
    assert_eq!(redriven.iter().collect::<BTreeSet<_>>().len(), 250);
}
