//! How consumers and streams fare.

use axum::Json;
use axum::extract::State;

use super::Api;
use crate::app::host::{ConsumerStatus, StreamStatus};

/// How the consumers fare, by name.
#[utoipa::path(get, path = "/api/v1/consumers", tag = "status", responses(
    (status = 200, description = "each of them", body = Vec<ConsumerStatus>),
))]
pub(super) async fn consumers(State(api): State<Api>) -> Json<Vec<ConsumerStatus>> {
    Json(api.host().consumers())
}

/// How the streams fare, by name.
#[utoipa::path(get, path = "/api/v1/streams", tag = "status", responses(
    (status = 200, description = "each of them", body = Vec<StreamStatus>),
))]
pub(super) async fn streams(State(api): State<Api>) -> Json<Vec<StreamStatus>> {
    Json(api.host().streams())
}
