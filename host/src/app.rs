//! The service, put together once, in order of need: store, ledger, brokers, plugins, relays, pipelines, doors.
//!
//! [`Host`] is what the doors (the admin API) see of it.

pub mod connect;
pub mod dead_letters;
pub mod host;

pub use host::Host;
