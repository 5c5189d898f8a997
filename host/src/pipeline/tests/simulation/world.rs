//! The world around a host: its time, its chance, who lives in it, and what was seen of all that.
//!
//! Whatever a host asks of the world goes through [`World::pass`], before anything comes of it and after: there a host may die, or be
//! told to drain. A dead host is never answered, so that nothing of it happens after its death, however long its tasks are still about.

use std::collections::VecDeque;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use fastrand::Rng;
use tokio::sync::Notify;

use super::bugs::Bug;
use super::case::{Case, Fault, rng};
use super::policy;
use super::trace::{Fact, Trace};
use crate::clock::{Clock, Timestamp};
use crate::plan;

const BEGAN: Timestamp = Timestamp(1_800_000_000_000);

/// The world of one run.
pub(super) struct World {
    pub case: Case,
    pub bug: Option<Bug>,
    pub plan: plan::Consumer,
    pub clock: Clock,
    pub trace: Trace,
    chance: Mutex<Chance>,
    lives: Mutex<Lives>,
    /// Told when a host is to stop.
    stopping: Notify,
    /// Calls under way: attempts have numbers.
    calls: AtomicU32,
    is_calm: AtomicBool,
}

struct Chance {
    by_fault: Vec<Rng>,
    delays: Rng,
    /// How many of a hundred calls are answered at once.
    prompt: u8,
    coins: Rng,
}

/// How a host stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    Crash,
    /// With so much grace.
    Drain(Duration),
}

#[derive(Default)]
struct Lives {
    /// The host that lives, or lived last.
    current: u32,
    is_alive: bool,
    steps: u64,
    /// At which step the next host stops, and how.
    next: Option<(u64, Ending)>,
    later: VecDeque<(u64, Ending)>,
    ordered: Option<Ending>,
}

impl World {
    pub(super) fn new(case: Case, bug: Option<Bug>) -> Self {
        let seed = case.seed;
        let mut lives = Lives {
            later: endings(&case),
            ..Lives::default()
        };
        lives.plan_next();
        let by_fault = Fault::ALL.into_iter().map(|fault| rng(seed, &format!("{fault:?}")));
        let mut coins = rng(seed, "coins");
        let chance = Chance {
            by_fault: by_fault.collect(),
            delays: rng(seed, "delays"),
            prompt: [20, 50, 80, 97][coins.usize(0..4)],
            coins,
        };
        Self {
            plan: policy::consumer(&case),
            clock: Clock::seeded(BEGAN, seed),
            trace: Trace::default(),
            chance: Mutex::new(chance),
            lives: Mutex::new(lives),
            stopping: Notify::new(),
            calls: AtomicU32::new(0),
            is_calm: AtomicBool::new(false),
            bug,
            case,
        }
    }

    pub(super) fn has_bug(&self, bug: Bug) -> bool {
        self.bug == Some(bug)
    }

    /// Milliseconds since the world began.
    pub(super) fn at(&self) -> u64 {
        self.clock.wall().0 - BEGAN.0
    }

    pub(super) fn of_wall(&self, wall: Timestamp) -> u64 {
        wall.0.saturating_sub(BEGAN.0)
    }

    pub(super) fn note(&self, fact: Fact) {
        let life = self.life();
        self.trace.note(self.at(), life, fact);
    }

    /// A number for an attempt.
    pub(super) fn call(&self) -> u32 {
        self.calls.fetch_add(1, Ordering::SeqCst) + 1
    }

    /// Whether something goes wrong now that does so in so many of a thousand cases.
    pub(super) fn strikes(&self, fault: Fault, per_mille: u64) -> bool {
        if !self.case.has(fault) || self.is_calm() {
            return false;
        }
        let index = Fault::ALL.iter().position(|known| *known == fault).unwrap();
        self.chance.lock().unwrap().by_fault[index].u64(0..1_000) < per_mille
    }

    /// A free choice of the world.
    pub(super) fn choose(&self, below: usize) -> usize {
        self.chance.lock().unwrap().coins.usize(0..below)
    }

    /// From now on nothing goes wrong any more.
    pub(super) fn calm_down(&self) {
        self.is_calm.store(true, Ordering::SeqCst);
        let mut lives = self.lives.lock().unwrap();
        lives.later.clear();
        lives.next = None;
    }

    pub(super) fn is_calm(&self) -> bool {
        self.is_calm.load(Ordering::SeqCst)
    }

