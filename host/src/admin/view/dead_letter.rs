//! Dead letters as people and programs read them.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::event::codec::{self, Binding};
use crate::plan::Plan;
use crate::{ledger, outcome};

/// A page of a list of dead letters.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DeadLetterPage {
    /// Oldest first.
    pub dead_letters: Vec<DeadLetterLine>,
    /// `after` of the next page; absent at the end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<u64>,
}

impl DeadLetterPage {
    pub(crate) fn of(dead_letters: Vec<DeadLetterLine>, next: Option<ledger::DeadPlace>) -> Self {
        Self {
            dead_letters,
            next: next.map(|place| place.0),
        }
    }
}

/// A dead letter in a list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DeadLetterLine {
    /// Its id: 32 hex digits.
    pub id: String,
    /// Whose.
    pub consumer: String,
    /// The stream that its message came from, or was to go to.
    pub stream: String,
    /// Why: a code that `docs/errors.md` has a heading for.
    pub reason: String,
    /// Why, for people.
    pub detail: String,
    /// The event's source, if it could be decoded.
    pub event_source: Option<String>,
    /// The event's id, if it could be decoded.
    pub event_id: Option<String>,
    /// The event's type, if it could be decoded.
    pub event_type: Option<String>,
    /// The ordering key.
    pub key: String,
    /// How many attempts failed.
    pub failed: u32,
    /// When its first attempt began, or when it was taken: RFC 3339.
    pub first_at: String,
    /// When it became a dead letter: RFC 3339.
    pub last_at: String,
    /// How many later events of its key took effect since.
    pub applied_meanwhile: u64,
    /// Whether it was put back into its lane and has not run yet.
    pub redriving: bool,
}

impl DeadLetterLine {
    /// Of a dead letter.
    #[must_use]
    pub fn of(letter: &ledger::DeadLetter) -> Self {
        let (source, id) = letter.event.clone().unzip();
        Self {
            id: letter.id.to_string(),
            consumer: letter.consumer.to_string(),
            stream: letter.stream.to_string(),
            reason: letter.reason.to_string(),
            detail: letter.detail.clone(),
            event_source: source,
            event_id: id,
            event_type: letter.kind.clone(),
            key: String::from_utf8_lossy(&letter.lane.0).into_owned(),
            failed: letter.failed,
            first_at: letter.first_at.to_string(),
            last_at: letter.last_at.to_string(),
            applied_meanwhile: letter.applied_meanwhile,
            redriving: letter.redriving,
        }
    }
}

/// A dead letter, with everything needed to understand it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct DeadLetter {
    /// As in a list.
    #[serde(flatten)]
    pub line: DeadLetterLine,
    /// Where its message stood in the stream.
    pub position: u64,
    /// The digest of the plugin that failed last.
    pub revision: String,
    /// The event's attributes and extensions, in their canonical string form, as far as they are known.
    pub attributes: BTreeMap<String, String>,
    /// The place of its message in the broker's own words.
    pub subject: String,
    /// The header lines of its message, in order.
    pub headers: Vec<HeaderLine>,
    /// The body of its message, as it arrived.
    pub payload: Blob,
    /// The attempts that failed: at most the first 10 and the last 10.
    pub attempts: Vec<Attempt>,
}

impl DeadLetter {
    /// Of a dead letter; the plan knows how messages of its stream are read.
    #[must_use]
    pub fn of(letter: &ledger::DeadLetter, plan: &Plan) -> Self {
        let header = |(name, value): (&str, &[u8])| HeaderLine {
            name: name.to_owned(),
            value: Blob::of(value),
        };
        Self {
            line: DeadLetterLine::of(letter),
            position: letter.position.0,
            revision: letter.revision.clone(),
            attributes: attributes(letter, plan),
            subject: letter.message.subject.clone(),
            headers: letter.message.headers.iter().map(header).collect(),
            payload: Blob::of(&letter.message.payload),
            attempts: letter.attempts.iter().map(Attempt::of).collect(),
        }
    }
}

/// Those of the event that its message carries; if it can't be read (any more), those that the letter itself knows.
fn attributes(letter: &ledger::DeadLetter, plan: &Plan) -> BTreeMap<String, String> {
    let decoded = plan.streams.get(&letter.stream).and_then(|stream| {
        let binding = Binding::of(&stream.broker.kind);
        codec::decode(&letter.message, binding, stream.mapping.as_ref()).ok()
    });
    let Some(event) = decoded else {
        let (source, id) = letter.event.clone().unzip();
        let known = [("source", source), ("id", id), ("type", letter.kind.clone())];
        return known
            .into_iter()
            .filter_map(|(name, value)| Some((name.to_owned(), value?)))
            .collect();
    };
    let names = [
        "id",
        "source",
        "type",
        "subject",
        "time",
        "datacontenttype",
        "dataschema",
    ];
    names
        .into_iter()
        .chain(event.extensions.iter().map(|extension| extension.name.as_str()))
        .filter_map(|name| Some((name.to_owned(), event.attribute(name)?)))
        .collect()
}

/// A header line of a message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct HeaderLine {
    /// Its name, in the case it arrived with.
    pub name: String,
    /// Its value.
    #[serde(flatten)]
    pub value: Blob,
}

/// Bytes from outside.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Blob {
    /// As text, if they are UTF-8.
    pub text: Option<String>,
    /// As base64, always.
    pub base64: String,
}

impl Blob {
    fn of(bytes: &[u8]) -> Self {
        Self {
            text: std::str::from_utf8(bytes).ok().map(str::to_owned),
            base64: BASE64.encode(bytes),
        }
    }
}

/// One failed attempt.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Attempt {
    /// Counted from 1.
    pub number: u32,
    /// When it began: RFC 3339.
    pub at: String,
    /// How long it ran, in milliseconds.
    pub duration_ms: f64,
    /// The most linear memory that the guest held, in bytes.
    pub memory_bytes: u64,
    /// The plugin's digest at the time.
    pub revision: String,
    /// What kind of failure it was.
    pub class: String,
    /// What went wrong, for people.
    pub message: String,
    /// The functions on the guest's stack, innermost first, if it trapped.
    pub backtrace: Vec<String>,
}

impl Attempt {
    fn of(attempt: &outcome::Attempt) -> Self {
        Self {
            number: attempt.number,
            at: attempt.at.to_string(),
            duration_ms: attempt.duration.as_micros() as f64 / 1_000.0,
            memory_bytes: attempt.memory,
            revision: attempt.revision.clone(),
            class: attempt.failure.class.to_string(),
            message: attempt.failure.message.clone(),
            backtrace: attempt.failure.backtrace.clone(),
        }
    }
}
