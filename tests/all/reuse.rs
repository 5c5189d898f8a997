//! Instances that live for more than one event, where the consumer wants it.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "tests report by panicking, also from their helpers"
)]

use std::num::NonZeroU32;
use std::time::Duration;

use tidegate::outcome::Outcome;
use tidegate::plan::Instances;
use tidegate::plugin::Plugin;
use tidegate_tests::guests::build;
use tidegate_tests::plugins::{State, call, consumer, event, try_load};

async fn load(instances: Instances) -> Plugin {
    let mut consumer = consumer(build("hostile"));
    consumer.instances = instances;
    try_load(consumer).await.unwrap()
}

fn reuse(uses_max: u32, age_max: Duration) -> Instances {
    Instances::Reuse {
        uses_max: NonZeroU32::new(uses_max).unwrap(),
        age_max,
    }
}

/// How many events the instance had seen before this one.
async fn seen(plugin: &Plugin) -> String {
    let done = call(plugin, &event("leave-behind", "x"), &State::default()).await;
    assert_eq!(done.outcome, Outcome::Succeeded);
    assert_eq!(done.effects.outputs.len(), 1);
    let subject = done.effects.outputs[0].message.headers.get("subject");
    String::from_utf8(subject.unwrap().to_vec()).unwrap()
}

#[tokio::test]
async fn a_fresh_instance_knows_nothing_of_other_events() {
    let plugin = load(Instances::Fresh).await;
    assert_eq!(seen(&plugin).await, "0");
    assert_eq!(seen(&plugin).await, "0");
}

#[tokio::test]
async fn a_reused_instance_keeps_its_memory_but_no_effects() {
    let plugin = load(reuse(10, Duration::from_secs(600))).await;
    assert_eq!(seen(&plugin).await, "0");
    assert_eq!(seen(&plugin).await, "1");
    assert_eq!(seen(&plugin).await, "2");
}

#[tokio::test]
async fn an_instance_is_not_used_more_often_than_allowed() {
    let plugin = load(reuse(2, Duration::from_secs(600))).await;
    for expected in ["0", "1", "0", "1"] {
        assert_eq!(seen(&plugin).await, expected);
    }
}

#[tokio::test]
async fn an_instance_is_not_used_when_it_is_old() {
    let plugin = load(reuse(10, Duration::ZERO)).await;
    assert_eq!(seen(&plugin).await, "0");
    assert_eq!(seen(&plugin).await, "0");
}

#[tokio::test]
async fn a_trapped_instance_is_never_used_again() {
    let plugin = load(reuse(10, Duration::from_secs(600))).await;
    assert_eq!(seen(&plugin).await, "0");
    call(&plugin, &event("panic", ""), &State::default()).await;
    assert_eq!(seen(&plugin).await, "0");
}

#[tokio::test]
async fn an_instance_that_said_it_failed_is_used_again() {
    let plugin = load(reuse(10, Duration::from_secs(600))).await;
    assert_eq!(seen(&plugin).await, "0");
    call(&plugin, &event("no-such", ""), &State::default()).await;
    assert_eq!(seen(&plugin).await, "1");
}
