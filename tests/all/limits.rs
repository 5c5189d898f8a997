//! Whatever a plugin does, it is stopped in its own way, in time, and the next event does not notice.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "tests report by panicking, also from their helpers; they measure what a user's clock shows"
)]

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use tidegate::outcome::{Class, Outcome};
use tidegate::plugin::{Attempted, Plugin};
use tidegate_tests::guests::{assemble, build};
use tidegate_tests::plugins::{
    Mood, State, call, call_within, consumer, engine_with_room, event, failure, try_load, try_load_into,
};
use tokio::sync::Mutex;

/// What a limit may be overrun by: the promise of `Handler::attempt`.
const OVERRUN: Duration = Duration::from_millis(50);

async fn hostile() -> Plugin {
    try_load(consumer(build("hostile"))).await.unwrap()
}

/// Runs a behaviour; it must fail with this class and, somewhere in its message, this text. Then a good event must succeed.
async fn check(kind: &str, class: Class, message: &str) -> Attempted {
    let plugin = hostile().await;
    let attempted = call(&plugin, &event(kind, ""), &State::default()).await;
    let Outcome::Failed(failed) = &attempted.outcome else {
        panic!("{kind} did not fail: {attempted:?}")
    };
    assert_eq!(failed.class, class, "{failed:?}");
    assert!(failed.message.contains(message), "{failed:?}");
    assert!(failed.message.len() <= 4096 && !failed.message.contains('\n'));
    assert!(failed.backtrace.len() <= 32);
    assert_eq!(attempted.effects, Default::default());
    let good = call(&plugin, &event("ok-emit", ""), &State::default()).await;
    assert_eq!(good.outcome, Outcome::Succeeded);
    assert_eq!(good.effects.outputs.len(), 1);
    attempted
}

/// Runs a measurement until its lateness keeps the promise, three times at most: what else the machine does can only make it worse.
async fn check_lateness<T>(what: &str, mut measure: impl AsyncFnMut() -> (Duration, T)) -> T {
    // One at a time: they would measure each other.
    static ALONE: Mutex<()> = Mutex::const_new(());
    let _alone = ALONE.lock().await;
    let mut latest = Vec::new();
    for _ in 0..3 {
        let (late, measured) = measure().await;
        println!("{what}: {late:?} after the limit");
        if late <= OVERRUN {
            return measured;
        }
        latest.push(late);
    }
    panic!("{what} ended after its limit: {latest:?}")
}

/// Runs a behaviour with little time; it must end in time, as a time limit. Then a good event must succeed.
async fn check_time(kind: &str) -> Attempted {
    let plugin = hostile().await;
    let limit = Duration::from_millis(100);
    let measure = async || {
        let began = Instant::now();
        let attempted = call_within(&plugin, &event(kind, ""), &State::default(), limit).await;
        (began.elapsed().checked_sub(limit).unwrap(), attempted)
    };
    let attempted = check_lateness(kind, measure).await;
    let Outcome::Failed(failed) = &attempted.outcome else {
        panic!("{kind} did not fail: {attempted:?}")
    };
    assert_eq!(failed.class, Class::TimeLimit, "{failed:?}");
    let good = call(&plugin, &event("ok", ""), &State::default()).await;
    assert_eq!(good.outcome, Outcome::Succeeded);
    attempted
}

