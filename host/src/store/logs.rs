//! Embedded logs: messages under ascending numbers, one log for each stream, for any number of consumers.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Mutex;

use bytes::{BufMut, Bytes};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::keys::{self, Key, KeyReader};
use super::tables::{Table, Tables, tag};
use super::{Batch, Error, Store, Weight, lock};
use crate::broker::Room;
use crate::clock::Timestamp;
use crate::crash::{self, Point};
use crate::event::{Headers, Message};
use crate::plan::{self, Name};

/// Messages that one piece of work drops at most, so that a long trim does not hold up commits.
const TRIM_MAX: usize = 2048;

/// Where logs end: the number that the next message gets.
pub(super) type Ends = Vec<(Name, u64)>;

/// Logs as wholes.
pub(super) type Heads = BTreeMap<Name, Head>;

/// What is kept of a log as a whole.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) struct Head {
    /// The lowest number that is still there.
    first: u64,
    /// The number that the next message gets.
    pub(super) next: u64,
    /// Bytes of all rows.
    bytes: u64,
}

impl Head {
    const EMPTY: Self = Self {
        first: 1,
        next: 1,
        bytes: 0,
    };
}

/// A message in a log.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    /// Its number.
    pub(crate) number: u64,
    /// What was appended.
    pub(crate) message: Message,
}

/// A log as people see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Log {
    /// Whose.
    pub stream: Name,
    /// The lowest number that is still there.
    pub first: u64,
    /// The number that the next message gets; messages number from 1.
    pub next: u64,
    /// Messages that are there.
    pub length: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Who reads it.
    pub consumers: Vec<Cursor>,
}

/// How far a consumer is in a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cursor {
    /// Whose.
    pub consumer: Name,
    /// The lowest number that it has not settled.
    pub position: u64,
    /// Messages from there to the end.
    pub lag: u64,
}

/// Tells readers of logs that there is more.
#[derive(Default)]
pub(super) struct Tails(Mutex<BTreeMap<Name, watch::Sender<u64>>>);

impl Tails {
    pub(super) fn publish(&self, ends: &Ends) {
        let tails = lock(&self.0);
        for (stream, next) in ends {
            if let Some(tail) = tails.get(stream) {
                tail.send_replace(*next);
            }
        }
    }

    fn watch(&self, stream: &Name, next: u64) -> watch::Receiver<u64> {
        lock(&self.0)
            .entry(stream.clone())
            .or_insert_with(|| watch::channel(next).0)
            .subscribe()
    }
}

impl Store {
    /// The logs there are.
    ///
    /// # Errors
    /// [`Error::Unavailable`]
    pub fn logs(&self) -> Result<Vec<Log>, Error> {
        let heads = self.read(Tables::heads)?;
        Ok(heads
            .into_iter()
            .map(|(stream, head)| self.describe(stream, head))
            .collect())
    }

    fn describe(&self, stream: Name, head: Head) -> Log {
        let cursor = |(consumer, position): (Name, u64)| Cursor {
            consumer,
            position: position.max(head.first),
            lag: head.next.saturating_sub(position.max(head.first)),
        };
        let consumers = self.shared.cursors.of(&stream);
        Log {
            consumers: consumers.into_iter().map(cursor).collect(),
            first: head.first,
            next: head.next,
            length: head.next - head.first,
            bytes: head.bytes,
            stream,
        }
    }

    /// Follows the end of a log.
    pub(crate) fn tail(&self, stream: &Name) -> Result<watch::Receiver<u64>, Error> {
        // Watched first and read after: what is appended in between is seen by the one or the other.
        let tail = self.shared.tails.watch(stream, 0);
        let next = self.read(|tables| tables.head(stream))?.next;
        if let Some(sender) = lock(&self.shared.tails.0).get(stream) {
            sender.send_if_modified(|at| {
                let is_behind = *at < next;
                *at = next.max(*at);
                is_behind
            });
        }
        Ok(tail)
    }

    /// Messages from a number on, until there is enough; at least one if there is one. The first may have a higher number, if the
    /// log was trimmed.
    pub(crate) fn read_log(&self, stream: &Name, from: u64, enough: Room) -> Result<Vec<Entry>, Error> {
        self.read(|tables| tables.log_batch(stream, from, enough))
    }

    /// Where a consumer's reading of a log begins: at its cursor, or, the first time, at the beginning of the log. Durable from
    /// then on, so that retention heeds the consumer.
    pub(crate) async fn start_cursor(&self, stream: &Name, consumer: &Name) -> Result<u64, Error> {
        let cursors = self.shared.cursors.clone();
        let key = (stream.clone(), consumer.clone());
        if let Some(at) = cursors.get(&key) {
            return Ok(at);
        }
        self.commit(Weight::LIGHT, move |batch| {
            let first = batch.head(&key.0)?.first;
            cursors.start(batch, key, first)
        })
        .await
    }

    /// Notes that everything below `lowest` is settled.
    pub(crate) fn advance_cursor(&self, stream: &Name, consumer: &Name, lowest: u64, settled: u64) {
        let key = (stream.clone(), consumer.clone());
        if self.shared.cursors.advance(&key, lowest, settled) {
            self.nudge();
        }
    }

    /// Drops what a log may not keep: what is older than its age, and over its bytes what every consumer has settled that ever
    /// read it and still [counts](Self::heed). Call it every few seconds. Says how many messages went.
    ///
    /// # Errors
    /// [`Error::Unavailable`]
    pub async fn trim(&self, stream: &Name, keep: &plan::Log, now: Timestamp) -> Result<u64, Error> {
        let mut dropped = 0;
        loop {
            let (stream, keep) = (stream.clone(), keep.clone());
            let settled = self.shared.cursors.lowest_of(&stream).unwrap_or(u64::MAX);
            let more = self
                .commit(Weight::LIGHT, move |batch| batch.trim(&stream, &keep, settled, now))
                .await?;
            if more > 0 {
                crash::at(Point::Trimmed);
            }
            dropped += more;
            if more < TRIM_MAX as u64 {
                return Ok(dropped);
            }
        }
    }
}

