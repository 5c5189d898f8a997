//! The ledger's disk is full, read-only, does not sync, or is slow: the host holds, says so, and goes on by itself; nothing is counted
//! against an event. Here an attempt that is counted is a dead letter: there is only one for each event.

use tidegate_tests::disk::{Disk, Mode};
use tidegate_tests::host::{Host, until};

use super::findings::compare;
use super::nats;
use super::stage::{Broker, Policy, Stage, dead_letters, is_quiet};
use super::traffic::{Kind, Traffic};

const POLICY: Policy = Policy {
    attempts: 1,
    fsync: true,
};

fn all(count: usize) -> Traffic {
    Traffic::of(count, |_| Kind::Count)
}

/// The rest of so many.
fn rest(count: usize, from: usize) -> Traffic {
    Traffic(all(count).0.split_off(from))
}

async fn trouble(host: &Host<'_>) -> f64 {
    host.metric("tidegate_ledger_trouble ").await
}

async fn ledger_of_readyz(host: &Host<'_>) -> (u16, String) {
    let (status, body) = host.get("/readyz").await;
    let body: serde_json::Value = serde_json::from_str(&body).unwrap();
    (status, body["ledger"].as_str().unwrap_or_default().to_owned())
}

async fn clean(stage: &Stage, host: &Host<'_>, traffic: &Traffic) {
    let truth = traffic.truth(false);
    until("all is done", async || {
        stage.count().await >= truth.count() && is_quiet(host, |parked| parked == 0).await
    })
    .await;
    let tally = compare(&truth, &stage.outputs().await, &dead_letters(host).await);
    assert!(tally.is_clean(), "{tally}\n{}", host.log());
}

async fn check_refusing(mode: Mode, reason: &str) {
    let stage = Stage::new(&nats(), "disk", &all(20), POLICY).await;
    let disk = Disk::failing(&stage.home);
    let host = stage.home.start_with(&disk.environment()).await.expect("it starts");
    until("the first are done", async || {
        stage.count().await == 20 && is_quiet(&host, |_| true).await
    })
    .await;
    disk.set(mode);
    stage.add(&rest(40, 20)).await;
    until("it says what it waits for", async || {
        let (status, ledger) = ledger_of_readyz(&host).await;
        status == 503 && ledger.contains(reason) && trouble(&host).await == 2.0
    })
    .await;
    until("the log says it, too", async || host.log().contains(reason)).await;
    assert_eq!(host.get("/healthz").await.0, 200);
    assert_eq!(stage.count().await, 20);
    disk.set(Mode::Normal);
    clean(&stage, &host, &all(40)).await;
    assert_eq!(ledger_of_readyz(&host).await, (200, String::new()));
    assert_eq!(trouble(&host).await, 0.0);
    host.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_is_waited_for() {
    check_refusing(Mode::Full, "No space left on device").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_only_disk_is_waited_for() {
    check_refusing(Mode::ReadOnly, "Read-only file system").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_does_not_sync_is_waited_for() {
    check_refusing(Mode::NoSync, "Input/output error").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_disk_is_named_and_events_go_on() {
    let stage = Stage::new(&nats(), "slow", &all(20), POLICY).await;
    let disk = Disk::failing(&stage.home);
    let host = stage.home.start_with(&disk.environment()).await.expect("it starts");
    until("the first are done", async || {
        stage.count().await == 20 && is_quiet(&host, |_| true).await
    })
    .await;
    disk.set(Mode::Slow);
    stage.add(&rest(40, 20)).await;
    until("it says what it waits for", async || {
        let (status, ledger) = ledger_of_readyz(&host).await;
        status == 200 && ledger.contains("commits wait for the disk") && trouble(&host).await == 1.0
    })
    .await;
    until("the log says it, too", async || {
        host.log().contains("commits wait for the disk")
    })
    .await;
    clean(&stage, &host, &all(40)).await;
    disk.set(Mode::Normal);
    until("it is forgotten", async || trouble(&host).await == 0.0).await;
    assert_eq!(ledger_of_readyz(&host).await, (200, String::new()));
    host.stop().await;
}

/// The disk changes its mind while a client sends: what was taken is there, and what was refused is sent again.
#[tokio::test(flavor = "multi_thread")]
async fn what_the_ingress_took_between_refusals_is_there() {
    let traffic = Traffic::of(400, |_| Kind::Count);
    let stage = Stage::new(&Broker::Embedded, "flapping", &traffic, POLICY).await;
    let disk = Disk::failing(&stage.home);
    let host = stage.home.start_with(&disk.environment()).await.expect("it starts");
    let flapping = async {
        for mode in [Mode::Full, Mode::NoSync, Mode::ReadOnly, Mode::Full] {
            let before = stage.count().await;
            until("some are through", async || stage.count().await > before + 10).await;
            disk.set(mode);
            until("it is noticed", async || trouble(&host).await == 2.0).await;
            disk.set(Mode::Normal);
        }
    };
    tokio::join!(stage.feed(&host), flapping);
    clean(&stage, &host, &traffic).await;
    host.stop().await;
}