fn names(attempted: &Attempted) -> &[String] {
    match &attempted.outcome {
        Outcome::Failed(failed) => &failed.backtrace,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_endless_loop_is_stopped_in_time_and_named() {
    let attempted = check_time("loop").await;
    let names = names(&attempted);
    assert!(names[0].contains("endless_loop"), "{names:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_endless_loop_of_host_calls_is_stopped_in_time() {
    let attempted = check_time("loop-in-host-calls").await;
    let names = names(&attempted);
    assert!(
        names.iter().any(|name| name.contains("loop_in_host_calls")),
        "{names:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_guest_that_sleeps_for_ever_is_stopped_in_time() {
    check_time("sleep").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_random_numbers_is_stopped_in_time() {
    check_time("random-flood").await;
}

/// Starts as many endless loops, each with a little more time than the one before. Gives the longest any was late.
async fn spin(plugin: &Arc<Plugin>, loops: u32, limit: Duration) -> Duration {
    let spin = |n| {
        let plugin = Arc::clone(plugin);
        let limit = limit + n * Duration::from_millis(10);
        tokio::spawn(async move {
            let began = Instant::now();
            let (state, event) = (State::default(), event("loop", ""));
            let attempted = call_within(&*plugin, &event, &state, limit).await;
            assert_eq!(failure(attempted).class, Class::TimeLimit);
            began.elapsed().checked_sub(limit).unwrap()
        })
    };
    let ended = join_all((0..loops).map(spin)).await;
    let late = ended.into_iter().map(Result::unwrap);
    late.max().unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_endless_loops_are_all_stopped_in_time() {
    let plugin = Arc::new(hostile().await);
    let limit = Duration::from_millis(400);
    check_lateness("the last of 32 endless loops", async || {
        (spin(&plugin, 32, limit).await, ())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn endless_loops_on_all_workers_let_good_events_through() {
    let plugin = Arc::new(hostile().await);
    let measure = async || {
        let second = Duration::from_secs(1);
        let spinning = tokio::spawn({
            let plugin = Arc::clone(&plugin);
            async move { spin(&plugin, 2, second).await }
        });
        let (mut count, mut slowest) = (0, Duration::ZERO);
        while !spinning.is_finished() {
            let plugin = Arc::clone(&plugin);
            let begun = Instant::now();
            let good = tokio::spawn(async move { call(&*plugin, &event("ok", ""), &State::default()).await.outcome });
            assert_eq!(good.await.unwrap(), Outcome::Succeeded);
            slowest = slowest.max(begun.elapsed());
            count += 1;
        }
        println!("{count} good events beside 2 endless loops, the slowest took {slowest:?}");
        (spinning.await.unwrap(), count)
    };
    // Without a turn of their own they would wait for the loops to be stopped.
    assert!(check_lateness("endless loops on all workers", measure).await > 10);
}

#[tokio::test]
async fn endless_recursion_is_a_stack_overflow() {
    let plugin = try_load(consumer(assemble("recurse").unwrap())).await.unwrap();
    let failed = failure(call(&plugin, &event("x", ""), &State::default()).await);
    assert_eq!(failed.class, Class::StackOverflow, "{failed:?}");
    assert_eq!(failed.backtrace, vec!["deeper"; 32]);
    let attempted = check("recurse", Class::StackOverflow, "stack overflowed").await;
    let names = names(&attempted);
    assert_eq!(names.len(), 32);
    assert!(names[0].contains("recurse"), "{names:?}");
}

#[tokio::test]
async fn memory_over_its_limit_is_a_memory_limit() {
    let attempted = check("grow-memory", Class::MemoryLimit, "limits.memory (67108864)").await;
    assert!(attempted.memory <= 64 << 20 && attempted.memory > 60 << 20);
    let names = names(&attempted);
    assert!(names.iter().any(|name| name.contains("grow_memory")), "{names:?}");
}

#[tokio::test]
async fn a_guest_that_heeds_a_refusal_succeeds() {
    let plugin = hostile().await;
    for kind in ["grow-memory-and-heed", "emit-flood-and-heed"] {
        let done = call(&plugin, &event(kind, ""), &State::default()).await;
        assert_eq!(done.outcome, Outcome::Succeeded, "{kind}");
    }
}

#[tokio::test]
async fn emits_over_their_limit_are_an_effect_limit() {
    check("emit-flood", Class::EffectLimit, "limits.emits (100)").await;
}

#[tokio::test]
async fn a_failure_in_the_plugins_words_stays_what_it_says() {
    let attempted = check("emit-flood-and-say", Class::Transient, "too much").await;
    let failed = failure(attempted);
    assert_eq!(failed.retry_after, Some(Duration::from_millis(5)));
    check("emit-large", Class::Permanent, "limits.emit_bytes (1048576)").await;
}

#[tokio::test]
async fn one_call_that_hands_over_too_much_is_stopped_before_it_is_copied() {
    check("emit-huge", Class::EffectLimit, "more data in one call").await;
}

#[tokio::test]
async fn state_writes_over_their_limit_are_an_effect_limit() {
    check("state-flood", Class::EffectLimit, "limits.state_writes (1000)").await;
}

#[tokio::test]
async fn a_huge_log_line_and_a_flood_of_lines_are_no_failure() {
    let plugin = hostile().await;
    for kind in ["huge-log", "log-flood"] {
        let done = call(&plugin, &event(kind, ""), &State::default()).await;
        assert_eq!(done.outcome, Outcome::Succeeded, "{kind}");
    }
}

#[tokio::test]
async fn a_panic_is_a_trap_with_its_text_and_its_place() {
    let attempted = check("panic", Class::Trap, "no stock for e1 | at all").await;
    let names = names(&attempted);
    let place = names.iter().position(|name| name.contains("handle"));
    assert!(place.is_some(), "{names:?}");
    assert!(
        names
            .iter()
            .all(|name| !name.contains("_ZN") && !name.starts_with("_R")),
        "{names:?}"
    );
    let message = failure(attempted).message;
    assert!(message.starts_with("panicked at "), "{message}");
    assert!(!message.contains("RUST_BACKTRACE"), "{message}");
}

#[tokio::test]
async fn an_exit_is_a_trap_that_says_so() {
    check("exit", Class::Trap, "exit").await;
    check("abort", Class::Trap, "unreachable").await;
}

#[tokio::test]
async fn a_long_failure_is_cut() {
    let attempted = check("long-failure", Class::Permanent, "zzz").await;
    assert_eq!(failure(attempted).message.len(), 4096);
}

#[tokio::test]
async fn a_guest_finds_nothing_of_the_machine() {
    let plugin = hostile().await;
    let done = call(&plugin, &event("look-around", ""), &State::default()).await;
    assert_eq!(done.outcome, Outcome::Succeeded);
}

#[tokio::test]
async fn an_event_without_a_free_instance_waits_and_is_not_blamed() {
    let engine = engine_with_room(3);
    let plugin = try_load_into(&engine, consumer(build("hostile"))).await.unwrap();
    let state = State::default();
    let (sleeping, good) = (event("sleep", ""), event("ok", ""));
    let sleep = || call_within(&plugin, &sleeping, &state, Duration::from_millis(600));
    let full = join_all([sleep(), sleep(), sleep()]);
    let waiting = async {
        let short = Duration::from_millis(100);
        let not_run = call_within(&plugin, &good, &state, short).await;
        let run = call_within(&plugin, &good, &state, Duration::from_secs(10)).await;
        (not_run.outcome, run.outcome)
    };
    let (_, (not_run, run)) = futures_util::future::join(full, waiting).await;
    assert!(
        matches!(&not_run, Outcome::NotRun(reason) if reason.contains("host.instances_max")),
        "{not_run:?}"
    );
    assert_eq!(run, Outcome::Succeeded);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_instances_at_once_are_each_stopped_and_others_run() {
    const COUNT: usize = 10_000;
    let engine = engine_with_room(10_000);
    let plugin = Arc::new(try_load_into(&engine, consumer(build("hostile"))).await.unwrap());
    let limit = Duration::from_secs(10);
    let sleep = || {
        let plugin = Arc::clone(&plugin);
        tokio::spawn(async move {
            let attempted = call_within(&*plugin, &event("sleep", ""), &State::default(), limit).await;
            failure(attempted).class
        })
    };
    // One is left for those that behave.
    let sleeping: Vec<_> = (1..COUNT).map(|_| sleep()).collect();
    let good = call(&*plugin, &event("ok", ""), &State::default()).await;
    assert_eq!(good.outcome, Outcome::Succeeded);
    assert!(sleeping.iter().all(|sleeping| !sleeping.is_finished()));
    for stopped in join_all(sleeping).await {
        assert_eq!(stopped.unwrap(), Class::TimeLimit);
    }
    let good = call(&*plugin, &event("ok-emit", ""), &State::default()).await;
    assert_eq!(good.outcome, Outcome::Succeeded);
}

/// What it had waited for an instance was taken from its own time, and it was blamed for running out of it.
#[tokio::test]
async fn an_events_time_begins_when_it_has_its_instance() {
    let engine = engine_with_room(1);
    let plugin = try_load_into(&engine, consumer(build("hostile"))).await.unwrap();
    let (state, sleeping) = (State::default(), event("sleep", ""));
    let first = call_within(&plugin, &sleeping, &state, Duration::from_millis(300));
    let limit = Duration::from_millis(400);
    let second = call_within(&plugin, &sleeping, &state, limit);
    let (_, waited) = futures_util::future::join(first, second).await;
    assert!(waited.duration >= limit, "it had {:?} of {limit:?}", waited.duration);
    assert_eq!(failure(waited).class, Class::TimeLimit);
}

#[tokio::test]
async fn a_ledger_out_of_reach_never_counts_against_the_event() {
    let plugin = try_load(consumer(build("plain"))).await.unwrap();
    let run = async |mood| {
        let mut state = State::default();
        state.mood = mood;
        let time = Duration::from_millis(100);
        call_within(&plugin, &event("state", "get a"), &state, time)
            .await
            .outcome
    };
    let away = run(Mood::Away).await;
    assert!(matches!(&away, Outcome::NotRun(reason) if reason.contains("the disk is full")));
    let silent = run(Mood::Silent).await;
    assert!(matches!(&silent, Outcome::NotRun(reason) if reason.contains("did not answer")));
}
