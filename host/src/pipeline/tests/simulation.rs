//! A consumer in a simulated world: one thread, time that passes only when nothing else can happen, and a seed that decides everything
//! else. Source, ledger, publisher, plugin and people are simulated; the pipeline and its relays are the real ones.
//!
//! The world writes down what it sees, and `promises` holds the pipeline's promises against that. A failing seed is shrunk and printed with what
//! repeats it: `SEED=...` with the same test. `SEEDS=...` tries so many.

mod broker;
pub(in crate::pipeline) mod bugs;
mod case;
mod events;
mod ledger;
mod plugin;
mod policy;
mod promises;
mod receiver;
mod run;
mod shrink;
mod trace;
mod world;

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use bugs::Bug;
use case::Case;
use promises::Promise;
use shrink::{report, shrink, try_out};
use trace::{Change, Fact, How, Kind, Stop};

use crate::outcome::Reason;

/// Seeds of an ordinary run.
const SEEDS: u64 = 2_000;
/// Seeds within which a bug must be seen.
const BUG_SEEDS: u64 = 400;

/// Tries seeds on every core, and gives the reports of those that break something, and how many events they sent in all.
fn try_seeds(seeds: u64) -> (Vec<String>, u64) {
    let (next, sent, reports) = (AtomicU64::new(0), AtomicU64::new(0), Mutex::new(Vec::new()));
    let work = || {
        loop {
            let seed = next.fetch_add(1, Ordering::SeqCst);
            if seed >= seeds || reports.lock().unwrap().len() >= 3 {
                return;
            }
            let case = Case::of(seed);
            let (run, broken) = try_out(&case, None);
            let events = run.lines.iter().filter(|line| matches!(line.fact, Fact::Sent { .. }));
            sent.fetch_add(events.count() as u64, Ordering::SeqCst);
            if let Some(first) = broken.first() {
                let report = report(&case, None, first);
                reports.lock().unwrap().push(report);
            }
        }
    };
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        (0..cores).for_each(|_| _ = scope.spawn(work));
    });
    (reports.into_inner().unwrap(), sent.into_inner())
}

#[test]
fn every_seed_keeps_every_promise() {
    if let Some(case) = Case::asked_for() {
        let (run, broken) = try_out(&case, None);
        run.lines.iter().for_each(|line| println!("{line}"));
        assert_eq!(broken, [], "{case}");
        return;
    }
    let seeds = std::env::var("SEEDS").map_or(SEEDS, |seeds| seeds.parse().expect("SEEDS is a number"));
    let (reports, sent) = try_seeds(seeds);
    println!(
        "| seeds | events | broken promises |\n| --- | --- | --- |\n| {seeds} | {sent} | {} |",
        reports.len()
    );
    assert!(reports.is_empty(), "{}", reports.join("\n"));
}

#[test]
fn the_same_seed_is_the_same_run() {
    for seed in 0..40 {
        let case = Case::of(seed);
        let (one, other) = (try_out(&case, None), try_out(&case, None));
        let differs = one.0.lines.iter().zip(&other.0.lines).find(|(one, other)| one != other);
        assert_eq!(differs, None, "{case}");
        assert_eq!(one, other, "{case}");
    }
}

/// What would go unseen if it never happened.
#[test]
fn everything_that_can_happen_happens() {
    let mut happened: BTreeMap<&str, u64> = HAPPENINGS.iter().map(|(name, _)| (*name, 0)).collect();
    for seed in 0..300 {
        let (run, _) = try_out(&Case::of(seed), None);
        for (name, is_it) in HAPPENINGS {
            *happened.entry(name).or_default() += run.lines.iter().filter(|line| is_it(&line.fact)).count() as u64;
        }
    }
    println!("{happened:?}");
    let never: Vec<_> = happened.iter().filter(|(_, times)| **times == 0).collect();
    assert!(never.is_empty(), "{never:?}");
}

