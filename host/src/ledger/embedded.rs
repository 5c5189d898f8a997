//! The ledger in the embedded store.
