//! Dead letters are put back and forgotten; lanes wait for them if they are to.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::handler::{Answer, Gate};
use super::stage::{Stage, outside_stream};
use crate::event::Event;
use crate::outcome::{Class, Reason};
use crate::plan::OnDead;

/// Answers that are permanent failures of ids that begin with `bad`, until the switch is turned.
fn bad_until() -> (
    Arc<AtomicBool>,
    impl Fn(&Event, u32) -> Answer + Send + Sync + Clone + 'static,
) {
    let is_well = Arc::new(AtomicBool::new(false));
    let script = is_well.clone();
    let answer = move |event: &Event, _: u32| match event.id.starts_with("bad") && !script.load(Ordering::SeqCst) {
        true => Answer::Fail(Class::Permanent),
        false => Answer::Done,
    };
    (is_well, answer)
}

fn holding(script: impl Fn(&Event, u32) -> Answer + Send + Sync + 'static) -> Stage {
    let mut stage = Stage::new(script);
    stage.plan.on_dead = OnDead::HoldKey;
    stage
}

#[tokio::test]
async fn later_events_of_a_held_key_wait_until_its_dead_letter_is_redriven() {
    let (is_well, script) = bad_until();
    let mut stage = holding(script);
    stage.start().await;
    stage.send_many(&["bad", "a2", "a3"], "a").await;
    let dead = stage.until_dead(1).await;
    stage.send("a4", "a").await;
    stage.until_settled().await;
    stage.pass("b1").await;
    assert_eq!(stage.plugin.called(), ["bad", "b1"]);
    is_well.store(true, Ordering::SeqCst);
    stage.redrive(dead[0].id).await;
    stage.until("all", |stage| stage.counts().committed == 5).await;
    assert_eq!(stage.plugin.called(), ["bad", "b1", "bad", "a2", "a3", "a4"]);
    stage.until_dead(0).await;
    stage.send("a5", "a").await;
    stage.until_called("a5", 1).await;
}

#[tokio::test]
async fn a_redriven_event_that_dies_again_holds_its_key_again() {
    let (is_well, script) = bad_until();
    let mut stage = holding(script);
    stage.start().await;
    stage.send_many(&["bad", "a2"], "a").await;
    let dead = stage.until_dead(1).await;
    stage.until_settled().await;
    stage.redrive(dead[0].id).await;
    stage.until_called("bad", 2).await;
    stage.until("two deaths", |stage| stage.counts().dead == 2).await;
    stage.pass("b1").await;
    assert_eq!(stage.plugin.called(), ["bad", "bad", "b1"]);
    is_well.store(true, Ordering::SeqCst);
    stage.redrive(dead[0].id).await;
    stage.until_called("a2", 1).await;
    stage.until_dead(0).await;
}

#[tokio::test]
async fn a_redriven_event_that_fails_in_passing_is_tried_again_before_what_it_holds() {
    let times = std::sync::atomic::AtomicUsize::new(0);
    let mut stage = holding(move |event, _| match event.id.as_str() {
        "bad" => match times.fetch_add(1, Ordering::SeqCst) {
            0 => Answer::Fail(Class::Permanent),
            1 => Answer::FailFor(Duration::from_millis(50)),
            2 => Answer::NotRun,
            _ => Answer::Done,
        },
        _ => Answer::Done,
    });
    stage.start().await;
    stage.send_many(&["bad", "a2"], "a").await;
    let dead = stage.until_dead(1).await;
    stage.redrive(dead[0].id).await;
    stage.until_called("a2", 1).await;
    assert_eq!(stage.plugin.called(), ["bad", "bad", "bad", "bad", "a2"]);
}

#[tokio::test]
async fn a_purge_releases_a_held_key() {
    let (_, script) = bad_until();
    let mut stage = holding(script);
    stage.start().await;
    stage.send_many(&["bad", "a2", "a3"], "a").await;
    let dead = stage.until_dead(1).await;
    stage.until_settled().await;
    stage.purge(dead[0].id).await;
    stage.until_called("a3", 1).await;
    assert_eq!(stage.plugin.called(), ["bad", "a2", "a3"]);
    stage.send("a4", "a").await;
    stage.until_called("a4", 1).await;
    stage.send("bad", "a").await;
    stage.until_settled().await;
    assert_eq!(stage.plugin.count("bad"), 1, "a purged event never runs again");
}

