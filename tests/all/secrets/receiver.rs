//! A receiver of webhooks that sends back all that it was sent, in a page for those who debug it. The path's last part is the status of
//! its answer.

use axum::Router;
use axum::extract::Request;
use axum::http::StatusCode;
use tokio::task::JoinHandle;

/// On a free port. Ends when it is dropped.
pub(super) struct Receiver {
    pub(super) url: String,
    task: JoinHandle<()>,
}

impl Receiver {
    pub(super) async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let router = Router::new().fallback(answer);
        let task = tokio::spawn(async move {
            let _ = axum::serve(listener, router).await;
        });
        Self { url, task }
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn answer(request: Request) -> (StatusCode, String) {
    let status = request
        .uri()
        .path()
        .rsplit('/')
        .next()
        .and_then(|status| status.parse().ok());
    let authorization = request.headers().get("authorization");
    // First, as only the beginning of an answer is repeated.
    let text = format!("authorization: {authorization:?}; {:?}", request.headers());
    (status.unwrap_or(StatusCode::NOT_FOUND), text)
}
