//! What the tests share: guests, plugins loaded from them, servers.

pub mod chance;
pub mod disk;
pub mod guests;
pub mod host;
pub mod plugins;
pub mod servers;
pub mod sink;
pub mod toxiproxy;
