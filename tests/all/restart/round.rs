//! A round: a host starts, dies where it is told to, starts again, and comes to the end; then what came of the events is counted.

use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::Duration;

use tidegate::crash::Point;
use tidegate_tests::disk::{Disk, Loss, ahead};
use tidegate_tests::host::{Host, comes, until};

use super::findings::{Tally, compare};
use super::stage::{Broker, Policy, Stage, dead_letters, is_quiet};
use super::traffic::{Traffic, Truth};

const SIGKILL: i32 = 9;
/// How long the last host may take for what is left.
const PATIENCE: Duration = Duration::from_secs(40);

/// How a host dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Crash {
    /// When it comes to a point for the n-th time.
    At(Point, u32),
    /// The same, but after this time at the latest.
    Around(Point, u32, Duration),
}

/// What hosts do before they die and after.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Course {
    /// Events run.
    Run,
    /// All have run, and it is told to stop.
    Stop,
    /// All have run; what is dead is put back.
    Redrive,
    /// One key waits, and two hours later the records of the others are forgotten.
    Forget,
}

/// A round.
#[derive(Clone)]
pub(super) struct Round {
    pub(super) name: String,
    pub(super) broker: Broker,
    pub(super) traffic: Traffic,
    pub(super) course: Course,
    /// One host after the other dies so.
    pub(super) crashes: Vec<Crash>,
    /// Whether the power goes with each.
    pub(super) loss: Option<Loss>,
}

type Environment = Vec<(&'static str, String)>;

impl Round {
    pub(super) async fn play(&self) -> Tally {
        let attempts = match self.course {
            Course::Forget => 1_000,
            _ => 4,
        };
        let policy = Policy { attempts, fsync: true };
        let stage = Stage::new(&self.broker, &self.name, &self.traffic, policy).await;
        let disk = self.loss.map(|_| Disk::forgetful(&stage.home));
        self.prepare(&stage).await;
        for crash in &self.crashes {
            self.life(&stage, *crash, disk.as_ref()).await;
            if let (Some(disk), Some(loss)) = (&disk, self.loss) {
                disk.cut(loss);
            }
        }
        self.last(&stage).await
    }

    fn environment(&self, disk: Option<&Disk>) -> Environment {
        let mut environment = disk.map(Disk::environment).unwrap_or_default();
        if self.course == Course::Forget {
            environment.extend(ahead(2 * 3600));
        }
        environment
    }

    /// What must be there before the first host that dies.
    async fn prepare(&self, stage: &Stage) {
        if !matches!(self.course, Course::Redrive | Course::Forget) {
            return;
        }
        let host = stage.home.start().await;
        stage.feed(&host).await;
        let truth = self.traffic.truth(false);
        let waits = self.course == Course::Forget;
        until("what can be done is done", async || {
            is_done(stage, &host, &truth, |parked| (parked > 0) == waits).await
        })
        .await;
        host.stop().await;
        // What waits goes on waiting until the last host.
        stage.configure(self.course == Course::Redrive);
    }

    async fn life(&self, stage: &Stage, crash: Crash, disk: Option<&Disk>) {
        let mut environment = self.environment(disk);
        let (Crash::At(point, time) | Crash::Around(point, time, _)) = crash;
        environment.push(("TIDEGATE_CRASH_AT", format!("{}:{time}", point.name())));
        let host = match stage.home.start_with(&environment).await {
            Ok(host) => host,
            Err(ended) => return self.died(crash, ended.status, &ended.log),
        };
        match crash {
            Crash::At(..) => self.lead(stage, &host).await,
            Crash::Around(_, _, time) => {
                let feeding = async {
                    stage.feed(&host).await;
                    std::future::pending::<()>().await;
                };
                // The time is the crash's own: there is nothing else to wait for.
                let _ = tokio::time::timeout(time, feeding).await;
                host.signal("-KILL");
            }
        }
        let (status, _, log) = host.ended().await;
        self.died(crash, status, &log);
    }

    /// Brings a host to where it dies.
    async fn lead(&self, stage: &Stage, host: &Host<'_>) {
        stage.feed(host).await;
        match self.course {
            Course::Run | Course::Forget => {}
            Course::Stop => {
                let truth = self.traffic.truth(false);
                until("all is done", async || {
                    is_done(stage, host, &truth, |parked| parked == 0).await
                })
                .await;
                host.signal("-TERM");
            }
            // It dies of it, and can't answer.
            Course::Redrive => _ = host.ask(&["dlq", "redrive", "--all"]).await,
        }
    }

    fn died(&self, crash: Crash, status: ExitStatus, log: &str) {
        let name = &self.name;
        assert_eq!(status.signal(), Some(SIGKILL), "{name}: {crash:?}: {status}\n{log}");
        if let Crash::At(point, _) = crash {
            let last = format!("crash point {}", point.name());
            assert!(log.contains(&last), "{name}: it died elsewhere\n{log}");
        }
    }

    /// The host that lives.
    async fn last(&self, stage: &Stage) -> Tally {
        let is_open = matches!(self.course, Course::Redrive | Course::Forget);
        stage.configure(is_open);
        let host = stage.home.start_with(&self.environment(None)).await;
        let host = host.unwrap_or_else(|ended| panic!("{}: it does not start again\n{}", self.name, ended.log));
        stage.feed(&host).await;
        if self.course == Course::Redrive {
            let said = host.ask(&["dlq", "redrive", "--all"]).await;
            assert_eq!(said.code, Some(0), "{}", said.stderr);
        }
        let truth = self.traffic.truth(is_open);
        // What does not come is counted below.
        comes(PATIENCE, async || {
            is_done(stage, &host, &truth, |parked| parked == 0).await
        })
        .await;
        let dead = dead_letters(&host).await;
        let log = host.log();
        host.stop().await;
        let tally = compare(&truth, &stage.outputs().await, &dead);
        if !tally.is_clean() {
            eprintln!("{} {:?}: {tally}\n{log}", self.name, self.crashes);
        }
        tally
    }
}

async fn is_done(stage: &Stage, host: &Host<'_>, truth: &Truth, parked: impl Fn(i64) -> bool) -> bool {
    stage.count().await >= truth.count()
        && dead_letters(host).await.len() == truth.dead.len()
        && is_quiet(host, parked).await
}
