//! What the ledger says of the parking may be old when it comes: holds, moves and redrives in between are not lost.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::handler::{Answer, Gate};
use super::stage::Stage;
use crate::event::Event;
use crate::outcome::Class;
use crate::plan::OnDead;

/// A stage that holds keys, and whose ids that begin with `bad` are permanent failures until the switch is turned.
async fn holding() -> (Stage, Arc<AtomicBool>) {
    let is_well = Arc::new(AtomicBool::new(false));
    let script = is_well.clone();
    let answer = move |event: &Event, _: u32| match event.id.starts_with("bad") && !script.load(Ordering::SeqCst) {
        true => Answer::Fail(Class::Permanent),
        false => Answer::Done,
    };
    let mut stage = Stage::new(answer);
    stage.plan.on_dead = OnDead::HoldKey;
    stage.start().await;
    (stage, is_well)
}

/// A listing that is read and does not come before the gate is open.
async fn old_listing(stage: &Stage) -> Gate {
    let gate = Gate::shut();
    stage.ledger_switch.hold_up_listings(&gate);
    stage.look_at_parking().await;
    stage
        .until("the listing", |stage| stage.ledger_switch.held_up() == 1)
        .await;
    gate
}

#[tokio::test]
async fn an_old_listing_does_not_release_a_new_hold() {
    let (stage, is_well) = holding().await;
    stage.pass("b1").await;
    let gate = old_listing(&stage).await;
    stage.send("bad", "a").await;
    let dead = stage.until_dead(1).await;
    stage.until_settled().await;
    stage.send("a2", "a").await;
    gate.open();
    stage.until_settled().await;
    stage.pass("b2").await;
    stage.pass("b3").await;
    assert_eq!(stage.plugin.count("a2"), 0);
    is_well.store(true, Ordering::SeqCst);
    stage.redrive(dead[0].id).await;
    stage.until_called("a2", 1).await;
    assert_eq!(stage.plugin.called(), ["b1", "bad", "b2", "b3", "bad", "a2"]);
    stage.until_idle().await;
}

#[tokio::test]
async fn an_old_listing_does_not_bring_back_a_hold_that_was_released() {
    let (stage, is_well) = holding().await;
    stage.send_many(&["bad", "a2"], "a").await;
    let dead = stage.until_dead(1).await;
    stage.until_settled().await;
    is_well.store(true, Ordering::SeqCst);
    // A listing knows of the redrive, the next one is read before the event is through and comes after it.
    let redriven = Gate::shut();
    stage.plugin.becomes({
        let gate = redriven.clone();
        move |event, _| match event.id.as_str() {
            "bad" => Answer::Done.at(&gate),
            _ => Answer::Done,
        }
    });
    stage.redrive(dead[0].id).await;
    stage.until_called("bad", 2).await;
    let gate = old_listing(&stage).await;
    redriven.open();
    stage.until_called("a2", 1).await;
    gate.open();
    stage.send("a3", "a").await;
    stage.until_called("a3", 1).await;
    stage.until_idle().await;
}

#[tokio::test]
async fn what_is_moved_while_its_lane_is_read_is_not_forgotten() {
    let mut stage = Stage::new(|event, attempt| match (event.id.as_str(), attempt) {
        ("a1", 1) => Answer::FailFor(Duration::from_millis(20)),
        _ => Answer::Done,
    });
    stage.plan.retry.park_after = Duration::from_millis(10);
    stage.start().await;
    let gate = Gate::shut();
    stage.ledger_switch.hold_up_loads(&gate);
    stage.send("a1", "a").await;
    stage
        .until("the load", |stage| stage.ledger_switch.held_up() == 1)
        .await;
    stage.send_many(&["a2", "a3"], "a").await;
    stage.until_settled().await;
    gate.open();
    stage.until_called("a3", 1).await;
    assert_eq!(stage.plugin.called(), ["a1", "a1", "a2", "a3"]);
    stage.until_idle().await;
}

#[tokio::test]
async fn a_redrive_while_its_lane_is_read_is_not_forgotten() {
    let (stage, is_well) = holding().await;
    stage.send_many(&["bad", "a2"], "a").await;
    let dead = stage.until_dead(1).await;
    stage.until_settled().await;
    // Looks whether the dead letter was put back, and it was not.
    let gate = Gate::shut();
    stage.ledger_switch.hold_up_loads(&gate);
    stage.look_at_parking().await;
    stage
        .until("the load", |stage| stage.ledger_switch.held_up() == 1)
        .await;
    is_well.store(true, Ordering::SeqCst);
    stage.redrive(dead[0].id).await;
    stage.pass("b1").await;
    gate.open();
    stage.until_called("a2", 1).await;
    assert_eq!(stage.plugin.called(), ["bad", "b1", "bad", "a2"]);
    stage.until_idle().await;
}

/// It was attempted a second time once, in vain: the look-up did not know of the first, and the first was forgotten when its answer came.
#[tokio::test]
async fn a_twin_whose_look_up_is_older_than_the_end_of_the_first_does_not_run() {
    let (running, looked_up) = (Gate::shut(), Gate::shut());
    let script = running.clone();
    let stage = Stage::started(move |event, _| match event.id.as_str() {
        "a1" => Answer::Done.at(&script),
        _ => Answer::Done,
    })
    .await;
    stage.send("a1", "a").await;
    stage.until_called("a1", 1).await;
    stage.ledger_switch.hold_up_look_ups(&looked_up);
    stage.send("a1", "a").await;
    stage
        .until("the look-up", |stage| stage.ledger_switch.held_up() == 1)
        .await;
    running.open();
    stage.until("the commit", |stage| stage.counts().committed == 1).await;
    looked_up.open();
    stage.until_settled().await;
    assert_eq!(stage.plugin.called(), ["a1"]);
    stage.until_idle().await;
}

/// The lane stayed held for ever once: the purge was told before the hold was known.
#[tokio::test]
async fn a_purge_that_comes_before_its_death_is_answered_frees_the_lane() {
    let (stage, _) = holding().await;
    let gate = Gate::shut();
    stage.ledger_switch.hold_up_failures(&gate);
    stage.send_many(&["bad", "a2"], "a").await;
    stage
        .until("the death", |stage| stage.ledger_switch.held_up() == 1)
        .await;
    let dead = stage.until_dead(1).await;
    stage.purge(dead[0].id).await;
    stage.pass("b1").await;
    gate.open();
    stage.until_called("a2", 1).await;
    stage.until_idle().await;
}