impl Batch<'_> {
    /// Appends a message to a log, and says under which number.
    pub(crate) fn append(&mut self, stream: &Name, message: &Message) -> Result<u64, Error> {
        let mut head = self.head(stream)?;
        let row = encode_entry(self.now(), message)?;
        let number = head.next;
        head.next += 1;
        head.bytes += row.len() as u64;
        self.add(Table::Logs, &log_prefix(stream).number(number).done(), &row)?;
        self.set_head(stream, head);
        Ok(number)
    }

    fn trim(&mut self, stream: &Name, keep: &plan::Log, settled: u64, now: Timestamp) -> Result<u64, Error> {
        let mut head = self.head(stream)?;
        let before = head.first;
        let rows = self.committed().log_rows(stream, head.first);
        for row in rows.take(TRIM_MAX) {
            let (key, value) = row?;
            let number = log_number(&key)?;
            let is_old = keep.age_max.is_some_and(|age| appended_at(&value).after(age) <= now);
            let is_over = head.bytes > keep.bytes_max && number < settled;
            if !is_old && !is_over {
                break;
            }
            head.first = number + 1;
            head.bytes = head.bytes.saturating_sub(value.len() as u64);
            self.forget(Table::Logs, &key)?;
        }
        if head.first > before {
            crash::at(Point::Trimming);
            self.set_head(stream, head);
        }
        Ok(head.first - before)
    }
}

impl Tables {
    fn heads(&self) -> Result<Vec<(Name, Head)>, Error> {
        self.prefix(Table::Meta, &Key::new().tag(tag::LOG).done())
            .map(|row| {
                let (key, value) = row?;
                let mut key = KeyReader::new(&key);
                let stream = key
                    .skip_tag()
                    .and_then(|()| key.text())
                    .and_then(|name| Name::new(name).ok())
                    .ok_or_else(|| keys::unreadable("a log has no name"))?;
                Ok((stream, keys::decode(&value)?))
            })
            .collect()
    }

    fn head(&self, stream: &Name) -> Result<Head, Error> {
        read_head(self.get(Table::Meta, &head_key(stream))?)
    }

    /// As [`Store::read_log`].
    pub(crate) fn log_batch(&self, stream: &Name, from: u64, enough: Room) -> Result<Vec<Entry>, Error> {
        let mut entries = Vec::new();
        let mut bytes = 0;
        for row in self.log_rows(stream, from) {
            let (key, value) = row?;
            bytes += value.len();
            entries.push(Entry {
                number: log_number(&key)?,
                message: decode_entry(&value)?,
            });
            if bytes >= enough.bytes || entries.len() >= enough.count {
                break;
            }
        }
        Ok(entries)
    }

    fn log_rows(&self, stream: &Name, from: u64) -> super::tables::Rows {
        let prefix = log_prefix(stream).done();
        let from = log_prefix(stream).number(from).done();
        self.range(Table::Logs, Bound::Included(&from), &prefix)
    }
}

pub(super) fn head_key(stream: &Name) -> Bytes {
    Key::new().tag(tag::LOG).part(stream.as_str()).done()
}

pub(super) fn read_head(row: Option<Bytes>) -> Result<Head, Error> {
    row.map_or(Ok(Head::EMPTY), |row| keys::decode(&row))
}

fn log_prefix(stream: &Name) -> Key {
    Key::new().part(stream.as_str())
}

pub(super) fn log_number(key: &[u8]) -> Result<u64, Error> {
    let mut key = KeyReader::new(key);
    key.part()
        .and_then(|_| key.number())
        .ok_or_else(|| keys::unreadable("a message in a log has no number"))
}

/// What stands before the head of a row.
const FRONT: usize = 12;

/// A row: when it was appended, the length of its head, its head, its payload, so that the payload is read without a copy.
pub(super) fn encode_entry(at: Timestamp, message: &Message) -> Result<Vec<u8>, Error> {
    let mut row = Vec::with_capacity(FRONT + 2 * message.size());
    row.put_u64(at.0);
    row.put_u32(0);
    let mut row = keys::encode_onto(row, &(&message.subject, &message.headers))?;
    // A head is far below 4 GiB: brokers and the ingress bound whole messages.
    let length = u32::try_from(row.len() - FRONT).unwrap_or(u32::MAX);
    if let Some(place) = row.get_mut(8..FRONT) {
        place.copy_from_slice(&length.to_be_bytes());
    }
    row.put_slice(&message.payload);
    Ok(row)
}

pub(super) fn appended_at(row: &[u8]) -> Timestamp {
    Timestamp(KeyReader::new(row).number().unwrap_or(u64::MAX))
}

pub(super) fn decode_entry(row: &Bytes) -> Result<Message, Error> {
    let cut = || keys::unreadable("a message in a log is cut short");
    let length = row.get(8..FRONT).and_then(|bytes| bytes.try_into().ok());
    let length = u32::from_be_bytes(length.ok_or_else(cut)?) as usize;
    let head = row.get(FRONT..FRONT + length).ok_or_else(cut)?;
    let (subject, headers): (String, Headers) = keys::decode(head)?;
    Ok(Message {
        subject,
        headers,
        payload: row.slice(FRONT + length..),
    })
}