    /// Takes as long as an answer takes.
    pub(super) async fn delay(&self) {
        let (is_long, chosen) = {
            let mut chance = self.chance.lock().unwrap();
            let prompt = chance.prompt;
            let delays = &mut chance.delays;
            let chosen = match delays.u8(0..100) {
                share if share < prompt => None,
                share if share < prompt + (100 - prompt) / 2 => Some(Duration::ZERO),
                _ => Some(Duration::from_millis(delays.u64(1..=4))),
            };
            (delays.u8(0..40) == 0, chosen)
        };
        let is_long = is_long && self.strikes(Fault::Delays, 500);
        match chosen {
            _ if is_long => tokio::time::sleep(Duration::from_millis(self.choose(700) as u64)).await,
            None => {}
            Some(Duration::ZERO) => tokio::task::yield_now().await,
            Some(time) => tokio::time::sleep(time).await,
        }
    }
}

/// Who lives.
impl World {
    /// The host that lives, or lived last; 0 before the first.
    pub(super) fn life(&self) -> u32 {
        self.lives.lock().unwrap().current
    }

    /// Another host lives from now on.
    pub(super) fn begin_life(&self) -> u32 {
        let mut lives = self.lives.lock().unwrap();
        lives.current += 1;
        lives.is_alive = true;
        lives.ordered = None;
        lives.current
    }

    /// Nothing of the host happens any more.
    pub(super) fn end_life(&self) {
        self.lives.lock().unwrap().is_alive = false;
    }

    pub(super) fn is_alive(&self, life: u32) -> bool {
        let lives = self.lives.lock().unwrap();
        lives.current == life && lives.is_alive
    }

    /// A step of a host. Says whether it lives on.
    pub(super) fn step(&self, life: u32) -> bool {
        let mut lives = self.lives.lock().unwrap();
        if lives.current != life || !lives.is_alive {
            return false;
        }
        lives.steps += 1;
        let steps = lives.steps;
        if let Some((_, ending)) = lives.next.take_if(|(at, _)| *at <= steps) {
            lives.order(ending);
            lives.plan_next();
            self.stopping.notify_one();
        }
        lives.is_alive
    }

    /// The host dies of what it does.
    pub(super) fn kill(&self, life: u32) {
        let mut lives = self.lives.lock().unwrap();
        if lives.current == life && lives.is_alive {
            lives.order(Ending::Crash);
            self.stopping.notify_one();
        }
    }

    /// A step, an answer's time, and another step. A host that dies at either is never answered.
    pub(super) async fn pass(&self, life: u32) {
        if self.step(life) {
            self.delay().await;
            if self.step(life) {
                return;
            }
        }
        std::future::pending().await
    }

    /// Waits until the host is to stop, and says how.
    pub(super) async fn ending(&self) -> Ending {
        loop {
            let ordered = self.lives.lock().unwrap().ordered.take();
            match ordered {
                Some(ending) => return ending,
                None => self.stopping.notified().await,
            }
        }
    }
}

impl World {
    /// Waits until the host dies.
    pub(super) async fn death(&self) {
        while self.ending().await != Ending::Crash {}
    }
}

impl Lives {
    fn order(&mut self, ending: Ending) {
        self.is_alive &= ending != Ending::Crash;
        self.ordered = Some(ending);
    }

    fn plan_next(&mut self) {
        let steps = self.steps;
        self.next = self.later.pop_front().map(|(gap, ending)| (steps + gap, ending));
    }
}

/// When hosts stop, each some steps after the last, and how.
fn endings(case: &Case) -> VecDeque<(u64, Ending)> {
    let mut rng = rng(case.seed, "endings");
    let crashes = if case.has(Fault::Crashes) { rng.usize(1..=5) } else { 0 };
    let drains = if case.has(Fault::Drains) { rng.usize(1..=3) } else { 0 };
    let grace = [0, 1, 20, 500, 20_000];
    let mut endings: Vec<Ending> = vec![Ending::Crash; crashes];
    endings.extend((0..drains).map(|_| Ending::Drain(Duration::from_millis(grace[rng.usize(0..grace.len())]))));
    rng.shuffle(&mut endings);
    let mut planned = VecDeque::new();
    for ending in endings {
        // Near each other sometimes, so that a host dies while it recovers.
        let far = 1 << rng.u32(3..=9);
        planned.push_back((1 + rng.u64(0..far), ending));
    }
    planned
}
