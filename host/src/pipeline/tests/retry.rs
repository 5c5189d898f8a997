//! Failures are tried again, durably counted, in their place; then they are dead letters.

use std::time::Duration;

use super::handler::{Answer, Gate};
use super::stage::Stage;
use crate::event::{Event, Headers, Message};
use crate::outcome::{Class, Reason};
use crate::plan::Key;

#[tokio::test]
async fn a_retry_blocks_only_its_own_lane() {
    let stage = Stage::started(|event, attempt| match (event.id.as_str(), attempt) {
        ("a1", 1) => Answer::FailFor(Duration::from_millis(300)),
        _ => Answer::Done,
    })
    .await;
    stage.send_many(&["a1", "a2"], "a").await;
    stage.send_many(&["b1", "b2"], "b").await;
    stage.until_settled().await;
    assert_eq!(stage.plugin.called(), ["a1", "b1", "b2", "a1", "a2"]);
}

#[tokio::test]
async fn what_the_plugin_asks_for_is_honoured() {
    let stage = Stage::started(|_, attempt| match attempt {
        1 => Answer::FailFor(Duration::from_millis(200)),
        _ => Answer::Done,
    })
    .await;
    stage.send("a1", "a").await;
    stage.until_settled().await;
    let calls = stage.plugin.calls();
    let pause = calls[1].at - calls[0].at;
    assert!(pause >= Duration::from_millis(200), "{pause:?}");
    assert!(pause < Duration::from_secs(2), "{pause:?}");
}

#[tokio::test]
async fn attempt_counts_survive_a_restart() {
    let mut stage = Stage::new(|_, _| Answer::Fail(Class::Transient));
    stage.plan.retry.backoff_min = Duration::from_millis(200);
    stage.start().await;
    stage.send("a1", "a").await;
    stage.until_called("a1", 1).await;
    // The count is durable before the retry is due.
    stage.stop().await;
    stage.start().await;
    stage.until_called("a1", 2).await;
    stage.stop().await;
    stage.start().await;
    let dead = stage.until_dead(1).await;
    assert_eq!(dead[0].failed, 3);
    let attempts: Vec<u32> = stage.plugin.calls().iter().map(|called| called.attempt).collect();
    assert_eq!(attempts, [1, 2, 3]);
    stage.until_settled().await;
}

#[tokio::test]
async fn a_head_that_waited_goes_on_waiting_after_a_restart() {
    let mut stage = Stage::started(|event, attempt| match (event.id.as_str(), attempt) {
        ("a1", 1) => Answer::FailFor(Duration::from_millis(700)),
        _ => Answer::Done,
    })
    .await;
    stage.send_many(&["a1", "a2"], "a").await;
    stage.until_called("a1", 1).await;
    stage.stop().await;
    stage.start().await;
    stage.until_settled().await;
    let calls = stage.plugin.calls();
    assert_eq!(stage.plugin.called(), ["a1", "a1", "a2"]);
    let pause = calls[1].at - calls[0].at;
    assert!(pause >= Duration::from_millis(690), "{pause:?}");
}

#[tokio::test]
async fn when_all_attempts_are_used_the_dead_letter_has_every_one() {
    let stage = Stage::started(|_, _| Answer::Fail(Class::Transient)).await;
    stage.send("a1", "a").await;
    let dead = stage.until_dead(1).await;
    stage.until_settled().await;
    assert_eq!((dead[0].reason, dead[0].failed), (Reason::AttemptsExhausted, 3));
    let numbers: Vec<u32> = dead[0].attempts.iter().map(|attempt| attempt.number).collect();
    assert_eq!(numbers, [1, 2, 3]);
    let first = &dead[0].attempts[0];
    assert_eq!(first.failure.message, "it failed: transient");
    assert_eq!(first.revision, "sha256:fake");
    assert_eq!(first.memory, 65_536);
    assert_eq!(dead[0].event, Some(("/shop".to_owned(), "a1".to_owned())));
}

#[tokio::test]
async fn each_kind_of_failure_has_its_reason() {
    let stage = Stage::started(|event, _| match event.id.as_str() {
        "trap" => Answer::Fail(Class::Trap),
        "time" => Answer::Fail(Class::TimeLimit),
        "stack" => Answer::Fail(Class::StackOverflow),
        _ => Answer::Fail(Class::EffectLimit),
    })
    .await;
    for id in ["trap", "time", "stack", "effect"] {
        stage.send(id, "a").await;
    }
    let reasons: Vec<Reason> = stage.until_dead(4).await.iter().map(|dead| dead.reason).collect();
    assert_eq!(
        reasons,
        [
            Reason::Trap,
            Reason::TimeLimit,
            Reason::MemoryLimit,
            Reason::EffectLimit
        ]
    );
}

