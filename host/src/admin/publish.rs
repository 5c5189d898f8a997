//! Puts events on a stream of the config.

use std::time::Duration;

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{FromRequest as _, Path, Request, State};
use axum::http::{HeaderMap, StatusCode};
use bytes::Bytes;

use super::view::{Accepted, Problem};
use super::{Api, Refusal};
use crate::event::codec::{self, Binding, Mode};
use crate::event::{Event, Headers, Message};

/// How long a body may take to arrive.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);

/// Puts events on a stream.
///
/// One event in structured or binary mode, or a batch. The answer is 202 only once the stream's broker has all of them; after any other,
/// send all of them again: under the same source and id, an event is published once within the broker's window.
#[utoipa::path(
    post,
    path = "/api/v1/streams/{stream}/events",
    tag = "streams",
    params(("stream" = String, Path, description = "the stream's name in the config")),
    request_body(content(
        (serde_json::Value = "application/cloudevents+json"),
        (Vec<serde_json::Value> = "application/cloudevents-batch+json"),
    )),
    responses(
        (status = 202, description = "the broker has them", body = Accepted),
        (status = 400, description = "no CloudEvent, or none that fits the stream, or the broker refuses it", body = Problem),
        (status = 404, description = "no such stream", body = Problem),
        (status = 408, description = "the body did not arrive whole in time", body = Problem),
        (status = 413, description = "the body is too large", body = Problem),
        (status = 415, description = "the body is no CloudEvent by its content type", body = Problem),
        (status = 503, description = "the broker is away, or too many requests are under way", body = Problem),
    ),
)]
pub(super) async fn publish(
    State(api): State<Api>,
    stream: Result<Path<String>, PathRejection>,
    request: Request,
) -> Result<(StatusCode, Json<Accepted>), Refusal> {
    let Path(stream) = stream?;
    // Before the body is read: the permits bound what is held in memory.
    let _permit = api
        .0
        .publishing
        .try_acquire()
        .map_err(|_| Refusal::Busy(format!("{} requests of this kind", super::PUBLISHING_MAX)))?;
    let headers = headers(request.headers());
    let body = tokio::time::timeout(BODY_TIMEOUT, Bytes::from_request(request, &api));
    let payload = body.await.map_err(|_| Refusal::NoBody)??;
    let events = events(headers, payload)?;
    let accepted = api.host().publish(&stream, &events).await?;
    Ok((StatusCode::ACCEPTED, Json(Accepted { accepted })))
}

fn headers(lines: &HeaderMap) -> Headers {
    let mut headers = Headers::default();
    for (name, value) in lines {
        headers.push(name.as_str(), value.as_bytes());
    }
    headers
}

fn events(headers: Headers, payload: Bytes) -> Result<Vec<Event>, Refusal> {
    let message = Message {
        subject: String::new(),
        headers,
        payload,
    };
    match codec::mode(&message.headers, Binding::Http) {
        Mode::Batch => Ok(codec::decode_batch(&message.payload)?),
        Mode::Structured | Mode::Binary => Ok(vec![codec::decode(&message, Binding::Http, None)?]),
        Mode::Unsupported | Mode::Foreign => Err(Refusal::ContentType(
            "send application/cloudevents+json, application/cloudevents-batch+json, or ce- headers".to_owned(),
        )),
    }
}
