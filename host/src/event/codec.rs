//! CloudEvents bindings.
