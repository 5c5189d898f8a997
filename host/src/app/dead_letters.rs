//! Dead letters, read and acted on many at a time: with a running host through [`Host`](super::Host), without one straight on the
//! ledger. Whatever their number, memory holds one page of them and the ids of the rest.

#[cfg(test)]
mod tests;

use std::collections::HashSet;

use serde::{Deserialize, Serialize};

use crate::crash::{self, Point};
use crate::event::key::LaneKey;
use crate::ledger::{DeadFilter, DeadId, DeadLetter, DeadLetters, DeadPlace, Error, Redriven};
use crate::outcome::Reason;
use crate::plan::Name;

/// Dead letters held whole at once: each may carry a megabyte.
const PAGE: usize = 100;
/// Dead letters that [`Done`] names; the rest it counts.
const NAMED_MAX: usize = 1_000;

/// Which dead letters are meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Which {
    /// These.
    Ids(Vec<DeadId>),
    /// All that match.
    Matching(DeadFilter),
}

/// What was done with dead letters that were asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Done {
    /// How many it was, or would be.
    pub count: usize,
    /// Whether nothing was done, only counted.
    pub dry_run: bool,
    /// The first 1,000 of them.
    pub letters: Vec<DoneLetter>,
}

/// What was done with one dead letter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct DoneLetter {
    /// Which.
    pub id: String,
    /// Whose.
    pub consumer: String,
    /// The ordering key of its event.
    pub key: String,
    /// How many later events of its key took effect in between.
    pub applied_meanwhile: u64,
}

/// The dead letters that match, oldest first, at most `limit` after the place given, each as `shown` makes it; and after which place
/// there are more.
///
/// # Errors
/// What the ledger says.
pub async fn list<T>(
    letters: &dyn DeadLetters,
    which: &DeadFilter,
    mut after: Option<DeadPlace>,
    limit: usize,
    shown: impl Fn(&DeadLetter) -> T,
) -> Result<(Vec<T>, Option<DeadPlace>), Error> {
    let mut list = Vec::new();
    loop {
        let page = letters.list(which, after, (limit - list.len()).min(PAGE)).await?;
        list.extend(page.letters.iter().map(&shown));
        after = page.next;
        if after.is_none() || list.len() >= limit {
            return Ok((list, after));
        }
    }
}

/// Puts dead letters back into their lanes. Without a running host, they run when it starts.
///
/// # Errors
/// What the ledger says; some may be back already: asking again does the rest.
pub async fn redrive(letters: &dyn DeadLetters, which: &Which, dry_run: bool) -> Result<Done, Error> {
    let found = find(letters, which).await?;
    if dry_run {
        return Ok(found.would_be());
    }
    let mut done = Done::default();
    for ids in found.ids.chunks(PAGE) {
        crash::at(Point::Redriving);
        let redriven = letters.redrive(ids.to_vec()).await?;
        crash::at(Point::Redriven);
        done.add(redriven.iter().map(DoneLetter::of_redriven));
    }
    Ok(done)
}

/// Forgets dead letters.
///
/// # Errors
/// As for [`redrive`].
pub async fn purge(letters: &dyn DeadLetters, which: &Which, dry_run: bool) -> Result<Done, Error> {
    let found = find(letters, which).await?;
    if dry_run {
        return Ok(found.would_be());
    }
    let mut done = Done::default();
    for ids in found.ids.chunks(PAGE) {
        let purged = letters.purge(ids.to_vec()).await?;
        done.add(purged.iter().map(DoneLetter::of));
    }
    Ok(done)
}

/// All that are meant, found before any is touched: what is redriven and fails again is a new dead letter of the same kind, and a walk that
/// acts as it goes would meet it again without end.
struct Found {
    ids: Vec<DeadId>,
    done: Done,
}

async fn find(letters: &dyn DeadLetters, which: &Which) -> Result<Found, Error> {
    let mut found = Found {
        ids: Vec::new(),
        done: Done::default(),
    };
    match which {
        Which::Ids(ids) => {
            for id in ids {
                found.add(letters.get(*id).await?.as_slice());
            }
        }
        Which::Matching(filter) => {
            // Those that die while we read are not meant: beside a plugin that fails there is no end of them.
            let number = count(letters, filter).await?;
            let (mut known, mut after) = (HashSet::new(), None);
            while found.ids.len() < number {
                let mut page = letters.list(filter, after, PAGE.min(number - found.ids.len())).await?;
                // One that was put back before and died again meanwhile comes twice.
                page.letters.retain(|letter| known.insert(letter.id));
                found.add(&page.letters);
                after = page.next;
                if after.is_none() {
                    break;
                }
            }
        }
    }
    Ok(found)
}

/// How many match, now.
async fn count(letters: &dyn DeadLetters, which: &DeadFilter) -> Result<usize, Error> {
    let counts = letters.count().await?;
    let is_meant = |(consumer, reason, _): &&(Name, Reason, u64)| {
        which.consumer.as_ref().is_none_or(|name| name == consumer) && which.reason.is_none_or(|of| of == *reason)
    };
    let number: u64 = counts.iter().filter(is_meant).map(|(_, _, count)| count).sum();
    Ok(usize::try_from(number).unwrap_or(usize::MAX))
}

impl Found {
    fn add(&mut self, letters: &[DeadLetter]) {
        self.ids.extend(letters.iter().map(|letter| letter.id));
        self.done.add(letters.iter().map(DoneLetter::of));
    }

    fn would_be(self) -> Done {
        Done {
            dry_run: true,
            ..self.done
        }
    }
}

impl Done {
    fn add(&mut self, letters: impl ExactSizeIterator<Item = DoneLetter>) {
        self.count += letters.len();
        let room = NAMED_MAX.saturating_sub(self.letters.len());
        self.letters.extend(letters.take(room));
    }
}

impl DoneLetter {
    fn of(letter: &DeadLetter) -> Self {
        Self::new(letter.id, &letter.consumer, &letter.lane, letter.applied_meanwhile)
    }

    fn of_redriven(redriven: &Redriven) -> Self {
        Self::new(
            redriven.id,
            &redriven.consumer,
            &redriven.lane,
            redriven.applied_meanwhile,
        )
    }

    fn new(id: DeadId, consumer: &Name, lane: &LaneKey, applied_meanwhile: u64) -> Self {
        Self {
            id: id.to_string(),
            consumer: consumer.to_string(),
            key: String::from_utf8_lossy(&lane.0).into_owned(),
            applied_meanwhile,
        }
    }
}
