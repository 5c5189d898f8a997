//! The behaviour of a whole consumer over the real embedded store, ledger and broker.

mod duplicates;
mod failing;
mod handler;
mod lanes;
mod outputs;
mod outside;
mod parking;
mod restarts;
mod retries;
mod stage;
