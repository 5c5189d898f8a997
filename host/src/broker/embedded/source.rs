//! The half of a subscription that takes from a log.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::sync::watch;

use super::flight::Flight;
use super::{Embedded, Reading, unreachable};
use crate::broker::{Delivery, Error, Position, Receipt, Room, Source};
use crate::clock::Clock;
use crate::plan::Name;
use crate::store::{self, LogEntry, Store};

/// Messages that are read at once, and their bytes; what was not asked for waits in memory.
const AHEAD: Room = Room {
    count: 256,
    bytes: 4 * 1024 * 1024,
};

/// How soon it says that there is nothing more.
const QUIET: Duration = Duration::from_secs(1);

/// A reader that is no further behind than this reads in place: what was just appended is in memory.
const IN_PLACE_MAX: u64 = 32;

/// Gives the messages of a log, in order.
pub(super) struct LogSource {
    broker: Name,
    store: Arc<Store>,
    clock: Clock,
    stream: Name,
    room: Room,
    flight: Arc<Flight>,
    tail: watch::Receiver<u64>,
    ahead: VecDeque<LogEntry>,
    // Held for its drop.
    _reading: Reading,
}

impl LogSource {
    pub(super) fn new(
        broker: &Embedded,
        stream: Name,
        room: Room,
        flight: Arc<Flight>,
        tail: watch::Receiver<u64>,
        reading: Reading,
    ) -> Self {
        Self {
            broker: broker.name.clone(),
            store: broker.store.clone(),
            clock: broker.clock.clone(),
            stream,
            room,
            flight,
            tail,
            ahead: VecDeque::new(),
            _reading: reading,
        }
    }

    async fn take(&mut self, room: Room) -> Result<Vec<Delivery>, store::Error> {
        loop {
            let end = *self.tail.borrow_and_update();
            let room = self.bound(room);
            if room.count > 0 {
                self.fill(end).await?;
                let given = self.give(room)?;
                if !given.is_empty() {
                    return Ok(given);
                }
            }
            // Each loses nothing when it is dropped: the tail remembers what was seen of it, the flight that it was told.
            tokio::select! {
                changed = self.tail.changed() => {
                    changed.map_err(|_| store::Error::Unavailable("the store is closed".to_owned()))?;
                }
                () = self.flight.changed() => {}
                // With room, everything has been given.
                () = tokio::time::sleep(QUIET), if room.count > 0 => return Ok(Vec::new()),
            }
        }
    }

    /// The room that is left of the subscription's own.
    fn bound(&self, room: Room) -> Room {
        let left = self.room.count.saturating_sub(self.flight.count());
        Room {
            count: room.count.max(1).min(left),
            bytes: room.bytes,
        }
    }

    /// Reads ahead if there is nothing left to give and the log has more.
    async fn fill(&mut self, end: u64) -> Result<(), store::Error> {
        let from = self.flight.next();
        if !self.ahead.is_empty() || from >= end {
            return Ok(());
        }
        let entries = if end - from <= IN_PLACE_MAX {
            self.store.read_log(&self.stream, from, AHEAD)?
        } else {
            let stream = self.stream.clone();
            let read = self
                .store
                .read_apart(move |tables| tables.log_batch(&stream, from, AHEAD));
            read.await?
        };
        self.ahead = entries.into();
        Ok(())
    }

    /// Gives what fits, first what was handed back. Nothing waits here, so that what leaves the queue reaches the caller.
    fn give(&mut self, room: Room) -> Result<Vec<Delivery>, store::Error> {
        let mut given = Vec::new();
        let mut bytes = 0;
        while given.len() < room.count {
            let Some(entry) = self.peek()? else { break };
            bytes += entry.message.size();
            if bytes > room.bytes && !given.is_empty() {
                self.ahead.push_front(entry);
                break;
            }
            given.push(self.deliver(entry));
        }
        Ok(given)
    }

    /// The next message: what was handed back comes before what was never given, so that the order is kept as far as it can be.
    fn peek(&mut self) -> Result<Option<LogEntry>, store::Error> {
        while let Some(number) = self.flight.first_back() {
            if self.ahead.front().is_some_and(|entry| entry.number == number) {
                break;
            }
            let one = Room {
                count: 1,
                bytes: usize::MAX,
            };
            let entry = self.store.read_log(&self.stream, number, one)?.pop();
            match entry.filter(|entry| entry.number == number) {
                Some(entry) => return Ok(Some(entry)),
                None => self.flight.lose(number),
            }
        }
        Ok(self.ahead.pop_front())
    }

    fn deliver(&self, entry: LogEntry) -> Delivery {
        self.flight.give(entry.number);
        Delivery {
            message: entry.message,
            position: Position(entry.number),
            taken: self.clock.now(),
            receipt: Receipt(entry.number),
        }
    }
}

impl Source for LogSource {
    fn next(&mut self, room: Room) -> BoxFuture<'_, Result<Vec<Delivery>, Error>> {
        Box::pin(async move {
            let taken = self.take(room).await;
            taken.map_err(|error| unreachable(&self.broker, &error))
        })
    }
}
