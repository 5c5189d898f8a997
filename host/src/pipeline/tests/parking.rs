//! A lane that waits long or holds much costs disk, not memory and not the stream; and it keeps its order.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::handler::{Answer, Gate};
use super::stage::Stage;
use crate::event::Event;
use crate::outcome::Class;
use crate::plan::OnDead;

/// A stage whose lanes are parked when they wait at all.
fn stage(script: impl Fn(&Event, u32) -> Answer + Send + Sync + 'static) -> Stage {
    let mut stage = Stage::new(script);
    stage.plan.retry.park_after = Duration::from_millis(10);
    stage.plan.retry.attempts = 100.try_into().unwrap();
    stage
}

/// Answers that fail, `pause` later each, until the switch is turned.
fn failing_until(
    pause: Duration,
) -> (
    Arc<AtomicBool>,
    impl Fn(&Event, u32) -> Answer + Send + Sync + Clone + 'static,
) {
    let is_well = Arc::new(AtomicBool::new(false));
    let script = is_well.clone();
    let answer = move |event: &Event, _: u32| match event.id.as_str() {
        "a1" if !script.load(Ordering::SeqCst) => Answer::FailFor(pause),
        _ => Answer::Done,
    };
    (is_well, answer)
}

fn ids(count: usize) -> Vec<String> {
    (1..=count).map(|number| format!("a{number}")).collect()
}

/// The calls without repetitions.
fn order(stage: &Stage) -> Vec<String> {
    let mut called = stage.plugin.called();
    called.dedup();
    called
}

#[tokio::test]
async fn a_lane_that_waits_long_is_parked_settled_and_run_in_order() {
    let (is_well, script) = failing_until(Duration::from_millis(50));
    let mut stage = stage(script);
    stage.start().await;
    for id in &ids(40) {
        stage.send(id, "a").await;
    }
    // All of it is settled at the broker while the head still fails.
    stage.until_settled().await;
    assert_eq!(order(&stage), ["a1"]);
    assert_eq!(stage.counts().parked, 40);
    is_well.store(true, Ordering::SeqCst);
    stage.until_called("a40", 1).await;
    assert_eq!(order(&stage), ids(40));
    stage.until("all", |stage| stage.counts().committed == 40).await;
    stage.until("no lane", |stage| stage.metrics().parked_now() == 0).await;
}

#[tokio::test]
async fn a_lane_over_its_share_is_parked_before_it_fills_the_budget() {
    let (is_well, script) = failing_until(Duration::from_millis(300));
    let mut stage = stage(script);
    stage.plan.retry.park_after = Duration::from_secs(600);
    stage.plan.retry.park_over = 8.try_into().unwrap();
    stage.plan.budget.events = 16.try_into().unwrap();
    stage.start().await;
    for id in &ids(30) {
        stage.send(id, "a").await;
    }
    // More than the budget stands before it.
    stage.pass("b1").await;
    assert_eq!(order(&stage), ["a1", "b1"]);
    is_well.store(true, Ordering::SeqCst);
    stage.until("all", |stage| stage.counts().committed == 31).await;
    let mut order = order(&stage);
    order.retain(|id| id != "b1");
    order.dedup();
    assert_eq!(order, ids(30));
}

#[tokio::test]
async fn when_the_parking_is_full_the_broker_keeps_the_rest_and_order_holds() {
    let (is_well, script) = failing_until(Duration::from_millis(20));
    let mut stage = stage(script);
    stage.plan.retry.parked_max = 5.try_into().unwrap();
    stage.plan.budget.events = 8.try_into().unwrap();
    stage.start().await;
    for id in &ids(30) {
        stage.send(id, "a").await;
    }
    stage
        .until("the parking is full", |stage| {
            stage.counts().parked == 5 && stage.metrics().is_parking_full()
        })
        .await;
    stage
        .until("the budget is full", |stage| stage.metrics().in_flight_now() == 8)
        .await;
    assert_eq!(stage.counts().parked, 5);
    is_well.store(true, Ordering::SeqCst);
    stage.until("all", |stage| stage.counts().committed == 30).await;
    assert_eq!(order(&stage), ids(30));
    stage
        .until("room", |stage| {
            !stage.metrics().is_parking_full() && stage.metrics().parked_now() == 0
        })
        .await;
}

