//! What the API answers when it does not do as asked: a status, a code that `docs/errors.md` has a heading for, and a sentence.

use std::time::Duration;

use axum::Json;
use axum::extract::rejection::{BytesRejection, JsonRejection, PathRejection, QueryRejection};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};

use super::view::{BadSelection, Problem};
use crate::app::host::PublishError;
use crate::event::codec;
use crate::{broker, ledger};

/// What a client is asked to wait if nobody knows better.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// A request was not granted.
#[derive(Debug, thiserror::Error)]
pub(super) enum Refusal {
    /// No token, or a wrong one.
    #[error("send the token of the config as Authorization: Bearer")]
    Token,
    /// Meant for another host.
    #[error(
        "the request is for {}, which is not this API: without a token only localhost and the address it listens on are answered; set admin.token to use another name",
        .0.as_deref().unwrap_or("no host")
    )]
    Host(Option<String>),
    /// No such route.
    #[error("no such route: GET /api/v1/openapi.json lists them")]
    NoRoute,
    /// Another method.
    #[error("the route has other methods: GET /api/v1/openapi.json lists them")]
    NoMethod,
    /// A parameter or a body that makes no sense.
    #[error("{0}")]
    Invalid(String),
    /// A body of another content type.
    #[error("{0}")]
    ContentType(String),
    /// A body that is too large.
    #[error("a body has at most {0} bytes: send fewer events at once")]
    TooLarge(usize),
    /// A body that did not come.
    #[error("the body did not arrive whole in time: send it again")]
    NoBody,
    /// As many requests of the kind are under way as may be.
    #[error("{0} are under way already: try again")]
    Busy(String),
    /// No such dead letter.
    #[error("no dead letter {0}: it was purged, it was redriven and has run, or it never was")]
    NoDeadLetter(String),
    /// Nothing, or too much, is selected.
    #[error(transparent)]
    Selection(#[from] BadSelection),
    /// Not published.
    #[error(transparent)]
    Publish(#[from] PublishError),
    /// No event.
    #[error(transparent)]
    Event(#[from] codec::Error),
    /// No answer from the ledger.
    #[error(transparent)]
    Ledger(#[from] ledger::Error),
}

impl Refusal {
    fn status(&self) -> StatusCode {
        match self {
            Self::Token => StatusCode::UNAUTHORIZED,
            Self::Host(_) => StatusCode::FORBIDDEN,
            Self::NoRoute | Self::NoDeadLetter(_) | Self::Publish(PublishError::NoStream(_)) => StatusCode::NOT_FOUND,
            Self::NoMethod => StatusCode::METHOD_NOT_ALLOWED,
            Self::NoBody => StatusCode::REQUEST_TIMEOUT,
            Self::TooLarge(_) => StatusCode::PAYLOAD_TOO_LARGE,
            Self::ContentType(_) => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::Invalid(_)
            | Self::Selection(_)
            | Self::Event(_)
            | Self::Publish(PublishError::Event(_) | PublishError::Broker(broker::Error::Refused { .. })) => {
                StatusCode::BAD_REQUEST
            }
            Self::Busy(_) | Self::Ledger(_) | Self::Publish(PublishError::Broker(_)) => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    fn code(&self) -> &'static str {
        match self {
            Self::Token => "admin-token",
            Self::Host(_) => "admin-host",
            Self::NoRoute => "admin-no-route",
            Self::NoMethod => "admin-no-method",
            Self::Invalid(_) => "admin-invalid",
            Self::ContentType(_) => "admin-content-type",
            Self::TooLarge(_) => "admin-too-large",
            Self::NoBody => "admin-no-body",
            Self::Busy(_) => "admin-busy",
            Self::NoDeadLetter(_) => "no-dead-letter",
            Self::Selection(_) => "bad-selection",
            Self::Event(error) | Self::Publish(PublishError::Event(error)) => error.code(),
            Self::Publish(PublishError::NoStream(_)) => "no-stream",
            Self::Publish(PublishError::Broker(error)) => error.code(),
            Self::Ledger(error) => error.code(),
        }
    }

    /// When it is worth asking again, where it is.
    fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Publish(PublishError::Broker(broker::Error::Unreachable { retry_after, .. })) => {
                Some(retry_after.unwrap_or(RETRY_AFTER))
            }
            refusal if refusal.status() == StatusCode::SERVICE_UNAVAILABLE => Some(RETRY_AFTER),
            _ => None,
        }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let status = self.status();
        let problem = Problem {
            error: self.code().to_owned(),
            message: self.to_string(),
        };
        tracing::debug!(%status, code = problem.error, error = problem.message, "the admin API refused a request");
        let mut response = (status, Json(problem)).into_response();
        let headers = response.headers_mut();
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if let Some(pause) = self.retry_after() {
            // Whole seconds, at least one: a client that waits less comes too early.
            let seconds = pause.as_millis().div_ceil(1_000).clamp(1, u128::from(u32::MAX));
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds as u64));
        }
        response
    }
}

impl From<QueryRejection> for Refusal {
    fn from(rejection: QueryRejection) -> Self {
        Self::Invalid(rejection.body_text())
    }
}

impl From<PathRejection> for Refusal {
    fn from(rejection: PathRejection) -> Self {
        Self::Invalid(rejection.body_text())
    }
}

impl From<JsonRejection> for Refusal {
    fn from(rejection: JsonRejection) -> Self {
        match rejection {
            JsonRejection::BytesRejection(rejection) => rejection.into(),
            JsonRejection::MissingJsonContentType(_) => {
                Self::ContentType("send the body as application/json".to_owned())
            }
            other => Self::Invalid(other.body_text()),
        }
    }
}

impl From<BytesRejection> for Refusal {
    fn from(rejection: BytesRejection) -> Self {
        if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE {
            Self::TooLarge(super::BODY_BYTES_MAX)
        } else {
            Self::NoBody
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::documented::documented;
    use crate::plan::Name;

    #[test]
    fn every_refusal_is_documented() {
        let broker = Name::new("main").unwrap();
        let reason = String::new;
        let refused = broker::Error::Refused {
            broker: broker.clone(),
            reason: reason(),
        };
        let misconfigured = broker::Error::Misconfigured {
            broker: broker.clone(),
            reason: reason(),
        };
        let unreachable = broker::Error::Unreachable {
            broker,
            reason: reason(),
            retry_after: None,
        };
        let all = [
            Refusal::Token,
            Refusal::Host(None),
            Refusal::NoRoute,
            Refusal::NoMethod,
            Refusal::Invalid(reason()),
            Refusal::ContentType(reason()),
            Refusal::TooLarge(1),
            Refusal::NoBody,
            Refusal::Busy(reason()),
            Refusal::NoDeadLetter(reason()),
            Refusal::Selection(BadSelection::Empty),
            Refusal::Publish(PublishError::NoStream(reason())),
            Refusal::Publish(PublishError::Broker(refused)),
            Refusal::Publish(PublishError::Broker(misconfigured)),
            Refusal::Publish(PublishError::Broker(unreachable)),
            Refusal::Event(codec::Error::NotRecognised),
            Refusal::Ledger(ledger::Error::Unavailable(reason())),
        ];
        documented(&all.map(|refusal| refusal.code()));
    }
}
