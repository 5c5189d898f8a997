//! Dead letters: read them, run them again, forget them.

use axum::Json;
use axum::extract::rejection::{JsonRejection, PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use serde::Deserialize;

use super::view::{DeadLetter, DeadLetterLine, DeadLetterPage, Problem, Selection};
use super::{Api, Refusal};
use crate::app::dead_letters::Done;
use crate::ledger::{DeadId, DeadPlace};

/// Of one page.
pub(super) const LIMIT_MAX: usize = 1_000;
const LIMIT: usize = 100;

/// Which dead letters to list.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Listed {
    /// Of this consumer.
    consumer: Option<String>,
    /// For this reason.
    reason: Option<String>,
    /// After this place: `next` of the page before.
    after: Option<u64>,
    /// At most so many: 1 to 1,000, by default 100.
    limit: Option<usize>,
}

/// Lists dead letters, oldest first.
#[utoipa::path(get, path = "/api/v1/dead-letters", tag = "dead letters", params(Listed), responses(
    (status = 200, description = "a page of them", body = DeadLetterPage),
    (status = 400, description = "a parameter makes no sense", body = Problem),
    (status = 503, description = "the ledger does not answer", body = Problem),
))]
pub(super) async fn list(
    State(api): State<Api>,
    query: Result<Query<Listed>, QueryRejection>,
) -> Result<Json<DeadLetterPage>, Refusal> {
    let Query(listed) = query?;
    let limit = listed.limit.unwrap_or(LIMIT);
    if limit == 0 || limit > LIMIT_MAX {
        return Err(Refusal::Invalid(format!(
            "limit is {limit}: it must be 1 to {LIMIT_MAX}"
        )));
    }
    let filter = Selection::filter(listed.consumer.as_deref(), listed.reason.as_deref())?;
    let after = listed.after.map(DeadPlace);
    let found = api.host().dead_letters(&filter, after, limit, DeadLetterLine::of);
    let (lines, next) = found.await?;
    Ok(Json(DeadLetterPage::of(lines, next)))
}

/// Shows a dead letter whole.
#[utoipa::path(
    get,
    path = "/api/v1/dead-letters/{id}",
    tag = "dead letters",
    params(("id" = String, Path, description = "its id: 32 hex digits")),
    responses(
        (status = 200, description = "all that is known of it", body = DeadLetter),
        (status = 400, description = "this is no id", body = Problem),
        (status = 404, description = "there is none", body = Problem),
        (status = 503, description = "the ledger does not answer", body = Problem),
    ),
)]
pub(super) async fn show(
    State(api): State<Api>,
    path: Result<Path<String>, PathRejection>,
) -> Result<Json<DeadLetter>, Refusal> {
    let Path(text) = path?;
    let letter = api.host().dead_letter(id(&text)?).await?;
    let letter = letter.ok_or(Refusal::NoDeadLetter(text))?;
    Ok(Json(DeadLetter::of(&letter, &api.host().plan)))
}

/// Puts dead letters back into their lanes and runs them.
#[utoipa::path(post, path = "/api/v1/dead-letters/redrive", tag = "dead letters", request_body = Selection, responses(
    (status = 200, description = "what was done", body = Done),
    (status = 400, description = "nothing is selected, or it makes no sense", body = Problem),
    (status = 503, description = "the ledger does not answer; some may be back already: ask again", body = Problem),
))]
pub(super) async fn redrive(
    State(api): State<Api>,
    body: Result<Json<Selection>, JsonRejection>,
) -> Result<Json<Done>, Refusal> {
    let Json(selection) = body?;
    let done = api.host().redrive(&selection.which()?, selection.dry_run).await?;
    Ok(Json(done))
}

/// Forgets dead letters for good.
#[utoipa::path(post, path = "/api/v1/dead-letters/purge", tag = "dead letters", request_body = Selection, responses(
    (status = 200, description = "what was done", body = Done),
    (status = 400, description = "nothing is selected, or it makes no sense", body = Problem),
    (status = 503, description = "the ledger does not answer; some may be gone already: ask again", body = Problem),
))]
pub(super) async fn purge(
    State(api): State<Api>,
    body: Result<Json<Selection>, JsonRejection>,
) -> Result<Json<Done>, Refusal> {
    let Json(selection) = body?;
    let done = api.host().purge(&selection.which()?, selection.dry_run).await?;
    Ok(Json(done))
}

fn id(text: &str) -> Result<DeadId, Refusal> {
    text.parse()
        .map_err(|error: crate::ledger::BadRecordKey| Refusal::Invalid(error.to_string()))
}
