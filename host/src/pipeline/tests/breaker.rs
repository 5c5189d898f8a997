//! A plugin that fails as a whole pauses its consumer.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::handler::{Answer, Gate};
use super::stage::Stage;
use crate::outcome::Class;

/// A breaker that opens on five failures of three keys.
fn stage(script: impl Fn(&crate::event::Event, u32) -> Answer + Send + Sync + 'static) -> Stage {
    let mut stage = Stage::new(script);
    stage.plan.breaker.window = 10.try_into().unwrap();
    stage.plan.breaker.keys_min = 3.try_into().unwrap();
    stage.plan.retry.attempts = 20.try_into().unwrap();
    stage.plan.retry.backoff_max = Duration::from_millis(10);
    stage
}

const OPEN: i64 = 2;

#[tokio::test]
async fn failures_of_several_keys_open_it_and_a_probe_that_succeeds_closes_it() {
    let is_broken = Arc::new(AtomicBool::new(true));
    let script = is_broken.clone();
    let mut stage = stage(move |_, _| match script.load(Ordering::SeqCst) {
        true => Answer::Fail(Class::Transient),
        false => Answer::Done,
    });
    stage.start().await;
    for key in ["a", "b", "c", "d", "e", "f"] {
        stage.send(key, key).await;
    }
    stage
        .until("opening", |stage| stage.metrics().breaker_now() == OPEN)
        .await;
    is_broken.store(false, Ordering::SeqCst);
    stage.until_settled().await;
    assert_eq!(stage.metrics().breaker_now(), 0);
    assert_eq!(stage.counts().committed, 6);
    assert_eq!(stage.dead().await, []);
}

#[tokio::test]
async fn while_it_is_open_nothing_is_taken_and_one_event_at_a_time_probes() {
    let (is_broken, gate) = (Arc::new(AtomicBool::new(true)), Gate::shut());
    let (script, probe) = (is_broken.clone(), gate.clone());
    let mut stage = stage(move |_, _| match script.load(Ordering::SeqCst) {
        true => Answer::Fail(Class::Transient),
        false => Answer::Done.at(&probe),
    });
    stage.plan.budget.events = 16.try_into().unwrap();
    stage.start().await;
    for number in 0..6 {
        stage.send(&format!("a{number}"), &format!("a{number}")).await;
    }
    stage
        .until("opening", |stage| stage.metrics().breaker_now() == OPEN)
        .await;
    is_broken.store(false, Ordering::SeqCst);
    stage.until("a probe", |stage| stage.plugin.running().len() == 1).await;
    // One batch may have been on its way when it opened; the next is not taken.
    for number in 0..40 {
        stage.send(&format!("b{number}"), &format!("b{number}")).await;
    }
    assert_eq!(stage.plugin.running().len(), 1);
    gate.open();
    stage.until_settled().await;
    assert_eq!(stage.counts().committed, 46);
}

#[tokio::test]
async fn one_bad_key_never_opens_it() {
    let mut stage = stage(|event, _| match event.subject.as_deref() {
        Some("bad") => Answer::Fail(Class::Transient),
        _ => Answer::Done,
    });
    stage.start().await;
    stage.send_many(&["x1", "x2", "x3"], "bad").await;
    stage.until_dead(3).await;
    assert_eq!(stage.plugin.calls().len(), 60);
    stage.send("a1", "a").await;
    stage.until_settled().await;
}

