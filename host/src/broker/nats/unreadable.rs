//! Messages that the client can't read: it hangs up on header lines that are no UTF-8 or no lines, which anybody may publish.
//!
//! Such a message would come first again on each new connection, and nothing behind it ever. So after a lost connection the
//! source looks at the next message by another way (the API gives it as base64 in JSON). If it is such a one, it is handed out like
//! any other, its bytes untouched; but the server has no delivery of it to settle, so it is handed out alone: when all before it
//! is settled and then itself, the consumer is moved past it.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::json;

use async_nats::{HeaderName, StatusCode};

use super::api::{self, Failure};
use super::held::Held;
use super::link::Link;
use crate::broker::Error;
use crate::event::{Headers, Message};

const NO_MESSAGE: u32 = 10037;

/// A message that the client can't read.
#[derive(Debug)]
pub(super) struct Unreadable {
    /// Where it stands.
    pub(super) position: u64,
    /// What it says.
    pub(super) message: Message,
    /// Whether it was handed out.
    pub(super) is_given: bool,
}

/// What to do about it now.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Wait until more is settled.
    Wait,
    /// Hand it out.
    Give,
    /// Move the consumer past it.
    Pass,
    /// Take first what was handed back before it. This costs a connection.
    TakeBefore,
}

impl Unreadable {
    /// Decides by what is held.
    pub(super) fn step(&self, held: &Held) -> Step {
        if held.holds_any() {
            return Step::Wait;
        }
        match (self.is_given, held.is_returned(self.position), held.returned_any()) {
            (true, false, _) => Step::Pass,
            (false, _, true) => Step::TakeBefore,
            _ => Step::Give,
        }
    }
}

/// Looks at the first message from `position` on that the consumer would give.
pub(super) async fn look(
    link: &Link,
    stream: &str,
    subjects: &[String],
    position: u64,
) -> Result<Option<Unreadable>, Error> {
    let mut first: Option<Stored> = None;
    let all = [">".to_owned()];
    for subject in if subjects.is_empty() { &all } else { subjects } {
        if let Some(stored) = fetch(link, stream, subject, position).await?
            && first.as_ref().is_none_or(|first| stored.seq < first.seq)
        {
            first = Some(stored);
        }
    }
    first.map(|stored| stored.judge(link)).transpose().map(Option::flatten)
}

async fn fetch(link: &Link, stream: &str, subject: &str, position: u64) -> Result<Option<Stored>, Error> {
    #[derive(Deserialize)]
    struct Answer {
        message: Stored,
    }
    let body = json!({ "seq": position, "next_by_subj": subject });
    match api::request(link, format!("$JS.API.STREAM.MSG.GET.{stream}"), &body).await {
        Ok(answer) => Ok(Some(api::parse::<Answer>(link, answer)?.message)),
        Err(Failure::Refused(refusal)) if refusal.err_code == NO_MESSAGE => Ok(None),
        Err(Failure::Broker(error @ Error::Unreachable { .. })) => Err(error),
        Err(failure) => {
            // Without it the host reads all that it could read before.
            let error = failure.explain(link, &format!("look at a message of stream {stream}"));
            tracing::debug!(broker = %link.name, %error, "could not look whether the next message can be read");
            Ok(None)
        }
    }
}

/// A message as the API gives it.
#[derive(Deserialize)]
struct Stored {
    subject: String,
    seq: u64,
    #[serde(default)]
    hdrs: String,
    #[serde(default)]
    data: String,
}

impl Stored {
    fn judge(self, link: &Link) -> Result<Option<Unreadable>, Error> {
        let decode = |text: &str| {
            STANDARD
                .decode(text)
                .map_err(|error| link.unreachable(format!("the server's answer is not understood: {error}")))
        };
        let block = decode(&self.hdrs)?;
        if is_readable(&block) {
            return Ok(None);
        }
        tracing::warn!(broker = %link.name, subject = self.subject, position = self.seq, "a message has headers that are no text; it is taken by itself");
        Ok(Some(Unreadable {
            position: self.seq,
            message: Message {
                subject: self.subject,
                headers: headers(&block),
                payload: decode(&self.data)?.into(),
            },
            is_given: false,
        }))
    }
}

