//! Whatever a plugin does, it is stopped in its own way, in time, and the next event does not notice.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use tidegate::outcome::{Class, Outcome};
use tidegate::plugin::{Attempted, Plugin};
use tidegate_tests::guests::build;
use tidegate_tests::plugins::{Mood, State, call, call_within, consumer, event, failure, try_load};

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

/// Runs a behaviour with little time; it must end within the promise. Gives how much it was late.
async fn check_time(kind: &str) -> Attempted {
    let plugin = hostile().await;
    // The first call maps memory and fills caches: it is not what is measured.
    call(&plugin, &event("ok", ""), &State::default()).await;
    let limit = Duration::from_millis(100);
    let began = Instant::now();
    let attempted = call_within(&plugin, &event(kind, ""), &State::default(), limit).await;
    let late = began.elapsed().checked_sub(limit).expect("it ran its time");
    println!("{kind}: {late:?} after its limit");
    assert!(late <= OVERRUN, "{kind} ended {late:?} after its limit");
    let failed = failure(attempted_again(&attempted));
    assert_eq!(failed.class, Class::TimeLimit, "{failed:?}");
    let good = call(&plugin, &event("ok", ""), &State::default()).await;
    assert_eq!(good.outcome, Outcome::Succeeded);
    attempted
}

fn attempted_again(attempted: &Attempted) -> Attempted {
    Attempted {
        outcome: attempted.outcome.clone(),
        effects: attempted.effects.clone(),
        ..*attempted
    }
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn endless_loops_on_all_cores_let_a_good_event_through() {
    let plugin = hostile().await;
    let (state, spinning) = (State::default(), event("loop", ""));
    let cores = std::thread::available_parallelism().unwrap().get();
    let limit = Duration::from_millis(1500);
    let began = Instant::now();
    let loops = join_all((0..cores).map(|_| async {
        // Each on its own worker, as far as there are some.
        tokio::task::yield_now().await;
        call_within(&plugin, &spinning, &state, limit).await
    }));
    let good = async {
        let mut slowest = Duration::ZERO;
        let mut count = 0;
        while began.elapsed() < Duration::from_secs(1) {
            let begun = Instant::now();
            let done = call(&plugin, &event("ok", ""), &state).await;
            assert_eq!(done.outcome, Outcome::Succeeded);
            slowest = slowest.max(begun.elapsed());
            count += 1;
            tokio::task::yield_now().await;
        }
        (count, slowest)
    };
    let (stopped, (count, slowest)) = futures_util::future::join(loops, good).await;
    println!("{cores} loops: {count} good events in 1 s, the slowest took {slowest:?}");
    assert!(count >= 10);
    for attempted in stopped {
        assert_eq!(failure(attempted).class, Class::TimeLimit);
    }
    let late = began.elapsed().saturating_sub(limit);
    assert!(late <= OVERRUN, "{late:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_endless_loops_are_all_stopped_in_time() {
    let plugin = std::sync::Arc::new(hostile().await);
    let limit = Duration::from_millis(400);
    let tasks = (0..32_u64).map(|n| {
        let plugin = std::sync::Arc::clone(&plugin);
        // Not all at once: so that one is due while the others have still long to run.
        let limit = limit + Duration::from_millis(n * 10);
        tokio::spawn(async move {
            let began = Instant::now();
            let state = State::default();
            let attempted = call_within(&*plugin, &event("loop", ""), &state, limit).await;
            (failure(attempted).class, began.elapsed().saturating_sub(limit))
        })
    });
    let ended = join_all(tasks).await;
    let late = ended.iter().map(|ended| ended.as_ref().unwrap().1).max();
    println!("32 loops on 2 workers: the latest ended {late:?} after its limit");
    for ended in ended {
        let (class, late) = ended.unwrap();
        assert_eq!(class, Class::TimeLimit);
        assert!(late <= OVERRUN, "{late:?}");
    }
}

#[tokio::test]
async fn endless_recursion_is_a_stack_overflow() {
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
async fn an_instance_over_the_engines_room_waits_and_never_counts_against_the_event() {
    let plugin = hostile().await;
    let state = State::default();
    let (sleeping, good) = (event("sleep", ""), event("ok", ""));
    let full = join_all(
        (0..tidegate_tests::plugins::INSTANCES_MAX)
            .map(|_| call_within(&plugin, &sleeping, &state, Duration::from_secs(2))),
    );
    let waiting = async {
        tokio::task::yield_now().await;
        let short = Duration::from_millis(100);
        let not_run = call_within(&plugin, &good, &state, short).await;
        let run = call_within(&plugin, &good, &state, Duration::from_secs(10)).await;
        (not_run.outcome, run.outcome)
    };
    let (_, (not_run, run)) = futures_util::future::join(full, waiting).await;
    // Other tests share the engine, and so may have had a place free; but whatever came first, nothing failed.
    assert!(
        matches!(&not_run, Outcome::NotRun(reason) if reason.contains("host.instances_max")),
        "{not_run:?}"
    );
    assert_eq!(run, Outcome::Succeeded);
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
