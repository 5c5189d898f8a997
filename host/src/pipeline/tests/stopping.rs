//! A drain hands back what it can't finish; a crash loses nothing, and what kills hosts is found.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use super::handler::{Answer, Gate};
use super::stage::Stage;
use crate::event::Event;
use crate::outcome::{Class, Reason};

#[tokio::test]
async fn a_drain_finishes_what_runs_and_hands_back_the_rest_in_order() {
    let gate = Gate::shut();
    let script = gate.clone();
    let mut stage = Stage::started(move |event, _| match event.id.as_str() {
        "a1" => Answer::Done.at(&script),
        _ => Answer::Done,
    })
    .await;
    stage.send_many(&["a1", "a2", "a3"], "a").await;
    stage.pass("b1").await;
    let opener = tokio::spawn(async move {
        tokio::time::sleep(Duration::from_millis(50)).await;
        gate.open();
    });
    let left = stage.stop().await;
    opener.await.unwrap();
    assert_eq!((left.handed_back, left.unfinished, left.unconfirmed), (2, 0, 0));
    assert_eq!(stage.plugin.called(), ["a1", "b1"]);
    stage.start().await;
    stage.until_settled().await;
    assert_eq!(stage.plugin.called(), ["a1", "b1", "a2", "a3"]);
}

#[tokio::test]
async fn a_drain_says_what_had_not_ended_and_it_runs_again() {
    let mut stage = Stage::started(|_, _| Answer::Done.at(&Gate::shut())).await;
    stage.send_many(&["a1", "a2"], "a").await;
    stage.until_called("a1", 1).await;
    stage.pass("b1").await;
    let left = stage.stop_within(Duration::from_millis(50)).await;
    assert_eq!((left.handed_back, left.unfinished), (1, 2));
    stage.plugin.becomes(|_, _| Answer::Done);
    stage.start().await;
    stage.until_settled().await;
    let mut called = stage.plugin.called();
    called.retain(|id| id != "b1");
    assert_eq!(called, ["a1", "a1", "a2"]);
    assert!(stage.plugin.calls().iter().all(|called| called.attempt == 1));
}

#[tokio::test]
async fn an_event_that_fails_during_a_drain_keeps_its_count() {
    let gate = Gate::shut();
    let script = gate.clone();
    let mut stage = Stage::started(move |_, attempt| match attempt {
        1 => Answer::Fail(Class::Transient).at(&script),
        _ => Answer::Done,
    })
    .await;
    stage.send("a1", "a").await;
    stage.until_called("a1", 1).await;
    let opener = tokio::spawn(async move {
        tokio::time::sleep(Duration::from_millis(50)).await;
        gate.open();
    });
    let left = stage.stop().await;
    opener.await.unwrap();
    assert_eq!((left.handed_back, left.unfinished), (1, 0));
    stage.start().await;
    stage.until_settled().await;
    let attempts: Vec<u32> = stage.plugin.calls().iter().map(|called| called.attempt).collect();
    assert_eq!(attempts, [1, 2]);
}

/// With the ledger away when it started, a consumer once never heard that it was to stop.
#[tokio::test]
async fn a_drain_ends_in_time_even_if_the_ledger_never_answers() {
    let mut stage = Stage::new(|_, _| Answer::Done);
    stage.ledger_switch.turn(true);
    stage.start().await;
    stage.until("trouble", |stage| stage.ledger_switch.refused() > 0).await;
    let stopped = tokio::time::timeout(Duration::from_secs(8), stage.stop_within(Duration::from_millis(50))).await;
    stopped.expect("the drain ends");
}