/// Whether the client takes a header block: what its parser asks for, no more and no less.
pub(super) fn is_readable(block: &[u8]) -> bool {
    if block.is_empty() {
        return true;
    }
    let Ok(text) = std::str::from_utf8(block) else {
        return false;
    };
    let mut lines = text.lines().peekable();
    let Some(version) = lines.next().and_then(|line| line.strip_prefix("NATS/1.0")) else {
        return false;
    };
    let version = version.trim();
    let status = version.split_once(' ').map_or(version, |(status, _)| status.trim());
    if !status.is_empty() && status.parse::<StatusCode>().is_err() {
        return false;
    }
    while let Some(line) = lines.next() {
        let name = line.split_once(':').map(|(name, _)| name.parse::<HeaderName>());
        if !line.is_empty() && !matches!(name, Some(Ok(_))) {
            return false;
        }
        // Lines that go on the one before.
        while !line.is_empty() && lines.next_if(|line| line.starts_with(char::is_whitespace)).is_some() {}
    }
    true
}

/// The lines of a block, as well as they can be told: what has no colon is a name without value.
pub(super) fn headers(block: &[u8]) -> Headers {
    let mut headers = Headers::default();
    for line in block.split(|byte| *byte == b'\n').skip(1) {
        let line = line.trim_ascii();
        if line.is_empty() {
            continue;
        }
        let mut parts = line.splitn(2, |byte| *byte == b':');
        let name = parts.next().unwrap_or_default();
        let value = parts.next().unwrap_or_default().trim_ascii();
        headers.push(String::from_utf8_lossy(name), value);
    }
    headers
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::Settlement;
    use crate::clock::{Clock, Timestamp};

    #[test]
    fn what_the_client_hangs_up_on_is_known() {
        for block in [
            "",
            "NATS/1.0\r\n\r\n",
            "NATS/1.0\r\na: b\r\n\r\n",
            "NATS/1.0\r\na: b\r\n folded: not a name\r\n\r\n",
            "NATS/1.0 503\r\n\r\n",
            "NATS/1.0 100 Idle Heartbeat\r\na:\r\n\r\n",
            "NATS/1.0\r\na: \u{fc}\r\n\r\n",
        ] {
            assert!(is_readable(block.as_bytes()), "{block:?}");
        }
        for block in [
            &b"NATS/1.0\r\na: \xff\r\n\r\n"[..],
            b"NATS/1.0\r\nno line\r\n\r\n",
            b"NATS/1.0\r\na b: c\r\n\r\n",
            b"NATS/1.0 many\r\n\r\n",
            b"HTTP/1.1\r\n\r\n",
        ] {
            assert!(!is_readable(block), "{:?}", String::from_utf8_lossy(block));
        }
    }

    #[test]
    fn its_lines_are_kept_as_bytes() {
        let found = headers(b"NATS/1.0\r\na: \xff\r\nno line\r\nb:c:d\r\n\r\n");
        let lines: Vec<_> = found.iter().collect();
        assert_eq!(lines, [("a", &b"\xff"[..]), ("no line", b""), ("b", b"c:d")]);
    }

    #[test]
    fn it_is_handed_out_alone_and_passed_when_it_is_settled() {
        let now = Clock::seeded(Timestamp(0), 1).now();
        let mut held = Held::default();
        let mut unreadable = Unreadable {
            position: 2,
            message: Message::default(),
            is_given: false,
        };
        held.arrive(1, "reply".into(), now);
        assert_eq!(unreadable.step(&held), Step::Wait);
        held.settle(1, Settlement::HandBack);
        assert_eq!(unreadable.step(&held), Step::TakeBefore);
        held.arrive(1, "reply".into(), now);
        held.settle(1, Settlement::Done);
        assert_eq!(unreadable.step(&held), Step::Give);

        held.arrive(2, "".into(), now);
        unreadable.is_given = true;
        assert_eq!(unreadable.step(&held), Step::Wait);
        held.settle(2, Settlement::HandBack);
        assert_eq!(
            unreadable.step(&held),
            Step::Give,
            "handed back, it is handed out again"
        );
        held.arrive(2, "".into(), now);
        held.settle(2, Settlement::Done);
        assert_eq!(unreadable.step(&held), Step::Pass);
    }
}
