//! What the host needs of a ledger: know an event, commit what it caused, keep what waits. Each implementation passes
//! `ledger/suite.rs`.
//!
//! The one rule: everything an event causes (its record, its state writes, its outputs, its dead letter) becomes durable in
//! one transaction or not at all, and that transaction is refused if the event has taken effect before.

pub mod embedded;
#[cfg(test)]
pub(crate) mod suite;

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::broker::Position;
use crate::clock::Timestamp;
use crate::event::key::LaneKey;
use crate::event::{Event, Message};
use crate::outcome::{Attempt, Reason};
use crate::plan::Name;

pub use crate::store::Trouble;

/// Records and effects. Tasks share it; cloning the `Arc` around it is all a handle costs.
pub trait Ledger: Send + Sync {
    /// What is known of each event, in the order asked.
    ///
    /// # Errors
    /// [`Error::Unavailable`]: hold the events and ask again; never run without the answer.
    fn look_up(&self, keys: Vec<RecordKey>) -> BoxFuture<'_, Result<Vec<Known>, Error>>;

    /// Makes entries durable, each on its own: all of an entry or nothing. Returns when they are, in the order given. Entries
    /// of one call are applied in their order.
    ///
    /// # Errors
    /// [`Error::Unavailable`]: nothing was written; write the same entries again. What is durable is never reported failed, or its own
    /// repetition would be refused as somebody else's. Only of a ledger that is closed meanwhile does the next start know.
    fn write(&self, entries: Arc<Vec<Entry>>) -> BoxFuture<'_, Result<Vec<Result<Written, Refused>>, Error>>;

    /// Reads committed state.
    ///
    /// # Errors
    /// [`Error::Unavailable`]
    fn read_state<'a>(&'a self, key: &'a StateKey) -> BoxFuture<'a, Result<Read, Error>>;

    /// Committed keys of a bucket after `after`, in order, at most `limit`.
    ///
    /// # Errors
    /// [`Error::Unavailable`]
    fn list_state<'a>(
        &'a self,
        bucket: &'a StateBucket,
        after: Option<&'a str>,
        limit: usize,
    ) -> BoxFuture<'a, Result<Vec<String>, Error>>;

    /// What an earlier host may have taken of a consumer's stream; `None` if there was none, or since [`Ledger::recovered`].
    ///
    /// # Errors
    /// [`Error::Unavailable`]
    fn taken_before<'a>(&'a self, consumer: &'a Name) -> BoxFuture<'a, Result<Option<TakenBefore>, Error>>;

    /// The consumer has been through everything that it may have had in hand when an earlier host stopped, cleanly or not: old
    /// records may go again. To be called once after every start.
    fn recovered(&self, consumer: &Name);

    /// Durably notes, before they are given out, that positions up to this one may be taken.
    ///
    /// # Errors
    /// [`Error::Unavailable`]
    fn mark_taken<'a>(&'a self, consumer: &'a Name, upto: Position) -> BoxFuture<'a, Result<(), Error>>;

    /// Why it holds up those who write to it, if it does and knows.
    fn trouble(&self) -> Option<Trouble> {
        None
    }
}

/// Outputs that were committed and are not confirmed.
pub trait Outbox: Send + Sync {
    /// Rows after `after`, in order of commit, at most `limit`. Only read after a restart or an outage.
    ///
    /// # Errors
    /// [`Error::Unavailable`]
    fn pending(&self, after: Option<RowId>, limit: usize) -> BoxFuture<'_, Result<Vec<Row>, Error>>;

    /// Forgets confirmed rows, soon: a crash before that publishes them again under the same id.
    fn confirmed(&self, rows: Vec<RowId>);
}

/// Lanes whose events wait in the ledger.
pub trait Parking: Send + Sync {
    /// The parked lanes of a consumer and how many events wait in each.
    ///
    /// # Errors
    /// [`Error::Unavailable`]
    fn lanes<'a>(&'a self, consumer: &'a Name) -> BoxFuture<'a, Result<Vec<ParkedLane>, Error>>;

