//! What is published, and what must come of it: worked out from the events alone, with no code of the host's.

use std::collections::BTreeMap;

use tidegate_tests::chance::Chance;

/// What an event does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Counts its key one up.
    Count,
    /// The same, with 30 KiB beside it.
    Large,
    /// The same, with half a megabyte: so many of them that the engine writes tables, compacts them and begins another journal.
    Huge,
    /// The same, at its third attempt.
    Flaky,
    /// The same, once the config has `open`; until then it fails and is tried again.
    Late,
    /// The same, if the config has `open`; else it is a dead letter.
    Wanted,
    /// Fails at each attempt.
    Hopeless,
    /// Fails for good.
    Bad,
}

/// An event.
#[derive(Clone, Debug)]
pub(crate) struct Event {
    pub(crate) id: String,
    pub(crate) key: String,
    pub(crate) kind: Kind,
}

impl Event {
    /// Its `type`.
    pub(crate) fn says(&self) -> &'static str {
        match self.kind {
            Kind::Bad => "permanent",
            _ => "state",
        }
    }

    /// Its data: a script for the guest.
    pub(crate) fn data(&self) -> String {
        let first = match self.kind {
            Kind::Count | Kind::Bad => String::new(),
            Kind::Large => format!("pad {}\n", "x".repeat(30 << 10)),
            Kind::Huge => format!("pad {}\n", noise(&self.id)),
            Kind::Flaky => "attempt 3\n".to_owned(),
            Kind::Hopeless => "attempt 1000000\n".to_owned(),
            Kind::Late => "need open\n".to_owned(),
            Kind::Wanted => "want open\n".to_owned(),
        };
        format!("{first}add {} 1", self.key)
    }
}

/// Half a megabyte that nothing can compress, the same for the same event.
fn noise(id: &str) -> String {
    let seed = id.bytes().fold(0, |seed, byte| seed * 31 + u64::from(byte));
    let mut chance = Chance::seeded(seed);
    (0..64 << 10)
        .map(|_| format!("{:08x}", chance.below(1 << 32)))
        .collect()
}

/// Events, in the order in which they are published.
#[derive(Clone, Debug)]
pub(crate) struct Traffic(pub(crate) Vec<Event>);

/// What must come of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Truth {
    /// By key, the events that take effect, in order.
    pub(crate) effects: BTreeMap<String, Vec<String>>,
    /// The dead letters, each with its reason.
    pub(crate) dead: BTreeMap<String, &'static str>,
}

impl Truth {
    /// How many events take effect.
    pub(crate) fn count(&self) -> usize {
        self.effects.values().map(Vec::len).sum()
    }
}

const KEYS: usize = 6;

impl Traffic {
    /// Events of several keys, of the kinds that `kind` gives by their number.
    pub(crate) fn of(count: usize, kind: impl Fn(usize) -> Kind) -> Self {
        let event = |number: usize| Event {
            id: format!("e{number}"),
            key: format!("k{}", number % KEYS),
            kind: kind(number),
        };
        Self((0..count).map(event).collect())
    }

    /// Most count; some only at their third attempt, and a few become dead letters.
    pub(crate) fn mixed(count: usize) -> Self {
        Self::of(count, |number| match number {
            _ if number % 17 == 5 => Kind::Flaky,
            _ if number % 13 == 7 => Kind::Bad,
            _ if number % 41 == 20 => Kind::Hopeless,
            _ => Kind::Count,
        })
    }

    /// The first key waits for `open`.
    pub(crate) fn one_late(count: usize) -> Self {
        Self::of(count, |number| if number == 0 { Kind::Late } else { Kind::Count })
    }

    /// What must have come of it, before and after the config has `open`.
    pub(crate) fn truth(&self, is_open: bool) -> Truth {
        let mut truth = Truth::default();
        let (mut waiting, mut redriven) = (Vec::new(), Vec::new());
        for event in &self.0 {
            match event.kind {
                Kind::Bad => _ = truth.dead.insert(event.id.clone(), "permanent"),
                Kind::Hopeless => _ = truth.dead.insert(event.id.clone(), "attempts-exhausted"),
                Kind::Wanted if is_open => redriven.push(event),
                Kind::Wanted => _ = truth.dead.insert(event.id.clone(), "permanent"),
                Kind::Late if !is_open => waiting.push(&event.key),
                _ if waiting.contains(&&event.key) => {}
                _ => truth.takes_effect(event),
            }
        }
        redriven.into_iter().for_each(|event| truth.takes_effect(event));
        truth
    }
}

impl Truth {
    fn takes_effect(&mut self, event: &Event) {
        self.effects
            .entry(event.key.clone())
            .or_default()
            .push(event.id.clone());
    }
}
