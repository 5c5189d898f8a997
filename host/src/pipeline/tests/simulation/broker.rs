//! A simulated broker to read from: it goes back to the lowest unsettled position when a host subscribes, and does not hear every
//! settlement.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::sync::Notify;

use super::bugs::Bug;
use super::case::Fault;
use super::trace::Fact;
use super::world::World;
use crate::broker::{
    Broker, Delivery, Error, Position, Promises, Publisher, Receipt, Room, Settle, Settlement, Source, Subscribed,
    Subscription,
};
use crate::event::Message;
use crate::pipeline::tests::stage::name;
use crate::plan;

/// How soon a source says that there is nothing more.
const QUIET: Duration = Duration::from_secs(1);
/// How long after a settlement that was not heard the delivery would come again.
const ACK_WAIT: Duration = Duration::from_secs(3);

/// The stream on its broker. It outlives the hosts of a run.
#[derive(Default)]
pub(super) struct Server {
    state: Mutex<State>,
    grown: Notify,
}

#[derive(Default)]
struct State {
    log: BTreeMap<u64, Message>,
    settled: BTreeSet<u64>,
    /// Up to here everything was given once.
    given: u64,
}

impl Server {
    /// Puts a message on the stream, `gap` positions behind the last one.
    pub(super) fn append(&self, message: Message, gap: u64) -> u64 {
        let mut state = self.state.lock().unwrap();
        let position = state.log.keys().next_back().copied().unwrap_or(0) + gap;
        state.log.insert(position, message);
        position
    }

    /// Tells the source that there is more.
    pub(super) fn tell(&self) {
        self.grown.notify_one();
    }

    /// How many are not settled.
    pub(super) fn lag(&self) -> usize {
        let state = self.state.lock().unwrap();
        state.log.len() - state.settled.len()
    }
}

/// The broker as one host has it.
pub(super) struct Link {
    pub world: Arc<World>,
    pub server: Arc<Server>,
    pub life: u32,
}

pub(super) fn unreachable(reason: &str) -> Error {
    Error::Unreachable {
        broker: name("outside"),
        reason: reason.to_owned(),
        retry_after: None,
    }
}

impl Link {
    fn start(&self, room: Room) -> Subscribed {
        let mut state = self.server.state.lock().unwrap();
        if self.world.strikes(Fault::LostAcks, 300) {
            // A cursor is written now and then only.
            let late = state.settled.iter().rev().take(self.world.choose(6)).copied();
            late.collect::<Vec<_>>()
                .iter()
                .for_each(|position| _ = state.settled.remove(position));
        }
        let first = state.log.keys().find(|position| !state.settled.contains(position));
        let lowest = first.copied().unwrap_or(u64::MAX);
        let mut cursor = Cursor::default();
        // Settled ones above the lowest may come again.
        let is_sparing = self.world.choose(2) == 0;
        cursor.spared.extend(state.settled.iter().filter(|_| is_sparing));
        cursor.next = match first {
            Some(_) => lowest,
            None => state.log.keys().next_back().map_or(0, |last| last + 1),
        };
        if self.world.has_bug(Bug::NewerBeforePending) {
            let pending = state
                .log
                .keys()
                .filter(|position| (lowest..=state.given).contains(position));
            cursor.pending.extend(pending);
            cursor.next = cursor.next.max(state.given + 1);
        }
        drop(state);
        let half = Arc::new(Half {
            world: self.world.clone(),
            server: self.server.clone(),
            life: self.life,
            room,
            cursor: Mutex::new(cursor),
            changed: Notify::new(),
        });
        Subscribed {
            source: Box::new(Taking(half.clone())),
            settle: Arc::new(Settling(half)),
            promises: Promises { goes_back: true },
        }
    }
}

impl Broker for Link {
    fn subscribe(&self, subscription: Subscription) -> BoxFuture<'_, Result<Subscribed, Error>> {
        Box::pin(async move {
            self.world.pass(self.life).await;
            match self.world.strikes(Fault::SourceErrors, 200) {
                true => Err(unreachable("it does not open")),
                false => Ok(self.start(subscription.room)),
            }
        })
    }

    fn publisher(&self, _: Arc<plan::Stream>) -> BoxFuture<'_, Result<Arc<dyn Publisher>, Error>> {
        Box::pin(std::future::ready(Err(unreachable("it is only read"))))
    }

    fn check(&self) -> BoxFuture<'_, Result<(), Error>> {
        Box::pin(std::future::ready(Ok(())))
    }
}

/// Where a subscription stands.
#[derive(Default)]
struct Cursor {
    next: u64,
    given: BTreeSet<u64>,
    back: BTreeSet<u64>,
    /// Settled before, and not given again.
    spared: BTreeSet<u64>,
    /// Given to an earlier host, and kept until nothing newer is left: a bug.
    pending: BTreeSet<u64>,
}

