//! Judges attempts that ended, and says what is to be written of each.

use std::time::Duration;

use tokio::time::Instant;

use super::attempt::Finished;
use super::breaker::Phase;
use super::commit::{Step, Then};
use super::dispatch::Dispatcher;
use super::job::Job;
use super::letter;
use super::verdict::{Verdict, verdict};
use crate::crash::{self, Point};
use crate::ledger::{Change, Effects};
use crate::outcome::{Attempt, Class, Failure, Outcome, Reason};

/// How long an event waits whose attempt could not be run.
const HOLD: Duration = Duration::from_millis(200);

impl Dispatcher {
    /// Judges attempts that ended, and writes what follows.
    pub(super) fn judge(&mut self, group: Vec<Finished>) {
        crash::at(Point::Attempted);
        let mut steps = Vec::with_capacity(group.len());
        for finished in group {
            self.running -= 1;
            if finished.job.era == self.breaker.era() {
                self.running_in_era -= 1;
            }
            steps.extend(self.judge_one(finished));
        }
        self.write(steps);
        self.move_parked();
    }

    fn judge_one(&mut self, mut finished: Finished) -> Option<Step> {
        // The host has outlived it: running it again (state had changed) is no second beginning.
        if std::mem::take(&mut finished.job.is_suspect) {
            self.parked_suspects.remove(&finished.job.record);
        }
        let now = self.now();
        self.note(&finished, now);
        let verdict = verdict(
            &finished.attempted.outcome,
            finished.job.history.failed,
            &self.parts.consumer.retry,
            self.breaker.phase(now),
            self.parts.clock.random(),
        );
        if let Outcome::Failed(failure) = &finished.attempted.outcome
            && verdict != Verdict::Hold
        {
            let attempt = self.attempt(&finished, failure.clone());
            letter::remember(&mut finished.job.history, attempt);
        }
        let Finished { job, attempted, .. } = finished;
        match verdict {
            Verdict::Commit => Some(self.apply(job, attempted.effects)),
            Verdict::Retry(pause) => Some(self.fail(job, pause)),
            Verdict::Dead(reason) => Some(self.bury(job, reason, &message(&attempted.outcome))),
            Verdict::Hold => self.hold(job, now),
        }
    }

    /// Takes an ended attempt into account.
    fn note(&mut self, finished: &Finished, now: Instant) {
        let Finished { job, attempted, .. } = finished;
        self.attempt_time = (self.attempt_time * 7 + attempted.duration) / 8;
        let size = attempted.effects.size();
        self.effects_size = size.max((self.effects_size * 7 + size) / 8);
        let number = job.history.failed + 1;
        self.parts
            .metrics
            .attempted(&job.event.id, number, &attempted.outcome, attempted.duration);
        let Some(failed) = is_failure(&attempted.outcome) else {
            return;
        };
        let lane = xxhash_rust::xxh3::xxh3_64(&job.lane.0);
        if let Some(Phase::Open(_)) = self.breaker.note(lane, job.era, failed, now) {
            self.running_in_era = 0;
        }
    }

    fn attempt(&self, finished: &Finished, failure: Failure) -> Attempt {
        Attempt {
            number: finished.job.history.failed + 1,
            at: finished.at,
            duration: finished.attempted.duration,
            memory: finished.attempted.memory,
            revision: self.bench.handler.revision().to_string(),
            failure,
        }
    }

    /// An event that can't run for no fault of its own waits a moment, or until the breaker lets it.
    fn hold(&mut self, mut job: Box<Job>, now: Instant) -> Option<Step> {
        if self.is_draining() {
            self.hand_back(job);
            return None;
        }
        let until = match self.breaker.phase(now) {
            Phase::Open(until) => until,
            Phase::Closed | Phase::HalfOpen => now + HOLD,
        };
        self.parts.metrics.held(1);
        if !std::mem::take(&mut job.is_begun) {
            self.wait(job, until);
            return None;
        }
        job.started = 0;
        let entry = self.entry(&job, Change::Failed(job.history.clone()));
        let then = Then::Held(until);
        Some(Step { job, entry, then })
    }

    fn apply(&self, job: Box<Job>, effects: Effects) -> Step {
        let entry = self.entry(&job, Change::Applied(effects));
        Step {
            job,
            entry,
            then: Then::Applied,
        }
    }

    fn fail(&mut self, mut job: Box<Job>, pause: Duration) -> Step {
        job.history.next_at = self.parts.clock.wall().after(pause);
        // It ended, so that no host died of it: the ledger forgets that, too.
        (job.started, job.is_begun) = (0, false);
        let entry = self.entry(&job, Change::Failed(job.history.clone()));
        // A stop may come before the answer: what it takes the beginning back with must know of this attempt.
        if let Some(ended) = self.begun.get_mut(&job.record) {
            ended.clone_from(&entry);
        }
        Step {
            job,
            entry,
            then: Then::Failed(pause),
        }
    }

    pub(super) fn bury(&self, job: Box<Job>, reason: Reason, detail: &str) -> Step {
        let now = self.parts.clock.wall();
        let revision = self.bench.handler.revision();
        let mut letter = letter::of_job(&job, &self.parts.consumer, &revision, reason, detail, now);
        if reason == Reason::Undecodable {
            (letter.event, letter.kind) = (None, None);
        }
        let entry = letter::entry(&job, &self.parts.consumer, letter);
        Step {
            job,
            entry,
            then: Then::Dead(reason),
        }
    }

    pub(super) fn conflict(&self, job: Box<Job>) -> Step {
        let now = self.parts.clock.wall();
        let entry = letter::conflict(&job, &self.parts.consumer, &self.bench.handler.revision(), now);
        Step {
            job,
            entry,
            then: Then::Dead(Reason::IdConflict),
        }
    }
}

/// Whether an outcome says something of the plugin as a whole, and what.
fn is_failure(outcome: &Outcome) -> Option<bool> {
    match outcome {
        Outcome::Succeeded => Some(false),
        Outcome::Failed(failure) => Some(failure.class != Class::Permanent),
        Outcome::NotRun(_) => None,
    }
}

fn message(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Failed(failure) => failure.message.clone(),
        Outcome::NotRun(why) => why.clone(),
        Outcome::Succeeded => String::new(),
    }
}
