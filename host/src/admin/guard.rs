//! Who may ask.
//!
//! With a token, `/api` demands it as `Authorization: Bearer`.
//!
//! Without one the API listens on loopback only, and whoever has an account on the machine may ask. A web page in a browser on that machine
//! must not, and two ways are open to it. DNS rebinding: the page's own name is made to resolve to 127.0.0.1, so that its scripts reach the
//! API and, being of the same origin, read the answers; but they can't change the `Host` header, which names the page's host, and is
//! refused here. A request across origins: it can be sent, blindly, only with a content type that needs no preflight; the API answers no
//! preflight, and takes bodies only as `application/json` or CloudEvents, which need one.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};

use super::Refusal;
use crate::broker::http::bearer;
use crate::plan::Secret;

/// What is demanded of a request.
pub(super) enum Guard {
    /// This token.
    Token(Secret),
    /// That it was meant for this address, or for this machine by a name that only it has.
    Local(SocketAddr),
}

impl Guard {
    pub(super) fn new(token: Option<Secret>, address: SocketAddr) -> Self {
        token.map_or(Self::Local(address), Self::Token)
    }

    fn admits(&self, request: &Request) -> Result<(), Refusal> {
        match self {
            Self::Token(token) if request.uri().path().starts_with("/api") => {
                check_token(request.headers(), token.reveal())
            }
            Self::Token(_) => Ok(()),
            Self::Local(address) => check_host(request, address),
        }
    }
}

/// Passes a request on, or refuses it.
pub(super) async fn check(State(guard): State<Arc<Guard>>, request: Request, next: Next) -> Response {
    match guard.admits(&request) {
        Ok(()) => next.run(request).await,
        Err(refusal) => refusal.into_response(),
    }
}

fn check_token(headers: &HeaderMap, expected: &str) -> Result<(), Refusal> {
    match bearer::given(headers) {
        Some(given) if bearer::is_same(given.as_bytes(), expected.as_bytes()) => Ok(()),
        _ => Err(Refusal::Token),
    }
}

fn check_host(request: &Request, address: &SocketAddr) -> Result<(), Refusal> {
    let header = request.headers().get(header::HOST);
    // HTTP/2 has the authority in the request line instead.
    let named = match header {
        Some(value) => value.to_str().ok().and_then(|text| text.parse::<Authority>().ok()),
        None => request.uri().authority().cloned(),
    };
    let is_local = named.as_ref().is_some_and(|named| {
        ["localhost", "127.0.0.1", "[::1]"].contains(&named.host().to_ascii_lowercase().as_str())
            || named.as_str() == address.to_string()
    });
    if is_local {
        Ok(())
    } else {
        Err(Refusal::Host(named.map(|named| named.to_string())))
    }
}
