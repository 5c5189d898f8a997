//! Outputs are published in order, until they are confirmed, under ids that never change.

use std::time::Duration;

use super::handler::{Answer, Gate};
use super::outside::Reply;
use super::stage::Stage;
use crate::clock::Clock;
use crate::ledger::DeadLetters;
use crate::outcome::Reason;
use crate::plan::SettleWhen;

fn emitting() -> Stage {
    Stage::new(|_, _| Answer::Emit(vec!["stock"]))
}

#[tokio::test]
async fn an_event_is_settled_when_its_outputs_are_confirmed() {
    let mut stage = emitting();
    let gate = Gate::shut();
    let reply = gate.clone();
    stage.outside.becomes(move |_, _| Reply::TakeAt(reply.clone()));
    stage.start().await;
    stage.send("a1", "a").await;
    stage.until("commit", |stage| stage.counts().committed == 1).await;
    stage.until("a try", |stage| stage.outside.tries("a1") == 1).await;
    assert_eq!(stage.lag(), 1);
    gate.open();
    stage.until_settled().await;
    assert_eq!(stage.outside.taken(), ["a1"]);
}

#[tokio::test]
async fn an_event_of_many_outputs_waits_for_the_last() {
    let mut stage = Stage::new(|_, _| Answer::Emit(vec!["stock", "stock", "dead", "log", "stock"]));
    let gate = Gate::shut();
    let reply = gate.clone();
    stage.outside.becomes(move |_, times| match times {
        4 => Reply::TakeAt(reply.clone()),
        _ => Reply::Take,
    });
    stage.start().await;
    stage.send("a1", "a").await;
    stage.until("the last", |stage| stage.outside.tries("a1") == 4).await;
    assert_eq!(stage.lag(), 1);
    gate.open();
    stage.until_settled().await;
    assert_eq!(stage.outside.taken().len(), 4);
}

#[tokio::test]
async fn with_settle_committed_it_is_settled_before() {
    let mut stage = emitting();
    stage.plan.settle = SettleWhen::Committed;
    stage.outside.becomes(|_, _| Reply::Fail);
    stage.start().await;
    stage.send("a1", "a").await;
    stage.until_settled().await;
    assert_eq!(stage.outside.taken(), [""; 0]);
    stage.outside.becomes(|_, _| Reply::Take);
    stage
        .until("publication", |stage| stage.outside.taken() == ["a1"])
        .await;
}

/// While the broker is away, no more than the budget is committed and waits to be published, whatever settles when.
#[tokio::test]
async fn what_waits_to_be_published_is_bounded() {
    let mut stage = emitting();
    stage.plan.settle = SettleWhen::Committed;
    stage.plan.budget.events = 16.try_into().unwrap();
    stage.plan.concurrency = 4.try_into().unwrap();
    stage.outside.becomes(|_, _| Reply::Fail);
    stage.start().await;
    for number in 0..100 {
        stage.send(&format!("a{number}"), &format!("k{}", number % 4)).await;
    }
    stage.until("the bound", |stage| stage.counts().committed >= 16).await;
    stage.until("a third try", |stage| stage.outside.tries("a0") >= 3).await;
    assert!(stage.counts().committed <= 20, "{:?}", stage.counts());
    stage.outside.becomes(|_, _| Reply::Take);
    stage.until("all", |stage| stage.outside.taken().len() == 100).await;
    stage.until_settled().await;
}

/// Small events of which much is emitted, and a ledger that takes long: once, only what was committed already counted.
#[tokio::test]
async fn what_waits_to_be_committed_is_bounded_in_bytes() {
    let gate = Gate::shut();
    let script_gate = gate.clone();
    let mut stage = Stage::new(move |_, _| Answer::Emit(vec!["stock"; 10]).at(&script_gate));
    stage.plan.budget.bytes = (64 << 10).try_into().unwrap();
    stage.plan.concurrency = 4.try_into().unwrap();
    stage.start().await;
    // Each emits ten times its id: 5,000 bytes, of which 14 are more than the budget.
    for number in 0..40 {
        stage.send(&format!("{number:0500}"), &format!("k{number}")).await;
    }
    stage.until("all", |stage| stage.level("in_flight{") == "40").await;
    stage.ledger_switch.turn(true);
    gate.open();
    stage
        .until("writes in vain", |stage| stage.ledger_switch.refused() >= 6)
        .await;
    // Those that ran when it was full, too.
    let called = stage.plugin.calls().len();
    assert!(called <= 14 + 4, "{called}");
    stage.ledger_switch.turn(false);
    stage
        .until("the others", |stage| stage.outside.taken().len() == 400)
        .await;
    stage.until_settled().await;
}

#[tokio::test]
async fn what_waits_to_be_published_does_not_add_up_over_restarts() {
    let mut stage = emitting();
    stage.plan.budget.events = 16.try_into().unwrap();
    stage.plan.concurrency = 4.try_into().unwrap();
    stage.outside.becomes(|_, _| Reply::Fail);
    stage.start().await;
    for number in 0..100 {
        stage.send(&format!("a{number}"), &format!("k{}", number % 4)).await;
    }
    stage.until("the bound", |stage| stage.counts().committed >= 16).await;
    for tries in [5, 10] {
        stage.crash().await;
        stage.start().await;
        stage
            .until("another try", |stage| stage.outside.tries("a0") >= tries)
            .await;
        assert_eq!(stage.counts().committed, 0);
    }
    stage.outside.becomes(|_, _| Reply::Take);
    stage.until("all", |stage| stage.outside.taken().len() == 100).await;
    stage.until_settled().await;
}

