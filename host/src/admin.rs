//! The admin API: health, metrics, and what an operator asks of a running host.
//!
//! `/healthz`, `/readyz` and `/metrics` are open to whoever reaches the listener; `/api` demands the token, if there is one. What is
//! safe without a token, and why, stands in `guard`. Every answer but metrics is JSON, and every refusal is
//! `{ "error": code, "message": text }`.

mod consumers;
mod dead_letters;
#[cfg(fuzzing)]
pub mod fuzzing;
mod guard;
mod health;
mod openapi;
mod publish;
mod refusal;
mod tail;
pub mod view;

#[cfg(test)]
pub(crate) mod tests;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::DefaultBodyLimit;
use axum::routing::{MethodRouter, get, post};
use axum::{Router, middleware};
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;

use self::guard::Guard;
use self::refusal::Refusal;
use crate::app::Host;
use crate::broker::http::connections::Bounded;
use crate::plan;

/// Bytes of one request body. A batch of 500 events of 16 KiB fits; the largest event that brokers take by default is 1 MiB.
pub const BODY_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Bodies of events held at once, so 128 MiB; what is over gets 503.
const PUBLISHING_MAX: usize = 16;
/// Watchers at once; what is over gets 503.
const WATCHING_MAX: usize = 64;
/// Connections at once; further ones wait. Watchers and probes have theirs, and there is room for people.
const CONNECTIONS_MAX: usize = 256;
/// A connection is closed when nothing has come or gone for this long, or when twice this has passed without an answer. Longer than any
/// request lasts and than clients keep idle connections; watchers are sent something more often.
const IDLE_TIMEOUT: Duration = Duration::from_secs(300);

/// The admin API can't start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Its address is taken, or is not this machine's.
    #[error("the admin API can't listen on {address}: {error}")]
    Listen {
        /// The address from the config.
        address: SocketAddr,
        /// What the system said.
        error: io::Error,
    },
    /// Whoever reaches the address could purge dead letters.
    #[error("the admin API won't listen on {address} without a token: set admin.token, or listen on 127.0.0.1")]
    Unprotected {
        /// The address from the config.
        address: SocketAddr,
    },
}

impl Error {
    /// The heading in `docs/errors.md`.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Listen { .. } => crate::app::Error::LISTEN,
            Self::Unprotected { .. } => "config-token-needed",
        }
    }
}

/// An address that is taken, before there is a host to serve at it.
#[derive(Debug)]
pub struct Door {
    address: SocketAddr,
    listener: TcpListener,
    token: Option<plan::Secret>,
}

impl Door {
    /// Listens. Who connects waits until it serves.
    ///
    /// # Errors
    /// [`Error::Listen`]: another address may work. [`Error::Unprotected`] never passes the config; it is refused here too, because of what
    /// it would open.
    pub async fn open(plan: &plan::Admin) -> Result<Self, Error> {
        if plan.token.is_none() && !plan.listen.ip().is_loopback() {
            return Err(Error::Unprotected { address: plan.listen });
        }
        let listen = |error| Error::Listen {
            address: plan.listen,
            error,
        };
        let listener = TcpListener::bind(plan.listen).await.map_err(listen)?;
        Ok(Self {
            address: listener.local_addr().map_err(listen)?,
            listener,
            token: plan.token.clone(),
        })
    }

    /// Serves until it is stopped.
    #[must_use]
    pub fn serve(self, host: Arc<Host>) -> Serving {
        let Self {
            address,
            listener,
            token,
        } = self;
        let (stopping, stopped) = watch::channel(false);
        let router = router(Api::new(host, stopped.clone()), Guard::new(token, address));
        let listener = Bounded::new(listener, CONNECTIONS_MAX, IDLE_TIMEOUT);
        let service = axum::serve(listener, router).with_graceful_shutdown(until(stopped));
        let task = tokio::spawn(service.into_future());
        tracing::info!(%address, "the admin API listens");
        Serving {
            address,
            stopping,
            task,
        }
    }
}

/// A running admin API. Dropping it begins a drain that nobody waits for; use [`Serving::stop`].
#[derive(Debug)]
pub struct Serving {
    address: SocketAddr,
    stopping: watch::Sender<bool>,
    task: JoinHandle<io::Result<()>>,
}

impl Serving {
    /// Where it listens; the port that was found if the config asked for a free one.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Takes no new connection, ends the streams of watchers, answers the requests under way, and returns when all are answered or
    /// `grace` has passed. Says whether all were answered.
    pub async fn stop(self, grace: Duration) -> bool {
        let Self { stopping, mut task, .. } = self;
        stopping.send_replace(true);
        let is_drained = tokio::time::timeout(grace, &mut task).await.is_ok();
        task.abort();
        is_drained
    }
}

/// Returns once the API is to stop.
async fn until(mut stopped: watch::Receiver<bool>) {
    // An error says that the handle was dropped, which is to stop it too.
    let _ = stopped.wait_for(|is_stopped| *is_stopped).await;
}

/// What the handlers work with. Cloning shares it.
#[derive(Clone)]
struct Api(Arc<Shared>);

struct Shared {
    host: Arc<Host>,
    publishing: Semaphore,
    watching: Arc<Semaphore>,
    stopped: watch::Receiver<bool>,
}

impl Api {
    fn new(host: Arc<Host>, stopped: watch::Receiver<bool>) -> Self {
        Self(Arc::new(Shared {
            host,
            publishing: Semaphore::new(PUBLISHING_MAX),
            watching: Arc::new(Semaphore::new(WATCHING_MAX)),
            stopped,
        }))
    }

    fn host(&self) -> &Host {
        &self.0.host
    }
}

/// Every route. The OpenAPI document has each of them; a test holds one against the other.
fn routes() -> Vec<(&'static str, MethodRouter<Api>)> {
    vec![
        ("/healthz", get(health::alive)),
        ("/readyz", get(health::ready)),
        ("/metrics", get(health::metrics)),
        ("/api/v1/consumers", get(consumers::consumers)),
        ("/api/v1/streams", get(consumers::streams)),
        ("/api/v1/streams/{stream}/events", post(publish::publish)),
        ("/api/v1/dead-letters", get(dead_letters::list)),
        ("/api/v1/dead-letters/{id}", get(dead_letters::show)),
        ("/api/v1/dead-letters/redrive", post(dead_letters::redrive)),
        ("/api/v1/dead-letters/purge", post(dead_letters::purge)),
        ("/api/v1/tail", get(tail::tail)),
        ("/api/v1/openapi.json", get(openapi::document)),
    ]
}

/// The guard stands outermost: who may not ask learns nothing, not even which routes exist.
fn router(api: Api, guard: Guard) -> Router {
    routes()
        .into_iter()
        .fold(Router::new(), |router, (path, methods)| router.route(path, methods))
        .fallback(async || Refusal::NoRoute)
        .method_not_allowed_fallback(async || Refusal::NoMethod)
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .layer(middleware::from_fn_with_state(Arc::new(guard), guard::check))
        .with_state(api)
}
