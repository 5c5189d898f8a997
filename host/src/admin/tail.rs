//! What becomes of events, as it happens: one JSON object per line, until the client leaves or the API stops.
//!
//! While nothing happens, an empty line is sent from time to time: neither we nor what stands between take the connection for a dead one,
//! and a client that is gone without a word is noticed.
//!
//! A client that falls behind misses the oldest happenings and is told how many; it never slows the host down.

use std::convert::Infallible;
use std::pin::pin;
use std::time::Duration;

use axum::body::Body;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::header;
use axum::response::IntoResponse;
use bytes::{BufMut as _, Bytes, BytesMut};
use futures_util::Stream;
use futures_util::stream::unfold;
use serde::Deserialize;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::{RecvError, TryRecvError};
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::time::sleep;

use super::view::{Outcome, Problem, TailLine};
use super::{Api, Refusal};
use crate::pipeline::Happening;

/// Bytes of lines sent at once: enough that a busy host does not send line by line.
const CHUNK_BYTES: usize = 64 * 1024;

/// Without a happening for this long, an empty line is sent: proxies usually close what is silent for 60 s.
const QUIET: Duration = Duration::from_secs(30);

/// Which happenings to show.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Watched {
    /// Of this consumer.
    consumer: Option<String>,
    /// With this outcome.
    outcome: Option<Outcome>,
}

impl Watched {
    fn is_met_by(&self, happening: &Happening) -> bool {
        let is_of = |name: &String| happening.consumer.as_str() == name;
        let is_so = |outcome: &Outcome| happening.outcome == outcome.as_str();
        self.consumer.as_ref().is_none_or(is_of) && self.outcome.as_ref().is_none_or(is_so)
    }
}

/// Shows what becomes of events from now on, one JSON object per line.
#[utoipa::path(get, path = "/api/v1/tail", tag = "status", params(Watched), responses(
    (status = 200, description = "a line per happening, or a count of missed ones; an empty line while nothing happens", content_type = "application/x-ndjson", body = TailLine),
    (status = 400, description = "a parameter makes no sense", body = Problem),
    (status = 503, description = "too many are watching", body = Problem),
))]
pub(super) async fn tail(
    State(api): State<Api>,
    query: Result<Query<Watched>, QueryRejection>,
) -> Result<impl IntoResponse, Refusal> {
    let Query(watched) = query?;
    let permit = api.0.watching.clone().try_acquire_owned();
    let permit = permit.map_err(|_| Refusal::Busy(format!("{} watchers", super::WATCHING_MAX)))?;
    let watch = Watch {
        // Subscribed before the answer begins: who has seen its head misses nothing.
        feed: api.host().feed(),
        stopped: api.0.stopped.clone(),
        watched,
        _permit: permit,
    };
    let headers = [
        (header::CONTENT_TYPE, "application/x-ndjson"),
        (header::CACHE_CONTROL, "no-store"),
    ];
    Ok((headers, Body::from_stream(watch.chunks())))
}

struct Watch {
    feed: Receiver<Happening>,
    stopped: watch::Receiver<bool>,
    watched: Watched,
    _permit: OwnedSemaphorePermit,
}

impl Watch {
    fn chunks(self) -> impl Stream<Item = Result<Bytes, Infallible>> {
        unfold(self, |mut watch| async move {
            let chunk = watch.chunk().await?;
            Some((Ok(chunk), watch))
        })
    }

    /// The next lines: waits for one and takes what else there is. `None` at the end.
    async fn chunk(&mut self) -> Option<Bytes> {
        let mut chunk = BytesMut::new();
        // Of what is sent, not of what happens: most of it may be of no interest to this client.
        let mut quiet = pin!(sleep(QUIET));
        while chunk.is_empty() {
            let received = tokio::select! {
                received = self.feed.recv() => received,
                () = super::until(self.stopped.clone()) => return None,
                () = &mut quiet => {
                    chunk.put_u8(b'\n');
                    break;
                }
            };
            match received {
                Ok(happening) => self.add(&mut chunk, happening),
                Err(RecvError::Lagged(missed)) => write_line(&mut chunk, &TailLine::Missed { missed }),
                Err(RecvError::Closed) => return None,
            }
            self.add_waiting(&mut chunk);
        }
        Some(chunk.freeze())
    }

    fn add_waiting(&mut self, chunk: &mut BytesMut) {
        while chunk.len() < CHUNK_BYTES {
            match self.feed.try_recv() {
                Ok(happening) => self.add(chunk, happening),
                Err(TryRecvError::Lagged(missed)) => write_line(chunk, &TailLine::Missed { missed }),
                // If it is closed, the next wait says so.
                Err(TryRecvError::Empty | TryRecvError::Closed) => break,
            }
        }
    }

    fn add(&self, chunk: &mut BytesMut, happening: Happening) {
        if self.watched.is_met_by(&happening) {
            write_line(chunk, &TailLine::of(happening));
        }
    }
}

fn write_line(chunk: &mut BytesMut, line: &TailLine) {
    // Strings and numbers into memory: this can't fail.
    let _ = serde_json::to_writer(chunk.writer(), line);
    chunk.put_u8(b'\n');
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use futures_util::StreamExt as _;
    use tokio::sync::{Semaphore, broadcast};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_quiet_host_sends_an_empty_line_from_time_to_time() {
        let (_happens, feed) = broadcast::channel(1);
        let (_stop, stopped) = watch::channel(false);
        let watch = Watch {
            feed,
            stopped,
            watched: Watched::default(),
            _permit: Arc::new(Semaphore::new(1)).acquire_owned().await.unwrap(),
        };
        let mut chunks = pin!(watch.chunks());
        for _ in 0..2 {
            assert_eq!(chunks.next().await, Some(Ok(Bytes::from_static(b"\n"))));
        }
    }
}
