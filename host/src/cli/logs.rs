//! Where log lines go: stderr, as text or JSON.

use std::fmt::Debug;
use std::io::IsTerminal;

use clap::ValueEnum;
use tracing::field::Field;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::field::MakeExt as _;
use tracing_subscriber::fmt::FormatFields;
use tracing_subscriber::fmt::format::{Writer, debug_fn};

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people.
    #[default]
    Text,
    /// One object per line.
    Json,
}

/// Starts logging, once per process: what `TIDEGATE_LOG` says, else everything from `level` up. A second start changes nothing.
pub fn start(format: Format, level: &str) {
    let filter = EnvFilter::try_from_env("TIDEGATE_LOG").unwrap_or_else(|_| EnvFilter::new(level));
    let stderr = std::io::stderr;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(stderr);
    let _ = match format {
        Format::Text => builder
            .with_ansi(stderr().is_terminal())
            .fmt_fields(fields())
            .try_init(),
        Format::Json => builder.json().flatten_event(true).try_init(),
    };
}

/// Fields as the subscriber writes them, but on one line and without terminal codes, whatever stands in them: the text of a plugin or a broker
/// could otherwise write lines that pass for ours. JSON escapes by itself.
fn fields() -> impl for<'w> FormatFields<'w> {
    debug_fn(|writer: &mut Writer<'_>, field: &Field, value: &dyn Debug| {
        let value = escaped(&format!("{value:?}"));
        match field.name() {
            "message" => writer.write_str(&value),
            name if writer.has_ansi_escapes() => write!(writer, "\u{1b}[3m{name}\u{1b}[0m\u{1b}[2m=\u{1b}[0m{value}"),
            name => write!(writer, "{name}={value}"),
        }
    })
    .delimited(" ")
}

/// Text with each control character as its escape.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() {
            escaped.extend(c.escape_default());
        } else {
            escaped.push(c);
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use std::io::{self, Write};
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Kept(Arc<Mutex<Vec<u8>>>);

    impl Write for Kept {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// What is logged, without the time.
    fn logged(ansi: bool, log: impl FnOnce()) -> String {
        let kept = Kept::default();
        let into = kept.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_ansi(ansi)
            .without_time()
            .with_target(false)
            .with_writer(move || into.clone())
            .fmt_fields(fields())
            .finish();
        tracing::subscriber::with_default(subscriber, log);
        String::from_utf8(kept.0.lock().unwrap().clone()).unwrap()
    }

    /// A plugin that failed with a line break in its text wrote lines of its own into the log, and terminal codes into the terminal.
    #[test]
    fn what_is_logged_is_one_line() {
        let text = "a\nb\r\u{1b}[2J\u{9b}c\n";
        let log = logged(false, || {
            tracing::warn!(error = %text, "failed");
            tracing::warn!("{text}");
        });
        let escaped = r"a\nb\r\u{1b}[2J\u{9b}c\n";
        assert_eq!(log, format!(" WARN failed error={escaped}\n WARN {escaped}\n"));
        let log = logged(true, || tracing::warn!(error = %text, "failed"));
        assert!(log.contains(escaped) && log.matches('\n').count() == 1, "{log:?}");
    }

    #[test]
    fn fields_are_written_as_they_always_were() {
        let log = logged(
            false,
            || tracing::info!(consumer = %"plain", event_id = "e \"1\"", attempt = 2, "attempt failed"),
        );
        assert_eq!(
            log,
            " INFO attempt failed consumer=plain event_id=\"e \\\"1\\\"\" attempt=2\n"
        );
    }
}
