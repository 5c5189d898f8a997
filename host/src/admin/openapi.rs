//! The API's description of itself, made from the code.

use axum::Json;
use utoipa::OpenApi;
use utoipa::openapi;

use super::{consumers, dead_letters, health, publish, tail};

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Tidegate admin API",
        description = "What an operator asks of a running host. Refusals are `{ error, message }`; docs/errors.md has what to do for each code. With admin.token set, /api demands it as a bearer token."
    ),
    paths(
        health::alive,
        health::ready,
        health::metrics,
        consumers::consumers,
        consumers::streams,
        publish::publish,
        dead_letters::list,
        dead_letters::show,
        dead_letters::redrive,
        dead_letters::purge,
        tail::tail,
        document,
    )
)]
struct Description;

/// This document.
#[utoipa::path(get, path = "/api/v1/openapi.json", tag = "health", responses(
    (status = 200, description = "OpenAPI 3.1", body = serde_json::Value),
))]
pub(super) async fn document() -> Json<openapi::OpenApi> {
    Json(Description::openapi())
}
