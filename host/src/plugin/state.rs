//! The state of one attempt as a transaction: its own writes over what is committed.
//!
//! Nothing is written here. [`Transaction::finish`] gives what was read, to be validated, and what is to be written, for the commit.
//! There is at most one write per key: later ones are folded into it, and a read of the key sees it.
//!
//! An attempt borrows the reader of committed state, but what a guest's host functions own must outlive every borrow. So they ask
//! through a [`Reader`], and the attempt, which runs the guest in the same task, answers through its [`Desk`].

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::pin::pin;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};

use super::bindings::Bucket;
use crate::ledger::{self, Read, StateBucket, StateKey, StateReader, StateWrite, Version};
use crate::plan::{Limits, Name};

/// Bytes of a bucket's name.
const BUCKET_BYTES_MAX: usize = 255;
/// Bytes of a key.
const KEY_BYTES_MAX: usize = 1024;
/// Keys of one page of a listing.
const PAGE: usize = 500;
/// Committed keys that one attempt may read: each is kept until the commit, to be validated.
const READS_MAX: usize = 10_000;
/// Pages that one attempt may list by number (`wasi:keyvalue@0.2.0-draft`).
const PAGES_MAX: usize = 1_000;

/// Why an operation did not go through.
#[derive(Debug)]
pub(super) enum Error {
    /// The guest asked for what can't be: it is told.
    Invalid(String),
    /// The guest asked for more than its limits allow: it is told.
    Limit(String),
    /// The ledger can't answer: the attempt ends here, and it was nobody's fault.
    Unavailable(ledger::Error),
}

/// Reads committed state for a guest, by asking the attempt's [`Desk`].
pub(super) struct Reader(mpsc::Sender<Question>);

/// Where an attempt answers its guest's questions.
pub(super) struct Desk {
    questions: mpsc::Receiver<Question>,
    /// A question is being answered: the guest waits for the ledger.
    pub(super) is_asked: bool,
}

enum Question {
    Read(StateKey, oneshot::Sender<Result<Read, ledger::Error>>),
    List {
        bucket: StateBucket,
        after: Option<String>,
        answer: oneshot::Sender<Result<Vec<String>, ledger::Error>>,
    },
}

/// A reader and the desk that answers it. A guest asks one thing at a time.
pub(super) fn desk() -> (Reader, Desk) {
    let (ask, questions) = mpsc::channel(1);
    let desk = Desk {
        questions,
        is_asked: false,
    };
    (Reader(ask), desk)
}

impl Desk {
    /// Runs a guest to its end and answers its questions meanwhile, in the same task.
    ///
    /// # Cancellation
    /// Safe, and [`Desk::is_asked`] then says whether it was the ledger that was waited for.
    pub(super) async fn serve<T>(&mut self, guest: impl Future<Output = T>, state: &dyn StateReader) -> T {
        let mut guest = pin!(guest);
        tokio::select! {
            biased;
            ended = &mut guest => return ended,
            () = self.answer(state) => {}
        }
        // The reader is gone, so there will be no more questions.
        guest.await
    }

    async fn answer(&mut self, state: &dyn StateReader) {
        while let Some(question) = self.questions.recv().await {
            self.is_asked = true;
            // A guest that stopped waiting for the answer is being torn down.
            match question {
                Question::Read(key, answer) => drop(answer.send(state.read(&key).await)),
                Question::List { bucket, after, answer } => {
                    drop(answer.send(state.list(&bucket, after.as_deref(), PAGE).await))
                }
            }
            self.is_asked = false;
        }
    }
}

impl Reader {
    async fn read(&self, key: &StateKey) -> Result<Read, Error> {
        let (answer, answered) = oneshot::channel();
        self.ask(Question::Read(key.clone(), answer), answered).await
    }

    async fn list(&self, bucket: &StateBucket, after: Option<String>) -> Result<Vec<String>, Error> {
        let (answer, answered) = oneshot::channel();
        let bucket = bucket.clone();
        let question = Question::List { bucket, after, answer };
        self.ask(question, answered).await
    }

    async fn ask<T>(
        &self,
        question: Question,
        answered: oneshot::Receiver<Result<T, ledger::Error>>,
    ) -> Result<T, Error> {
        let gone = || Error::Unavailable(ledger::Error::Unavailable("the attempt is over".into()));
        self.0.send(question).await.map_err(|_| gone())?;
        answered.await.map_err(|_| gone())?.map_err(Error::Unavailable)
    }
}

/// The state of one attempt.
pub(super) struct Transaction {
    consumer: Name,
    reader: Reader,
    writes_max: usize,
    reads: BTreeSet<(StateKey, Version)>,
    writes: BTreeMap<StateKey, Own>,
    /// Keys in the order of their first write.
    order: Vec<StateKey>,
    pages: Vec<String>,
}