/// Passing failures count for nothing while it is not closed: an outage does not use up the attempts of healthy events.
#[tokio::test]
async fn an_outage_uses_up_no_attempts() {
    let is_broken = Arc::new(AtomicBool::new(true));
    let script = is_broken.clone();
    let mut stage = stage(move |_, _| match script.load(Ordering::SeqCst) {
        true => Answer::Fail(Class::Transient),
        false => Answer::Done,
    });
    stage.plan.retry.attempts = 3.try_into().unwrap();
    stage.plan.retry.backoff_min = Duration::from_millis(5);
    stage.plan.breaker.open_min = Duration::from_millis(10);
    stage.plan.breaker.open_max = Duration::from_millis(10);
    stage.start().await;
    for number in 0..12 {
        stage.send(&format!("a{number}"), &format!("a{number}")).await;
    }
    stage.until("probes", |stage| stage.plugin.calls().len() > 40).await;
    is_broken.store(false, Ordering::SeqCst);
    stage.until_settled().await;
    assert_eq!(stage.dead().await, []);
    assert_eq!(stage.counts().committed, 12);
}

/// A probe that turns out to need no attempt once left the consumer paused for good.
#[tokio::test]
async fn half_open_with_nothing_at_hand_takes_the_next_event() {
    let mut stage = stage(|event, _| match event.id.starts_with("bad") {
        true => Answer::Fail(Class::Trap),
        false => Answer::Done,
    });
    stage.plan.retry.attempts = 1.try_into().unwrap();
    stage.start().await;
    for number in 0..5 {
        stage.send(&format!("bad{number}"), &format!("{number}")).await;
    }
    // All of them are dead: nothing is left to probe with.
    stage
        .until("opening", |stage| stage.metrics().breaker_now() == OPEN)
        .await;
    stage.until_settled().await;
    for id in ["a1", "a2", "a3"] {
        stage.send(id, id).await;
    }
    stage.until_settled().await;
    assert_eq!(stage.counts().committed, 3);
    assert_eq!(stage.metrics().breaker_now(), 0);
}

#[tokio::test]
async fn half_open_with_only_a_duplicate_at_hand_takes_the_next_event() {
    let gate = Gate::shut();
    let script = gate.clone();
    let mut stage = stage(move |event, _| match event.id.as_str() {
        "twin" => Answer::Done.at(&script),
        id if id.starts_with("bad") => Answer::Fail(Class::Trap),
        _ => Answer::Done,
    });
    stage.plan.retry.attempts = 1.try_into().unwrap();
    stage.plan.breaker.open_min = Duration::from_millis(500);
    stage.plan.breaker.open_max = Duration::from_millis(500);
    stage.start().await;
    // The twin of an event that ends while the breaker is open is all that is left at hand when it is half open, and the intake pauses:
    // it had asked for one more batch, and that was a duplicate.
    stage.send_many(&["twin", "twin"], "t").await;
    for number in 0..5 {
        stage.send(&format!("bad{number}"), &format!("{number}")).await;
    }
    stage
        .until("opening", |stage| stage.metrics().breaker_now() == OPEN)
        .await;
    gate.open();
    stage
        .until("the twin's end", |stage| stage.counts().committed == 1)
        .await;
    stage.send("twin", "t").await;
    stage
        .until("the duplicate", |stage| stage.counts().duplicate == 1)
        .await;
    assert_eq!(stage.metrics().breaker_now(), OPEN, "too slow to show anything");
    stage.send("a1", "a1").await;
    stage.until_settled().await;
    assert_eq!(stage.counts().committed, 2);
}

#[tokio::test]
async fn an_open_breaker_does_not_hold_up_a_drain() {
    let mut stage = stage(|_, _| Answer::Fail(Class::Transient));
    stage.plan.breaker.open_min = Duration::from_secs(600);
    stage.plan.breaker.open_max = Duration::from_secs(600);
    stage.start().await;
    for key in ["a", "b", "c", "d", "e", "f"] {
        stage.send(key, key).await;
    }
    stage
        .until("opening", |stage| stage.metrics().breaker_now() == OPEN)
        .await;
    let left = stage.stop().await;
    assert_eq!((left.unfinished, left.unconfirmed), (0, 0));
    stage.plugin.becomes(|_, _| Answer::Done);
    stage.start().await;
    stage.until_settled().await;
    assert_eq!(stage.counts().committed, 6);
}