#[tokio::test]
async fn a_crash_runs_again_what_was_not_committed_in_order() {
    let gate = Gate::shut();
    let script = gate.clone();
    let mut stage = Stage::started(move |event, _| match event.id.as_str() {
        "a2" => Answer::Done.at(&script),
        _ => Answer::Done,
    })
    .await;
    stage.send_many(&["a1", "a2", "a3"], "a").await;
    stage.until_called("a2", 1).await;
    stage.send("b1", "b").await;
    stage.until("commits", |stage| stage.counts().committed == 2).await;
    stage.crash().await;
    gate.open();
    stage.start().await;
    stage.until_settled().await;
    assert_eq!(stage.plugin.called(), ["a1", "a2", "b1", "a2", "a3"]);
}

/// The event `bad` runs for ever: the host is killed meanwhile, as if by it.
fn deadly(event: &Event, _: u32) -> Answer {
    match event.id.as_str() {
        "bad" => Answer::Done.at(&Gate::shut()),
        _ => Answer::Done,
    }
}

#[tokio::test]
async fn an_event_that_kills_three_hosts_is_a_dead_letter_and_its_neighbours_are_not() {
    let mut stage = Stage::new(|_, _| Answer::Done.at(&Gate::shut()));
    stage.start().await;
    for id in ["n1", "n2", "bad", "n3"] {
        stage.send(id, id).await;
    }
    stage.until("all", |stage| stage.plugin.running().len() == 4).await;
    stage.crash().await;
    // In the second host all four run beside each other again, with a record: each may be what killed the first.
    stage.start().await;
    stage.until("all", |stage| stage.plugin.running().len() == 4).await;
    stage.crash().await;
    // From then on each runs alone.
    stage.plugin.becomes(deadly);
    stage.start().await;
    stage.until_called("bad", 3).await;
    stage
        .until("it is alone", |stage| stage.plugin.running().len() == 1)
        .await;
    stage.crash().await;
    stage.start().await;
    let dead = stage.until_dead(1).await;
    assert_eq!(dead[0].reason, Reason::HostCrash);
    assert_eq!(dead[0].event.as_ref().unwrap().1, "bad");
    stage.until_settled().await;
    assert_eq!(stage.plugin.count("bad"), 3);
}

/// That an event had failed before once hid how many hosts it had killed.
#[tokio::test]
async fn an_event_that_failed_before_it_kills_hosts_is_found() {
    let mut stage = Stage::new(|_, attempt| match attempt {
        1 => Answer::Fail(Class::Transient),
        _ => Answer::Done.at(&Gate::shut()),
    });
    stage.start().await;
    stage.send("bad", "a").await;
    for calls in 2..=4 {
        stage.until_called("bad", calls).await;
        stage.crash().await;
        stage.start().await;
    }
    let dead = stage.until_dead(1).await;
    assert_eq!((dead[0].reason, dead[0].failed), (Reason::HostCrash, 1));
    stage.until_settled().await;
    assert_eq!(stage.plugin.count("bad"), 4);
}

#[tokio::test]
async fn a_parked_event_that_kills_hosts_is_found() {
    let mut stage = Stage::new(|_, attempt| match attempt {
        1 => Answer::FailFor(Duration::from_millis(50)),
        _ => Answer::Done.at(&Gate::shut()),
    });
    stage.plan.retry.park_after = Duration::from_millis(10);
    stage.start().await;
    stage.send("bad", "a").await;
    for calls in 2..=4 {
        stage.until_called("bad", calls).await;
        stage.crash().await;
        stage.start().await;
    }
    assert_eq!(stage.until_dead(1).await[0].reason, Reason::HostCrash);
    assert_eq!(stage.plugin.count("bad"), 4);
}

/// What is parked was once no suspect any more, and killed a host more.
#[tokio::test]
async fn a_suspect_that_is_parked_after_the_stop_stays_one() {
    let mut stage = Stage::new(|_, _| Answer::Done.at(&Gate::shut()));
    stage.plan.retry.park_after = Duration::from_millis(10);
    stage.start().await;
    stage.send_many(&["a1", "bad"], "a").await;
    stage.until_called("a1", 1).await;
    stage.pass("b1").await;
    stage.crash().await;
    stage
        .plugin
        .becomes(|event, attempt| match (event.id.as_str(), attempt) {
            ("a1", 1) => Answer::FailFor(Duration::from_millis(50)),
            _ => deadly(event, attempt),
        });
    for calls in 1..=2 {
        stage.start().await;
        stage.until_called("bad", calls).await;
        stage.crash().await;
    }
    stage.start().await;
    assert_eq!(stage.until_dead(1).await[0].reason, Reason::HostCrash);
    assert_eq!(stage.plugin.count("bad"), 2);
}

