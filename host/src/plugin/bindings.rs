//! The Rust side of the contract in `wit/`, and of the standard interfaces that need our own implementation.
//!
//! `wasi:keyvalue` is served under both of its names that plugins are built against: pre-release versions never count as
//! compatible with each other, so each is linked by itself. The older one is no part of `wit/`, which plugins are built with: it
//! is in `wit/compat/`.

use std::sync::Arc;

/// `tidegate:plugin`: our own world. What goes into the guest is borrowed, so that an event is copied once, by the engine.
pub(super) mod consumer {
    wasmtime::component::bindgen!({
        path: "../wit",
        world: "tidegate:plugin/consumer",
        imports: { default: trappable },
        exports: { default: async },
        ownership: Borrowing { duplicate_if_necessary: true },
    });
}

/// `wasi:keyvalue@0.2.0-draft2`.
pub(super) mod keyvalue {
    wasmtime::component::bindgen!({
        path: "../wit",
        inline: "
            package tidegate:host;
            world state {
                import wasi:keyvalue/store@0.2.0-draft2;
                import wasi:keyvalue/atomics@0.2.0-draft2;
                import wasi:keyvalue/batch@0.2.0-draft2;
            }
        ",
        world: "tidegate:host/state",
        imports: { default: async | trappable },
        with: {
            "wasi:keyvalue/store.bucket": super::Bucket,
            "wasi:keyvalue/atomics.cas": super::Cas,
        },
    });
}

/// `wasi:keyvalue@0.2.0-draft`.
pub(super) mod keyvalue_draft {
    wasmtime::component::bindgen!({
        path: "../wit/compat/keyvalue-draft",
        inline: "
            package tidegate:host;
            world state {
                import wasi:keyvalue/store@0.2.0-draft;
                import wasi:keyvalue/atomics@0.2.0-draft;
                import wasi:keyvalue/batch@0.2.0-draft;
            }
        ",
        world: "tidegate:host/state",
        imports: { default: async | trappable },
        with: { "wasi:keyvalue/store.bucket": super::Bucket },
    });
}

/// `wasi:config@0.2.0-rc.1`.
pub(super) mod config {
    wasmtime::component::bindgen!({
        path: "../wit",
        inline: "
            package tidegate:host;
            world settings { import wasi:config/store@0.2.0-rc.1; }
        ",
        world: "tidegate:host/settings",
        imports: { default: trappable },
    });
}

/// A state bucket that a guest has open.
#[derive(Clone, Debug)]
#[expect(unreachable_pub, reason = "the generated code re-exports it")]
pub struct Bucket(pub(super) Arc<str>);

/// A compare-and-swap that a guest has begun: the key it is about.
#[derive(Debug)]
#[expect(unreachable_pub, reason = "the generated code re-exports it")]
pub struct Cas {
    pub(super) bucket: Bucket,
    pub(super) key: String,
}
