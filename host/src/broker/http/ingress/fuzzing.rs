//! What `host/fuzz` reaches here: the whole ingress, without a socket.

use std::time::Duration;

use axum::Router;

use super::{Lookup, router};
use crate::plan;

/// The ingress as it answers requests.
#[must_use]
pub fn ingress(plan: plan::Ingress, lookup: Lookup) -> Router {
    router(plan, lookup, Duration::from_secs(30))
}
