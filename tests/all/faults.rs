//! Faults on real connections: the host's way to a real server goes through Toxiproxy, and the server itself is killed, frozen, filled
//! and changed under it. The host holds, says what it waits for, and goes on by itself; nothing is counted against an event.
//!
//! Publisher and receiver go around the proxy. Rounds are played several at once. `TIDEGATE_ROUNDS=10` plays so many of each fault: the
//! first as it stands here, the others with times, sizes and traffic by chance, from `TIDEGATE_SEED` on. `TIDEGATE_FAULT=Reset` plays one.

mod fault;
mod scene;
mod table;
mod trial;

use futures_util::stream::{self, StreamExt};
use tidegate_tests::toxiproxy::Toxiproxy;

use fault::Fault;
use table::Table;
use trial::Trial;

/// Rounds at once: they wait more than they compute.
const AT_ONCE: usize = 6;

fn number(name: &str) -> usize {
    match std::env::var(name) {
        Ok(text) => text.parse().expect("a number"),
        Err(_) => 1,
    }
}

async fn check(faults: &[Fault]) {
    let proxy = Toxiproxy::start();
    let wanted = std::env::var("TIDEGATE_FAULT").ok();
    let is_wanted = |fault: &Fault| wanted.as_ref().is_none_or(|wanted| *wanted == format!("{fault:?}"));
    let faults: Vec<Fault> = faults.iter().copied().filter(is_wanted).collect();
    let first = number("TIDEGATE_SEED");
    let rounds = first..first + number("TIDEGATE_ROUNDS");
    let trials = rounds.flat_map(|round| faults.iter().map(move |fault| Trial::new(*fault, round)));
    let playing = trials.map(async |trial| (trial.fault, trial.play(&proxy).await));
    let mut played = stream::iter(playing).buffer_unordered(AT_ONCE);
    let mut table = Table::default();
    while let Some((fault, found)) = played.next().await {
        table.add(fault, found);
    }
    println!("{table}");
    assert!(table.has(&faults), "{table}");
    assert!(table.is_clean(), "{table}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_connection_is_waited_for() {
    check(&Fault::OF_THE_CONNECTION).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_in_trouble_is_waited_for() {
    check(&Fault::OF_THE_SERVER).await;
}
