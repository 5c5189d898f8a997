//! Makes dead letters: everything needed to understand what failed and to run it again.

use std::sync::Arc;

use super::job::Job;
use crate::broker;
use crate::clock::Timestamp;
use crate::event::codec;
use crate::event::key::LaneKey;
use crate::event::{Headers, Message};
use crate::ledger::{Change, DeadLetter, Entry, History, Output, PayloadHash, RecordKey, Row};
use crate::outcome::{Attempt, Reason};
use crate::plan;

/// Attempts that a history keeps: the first ones say how it began, the last ones how it is now.
const ATTEMPTS_FIRST: usize = 10;
const ATTEMPTS_LAST: usize = 10;

/// Adds an attempt to a history.
pub fn remember(history: &mut History, attempt: Attempt) {
    history.failed += 1;
    if history.attempts.len() >= ATTEMPTS_FIRST + ATTEMPTS_LAST {
        history.attempts.remove(ATTEMPTS_FIRST);
    }
    history.attempts.push(attempt);
}

/// The dead letter of an event.
#[must_use]
pub fn of_job(
    job: &Job,
    consumer: &plan::Consumer,
    revision: &str,
    reason: Reason,
    detail: &str,
    now: Timestamp,
) -> DeadLetter {
    DeadLetter {
        id: job.record,
        consumer: consumer.name.clone(),
        stream: consumer.reads.name.clone(),
        position: job.position,
        reason,
        detail: detail.to_owned(),
        revision: revision.to_owned(),
        lane: job.lane.clone(),
        event: Some((job.event.source.clone(), job.event.id.clone())),
        kind: Some(job.event.kind.clone()),
        message: job.message.clone(),
        attempts: job.history.attempts.clone(),
        failed: job.history.failed,
        first_at: job.history.attempts.first().map_or(now, |attempt| attempt.at),
        last_at: now,
        applied_meanwhile: 0,
        redriving: false,
    }
}

/// The entry that makes an event a dead letter, with its copy for the configured stream.
#[must_use]
pub fn entry(job: &Job, consumer: &plan::Consumer, letter: DeadLetter) -> Entry {
    let publish = publish(consumer, &letter);
    Entry {
        consumer: consumer.name.clone(),
        record: job.record,
        payload: job.payload,
        lane: job.lane.clone(),
        parked: job.parked_id(),
        change: Change::Dead {
            hold: consumer.on_dead == plan::OnDead::HoldKey && has_key(&letter),
            letter: Box::new(letter),
            publish,
        },
    }
}

/// Whether there can be later events of its key.
fn has_key(letter: &DeadLetter) -> bool {
    !matches!(letter.reason, Reason::Undecodable | Reason::NoKey)
}

/// The entry of an event whose id was used before for other data.
#[must_use]
pub fn conflict(job: &Job, consumer: &plan::Consumer, revision: &str, now: Timestamp) -> Entry {
    let detail = format!(
        "source {:?} and id {:?} were used before for an event with other data",
        job.event.source, job.event.id
    );
    let mut letter = of_job(job, consumer, revision, Reason::IdConflict, &detail, now);
    // Known by its data too: another delivery of it is the same dead letter, the event that took effect is not.
    letter.id = RecordKey::of_conflict(job.record, job.payload);
    let publish = publish(consumer, &letter);
    Entry {
        consumer: consumer.name.clone(),
        record: job.record,
        payload: job.payload,
        lane: job.lane.clone(),
        parked: job.parked_id(),
        change: Change::Conflict {
            letter: Box::new(letter),
            publish,
        },
    }
}

/// The entry of an output that its broker refuses for good.
#[must_use]
pub fn refused_output(row: &Row, error: &broker::Error, now: Timestamp) -> Entry {
    let record = RecordKey::of_output(&row.output.id);
    let letter = DeadLetter {
        id: record,
        consumer: row.consumer.clone(),
        stream: row.output.stream.clone(),
        position: broker::Position(row.id.0),
        reason: Reason::OutputRefused,
        detail: error.to_string(),
        revision: String::new(),
        lane: row.output.key.clone(),
        event: None,
        kind: None,
        message: row.output.message.clone(),
        attempts: Vec::new(),
        failed: 0,
        first_at: now,
        last_at: now,
        applied_meanwhile: 0,
        redriving: false,
    };
    Entry {
        consumer: row.consumer.clone(),
        record,
        payload: PayloadHash(0),
        lane: row.output.key.clone(),
        parked: None,
        change: Change::Conflict {
            letter: Box::new(letter),
            publish: None,
        },
    }
}

/// The copy of a dead letter for the stream that the consumer names: the message as it arrived, with what happened in headers. Values
/// are percent-encoded, so that no error text breaks a header.
fn publish(consumer: &plan::Consumer, letter: &DeadLetter) -> Option<Output> {
    let stream = consumer.dead_letter.as_ref()?;
    let mut headers = Headers::default();
    for (name, value) in letter.message.headers.iter() {
        headers.push(name, value);
    }
    let facts = [
        ("Tidegate-Consumer", letter.consumer.to_string()),
        ("Tidegate-Stream", letter.stream.to_string()),
        ("Tidegate-Position", letter.position.0.to_string()),
        ("Tidegate-Reason", letter.reason.to_string()),
        ("Tidegate-Detail", letter.detail.clone()),
        ("Tidegate-Revision", letter.revision.clone()),
        ("Tidegate-Attempts", letter.failed.to_string()),
        ("Tidegate-First-At", letter.first_at.to_string()),
        ("Tidegate-Last-At", letter.last_at.to_string()),
    ];
    for (name, value) in facts {
        headers.push(name, codec::percent::encode(&value).as_bytes());
    }
    Some(Output {
        id: format!("{}-dead", letter.id).into(),
        stream: stream.name.clone(),
        key: letter.lane.clone(),
        message: Message {
            subject: place(stream),
            headers,
            payload: letter.message.payload.clone(),
        },
    })
}

/// Where on its broker the dead letters of a stream are written: its place without attributes, which an undecodable event has not.
fn place(stream: &plan::Stream) -> String {
    let template = match &stream.place {
        plan::Place::Log(_) => return stream.name.to_string(),
        plan::Place::JetStream(jetstream) => jetstream.subject.as_ref(),
        plan::Place::Path(path) => Some(path),
    };
    let literals = template
        .iter()
        .flat_map(|template| &template.parts)
        .filter_map(|part| match part {
            plan::TemplatePart::Literal(text) => Some(text.as_str()),
            plan::TemplatePart::Attribute(_) => None,
        });
    literals.collect()
}

/// A lane of its own, for what has no key.
#[must_use]
pub fn own_lane(record: RecordKey) -> LaneKey {
    LaneKey(Arc::from(record.to_string().as_bytes()))
}
