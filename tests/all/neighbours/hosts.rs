//! Restarts, shutdowns and starts.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::SystemTime;

use tidegate_tests::host::{Home, until};
use tidegate_tests::sink::Sink;

use super::{embedded, failed, send};
use crate::service::through;

/// Counted in memory, an event was tried 184 times and never became a dead letter.
#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_fails_over_restarts_has_its_attempts_and_no_more() {
    let home = Home::new(&embedded(
        "plain",
        "grants = { state = true, config = {} }\nretry = { attempts = 7, backoff = \"1ms..10ms\" }",
    ));
    let host = home.start().await;
    send(&host, "state", 0..1, "attempt 99").await;
    until("two attempts", async || failed(&host).await >= 2.0).await;
    host.kill().await;
    let host = home.start().await;
    until("two more", async || failed(&host).await >= 2.0).await;
    host.kill().await;
    let host = home.start().await;
    until("the dead letter", async || {
        host.deliveries("plain", "dead").await == 1.0
    })
    .await;
    assert!(
        failed(&host).await <= 3.0,
        "the attempts before the kills were forgotten"
    );
    let dead = host.ask(&["dlq", "list", "--json"]).await.json();
    assert_eq!(dead[0]["failed"], 7, "{dead:?}");
    assert_eq!(dead[0]["reason"], "attempts-exhausted", "{dead:?}");
    host.stop().await;
}

/// On SIGTERM, healthy events that were queued went to the dead letters; in a rebalance, 10,433 were lost.
#[tokio::test(flavor = "multi_thread")]
async fn a_shutdown_hands_back_what_is_queued_and_neither_buries_nor_loses_it() {
    const EVENTS: u32 = 60;
    let sink = Sink::start().await;
    let home = Home::new(&through(&sink.url()).replace("retry =", "concurrency = 2\nretry ="));
    let host = home.start().await;
    send(&host, "state", 0..EVENTS, "wait 40\nadd n 1").await;
    until("some are done", async || {
        host.deliveries("plain", "committed").await >= 5.0
    })
    .await;
    host.signal("-TERM");
    let (status, report, log) = host.ended().await;
    assert!(status.success(), "{log}");
    let report = report.unwrap();
    let left = report["left"]["plain"]["handed_back"].as_u64();
    assert!(left.is_some_and(|left| left > 0), "nothing was queued: {report}");

    let host = home.start().await;
    until("all", async || sink.received().len() >= EVENTS as usize).await;
    assert!(host.ask(&["dlq", "list", "--json"]).await.json().is_empty());
    host.stop().await;
    // Of each, one output.
    let mut causes: Vec<_> = sink.received().into_iter().map(|received| received.cause).collect();
    let mut expected: Vec<_> = (0..EVENTS).map(|number| format!("e{number}")).collect();
    causes.sort();
    expected.sort();
    assert_eq!(causes, expected);
}

/// Plugins were compiled again at each start: seconds for those in JavaScript and Python.
#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_is_compiled_once_and_not_at_each_start() {
    let home = Home::new(&embedded("plain", "grants = { state = true, config = {} }"));
    let cache = home.path().join("compiled");
    let mut seen = BTreeMap::new();
    for start in 0..3 {
        let environment = [("CACHE", cache.display().to_string())];
        let host = home.start_with(&environment).await.unwrap();
        send(&host, "state", start..start + 1, "add n 1").await;
        until("it", async || host.deliveries("plain", "committed").await == 1.0).await;
        host.stop().await;
        let compiled = compiled(&cache);
        assert!(!compiled.is_empty(), "nothing was kept");
        if start > 0 {
            assert_eq!(compiled, seen, "it was compiled again");
        }
        seen = compiled;
    }
}

/// The engine's artifacts with the time of their writing; beside them it notes how often each was used.
fn compiled(folder: &Path) -> BTreeMap<String, SystemTime> {
    let mut found = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_none() {
                let written = path.metadata().unwrap().modified().unwrap();
                found.insert(path.display().to_string(), written);
            }
        }
    }
    found
}
