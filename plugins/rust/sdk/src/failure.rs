//! Why an event was not handled, and what `?` makes of the errors a handler meets.

use std::time::Duration;

use crate::{EmitError, Failure, Transient};

impl Failure {
    /// Something else was not ready: the host tries again, by its backoff.
    #[must_use]
    pub fn transient(reason: impl Into<String>) -> Self {
        Self::Transient(Transient {
            reason: reason.into(),
            retry_after_ms: None,
        })
    }

    /// This event can never be handled: it becomes a dead letter at once.
    #[must_use]
    pub fn permanent(reason: impl Into<String>) -> Self {
        Self::Permanent(reason.into())
    }

    /// Asks not to be tried again before `pause` has passed; the host bounds it by its own longest pause. Changes nothing on a
    /// permanent failure.
    #[must_use]
    pub fn retry_after(mut self, pause: Duration) -> Self {
        if let Self::Transient(transient) = &mut self {
            transient.retry_after_ms = Some(u64::try_from(pause.as_millis()).unwrap_or(u64::MAX));
        }
        self
    }

    /// The reason, for people.
    #[must_use]
    pub fn reason(&self) -> &str {
        match self {
            Self::Transient(transient) => &transient.reason,
            Self::Permanent(reason) => reason,
        }
    }
}

/// Data that does not parse will not parse the next time: permanent.
impl From<serde_json::Error> for Failure {
    fn from(error: serde_json::Error) -> Self {
        Self::permanent(format!("data is not what the plugin expects: {error}"))
    }
}

/// A missing route is the config's fault and may be mended while the host retries; the other two are the same at every attempt.
impl From<EmitError> for Failure {
    fn from(error: EmitError) -> Self {
        match error {
            EmitError::NoRoute(_) => Self::transient(explain(&error)),
            EmitError::Invalid(_) | EmitError::Limit(_) => Self::permanent(explain(&error)),
        }
    }
}

fn explain(error: &EmitError) -> String {
    match error {
        EmitError::NoRoute(kind) => {
            format!("no stream takes what the plugin emits (see the consumer's `writes`): {kind}")
        }
        EmitError::Invalid(rule) => format!("emitted event is no CloudEvent: {rule}"),
        EmitError::Limit(limit) => format!("emitted event is over a limit: {limit}"),
    }
}
