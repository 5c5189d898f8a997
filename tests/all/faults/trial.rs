//! A round: events flow, a fault begins in the middle of them, the host says so, the fault ends, and everything comes to rest by itself.

use std::time::Duration;

use serde_json::Value;
use tidegate::clock::Clock;
use tidegate_tests::chance::Chance;
use tidegate_tests::host::{Host, comes};
use tidegate_tests::servers::Nats;
use tidegate_tests::toxiproxy::Toxiproxy;

use super::fault::{Fault, Sign};
use super::scene::Scene;
use crate::restart::findings::{Tally, compare};
use crate::restart::stage::{Policy, dead_letters, is_quiet};
use crate::restart::traffic::{Kind, Traffic, Truth};

/// How long everything may take to come to rest.
const PATIENCE: Duration = Duration::from_secs(90);

pub(super) struct Trial {
    pub(super) fault: Fault,
    name: String,
    traffic: Traffic,
    policy: Policy,
    /// How many are published before the host starts, how many of these it does before the fault, and how many are published when the
    /// fault has begun. The rest is published when it is over.
    parts: (usize, usize, usize),
    /// How long the fault goes on after it was said.
    hold: Duration,
}

/// What was found.
#[derive(Default)]
pub(super) struct Found {
    pub(super) tally: Tally,
    /// How long it took until the host said what it waits for.
    pub(super) said_after: Option<Duration>,
}

impl Trial {
    pub(super) fn new(fault: Fault, round: usize) -> Self {
        let name = format!("{fault:?}-{round}").to_lowercase();
        let plain = |count| Traffic::of(count, |_| Kind::Count);
        // Whatever counts as an attempt makes a dead letter of it.
        let once = Policy {
            attempts: 1,
            fsync: true,
        };
        if round == 1 {
            return Self {
                fault,
                name,
                traffic: plain(300),
                policy: once,
                parts: (100, 20, 100),
                hold: Duration::ZERO,
            };
        }
        let mut chance = Chance::seeded((round * 100 + fault as usize) as u64);
        let (first, second) = (60 + chance.below(200), 60 + chance.below(200));
        let count = first + second + chance.below(200);
        let (traffic, policy) = match chance.toss() {
            true => (plain(count), once),
            false => (Traffic::mixed(count), Policy { attempts: 4, ..once }),
        };
        Self {
            fault,
            name,
            traffic,
            policy,
            parts: (first, 1 + chance.below(first / 2), second),
            hold: Duration::from_millis(chance.below(6_000) as u64),
        }
    }

    pub(super) async fn play(&self, proxy: &Toxiproxy) -> Found {
        let fault = self.fault;
        let (first, done, second) = self.parts;
        let part = |from, to| Traffic(self.traffic.0[from..to].to_vec());
        let (first, second, third) = (
            part(0, first),
            part(first, first + second),
            part(first + second, self.traffic.0.len()),
        );
        let mut server = Nats::with_config(&fault.server());
        let scene = Scene::new(proxy, &server, &self.name, (&first, self.policy)).await;
        let host = scene.stage.home.start().await;
        scene.expect(first.truth(false).count());
        if fault.takes_outputs() {
            self.rest(&scene, &host, &first.truth(false)).await;
            scene.keep().await;
        } else {
            scene.some_done(&host, done).await;
        }
        let both = [first.0.as_slice(), &second.0].concat();
        scene.expect(Traffic(both).truth(false).count());

        let mark = Mark {
            log: host.log().len(),
            errors: publish_errors(&host).await,
        };
        let clock = Clock::system();
        fault.begin(&mut server, &scene).await;
        let begun = clock.now();
        let feeding = async {
            if !fault.takes_inputs() {
                scene.stage.add(&second).await;
            }
        };
        let failing = async {
            let is_said = async || mark.says(&host, fault.sign()).await;
            let said_after = match fault.sign() {
                Sign::Reading(_) | Sign::Writing(_) => {
                    scene.until(&host, "the sign", is_said).await;
                    Some(clock.now() - begun)
                }
                Sign::None | Sign::Log(_) => None,
            };
            fault.last(&scene, &host).await;
            scene.until(&host, "the sign", is_said).await;
            // The time is the fault's own: there is nothing else to wait for.
            tokio::time::sleep(self.hold).await;
            fault.end(&mut server, &scene, &host).await;
            said_after
        };
        let ((), said_after) = tokio::join!(feeding, failing);
        if fault.takes_inputs() {
            scene.stage.add(&first).await;
            scene.stage.add(&second).await;
        }
        scene.stage.add(&third).await;

        let truth = self.traffic.truth(false);
        // What does not come is counted below.
        self.rest(&scene, &host, &truth).await;
        let mut tally = compare(&truth, &scene.outputs().await, &dead_letters(&host).await);
        tally.unexpected += self.attempts_astray(&host, &truth).await;
        tally.unexpected += usize::from(!is_well(&host).await);
        let log = host.log();
        host.stop().await;
        if !tally.is_clean() {
            eprintln!("{}: {tally}\n{log}", self.name);
        }
        Found { tally, said_after }
    }

