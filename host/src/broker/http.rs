//! HTTP: an ingress that takes events and puts them on streams, and a webhook broker that is only written to.
//!
//! The two are each other's counterpart: what [`webhook`] sends, [`ingress`] of another host takes, with all headers and
//! extensions.

pub(crate) mod bearer;
pub(crate) mod connections;
pub mod ingress;
pub mod webhook;

#[cfg(test)]
mod tests;