    /// The first events of a parked lane, in order, at most `limit`.
    ///
    /// # Errors
    /// [`Error::Unavailable`]
    fn first<'a>(
        &'a self,
        consumer: &'a Name,
        lane: &'a LaneKey,
        limit: usize,
    ) -> BoxFuture<'a, Result<Vec<ParkedEvent>, Error>>;
}

/// What could not be handled, kept with everything needed to understand it and run it again.
pub trait DeadLetters: Send + Sync {
    /// Dead letters that match, oldest first, at most `limit`, after the place given. Places stay what they are, whatever becomes of
    /// the letters; one whose event dies again gets a new place, at the end.
    ///
    /// # Errors
    /// [`Error::Unavailable`]
    fn list<'a>(
        &'a self,
        which: &'a DeadFilter,
        after: Option<DeadPlace>,
        limit: usize,
    ) -> BoxFuture<'a, Result<DeadPage, Error>>;

    /// One of them.
    ///
    /// # Errors
    /// [`Error::Unavailable`]
    fn get(&self, id: DeadId) -> BoxFuture<'_, Result<Option<DeadLetter>, Error>>;

    /// Puts events back into their lanes, parked: at the front of a held lane, else behind what waits there; their dead letters
    /// are gone when they have run. In one transaction each. Says what was done with each id that exists.
    ///
    /// # Errors
    /// [`Error::Unavailable`]
    fn redrive(&self, ids: Vec<DeadId>) -> BoxFuture<'_, Result<Vec<Redriven>, Error>>;

    /// Forgets dead letters for good; a lane held by one goes on. Their events stay recorded, so they never run again. Says which existed.
    ///
    /// # Errors
    /// [`Error::Unavailable`]
    fn purge(&self, ids: Vec<DeadId>) -> BoxFuture<'_, Result<Vec<DeadLetter>, Error>>;

    /// How many there are, by consumer and reason.
    ///
    /// # Errors
    /// [`Error::Unavailable`]
    fn count(&self) -> BoxFuture<'_, Result<DeadCounts, Error>>;
}

/// What an event is known by in the ledger: 128 bits of a hash over the consumer's name and the event's source and id.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RecordKey(pub [u8; 16]);

impl RecordKey {
    /// The key of an event for a consumer.
    #[must_use]
    pub fn of(consumer: &Name, event: &Event) -> Self {
        Self(digest(
            &[consumer.as_str(), &event.source, &event.id].map(str::as_bytes),
        ))
    }

    /// The key of a message that is no event, known by its place: the same delivery is the same dead letter.
    #[must_use]
    pub fn of_place(consumer: &Name, stream: &Name, position: Position) -> Self {
        Self(digest(&[
            consumer.as_str().as_bytes(),
            b"\0place",
            stream.as_str().as_bytes(),
            &position.0.to_be_bytes(),
        ]))
    }

    /// The key of an event whose id was used before for other data.
    #[must_use]
    pub fn of_conflict(record: Self, payload: PayloadHash) -> Self {
        Self(digest(&[b"\0conflict", &record.0, &payload.0.to_be_bytes()]))
    }

    /// The key of an output that its broker refuses.
    #[must_use]
    pub fn of_output(id: &str) -> Self {
        Self(digest(&[b"\0output", id.as_bytes()]))
    }

    /// The id of the event's output number `index`: a pure function of consumer, event and index, so that publishing it again after
    /// a crash is recognised by whoever dedupes by id.
    #[must_use]
    pub fn output_id(&self, index: usize) -> String {
        format!("{self}-{index}")
    }
}

impl fmt::Display for RecordKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.0))
    }
}

impl std::str::FromStr for RecordKey {
    type Err = BadRecordKey;

    fn from_str(text: &str) -> Result<Self, BadRecordKey> {
        let bad = || BadRecordKey(text.chars().take(64).collect());
        let is_hex = text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        let number = is_hex.then(|| u128::from_str_radix(text, 16).ok()).flatten();
        Ok(Self(number.ok_or_else(bad)?.to_be_bytes()))
    }
}

/// The text is no id of a dead letter.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("\"{0}\" is no id of a dead letter: it has 32 hex digits")]
pub struct BadRecordKey(String);

