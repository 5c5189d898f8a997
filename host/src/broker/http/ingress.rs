//! The ingress: takes events over HTTP and puts them on streams.
//!
//! `POST` on a route takes one event in binary or structured mode, a batch of them, or a foreign message if the route's stream has a
//! mapping. The answer is 202 only once the broker has all of it durably; after any other answer the client sends the whole
//! request again, and what was published before is dropped by its id, which depends on route, source and id alone. Of a batch
//! nothing is published unless all of it is fit to be.
//!
//! | status | when |
//! | --- | --- |
//! | 202 `{"accepted": n}` | the broker has it |
//! | 400 | no CloudEvent, or it does not fit the stream, or the broker refuses it; `error` is the code |
//! | 401 | no token, or a wrong one |
//! | 404, 405 | no such route, not `POST` |
//! | 408 | the body did not arrive in time |
//! | 413 | more than `body_bytes_max`, or than the broker takes |
//! | 415 | neither a CloudEvent nor a stream with a mapping |
//! | 503 with `Retry-After` | too many requests are under way, or the broker is away |

mod answer;
#[cfg(fuzzing)]
pub mod fuzzing;
mod intake;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::Method;
use axum::response::Response;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, oneshot};
use tokio::task::JoinHandle;

use super::bearer;
use super::connections::Bounded;
use crate::broker::Publisher;
use crate::plan;
use answer::Answer;

/// How long a body may take to arrive. A client that sends none holds one of the requests under way meanwhile.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);

/// Connections for each request that may be under way: clients keep idle ones for the next request.
const CONNECTIONS_PER_REQUEST: usize = 4;
/// A connection is closed when nothing has come or gone for this long, or when twice this has passed without an answer. Longer than any
/// request lasts and than clients keep idle connections (usually 90 s), so that neither is cut off.
const IDLE_TIMEOUT: Duration = Duration::from_secs(300);

/// How a stream's publisher is found at the moment of a request; `None` while its broker is away.
pub type Lookup = Arc<dyn Fn(&plan::Stream) -> Option<Arc<dyn Publisher>> + Send + Sync>;

/// The ingress can't start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Its address is taken, or is not this machine's.
    #[error("the ingress can't listen on {address}: {error}")]
    Listen {
        /// The address from the config.
        address: SocketAddr,
        /// What the system said.
        error: io::Error,
    },
}

/// An address that is taken, before anything is served at it.
#[derive(Debug)]
pub struct Door {
    address: SocketAddr,
    listener: Bounded,
    plan: plan::Ingress,
}

impl Door {
    /// Listens. Who connects waits until it serves.
    ///
    /// # Errors
    /// [`Error::Listen`]: another address may work.
    pub async fn open(plan: plan::Ingress) -> Result<Self, Error> {
        let listen = |error| Error::Listen {
            address: plan.listen,
            error,
        };
        let listener = TcpListener::bind(plan.listen).await.map_err(listen)?;
        let address = listener.local_addr().map_err(listen)?;
        let connections_max = plan.concurrency.get().saturating_mul(CONNECTIONS_PER_REQUEST);
        let listener = Bounded::new(listener, connections_max, IDLE_TIMEOUT);
        Ok(Self {
            address,
            listener,
            plan,
        })
    }

    /// Serves until it is stopped.
    #[must_use]
    pub fn serve(self, lookup: Lookup) -> Serving {
        let Self {
            address,
            listener,
            plan,
        } = self;
        let (stop, stopped) = oneshot::channel();
        let service = axum::serve(listener, router(plan, lookup, BODY_TIMEOUT)).with_graceful_shutdown(async {
            stopped.await.ok();
        });
        let task = tokio::spawn(service.into_future());
        tracing::info!(%address, "the ingress listens");
        Serving { address, stop, task }
    }
}

/// A running ingress. Dropping it begins a drain that nobody waits for; use [`Serving::stop`].
#[derive(Debug)]
pub struct Serving {
    address: SocketAddr,
    stop: oneshot::Sender<()>,
    task: JoinHandle<io::Result<()>>,
}

impl Serving {
    /// Where it listens; the port that was found if the config asked for a free one.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Takes no new connection, answers the requests under way, and returns when all are answered or `grace` has passed. Says
    /// whether all were answered.
    pub async fn stop(self, grace: Duration) -> bool {
        let Self { stop, mut task, .. } = self;
        // Nobody listens any more only if the task has ended already.
        stop.send(()).ok();
        let is_drained = tokio::time::timeout(grace, &mut task).await.is_ok();
        task.abort();
        is_drained
    }
}

/// The ingress as a service, for whoever has a listener.
pub(super) fn router(plan: plan::Ingress, lookup: Lookup, body_timeout: Duration) -> Router {
    let permits = Semaphore::new(plan.concurrency.get().min(Semaphore::MAX_PERMITS));
    let ingress = Ingress {
        plan,
        lookup,
        body_timeout,
        permits,
    };
    Router::new().fallback(handle).with_state(Arc::new(ingress))
}

struct Ingress {
    plan: plan::Ingress,
    lookup: Lookup,
    body_timeout: Duration,
    permits: Semaphore,
}

async fn handle(State(ingress): State<Arc<Ingress>>, request: Request) -> Response {
    answer_to(&ingress, request).await.into()
}

/// The checks stand in order of their cost; who may not send learns nothing of routes. So every path gives its permission to send: a
/// sender asks for it without the token, and it is worth nothing without.
async fn answer_to(ingress: &Ingress, request: Request) -> Answer {
    if *request.method() == Method::OPTIONS {
        return Answer::Handshake(request.headers().get("webhook-request-origin").cloned());
    }
    if !is_allowed(&ingress.plan, &request) {
        return Answer::NotAllowed;
    }
    let Some(stream) = ingress.plan.routes.get(request.uri().path()).cloned() else {
        return Answer::NoRoute;
    };
    if *request.method() != Method::POST {
        return Answer::NotPost;
    }
    let Ok(_permit) = ingress.permits.try_acquire() else {
        return Answer::Busy;
    };
    match intake::take(ingress, &stream, request).await {
        Ok(count) => Answer::Accepted(count),
        Err(answer) => {
            tracing::debug!(stream = %stream.name, ?answer, "the ingress did not accept a request");
            answer
        }
    }
}

/// The token, as `Authorization: Bearer` or as the query's `access_token`: CloudEvents webhooks demand that both are taken.
fn is_allowed(plan: &plan::Ingress, request: &Request) -> bool {
    let Some(expected) = &plan.token else {
        return true;
    };
    let query = request.uri().query().unwrap_or_default();
    let parameter = query.split('&').find_map(|pair| pair.strip_prefix("access_token="));
    let decoded = parameter.map(|text| percent_encoding::percent_decode_str(text).collect::<Vec<u8>>());
    let given = bearer::given(request.headers())
        .map(str::as_bytes)
        .or(decoded.as_deref());
    given.is_some_and(|given| bearer::is_same(given, expected.reveal().as_bytes()))
}
