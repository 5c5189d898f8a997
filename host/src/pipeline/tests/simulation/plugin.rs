//! A simulated plugin: what it does with an event depends on the seed, the event and the number of the attempt.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;

use super::bugs::Bug;
use super::case::{Fault, draw};
use super::events::Events;
use super::policy::OUTPUTS;
use super::trace::{Fact, How, Number};
use super::world::World;
use crate::event::{Headers, Message};
use crate::ledger::{Effects, Output, StateBucket, StateKey, StateWrite};
use crate::outcome::{Class, Failure, Outcome};
use crate::pipeline::tests::stage::name;
use crate::plugin::{Attempted, Call, Handler};

/// What outlives the hosts of a run: which events people have put back, and until when everything fails.
#[derive(Default)]
pub(super) struct Fate {
    redriven: Mutex<BTreeMap<Number, u32>>,
    called: Mutex<BTreeMap<Number, u64>>,
    down_until: Mutex<u64>,
}

impl Fate {
    pub(super) fn redriven(&self, event: Number) {
        *self.redriven.lock().unwrap().entry(event).or_default() += 1;
        self.called.lock().unwrap().remove(&event);
    }

    /// One call more since it came, or came back.
    fn called(&self, event: Number) -> u64 {
        let mut called = self.called.lock().unwrap();
        let times = called.entry(event).or_default();
        *times += 1;
        *times
    }

    fn times_redriven(&self, event: Number) -> u32 {
        self.redriven.lock().unwrap().get(&event).copied().unwrap_or(0)
    }
}

/// The plugin as one host has it.
pub(super) struct Plugin {
    pub world: Arc<World>,
    pub fate: Arc<Fate>,
    pub life: u32,
}

/// An attempt under way.
struct Running<'p> {
    plugin: &'p Plugin,
    call: u32,
    is_over: bool,
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        if !self.is_over && self.plugin.world.is_alive(self.plugin.life) {
            self.plugin.world.note(Fact::Cut { call: self.call });
        }
    }
}

impl Plugin {
    fn draw(&self, what: &str, event: Number, number: u32) -> u64 {
        draw(self.world.case.seed, format_args!("{what} {event} {number}"))
    }

    /// How an attempt fails, if it does: not by its number, as those that count for nothing must end as well.
    fn failure(&self, event: Number, attempt: u32) -> Option<(Class, Option<Duration>)> {
        let (redriven, called) = (self.fate.times_redriven(event), self.fate.called(event));
        if self.is_down() {
            return Some((Class::Transient, None));
        }
        let share = if redriven > 0 { 200 } else { 80 };
        if self.world.case.has(Fault::Refusals) && self.draw("refused", event, redriven) < share {
            return Some((Class::Permanent, None));
        }
        let times = self.draw("times", event, redriven) % 6;
        if !self.world.case.has(Fault::Failures) || self.draw("fails", event, redriven) >= 250 {
            return None;
        }
        let pause = Duration::from_millis(self.draw("pause", event, attempt) * 2);
        (called <= times).then(|| match self.draw("class", event, attempt) {
            0..400 => (Class::Transient, None),
            400..550 => (Class::Transient, Some(pause)),
            550..800 => (Class::Trap, None),
            800..900 => (Class::TimeLimit, None),
            _ => (Class::MemoryLimit, None),
        })
    }

    /// Whether everything fails now.
    fn is_down(&self) -> bool {
        let now = self.world.at();
        let mut until = self.fate.down_until.lock().unwrap();
        if self.world.strikes(Fault::Outages, 8) {
            *until = now + self.world.choose(4_000) as u64;
            self.world
                .note(Fact::Trouble(format!("every attempt fails until {until} ms")));
        }
        now < *until && !self.world.is_calm()
    }

    /// Whether it is the one event of a run that kills its host.
    fn is_deadly(&self, event: Number) -> bool {
        let case = &self.world.case;
        let of_run = draw(case.seed, format_args!("deadly"));
        case.has(Fault::Deadly) && of_run < 400 && of_run % 20 == u64::from(event)
    }

