//! The power goes with the host: what was not synced is gone.

use tidegate::crash::Point;
use tidegate_tests::disk::{Disk, Loss};
use tidegate_tests::host::until;

use super::stage::{Broker, Policy, Stage, is_quiet};
use super::traffic::{Kind, Traffic};
use super::{check, leading_to, nats};

const LOSSES: [Loss; 3] = [Loss::Everything, Loss::Bytes, Loss::Some(1)];

/// Where a power cut finds something that is written and not synced, or synced and not told.
const POINTS: [Point; 12] = [
    Point::StoreBegun,
    Point::StoreMade,
    Point::Committing,
    Point::Durable,
    Point::BetweenCommits,
    Point::Committed,
    Point::Published,
    Point::Parked,
    Point::BucketMade,
    Point::BucketForgotten,
    Point::Closing,
    Point::Closed,
];

async fn cut_at_points(name: &str, broker: &Broker) {
    let round = |(number, point): (usize, &Point)| {
        let mut round = leading_to(*point, broker)?;
        round.name = format!("cut-{}", round.name);
        round.loss = Some(LOSSES[number % LOSSES.len()]);
        Some(round)
    };
    check(name, POINTS.iter().enumerate().filter_map(round)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_power_is_cut_at_points_with_nats() {
    cut_at_points("power cuts, nats", &nats()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_power_is_cut_at_points_embedded() {
    cut_at_points("power cuts, embedded", &Broker::Embedded).await;
}

/// How many of the events that the ingress took were there after a power cut.
async fn kept(fsync: bool, loss: Loss) -> usize {
    let traffic = Traffic::of(40, |_| Kind::Late);
    let policy = Policy { attempts: 1_000, fsync };
    let stage = Stage::new(&Broker::Embedded, "accepted", &traffic, policy).await;
    let disk = Disk::forgetful(&stage.home);
    let host = stage.home.start_with(&disk.environment()).await.expect("it starts");
    stage.feed(&host).await;
    host.kill().await;
    disk.cut(loss);
    stage.configure(true);
    let host = stage.home.start().await;
    until("it has run what it has", async || {
        is_quiet(&host, |parked| parked == 0).await
    })
    .await;
    host.stop().await;
    stage.count().await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_accepted_is_there_after_a_power_cut() {
    for loss in LOSSES {
        assert_eq!(kept(true, loss).await, 40, "{loss:?}");
    }
}

/// The test of the test: a disk that forgets does make a difference to a host that does not wait for it.
#[tokio::test(flavor = "multi_thread")]
async fn without_fsync_a_power_cut_takes_what_was_accepted() {
    assert!(kept(false, Loss::Everything).await < 40);
}
