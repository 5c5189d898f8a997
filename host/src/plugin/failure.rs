//! What a failed call was: pure, from the engine's error and what the guest was refused before.

use std::collections::BTreeSet;
use std::time::Duration;

use wasmtime::{PoolConcurrencyLimitError, Trap, WasmBacktrace};
use wasmtime_wasi::I32Exit;

use super::bindings::consumer::tidegate::plugin::types;
use super::engine::FRAMES_MAX;
use super::logging::cut;
use crate::outcome::{Class, Failure, Outcome};

/// Bytes of a failure's message.
const MESSAGE_BYTES_MAX: usize = 4096;

/// Why we stopped a guest ourselves.
#[derive(Debug, thiserror::Error)]
pub(super) enum Stop {
    /// Its time is up.
    #[error("the time limit has passed")]
    Time,
    /// The ledger can't say what the guest must know.
    #[error("{0}")]
    Ledger(String),
}

/// What a guest was refused last. If it then fails without a failure of its own, this is the reason.
#[derive(Clone, Debug)]
pub(super) enum Refusal {
    /// Memory, table elements.
    Memory(String),
    /// An emit, a state write.
    Effect(String),
}

/// The outcome of a call that the guest failed in its own words.
pub(super) fn said(failure: types::Failure) -> Outcome {
    let (class, message, retry_after) = match failure {
        types::Failure::Permanent(reason) => (Class::Permanent, reason, None),
        types::Failure::Transient(transient) => (
            Class::Transient,
            transient.reason,
            transient.retry_after_ms.map(Duration::from_millis),
        ),
    };
    Outcome::Failed(Failure {
        class,
        message: one_line(&message),
        backtrace: Vec::new(),
        retry_after,
    })
}

/// The outcome of a call that did not return, not even a trap: the guest waits in a host function.
pub(super) fn waits() -> Outcome {
    Outcome::Failed(Failure {
        class: Class::TimeLimit,
        message: "the plugin waits in a host function at its time limit".to_owned(),
        backtrace: Vec::new(),
        retry_after: None,
    })
}

/// The outcome of a call that the engine ended with an error.
///
/// The cause comes first: time, stack and the ledger speak for themselves. Any other trap after a refusal is put down to the refusal:
/// a guest that can't allocate aborts, and one that can't emit panics. A refusal that the guest got over, long before it trapped for
/// another reason, is thus blamed too; its message has both.
pub(super) fn trapped(error: &wasmtime::Error, refusal: Option<&Refusal>, last_words: &str) -> Outcome {
    if let Some(Stop::Ledger(reason)) = error.downcast_ref() {
        return Outcome::NotRun(reason.clone());
    }
    if let Some(full) = error.downcast_ref::<PoolConcurrencyLimitError>() {
        return Outcome::NotRun(format!("no room for another instance: {full}"));
    }
    let (class, cause) = cause(error, refusal);
    let message = match panic(last_words) {
        None => with_words(&cause, last_words),
        Some((panic, before)) if class == Class::Trap => with_words(&format!("{panic}; {cause}"), &before),
        // A panic about what the guest was refused.
        Some((panic, before)) => with_words(&format!("{cause}: {panic}"), &before),
    };
    Outcome::Failed(Failure {
        class,
        message: one_line(&message),
        backtrace: backtrace(error),
        retry_after: None,
    })
}

fn with_words(text: &str, words: &str) -> String {
    match words {
        "" => text.to_owned(),
        words => format!("{text}: {words}"),
    }
}

/// What a Rust guest says when it panics: where and why, without the thread, which has no name; and what it wrote before. The trap that follows,
/// always the same, says nothing beside it.
fn panic(words: &str) -> Option<(String, String)> {
    let is_start = |line: &&str| line.starts_with("thread '") && line.contains(" panicked at ");
    let lines = words.lines().map(str::trim);
    // Whoever mends the plugin can't set variables here.
    let lines = lines.filter(|line| !line.is_empty() && !line.starts_with("note: run with `RUST_BACKTRACE"));
    let lines: Vec<&str> = lines.collect();
    let start = lines.iter().position(is_start)?;
    let (before, said) = lines.split_at(start);
    let (first, rest) = said.split_first()?;
    let (_, place) = first.split_once(" panicked at ")?;
    Some((format!("panicked at {place} {}", rest.join(" | ")), before.join(" | ")))
}

fn cause(error: &wasmtime::Error, refusal: Option<&Refusal>) -> (Class, String) {
    if error.is::<Stop>() {
        let text = "the plugin still ran at its time limit";
        return (Class::TimeLimit, text.to_owned());
    }
    if overflowed(error) {
        return (Class::StackOverflow, "the plugin's stack overflowed".to_owned());
    }
    let trap = trap(error);
    match refusal {
        Some(Refusal::Memory(text)) => (Class::MemoryLimit, format!("{text}; then {trap}")),
        Some(Refusal::Effect(text)) => (Class::EffectLimit, format!("{text}; then {trap}")),
        // The engine's error for this has no public type.
        None if trap.contains("fuel allocated for hostcalls") => (
            Class::EffectLimit,
            "the plugin handed over more data in one call than its limits allow".to_owned(),
        ),
        None => (Class::Trap, trap),
    }
}

