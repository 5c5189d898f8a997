//! A fake plugin: it writes down its calls and answers as a test tells it to.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::stage::name;
use crate::clock::Clock;
use crate::event::{Event, Headers, Message};
use crate::ledger::{Effects, Output, StateBucket, StateKey, StateWrite};
use crate::outcome::{Class, Failure, Outcome};
use crate::plugin::{Attempted, Call, Handler};

/// An event of the stage's own; its call is not written down.
pub(super) const SENTINEL: &str = "sentinel";

/// What the fake does with an event.
#[derive(Clone)]
pub(super) enum Answer {
    /// Succeeds without effects.
    Done,
    /// Succeeds and emits one event to each of these streams.
    Emit(Vec<&'static str>),
    /// Succeeds and adds one to the state under this key, by reading and writing it.
    Count(&'static str),
    /// Fails.
    Fail(Class),
    /// Fails in passing and asks to be tried again after so long.
    FailFor(Duration),
    /// The host could not run it.
    NotRun,
    /// The host itself is broken.
    Panic,
    /// Takes so long, then does that.
    After(Duration, Box<Answer>),
    /// Waits at the gate, then does that.
    At(Gate, Box<Answer>),
}

impl Answer {
    pub(super) fn at(self, gate: &Gate) -> Self {
        Self::At(gate.clone(), Box::new(self))
    }
}

/// Where attempts wait until the test lets them on. Shut at first.
#[derive(Clone)]
pub(super) struct Gate(Arc<Semaphore>);

impl Gate {
    pub(super) fn shut() -> Self {
        Self(Arc::new(Semaphore::new(0)))
    }

    /// Lets everybody pass from now on.
    pub(super) fn open(&self) {
        self.0.close();
    }

    /// Lets one pass.
    pub(super) fn let_one(&self) {
        self.0.add_permits(1);
    }

    pub(super) async fn pass(&self) {
        if let Ok(permit) = self.0.acquire().await {
            permit.forget();
        }
    }
}

/// One call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Called {
    pub id: String,
    pub attempt: u32,
    pub at: Instant,
}

type Script = dyn Fn(&Event, u32) -> Answer + Send + Sync;

/// The fake. It outlives the hosts of a test.
pub(super) struct Scripted {
    script: Mutex<Arc<Script>>,
    clock: Clock,
    calls: Mutex<Vec<Called>>,
    running: Mutex<BTreeMap<String, String>>,
    /// The event [`SENTINEL`] waits here, whatever the script says.
    pub(super) sentinel: Gate,
    pub overlaps: Mutex<Vec<String>>,
}

impl Scripted {
    pub(super) fn new(script: impl Fn(&Event, u32) -> Answer + Send + Sync + 'static) -> Arc<Self> {
        Arc::new(Self {
            script: Mutex::new(Arc::new(script)),
            clock: Clock::system(),
            calls: Mutex::default(),
            running: Mutex::default(),
            sentinel: Gate::shut(),
            overlaps: Mutex::default(),
        })
    }

    /// Another plugin from now on.
    pub(super) fn becomes(&self, script: impl Fn(&Event, u32) -> Answer + Send + Sync + 'static) {
        *self.script.lock().unwrap() = Arc::new(script);
    }

    pub(super) fn calls(&self) -> Vec<Called> {
        self.calls.lock().unwrap().clone()
    }

    /// The ids in the order of their calls.
    pub(super) fn called(&self) -> Vec<String> {
        self.calls().into_iter().map(|called| called.id).collect()
    }

    /// How often an event was called.
    pub(super) fn count(&self, id: &str) -> usize {
        self.called().iter().filter(|called| *called == id).count()
    }

    /// Ids of those that run now.
    pub(super) fn running(&self) -> BTreeSet<String> {
        self.running.lock().unwrap().values().cloned().collect()
    }