#[tokio::test]
async fn a_full_parking_stops_no_key_that_can_run() {
    let mut stage = Stage::new(|event, attempt| match (event.id.as_str(), attempt) {
        ("bad", _) => Answer::Fail(Class::Permanent),
        ("b1", 1) => Answer::FailFor(Duration::from_millis(50)),
        _ => Answer::Done,
    });
    stage.plan.on_dead = OnDead::HoldKey;
    stage.plan.retry.park_after = Duration::from_millis(10);
    stage.plan.retry.parked_max = 2.try_into().unwrap();
    stage.start().await;
    // A held key fills the parking.
    stage.send_many(&["bad", "a1", "a2", "a3"], "a").await;
    stage
        .until("the parking is full", |stage| stage.metrics().is_parking_full())
        .await;
    // Another key waits for longer than what is parked, and goes on.
    stage.send_many(&["b1", "b2"], "b").await;
    stage.until_called("b2", 1).await;
    assert_eq!(order(&stage), ["bad", "b1", "b2"]);
}

#[tokio::test]
async fn a_key_that_fills_the_budget_and_is_slow_does_not_stop_the_others() {
    let mut stage = Stage::new(|event, _| match event.id.strip_prefix('a') {
        Some(_) => Answer::After(Duration::from_millis(30), Box::new(Answer::Done)),
        None => Answer::Done,
    });
    stage.plan.retry.park_after = Duration::from_millis(10);
    stage.plan.retry.park_over = 4.try_into().unwrap();
    stage.plan.budget.events = 16.try_into().unwrap();
    stage.start().await;
    for id in &ids(100) {
        stage.send(id, "a").await;
    }
    let before = stage.plugin.called().len();
    stage.send("b1", "b").await;
    stage.until_called("a100", 1).await;
    let mut order = order(&stage);
    let waited = order.iter().position(|id| id == "b1").unwrap() - before;
    // With the budget in its way it would wait for all but the last sixteen.
    assert!(waited < 16, "it waited for {waited} events of the slow key");
    order.retain(|id| id != "b1");
    order.dedup();
    assert_eq!(order, ids(100));
    stage.until_idle().await;
}

#[tokio::test]
async fn later_events_queue_behind_what_is_parked() {
    let gate = Gate::shut();
    let script = gate.clone();
    let mut stage = stage(move |event, attempt| match (event.id.as_str(), attempt) {
        ("a1", 1) => Answer::FailFor(Duration::from_millis(50)),
        ("a1", 2) => Answer::Done.at(&script),
        _ => Answer::Done,
    });
    stage.start().await;
    stage.send_many(&["a1", "a2"], "a").await;
    stage.until_called("a1", 2).await;
    stage.send_many(&["a3", "a4", "a5"], "a").await;
    stage.pass("b1").await;
    gate.open();
    stage.send_many(&["a6", "a7"], "a").await;
    stage.until("all", |stage| stage.counts().committed == 8).await;
    let mut order = order(&stage);
    order.retain(|id| id != "b1");
    order.dedup();
    assert_eq!(order, ids(7));
}

async fn restart_in_the_middle(is_clean: bool) {
    let (is_well, script) = failing_until(Duration::from_millis(80));
    let mut stage = stage(script);
    stage.start().await;
    for id in &ids(20) {
        stage.send(id, "a").await;
    }
    stage.until_settled().await;
    stage.until_called("a1", 2).await;
    match is_clean {
        true => _ = stage.stop().await,
        false => stage.crash().await,
    }
    stage.start().await;
    for number in 21..=40 {
        stage.send(&format!("a{number}"), "a").await;
    }
    stage.until_settled().await;
    assert_eq!(order(&stage), ["a1"]);
    is_well.store(true, Ordering::SeqCst);
    stage.until("all", |stage| stage.counts().committed == 40).await;
    assert_eq!(order(&stage), ids(40));
}

#[tokio::test]
async fn a_parked_lane_keeps_its_order_over_a_restart() {
    restart_in_the_middle(true).await;
}

#[tokio::test]
async fn a_parked_lane_keeps_its_order_over_a_crash() {
    restart_in_the_middle(false).await;
}

