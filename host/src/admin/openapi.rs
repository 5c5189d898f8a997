//! The API's description of itself, made from the code.

use axum::Json;
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityRequirement, SecurityScheme};
use utoipa::{Modify, OpenApi, openapi};

use super::{consumers, dead_letters, health, publish, tail};

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Tidegate admin API",
        description = "What an operator asks of a running host. Refusals are `{ error, message }`; docs/errors.md has what to do for each code."
    ),
    modifiers(&Token),
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

/// What `/api` demands if admin.token is set; without one, nothing.
struct Token;

impl Modify for Token {
    fn modify(&self, document: &mut openapi::OpenApi) {
        let scheme = SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer));
        let components = document.components.get_or_insert_default();
        components.add_security_scheme("token", scheme);
        let token = SecurityRequirement::new("token", Vec::<String>::new());
        document.security = Some(vec![SecurityRequirement::default(), token]);
    }
}

/// This document.
#[utoipa::path(get, path = "/api/v1/openapi.json", tag = "health", responses(
    (status = 200, description = "OpenAPI 3.1", body = serde_json::Value),
))]
pub(super) async fn document() -> Json<openapi::OpenApi> {
    Json(Description::openapi())
}
