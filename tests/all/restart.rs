//! The host dies at every place where something is half done, at any time, and with the power; it starts again, and nothing is lost,
//! nothing applied twice, each key in order, no event both dead and applied.
//!
//! Rounds are played several at once, each with a home of its own. `TIDEGATE_ROUNDS=100` plays so many at random on each broker.

mod disk;
pub(crate) mod findings;
mod power;
mod round;
pub(crate) mod stage;
pub(crate) mod traffic;

use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{self, StreamExt};
use tidegate::crash::Point;
use tidegate_tests::chance::Chance;
use tidegate_tests::disk::Loss;
use tidegate_tests::servers::Nats;

use findings::Tally;
use round::{Course, Crash, Round};
use stage::Broker;
use traffic::{Kind, Traffic};

/// Rounds at once: they wait more than they compute.
const AT_ONCE: usize = 4;

/// The rounds that lead to a point; none where a broker never comes by it.
fn leading_to(point: Point, broker: &Broker) -> Option<Round> {
    let is_embedded = matches!(broker, Broker::Embedded);
    let mut round = Round {
        name: point.name().to_owned(),
        broker: broker.clone(),
        traffic: Traffic::mixed(120),
        course: Course::Run,
        crashes: vec![Crash::At(point, 1)],
        loss: None,
    };
    let later = |time| vec![Crash::At(point, time)];
    match point {
        Point::Appending | Point::Appended if !is_embedded => return None,
        Point::Trimming | Point::Trimmed if !is_embedded => return None,
        Point::Trimming | Point::Trimmed => round.traffic = Traffic::of(60, |_| Kind::Large),
        // Somewhere in the middle.
        Point::Appending | Point::Appended | Point::Committed | Point::Committing => round.crashes = later(40),
        Point::Durable | Point::BetweenCommits | Point::Attempted => round.crashes = later(20),
        Point::Publishing | Point::Published | Point::Confirmed => round.crashes = later(10),
        Point::Settling | Point::Settled | Point::Parked => round.crashes = later(3),
        // Only what an earlier host may have died of has a record of its beginning.
        Point::Begun => round.crashes = vec![Crash::At(Point::Attempted, 3), Crash::At(point, 1)],
        Point::Redriving | Point::Redriven => {
            round.course = Course::Redrive;
            round.traffic = Traffic::of(40, |number| if number % 3 == 0 { Kind::Wanted } else { Kind::Count });
        }
        Point::BucketCarried | Point::BucketDropping | Point::BucketForgotten | Point::BucketDropped => {
            round.course = Course::Forget;
            round.traffic = Traffic::one_late(60);
        }
        Point::Drained | Point::Closing | Point::Closed => {
            round.course = Course::Stop;
            round.traffic = Traffic::mixed(40);
        }
        Point::StoreBegun
        | Point::StoreMade
        | Point::Taken
        | Point::Marked
        | Point::Buried
        | Point::Parking
        | Point::Loaded
        | Point::BucketMade => {}
    }
    Some(round)
}

/// Plays rounds, several at once, and adds up what was found.
async fn play(rounds: impl IntoIterator<Item = Round>) -> Tally {
    let playing = rounds.into_iter().map(async |round| round.play().await);
    let mut played = stream::iter(playing).buffer_unordered(AT_ONCE);
    let mut whole = Tally::default();
    while let Some(tally) = played.next().await {
        whole += tally;
    }
    whole
}

async fn check(name: &str, rounds: impl IntoIterator<Item = Round>) {
    let tally = play(rounds).await;
    let rule = " --: |".repeat(Tally::COLUMNS.split('|').count());
    println!(
        "| killed | {} |\n| --- |{rule}\n| {name} | {} |",
        Tally::COLUMNS,
        tally.cells()
    );
    assert!(tally.rounds > 0 && tally.events > 0);
    assert!(tally.is_clean(), "{name}: {tally}");
}

fn nats() -> Broker {
    Broker::Nats(Arc::new(Nats::start()))
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_every_point_with_nats() {
    let nats = nats();
    check(
        "each point, nats",
        Point::ALL.iter().filter_map(|point| leading_to(*point, &nats)),
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_every_point_embedded() {
    let embedded = Broker::Embedded;
    check(
        "each point, embedded",
        Point::ALL.iter().filter_map(|point| leading_to(*point, &embedded)),
    )
    .await;
}

/// A round at random: one or two crashes at random places and times, on disks that forget or not. On the embedded broker every sixth
/// has so much in it that the engine has work of its own to die in.
fn random(number: usize, broker: &Broker) -> Round {
    let seed = number as u64;
    let mut chance = Chance::seeded(seed);
    let is_heavy = matches!(broker, Broker::Embedded) && number % 6 == 3;
    let traffic = match is_heavy {
        true => Traffic::of(160, |_| Kind::Huge),
        false => Traffic::mixed(100 + chance.below(100)),
    };
    let mut crash = || {
        let point = Point::ALL[chance.below(Point::ALL.len())];
        let (times, latest_ms) = if is_heavy { (160, 8_000) } else { (40, 2_000) };
        let time = u32::try_from(1 + chance.below(times)).expect("it is small");
        let latest = Duration::from_millis(50 + chance.below(latest_ms) as u64);
        Crash::Around(point, time, latest)
    };
    let mut crashes = vec![crash()];
    // An event that three hosts died of would be a dead letter, rightly.
    if number.is_multiple_of(2) {
        crashes.push(crash());
    }
    let loss = [None, Some(Loss::Everything), Some(Loss::Bytes), Some(Loss::Some(seed))];
    Round {
        name: format!("random-{number}"),
        broker: broker.clone(),
        traffic,
        course: Course::Run,
        crashes,
        loss: loss[chance.below(loss.len())],
    }
}

/// How many rounds are played at random on each broker, and from which on.
fn at_random() -> std::ops::Range<usize> {
    let number = |name: &str, default| match std::env::var(name) {
        Ok(text) => text.parse().expect("a number"),
        Err(_) => default,
    };
    let first = number("TIDEGATE_SEED", 1);
    first..first + number("TIDEGATE_ROUNDS", 6)
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_random_with_nats() {
    let nats = nats();
    check("at random, nats", at_random().map(|number| random(number, &nats))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_random_embedded() {
    check(
        "at random, embedded",
        at_random().map(|number| random(number, &Broker::Embedded)),
    )
    .await;
}