#[tokio::test]
async fn a_parked_head_that_waits_goes_on_waiting_after_a_restart() {
    let mut stage = stage(|event, attempt| match (event.id.as_str(), attempt) {
        ("a1", 1) => Answer::FailFor(Duration::from_millis(700)),
        _ => Answer::Done,
    });
    stage.start().await;
    stage.send_many(&["a1", "a2"], "a").await;
    stage.until_settled().await;
    stage.stop().await;
    stage.start().await;
    stage.send("a3", "a").await;
    stage.until("all", |stage| stage.counts().committed == 3).await;
    let calls = stage.plugin.calls();
    assert_eq!(stage.plugin.called(), ["a1", "a1", "a2", "a3"]);
    assert_eq!(calls[1].attempt, 2);
    let pause = calls[1].at - calls[0].at;
    assert!(pause >= Duration::from_millis(690), "{pause:?}");
}

/// Lanes are parked while events of others are on their way into the ledger, and come out of it again, over and over.
#[tokio::test]
async fn lanes_that_are_parked_and_run_by_turns_keep_their_order() {
    let mut stage = stage(|event, attempt| {
        let number: usize = event.id[1..].parse().unwrap();
        match (number % 7 == 3, attempt) {
            (true, 1 | 2) => Answer::FailFor(Duration::from_millis(15)),
            _ => Answer::Done,
        }
    });
    stage.start().await;
    for number in 0..60 {
        for key in ["a", "b", "c", "d"] {
            stage.send(&format!("{key}{number}"), key).await;
        }
        if number % 10 == 0 {
            stage
                .until("some", |stage| stage.counts().committed >= number * 3)
                .await;
        }
    }
    stage.until("all", |stage| stage.counts().committed == 240).await;
    stage.until_settled().await;
    for key in ["a", "b", "c", "d"] {
        let mut called = stage.plugin.called();
        called.retain(|id| id.starts_with(key));
        called.dedup();
        let expected: Vec<String> = (0..60).map(|number| format!("{key}{number}")).collect();
        assert_eq!(called, expected);
    }
    stage.until("no lane", |stage| stage.metrics().parked_now() == 0).await;
}

#[tokio::test]
async fn a_parked_event_that_uses_up_its_attempts_is_a_dead_letter_and_its_lane_goes_on() {
    let mut stage = stage(|event, _| match event.id.as_str() {
        "a2" => Answer::Fail(Class::Transient),
        _ => Answer::Done,
    });
    stage.plan.retry.attempts = 3.try_into().unwrap();
    stage.plan.retry.backoff_min = Duration::from_millis(30);
    stage.start().await;
    stage.send_many(&["a1", "a2", "a3"], "a").await;
    let dead = stage.until_dead(1).await;
    assert_eq!(dead[0].attempts.len(), 3);
    stage.until_called("a3", 1).await;
    assert_eq!(order(&stage), ["a1", "a2", "a3"]);
    stage.until_settled().await;
}

#[tokio::test]
async fn the_id_of_a_parked_event_with_other_data_is_a_dead_letter() {
    let (is_well, script) = failing_until(Duration::from_millis(50));
    let mut stage = stage(script);
    stage.start().await;
    stage.send_data("a1", "a", "1").await;
    stage.send_data("a2", "a", "1").await;
    stage.until_settled().await;
    stage.send_data("a2", "a", "2").await;
    let dead = stage.until_dead(1).await;
    assert_eq!(&dead[0].message.payload[..], b"2");
    is_well.store(true, Ordering::SeqCst);
    stage.until("all", |stage| stage.counts().committed == 2).await;
    stage.until_settled().await;
}

#[tokio::test]
async fn more_parked_lanes_than_memory_may_hold_all_run() {
    let is_well = Arc::new(AtomicBool::new(false));
    let script = is_well.clone();
    let mut stage = stage(move |_, _| match script.load(Ordering::SeqCst) {
        true => Answer::Done,
        false => Answer::FailFor(Duration::from_millis(100)),
    });
    stage.plan.budget.events = 16.try_into().unwrap();
    stage.start().await;
    for number in 0..100 {
        let key = format!("k{number}");
        stage
            .send_many(&[&format!("{key}a"), &format!("{key}b"), &format!("{key}c")], &key)
            .await;
    }
    stage.until_settled().await;
    is_well.store(true, Ordering::SeqCst);
    stage.until("all", |stage| stage.counts().committed == 300).await;
}
