//! What the API shows and takes, as JSON. The command line reads the same types and prints them, so that both say the same.

mod dead_letter;
mod selection;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::app::host::{ConsumerStatus, StreamStatus};
use crate::pipeline::Happening;

pub use dead_letter::{Attempt, Blob, DeadLetter, DeadLetterLine, DeadLetterPage, HeaderLine};
pub use selection::{BadSelection, Selection};

/// What is wrong with a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Problem {
    /// A code; `docs/errors.md` has what to do for each.
    pub error: String,
    /// A sentence for people.
    pub message: String,
}

/// The process lives.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Alive {
    /// `tidegate`: whoever asks a port by mistake sees whom they asked.
    pub service: String,
    /// Its version.
    pub version: String,
}

impl Alive {
    /// What this build answers.
    #[must_use]
    pub fn now() -> Self {
        Self {
            service: "tidegate".to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
        }
    }
}

/// Whether the host does its work.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Ready {
    /// Whether every consumer is subscribed and the ledger can be written.
    pub ready: bool,
    /// Why the ledger holds up the host, if it does: it can't be written, or, which leaves the host ready, is slow.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ledger: Option<String>,
    /// Each of them.
    pub consumers: Vec<ReadyConsumer>,
    /// Those that can't be written now. It leaves the host ready: outputs wait in the ledger.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub streams: Vec<ReadyStream>,
}

/// Whether one consumer does its work.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ReadyConsumer {
    /// Its name.
    pub consumer: String,
    /// Whether its subscription is open.
    pub subscribed: bool,
    /// Why it is not, if that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trouble: Option<String>,
}

impl ReadyConsumer {
    pub(super) fn of(status: ConsumerStatus) -> Self {
        Self {
            consumer: status.consumer,
            subscribed: status.subscribed,
            trouble: status.trouble,
        }
    }
}

/// A stream that can't be written now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ReadyStream {
    /// Its name.
    pub stream: String,
    /// Why.
    pub trouble: String,
}

impl ReadyStream {
    pub(super) fn of(status: StreamStatus) -> Option<Self> {
        Some(Self {
            stream: status.stream,
            trouble: status.trouble?,
        })
    }
}

/// Events were put on a stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Accepted {
    /// How many.
    pub accepted: usize,
}

/// What may become of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// It took effect.
    Committed,
    /// It had taken effect before.
    Duplicate,
    /// An attempt failed, and there will be another.
    Retry,
    /// It became a dead letter.
    Dead,
    /// It waits in the ledger.
    Parked,
}

impl Outcome {
    /// Its name in JSON and on the command line.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Committed => "committed",
            Self::Duplicate => "duplicate",
            Self::Retry => "retry",
            Self::Dead => "dead",
            Self::Parked => "parked",
        }
    }
}

/// A line of `tail`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(untagged)]
pub enum TailLine {
    /// What became of an event.
    Happened {
        /// When: RFC 3339.
        at: String,
        /// Whose event it is.
        consumer: String,
        /// What became of it: one of [`Outcome`].
        outcome: String,
        /// Its id.
        event_id: String,
        /// Its type.
        event_type: String,
        /// Its ordering key.
        key: String,
        /// Attempts made by now: 0 of a duplicate.
        attempt: u32,
        /// The ids of what it emitted.
        emitted: Vec<String>,
        /// What went wrong, if something did.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        error: Option<String>,
    },
    /// The watcher fell behind.
    Missed {
        /// Happenings that it did not see.
        missed: u64,
    },
}

impl TailLine {
    pub(super) fn of(happening: Happening) -> Self {
        Self::Happened {
            at: happening.at.to_string(),
            consumer: happening.consumer.to_string(),
            outcome: happening.outcome.to_owned(),
            event_id: happening.event_id,
            event_type: happening.event_type,
            key: happening.key,
            attempt: happening.attempt,
            emitted: happening.emitted,
            error: happening.error,
        }
    }
}