#[tokio::test]
async fn a_held_key_is_held_after_a_restart() {
    let (is_well, script) = bad_until();
    let mut stage = holding(script);
    stage.start().await;
    stage.send_many(&["bad", "a2"], "a").await;
    let dead = stage.until_dead(1).await;
    stage.crash().await;
    stage.start().await;
    stage.send("a3", "a").await;
    stage.until_settled().await;
    stage.pass("b1").await;
    assert_eq!(stage.plugin.called(), ["bad", "b1"]);
    is_well.store(true, Ordering::SeqCst);
    stage.redrive(dead[0].id).await;
    stage.until_called("a3", 1).await;
    assert_eq!(stage.plugin.called(), ["bad", "b1", "bad", "a2", "a3"]);
}

#[tokio::test]
async fn a_dead_letter_of_a_lane_that_is_parked_holds_it() {
    let (is_well, answer) = bad_until();
    let mut stage = holding(move |event, attempt| match (event.id.as_str(), attempt) {
        ("a1", 1) => Answer::FailFor(Duration::from_millis(50)),
        _ => answer(event, attempt),
    });
    stage.plan.retry.park_after = Duration::from_millis(10);
    stage.start().await;
    stage.send_many(&["a1", "bad", "a3", "a4"], "a").await;
    let dead = stage.until_dead(1).await;
    stage.send("a5", "a").await;
    stage.until_settled().await;
    stage.pass("b1").await;
    assert_eq!(stage.plugin.count("a3"), 0);
    is_well.store(true, Ordering::SeqCst);
    stage.redrive(dead[0].id).await;
    stage.until_called("a5", 1).await;
    assert_eq!(
        stage.plugin.called(),
        ["a1", "a1", "bad", "b1", "bad", "a3", "a4", "a5"]
    );
}

#[tokio::test]
async fn a_redrive_runs_in_an_idle_lane() {
    let (is_well, script) = bad_until();
    let stage = Stage::started(script).await;
    stage.send_many(&["bad", "a2"], "a").await;
    let dead = stage.until_dead(1).await;
    stage.until_settled().await;
    is_well.store(true, Ordering::SeqCst);
    stage.redrive(dead[0].id).await;
    stage.until_called("bad", 2).await;
    stage.until_dead(0).await;
    assert_eq!(stage.plugin.called(), ["bad", "a2", "bad"]);
    assert_eq!(dead[0].reason, Reason::Permanent);
}

/// A redrive while `a2` runs until the gate is opened and `a3` waits in memory, both unsettled; then `a4` comes.
async fn redriven_beside_what_runs() -> (Stage, Gate) {
    let (gate, (is_well, answer)) = (Gate::shut(), bad_until());
    let script = gate.clone();
    let stage = Stage::started(move |event, attempt| match event.id.as_str() {
        "a2" => Answer::Done.at(&script),
        _ => answer(event, attempt),
    })
    .await;
    stage.send_many(&["bad", "a2", "a3"], "a").await;
    stage.until_called("a2", 1).await;
    let dead = stage.until_dead(1).await;
    is_well.store(true, Ordering::SeqCst);
    stage.redrive(dead[0].id).await;
    stage.pass("b1").await;
    stage.send("a4", "a").await;
    stage.pass("b2").await;
    (stage, gate)
}

#[tokio::test]
async fn a_redrive_waits_for_what_runs_in_its_lane_and_later_events_wait_for_it() {
    let (stage, gate) = redriven_beside_what_runs().await;
    gate.open();
    stage.until("all", |stage| stage.counts().committed == 6).await;
    let mut called = stage.plugin.called();
    called.retain(|id| !id.starts_with('b') || id == "bad");
    // When what runs has ended, the older event comes first; nothing runs twice or beside another.
    assert_eq!(called, ["bad", "a2", "bad", "a3", "a4"]);
    stage.until_settled().await;
}

/// The host goes while `a2` runs, and what was in memory comes again.
async fn redriven_and_started_again(is_clean: bool) {
    let (mut stage, gate) = redriven_beside_what_runs().await;
    match is_clean {
        true => _ = stage.stop_within(Duration::ZERO).await,
        false => stage.crash().await,
    }
    gate.open();
    stage.start().await;
    stage.until_called("a4", 1).await;
    stage.until_idle().await;
    let mut called = stage.plugin.called();
    called.retain(|id| matches!(id.as_str(), "a2" | "a3" | "a4"));
    called.dedup();
    assert_eq!(called, ["a2", "a3", "a4"]);
}

