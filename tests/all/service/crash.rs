//! Killed again and again, the host loses nothing, applies nothing twice and keeps the order of each key.

use std::collections::{BTreeMap, BTreeSet};

use tidegate_tests::host::{Home, Host, until};
use tidegate_tests::sink::Sink;

use super::through;

const KEYS: usize = 5;
const EVENTS: usize = 400;
const KILL_EVERY: usize = 130;

/// The n-th event counts its key one up and says the count.
async fn send(host: &Host<'_>, number: usize) {
    let key = format!("k{}", number % KEYS);
    let sent = host
        .send("state", &format!("e{number}"), &key, &format!("add {key} 1"))
        .await;
    assert_eq!(sent.unwrap(), 202);
}

#[tokio::test(flavor = "multi_thread")]
async fn each_event_takes_effect_once_and_in_order_over_kills() {
    let sink = Sink::start().await;
    let home = Home::new(&through(&sink.url()));
    let mut host = home.start().await;
    for number in 0..EVENTS {
        send(&host, number).await;
        // Every tenth comes again, as from a client that saw no answer.
        if number % 10 == 0 {
            send(&host, number).await;
        }
        if number % KILL_EVERY == KILL_EVERY - 1 {
            host.kill().await;
            host = home.start().await;
        }
    }
    let ids = || {
        sink.received()
            .into_iter()
            .map(|received| received.id)
            .collect::<BTreeSet<_>>()
    };
    until("every output", async || ids().len() >= EVENTS).await;
    host.stop().await;

    let mut seen = BTreeSet::new();
    let mut counts = BTreeMap::<usize, Vec<String>>::new();
    for received in sink.received() {
        if seen.insert(received.id.clone()) {
            let number: usize = received.cause.trim_start_matches('e').parse().unwrap();
            counts.entry(number % KEYS).or_default().push(received.data);
        }
    }
    let expected: Vec<String> = (1..=EVENTS / KEYS).map(|count| format!("Ok({count})")).collect();
    assert_eq!(counts.len(), KEYS);
    for (key, counts) in counts {
        assert_eq!(counts, expected, "key {key}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_committed_is_published_after_a_kill_even_if_the_receiver_was_away() {
    let sink = Sink::start().await;
    sink.answer(503);
    let home = Home::new(&through(&sink.url()));
    let host = home.start().await;
    for number in 0..KEYS {
        send(&host, number).await;
    }
    until("all are committed", async || {
        host.deliveries("plain", "committed").await == KEYS as f64
    })
    .await;
    host.kill().await;
    sink.answer(204);
    let host = home.start().await;
    until("all are published", async || sink.received().len() == KEYS).await;
    host.stop().await;
    assert!(
        sink.received().iter().all(|received| received.data == "Ok(1)"),
        "{sink:?}"
    );
}