/// What the attempt has written to a key.
#[derive(Clone, Debug)]
enum Own {
    Set(Bytes),
    Deleted,
    Added(i64),
}

impl Own {
    fn size(&self) -> usize {
        match self {
            Self::Set(value) => value.len(),
            Self::Deleted => 0,
            Self::Added(_) => size_of::<i64>(),
        }
    }
}

/// The bytes that an attempt's effects may still take.
pub(super) struct Room {
    /// What is left.
    pub(super) bytes: usize,
    /// What there was at the start.
    pub(super) bytes_max: usize,
}

impl Room {
    /// Exchanges what an effect took for what it takes now.
    pub(super) fn exchange(&mut self, before: usize, after: usize) -> Result<(), String> {
        let free = self.bytes.saturating_add(before);
        self.bytes = free.checked_sub(after).ok_or_else(|| {
            format!(
                "{after} bytes are more than the {free} that are left of limits.effect_bytes ({})",
                self.bytes_max
            )
        })?;
        Ok(())
    }
}

impl Transaction {
    pub(super) fn new(consumer: Name, reader: Reader, limits: &Limits) -> Self {
        Self {
            consumer,
            reader,
            writes_max: limits.state_writes,
            reads: BTreeSet::new(),
            writes: BTreeMap::new(),
            order: Vec::new(),
            pages: Vec::new(),
        }
    }

    /// What was read, and what is to be written.
    pub(super) fn finish(mut self) -> (BTreeSet<(StateKey, Version)>, Vec<StateWrite>) {
        let writes = self.order.into_iter().filter_map(|key| {
            let own = self.writes.remove(&key)?;
            Some(match own {
                Own::Set(value) => StateWrite::Set(key, value),
                Own::Deleted => StateWrite::Delete(key),
                Own::Added(delta) => StateWrite::Add(key, delta),
            })
        });
        (self.reads, writes.collect())
    }

    pub(super) async fn get(&mut self, bucket: &Bucket, key: String) -> Result<Option<Bytes>, Error> {
        let key = self.key(bucket, key)?;
        match self.writes.get(&key).cloned() {
            Some(Own::Set(value)) => Ok(Some(value)),
            Some(Own::Deleted) => Ok(None),
            Some(Own::Added(delta)) => {
                let committed = self.read(key.clone()).await?;
                let sum = number(&key, committed.as_deref())?.saturating_add(delta);
                Ok(Some(text(sum)))
            }
            None => self.read(key).await,
        }
    }

    pub(super) fn set(&mut self, bucket: &Bucket, key: String, value: Vec<u8>, room: &mut Room) -> Result<(), Error> {
        let key = self.key(bucket, key)?;
        self.write(key, Own::Set(value.into()), room)
    }

    pub(super) fn delete(&mut self, bucket: &Bucket, key: String, room: &mut Room) -> Result<(), Error> {
        let key = self.key(bucket, key)?;
        self.write(key, Own::Deleted, room)
    }

    /// Adds to a counter. What is committed is looked at for the answer only: it is no read of the transaction.
    pub(super) async fn increment(
        &mut self,
        bucket: &Bucket,
        key: String,
        delta: i64,
        room: &mut Room,
    ) -> Result<i64, Error> {
        let key = self.key(bucket, key)?;
        let own = self.writes.get(&key).cloned();
        let (sum, own) = match own {
            Some(Own::Set(value)) => set_to(number(&key, Some(&value))?, delta),
            Some(Own::Deleted) => set_to(0, delta),
            Some(Own::Added(before)) => {
                // Saturation in two steps would differ from saturation in one.
                let added = before.checked_add(delta).ok_or_else(|| overflow(&key, before))?;
                (self.counter(&key).await?.saturating_add(added), Own::Added(added))
            }
            None => (self.counter(&key).await?.saturating_add(delta), Own::Added(delta)),
        };
        self.write(key, own, room)?;
        Ok(sum)
    }

    /// A page of keys after `after`, in order, and where the next begins.
    pub(super) async fn list(
        &mut self,
        bucket: &Bucket,
        after: Option<String>,
    ) -> Result<(Vec<String>, Option<String>), Error> {
        let bucket = self.bucket(bucket);
        let committed = self.reader.list(&bucket, after.clone()).await?;
        // Beyond the last key of a full page, there may be committed keys that we have not seen.
        let upto = (committed.len() >= PAGE).then(|| committed.last().cloned()).flatten();
        let mut keys: BTreeSet<String> = committed.into_iter().collect();
        let begin = StateKey {
            key: after.as_deref().unwrap_or_default().into(),
            bucket: bucket.clone(),
        };
        let begin = match after {
            Some(_) => Bound::Excluded(begin),
            None => Bound::Included(begin),
        };
        let own = self
            .writes
            .range((begin, Bound::Unbounded))
            .take_while(|(key, _)| key.bucket == bucket)
            .take_while(|(key, _)| upto.as_deref().is_none_or(|upto| &*key.key <= upto));
        for (key, own) in own {
            match own {
                Own::Deleted => keys.remove(&*key.key),
                Own::Set(_) | Own::Added(_) => keys.insert(key.key.to_string()),
            };
        }
        Ok((keys.into_iter().collect(), upto))
    }

