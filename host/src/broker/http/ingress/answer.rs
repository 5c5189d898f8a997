//! What the ingress answers.

use std::time::Duration;

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};

use crate::broker;
use crate::event::codec;

/// What a client is asked to wait if nobody knows better.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// What became of a request.
#[derive(Debug)]
pub(super) enum Answer {
    /// The broker has this many events.
    Accepted(usize),
    /// Permission to send, as CloudEvents webhooks ask for it; with the origin that asked.
    Handshake(Option<HeaderValue>),
    /// No token, or a wrong one.
    NotAllowed,
    /// No stream has this path.
    NoRoute,
    /// Another method.
    NotPost,
    /// As many requests are under way as may be.
    Busy,
    /// The body did not arrive in time, or broke off.
    NoBody,
    /// Too large; says for whom, and the bound in bytes.
    TooLarge(&'static str, usize),
    /// Not CloudEvents at all.
    Foreign(codec::Error),
    /// No CloudEvent, or not one for this stream.
    Invalid(codec::Error),
    /// The broker is away.
    Away,
    /// The broker did not take it.
    NotTaken(broker::Error),
}

impl Answer {
    fn status(&self) -> StatusCode {
        match self {
            Self::Accepted(_) => StatusCode::ACCEPTED,
            Self::Handshake(_) => StatusCode::OK,
            Self::NotAllowed => StatusCode::UNAUTHORIZED,
            Self::NoRoute => StatusCode::NOT_FOUND,
            Self::NotPost => StatusCode::METHOD_NOT_ALLOWED,
            Self::NoBody => StatusCode::REQUEST_TIMEOUT,
            Self::TooLarge(..) => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Foreign(_) => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::Invalid(_) | Self::NotTaken(broker::Error::Refused { .. }) => StatusCode::BAD_REQUEST,
            Self::Busy | Self::Away | Self::NotTaken(_) => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    fn code(&self) -> &'static str {
        match self {
            Self::Accepted(_) | Self::Handshake(_) => "ok",
            Self::NotAllowed => "ingress-token",
            Self::NoRoute => "ingress-no-route",
            Self::NotPost => "ingress-not-post",
            Self::Busy => "ingress-busy",
            Self::NoBody => "ingress-no-body",
            Self::TooLarge(..) => "ingress-too-large",
            Self::Foreign(error) | Self::Invalid(error) => error.code(),
            Self::NotTaken(broker::Error::Refused { .. }) => "broker-refused",
            Self::NotTaken(broker::Error::Misconfigured { .. }) => "broker-misconfigured",
            Self::Away | Self::NotTaken(broker::Error::Unreachable { .. }) => "broker-unreachable",
        }
    }

    fn message(&self) -> String {
        match self {
            Self::Accepted(_) | Self::Handshake(_) => String::new(),
            Self::NotAllowed => "send the token as Authorization: Bearer".to_owned(),
            Self::NoRoute => "no stream has this path: see [ingress] in the config".to_owned(),
            Self::NotPost => "events are sent with POST".to_owned(),
            Self::Busy => "as many requests are under way as the ingress takes: try again".to_owned(),
            Self::NoBody => "the body did not arrive whole in time: send it again".to_owned(),
            Self::TooLarge(whom, max) => format!("{whom} takes at most {max} bytes"),
            Self::Foreign(error) | Self::Invalid(error) => error.to_string(),
            Self::Away => "the broker is out of reach: try again".to_owned(),
            Self::NotTaken(error) => error.to_string(),
        }
    }

    /// The headers that go with the status.
    fn headers(&self) -> Vec<(&'static str, HeaderValue)> {
        match self {
            Self::NotAllowed => vec![("www-authenticate", HeaderValue::from_static("Bearer"))],
            Self::NotPost => vec![("allow", HeaderValue::from_static("POST, OPTIONS"))],
            Self::Handshake(origin) => handshake(origin.clone()),
            Self::Busy | Self::Away => vec![("retry-after", seconds(RETRY_AFTER))],
            Self::NotTaken(broker::Error::Unreachable { retry_after, .. }) => {
                vec![("retry-after", seconds(retry_after.unwrap_or(RETRY_AFTER)))]
            }
            Self::NotTaken(broker::Error::Misconfigured { .. }) => vec![("retry-after", seconds(RETRY_AFTER))],
            _ => Vec::new(),
        }
    }
}

/// No limit of rate: a request too many is told so by 503.
fn handshake(origin: Option<HeaderValue>) -> Vec<(&'static str, HeaderValue)> {
    let allow = [("allow", HeaderValue::from_static("POST, OPTIONS"))];
    let permission = origin.into_iter().flat_map(|origin| {
        [
            ("webhook-allowed-origin", origin),
            ("webhook-allowed-rate", HeaderValue::from_static("*")),
        ]
    });
    allow.into_iter().chain(permission).collect()
}

/// Whole seconds, at least one: a client that waits less comes too early.
fn seconds(pause: Duration) -> HeaderValue {
    HeaderValue::from(pause.as_millis().div_ceil(1_000).clamp(1, u128::from(u32::MAX)) as u64)
}

impl From<Answer> for Response {
    fn from(answer: Answer) -> Self {
        let body = match &answer {
            Answer::Accepted(count) => serde_json::json!({ "accepted": count }),
            Answer::Handshake(_) => serde_json::json!({}),
            refusal => serde_json::json!({ "error": refusal.code(), "message": refusal.message() }),
        };
        let mut response = (answer.status(), Json(body)).into_response();
        for (name, value) in answer.headers() {
            response
                .headers_mut()
                .insert(header::HeaderName::from_static(name), value);
        }
        response
    }
}
