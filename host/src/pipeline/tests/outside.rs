//! A fake broker to publish to: it takes, refuses, fails or waits as a test tells it to.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use futures_util::future::BoxFuture;

use super::handler::Gate;
use super::stage::name;
use crate::broker::{Broker, Error, Outgoing, Publisher, Subscribed, Subscription};
use crate::plan;

/// What it does with a message.
#[derive(Clone)]
pub(super) enum Reply {
    /// Takes it.
    Take,
    /// Is away.
    Fail,
    /// Will never take it.
    Refuse,
    /// Waits at the gate, then takes it.
    TakeAt(Gate),
}

type Script = dyn Fn(&str, usize) -> Reply + Send + Sync;

/// The fake. It outlives the hosts of a test.
pub(super) struct Outside(Mutex<State>);

struct State {
    script: Arc<Script>,
    tries: BTreeMap<String, usize>,
    /// The payload and the id of what was taken.
    taken: Vec<(String, String)>,
}

impl Outside {
    /// Takes everything.
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self(Mutex::new(State {
            script: Arc::new(|_, _| Reply::Take),
            tries: BTreeMap::new(),
            taken: Vec::new(),
        })))
    }

    /// Does this with each message from now on, known by its payload and how often it came, from 1.
    pub(super) fn becomes(&self, script: impl Fn(&str, usize) -> Reply + Send + Sync + 'static) {
        self.0.lock().unwrap().script = Arc::new(script);
    }

    /// The payloads of what was taken, in order.
    pub(super) fn taken(&self) -> Vec<String> {
        let state = self.0.lock().unwrap();
        state.taken.iter().map(|(payload, _)| payload.clone()).collect()
    }

    /// The ids of what was taken, in order.
    pub(super) fn ids(&self) -> Vec<String> {
        let state = self.0.lock().unwrap();
        state.taken.iter().map(|(_, id)| id.clone()).collect()
    }

    /// How often it was given a message.
    pub(super) fn tries(&self, payload: &str) -> usize {
        self.0.lock().unwrap().tries.get(payload).copied().unwrap_or(0)
    }

    async fn take(&self, outgoing: Outgoing) -> Result<(), Error> {
        let payload = String::from_utf8_lossy(&outgoing.message.payload).into_owned();
        let reply = {
            let mut state = self.0.lock().unwrap();
            let tries = state.tries.entry(payload.clone()).or_default();
            *tries += 1;
            let tries = *tries;
            (state.script)(&payload, tries)
        };
        match reply {
            Reply::Take => {}
            Reply::TakeAt(gate) => gate.pass().await,
            Reply::Fail => return Err(unreachable()),
            Reply::Refuse => {
                return Err(Error::Refused {
                    broker: name("outside"),
                    reason: "too large".to_owned(),
                });
            }
        }
        let mut state = self.0.lock().unwrap();
        state.taken.push((payload, outgoing.id.to_string()));
        Ok(())
    }
}

fn unreachable() -> Error {
    Error::Unreachable {
        broker: name("outside"),
        reason: "it is away".to_owned(),
        retry_after: None,
    }
}

/// A handle on it, as a broker and as a publisher.
#[derive(Clone)]
pub(super) struct Door(pub Arc<Outside>);

impl Broker for Door {
    fn subscribe(&self, _: Subscription) -> BoxFuture<'_, Result<Subscribed, Error>> {
        Box::pin(std::future::ready(Err(unreachable())))
    }

    fn publisher(&self, _: Arc<plan::Stream>) -> BoxFuture<'_, Result<Arc<dyn Publisher>, Error>> {
        let publisher: Arc<dyn Publisher> = Arc::new(self.clone());
        Box::pin(std::future::ready(Ok(publisher)))
    }

    fn check(&self) -> BoxFuture<'_, Result<(), Error>> {
        Box::pin(std::future::ready(Ok(())))
    }
}

impl Publisher for Door {
    fn publish(&self, batch: Vec<Outgoing>) -> BoxFuture<'_, Vec<Result<(), Error>>> {
        Box::pin(async move {
            let each = batch.into_iter().map(|outgoing| self.0.take(outgoing));
            futures_util::future::join_all(each).await
        })
    }

    fn size_max(&self) -> usize {
        1 << 20
    }
}
