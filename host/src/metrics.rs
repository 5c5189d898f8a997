//! What the host counts.