#[tokio::test]
async fn a_permanent_failure_is_dead_at_once_and_its_lane_goes_on() {
    let stage = Stage::started(|event, _| match event.id.as_str() {
        "a1" => Answer::Fail(Class::Permanent),
        _ => Answer::Done,
    })
    .await;
    stage.send_many(&["a1", "a2"], "a").await;
    stage.until_settled().await;
    assert_eq!(stage.plugin.called(), ["a1", "a2"]);
    assert_eq!(stage.until_dead(1).await[0].reason, Reason::Permanent);
    // A redelivery of a dead letter is a duplicate.
    stage.send("a1", "a").await;
    stage.until_settled().await;
    assert_eq!(stage.plugin.called(), ["a1", "a2"]);
}

#[tokio::test]
async fn what_can_not_be_decoded_keeps_its_bytes_untouched() {
    let stage = Stage::started(|_, _| Answer::Done).await;
    let mut headers = Headers::default();
    headers.push("ce-specversion", "1.0");
    headers.push("X-Odd", vec![0xff, 0x00, b'\n']);
    let message = Message {
        subject: String::new(),
        headers,
        payload: vec![0, 159, 146, 150].into(),
    };
    stage.send_message(message.clone()).await;
    let dead = stage.until_dead(1).await;
    stage.until_settled().await;
    assert_eq!(dead[0].reason, Reason::Undecodable);
    assert_eq!(dead[0].message, message);
    assert_eq!((&dead[0].event, &dead[0].kind), (&None, &None));
    assert_eq!(stage.plugin.called(), [""; 0]);
}

fn without_subject(id: &str) -> Event {
    Event {
        id: id.to_owned(),
        source: "/shop".to_owned(),
        kind: "order".to_owned(),
        data: Some(bytes::Bytes::from_static(b"{}")),
        datacontenttype: Some("application/json".to_owned()),
        ..Event::default()
    }
}

#[tokio::test]
async fn an_event_without_its_key_is_a_dead_letter() {
    let mut stage = Stage::new(|_, _| Answer::Done);
    stage.plan.key = Key::Data("/order".to_owned());
    stage.start().await;
    stage.send_event(&without_subject("a1")).await;
    let dead = stage.until_dead(1).await;
    assert_eq!(dead[0].reason, Reason::NoKey);
    assert_eq!(dead[0].event, Some(("/shop".to_owned(), "a1".to_owned())));
    stage.until_settled().await;
    assert_eq!(stage.plugin.called(), [""; 0]);
}

#[tokio::test]
async fn an_event_that_could_not_be_run_is_held_and_counts_nothing() {
    let tries = std::sync::atomic::AtomicUsize::new(0);
    let stage = Stage::started(
        move |_, _| match tries.fetch_add(1, std::sync::atomic::Ordering::SeqCst) {
            0..5 => Answer::NotRun,
            _ => Answer::Done,
        },
    )
    .await;
    stage.send("a1", "a").await;
    stage.until_settled().await;
    assert_eq!(stage.plugin.calls().len(), 6);
    assert!(stage.plugin.calls().iter().all(|called| called.attempt == 1));
}

#[tokio::test]
async fn while_the_ledger_is_away_events_are_held_and_nothing_is_counted() {
    let gate = Gate::shut();
    let script = gate.clone();
    let stage = Stage::started(move |event, _| match event.id.as_str() {
        "a1" => Answer::Done.at(&script),
        "b1" => Answer::Fail(Class::Transient).at(&script),
        _ => Answer::Done,
    })
    .await;
    stage.send_many(&["a1", "a2"], "a").await;
    stage.send("b1", "b").await;
    stage.until_called("b1", 1).await;
    stage.ledger_switch.turn(true);
    gate.open();
    stage.send("c1", "c").await;
    stage.until("trouble", |stage| stage.ledger_switch.refused() >= 6).await;
    assert_eq!(stage.plugin.called(), ["a1", "b1"]);
    stage.ledger_switch.turn(false);
    let dead = stage.until_dead(1).await;
    stage.until_settled().await;
    assert_eq!(dead[0].failed, 3, "{dead:?}");
    assert_eq!(
        stage.plugin.count("a1") + stage.plugin.count("a2") + stage.plugin.count("c1"),
        3
    );
    assert_eq!(stage.counts().committed, 3);
}