#[tokio::test]
async fn outputs_of_a_key_are_in_order_even_when_the_first_fails_twice() {
    let mut stage = emitting();
    stage
        .outside
        .becomes(|payload, times| match payload == "a1" && times <= 2 {
            true => Reply::Fail,
            false => Reply::Take,
        });
    stage.start().await;
    stage.send_many(&["a1", "a2", "a3"], "a").await;
    stage.send_many(&["b1", "b2"], "b").await;
    stage.until_settled().await;
    let mut taken = stage.outside.taken();
    assert_eq!(stage.outside.tries("a1"), 3);
    taken.retain(|payload| payload.starts_with('a'));
    assert_eq!(taken, ["a1", "a2", "a3"]);
    assert_eq!(stage.outside.taken().len(), 5);
}

#[tokio::test]
async fn an_output_refused_for_good_is_a_dead_letter_and_its_event_is_settled() {
    let mut stage = emitting();
    stage.outside.becomes(|payload, _| match payload {
        "a1" => Reply::Refuse,
        _ => Reply::Take,
    });
    stage.start().await;
    stage.send_many(&["a1", "a2"], "a").await;
    stage.until_settled().await;
    assert_eq!(stage.outside.taken(), ["a2"]);
    let dead = stage.until_dead(1).await;
    assert_eq!(dead[0].reason, Reason::OutputRefused);
    assert_eq!(&dead[0].message.payload[..], b"a1");
    let redriven = stage.ledger().redrive(vec![dead[0].id]).await.unwrap();
    assert_eq!(redriven, [], "it took effect: it must never run again");
}

#[tokio::test]
async fn what_an_earlier_host_left_is_published_first_under_the_same_id() {
    let mut stage = emitting();
    let gate = Gate::shut();
    let reply = gate.clone();
    // The broker has it, but its answer never comes.
    stage.outside.becomes(move |payload, _| match payload {
        "a1" => Reply::TakeAt(reply.clone()),
        _ => Reply::Take,
    });
    stage.start().await;
    stage.send("a1", "a").await;
    stage.until("a try", |stage| stage.outside.tries("a1") == 1).await;
    stage.send("a2", "a").await;
    stage.until("commit", |stage| stage.counts().committed == 2).await;
    stage.crash().await;
    gate.open();
    stage.start().await;
    stage.send("a3", "a").await;
    stage.until_settled().await;
    assert_eq!(stage.outside.taken(), ["a1", "a2", "a3"]);
    assert_eq!(
        stage.plugin.called(),
        ["a1", "a2", "a3"],
        "committed: it is not run again"
    );
    assert!(stage.outside.ids()[0].ends_with("-0"), "{:?}", stage.outside.ids());
}

#[tokio::test]
async fn a_drain_says_how_many_wait_for_confirmation() {
    let mut stage = emitting();
    stage.outside.becomes(|_, _| Reply::TakeAt(Gate::shut()));
    stage.start().await;
    stage.send_many(&["a1", "a2"], "a").await;
    stage.until("commits", |stage| stage.counts().committed == 2).await;
    let left = stage.stop_within(Duration::from_millis(100)).await;
    assert_eq!((left.unconfirmed, left.unfinished), (2, 0));
    stage.outside.becomes(|_, _| Reply::Take);
    stage.start().await;
    stage.until_settled().await;
    stage
        .until("publication", |stage| stage.outside.taken() == ["a1", "a2"])
        .await;
    assert_eq!(stage.plugin.called(), ["a1", "a2"]);
}

/// One output that its broker can't take for now once slowed down all others of its stream.
#[tokio::test]
async fn outputs_of_other_keys_do_not_wait_for_one_that_fails() {
    let mut stage = emitting();
    stage.outside.becomes(|payload, _| match payload == "bad" {
        true => Reply::Fail,
        false => Reply::Take,
    });
    stage.start().await;
    stage.send("bad", "bad").await;
    let begun = Clock::system().now();
    for number in 0..40 {
        let id = format!("a{number}");
        stage.send(&id, "a").await;
        stage.until("publication", |stage| stage.outside.tries(&id) == 1).await;
    }
    let taken = Clock::system().now() - begun;
    assert!(taken < Duration::from_secs(12), "{taken:?}");
    stage.outside.becomes(|_, _| Reply::Take);
    stage.until_settled().await;
}

/// Nothing but the log and a counter said so: readiness had no word of outputs that wait.
#[tokio::test]
async fn a_stream_says_why_outputs_wait_until_none_that_failed_is_left() {
    let mut stage = emitting();
    stage.outside.becomes(|payload, _| match payload.starts_with("bad") {
        true => Reply::Fail,
        false => Reply::Take,
    });
    stage.start().await;
    stage.send("a1", "a").await;
    stage.until_settled().await;
    assert_eq!(stage.trouble(), None);
    stage.send("bad", "bad").await;
    stage.until("the word", |stage| stage.trouble().is_some()).await;
    assert!(stage.trouble().is_some_and(|trouble| trouble.contains("it is away")));
    // Others go on, which mends nothing.
    stage.send("a2", "a").await;
    stage
        .until("publication", |stage| stage.outside.taken() == ["a1", "a2"])
        .await;
    assert!(stage.trouble().is_some());
    stage.outside.becomes(|_, _| Reply::Take);
    stage.until_settled().await;
    assert_eq!(stage.trouble(), None);
}
