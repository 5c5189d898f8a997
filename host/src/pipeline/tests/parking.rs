//! Lanes that wait go into the ledger and run from there, in order.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::handler::Answer;
use super::stage::Stage;
use crate::outcome::{Class, Reason};
use crate::plan::OnDead;

/// A stage whose key `a` fails in passing until it is mended, and is parked from its second event in waiting.
fn stage() -> (Stage, Arc<AtomicBool>) {
    let is_mended = Arc::new(AtomicBool::new(false));
    let script = is_mended.clone();
    let mut stage = Stage::new(
        move |event, _| match event.id.starts_with('a') && !script.load(Ordering::SeqCst) {
            true => Answer::FailFor(Duration::from_millis(50)),
            false => Answer::Done,
        },
    );
    stage.plan.retry.attempts = 1_000.try_into().unwrap();
    stage.plan.retry.park_over = 2.try_into().unwrap();
    (stage, is_mended)
}

#[tokio::test]
async fn a_lane_over_its_share_is_settled_and_runs_from_the_ledger_in_order() {
    let (mut stage, is_mended) = stage();
    stage.start().await;
    let ids = ["a1", "a2", "a3", "a4", "a5", "a6"];
    stage.send_many(&ids, "a").await;
    // All of it is settled at the broker, although none of it was handled.
    stage.until_settled().await;
    assert_eq!(stage.counts().committed, 0);
    // What comes later of that key goes behind it, other keys go on.
    stage.send("a7", "a").await;
    stage.pass("b1").await;
    stage.until_settled().await;
    is_mended.store(true, Ordering::SeqCst);
    stage.until_called("a7", 1).await;
    stage.until("commits", |stage| stage.counts().committed == 8).await;
    let mut first: Vec<String> = stage.plugin.called();
    first.retain(|id| id.starts_with('a'));
    first.dedup();
    assert_eq!(first, ["a1", "a2", "a3", "a4", "a5", "a6", "a7"]);
    // The lane runs from memory again.
    stage.send("a8", "a").await;
    stage.until_settled().await;
    assert_eq!(stage.counts().committed, 9);
}

#[tokio::test]
async fn a_parked_lane_outlives_a_crash_in_order() {
    let (mut stage, is_mended) = stage();
    stage.start().await;
    stage.send_many(&["a1", "a2", "a3", "a4", "a5"], "a").await;
    stage.until_settled().await;
    stage.crash().await;
    stage.start().await;
    stage.send("a6", "a").await;
    stage.until_settled().await;
    is_mended.store(true, Ordering::SeqCst);
    stage.until("commits", |stage| stage.counts().committed == 6).await;
    let mut called = stage.plugin.called();
    called.dedup();
    assert_eq!(called, ["a1", "a2", "a3", "a4", "a5", "a6"]);
}

#[tokio::test]
async fn a_held_key_waits_until_its_dead_letter_is_redriven() {
    let is_mended = Arc::new(AtomicBool::new(false));
    let script = is_mended.clone();
    let mut stage = Stage::new(
        move |event, _| match event.id == "a1" && !script.load(Ordering::SeqCst) {
            true => Answer::Fail(Class::Permanent),
            false => Answer::Done,
        },
    );
    stage.plan.on_dead = OnDead::HoldKey;
    stage.start().await;
    stage.send_many(&["a1", "a2", "a3"], "a").await;
    let dead = stage.until_dead(1).await;
    stage.until_settled().await;
    stage.pass("b1").await;
    assert_eq!(stage.plugin.called(), ["a1", "b1"], "later events of the key wait");
    // Redriven in vain, it holds its key again.
    stage.redrive(dead[0].id).await;
    stage.until_called("a1", 2).await;
    stage.until_dead(1).await;
    stage.pass("b2").await;
    assert_eq!(stage.plugin.called(), ["a1", "b1", "a1", "b2"]);
    is_mended.store(true, Ordering::SeqCst);
    stage.until("the letter, not redriving", |_| true).await;
    stage.redrive(dead[0].id).await;
    stage.until_called("a3", 1).await;
    assert_eq!(stage.plugin.called()[4..], ["a1", "a2", "a3"]);
    assert!(stage.dead().await.is_empty());
}

#[tokio::test]
async fn a_held_key_goes_on_when_its_dead_letter_is_purged() {
    let mut stage = Stage::new(|event, _| match event.id.as_str() {
        "a1" => Answer::Fail(Class::Permanent),
        _ => Answer::Done,
    });
    stage.plan.on_dead = OnDead::HoldKey;
    stage.start().await;
    stage.send_many(&["a1", "a2"], "a").await;
    let dead = stage.until_dead(1).await;
    stage.until_settled().await;
    stage.purge(dead[0].id).await;
    stage.until_called("a2", 1).await;
    assert_eq!(stage.plugin.called(), ["a1", "a2"]);
}

#[tokio::test]
async fn a_redriven_event_runs_in_its_lane_and_says_what_went_before() {
    let is_mended = Arc::new(AtomicBool::new(false));
    let script = is_mended.clone();
    let stage = Stage::started(
        move |event, _| match event.id == "a1" && !script.load(Ordering::SeqCst) {
            true => Answer::Fail(Class::Permanent),
            false => Answer::Done,
        },
    )
    .await;
    stage.send_many(&["a1", "a2", "a3"], "a").await;
    let dead = stage.until_dead(1).await;
    stage.until_settled().await;
    assert_eq!(dead[0].reason, Reason::Permanent);
    assert_eq!(stage.until_dead(1).await[0].applied_meanwhile, 2);
    is_mended.store(true, Ordering::SeqCst);
    stage.redrive(dead[0].id).await;
    stage.until_dead(0).await;
    assert_eq!(stage.plugin.called(), ["a1", "a2", "a3", "a1"]);
    assert_eq!(stage.counts().committed, 3);
}