impl fmt::Debug for RecordKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The first 128 bits of SHA-256 over the parts, each with its length before it. SHA and not a faster hash: ids come from outside,
/// and whoever could make two of them collide could make an event vanish.
fn digest(parts: &[&[u8]]) -> [u8; 16] {
    let mut hasher = Sha256::new();
    for part in parts {
        hasher.update((part.len() as u64).to_le_bytes());
        hasher.update(part);
    }
    let hash = hasher.finalize();
    std::array::from_fn(|i| hash.get(i).copied().unwrap_or_default())
}

/// A hash of an event's data, to tell a duplicate from another event under the same id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PayloadHash(pub u64);

impl PayloadHash {
    /// The hash of data; none and empty differ.
    #[must_use]
    pub fn of(data: Option<&Bytes>) -> Self {
        Self(data.map_or(0, |data| xxhash_rust::xxh3::xxh3_64(data) | 1))
    }

    /// The hash of a whole message, of which no data is known.
    #[must_use]
    pub fn of_message(message: &Message) -> Self {
        let mut hasher = xxhash_rust::xxh3::Xxh3Default::new();
        let headers = message.headers.iter();
        let headers = headers.flat_map(|(name, value)| [name.as_bytes(), value]);
        for part in std::iter::once(message.subject.as_bytes())
            .chain(headers)
            .chain([message.payload.as_ref()])
        {
            hasher.update(&(part.len() as u64).to_le_bytes());
            hasher.update(part);
        }
        Self(hasher.digest())
    }
}

/// What an earlier host may have taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TakenBefore {
    /// No position above this.
    pub upto: Position,
    /// Whether it may have died of it: such events are attempted with a record written first.
    pub is_suspect: bool,
}

/// What the ledger knows of an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Known {
    /// Nothing.
    New,
    /// An attempt began and the host died before it ended, this many times.
    Started(u32),
    /// Attempts failed; it is to be tried again.
    Failing {
        /// The attempts that failed.
        history: Box<History>,
        /// How often an attempt began since and the host died before it ended.
        started: u32,
    },
    /// It waits in a parked lane.
    Parked(PayloadHash),
    /// It took effect, or is a dead letter.
    Done(PayloadHash),
}

/// The failed attempts of an event that is still being tried.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct History {
    /// How many failed in all.
    pub failed: u32,
    /// The first and the latest of them, at most 20 in all.
    pub attempts: Vec<Attempt>,
    /// When the next may begin.
    pub next_at: Timestamp,
}

/// One durable step of one event.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Whose.
    pub consumer: Name,
    /// Which event.
    pub record: RecordKey,
    /// The hash of its data.
    pub payload: PayloadHash,
    /// Its lane.
    pub lane: LaneKey,
    /// Its place in the parking, if it ran from there: taken out in the same transaction if the event is done, now or already.
    pub parked: Option<ParkedId>,
    /// What is written.
    pub change: Change,
}

/// What is written of an event.
#[derive(Clone, Debug)]
pub enum Change {
    /// It took effect.
    Applied(Effects),
    /// It is a dead letter; `publish` is its copy for the dead-letter stream.
    Dead {
        /// The dead letter.
        letter: Box<DeadLetter>,
        /// Its copy for the configured stream, if there is one.
        publish: Option<Output>,
        /// Whether later events of its lane wait for it.
        hold: bool,
    },
    /// It is a dead letter beside an event of the same id that took effect: only the letter is written.
    Conflict {
        /// The dead letter.
        letter: Box<DeadLetter>,
        /// Its copy for the configured stream, if there is one.
        publish: Option<Output>,
    },
    /// An attempt failed and there will be another.
    Failed(Box<History>),
    /// An attempt is about to begin, after an unclean stop.
    Started,
    /// It goes to the end of its lane in the parking.
    Parked(Box<Message>, Position),
}

/// What was written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Written {
    /// The outbox rows that the entry made, in the order of its outputs. Outputs that went straight into an embedded log have none.
    pub rows: Vec<RowId>,
    /// For [`Change::Started`]: how often it has been started now.
    pub started: u32,
}

/// The ledger refused an entry; nothing of it was written. Only, if the event is done, its place in the parking is given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The event has taken effect already: settle it as a duplicate.
    #[error("the event has taken effect already")]
    Done(PayloadHash),
    /// It waits in the parking already: settle the delivery.
    #[error("the event is parked already")]
    Parked(PayloadHash),
    /// Something that the attempt read has changed: run it again.
    #[error("state that the attempt read has changed since")]
    Conflict,
}

