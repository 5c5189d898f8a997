//! Hosts that stop: cleanly, in the middle, and because of an event.

use std::collections::BTreeSet;
use std::time::Duration;

use super::handler::{Answer, Gate};
use super::stage::Stage;
use crate::outcome::{Class, Reason};

#[tokio::test]
async fn a_drain_finishes_what_runs_and_hands_back_the_rest() {
    let gate = Gate::shut();
    let script = gate.clone();
    let mut stage = Stage::started(move |event, _| match event.id.as_str() {
        "a1" => Answer::Done.at(&script),
        _ => Answer::Done,
    })
    .await;
    stage.send_many(&["a1", "a2", "a3"], "a").await;
    stage.until_called("a1", 1).await;
    let (left, ()) = tokio::join!(stage.stop(), async {
        tokio::time::sleep(Duration::from_millis(20)).await;
        gate.open();
    });
    assert_eq!((left.unfinished, left.unconfirmed), (0, 0));
    assert_eq!(stage.plugin.called(), ["a1"]);
    stage.start().await;
    stage.until_settled().await;
    assert_eq!(
        stage.plugin.called(),
        ["a1", "a2", "a3"],
        "the rest runs once, in order"
    );
}

#[tokio::test]
async fn a_drain_ends_with_its_grace_time_and_says_what_was_left() {
    let gate = Gate::shut();
    let script = gate.clone();
    let mut stage = Stage::started(move |_, attempt| match attempt {
        1 => Answer::Done.at(&script),
        _ => Answer::Done,
    })
    .await;
    stage.send("a1", "a").await;
    stage.until_called("a1", 1).await;
    let left = stage.stop_within(Duration::from_millis(50)).await;
    assert_eq!(left.unfinished, 1);
    gate.open();
    stage.start().await;
    stage.until_settled().await;
    assert_eq!(stage.plugin.count("a1"), 2);
}

#[tokio::test]
async fn a_crash_in_the_middle_applies_nothing_twice_and_keeps_order() {
    let mut stage = Stage::started(|_, _| Answer::Count("n")).await;
    let ids: Vec<String> = (0..40).map(|number| format!("e{number}")).collect();
    for (index, id) in ids.iter().enumerate() {
        stage.send(id, ["a", "b", "c"][index % 3]).await;
        // Twice, and somewhere in the middle of what was sent: a third stop would convict whatever runs at all three.
        if index % 15 == 14 {
            stage
                .until("some", |stage| stage.plugin.called().len() > index - 5)
                .await;
            stage.crash().await;
            stage.start().await;
        }
    }
    stage.until_settled().await;
    let dead: Vec<_> = stage
        .dead()
        .await
        .into_iter()
        .map(|letter| (letter.event, letter.reason))
        .collect();
    assert!(dead.is_empty(), "{dead:?}");
    assert_eq!(stage.counted("n").await, "40");
}

#[tokio::test]
async fn an_event_that_kills_three_hosts_is_a_dead_letter_and_its_neighbours_are_not() {
    let gate = Gate::shut();
    let script = gate.clone();
    let mut stage = Stage::started(move |event, _| match event.id.as_str() {
        // The test ends the host while this one runs: that is what it does to hosts.
        "killer" => Answer::Done.at(&script),
        _ => Answer::Done,
    })
    .await;
    stage.send("killer", "k").await;
    stage.send_many(&["a1", "a2"], "a").await;
    for stop in 1..=3 {
        stage.until_called("killer", stop).await;
        stage.crash().await;
        stage.start().await;
    }
    let dead = stage.until_dead(1).await;
    stage.until_settled().await;
    assert_eq!(dead[0].reason, Reason::HostCrash);
    assert_eq!(dead[0].event.as_ref().unwrap().1, "killer");
    assert_eq!(stage.plugin.count("killer"), 3);
    let innocent: BTreeSet<String> = stage.plugin.called().into_iter().filter(|id| id != "killer").collect();
    assert_eq!(innocent, BTreeSet::from(["a1", "a2"].map(str::to_owned)));
}

#[tokio::test]
async fn a_failing_plugin_opens_the_breaker_and_one_event_closes_it_again() {
    let mut stage = Stage::new(|_, _| Answer::Fail(Class::Transient));
    stage.plan.breaker.window = 8.try_into().unwrap();
    stage.plan.breaker.keys_min = 3.try_into().unwrap();
    stage.plan.retry.attempts = 100.try_into().unwrap();
    stage.start().await;
    for key in ["a", "b", "c", "d", "e"] {
        stage.send(key, key).await;
    }
    stage
        .until("an open breaker", |stage| stage.metrics().breaker_now() == 2)
        .await;
    stage.plugin.becomes(|_, _| Answer::Done);
    stage.until_settled().await;
    stage
        .until("a closed breaker", |stage| stage.metrics().breaker_now() == 0)
        .await;
    assert_eq!((stage.counts().committed, stage.counts().dead), (5, 0));
}
