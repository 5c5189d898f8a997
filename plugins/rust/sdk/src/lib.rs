//! Write Tidegate plugins in Rust.
//!
//! A plugin is a function from an event to a result. What it emits and what it writes to its state takes effect if it returns
//! `Ok`, all of it and once; on a failure or a panic nothing does.
//!
//! ```
//! use tidegate_plugin::{Draft, Event, Failure};
//!
//! #[derive(serde::Deserialize)]
//! struct Order {
//!     id: String,
//! }
//!
//! fn handle(event: Event) -> Result<(), Failure> {
//!     let order: Order = event.json()?;
//!     Draft::new("com.example.order.accepted").subject(&order.id).emit()?;
//!     Ok(())
//! }
//!
//! tidegate_plugin::handler!(handle);
//! # fn main() {}
//! ```
//!
//! Built for `wasm32-wasip2`, everything here calls the host. Natively, in `cargo test`, the same calls meet the recorder of
//! [`testing`], so that a plugin is tested like any other function.
//!
//! A component imports only what its plugin calls: one that never touches [`state`] needs no grant for it.

#[doc(hidden)]
#[allow(missing_docs, unreachable_pub, clippy::all)]
pub mod bindings {
    wit_bindgen::generate!({
        world: "guest",
        path: "wit",
        generate_all,
        additional_derives: [PartialEq, Eq],
        pub_export_macro: true,
        export_macro_name: "export_guest",
        default_bindings_module: "tidegate_plugin::bindings",
    });
}

pub mod config;
mod event;
mod failure;
mod host;
pub mod log;
pub mod state;
#[cfg(not(target_arch = "wasm32"))]
pub mod testing;

/// The snippets of the README compile and hold.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
mod readme {}

pub use bindings::tidegate::plugin::context::Attempt;
pub use bindings::tidegate::plugin::outbox::EmitError;
pub use bindings::tidegate::plugin::types::{Draft, Event, Extension, Failure, Transient};

/// Where and how the event is being handled: the consumer's name, the attempt (counted from 1), the time left, the
/// idempotency key to hand to services that can dedupe by it.
#[must_use]
pub fn context() -> Attempt {
    host::context()
}

/// Makes a function the plugin's handler. Once per plugin.
///
/// The function takes an [`Event`] and returns `Result<(), Failure>`.
#[macro_export]
macro_rules! handler {
    ($handle:path) => {
        #[cfg(target_arch = "wasm32")]
        const _: () = {
            struct Plugin;

            impl $crate::bindings::exports::tidegate::plugin::handler::Guest for Plugin {
                fn handle(event: $crate::Event) -> ::core::result::Result<(), $crate::Failure> {
                    $handle(event)
                }
            }

    $crate::bindings::export_guest!(Plugin with_types_in $crate::bindings);
        };
    };
}
