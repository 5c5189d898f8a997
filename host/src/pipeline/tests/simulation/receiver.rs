//! A simulated broker to publish to: it takes a part of a batch, is away, refuses for good, or takes a message and does not say so.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use futures_util::future::BoxFuture;

use super::broker::unreachable;
use super::bugs::Bug;
use super::case::{Fault, draw};
use super::trace::{Fact, Put};
use super::world::World;
use crate::broker::{Broker, Error, Outgoing, Publisher, Subscribed, Subscription};
use crate::pipeline::tests::stage::name;
use crate::plan::{self, Name};

/// What was received. It outlives the hosts of a run.
#[derive(Default)]
pub(super) struct Receiver(Mutex<BTreeSet<(Name, Arc<str>)>>);

/// The way to it as one host has it.
#[derive(Clone)]
pub(super) struct Door {
    pub world: Arc<World>,
    pub receiver: Arc<Receiver>,
    pub life: u32,
}

struct Onto {
    door: Door,
    stream: Name,
}

impl Broker for Door {
    fn subscribe(&self, _: Subscription) -> BoxFuture<'_, Result<Subscribed, Error>> {
        Box::pin(std::future::ready(Err(unreachable("it is only written"))))
    }

    fn publisher(&self, stream: Arc<plan::Stream>) -> BoxFuture<'_, Result<Arc<dyn Publisher>, Error>> {
        Box::pin(async move {
            self.world.pass(self.life).await;
            if self.world.strikes(Fault::FailedPublishes, 100) {
                return Err(unreachable("it does not open"));
            }
            let door = self.clone();
            let stream = stream.name.clone();
            Ok(Arc::new(Onto { door, stream }) as Arc<dyn Publisher>)
        })
    }

    fn check(&self) -> BoxFuture<'_, Result<(), Error>> {
        Box::pin(std::future::ready(Ok(())))
    }
}

impl Onto {
    fn put(&self, outgoing: &Outgoing) -> Put {
        let id = match self.door.world.has_bug(Bug::FreshIds) {
            true => format!("{}-{}", outgoing.id, self.door.world.choose(1 << 30)).into(),
            false => outgoing.id.clone(),
        };
        Put {
            stream: self.stream.clone(),
            key: String::from_utf8_lossy(&outgoing.key).into_owned(),
            id,
            content: String::from_utf8_lossy(&outgoing.message.payload).into_owned(),
        }
    }

    fn take(&self, put: Put) -> Result<(), Error> {
        let world = &self.door.world;
        if world.case.has(Fault::RefusedOutputs) && draw(world.case.seed, format_args!("refused {}", put.id)) < 80 {
            let (broker, reason) = (name("outside"), "too large".to_owned());
            return Err(Error::Refused { broker, reason });
        }
        if world.strikes(Fault::FailedPublishes, 150) {
            return Err(match world.choose(4) {
                0 => Error::Misconfigured {
                    broker: name("outside"),
                    reason: "no such stream".to_owned(),
                },
                _ => unreachable("it is away"),
            });
        }
        if !world.has_bug(Bug::ConfirmedUnseen) || world.choose(10) > 0 {
            let known = (put.stream.clone(), put.id.clone());
            let is_new = self.door.receiver.0.lock().unwrap().insert(known);
            world.note(Fact::Published { put, is_new });
        }
        match world.strikes(Fault::LostConfirmations, 80) {
            true => Err(unreachable("it does not answer")),
            false => Ok(()),
        }
    }
}

impl Publisher for Onto {
    fn publish(&self, batch: Vec<Outgoing>) -> BoxFuture<'_, Vec<Result<(), Error>>> {
        Box::pin(async move {
            let Door { world, life, .. } = &self.door;
            if !world.step(*life) {
                return std::future::pending().await;
            }
            let puts: Vec<Put> = batch.iter().map(|outgoing| self.put(outgoing)).collect();
            puts.iter().for_each(|put| world.note(Fact::Publishing(put.clone())));
            world.pass(*life).await;
            if world.strikes(Fault::FailedPublishes, 50) {
                return puts.iter().map(|_| Err(unreachable("it is away"))).collect();
            }
            let mut results = Vec::with_capacity(puts.len());
            for put in puts {
                // Of a batch a part may arrive.
                if !world.step(*life) {
                    return std::future::pending().await;
                }
                results.push((put.id.clone(), self.take(put)));
            }
            world.pass(*life).await;
            for (id, result) in &results {
                let is_refused = matches!(result, Err(Error::Refused { .. }));
                if result.is_ok() || is_refused {
                    world.note(Fact::Answered {
                        id: id.clone(),
                        is_refused,
                    });
                }
            }
            results.into_iter().map(|(_, result)| result).collect()
        })
    }

    fn keeps_order(&self) -> bool {
        self.door.world.has_bug(Bug::PublishIsOvertaken)
    }

    fn size_max(&self) -> usize {
        1 << 20
    }
}
