//! For whatever keeps the host running and watches it.

use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;

use super::Api;
use super::view::{Alive, Ready, ReadyConsumer, ReadyStream};
use crate::ledger::Trouble;

/// What `prometheus-client` writes: <https://github.com/prometheus/OpenMetrics/blob/v1.0.0/specification/OpenMetrics.md#text-format>.
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Whether the process lives: restart it if this does not answer.
#[utoipa::path(get, path = "/healthz", tag = "health", responses((status = 200, description = "it lives", body = Alive)))]
pub(super) async fn alive() -> Json<Alive> {
    Json(Alive::now())
}

/// Whether every consumer is subscribed and the ledger can be written, and why not; and which streams can't be written.
#[utoipa::path(get, path = "/readyz", tag = "health", responses(
    (status = 200, description = "every consumer is subscribed, and the ledger can be written", body = Ready),
    (status = 503, description = "some are not, or it can't", body = Ready),
))]
pub(super) async fn ready(State(api): State<Api>) -> impl IntoResponse {
    let consumers: Vec<ReadyConsumer> = api.host().consumers().into_iter().map(ReadyConsumer::of).collect();
    // Of one reading, so that status and consumers agree.
    let trouble = api.host().ledger_trouble();
    let is_written = !matches!(trouble, Some(Trouble::Unwritable(_)));
    let ready = is_written && consumers.iter().all(|consumer| consumer.subscribed);
    let ledger = trouble.map(|trouble| trouble.to_string());
    let status = match ready {
        true => StatusCode::OK,
        false => StatusCode::SERVICE_UNAVAILABLE,
    };
    let said = Ready {
        ready,
        ledger,
        consumers,
        streams: api.host().streams().into_iter().filter_map(ReadyStream::of).collect(),
    };
    (status, Json(said))
}

/// Metrics in the OpenMetrics text format, which Prometheus reads.
#[utoipa::path(get, path = "/metrics", tag = "health", responses(
    (status = 200, description = "all of them", content_type = "application/openmetrics-text", body = String),
))]
pub(super) async fn metrics(State(api): State<Api>) -> impl IntoResponse {
    let _ = api.host().ledger_trouble();
    ([(header::CONTENT_TYPE, OPEN_METRICS)], api.host().metrics.text())
}