    async fn answer(&self, call: &Call<'_>, mut answer: Answer) -> Attempted {
        let mut duration = Duration::from_micros(10);
        loop {
            answer = match answer {
                Answer::At(gate, then) => {
                    gate.pass().await;
                    *then
                }
                Answer::After(time, then) => {
                    tokio::time::sleep(time).await;
                    duration += time;
                    *then
                }
                answer => break self.ended(call, answer, duration).await,
            }
        }
    }

    async fn ended(&self, call: &Call<'_>, answer: Answer, duration: Duration) -> Attempted {
        let (outcome, effects) = match answer {
            Answer::Emit(streams) => (Outcome::Succeeded, emit(call, &streams)),
            Answer::Count(key) => (Outcome::Succeeded, count(call, key).await),
            Answer::Fail(class) => (failed(class, None), Effects::default()),
            Answer::FailFor(after) => (failed(Class::Transient, Some(after)), Effects::default()),
            Answer::Panic => panic!("a fault of the host"),
            Answer::NotRun => (Outcome::NotRun("no room".to_owned()), Effects::default()),
            Answer::Done | Answer::At(..) | Answer::After(..) => (Outcome::Succeeded, Effects::default()),
        };
        Attempted {
            outcome,
            effects,
            duration,
            memory: 65_536,
        }
    }
}

impl Handler for Scripted {
    fn attempt<'a>(&'a self, call: Call<'a>) -> BoxFuture<'a, Attempted> {
        Box::pin(async move {
            let id = call.event.id.clone();
            if id == SENTINEL {
                return self.answer(&call, Answer::Done.at(&self.sentinel)).await;
            }
            self.calls.lock().unwrap().push(Called {
                id: id.clone(),
                attempt: call.attempt,
                at: self.clock.now(),
            });
            let _running = Running::begin(self, &String::from_utf8_lossy(&call.lane.0), &id);
            let script = self.script.lock().unwrap().clone();
            self.answer(&call, script(call.event, call.attempt)).await
        })
    }

    fn revision(&self) -> Arc<str> {
        "sha256:fake".into()
    }
}

/// An attempt that runs, until this is dropped.
struct Running<'h> {
    handler: &'h Scripted,
    key: String,
}

impl<'h> Running<'h> {
    fn begin(handler: &'h Scripted, key: &str, id: &str) -> Self {
        let before = handler.running.lock().unwrap().insert(key.to_owned(), id.to_owned());
        if let Some(before) = before {
            handler
                .overlaps
                .lock()
                .unwrap()
                .push(format!("{id} began while {before} of its key ran"));
        }
        Self {
            handler,
            key: key.to_owned(),
        }
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.handler.running.lock().unwrap().remove(&self.key);
    }
}

fn failed(class: Class, retry_after: Option<Duration>) -> Outcome {
    Outcome::Failed(Failure {
        class,
        message: format!("it failed: {class}"),
        backtrace: Vec::new(),
        retry_after,
    })
}

fn emit(call: &Call<'_>, streams: &[&'static str]) -> Effects {
    let output = |(index, stream): (usize, &&'static str)| Output {
        id: format!("{}-{index}", call.record).into(),
        stream: name(stream),
        key: call.lane.clone(),
        message: Message {
            subject: String::new(),
            headers: Headers::default(),
            payload: Bytes::from(call.event.id.clone()),
        },
    };
    Effects {
        outputs: streams.iter().enumerate().map(output).collect(),
        ..Effects::default()
    }
}

pub(super) fn counter(key: &str) -> StateKey {
    StateKey {
        bucket: StateBucket {
            consumer: name("test"),
            bucket: "default".into(),
        },
        key: key.into(),
    }
}

async fn count(call: &Call<'_>, key: &str) -> Effects {
    let key = counter(key);
    let read = call.state.read(&key).await.unwrap();
    let value = read.value.unwrap_or_default();
    let count: u64 = std::str::from_utf8(&value).unwrap().parse().unwrap_or(0);
    // Whoever else reads now reads the same.
    tokio::task::yield_now().await;
    let next = (count + 1).to_string();
    Effects {
        reads: BTreeSet::from([(key.clone(), read.version)]),
        writes: vec![StateWrite::Set(key, next.into())],
        ..Effects::default()
    }
}