    /// Waits until nothing is under way any more.
    async fn rest(&self, scene: &Scene, host: &Host<'_>, truth: &Truth) {
        comes(PATIENCE, async || {
            scene.count().await >= truth.count()
                && dead_letters(host).await.len() == truth.dead.len()
                && is_quiet(host, |parked| parked == 0).await
                && is_well(host).await
        })
        .await;
    }

    /// How many attempts were more or fewer than what the events need.
    async fn attempts_astray(&self, host: &Host<'_>, truth: &Truth) -> usize {
        let fails = |kind| match kind {
            Kind::Flaky => 2,
            Kind::Bad => 1,
            Kind::Hopeless => self.policy.attempts as usize,
            _ => 0,
        };
        let to_fail: usize = self.traffic.0.iter().map(|event| fails(event.kind)).sum();
        let (_, text) = host.get("/metrics").await;
        let (mut succeeded, mut failed) = (0, 0);
        for line in text.lines().filter(|line| line.starts_with("tidegate_attempts_total{")) {
            let count: usize = line.rsplit(' ').next().unwrap().parse().expect("a count");
            match line.contains("outcome=\"succeeded\"") {
                true => succeeded += count,
                false => failed += count,
            }
        }
        let astray = succeeded.abs_diff(truth.count()) + failed.abs_diff(to_fail);
        if astray > 0 {
            eprintln!(
                "{}: {succeeded} attempts succeeded and {failed} failed of {} and {to_fail}",
                self.name,
                truth.count()
            );
        }
        astray
    }
}

/// What was before the fault.
struct Mark {
    /// The length of the log.
    log: usize,
    errors: f64,
}

impl Mark {
    /// Whether the host shows the sign, everywhere where it should.
    async fn says(&self, host: &Host<'_>, sign: Sign) -> bool {
        let is_logged = |text: &str| host.log().get(self.log..).is_some_and(|log| log.contains(text));
        match sign {
            Sign::None => true,
            Sign::Log(text) => is_logged(text),
            Sign::Reading(text) => {
                let (status, body) = readyz(host).await;
                let consumer = &body["consumers"][0];
                status == 503
                    && consumer["trouble"]
                        .as_str()
                        .is_some_and(|trouble| trouble.contains(text))
                    && host.metric("tidegate_subscribed{").await == 0.0
                    && is_logged(text)
            }
            Sign::Writing(text) => {
                let (_, body) = readyz(host).await;
                let stream = &body["streams"][0];
                stream["stream"] == "out"
                    && stream["trouble"].as_str().is_some_and(|trouble| trouble.contains(text))
                    && publish_errors(host).await > self.errors
                    && is_logged(text)
            }
        }
    }
}

async fn readyz(host: &Host<'_>) -> (u16, Value) {
    let (status, body) = host.get("/readyz").await;
    (status, serde_json::from_str(&body).expect("JSON"))
}

async fn publish_errors(host: &Host<'_>) -> f64 {
    host.metric("tidegate_publish_errors_total{stream=\"out\"}").await
}

/// Whether the host says that nothing is wrong.
async fn is_well(host: &Host<'_>) -> bool {
    let (status, body) = host.get("/readyz").await;
    status == 200 && !body.contains("trouble")
}