/// What took its beginning back once took back that it had failed as well.
#[tokio::test]
async fn a_failure_that_is_not_answered_when_a_drain_ends_is_counted() {
    let gate = Gate::shut();
    let mut stage = Stage::started(|_, _| Answer::Done.at(&Gate::shut())).await;
    stage.send("a1", "a").await;
    stage.until_called("a1", 1).await;
    stage.crash().await;
    stage.plugin.becomes(|_, attempt| match attempt {
        1 => Answer::Fail(Class::Transient),
        _ => Answer::Done,
    });
    stage.ledger_switch.hold_up_failures(&gate);
    stage.start().await;
    stage
        .until("the failure", |stage| stage.ledger_switch.held_up() == 1)
        .await;
    stage.stop_within(Duration::ZERO).await;
    gate.open();
    stage.start().await;
    stage.until_settled().await;
    let attempts: Vec<u32> = stage.plugin.calls().iter().map(|called| called.attempt).collect();
    assert_eq!(attempts, [1, 1, 2]);
}

/// The host ends, so that the next one finds the event by its record.
#[tokio::test]
async fn a_panic_in_an_attempt_ends_the_pipeline() {
    let stage = Stage::started(|_, _| Answer::Panic).await;
    stage.send("a1", "a").await;
    stage.until("its end", |stage| !stage.is_running()).await;
    assert_eq!(stage.plugin.called(), ["a1"]);
}

/// Each attempt after a crash once counted as a host that had died of it.
#[tokio::test]
async fn an_event_that_is_held_after_a_crash_is_not_suspected() {
    for is_parked in [false, true] {
        let calls = AtomicUsize::new(0);
        let mut stage = Stage::new(move |_, _| match calls.fetch_add(1, Ordering::SeqCst) {
            0 => Answer::FailFor(Duration::from_millis(100)),
            1 => Answer::Done.at(&Gate::shut()),
            2..6 => Answer::NotRun,
            _ => Answer::Done.at(&Gate::shut()),
        });
        if is_parked {
            stage.plan.retry.park_after = Duration::from_millis(10);
        }
        stage.start().await;
        stage.send("a1", "a").await;
        stage.until_called("a1", 2).await;
        stage.crash().await;
        stage.start().await;
        stage.until_called("a1", 7).await;
        stage.crash().await;
        stage.plugin.becomes(|_, _| Answer::Done);
        stage.start().await;
        stage.until("commit", |stage| stage.counts().committed == 1).await;
        assert_eq!(stage.dead().await, []);
    }
}

/// A stop in good order once counted as one of the three, if it came while the event ran.
#[tokio::test]
async fn an_event_that_runs_when_hosts_are_stopped_is_not_suspected() {
    let mut stage = Stage::started(|_, _| Answer::Done.at(&Gate::shut())).await;
    stage.send("a1", "a").await;
    for calls in 1..=3 {
        stage.until_called("a1", calls * 2 - 1).await;
        match calls {
            1 => stage.crash().await,
            _ => _ = stage.stop_within(Duration::from_millis(20)).await,
        }
        stage.start().await;
        stage.until_called("a1", calls * 2).await;
        stage.stop_within(Duration::from_millis(20)).await;
        stage.start().await;
    }
    stage.until_called("a1", 7).await;
    stage.crash().await;
    stage.plugin.becomes(|_, _| Answer::Done);
    stage.start().await;
    stage.until_settled().await;
    assert_eq!(stage.dead().await, []);
}
