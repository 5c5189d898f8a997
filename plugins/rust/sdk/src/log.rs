//! Lines in the host's log (`wasi:logging`), which knows the consumer and the event by itself.
//!
//! ```
//! use tidegate_plugin::log;
//!
//! log::info!("reserved {} pieces", 3);
//! ```

pub use crate::bindings::wasi::logging::logging::Level;
#[doc(inline)]
pub use crate::{__debug as debug, __error as error, __info as info, __trace as trace, __warn as warn};

/// Writes a line. `context` says which part of the plugin speaks; the macros give the module.
pub fn write(level: Level, context: &str, message: &str) {
    crate::host::log(level, context, message);
}

/// Logs at level trace, with the words of `format!`.
#[doc(hidden)]
#[macro_export]
macro_rules! __trace {
    ($($text:tt)+) => { $crate::log::write($crate::log::Level::Trace, module_path!(), &format!($($text)+)) };
}

/// Logs at level debug, with the words of `format!`.
#[doc(hidden)]
#[macro_export]
macro_rules! __debug {
    ($($text:tt)+) => { $crate::log::write($crate::log::Level::Debug, module_path!(), &format!($($text)+)) };
}

/// Logs at level info, with the words of `format!`.
#[doc(hidden)]
#[macro_export]
macro_rules! __info {
    ($($text:tt)+) => { $crate::log::write($crate::log::Level::Info, module_path!(), &format!($($text)+)) };
}

/// Logs at level warn, with the words of `format!`.
#[doc(hidden)]
#[macro_export]
macro_rules! __warn {
    ($($text:tt)+) => { $crate::log::write($crate::log::Level::Warn, module_path!(), &format!($($text)+)) };
}

/// Logs at level error, with the words of `format!`.
#[doc(hidden)]
#[macro_export]
macro_rules! __error {
    ($($text:tt)+) => { $crate::log::write($crate::log::Level::Error, module_path!(), &format!($($text)+)) };
}
