//! One run: hosts come and go, messages come, people redrive and purge; then nothing goes wrong any more, and all must come to rest.

use std::collections::HashMap;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::broadcast;
use tokio::task::JoinSet;

use super::broker::{Link, Server};
use super::bugs::{self, Bug};
use super::case::{Case, Fault, draw};
use super::events::Events;
use super::ledger::{Access, Vault};
use super::plugin::{Fate, Plugin};
use super::policy::{DEAD, OUTPUTS};
use super::receiver::{Door, Receiver};
use super::trace::{End, Fact, Line, Stop};
use super::world::{Ending, World};
use crate::clock::Clock;
use crate::ledger::{DeadLetter, Outbox, Row};
use crate::metrics::Metrics;
use crate::outcome::Reason;
use crate::pipeline::ages::Ages;
use crate::pipeline::tests::stage::outside_stream;
use crate::pipeline::unconfirmed::Inherited;
use crate::pipeline::{Handle, Left, Parts, Pipeline, relay};
use crate::plan;

/// How long the world waits for everything to come to rest, in its own time.
const PATIENCE: Duration = Duration::from_secs(600);
/// How often it looks.
const LOOK: Duration = Duration::from_millis(100);
/// More hosts than this is a run that does not end.
const LIVES_MAX: u32 = 60;

/// What a run showed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Run {
    pub lines: Vec<Line>,
    pub end: End,
}

/// Runs a case, on this thread alone, in time that passes only when nothing else can happen.
pub(super) fn run(case: &Case, bug: Option<Bug>) -> (Run, plan::Consumer) {
    bugs::put_in(bug);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    let shown = runtime.block_on(async {
        let stage = Arc::new(Stage::new(World::new(case.clone(), bug)));
        let end = stage.clone().play().await;
        let run = Run {
            lines: stage.world.trace.lines(),
            end,
        };
        (run, stage.world.plan.clone())
    });
    bugs::put_in(None);
    shown
}

/// What outlives the hosts.
struct Stage {
    world: Arc<World>,
    events: Arc<Events>,
    vault: Arc<Vault>,
    server: Arc<Server>,
    receiver: Arc<Receiver>,
    fate: Arc<Fate>,
    /// To tell the host that lives.
    handle: Mutex<Option<Handle>>,
}

/// A host.
struct Host {
    pipeline: Pipeline,
    relays: JoinSet<()>,
}

impl Stage {
    fn new(world: World) -> Self {
        let world = Arc::new(world);
        let events = Arc::new(Events::new(&world));
        Self {
            vault: Vault::new(world.clone(), events.clone()),
            events,
            world,
            server: Arc::default(),
            receiver: Arc::default(),
            fate: Arc::default(),
            handle: Mutex::default(),
        }
    }

    async fn play(self: Arc<Self>) -> End {
        let mut crowd = JoinSet::new();
        crowd.spawn(self.clone().produce());
        crowd.spawn(self.clone().people());
        let rest = self.clone().rest();
        tokio::pin!(rest);
        let stuck = loop {
            if self.world.life() >= LIVES_MAX {
                break Some(format!("{LIVES_MAX} hosts came and went"));
            }
            let host = self.start().await;
            let ending = tokio::select! {
                biased;
                ending = self.world.ending() => ending,
                stuck = &mut rest => {
                    let left = self.drain(host, PATIENCE).await;
                    break stuck.or_else(|| self.left(left));
                }
            };
            match ending {
                Ending::Crash => self.crash(host).await,
                Ending::Drain(grace) => _ = self.drain(host, grace).await,
            }
            tokio::time::sleep(Duration::from_millis(self.world.choose(200) as u64)).await;
        };
        crowd.shutdown().await;
        self.end(stuck)
    }

