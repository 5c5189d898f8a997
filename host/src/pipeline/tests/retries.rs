//! What fails is tried again, durably counted, and then a dead letter.

use std::time::Duration;

use super::handler::Answer;
use super::stage::Stage;
use crate::event::{Headers, Message};
use crate::outcome::{Class, Reason};
use crate::plan;

#[tokio::test]
async fn a_retry_blocks_only_its_own_lane_and_nothing_overtakes_in_it() {
    let stage = Stage::started(|event, attempt| match (event.id.as_str(), attempt) {
        ("a1", 1) => Answer::FailFor(Duration::from_millis(300)),
        _ => Answer::Done,
    })
    .await;
    stage.send_many(&["a1", "a2"], "a").await;
    stage.send("b1", "b").await;
    stage.until_settled().await;
    assert_eq!(stage.plugin.called(), ["a1", "b1", "a1", "a2"]);
}

#[tokio::test]
async fn what_the_plugin_asks_to_wait_is_waited() {
    let stage = Stage::started(|_, attempt| match attempt {
        1 => Answer::FailFor(Duration::from_millis(200)),
        _ => Answer::Done,
    })
    .await;
    stage.send("a1", "a").await;
    stage.until_settled().await;
    let calls = stage.plugin.calls();
    assert!(calls[1].at - calls[0].at >= Duration::from_millis(200));
}

#[tokio::test]
async fn every_attempt_is_in_the_dead_letter() {
    let stage = Stage::started(|_, _| Answer::Fail(Class::Trap)).await;
    stage.send("a1", "a").await;
    let dead = stage.until_dead(1).await;
    stage.until_settled().await;
    let letter = &dead[0];
    assert_eq!((letter.reason, letter.failed), (Reason::Trap, 3));
    let numbers: Vec<u32> = letter.attempts.iter().map(|attempt| attempt.number).collect();
    assert_eq!(numbers, [1, 2, 3]);
    assert!(
        letter
            .attempts
            .iter()
            .all(|attempt| attempt.failure.class == Class::Trap && attempt.memory == 65_536)
    );
    assert_eq!(letter.event, Some(("/shop".to_owned(), "a1".to_owned())));
    assert_eq!(stage.counts().dead, 1);
}

#[tokio::test]
async fn a_permanent_failure_is_dead_at_once_and_later_events_go_on() {
    let stage = Stage::started(|event, _| match event.id.as_str() {
        "a1" => Answer::Fail(Class::Permanent),
        _ => Answer::Done,
    })
    .await;
    stage.send_many(&["a1", "a2"], "a").await;
    stage.until_settled().await;
    assert_eq!(stage.plugin.called(), ["a1", "a2"]);
    assert_eq!(stage.dead().await[0].reason, Reason::Permanent);
}

#[tokio::test]
async fn attempt_counts_survive_restarts() {
    let mut stage = Stage::started(|_, attempt| match attempt {
        1 => Answer::FailFor(Duration::from_millis(50)),
        _ => Answer::Fail(Class::Transient),
    })
    .await;
    stage.send("a1", "a").await;
    stage.until_called("a1", 1).await;
    stage.crash().await;
    stage.start().await;
    let dead = stage.until_dead(1).await;
    assert_eq!((dead[0].reason, dead[0].failed), (Reason::AttemptsExhausted, 3));
    let attempts: Vec<u32> = stage.plugin.calls().iter().map(|call| call.attempt).collect();
    // The crash may come before the first failure is durable; then it was no attempt.
    assert!(attempts == [1, 2, 3] || attempts == [1, 1, 2, 3], "{attempts:?}");
}

#[tokio::test]
async fn what_could_not_be_run_counts_for_nothing() {
    let stage = Stage::started(|_, _| Answer::NotRun).await;
    stage.send("a1", "a").await;
    stage.until_called("a1", 4).await;
    assert!(stage.plugin.calls().iter().all(|call| call.attempt == 1));
    stage.plugin.becomes(|_, _| Answer::Done);
    stage.until_settled().await;
    assert!(stage.dead().await.is_empty());
}

#[tokio::test]
async fn what_is_no_event_is_a_dead_letter_with_its_bytes_untouched() {
    let stage = Stage::started(|_, _| Answer::Done).await;
    let mut headers = Headers::default();
    headers.push("X-Odd", vec![0xff, 0xfe]);
    let message = Message {
        subject: "orders".to_owned(),
        headers,
        payload: vec![0, 159, 146, 150].into(),
    };
    stage.send_message(message.clone()).await;
    let dead = stage.until_dead(1).await;
    stage.until_settled().await;
    assert_eq!(dead[0].reason, Reason::Undecodable);
    assert_eq!(
        (&dead[0].message.headers, &dead[0].message.payload),
        (&message.headers, &message.payload)
    );
    assert!(stage.plugin.called().is_empty());
}

#[tokio::test]
async fn an_event_without_its_key_is_a_dead_letter() {
    let mut stage = Stage::new(|_, _| Answer::Done);
    stage.plan.key = plan::Key::Data("/order".to_owned());
    stage.start().await;
    stage.send_data("a1", "a", r#"{"other":1}"#).await;
    stage.send_data("a2", "a", r#"{"order":"o"}"#).await;
    stage.until_settled().await;
    assert_eq!(stage.dead().await[0].reason, Reason::NoKey);
    assert_eq!(stage.plugin.called(), ["a2"]);
}

#[tokio::test]
async fn a_ledger_that_is_away_holds_everything_and_counts_nothing() {
    let stage = Stage::started(|_, _| Answer::Done).await;
    stage.ledger_is_away.store(true, std::sync::atomic::Ordering::SeqCst);
    stage.send("a1", "a").await;
    stage.send("b1", "b").await;
    stage
        .until("an error", |stage| stage.metrics().ledger_errors_now() > 0)
        .await;
    assert!(
        stage.plugin.called().is_empty(),
        "nothing runs without the ledger's answer"
    );
    stage.ledger_is_away.store(false, std::sync::atomic::Ordering::SeqCst);
    stage.until_settled().await;
    assert_eq!((stage.counts().committed, stage.counts().dead), (2, 0));
}
