//! `tidegate tail`: what becomes of events, as it happens.

use std::io::Write;
use std::num::NonZeroU64;

use reqwest::Response;

use super::client::{Client, NoHost};
use super::printed::{cell, line};
use super::{Global, complain};
use crate::admin::view::{Outcome, TailLine};
use crate::plan::Name;

/// Bytes of one line at most: the host's lines have an error text of at most 4 KiB and the ids of at most some thousand outputs.
const LINE_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Arguments of `tidegate tail`.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Only of this consumer.
    #[arg(long, value_name = "CONSUMER", value_parser = Name::new)]
    pub consumer: Option<Name>,
    /// Only with this outcome.
    #[arg(long, value_name = "OUTCOME", value_enum)]
    pub outcome: Option<Outcome>,
    /// Stop after so many lines.
    #[arg(long, short = 'n', value_name = "COUNT")]
    pub limit: Option<NonZeroU64>,
}

/// Follows the running host until it stops, the reader leaves, or there were enough.
///
/// # Errors
/// The config is wrong; no host runs; the connection broke.
///
/// # Cancellation
/// Safe: it only reads.
pub async fn run(args: &Args, global: &Global) -> anyhow::Result<()> {
    let loaded = global.load()?;
    global.warn_of_unknown(args.consumer.as_ref(), &loaded.plan);
    let client = Client::reach(&loaded.plan.admin, &global.config).await?;
    let mut query = Vec::new();
    query.extend(args.consumer.as_ref().map(|consumer| ("consumer", consumer.as_str())));
    query.extend(args.outcome.map(|outcome| ("outcome", outcome.as_str())));
    let response = client.follow("/api/v1/tail", &query).await?;
    let left = args.limit.map_or(u64::MAX, NonZeroU64::get);
    follow(response, left, |line| write(&shown(line, global.json))).await?;
    Ok(())
}

/// Gives each line to `write` until it refuses, `left` are written, or the host ends the stream.
async fn follow(mut response: Response, mut left: u64, mut write: impl FnMut(&[u8]) -> bool) -> anyhow::Result<()> {
    let mut waiting = Vec::new();
    // What the HTTP client says of a body that breaks off tells nobody what happened.
    while let Some(chunk) = response.chunk().await.map_err(|_| NoHost::Lost)? {
        waiting.extend_from_slice(&chunk);
        while let Some(end) = waiting.iter().position(|byte| *byte == b'\n') {
            let rest = waiting.split_off(end + 1);
            let line = std::mem::replace(&mut waiting, rest);
            let line = line.trim_ascii_end();
            // A host on which nothing happens shows that it is there.
            if line.is_empty() {
                continue;
            }
            left = left.saturating_sub(1);
            if !write(line) || left == 0 {
                return Ok(());
            }
        }
        anyhow::ensure!(
            waiting.len() <= LINE_BYTES_MAX,
            "the host sends a line of more than {LINE_BYTES_MAX} bytes"
        );
    }
    complain("the host has stopped");
    Ok(())
}

fn shown(raw: &[u8], is_json: bool) -> String {
    let text = String::from_utf8_lossy(raw);
    if is_json {
        return text.into_owned();
    }
    match serde_json::from_slice(raw) {
        Ok(TailLine::Missed { missed }) => format!("({missed} missed: this terminal is slower than the host)"),
        Ok(TailLine::Happened {
            at,
            consumer,
            outcome,
            event_id,
            event_type,
            key,
            attempt,
            emitted,
            error,
        }) => {
            let mut shown = format!(
                "{at}  {:9}  {}  {}  {}  key {}",
                line(&outcome),
                line(&consumer),
                cell(&event_type),
                cell(&event_id),
                cell(&key)
            );
            if attempt > 0 {
                shown.push_str(&format!("  attempt {attempt}"));
            }
            if !emitted.is_empty() {
                shown.push_str(&format!("  emitted {}", emitted.len()));
            }
            if let Some(error) = error {
                shown.push_str(&format!("  {}", line(&error)));
            }
            shown
        }
        // A newer host: better raw than nothing.
        Err(_) => line(&text),
    }
}

/// Whether someone still reads.
fn write(text: &str) -> bool {
    let mut stdout = std::io::stdout().lock();
    writeln!(stdout, "{text}").and_then(|()| stdout.flush()).is_ok()
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    fn response(body: &'static str) -> Response {
        axum::http::Response::new(body).into()
    }

    async fn check(body: &'static str, limit: u64, expected: &[&str]) {
        let mut seen = Vec::new();
        let write = |line: &[u8]| {
            seen.push(String::from_utf8_lossy(line).into_owned());
            true
        };
        follow(response(body), limit, write).await.unwrap();
        assert_eq!(seen, expected);
    }

    #[tokio::test]
    async fn lines_are_followed_until_there_were_enough() {
        check("a\nb\nc\n", u64::MAX, &["a", "b", "c"]).await;
        check("a\nb\nc\n", 2, &["a", "b"]).await;
        check("a\nhalf", u64::MAX, &["a"]).await;
        check("\na\n\r\n\nb\nc\n", 2, &["a", "b"]).await;
    }

    #[tokio::test]
    async fn a_host_that_dies_is_told_in_plain_words() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let host = async {
            let (mut socket, _) = listener.accept().await.unwrap();
            // Unread, the request would make a reset of the end.
            let _ = socket.read(&mut [0; 1024]).await.unwrap();
            let begun = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\na\n\r\n";
            socket.write_all(begun).await.unwrap();
        };
        let client = crate::cli::client::http().unwrap();
        let (response, ()) = tokio::join!(client.get(format!("http://{address}")).send(), host);
        let mut seen = 0;
        let count = |_: &[u8]| {
            seen += 1;
            true
        };
        let error = follow(response.unwrap(), u64::MAX, count).await.unwrap_err();
        assert_eq!(seen, 1);
        assert_eq!(
            format!("{error:#}"),
            "the host went away without stopping: it crashed, was killed, or can't be reached any more"
        );
        assert_eq!(crate::cli::code(&error).as_deref(), Some("no-host"));
    }

    #[tokio::test]
    async fn a_reader_that_left_ends_it() {
        let mut count = 0;
        let write = |_: &[u8]| {
            count += 1;
            false
        };
        follow(response("a\nb\n"), u64::MAX, write).await.unwrap();
        assert_eq!(count, 1);
    }

    #[test]
    fn a_happening_is_one_line() {
        let line = br#"{"at":"2026-09-21T14:13:20.000Z","consumer":"inventory","outcome":"dead","event_id":"order-1",
            "event_type":"com.example.order.placed","key":"k\u001b[2J","attempt":5,"emitted":["a","b"],"error":"trap: no"}"#;
        assert_eq!(
            shown(line, false),
            "2026-09-21T14:13:20.000Z  dead       inventory  com.example.order.placed  order-1  key k\u{fffd}[2J  attempt 5  emitted 2  trap: no"
        );
        assert_eq!(
            shown(br#"{"missed":12}"#, false),
            "(12 missed: this terminal is slower than the host)"
        );
        assert_eq!(shown(br#"{"missed":12}"#, true), r#"{"missed":12}"#);
    }
}
