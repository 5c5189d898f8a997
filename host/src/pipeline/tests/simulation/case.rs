//! What a run is made of: a seed, how many events, and what may go wrong. The same case is the same run, to the last call.

use std::collections::BTreeSet;
use std::fmt;

use fastrand::Rng;

/// What may go wrong. Each seed lets only some of it happen, so that some runs show one kind of trouble alone; a failing run
/// is shrunk by taking away one after the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Fault {
    /// The producer sends an event twice.
    Copies,
    /// The producer sends other data under an id that it has used.
    OtherData,
    /// A message is no event.
    Undecodable,
    /// An event has a type that the consumer does not want.
    Unwanted,
    /// Attempts fail in passing, trap, or ask for a pause.
    Failures,
    /// Some events fail for good.
    Refusals,
    /// The host can't run an attempt.
    NotRun,
    /// For a while every attempt fails.
    Outages,
    /// An event kills every host that runs it.
    Deadly,
    /// Attempts of different keys read and write the same state.
    SharedState,
    /// Calls take long now and then, each for itself.
    Delays,
    /// The ledger fails now and then.
    LedgerErrors,
    /// The ledger is away for a while.
    LedgerOutages,
    /// The source fails now and then, and opens only at the second try.
    SourceErrors,
    /// The broker does not hear a settlement.
    LostAcks,
    /// Messages of a batch are not taken.
    FailedPublishes,
    /// The broker has a message, and the publisher says that it has not.
    LostConfirmations,
    /// The broker will never take a message.
    RefusedOutputs,
    /// A host dies, at any await.
    Crashes,
    /// A host is drained, with much grace or little, and starts again.
    Drains,
    /// People redrive and purge dead letters.
    People,
}

impl Fault {
    pub(super) const ALL: [Self; 21] = [
        Self::Copies,
        Self::OtherData,
        Self::Undecodable,
        Self::Unwanted,
        Self::Failures,
        Self::Refusals,
        Self::NotRun,
        Self::Outages,
        Self::Deadly,
        Self::SharedState,
        Self::Delays,
        Self::LedgerErrors,
        Self::LedgerOutages,
        Self::SourceErrors,
        Self::LostAcks,
        Self::FailedPublishes,
        Self::LostConfirmations,
        Self::RefusedOutputs,
        Self::Crashes,
        Self::Drains,
        Self::People,
    ];
}

/// One run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Case {
    pub seed: u64,
    /// Messages that the producer sends.
    pub events: usize,
    pub faults: BTreeSet<Fault>,
}

impl Case {
    /// The case of a seed.
    pub(super) fn of(seed: u64) -> Self {
        let mut rng = rng(seed, "case");
        let share = rng.u64(2..=9);
        let faults = Fault::ALL.into_iter().filter(|_| rng.u64(0..10) < share).collect();
        Self {
            seed,
            events: rng.usize(4..=48),
            faults,
        }
    }

    /// The case that `SEED`, and `EVENTS` and `ONLY` if they are set, name: as a failing run prints it.
    pub(super) fn asked_for() -> Option<Self> {
        let variable = |name| std::env::var(name).ok();
        let mut case = Self::of(variable("SEED")?.parse().expect("SEED is a number"));
        if let Some(events) = variable("EVENTS") {
            case.events = events.parse().expect("EVENTS is a number");
        }
        if let Some(only) = variable("ONLY") {
            let find = |name| Fault::ALL.into_iter().find(|fault| format!("{fault:?}") == name);
            let names = only.split(',').filter(|name| !name.is_empty());
            case.faults = names.map(|name| find(name).expect("ONLY names faults")).collect();
        }
        Some(case)
    }

    pub(super) fn has(&self, fault: Fault) -> bool {
        self.faults.contains(&fault)
    }
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let faults: Vec<String> = self.faults.iter().map(|fault| format!("{fault:?}")).collect();
        write!(f, "SEED={} EVENTS={} ONLY={}", self.seed, self.events, faults.join(","))
    }
}

/// Chance for one purpose: what is drawn for another does not change it.
pub(super) fn rng(seed: u64, purpose: &str) -> Rng {
    Rng::with_seed(xxhash_rust::xxh3::xxh3_64_with_seed(purpose.as_bytes(), seed))
}

/// A number below 1,000 that depends on the seed and the text only.
pub(super) fn draw(seed: u64, text: fmt::Arguments<'_>) -> u64 {
    xxhash_rust::xxh3::xxh3_64_with_seed(text.to_string().as_bytes(), seed) % 1_000
}
