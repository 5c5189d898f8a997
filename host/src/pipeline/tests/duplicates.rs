//! Each event takes effect once.

use super::handler::{Answer, Gate};
use super::stage::Stage;
use crate::outcome::{Class, Reason};

#[tokio::test]
async fn a_duplicate_is_acknowledged_without_a_call() {
    let stage = Stage::started(|_, _| Answer::Done).await;
    stage.send("a1", "a").await;
    stage.until_settled().await;
    stage.send("a1", "a").await;
    stage.until_settled().await;
    assert_eq!(stage.plugin.called(), ["a1"]);
    assert_eq!((stage.counts().committed, stage.counts().duplicate), (1, 1));
}

#[tokio::test]
async fn watchers_see_what_became_of_each_delivery() {
    let stage = Stage::started(|event, attempt| match (event.id.as_str(), attempt) {
        ("a1", 1) => Answer::Fail(Class::Trap),
        ("bad", _) => Answer::Fail(Class::Permanent),
        _ => Answer::Done,
    })
    .await;
    let mut feed = stage.feed.subscribe();
    for id in ["a1", "a1", "bad"] {
        stage.send(id, "a").await;
        stage.until_settled().await;
    }
    let seen = std::iter::from_fn(|| feed.try_recv().ok());
    let seen: Vec<_> = seen.map(|seen| (seen.event_id, seen.outcome, seen.attempt)).collect();
    let expected = [
        ("a1", "retry", 1),
        ("a1", "committed", 2),
        ("a1", "duplicate", 0),
        ("bad", "dead", 1),
    ];
    assert_eq!(
        seen,
        expected.map(|(id, outcome, attempt)| (id.to_owned(), outcome, attempt))
    );
}

#[tokio::test]
async fn a_duplicate_after_a_restart_is_acknowledged_without_a_call() {
    let mut stage = Stage::started(|_, _| Answer::Done).await;
    stage.send("a1", "a").await;
    stage.until_settled().await;
    stage.crash().await;
    stage.start().await;
    stage.send("a1", "a").await;
    stage.until_settled().await;
    assert_eq!(stage.plugin.called(), ["a1"]);
}

#[tokio::test]
async fn a_twin_that_comes_while_the_first_runs_is_acknowledged_without_a_call() {
    let gate = Gate::shut();
    let script = gate.clone();
    let stage = Stage::started(move |event, _| match event.id.as_str() {
        "a1" => Answer::Done.at(&script),
        _ => Answer::Done,
    })
    .await;
    stage.send_many(&["a1", "a1", "a2"], "a").await;
    // What was sent before it was taken before it.
    stage.pass("b1").await;
    gate.open();
    stage.until_settled().await;
    assert_eq!(stage.plugin.called(), ["a1", "b1", "a2"]);
    assert_eq!(stage.counts().duplicate, 1);
}

#[tokio::test]
async fn an_id_with_other_data_is_a_dead_letter_beside_the_event() {
    let stage = Stage::started(|_, _| Answer::Done).await;
    stage.send_data("a1", "a", "1").await;
    stage.until_settled().await;
    stage.send_data("a1", "a", "2").await;
    let dead = stage.until_dead(1).await;
    stage.until_settled().await;
    assert_eq!(dead[0].reason, Reason::IdConflict);
    assert_eq!(&dead[0].message.payload[..], b"2");
    assert_eq!(stage.plugin.called(), ["a1"]);
}

/// A twin with other data once let its lane go on twice: two events of the key ran at once.
#[tokio::test]
async fn a_twin_with_other_data_leaves_the_order_of_its_lane_alone() {
    let gate = Gate::shut();
    let script = gate.clone();
    let stage = Stage::started(move |_, _| Answer::Done.at(&script)).await;
    stage.send_data("a1", "a", "1").await;
    stage.send_data("a1", "a", "2").await;
    stage.send_many(&["a2", "a3", "a4"], "a").await;
    for calls in 1..=4 {
        stage
            .until("the next call", |stage| stage.plugin.calls().len() == calls)
            .await;
        gate.let_one();
    }
    stage.until_settled().await;
    assert_eq!(stage.plugin.called(), ["a1", "a2", "a3", "a4"]);
    assert_eq!(stage.until_dead(1).await[0].reason, Reason::IdConflict);
}

#[tokio::test]
async fn the_twin_of_a_parked_event_is_acknowledged_without_a_call() {
    let mut stage = Stage::new(|_, attempt| match attempt {
        1 => Answer::FailFor(std::time::Duration::from_millis(300)),
        _ => Answer::Done,
    });
    stage.plan.retry.park_after = std::time::Duration::from_millis(10);
    stage.start().await;
    stage.send("a1", "a").await;
    stage.until("parking", |stage| stage.counts().parked == 1).await;
    stage.send("a1", "a").await;
    stage.until_called("a1", 2).await;
    stage.until_settled().await;
    stage.pass("b1").await;
    assert_eq!(stage.plugin.count("a1"), 2);
}
