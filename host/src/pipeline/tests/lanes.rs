//! Events of one key run one at a time, in order; keys run beside each other.

use std::collections::BTreeSet;
use std::time::Duration;

use super::handler::{Answer, Gate};
use super::stage::Stage;
use crate::clock::Clock;
use crate::plan::TypePattern;

#[tokio::test]
async fn events_of_a_key_run_one_at_a_time_in_order() {
    let stage = Stage::started(|_, _| Answer::Done).await;
    let ids: Vec<String> = (0..50).map(|number| format!("a{number}")).collect();
    for id in &ids {
        stage.send(id, "a").await;
    }
    stage.until_settled().await;
    // The stage itself sees to it that none ran beside another.
    assert_eq!(stage.plugin.called(), ids);
}

#[tokio::test]
async fn other_keys_go_on_while_one_waits() {
    let gate = Gate::shut();
    let script = gate.clone();
    let stage = Stage::started(move |event, _| match event.id.as_str() {
        "a1" => Answer::Done.at(&script),
        _ => Answer::Done,
    })
    .await;
    stage.send_many(&["a1", "a2"], "a").await;
    stage.send_many(&["b1", "b2"], "b").await;
    stage.until_called("b2", 1).await;
    assert_eq!(stage.plugin.called(), ["a1", "b1", "b2"]);
    gate.open();
    stage.until_settled().await;
    assert_eq!(stage.plugin.called(), ["a1", "b1", "b2", "a2"]);
}

#[tokio::test]
async fn no_more_run_at_once_than_the_concurrency() {
    let gate = Gate::shut();
    let script = gate.clone();
    let mut stage = Stage::new(move |_, _| Answer::Done.at(&script));
    stage.plan.concurrency = 3.try_into().unwrap();
    stage.start().await;
    for key in ["a", "b", "c", "d", "e"] {
        stage.send(key, key).await;
    }
    let running = |count| move |stage: &Stage| stage.plugin.running().len() == count;
    stage.until("three", running(3)).await;
    gate.let_one();
    stage.until_called("d", 1).await;
    assert_eq!(
        stage.plugin.running(),
        BTreeSet::from(["b", "c", "d"].map(str::to_owned))
    );
    gate.open();
    stage.until_settled().await;
}

/// Quick attempts are given to workers ahead. When they turn slow, no more are under way for that.
#[tokio::test]
async fn no_more_run_at_once_than_the_concurrency_after_quick_ones() {
    let gate = Gate::shut();
    let script = gate.clone();
    let mut stage = Stage::new(move |event, _| match event.id.starts_with("quick") {
        true => Answer::Done,
        false => Answer::Done.at(&script),
    });
    stage.plan.concurrency = 3.try_into().unwrap();
    stage.start().await;
    for key in ["quick1", "quick2", "quick3", "quick4"] {
        stage.send(key, key).await;
    }
    stage.until_settled().await;
    for key in ["a", "b", "c", "d", "e"] {
        stage.send(key, key).await;
    }
    let slow = |stage: &Stage| stage.plugin.called().len() - 4;
    stage.until("three", |stage| slow(stage) == 3).await;
    stage
        .until("all in hand", |stage| stage.level("in_flight{") == "5")
        .await;
    assert_eq!((slow(&stage), stage.plugin.running().len()), (3, 3));
    gate.let_one();
    stage.until("a fourth", |stage| slow(stage) == 4).await;
    assert_eq!(stage.plugin.running().len(), 3);
    gate.open();
    stage.until_settled().await;
}

#[tokio::test]
async fn what_is_not_wanted_is_settled_untouched() {
    let mut stage = Stage::new(|_, _| Answer::Done);
    stage.plan.types = vec![TypePattern::Exact("other".to_owned())];
    stage.start().await;
    stage.send("a1", "a").await;
    stage.until_settled().await;
    assert_eq!(stage.plugin.called(), [""; 0]);
    assert_eq!(stage.counts().unwanted, 1);
}

/// One message of more bytes than the budget has is let in alone, and what is behind it follows.
#[tokio::test]
async fn a_message_larger_than_the_budget_passes() {
    let mut stage = Stage::new(|_, _| Answer::Done);
    stage.plan.budget.bytes = 1_000.try_into().unwrap();
    stage.start().await;
    let large: &'static str = Box::leak(format!("\"{}\"", "x".repeat(5_000)).into_boxed_str());
    for number in 0..5 {
        stage.send_data(&format!("a{number}"), "a", large).await;
        stage.send_data(&format!("b{number}"), "b", "1").await;
    }
    stage.until_settled().await;
    assert_eq!(stage.plugin.calls().len(), 10);
}

#[tokio::test]
async fn two_keys_that_write_one_state_key_both_take_effect() {
    let mut stage = Stage::new(|_, _| Answer::Count("total"));
    stage.plan.concurrency = 8.try_into().unwrap();
    stage.start().await;
    for number in 0..24 {
        stage.send(&format!("e{number}"), &format!("k{}", number % 8)).await;
    }
    stage.until_settled().await;
    assert_eq!(stage.counted("total").await, "24");
    assert!(
        stage.plugin.calls().len() > 24,
        "none lost a race: the test shows nothing"
    );
}

/// A chunk of attempts was once run to its end before anything else on its thread, and tokio looked at no socket meanwhile.
#[tokio::test]
async fn everything_else_has_its_turn_while_attempts_compute() {
    let clock = Clock::system();
    let mut stage = Stage::new(move |_, _| {
        let until = clock.now() + Duration::from_micros(300);
        while clock.now() < until {}
        Answer::Done
    });
    let gate = Gate::shut();
    stage.ledger_switch.hold_up_look_ups(&gate);
    stage.start().await;
    for number in 0..40 {
        stage.send(&format!("a{number}"), &format!("k{number}")).await;
    }
    gate.open();
    let (mut seen, mut most) = (0, 0);
    let watching = async {
        while seen < 40 {
            tokio::task::yield_now().await;
            let called = stage.plugin.calls().len();
            most = most.max(called - seen);
            seen = called;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), watching).await.unwrap();
    // One of each worker.
    assert!(most <= 2, "{most} at once");
}
