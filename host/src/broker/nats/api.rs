//! JetStream's request API: JSON to a `$JS.API` subject, JSON back.
//!
//! Spoken directly and not through the client's types, since a consumer's configuration must come back to the server with
//! whatever newer servers have put into it.

use std::time::Duration;

use async_nats::RequestErrorKind;
use bytes::Bytes;
use serde::Deserialize;
use serde_json::Value;

use super::link::Link;
use crate::broker::Error;

/// How long the server may take to answer.
const ANSWER_TIME: Duration = Duration::from_secs(5);

pub(super) const STREAM_NOT_FOUND: u32 = 10059;
pub(super) const STREAM_NAME_IN_USE: u32 = 10058;
pub(super) const CONSUMER_NOT_FOUND: u32 = 10014;
const NOT_ENABLED_FOR_ACCOUNT: u32 = 10039;
const NOT_ENABLED: u32 = 10076;

/// What the API says when it says no.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Refusal {
    /// Like an HTTP status.
    pub(super) code: u32,
    /// The exact error.
    #[serde(default)]
    pub(super) err_code: u32,
    /// For people.
    #[serde(default)]
    pub(super) description: String,
}

/// Why a request has no answer.
#[derive(Debug)]
pub(super) enum Failure {
    /// The server knows the request and refuses it.
    Refused(Refusal),
    /// Nobody answers this subject: JetStream is off, the consumer is gone, or the server is too old to know the request.
    NobodyThere,
    /// Anything else.
    Broker(Error),
}

impl Failure {
    /// The failure as an error, for who has no better answer to it. `what` was asked for.
    pub(super) fn explain(self, link: &Link, what: &str) -> Error {
        match self {
            Self::Refused(refusal) => refusal.explain(link, what),
            Self::NobodyThere => link.misconfigured(format!(
                "cannot {what}: JetStream does not answer: enable it on the server and for the host's account"
            )),
            Self::Broker(error) => error,
        }
    }
}

impl Refusal {
    fn explain(self, link: &Link, what: &str) -> Error {
        let text = format!("cannot {what}: {}", self.description);
        match self {
            Self {
                err_code: NOT_ENABLED | NOT_ENABLED_FOR_ACCOUNT,
                ..
            } => link.misconfigured(format!("{text}: enable it on the server and for the host's account")),
            Self {
                code: 408 | 429 | 500..,
                ..
            } => link.unreachable(text),
            _ => link.misconfigured(text),
        }
    }
}

/// Asks, and gives the answer as it came.
pub(super) async fn request(link: &Link, subject: String, body: &Value) -> Result<Value, Failure> {
    let mut state = link.watch();
    let seen = state.borrow_and_update().refusals;
    link.life().map_err(Failure::Broker)?;
    let body = Bytes::from(if body.is_null() {
        String::new()
    } else {
        body.to_string()
    });
    let request = async_nats::Request::new().payload(body).timeout(Some(ANSWER_TIME));
    let interrupted = async {
        // A request that the server does not permit is never answered; the refusal comes by another way.
        let is_decisive =
            |state: &super::link::State| !state.is_up || (state.refusals > seen && names(state, &subject));
        let refusal = match state.wait_for(is_decisive).await {
            Ok(state) if state.is_up => state.refusal.clone(),
            _ => None,
        };
        match refusal {
            Some(refusal) => link.not_permitted(&refusal),
            None => link.unreachable("the connection was lost while the server was asked"),
        }
    };
    let answer = tokio::select! {
        answer = link.client.send_request(subject.clone(), request) => answer,
        error = interrupted => return Err(Failure::Broker(error)),
    };
    let message = answer.map_err(|error| match error.kind() {
        RequestErrorKind::NoResponders => Failure::NobodyThere,
        _ => Failure::Broker(link.unreachable(format!("{subject}: {error}"))),
    })?;
    read(link, &message.payload)
}

fn names(state: &super::link::State, subject: &str) -> bool {
    state
        .refusal
        .as_deref()
        .is_some_and(|refusal| refusal.contains(subject))
}

fn read(link: &Link, payload: &[u8]) -> Result<Value, Failure> {
    let bad = |error| Failure::Broker(link.unreachable(format!("answer is no JSON: {error}")));
    let mut answer: Value = serde_json::from_slice(payload).map_err(bad)?;
    match answer.get_mut("error") {
        Some(error) => Err(Failure::Refused(serde_json::from_value(error.take()).map_err(bad)?)),
        None => Ok(answer),
    }
}

/// Reads what is needed of an answer.
pub(super) fn parse<T: serde::de::DeserializeOwned>(link: &Link, answer: Value) -> Result<T, Error> {
    serde_json::from_value(answer)
        .map_err(|error| link.unreachable(format!("the server's answer is not understood: {error}")))
}

/// Whether JetStream answers.
pub(super) async fn check(link: &Link) -> Result<(), Error> {
    request(link, "$JS.API.INFO".to_owned(), &Value::Null)
        .await
        .map(drop)
        .map_err(|failure| failure.explain(link, "ask for the account's limits"))
}
