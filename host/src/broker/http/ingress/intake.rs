//! One request on its way to the broker: body, events, messages, confirmation. Each step is all or nothing.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, BodyDataStream};
use axum::extract::Request;
use axum::http::{HeaderMap, header};
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt as _;
use sha2::{Digest as _, Sha256};

use super::Ingress;
use super::answer::Answer;
use crate::broker::{self, Outgoing, Publisher};
use crate::event::codec::{self, Binding, Mode};
use crate::event::key::key;
use crate::event::{Event, Headers, Message, TRACE_HEADERS};
use crate::plan::{Key, Stream};

/// How much of a body that is too large is read for the sake of the answer, and for how long.
const READ_OFF_MAX: usize = 256 * 1024 * 1024;
const READ_OFF_TIME: Duration = Duration::from_secs(5);

/// Takes the events of a request and returns how many the broker has.
pub(super) async fn take(ingress: &Ingress, stream: &Stream, request: Request) -> Result<usize, Answer> {
    let (parts, body) = request.into_parts();
    let route = parts.uri.path();
    let max = ingress.plan.body_bytes_max;
    let payload = tokio::time::timeout(ingress.body_timeout, read(body, &parts.headers, max))
        .await
        .map_err(|_| Answer::NoBody)??;
    let message = Message {
        subject: route.to_owned(),
        headers: headers(&parts.headers),
        payload,
    };
    let events = events(&message, stream)?;
    let batch = events
        .iter()
        .map(|event| outgoing(route, event, stream, &message.headers))
        .collect::<Result<Vec<_>, _>>()?;
    publish(ingress, stream, batch).await
}

/// Reads a body of at most `max` bytes, whether its length is declared or not.
async fn read(body: Body, headers: &HeaderMap, max: usize) -> Result<Bytes, Answer> {
    let too_large = || Answer::TooLarge("the ingress", max);
    let declared = headers
        .get(header::CONTENT_LENGTH)
        .and_then(|length| length.to_str().ok()?.parse::<usize>().ok());
    let mut chunks = body.into_data_stream();
    if declared.is_some_and(|length| length > max) {
        read_off(chunks).await;
        return Err(too_large());
    }
    let mut payload = BytesMut::with_capacity(declared.unwrap_or_default());
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk.map_err(|_| Answer::NoBody)?;
        if payload.len() + chunk.len() > max {
            read_off(chunks).await;
            return Err(too_large());
        }
        payload.extend_from_slice(&chunk);
    }
    Ok(payload.freeze())
}

/// Reads what is not wanted. A client that writes all before it reads would see a broken connection instead of the answer if it were closed
/// with a part of its body unread (RFC 9112, section 9.6).
async fn read_off(mut chunks: BodyDataStream) {
    let mut left = READ_OFF_MAX;
    let reading = async {
        while let Some(Ok(chunk)) = chunks.next().await {
            match left.checked_sub(chunk.len()) {
                Some(less) => left = less,
                None => return,
            }
        }
    };
    // Whoever sends more, or slowly, has to live with the broken connection.
    let _ = tokio::time::timeout(READ_OFF_TIME, reading).await;
}

fn headers(lines: &HeaderMap) -> Headers {
    let mut headers = Headers::default();
    for (name, value) in lines {
        headers.push(name.as_str(), value.as_bytes());
    }
    headers
}

fn events(message: &Message, stream: &Stream) -> Result<Vec<Event>, Answer> {
    let mode = codec::mode(&message.headers, Binding::Http);
    let is_readable = match mode {
        Mode::Binary | Mode::Structured | Mode::Batch => true,
        Mode::Foreign => stream.mapping.is_some(),
        Mode::Unsupported => false,
    };
    let events = match mode {
        Mode::Batch => codec::decode_batch(&message.payload),
        _ => codec::decode(message, Binding::Http, stream.mapping.as_ref()).map(|event| vec![event]),
    };
    events.map_err(|error| {
        if is_readable {
            Answer::Invalid(error)
        } else {
            Answer::Foreign(error)
        }
    })
}

fn outgoing(route: &str, event: &Event, stream: &Stream, request: &Headers) -> Result<Outgoing, Answer> {
    let mut message = codec::encode(event, stream).map_err(|error| unwritten(error, stream))?;
    for name in TRACE_HEADERS {
        if let Some(value) = request.get(name) {
            message.headers.push(name, value);
        }
    }
    // An attribute that is absent has a stand-in, so this key always is.
    let lane = key(event, &Key::Attribute("subject".to_owned()));
    Ok(Outgoing {
        id: id(route, event).into(),
        key: lane.map_or_else(|_| Arc::from([]), |lane| lane.0),
        message,
    })
}

/// A stream that is not written to is no fault of the event: the client keeps it and tries again.
fn unwritten(error: codec::Error, stream: &Stream) -> Answer {
    match error {
        codec::Error::NotWritable { .. } => Answer::NotTaken(broker::Error::Misconfigured {
            broker: stream.broker.name.clone(),
            reason: error.to_string(),
        }),
        other => Answer::Invalid(other),
    }
}

/// The same for the same event on the same route, so that a request sent again is recognised: hex of SHA-256 over the parts, each
/// with its length before it. Its data is one of them: another event under the same id is no repetition, and its consumers are to see that.
fn id(route: &str, event: &Event) -> String {
    let mut hasher = Sha256::new();
    let data = event.data.as_deref().unwrap_or_default();
    for part in [route.as_bytes(), event.source.as_bytes(), event.id.as_bytes(), data] {
        hasher.update((part.len() as u64).to_le_bytes());
        hasher.update(part);
    }
    hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

async fn publish(ingress: &Ingress, stream: &Stream, batch: Vec<Outgoing>) -> Result<usize, Answer> {
    let count = batch.len();
    if count == 0 {
        return Ok(0);
    }
    let publisher: Arc<dyn Publisher> = (ingress.lookup)(stream).ok_or(Answer::Away)?;
    let max = publisher.size_max();
    if batch.iter().any(|outgoing| outgoing.message.size() > max) {
        return Err(Answer::TooLarge("the broker", max));
    }
    // A crash or a failure half-way leaves some of the batch published: the client was not told 202 and sends all of it again,
    // under the same ids.
    match worst(publisher.publish(batch).await) {
        Some(error) => Err(Answer::NotTaken(error)),
        None => Ok(count),
    }
}

/// The error that decides the answer: one that passes before one that does not, so that the client sends all of it again and learns
/// of the other then.
fn worst(results: Vec<Result<(), broker::Error>>) -> Option<broker::Error> {
    let rank = |error: &broker::Error| match error {
        broker::Error::Unreachable { retry_after, .. } => (2, *retry_after),
        broker::Error::Misconfigured { .. } => (1, None),
        broker::Error::Refused { .. } => (0, None),
    };
    results.into_iter().filter_map(Result::err).max_by_key(rank)
}
