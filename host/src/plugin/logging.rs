//! What a guest says: `wasi:logging` and its standard streams become lines in the host's log, within bounds.
//!
//! A line over its length is cut, lines over their number are counted. Neither is an error: a guest that says too much is no reason
//! to fail its event. The end of the standard error stream is kept whether or not it is logged, because that is where a panic says
//! why.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::io::AsyncWrite;
use wasmtime::StoreContextMut;
use wasmtime::component::{ComponentType, Lift, Linker, WasmStr};
use wasmtime_wasi::cli::{IsTerminal, StdoutStream};
use wasmtime_wasi::p2::{OutputStream, Pollable, StreamResult};

use super::instance::Guest;
use crate::plan::{Limits, Name};

/// What is kept of the standard error stream, to say why a guest failed.
const LAST_WORDS_BYTES: usize = 4096;
/// What a guest may hand over at once through a standard stream.
const WRITE_BYTES: usize = 64 << 10;
/// Bytes of the context of a `wasi:logging` line.
const CONTEXT_BYTES: usize = 256;

/// A log level of `wasi:logging@0.1.0-draft`.
#[derive(Clone, Copy, Debug, ComponentType, Lift)]
#[component(enum)]
#[repr(u8)]
#[expect(dead_code, reason = "the engine makes them of what the guest gives")]
enum Level {
    #[component(name = "trace")]
    Trace,
    #[component(name = "debug")]
    Debug,
    #[component(name = "info")]
    Info,
    #[component(name = "warn")]
    Warn,
    #[component(name = "error")]
    Error,
    #[component(name = "critical")]
    Critical,
}

/// Links `wasi:logging`. By hand and not by bindings, so that a line is cut before it is copied.
pub(super) fn add_to_linker(linker: &mut Linker<Guest>) -> wasmtime::Result<()> {
    linker
        .instance("wasi:logging/logging@0.1.0-draft")?
        .func_wrap("log", log)
}

fn log(
    store: StoreContextMut<'_, Guest>,
    (level, context, message): (Level, WasmStr, WasmStr),
) -> wasmtime::Result<()> {
    let mut log = store.data().log.lock();
    if log.may_say() {
        let context = context.to_str(&store)?;
        let message = message.to_str(&store)?;
        log.say(level, cut(&context, CONTEXT_BYTES), &message);
    }
    Ok(())
}

/// The log of one instance. Cloning shares it: the guest's streams hold it too.
#[derive(Clone)]
pub(super) struct Log(Arc<Mutex<Lines>>);

/// One attempt's lines.
struct Lines {
    consumer: Name,
    event_id: String,
    granted: bool,
    lines_max: usize,
    line_bytes_max: usize,
    said: usize,
    dropped: usize,
    out: Vec<u8>,
    err: Vec<u8>,
    last_words: Vec<u8>,
}

impl Log {
    pub(super) fn new(consumer: Name, granted: bool, limits: &Limits) -> Self {
        Self(Arc::new(Mutex::new(Lines {
            consumer,
            event_id: String::new(),
            granted,
            lines_max: limits.log_lines,
            line_bytes_max: limits.log_line_bytes,
            said: 0,
            dropped: 0,
            out: Vec::new(),
            err: Vec::new(),
            last_words: Vec::new(),
        })))
    }

    fn lock(&self) -> MutexGuard<'_, Lines> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins an attempt.
    pub(super) fn begin(&self, event_id: &str) {
        let mut lines = self.lock();
        lines.event_id.clear();
        lines.event_id.push_str(event_id);
        lines.said = 0;
        lines.dropped = 0;
        lines.last_words.clear();
    }

    /// Ends an attempt: says what is left of unfinished lines and how many lines there were too many. Gives the end of what the guest
    /// wrote to its standard error stream.
    pub(super) fn end(&self) -> String {
        let mut lines = self.lock();
        lines.finish(Stream::Out);
        lines.finish(Stream::Err);
        if lines.dropped > 0 {
            tracing::warn!(
                target: "plugin",
                consumer = %lines.consumer,
                event_id = lines.event_id,
                dropped = lines.dropped,
                lines_max = lines.lines_max,
                "the plugin logs more lines than its limit"
            );
        }
        String::from_utf8_lossy(&lines.last_words).trim().to_owned()
    }
}

