//! The flash sale: what is published, what must come of it, and the report.

pub mod report;
pub mod scenario;
pub mod verify;