/// What an attempt would do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Effects {
    /// What it read, to be validated.
    pub reads: BTreeSet<(StateKey, Version)>,
    /// What it writes, in order.
    pub writes: Vec<StateWrite>,
    /// What it emits, in order.
    pub outputs: Vec<Output>,
}

impl Effects {
    /// The bytes that it writes: messages and values.
    #[must_use]
    pub fn size(&self) -> usize {
        let writes = self.writes.iter().map(|write| match write {
            StateWrite::Set(_, value) => value.len(),
            _ => 0,
        });
        let outputs = self.outputs.iter().map(|output| output.message.size());
        outputs.sum::<usize>() + writes.sum::<usize>()
    }
}

/// A state bucket of a consumer.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct StateBucket {
    /// Whose.
    pub consumer: Name,
    /// The name the plugin opened it by; `default` if it gave an empty one. At most 255 bytes.
    pub bucket: Arc<str>,
}

/// A key in a state bucket. At most 1 KiB.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct StateKey {
    /// The bucket.
    pub bucket: StateBucket,
    /// The key.
    pub key: Arc<str>,
}

/// Changes with every write of a key; 0 while it has never been written or is deleted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Version(pub u64);

/// A read of committed state.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Read {
    /// The value, if there is one.
    pub value: Option<Bytes>,
    /// For the validation at commit.
    pub version: Version,
}

/// A state write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StateWrite {
    /// Sets a value.
    Set(StateKey, Bytes),
    /// Deletes a key.
    Delete(StateKey),
    /// Adds to a counter, which is its decimal text, absent meaning 0; saturates. Merges with what others add meanwhile.
    Add(StateKey, i64),
}

/// Reads committed state on behalf of one consumer's attempt.
pub trait StateReader: Send + Sync {
    /// Reads a key.
    ///
    /// # Errors
    /// [`Error::Unavailable`]: the attempt ends as [`crate::outcome::Outcome::NotRun`].
    fn read<'a>(&'a self, key: &'a StateKey) -> BoxFuture<'a, Result<Read, Error>>;

    /// Lists keys after `after`, in order, at most `limit`.
    ///
    /// # Errors
    /// As for `read`.
    fn list<'a>(
        &'a self,
        bucket: &'a StateBucket,
        after: Option<&'a str>,
        limit: usize,
    ) -> BoxFuture<'a, Result<Vec<String>, Error>>;
}

/// An event to publish.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Output {
    /// Its id, a pure function of what caused it.
    pub id: Arc<str>,
    /// The stream it goes to.
    pub stream: Name,
    /// Its ordering key: the lane of the event that caused it.
    pub key: LaneKey,
    /// The message, encoded.
    pub message: Message,
}

/// An outbox row's place in the order of commits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RowId(pub u64);

/// An output that was committed and is not confirmed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Its place.
    pub id: RowId,
    /// Who caused it.
    pub consumer: Name,
    /// What is to be published.
    pub output: Output,
}

/// A place in the parking of a lane; orders the events of the lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ParkedId(pub i64);

/// A lane whose events wait in the ledger.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParkedLane {
    /// Its key.
    pub lane: LaneKey,
    /// How many events wait.
    pub waiting: u64,
    /// The dead letter that it waits for, if it is held.
    pub held_by: Option<DeadId>,
}

/// An event that waits in the ledger.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParkedEvent {
    /// Its place.
    pub id: ParkedId,
    /// What it is recorded by: of an event that was put back from the dead letters, the id of its dead letter.
    pub record: RecordKey,
    /// Where it came from.
    pub position: Position,
    /// As it arrived.
    pub message: Message,
    /// Its failed attempts so far. Here, because a look-up of its record only says that it is parked.
    pub history: Option<Box<History>>,
    /// How often an attempt began and the host died before it ended.
    pub started: u32,
}

/// What a dead letter is known by: the record of its event, so that the same event is the same dead letter. Of what has no record of its
/// own: [`RecordKey::of_place`] for what can't be decoded, [`RecordKey::of_conflict`] for other data under an id that was used
/// before, [`RecordKey::of_output`] for a refused output.
pub type DeadId = RecordKey;

