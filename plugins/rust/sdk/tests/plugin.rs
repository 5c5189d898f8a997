//! What a plugin's own tests can rely on.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use tidegate_plugin::{Draft, EmitError, Event, Failure, config, context, log, state, testing};

#[derive(Serialize, Deserialize)]
struct Order {
    sku: String,
}

fn handle(event: Event) -> Result<(), Failure> {
    let order: Order = event.json()?;
    let count = state::bucket("orders")?.increment(&order.sku, 2)?;
    log::info!("{} orders of {}", count, order.sku);
    Draft::new("com.example.counted")
        .subject(&order.sku)
        .extension("partitionkey", &order.sku)
        .json(&order)?
        .emit()?;
    if context().attempt == 1 && config::get("flaky")?.is_some() {
        return Err(Failure::transient("not yet").retry_after(Duration::from_secs(2)));
    }
    Ok(())
}

tidegate_plugin::handler!(handle);

fn order(json: &str) -> Event {
    testing::reset();
    testing::event("com.example.order.placed", json)
}

#[test]
fn effects_of_a_success_are_seen() {
    testing::deliver(handle, order(r#"{"sku":"a"}"#)).unwrap();

    let emitted = testing::emitted();
    assert_eq!(emitted.len(), 1);
    assert_eq!(emitted[0].kind, "com.example.counted");
    assert_eq!(emitted[0].datacontenttype.as_deref(), Some("application/json"));
    assert_eq!(emitted[0].extensions[0].value, "a");
    assert_eq!(testing::state("orders")["a"], b"2");
    assert_eq!(testing::logged(), [(log::Level::Info, "2 orders of a".to_owned())]);
    assert!(testing::emitted().is_empty(), "the list is emptied by looking at it");
}

#[test]
fn effects_of_a_failure_vanish() {
    let event = order(r#"{"sku":"a"}"#);
    testing::set_config("flaky", "yes");
    let failure = testing::deliver(handle, event.clone()).unwrap_err();

    assert_eq!(
        failure,
        Failure::transient("not yet").retry_after(Duration::from_millis(2_000))
    );
    assert!(testing::emitted().is_empty());
    assert!(testing::state("orders").is_empty());

    testing::set_context(|context| context.attempt = 2);
    testing::deliver(handle, event).unwrap();
    assert_eq!(testing::emitted().len(), 1);
}

#[test]
fn data_that_does_not_parse_is_permanent() {
    let failure = handle(order(r#"{"sku":"#)).unwrap_err();

    assert!(
        matches!(&failure, Failure::Permanent(reason) if reason.contains("EOF")),
        "{failure:?}"
    );
}

#[test]
fn missing_route_may_be_mended_but_other_refusals_stay() {
    let refusals = [
        (EmitError::NoRoute("com.example.counted".into()), true),
        (EmitError::Invalid("bad extension name".into()), false),
        (EmitError::Limit("100 events".into()), false),
    ];
    for (refusal, transient) in refusals {
        let event = order(r#"{"sku":"a"}"#);
        testing::refuse_emits(refusal);
        let failure = handle(event).unwrap_err();
        assert_eq!(matches!(failure, Failure::Transient(_)), transient, "{failure:?}");
    }
}

#[test]
fn bucket_keeps_what_was_written() {
    testing::reset();
    let bucket = state::bucket("b").unwrap();
    for number in 0..11 {
        bucket.set_json(&format!("k{number:02}"), &number).unwrap();
    }
    bucket.delete("k05").unwrap();

    let keys: Vec<String> = bucket.keys().collect::<Result<_, _>>().unwrap();
    assert_eq!(keys.len(), 10, "more than one page: {keys:?}");
    assert!(bucket.exists("k04").unwrap() && !bucket.exists("k05").unwrap());
    assert_eq!(bucket.json::<u32>("k10").unwrap(), Some(10));
    assert_eq!(bucket.get("k05").unwrap(), None);
    assert!(state::bucket("other").unwrap().keys().next().is_none());

    bucket.set("text", "three").unwrap();
    assert!(bucket.increment("text", 1).is_err());
}

/// The recorder took an empty key, and the host, which does not, was asked again at every attempt.
#[test]
fn a_key_that_the_host_refuses_is_refused_for_good() {
    testing::reset();
    let bucket = state::bucket("").unwrap();
    for key in ["", &"k".repeat(1025)] {
        let refused = [
            bucket.get(key).map(drop),
            bucket.set(key, "v"),
            bucket.delete(key),
            bucket.exists(key).map(drop),
            bucket.increment(key, 1).map(drop),
            state::bucket(&"b".repeat(256)).map(drop),
        ];
        for refused in refused {
            let failure = Failure::from(refused.unwrap_err());
            assert!(matches!(failure, Failure::Permanent(_)), "{failure:?}");
        }
    }
    bucket.set(&"k".repeat(1024), "v").unwrap();
    assert_eq!(testing::state("default").len(), 1);
}
