//! Dead letters, read and acted on many at a time: with a running host through [`Host`](super::Host), without one straight on the
//! ledger. Whatever their number, memory holds one page of them and the ids of the rest.

use serde::{Deserialize, Serialize};

use crate::event::key::LaneKey;
use crate::ledger::{DeadFilter, DeadId, DeadLetter, DeadLetters, Error, Redriven};
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

/// The dead letters that match, oldest first, at most `limit` after the one given, each as `shown` makes it.
///
/// # Errors
/// What the ledger says.
pub async fn list<T>(
    letters: &dyn DeadLetters,
    which: &DeadFilter,
    mut after: Option<DeadId>,
    limit: usize,
    shown: impl Fn(&DeadLetter) -> T,
) -> Result<Vec<T>, Error> {
    let mut list = Vec::new();
    while list.len() < limit {
        let wanted = (limit - list.len()).min(PAGE);
        let page = letters.list(which, after, wanted).await?;
        after = page.last().map(|letter| letter.id);
        list.extend(page.iter().map(&shown));
        if page.len() < wanted {
            break;
        }
    }
    Ok(list)
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
        let redriven = letters.redrive(ids.to_vec()).await?;
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
        Which::Matching(filter) => loop {
            let page = letters.list(filter, found.ids.last().copied(), PAGE).await?;
            found.add(&page);
            if page.len() < PAGE {
                break;
            }
        },
    }
    Ok(found)
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