/// An event that could not be handled, with everything needed to understand it and run it again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeadLetter {
    /// Its id.
    pub id: DeadId,
    /// Whose.
    pub consumer: Name,
    /// The stream it came from.
    pub stream: Name,
    /// Where it stood there.
    pub position: Position,
    /// Why.
    pub reason: Reason,
    /// One line for people.
    pub detail: String,
    /// The plugin's digest at the time.
    pub revision: String,
    /// Its lane.
    pub lane: LaneKey,
    /// The event's source and id, if it could be decoded.
    pub event: Option<(String, String)>,
    /// The event's type, if it could be decoded.
    pub kind: Option<String>,
    /// As it arrived, untouched.
    pub message: Message,
    /// Every attempt that failed, at most the first 10 and the last 10.
    pub attempts: Vec<Attempt>,
    /// How many failed in all.
    pub failed: u32,
    /// When its first attempt began, or when it was taken.
    pub first_at: Timestamp,
    /// When it became a dead letter.
    pub last_at: Timestamp,
    /// How many later events of its lane took effect since. Kept by the ledger.
    pub applied_meanwhile: u64,
    /// Whether it was put back into its lane and has not run yet. Kept by the ledger.
    pub redriving: bool,
}

/// A place in the order of deaths.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct DeadPlace(pub u64);

/// Some of the dead letters.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeadPage {
    /// They, oldest first.
    pub letters: Vec<DeadLetter>,
    /// The place of the last one, if there are more.
    pub next: Option<DeadPlace>,
}

/// How many dead letters there are, by consumer and reason; those without any are left out.
pub type DeadCounts = Vec<(Name, Reason, u64)>;

/// Which dead letters. What is not set matches all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeadFilter {
    /// Of this consumer.
    pub consumer: Option<Name>,
    /// For this reason.
    pub reason: Option<Reason>,
}

/// A dead letter was put back into its lane.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Redriven {
    /// Which.
    pub id: DeadId,
    /// Whose lane to look at.
    pub consumer: Name,
    /// The lane.
    pub lane: LaneKey,
    /// How many later events of the lane took effect in between.
    pub applied_meanwhile: u64,
}

/// The ledger can't answer.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// For now: the disk is full, the store is out of reach. Hold, and ask again.
    #[error("the ledger is unavailable: {0}")]
    Unavailable(String),
    /// Another process owns the folder.
    #[error("another process uses the ledger in {0}: stop it first")]
    Locked(String),
    /// A newer version wrote the folder.
    #[error(
        "the ledger in {folder} has format {found}, this version reads {known}: run the newer version, or give this one another folder"
    )]
    Newer {
        /// Which folder.
        folder: String,
        /// The format it has.
        found: u32,
        /// The format we know.
        known: u32,
    },
    /// An older version wrote the folder.
    #[error(
        "the ledger in {folder} has format {found}, this version reads {known}: run the version that wrote it, or give this one another folder (events within the brokers' redelivery window may then run again)"
    )]
    Older {
        /// Which folder.
        folder: String,
        /// The format it has.
        found: u32,
        /// The format we know.
        known: u32,
    },
    /// The folder is damaged.
    #[error(
        "the ledger in {folder} is damaged: {reason}; nothing was changed: restore the folder from a backup, or move it away to begin a new one (events within the brokers' redelivery window may then run again)"
    )]
    Damaged {
        /// Which folder.
        folder: String,
        /// What was found.
        reason: String,
    },
}

impl Error {
    /// Every code, in the order of `docs/errors.md`.
    pub const CODES: [&str; 5] = [
        "ledger-unavailable",
        "ledger-locked",
        "ledger-newer",
        "ledger-older",
        "ledger-damaged",
    ];

    /// The heading in `docs/errors.md`.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Unavailable(_) => "ledger-unavailable",
            Self::Locked(_) => "ledger-locked",
            Self::Newer { .. } => "ledger-newer",
            Self::Older { .. } => "ledger-older",
            Self::Damaged { .. } => "ledger-damaged",
        }
    }
}
