//! The way of one event.
