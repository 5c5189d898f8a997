//! A receiver of webhooks: keeps what comes, and answers as it is told.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use tokio::task::JoinHandle;

/// A request that came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Received {
    /// The `id` of the event.
    pub id: String,
    /// Of which event it is the consequence.
    pub cause: String,
    /// Of which event it is the consequence in the end.
    pub root: String,
    /// Its data.
    pub data: String,
}

/// A receiver on a free port. Ends when it is dropped.
#[derive(Debug)]
pub struct Sink {
    address: SocketAddr,
    shelf: Arc<Shelf>,
    task: JoinHandle<()>,
}

#[derive(Debug)]
struct Shelf {
    received: Mutex<Vec<Received>>,
    answer: AtomicU16,
}

impl Sink {
    /// Starts one that takes everything.
    ///
    /// # Panics
    /// If there is no free port.
    pub async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let shelf = Arc::new(Shelf {
            received: Mutex::default(),
            answer: AtomicU16::new(204),
        });
        let router = Router::new().fallback(receive).with_state(shelf.clone());
        let task = tokio::spawn(async move {
            let _ = axum::serve(listener, router).await;
        });
        Self { address, shelf, task }
    }

    /// Where it listens.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Answers with this status from now on; keeps only what it answers with 2xx.
    pub fn answer(&self, status: u16) {
        self.shelf.answer.store(status, Ordering::SeqCst);
    }

    /// What came and was taken, in order.
    #[must_use]
    pub fn received(&self) -> Vec<Received> {
        self.shelf
            .received
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn receive(State(shelf): State<Arc<Shelf>>, headers: HeaderMap, body: Bytes) -> StatusCode {
    let text = |name: &str| {
        headers
            .get(name)
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default()
            .to_owned()
    };
    let status = StatusCode::from_u16(shelf.answer.load(Ordering::SeqCst)).expect("a status");
    if status.is_success() {
        shelf
            .received
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(Received {
                id: text("ce-id"),
                cause: text("ce-causationid"),
                root: text("ce-correlationid"),
                data: String::from_utf8_lossy(&body).into_owned(),
            });
    }
    status
}