    /// The same with pages by number, counted from 1; 0 and `None` are the first.
    pub(super) async fn list_page(
        &mut self,
        bucket: &Bucket,
        page: Option<u64>,
    ) -> Result<(Vec<String>, Option<u64>), Error> {
        let after = match page.unwrap_or(0).checked_sub(1) {
            None => None,
            Some(index) => Some(
                usize::try_from(index)
                    .ok()
                    .and_then(|index| self.pages.get(index).cloned())
                    .ok_or_else(|| Error::Invalid(format!("no such cursor: {}", index + 1)))?,
            ),
        };
        let (keys, next) = self.list(bucket, after).await?;
        let Some(next) = next else {
            return Ok((keys, None));
        };
        if self.pages.len() >= PAGES_MAX {
            return Err(Error::Limit(format!("an attempt may list {PAGES_MAX} pages of keys")));
        }
        self.pages.push(next);
        Ok((keys, Some(self.pages.len() as u64)))
    }

    async fn read(&mut self, key: StateKey) -> Result<Option<Bytes>, Error> {
        if self.reads.len() >= READS_MAX {
            return Err(Error::Limit(format!("an attempt may read {READS_MAX} keys")));
        }
        let Read { value, version } = self.reader.read(&key).await?;
        // A key that changes between two reads is there twice, and so the commit is refused, as it must be.
        self.reads.insert((key, version));
        Ok(value)
    }

    async fn counter(&self, key: &StateKey) -> Result<i64, Error> {
        number(key, self.reader.read(key).await?.value.as_deref())
    }

    fn write(&mut self, key: StateKey, own: Own, room: &mut Room) -> Result<(), Error> {
        let before = self.writes.get(&key).map(|own| key.key.len() + own.size());
        if before.is_none() && self.writes.len() >= self.writes_max {
            return Err(Error::Limit(format!(
                "more than limits.state_writes ({}) keys written",
                self.writes_max
            )));
        }
        room.exchange(before.unwrap_or(0), key.key.len() + own.size())
            .map_err(Error::Limit)?;
        if before.is_none() {
            self.order.push(key.clone());
        }
        self.writes.insert(key, own);
        Ok(())
    }

    fn key(&self, bucket: &Bucket, key: String) -> Result<StateKey, Error> {
        match key.len() {
            1..=KEY_BYTES_MAX => Ok(StateKey {
                bucket: self.bucket(bucket),
                key: key.into(),
            }),
            bytes => Err(Error::Invalid(format!(
                "a key has 1 to {KEY_BYTES_MAX} bytes, not {bytes}"
            ))),
        }
    }

    fn bucket(&self, bucket: &Bucket) -> StateBucket {
        StateBucket {
            consumer: self.consumer.clone(),
            bucket: Arc::clone(&bucket.0),
        }
    }
}

/// Opens a bucket: buckets exist by being named.
pub(super) fn open(identifier: String) -> Result<Bucket, Error> {
    match identifier.len() {
        0 => Ok(Bucket("default".into())),
        1..=BUCKET_BYTES_MAX => Ok(Bucket(identifier.into())),
        bytes => Err(Error::Invalid(format!(
            "a bucket's name has up to {BUCKET_BYTES_MAX} bytes, not {bytes}"
        ))),
    }
}

fn set_to(value: i64, delta: i64) -> (i64, Own) {
    let sum = value.saturating_add(delta);
    (sum, Own::Set(text(sum)))
}

fn text(value: i64) -> Bytes {
    value.to_string().into()
}

/// The value of a counter.
fn number(key: &StateKey, value: Option<&[u8]>) -> Result<i64, Error> {
    let Some(value) = value else { return Ok(0) };
    std::str::from_utf8(value)
        .ok()
        .and_then(|text| text.parse().ok())
        .ok_or_else(|| Error::Invalid(format!("the value of \"{}\" is no whole number", key.key)))
}

fn overflow(key: &StateKey, before: i64) -> Error {
    Error::Invalid(format!(
        "the increments of \"{}\" in this attempt ({before} so far) exceed 64 bits",
        key.key
    ))
}
