//! Bearer tokens (RFC 6750) as listeners ask for them.

use axum::http::{HeaderMap, header};
use sha2::{Digest as _, Sha256};

/// The token of an `Authorization: Bearer`.
pub(crate) fn given(headers: &HeaderMap) -> Option<&str> {
    let header = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = header.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

/// Compares hashes, so that the time it takes says nothing about how much of a guess is right.
pub(crate) fn is_same(given: &[u8], expected: &[u8]) -> bool {
    Sha256::digest(given) == Sha256::digest(expected)
}
