//! Tidegate: dispatches broker events to sandboxed WebAssembly plugins, each taking effect once.
//!
//! `docs/ARCHITECTURE.md` is the map. The binary is `main.rs`; this library is what it and the tests are made of.

pub mod admin;
pub mod app;
pub mod broker;
pub mod cli;
pub mod clock;
pub mod config;
pub mod crash;
#[cfg(test)]
mod documented;
pub mod event;
pub mod ledger;
pub mod metrics;
pub mod outcome;
pub mod pipeline;
pub mod plan;
pub mod plugin;
pub mod store;
