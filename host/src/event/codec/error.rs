//! Why a message is no event, or an event can't be written.

use crate::event::Headers;

/// The most characters of a foreign value that an error repeats.
const SHOWN_CHARS_MAX: usize = 80;

/// A message is no CloudEvent, or an event does not fit its stream. Trying again never helps.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Nothing says that it is an event.
    #[error(
        "the message has no CloudEvents headers and is no CloudEvent in JSON: send one, or give the stream a mapping"
    )]
    NotRecognised,
    /// A format or mode that we do not read here.
    #[error("content type \"{content_type}\" is not read here: send application/cloudevents+json or binary mode")]
    Unsupported {
        /// What it said.
        content_type: String,
    },
    /// A required attribute is absent.
    #[error("attribute {name} is missing: every CloudEvent has id, source, type and specversion")]
    Missing {
        /// Which.
        name: &'static str,
    },
    /// Not CloudEvents 1.0.
    #[error("specversion \"{found}\" is not supported: only \"1.0\" is")]
    Specversion {
        /// What it said.
        found: String,
    },
    /// A name breaks the rules.
    #[error("\"{name}\" is no attribute name: only a-z and 0-9 are allowed, and \"data\" is taken")]
    Name {
        /// The name.
        name: String,
    },
    /// A value breaks the rules of its attribute.
    #[error("attribute {name} is \"{value}\": {rule}")]
    Value {
        /// Which attribute.
        name: String,
        /// Its value.
        value: String,
        /// The rule.
        rule: &'static str,
    },
    /// A header can't be decoded.
    #[error("header ce-{name} is \"{value}\": {rule}")]
    Encoding {
        /// Which attribute.
        name: String,
        /// The header's bytes, as far as they are text.
        value: String,
        /// What is wrong.
        rule: &'static str,
    },
    /// An attribute is there twice.
    #[error("attribute {name} is there twice: which one counts is anyone's guess")]
    Duplicate {
        /// Which.
        name: String,
    },
    /// More or larger attributes than any broker would carry.
    #[error("the attributes are too large: at most {max} {unit} are allowed")]
    TooLarge {
        /// The bound.
        max: usize,
        /// What it counts.
        unit: &'static str,
    },
    /// The body is no JSON of the right shape.
    #[error("the body is no CloudEvent in JSON: {reason}")]
    Json {
        /// What the parser said.
        reason: String,
    },
    /// The data can't be read.
    #[error("the data can't be read: {rule}")]
    Data {
        /// What is wrong.
        rule: &'static str,
    },
    /// More events in one batch than are taken.
    #[error("the batch has more than {max} events: send it in parts")]
    LongBatch {
        /// The bound.
        max: usize,
    },
    /// One event of a batch is none.
    #[error("event {index} of the batch (counted from 0): {error}")]
    InBatch {
        /// Which, counted from 0.
        index: usize,
        /// What is wrong with it.
        error: Box<Error>,
    },
    /// The mapping finds no value.
    #[error("the mapping finds no {name} in {origin}: it must be a string, a number or a boolean")]
    Origin {
        /// Which attribute.
        name: &'static str,
        /// Where it looked, in the words of the config.
        origin: String,
    },
    /// The event does not fit the stream's place.
    #[error("the place on stream {stream} would be \"{place}\": {rule}")]
    BadPlace {
        /// The stream.
        stream: String,
        /// The place as far as it could be rendered.
        place: String,
        /// The rule.
        rule: String,
    },
    /// The stream is only read.
    #[error("stream {stream} names no place to write to: set its subject")]
    NotWritable {
        /// The stream.
        stream: String,
    },
}

impl Error {
    /// The code that `docs/errors.md` has a heading for.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::NotRecognised => "event-not-recognised",
            Self::Unsupported { .. } => "event-unsupported-format",
            Self::Missing { .. } => "event-missing-attribute",
            Self::Specversion { .. } => "event-bad-specversion",
            Self::Name { .. } => "event-bad-name",
            Self::Value { .. } => "event-bad-attribute",
            Self::Encoding { .. } => "event-bad-encoding",
            Self::Duplicate { .. } => "event-duplicate-attribute",
            Self::TooLarge { .. } => "event-too-large",
            Self::Json { .. } => "event-bad-json",
            Self::Data { .. } => "event-bad-data",
            Self::LongBatch { .. } => "event-batch-too-long",
            Self::InBatch { error, .. } => error.code(),
            Self::Origin { .. } => "event-no-origin",
            Self::BadPlace { .. } => "event-bad-place",
            Self::NotWritable { .. } => "stream-not-writable",
        }
    }

    pub(super) fn unsupported(headers: &Headers) -> Self {
        let content_type = headers.get("content-type").unwrap_or_default();
        Self::Unsupported {
            content_type: cut(&String::from_utf8_lossy(content_type)),
        }
    }

    pub(super) fn name(name: &str) -> Self {
        Self::Name { name: cut(name) }
    }

    pub(super) fn value(name: &str, value: &str, rule: &'static str) -> Self {
        Self::Value {
            name: cut(name),
            value: cut(value),
            rule,
        }
    }

    pub(super) fn encoding(name: &str, value: &[u8], rule: &'static str) -> Self {
        Self::Encoding {
            name: cut(name),
            value: cut(&String::from_utf8_lossy(value)),
            rule,
        }
    }

    pub(super) fn json(error: &serde_json::Error) -> Self {
        Self::Json {
            reason: cut(&error.to_string()),
        }
    }
}

/// At most [`SHOWN_CHARS_MAX`] characters, on one line: what an error repeats goes into logs and headers.
pub(super) fn cut(text: &str) -> String {
    let mut shown: String = text
        .chars()
        .take(SHOWN_CHARS_MAX)
        .map(|c| if c.is_control() { '\u{fffd}' } else { c })
        .collect();
    if text.chars().nth(SHOWN_CHARS_MAX).is_some() {
        shown.push('…');
    }
    shown
}
