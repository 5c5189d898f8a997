//! What came of an attempt, and why an event ended among the dead letters: closed lists that every part shares.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;

/// What came of one attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The plugin returned ok; its effects may be committed.
    Succeeded,
    /// The attempt failed; its effects are gone.
    Failed(Failure),
    /// The host could not run the attempt at all (no instance free, ledger out of reach). Never counts against the event.
    NotRun(String),
}

/// Why an attempt failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// What kind of failure it was.
    pub class: Class,
    /// One line for people, with the value that was wrong. At most 4 KiB; longer text is cut.
    pub message: String,
    /// The functions on the guest's stack, innermost first, if it trapped. At most 32.
    pub backtrace: Vec<String>,
    /// When the plugin asked to be tried again, if it did.
    pub retry_after: Option<Duration>,
}

/// The kinds of failure. Which of them are tried again is for the verdict.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Class {
    /// The plugin said `transient`: something else was not ready.
    Transient,
    /// The plugin said `permanent`: this event can never be handled.
    Permanent,
    /// The guest trapped: unreachable code, a bad access, a panic, an `exit`.
    Trap,
    /// The guest's stack overflowed.
    StackOverflow,
    /// The guest ran longer than `limits.time`.
    TimeLimit,
    /// The guest asked for more than `limits.memory`, or for more table elements or instances than allowed.
    MemoryLimit,
    /// The guest emitted, wrote or logged more than its limits allow and did not heed the refusal.
    EffectLimit,
}

impl Class {
    /// The class's name in metrics, logs and JSON.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Transient => "transient",
            Self::Permanent => "permanent",
            Self::Trap => "trap",
            Self::StackOverflow => "stack-overflow",
            Self::TimeLimit => "time-limit",
            Self::MemoryLimit => "memory-limit",
            Self::EffectLimit => "effect-limit",
        }
    }
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One failed attempt, as the attempt history and a dead letter keep it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    /// Counted from 1.
    pub number: u32,
    /// When it began.
    pub at: Timestamp,
    /// How long it ran.
    pub duration: Duration,
    /// The most linear memory the guest held, in bytes.
    pub memory: u64,
    /// The plugin's digest at the time.
    pub revision: String,
    /// How it failed.
    pub failure: Failure,
}

/// Why an event is among the dead letters. A closed list: it is a metric label, a filter of `dlq list`, and each has its
/// heading in `docs/errors.md`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reason {
    /// The message is no CloudEvent, and its stream declares no way to make one of it.
    Undecodable,
    /// The event has no ordering key where its consumer reads it from.
    NoKey,
    /// Same `source` and `id` as an event that was handled, but other data.
    IdConflict,
    /// The plugin said that it can never handle this event.
    Permanent,
    /// Every attempt failed for a passing reason.
    AttemptsExhausted,
    /// Every attempt trapped.
    Trap,
    /// Every attempt ran out of its time.
    TimeLimit,
    /// Every attempt ran out of its memory or stack.
    MemoryLimit,
    /// Every attempt went over its limits of effects.
    EffectLimit,
    /// The host itself died three times while it handled this event.
    HostCrash,
    /// The event was applied, but the broker refuses one of its outputs for good.
    OutputRefused,
}

impl Reason {
    /// Every reason, in the order of `docs/errors.md`.
    pub const ALL: [Self; 11] = [
        Self::Undecodable,
        Self::NoKey,
        Self::IdConflict,
        Self::Permanent,
        Self::AttemptsExhausted,
        Self::Trap,
        Self::TimeLimit,
        Self::MemoryLimit,
        Self::EffectLimit,
        Self::HostCrash,
        Self::OutputRefused,
    ];

    /// The code in metrics, JSON, headers and on the command line.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Undecodable => "undecodable",
            Self::NoKey => "no-key",
            Self::IdConflict => "id-conflict",
            Self::Permanent => "permanent",
            Self::AttemptsExhausted => "attempts-exhausted",
            Self::Trap => "trap",
            Self::TimeLimit => "time-limit",
            Self::MemoryLimit => "memory-limit",
            Self::EffectLimit => "effect-limit",
            Self::HostCrash => "host-crash",
            Self::OutputRefused => "output-refused",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl std::str::FromStr for Reason {
    type Err = UnknownReason;

    fn from_str(text: &str) -> Result<Self, UnknownReason> {
        Self::ALL
            .into_iter()
            .find(|reason| reason.as_str() == text)
            .ok_or_else(|| UnknownReason(text.to_owned()))
    }
}

/// The text is no reason code.
#[derive(Debug, thiserror::Error)]
#[error("no such reason: {0} (see docs/errors.md for the list)")]
pub struct UnknownReason(String);
