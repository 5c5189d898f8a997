//! What a plugin emits is published if and only if its event is committed, in the order of its key, always under the same id.

use super::handler::{Answer, Gate};
use super::outside::Reply;
use super::stage::{Stage, outside_stream};
use crate::outcome::{Class, Reason};
use crate::plan::SettleWhen;

async fn emitting() -> Stage {
    Stage::started(|_, _| Answer::Emit(vec!["stock"])).await
}

#[tokio::test]
async fn outputs_of_a_key_stay_in_order_through_failures() {
    let stage = emitting().await;
    stage
        .outside
        .becomes(|payload, tries| match payload == "a1" && tries < 3 {
            true => Reply::Fail,
            false => Reply::Take,
        });
    stage.send_many(&["a1", "a2", "a3"], "a").await;
    stage.send("b1", "b").await;
    stage.until_settled().await;
    let mut taken = stage.outside.taken();
    taken.retain(|payload| payload != "b1");
    assert_eq!(taken, ["a1", "a2", "a3"]);
    assert_eq!(stage.outside.tries("a1"), 3);
}

#[tokio::test]
async fn a_delivery_is_settled_when_its_outputs_are_confirmed() {
    let gate = Gate::shut();
    let stage = emitting().await;
    let at = gate.clone();
    stage.outside.becomes(move |_, _| Reply::TakeAt(at.clone()));
    stage.send("a1", "a").await;
    stage
        .until("the publication", |stage| stage.outside.tries("a1") == 1)
        .await;
    assert_eq!((stage.counts().committed, stage.lag()), (1, 1));
    gate.open();
    stage.until_settled().await;
}

#[tokio::test]
async fn settled_after_the_commit_if_told_so() {
    let gate = Gate::shut();
    let at = gate.clone();
    let mut stage = Stage::new(|_, _| Answer::Emit(vec!["stock"]));
    stage.plan.settle = SettleWhen::Committed;
    stage.outside.becomes(move |_, _| Reply::TakeAt(at.clone()));
    stage.start().await;
    stage.send("a1", "a").await;
    stage.until_settled().await;
    assert!(stage.outside.taken().is_empty());
    gate.open();
    stage.until("the output", |stage| stage.outside.taken() == ["a1"]).await;
}

#[tokio::test]
async fn what_an_earlier_host_left_is_published_first_under_the_same_id() {
    let mut stage = emitting().await;
    stage.outside.becomes(|_, _| Reply::Fail);
    stage.send("a1", "a").await;
    stage.until("a try", |stage| stage.outside.tries("a1") >= 1).await;
    stage.crash().await;
    stage.outside.becomes(|_, _| Reply::Take);
    stage.start().await;
    stage.send("a2", "a").await;
    stage.until("both", |stage| stage.outside.taken().len() == 2).await;
    assert_eq!(stage.outside.taken(), ["a1", "a2"]);
    assert_eq!(stage.plugin.called(), ["a1", "a2"], "the redelivery is a duplicate");
    let ids = stage.outside.ids();
    assert!(
        ids[0].ends_with("-0") && ids[1].ends_with("-0") && ids[0] != ids[1],
        "{ids:?}"
    );
}

#[tokio::test]
async fn an_output_that_is_refused_for_good_is_a_dead_letter_of_its_own() {
    let stage = emitting().await;
    stage.outside.becomes(|payload, _| match payload {
        "a1" => Reply::Refuse,
        _ => Reply::Take,
    });
    stage.send_many(&["a1", "a2"], "a").await;
    stage.until_settled().await;
    assert_eq!(stage.dead().await[0].reason, Reason::OutputRefused);
    assert_eq!(stage.outside.taken(), ["a2"]);
    assert_eq!(stage.counts().committed, 2);
}

#[tokio::test]
async fn a_dead_letter_is_published_too_if_told_so() {
    let mut stage = Stage::new(|_, _| Answer::Fail(Class::Permanent));
    stage.plan.dead_letter = Some(outside_stream("dead"));
    stage.start().await;
    stage.send_data("a1", "a", "{\"n\":1}").await;
    stage.until_settled().await;
    assert_eq!(stage.outside.taken(), ["{\"n\":1}"]);
    assert_eq!(stage.dead().await.len(), 1);
}

#[tokio::test]
async fn nothing_of_a_failed_attempt_is_published() {
    let stage = Stage::started(|_, attempt| match attempt {
        1 => Answer::Fail(Class::Trap),
        _ => Answer::Emit(vec!["stock", "stock"]),
    })
    .await;
    stage.send("a1", "a").await;
    stage.until_settled().await;
    assert_eq!(stage.outside.taken(), ["a1", "a1"]);
    assert_eq!(stage.counts().emitted, 2);
}