    /// Sends what there is to send.
    async fn produce(self: Arc<Self>) {
        let draw = |what: &str, index: u32| draw(self.world.case.seed, format_args!("{what} {index}"));
        for index in 0..self.world.case.events as u32 {
            let pause = match draw("pause", index) {
                0..600 => 0,
                600..950 => draw("short", index) % 40,
                _ => draw("long", index) * 2,
            };
            tokio::time::sleep(Duration::from_millis(pause)).await;
            let sending = self.events.sending(index);
            let gap = if draw("gap", index) < 100 { 7 } else { 1 };
            let position = self.server.append(sending.message.clone(), gap);
            self.events.sent(&sending, position);
            self.world.note(Fact::Sent {
                position,
                event: sending.number,
                key: sending.key,
                kind: sending.kind,
            });
            self.server.tell();
        }
        // What is planned to go wrong goes on for a while when everything is sent.
        tokio::time::sleep(Duration::from_millis(draw("end", 0) * 10)).await;
        self.world.calm_down();
        self.world
            .note(Fact::Trouble("nothing goes wrong from now on".to_owned()));
    }

    /// People look at the dead letters now and then.
    async fn people(self: Arc<Self>) {
        while !self.world.is_calm() {
            tokio::time::sleep(Duration::from_millis(20 + self.world.choose(400) as u64)).await;
            if self.world.strikes(Fault::People, 500) {
                let mut letters = self.vault.letters();
                letters.retain(|_| self.world.choose(2) == 0);
                self.treat(letters).await;
            }
        }
    }

    /// Redrives or purges letters, and tells the host.
    async fn treat(&self, letters: Vec<DeadLetter>) {
        if letters.is_empty() {
            return;
        }
        for letter in &letters {
            if self.world.choose(4) == 0 {
                self.vault.purge(letter);
                continue;
            }
            if let Some(event) = self.events.of_record(letter.id).filter(|_| !letter.redriving) {
                self.fate.redriven(event);
            }
            self.vault.redrive(letter);
        }
        let handle = self.handle.lock().unwrap().clone();
        if let Some(handle) = handle {
            self.world.delay().await;
            self.world.note(Fact::Looked);
            handle.parking_changed().await;
        }
    }

    /// Waits until nothing is left to do. Says why, if that does not come.
    async fn rest(self: Arc<Self>) -> Option<String> {
        while !self.world.is_calm() {
            tokio::time::sleep(LOOK).await;
        }
        let until = self.world.at() + PATIENCE.as_millis() as u64;
        while self.world.at() < until {
            tokio::time::sleep(LOOK).await;
            let lanes = self.vault.lanes();
            let is_done = self.server.lag() == 0 && self.vault.is_idle();
            if is_done && lanes.is_empty() && !self.vault.is_recovering() {
                return None;
            }
            // Whoever waits for people is helped: held keys fill the parking, and then the budget.
            let mut letters = self.vault.letters();
            letters.retain(|letter| !letter.redriving && lanes.iter().any(|lane| lane.held_by == Some(letter.id)));
            self.treat(letters).await;
        }
        Some(format!(
            "after {PATIENCE:?}: {} are not settled, {} outputs wait, parked: {:?}, recovering: {}",
            self.server.lag(),
            self.vault.outbox().len(),
            self.vault.lanes(),
            self.vault.is_recovering(),
        ))
    }

    fn left(&self, left: Left) -> Option<String> {
        let is_left = left != Left::default();
        is_left.then(|| format!("a drain at rest left something: {left:?}"))
    }

    fn end(&self, stuck: Option<String>) -> End {
        let of_events = self
            .vault
            .letters()
            .into_iter()
            .filter(|letter| letter.reason != Reason::OutputRefused);
        let (known, strange): (Vec<_>, Vec<_>) = of_events
            .map(|letter| (self.events.of_record(letter.id).ok_or(letter.id), letter.reason))
            .partition(|(event, _)| event.is_ok());
        let mut letters: Vec<_> = known
            .into_iter()
            .map(|(event, reason)| (event.unwrap(), reason))
            .collect();
        letters.sort();
        let outbox = self.vault.outbox().len();
        End {
            stuck: stuck.or_else(|| (outbox > 0).then(|| format!("{outbox} outputs stay in the outbox"))),
            letters,
            counters: self.vault.counters(),
            strange: strange.into_iter().map(|(event, _)| event.unwrap_err()).collect(),
        }
    }
}