#[tokio::test]
async fn a_redrive_lets_nothing_overtake_what_was_in_memory_over_a_stop() {
    redriven_and_started_again(true).await;
}

#[tokio::test]
async fn a_redrive_lets_nothing_overtake_what_was_in_memory_over_a_crash() {
    redriven_and_started_again(false).await;
}

#[tokio::test]
async fn a_redrive_into_a_parked_lane_runs_behind_what_waits_there() {
    let (is_well, answer) = bad_until();
    let is_ready = Arc::new(AtomicBool::new(false));
    let script = is_ready.clone();
    let mut stage = Stage::new(move |event, attempt| match event.id.as_str() {
        "a2" if !script.load(Ordering::SeqCst) => Answer::FailFor(Duration::from_millis(30)),
        _ => answer(event, attempt),
    });
    stage.plan.retry.park_after = Duration::from_millis(10);
    stage.plan.retry.attempts = 1_000.try_into().unwrap();
    stage.start().await;
    stage.send_many(&["bad", "a2", "a3"], "a").await;
    stage.until_settled().await;
    let dead = stage.until_dead(1).await;
    is_well.store(true, Ordering::SeqCst);
    stage.redrive(dead[0].id).await;
    stage.send("a4", "a").await;
    stage.until_settled().await;
    is_ready.store(true, Ordering::SeqCst);
    stage.until("all", |stage| stage.counts().committed == 4).await;
    let mut called = stage.plugin.called();
    called.dedup();
    assert_eq!(called, ["bad", "a2", "a3", "bad", "a4"]);
}

#[tokio::test]
async fn many_redrives_at_once_run_each_once() {
    let (is_well, script) = bad_until();
    let stage = Stage::started(script).await;
    for number in 0..60 {
        stage.send(&format!("bad{number}"), &format!("k{}", number % 5)).await;
    }
    let dead = stage.until_dead(60).await;
    is_well.store(true, Ordering::SeqCst);
    for letter in &dead {
        stage.redrive(letter.id).await;
    }
    stage.until_dead(0).await;
    stage.until("all", |stage| stage.counts().committed == 60).await;
    assert_eq!(stage.plugin.calls().len(), 120);
}

#[tokio::test]
async fn what_can_not_be_decoded_is_buried_again_when_redriven() {
    let stage = Stage::started(|_, _| Answer::Done).await;
    stage.send_message(crate::event::Message::default()).await;
    let dead = stage.until_dead(1).await;
    stage.redrive(dead[0].id).await;
    stage.until("two deaths", |stage| stage.counts().dead == 2).await;
    let again = stage.until_dead(1).await;
    assert_eq!((again[0].id, again[0].reason), (dead[0].id, Reason::Undecodable));
    assert_eq!(again[0].event, None);
    assert_eq!(stage.plugin.called(), [""; 0]);
}

/// A redriven event without a key once ran all the same.
#[tokio::test]
async fn what_has_no_key_is_buried_again_when_redriven() {
    let mut stage = holding(|_, _| Answer::Done);
    stage.plan.key = crate::plan::Key::Data("/order".to_owned());
    stage.start().await;
    stage.send("a1", "a").await;
    let dead = stage.until_dead(1).await;
    stage.redrive(dead[0].id).await;
    stage.until("two deaths", |stage| stage.counts().dead == 2).await;
    assert_eq!(stage.until_dead(1).await[0].reason, Reason::NoKey);
    assert_eq!(stage.plugin.called(), [""; 0]);
}

#[tokio::test]
async fn a_dead_letter_is_published_too_with_what_happened() {
    let (_, script) = bad_until();
    let mut stage = Stage::new(script);
    stage.plan.dead_letter = Some(outside_stream("dead"));
    stage.start().await;
    stage.send_data("bad", "a", "\"x\"").await;
    stage.until_settled().await;
    assert_eq!(stage.outside.taken(), ["\"x\""]);
    let dead = stage.until_dead(1).await;
    assert_eq!(stage.outside.ids(), [format!("{}-dead", dead[0].id)]);
}