type Happening = (&'static str, fn(&Fact) -> bool);

macro_rules! happenings {
    ($($name:literal: $pattern:pat $(if $guard:expr)?,)*) => {
        const HAPPENINGS: &[Happening] = &[$(($name, |fact| matches!(fact, $pattern $(if $guard)?)),)*];
    };
}

happenings! {
    "other data under a known id": Fact::Sent { kind: Kind::OtherData, .. },
    "a message that is no event": Fact::Sent { kind: Kind::Undecodable, .. },
    "an event that is not wanted": Fact::Sent { kind: Kind::Unwanted, .. },
    "a crash": Fact::Stopped(Stop::Crash),
    "a drain": Fact::Stopped(Stop::Drain),
    "a delivery is handed back": Fact::Settled { is_done: false, .. },
    "a second attempt": Fact::Called { attempt: 2, .. },
    "an attempt that could not be run": Fact::Ended { how: How::NotRun, .. },
    "an attempt is cut off": Fact::Cut { .. },
    "a beginning on record": Fact::Wrote { change: Change::Begun, .. },
    "an event is parked": Fact::Wrote { change: Change::Parked { .. }, .. },
    "an event takes effect from the parking": Fact::Wrote { was_parked: true, change: Change::Applied { .. }, .. },
    "an event fails in the parking": Fact::Wrote { was_parked: true, change: Change::Failed { .. }, .. },
    "a dead letter: permanent": Fact::Wrote { change: Change::Dead { reason: Reason::Permanent, .. }, .. },
    "a dead letter: attempts": Fact::Wrote { change: Change::Dead { reason: Reason::AttemptsExhausted, .. }, .. },
    "a dead letter: trap": Fact::Wrote { change: Change::Dead { reason: Reason::Trap, .. }, .. },
    "a dead letter: time": Fact::Wrote { change: Change::Dead { reason: Reason::TimeLimit, .. }, .. },
    "a dead letter: undecodable": Fact::Wrote { change: Change::Dead { reason: Reason::Undecodable, .. }, .. },
    "a dead letter: conflict": Fact::Wrote { change: Change::Dead { reason: Reason::IdConflict, .. }, .. },
    "a dead letter: host crash": Fact::Wrote { change: Change::Dead { reason: Reason::HostCrash, .. }, .. },
    "a dead letter: refused output": Fact::Wrote { change: Change::Dead { reason: Reason::OutputRefused, .. }, .. },
    "a dead letter that holds its key": Fact::Wrote { change: Change::Dead { holds: true, .. }, .. },
    "a dead letter of what was put back": Fact::Wrote { was_parked: true, change: Change::Dead { .. }, .. },
    "a write is refused: over": Fact::Unwritten { why, .. } if why.starts_with("Done"),
    "a write is refused: parked": Fact::Unwritten { why, .. } if why.starts_with("Parked"),
    "a write is refused: state": Fact::Unwritten { why, .. } if why == "Conflict",
    "an output arrives twice": Fact::Published { is_new: false, .. },
    "an output is refused": Fact::Answered { is_refused: true, .. },
    "a letter is put back": Fact::Redriven { .. },
    "a letter is purged": Fact::Purged { .. },
}

/// A bug is seen, and named by the promise that it breaks.
fn check(bug: Bug, promise: Promise) {
    let sees = |seed: &u64| {
        let (_, broken) = try_out(&Case::of(*seed), Some(bug));
        broken.iter().any(|broken| broken.promise == promise)
    };
    let seed = (0..BUG_SEEDS).find(sees);
    println!("{bug:?}: seed {seed:?} breaks {promise:?}");
    assert!(
        seed.is_some(),
        "{bug:?} is not seen to break {promise:?} within {BUG_SEEDS} seeds"
    );
}

macro_rules! bugs {
    ($($test:ident: $bug:ident breaks $promise:ident,)*) => { $(
        #[test]
        fn $test() {
            check(Bug::$bug, Promise::$promise);
        }
    )* };
}

bugs! {
    a_settlement_before_the_commit_is_seen: AckBeforeCommit breaks SettledAfterCommit,
    what_is_lost_by_a_settlement_before_the_commit_is_seen: AckBeforeCommit breaks NothingLost,
    a_record_before_its_effects_is_seen: RecordBeforeEffects breaks OutputsArrive,
    state_lost_by_a_record_before_its_effects_is_seen: RecordBeforeEffects breaks StateExact,
    a_retry_that_is_overtaken_is_seen: RetryIsOvertaken breaks AttemptsInOrder,
    effects_out_of_order_after_an_overtaken_retry_are_seen: RetryIsOvertaken breaks EffectsInOrder,
    newer_events_before_pending_ones_are_seen: NewerBeforePending breaks AttemptsInOrder,
    a_failed_publish_that_is_overtaken_is_seen: PublishIsOvertaken breaks OutputsInOrder,
    attempts_counted_in_memory_are_seen: AttemptsInMemory breaks AttemptsCounted,
    effects_that_come_twice_are_seen: AppliedTwice breaks Once,
    attempts_without_a_look_up_are_seen: NeverLookedUp breaks Once,
    durable_writes_that_are_reported_failed_are_seen: FailedButDurable breaks ComesToRest,
    outputs_confirmed_unseen_are_seen: ConfirmedUnseen breaks OutputsArrive,
    outputs_with_fresh_ids_are_seen: FreshIds breaks OutputsCommitted,
    a_budget_that_is_not_kept_is_seen: OverBudget breaks WithinBounds,
    a_shuffled_parking_is_seen: ParkedShuffled breaks AttemptsInOrder,
    a_held_attempt_that_counts_is_seen: HoldsAreCounted breaks AttemptsCounted,
    lost_updates_are_seen: LostUpdates breaks StateExact,
    an_outbox_that_never_forgets_is_seen: NeverForgotten breaks ComesToRest,
}

#[test]
fn a_failing_case_is_shrunk_and_fails_as_before() {
    let bug = Some(Bug::RetryIsOvertaken);
    let failing = (0..BUG_SEEDS).map(Case::of).find_map(|case| {
        let broken = try_out(&case, bug).1.into_iter().next()?;
        Some((case, broken))
    });
    let (case, first) = failing.expect("some seed shows it");
    let small = shrink(&case, bug, &first);
    assert!(
        small.events < case.events && small.faults.len() < case.faults.len(),
        "{small}"
    );
    let text = report(&small, bug, &first);
    assert!(text.contains(&format!("shrunk: {small} ")), "{text}");
    assert!(text.contains(&format!("broken: {:?}", first.promise)), "{text}");
}
