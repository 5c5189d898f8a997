//! Streams in the ledger's own store.
