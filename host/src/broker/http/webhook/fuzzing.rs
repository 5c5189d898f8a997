//! What `host/fuzz` reaches here: where a message is sent, and what is made of an answer.

use std::time::Duration;

use reqwest::header::{HeaderMap, HeaderValue, RETRY_AFTER};
use reqwest::{StatusCode, Url};

use super::{Webhook, answer};
use crate::clock::Timestamp;
use crate::event::Message;
use crate::plan::Secret;

/// Where a message is sent.
///
/// # Errors
/// What is wrong with its place.
pub fn url(webhook: &Webhook, message: &Message) -> Result<Url, String> {
    webhook.sender.url(message).map_err(|error| error.to_string())
}

/// What is said of an answer, if it has a status.
#[must_use]
pub fn described(status: u16, body: &[u8], token: &str) -> Option<String> {
    let status = StatusCode::from_u16(status).ok()?;
    Some(answer::described(status, body, Some(&Secret::new(token.to_owned()))))
}

/// The pause that an answer asks for.
#[must_use]
pub fn retry_after(value: &[u8], now: Timestamp) -> Option<Duration> {
    let line = (RETRY_AFTER, HeaderValue::from_bytes(value).ok()?);
    answer::retry_after(&HeaderMap::from_iter([line]), now)
}
