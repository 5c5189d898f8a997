//! The config as written.
