//! The broker suite over real servers, and what is special about each broker.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests report by panicking, also from their helpers"
)]

mod nats;
