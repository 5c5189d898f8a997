//! Everything at once, from a seed: duplicates, failures, parked lanes, an unreliable broker and ledger, redrives, drains and
//! crashes. At the end every event has taken effect once, in the order of its key, and nothing is left in memory.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use super::handler::Answer;
use super::outside::Reply;
use super::stage::Stage;
use crate::outcome::Class;

const EVENTS: usize = 240;
const KEYS: u64 = 7;

/// A number that depends on the seed and the text only.
fn draw(seed: u64, text: &str, times: usize) -> u64 {
    xxhash_rust::xxh3::xxh3_64_with_seed(format!("{text} {times}").as_bytes(), seed) % 1_000
}

fn stage(seed: u64) -> Stage {
    let calls = AtomicUsize::new(0);
    let mut stage = Stage::new(move |event, attempt| {
        if draw(seed, "call", calls.fetch_add(1, Ordering::SeqCst)) < 20 {
            return Answer::NotRun;
        }
        // Some events fail for good, some in passing, some for long enough to be parked.
        if draw(seed, &event.id, 0) < 40 {
            return Answer::Fail(Class::Permanent);
        }
        match draw(seed, &event.id, attempt as usize) {
            0..100 => Answer::Fail(Class::Trap),
            100..160 => Answer::FailFor(Duration::from_millis(25)),
            _ => Answer::Emit(vec!["stock"]),
        }
    });
    stage
        .outside
        .becomes(move |payload, times| match draw(seed, payload, times) {
            0..100 => Reply::Fail,
            _ => Reply::Take,
        });
    stage.plan.retry.attempts = 50.try_into().unwrap();
    stage.plan.retry.park_after = Duration::from_millis(10);
    stage.plan.retry.park_over = 4.try_into().unwrap();
    stage.plan.retry.parked_max = 30.try_into().unwrap();
    stage.plan.budget.events = 24.try_into().unwrap();
    stage.plan.concurrency = 6.try_into().unwrap();
    stage
}

/// What was sent, by key, in order.
type Sent = BTreeMap<u64, Vec<String>>;

async fn send(stage: &mut Stage, seed: u64, sent: &mut Sent) {
    let mut crashes = 0;
    for number in 0..EVENTS {
        let id = format!("e{number}");
        let key = draw(seed, &id, 90) % KEYS;
        stage.send(&id, &key.to_string()).await;
        sent.entry(key).or_default().push(id.clone());
        let chance = draw(seed, &id, 91);
        if chance < 100 {
            stage.send(&id, &key.to_string()).await;
        }
        match chance {
            // A third crash might meet an event that was there at the first two, and bury it.
            0..15 if crashes < 2 => {
                crashes += 1;
                stage.crash().await;
            }
            0..25 => _ = stage.stop().await,
            25..35 => _ = stage.stop_within(Duration::ZERO).await,
            // In vain, but they come between.
            35..55 => {
                for dead in stage.dead().await {
                    stage.redrive(dead.id).await;
                }
                continue;
            }
            _ => continue,
        }
        stage.start().await;
    }
}

/// What took effect outside, by key, in order; what came twice under one id counts once.
fn effects(stage: &Stage, seed: u64) -> Sent {
    let mut seen = BTreeSet::new();
    let mut effects = Sent::new();
    for (payload, id) in stage.outside.taken().into_iter().zip(stage.outside.ids()) {
        if seen.insert(id) {
            let key = draw(seed, &payload, 90) % KEYS;
            effects.entry(key).or_default().push(payload);
        }
    }
    effects
}

async fn check(seed: u64) {
    let mut stage = stage(seed);
    stage.start().await;
    let mut sent = Sent::new();
    send(&mut stage, seed, &mut sent).await;
    let is_bad = |id: &String| draw(seed, id, 0) < 40;
    let bad: BTreeSet<String> = sent.values().flatten().filter(|id| is_bad(id)).cloned().collect();
    sent.values_mut().for_each(|ids| ids.retain(|id| !is_bad(id)));
    let count = |effects: &Sent| effects.values().map(Vec::len).sum::<usize>();
    let what = format!("every effect of seed {seed}");
    stage
        .until(&what, |stage| count(&effects(stage, seed)) >= count(&sent))
        .await;
    stage.until_idle().await;
    assert_eq!(effects(&stage, seed), sent, "seed {seed}");
    let dead = stage.dead().await.into_iter().map(|dead| dead.event.unwrap().1);
    assert_eq!(dead.collect::<BTreeSet<_>>(), bad, "seed {seed}");
    assert!(bad.len() > 3, "seed {seed} shows nothing");
}

#[tokio::test]
async fn every_event_takes_effect_once_in_the_order_of_its_key() {
    for seed in 1..=3 {
        check(seed).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_event_takes_effect_once_in_the_order_of_its_key_with_two_workers() {
    for seed in 116..=118 {
        check(seed).await;
    }
}
