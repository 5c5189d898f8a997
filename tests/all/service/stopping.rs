//! SIGTERM drains; a second one ends the host at once; either way the events that had not ended run again.

use tidegate_tests::host::{Home, until};

use super::hostile;

/// An event that runs for as long as it may, under a host that gives it a moment when it stops.
fn endless() -> Home {
    Home::new(&hostile())
}

async fn in_flight(host: &tidegate_tests::host::Host<'_>) -> f64 {
    host.metric("tidegate_in_flight{").await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_runs_longer_than_the_grace_time_is_reported_and_runs_again() {
    let home = endless();
    let config = hostile().replace("limits = { time = \"30s\" }", "limits = { time = \"2s\" }");
    let file = home.path().join("tidegate.toml");
    let whole = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, format!("{whole}grace = \"100ms\"\n")).unwrap();
    let host = home.start().await;
    for (id, key) in [("e1", "a"), ("e2", "a"), ("e3", "a")] {
        assert_eq!(host.send("loop", id, key, "").await.unwrap(), 202);
    }
    until("all are taken", async || in_flight(&host).await == 3.0).await;
    host.signal("-TERM");
    let (status, report, log) = host.ended().await;
    assert!(status.success(), "{log}");
    let left = &report.unwrap()["left"]["hostile"];
    assert_eq!(left["unfinished"], 1, "{left}");
    assert_eq!(left["handed_back"], 2, "{left}");
    // The next host has them again, and lets them come to their end.
    home.configure(&config);
    let host = home.start().await;
    until("all are dead", async || host.deliveries("hostile", "dead").await == 3.0).await;
    let dead = host.ask(&["dlq", "list", "--json"]).await.json();
    assert!(dead.iter().all(|dead| dead["reason"] == "time-limit"), "{dead:?}");
    host.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_signal_ends_it_at_once_and_nothing_is_lost() {
    let home = endless();
    let host = home.start().await;
    assert_eq!(host.send("loop", "e1", "a", "").await.unwrap(), 202);
    until("it is taken", async || in_flight(&host).await == 1.0).await;
    host.signal("-TERM");
    until("it drains", async || host.log().contains("draining")).await;
    host.signal("-INT");
    let (status, _, log) = host.ended().await;
    assert_eq!(status.code(), Some(1), "{log}");
    assert!(log.contains("a second signal came"), "{log}");
    home.configure(&hostile().replace("time = \"30s\"", "time = \"50ms\""));
    let host = home.start().await;
    until("it is dead", async || host.deliveries("hostile", "dead").await == 1.0).await;
    host.stop().await;
}