/// Whether the stack overflowed: the engine's, or the one that compiled languages keep in linear memory. The latter ends below
/// address 0, where the access traps as any other; what tells it is a stack as deep as we look, of one function or a few in turn.
fn overflowed(error: &wasmtime::Error) -> bool {
    match error.downcast_ref() {
        Some(Trap::StackOverflow) => true,
        Some(Trap::MemoryOutOfBounds) => {
            let frames = error
                .downcast_ref::<WasmBacktrace>()
                .map_or(&[][..], WasmBacktrace::frames);
            let functions: BTreeSet<u32> = frames.iter().map(|frame| frame.func_index()).collect();
            frames.len() >= FRAMES_MAX && functions.len() <= FRAMES_MAX / 4
        }
        _ => false,
    }
}

fn trap(error: &wasmtime::Error) -> String {
    if let Some(I32Exit(code)) = error.downcast_ref() {
        return format!("the plugin called exit({code})");
    }
    match error.downcast_ref::<Trap>() {
        Some(trap) => trap.to_string(),
        None => error.root_cause().to_string(),
    }
}

/// The names of the functions on the guest's stack, innermost first.
fn backtrace(error: &wasmtime::Error) -> Vec<String> {
    let Some(backtrace) = error.downcast_ref::<WasmBacktrace>() else {
        return Vec::new();
    };
    let frames = backtrace.frames().iter().take(FRAMES_MAX);
    frames
        .map(|frame| match frame.func_name() {
            Some(name) => format!("{:#}", rustc_demangle::demangle(name)),
            None => format!("function {}", frame.func_index()),
        })
        .collect()
}

/// Text on one line, within its bound.
fn one_line(text: &str) -> String {
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let mut joined = String::with_capacity(text.len().min(MESSAGE_BYTES_MAX));
    for line in lines {
        if joined.len() >= MESSAGE_BYTES_MAX {
            break;
        }
        if !joined.is_empty() {
            joined.push_str(" | ");
        }
        joined.push_str(cut(line, MESSAGE_BYTES_MAX));
    }
    joined.truncate(joined.floor_char_boundary(MESSAGE_BYTES_MAX));
    joined
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_one_line_within_its_bound() {
        assert_eq!(one_line("a\n\n  b\r\nc "), "a | b | c");
        let long = one_line(&"ö\n".repeat(5_000));
        assert!(long.len() <= MESSAGE_BYTES_MAX && long.len() > MESSAGE_BYTES_MAX - 4);
    }

    #[test]
    fn a_trap_after_a_refusal_is_put_down_to_it() {
        let trap = wasmtime::Error::from(Trap::UnreachableCodeReached);
        let class = |refusal: Option<Refusal>| match trapped(&trap, refusal.as_ref(), "") {
            Outcome::Failed(failure) => failure.class,
            other => panic!("{other:?}"),
        };
        assert_eq!(class(None), Class::Trap);
        assert_eq!(class(Some(Refusal::Memory("no".into()))), Class::MemoryLimit);
        assert_eq!(class(Some(Refusal::Effect("no".into()))), Class::EffectLimit);
    }

    #[test]
    fn a_panic_is_told_before_the_trap_it_ends_in() {
        let words = "order 7\n\nthread '<unnamed>' (1) panicked at src/lib.rs:33:112:\nindex out of bounds: the len is 0\nbut the index is 5\nnote: run with `RUST_BACKTRACE=1` environment variable to display a backtrace\n";
        let trap = wasmtime::Error::from(Trap::UnreachableCodeReached);
        let message = |refusal: Option<Refusal>, words| match trapped(&trap, refusal.as_ref(), words) {
            Outcome::Failed(failure) => failure.message,
            other => panic!("{other:?}"),
        };
        assert_eq!(
            message(None, words),
            "panicked at src/lib.rs:33:112: index out of bounds: the len is 0 | but the index is 5; wasm trap: wasm `unreachable` instruction executed: order 7"
        );
        let refused = message(Some(Refusal::Memory("no room".into())), words);
        assert!(refused.starts_with("no room; then wasm trap"), "{refused}");
        assert!(refused.contains("executed: panicked at src/lib.rs"), "{refused}");
        assert_eq!(
            message(None, "goodbye"),
            "wasm trap: wasm `unreachable` instruction executed: goodbye"
        );
    }

    #[test]
    fn a_stack_overflow_is_no_matter_of_what_was_refused() {
        let trap = wasmtime::Error::from(Trap::StackOverflow);
        let refusal = Refusal::Memory("no".into());
        let Outcome::Failed(failure) = trapped(&trap, Some(&refusal), "") else {
            panic!("it failed")
        };
        assert_eq!(failure.class, Class::StackOverflow);
    }

    #[test]
    fn a_ledger_out_of_reach_is_no_failure_of_the_event() {
        let error = wasmtime::Error::from(Stop::Ledger("away".into()));
        assert_eq!(trapped(&error, None, ""), Outcome::NotRun("away".to_owned()));
    }
}
