//! Everything that is tested through the host's public face, in one binary.

mod architecture;
mod brokers;
mod emitting;
mod faults;
mod limits;
mod loading;
mod neighbours;
mod restart;
mod reuse;
mod secrets;
mod security;
mod service;
mod state;