impl Lines {
    /// Whether another line may be said; counts it if not.
    fn may_say(&mut self) -> bool {
        let may = self.granted && self.said < self.lines_max;
        if !may && self.granted {
            self.dropped += 1;
        }
        may
    }

    fn say(&mut self, level: Level, context: &str, line: &str) {
        self.said += 1;
        let line = cut(line, self.line_bytes_max);
        macro_rules! say {
            ($level:ident) => {
                tracing::$level!(
                    target: "plugin",
                    consumer = %self.consumer,
                    event_id = self.event_id,
                    context,
                    line,
                    "the plugin says"
                )
            };
        }
        match level {
            Level::Trace => say!(trace),
            Level::Debug => say!(debug),
            Level::Info => say!(info),
            Level::Warn => say!(warn),
            Level::Error | Level::Critical => say!(error),
        }
    }

    fn pending(&mut self, stream: Stream) -> &mut Vec<u8> {
        match stream {
            Stream::Out => &mut self.out,
            Stream::Err => &mut self.err,
        }
    }

    /// Takes what a guest writes to a stream.
    fn write(&mut self, stream: Stream, bytes: &[u8]) {
        if stream == Stream::Err {
            keep_end(&mut self.last_words, bytes);
        }
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            let room = self.line_bytes_max;
            let pending = self.pending(stream);
            let room = room.saturating_sub(pending.len());
            let text = piece.strip_suffix(b"\n").unwrap_or(piece);
            pending.extend_from_slice(text.get(..room).unwrap_or(text));
            if piece.ends_with(b"\n") {
                self.line(stream);
            }
        }
    }

    fn finish(&mut self, stream: Stream) {
        if !self.pending(stream).is_empty() {
            self.line(stream);
        }
    }

    fn line(&mut self, stream: Stream) {
        let line = std::mem::take(self.pending(stream));
        if self.may_say() {
            let (level, context) = match stream {
                Stream::Out => (Level::Info, "stdout"),
                Stream::Err => (Level::Warn, "stderr"),
            };
            self.say(level, context, &String::from_utf8_lossy(&line));
        }
    }
}

/// Appends, and forgets the beginning of what gets too long.
fn keep_end(kept: &mut Vec<u8>, bytes: &[u8]) {
    kept.extend_from_slice(bytes);
    let excess = kept.len().saturating_sub(LAST_WORDS_BYTES);
    kept.drain(..excess);
}

/// The beginning of a text, at most so many bytes.
pub(super) fn cut(text: &str, bytes_max: usize) -> &str {
    let end = text.floor_char_boundary(bytes_max);
    text.get(..end).unwrap_or(text)
}

/// Which of the standard streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stream {
    /// Standard output: information.
    Out,
    /// Standard error: warnings, and the text of a panic.
    Err,
}

/// A standard stream of a guest.
#[derive(Clone)]
pub(super) struct Output {
    /// Where its lines go.
    pub(super) log: Log,
    /// Which it is.
    pub(super) stream: Stream,
}

impl IsTerminal for Output {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdoutStream for Output {
    // Only WASI 0.3 asks for this one, and it is not linked.
    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        Box::new(tokio::io::sink())
    }

    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(self.clone())
    }
}

#[wasmtime_wasi::async_trait]
impl Pollable for Output {
    async fn ready(&mut self) {}
}

impl OutputStream for Output {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        self.log.lock().write(self.stream, &bytes);
        Ok(())
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        Ok(WRITE_BYTES)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_stream_is_kept() {
        let mut kept = Vec::new();
        keep_end(&mut kept, &[b'a'; LAST_WORDS_BYTES]);
        keep_end(&mut kept, b"why");
        assert_eq!(kept.len(), LAST_WORDS_BYTES);
        assert!(kept.ends_with(b"awhy"));
    }

    #[test]
    fn a_cut_keeps_whole_characters() {
        assert_eq!(cut("größe", 3), "gr");
        assert_eq!(cut("größe", 4), "grö");
        assert_eq!(cut("ok", 10), "ok");
    }
}