/// What both halves of a subscription share.
struct Half {
    world: Arc<World>,
    server: Arc<Server>,
    life: u32,
    room: Room,
    cursor: Mutex<Cursor>,
    changed: Notify,
}

struct Taking(Arc<Half>);

struct Settling(Arc<Half>);

impl Half {
    /// Takes what there is, as far as there is room.
    fn take(&self, room: Room, is_waiting: bool) -> Vec<Delivery> {
        let mut state = self.server.state.lock().unwrap();
        let mut cursor = self.cursor.lock().unwrap();
        let is_greedy = self.world.has_bug(Bug::OverBudget);
        let left = self.room.count.saturating_sub(cursor.given.len()).min(room.count);
        let count = if is_greedy {
            64
        } else {
            left.min(1 + self.world.choose(left.max(1)))
        };
        let (mut taken, mut bytes) = (Vec::new(), 0);
        while taken.len() < count {
            let Some(position) = cursor.peek(&state, is_waiting && taken.is_empty()) else {
                break;
            };
            let message = state.log[&position].clone();
            bytes += message.size();
            if bytes > room.bytes && !taken.is_empty() {
                break;
            }
            cursor.give(position);
            state.given = state.given.max(position);
            self.world.note(Fact::Given { position });
            taken.push(Delivery {
                message,
                position: Position(position),
                taken: self.world.clock.now(),
                receipt: Receipt(position),
            });
        }
        if self.world.has_bug(Bug::AckBeforeCommit) {
            for delivery in &taken {
                let position = delivery.position.0;
                self.world.note(Fact::Settled {
                    position,
                    is_done: true,
                });
                state.settled.insert(position);
            }
        }
        taken
    }

    fn settle(self: &Arc<Self>, position: u64, settlement: Settlement) -> bool {
        let is_lost = self.world.strikes(Fault::LostAcks, 150);
        let mut cursor = self.cursor.lock().unwrap();
        if settlement == Settlement::HandBack {
            cursor.given.remove(&position);
            cursor.back.insert(position);
        } else if is_lost {
            let half = self.clone();
            tokio::spawn(async move {
                // Then the broker gives it again, and the source, which knows it, settles it again.
                tokio::time::sleep(ACK_WAIT).await;
                if half.world.is_alive(half.life) {
                    half.heard(position);
                }
            });
            cursor.given.remove(&position);
        } else {
            drop(cursor);
            self.heard(position);
        }
        self.changed.notify_one();
        !is_lost
    }

    fn heard(&self, position: u64) {
        self.cursor.lock().unwrap().given.remove(&position);
        self.server.state.lock().unwrap().settled.insert(position);
    }
}

impl Cursor {
    /// The next position to give.
    fn peek(&mut self, state: &State, is_waiting: bool) -> Option<u64> {
        let newer = state.log.range(self.next..).map(|(position, _)| *position);
        let newer = newer.into_iter().find(|position| !self.spared.contains(position));
        let pending = self.pending.first().copied().filter(|_| is_waiting);
        self.back.first().copied().or(newer).or(pending)
    }

    fn give(&mut self, position: u64) {
        if !self.back.remove(&position) && !self.pending.remove(&position) {
            self.next = position + 1;
        }
        self.given.insert(position);
    }
}

impl Source for Taking {
    fn next(&mut self, room: Room) -> BoxFuture<'_, Result<Vec<Delivery>, Error>> {
        Box::pin(async move {
            let half = &self.0;
            half.world.pass(half.life).await;
            if half.world.strikes(Fault::SourceErrors, 30) {
                return Err(unreachable("it is away"));
            }
            let mut is_quiet = false;
            loop {
                if !half.world.step(half.life) {
                    return std::future::pending().await;
                }
                let taken = half.take(room, is_quiet);
                if is_quiet || !taken.is_empty() {
                    return Ok(taken);
                }
                tokio::select! {
                    biased;
                    () = half.changed.notified() => {}
                    () = half.server.grown.notified() => {}
                    () = tokio::time::sleep(QUIET) => is_quiet = true,
                }
            }
        })
    }
}

impl Settle for Settling {
    fn settle(&self, settled: Vec<(Receipt, Settlement)>) -> BoxFuture<'_, Result<(), Error>> {
        Box::pin(async move {
            let half = &self.0;
            if !half.world.step(half.life) {
                return std::future::pending().await;
            }
            for (receipt, settlement) in &settled {
                let is_done = *settlement == Settlement::Done;
                half.world.note(Fact::Settled {
                    position: receipt.0,
                    is_done,
                });
            }
            half.world.pass(half.life).await;
            let mut is_heard = true;
            for (receipt, settlement) in settled {
                if !half.world.step(half.life) {
                    return std::future::pending().await;
                }
                is_heard &= half.settle(receipt.0, settlement);
            }
            match is_heard || half.world.choose(2) == 0 {
                true => Ok(()),
                false => Err(unreachable("it did not hear")),
            }
        })
    }
}