/// Hosts.
impl Stage {
    async fn start(&self) -> Host {
        let world = &self.world;
        let life = world.begin_life();
        world.note(Fact::Started);
        let ledger = self.vault.open(life);
        let clock = Clock::seeded(world.clock.wall(), world.case.seed ^ u64::from(life));
        let metrics = Metrics::new();
        let (relays, tasks, inherited) = self.relays(life, &ledger, &metrics, &clock);
        let parts = Parts {
            consumer: Arc::new(world.plan.clone()),
            broker: Arc::new(Link {
                world: world.clone(),
                server: self.server.clone(),
                life,
            }),
            handler: Arc::new(Plugin {
                world: world.clone(),
                fate: self.fate.clone(),
                life,
            }),
            ledger: ledger.clone(),
            parking: ledger,
            relays,
            inherited,
            ages: Arc::new(Ages::since(clock.now())),
            quarantine: Arc::default(),
            workers: NonZeroUsize::new(2).unwrap(),
            metrics: metrics.consumer(&world.plan.name),
            feed: broadcast::channel(16).0,
            clock,
        };
        let pipeline = parts.start();
        *self.handle.lock().unwrap() = Some(pipeline.handle());
        Host {
            pipeline,
            relays: tasks,
        }
    }

    fn relays(
        &self,
        life: u32,
        ledger: &Arc<Access>,
        metrics: &Metrics,
        clock: &Clock,
    ) -> (HashMap<plan::Name, relay::Relay>, JoinSet<()>, Inherited) {
        let mut inherited = Inherited::default();
        let mut left = self.vault.outbox();
        let (mut relays, mut tasks) = (HashMap::new(), JoinSet::new());
        let plan = &self.world.plan;
        let capacity = 2 * plan.budget.events.get() + plan.concurrency.get();
        for stream in [outside_stream(OUTPUTS), outside_stream(DEAD)] {
            let (mine, others) = left.into_iter().partition(|row: &Row| row.output.stream == stream.name);
            left = others;
            let parts = relay::Parts {
                stream: stream.clone(),
                broker: Arc::new(Door {
                    world: self.world.clone(),
                    receiver: self.receiver.clone(),
                    life,
                }),
                outbox: ledger.clone() as Arc<dyn Outbox>,
                ledger: ledger.clone(),
                clock: clock.clone(),
                metrics: metrics.stream(&stream.name),
            };
            let mine = Vec::<Row>::into_iter(mine).map(|row| inherited.post(row)).collect();
            let (relay, task) = parts.start(mine, capacity);
            tasks.spawn(task);
            relays.insert(stream.name.clone(), relay);
        }
        (relays, tasks, inherited)
    }

    async fn crash(&self, mut host: Host) {
        self.stopped(Stop::Crash);
        drop(host.pipeline);
        host.relays.shutdown().await;
    }

    fn stopped(&self, stop: Stop) {
        self.world.end_life();
        match stop {
            Stop::Crash => self.vault.crash(),
            Stop::Drain => self.vault.close(),
        }
        self.world.note(Fact::Stopped(stop));
        *self.handle.lock().unwrap() = None;
    }

    /// Drains a host; it may die meanwhile.
    async fn drain(&self, mut host: Host, grace: Duration) -> Left {
        let deadline = self.world.clock.now() + grace;
        let left = tokio::select! {
            biased;
            () = self.world.death() => None,
            left = host.pipeline.drain(deadline) => Some(left),
        };
        let stop = if left.is_some() { Stop::Drain } else { Stop::Crash };
        self.stopped(stop);
        host.relays.shutdown().await;
        left.unwrap_or_default()
    }
}
