//! The behaviour of a whole consumer over the real embedded store, ledger and broker; and, in `simulation`, over simulated ones.

mod breaker;
mod dead_letters;
mod duplicates;
mod everything;
mod failing;
mod handler;
mod lanes;
mod outside;
mod parking;
mod races;
mod relaying;
mod retry;
pub(super) mod simulation;
mod stage;
mod stopping;