    async fn effects(&self, call: &Call<'_>, event: Number, number: u32) -> Result<Effects, String> {
        let mut effects = Effects::default();
        if self.world.case.has(Fault::SharedState) && self.draw("counts", event, 0) < 500 {
            let key = counter(event % 2);
            let read = call.state.read(&key).await.map_err(|error| error.to_string())?;
            self.world.delay().await;
            let count = std::str::from_utf8(&read.value.unwrap_or_default())
                .unwrap()
                .parse()
                .unwrap_or(0_u64);
            effects.reads = BTreeSet::from([(key.clone(), read.version)]);
            effects.writes = vec![StateWrite::Set(key, Bytes::from((count + 1).to_string()))];
        }
        let count = self.draw("emits", event, 0) % 3;
        let output = |index| Output {
            id: call.record.output_id(index).into(),
            stream: name(OUTPUTS),
            key: call.lane.clone(),
            message: Message {
                subject: String::new(),
                headers: Headers::default(),
                payload: Bytes::from(format!("{index} of event {event} by call {number}")),
            },
        };
        effects.outputs = (0..count as usize).map(output).collect();
        Ok(effects)
    }

    async fn outcome(&self, call: &Call<'_>, event: Number, number: u32) -> (Outcome, Effects) {
        if self.is_deadly(event) && self.fate.times_redriven(event) == 0 {
            self.world.kill(self.life);
            return std::future::pending().await;
        }
        if self.world.strikes(Fault::NotRun, 40) {
            return (Outcome::NotRun("no room".to_owned()), Effects::default());
        }
        if let Some((class, retry_after)) = self.failure(event, call.attempt) {
            return (failed(class, retry_after), Effects::default());
        }
        match self.effects(call, event, number).await {
            Ok(effects) => (Outcome::Succeeded, effects),
            Err(why) => (Outcome::NotRun(why), Effects::default()),
        }
    }
}

impl Handler for Plugin {
    fn attempt<'a>(&'a self, call: Call<'a>) -> BoxFuture<'a, Attempted> {
        Box::pin(async move {
            if !self.world.step(self.life) {
                return std::future::pending().await;
            }
            let began = self.world.clock.now();
            let event = Events::of_event(call.event);
            let number = self.world.call();
            let attempt = call.attempt;
            self.world.note(Fact::Called {
                call: number,
                event,
                attempt,
            });
            let mut running = Running {
                plugin: self,
                call: number,
                is_over: false,
            };
            self.world.pass(self.life).await;
            let (mut outcome, effects) = self.outcome(&call, event, number).await;
            self.world.pass(self.life).await;
            running.is_over = true;
            self.world.note(Fact::Ended {
                call: number,
                how: how(&outcome),
            });
            if self.world.has_bug(Bug::HoldsAreCounted) && matches!(outcome, Outcome::NotRun(_)) {
                outcome = failed(Class::Transient, None);
            }
            Attempted {
                outcome,
                effects,
                duration: self.world.clock.now() - began + Duration::from_micros(10),
                memory: 65_536,
            }
        })
    }

    fn revision(&self) -> Arc<str> {
        "sha256:simulated".into()
    }
}

pub(super) fn counter(number: u32) -> StateKey {
    StateKey {
        bucket: StateBucket {
            consumer: name("test"),
            bucket: "default".into(),
        },
        key: format!("c{number}").into(),
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

fn how(outcome: &Outcome) -> How {
    match outcome {
        Outcome::Succeeded => How::Succeeded,
        Outcome::NotRun(_) => How::NotRun,
        Outcome::Failed(failure) => match failure.class {
            Class::Permanent => How::Refused,
            Class::Transient | Class::TimeLimit => How::Failed,
            _ => How::Trapped,
        },
    }
}
