//! What a receiver's answer means.

use std::time::Duration;

use reqwest::StatusCode;
use reqwest::header::{HeaderMap, RETRY_AFTER};

use crate::broker::Error;
use crate::clock::Timestamp;
use crate::plan::{Name, Secret};

/// What is repeated of a refusal's body, in bytes.
const EXCERPT_BYTES_MAX: usize = 200;
/// A receiver that asks for a longer pause is asked again after this one.
pub(super) const RETRY_AFTER_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// What became of a message, by the answer's status; `described` is what is said of it.
pub(super) fn verdict(
    broker: &Name,
    status: StatusCode,
    retry_after: Option<Duration>,
    described: &str,
) -> Result<(), Error> {
    let broker = broker.clone();
    let reason = described.to_owned();
    match status.as_u16() {
        200..=299 => Ok(()),
        408 | 425 | 429 | 500..=599 => Err(Error::Unreachable {
            broker,
            reason,
            retry_after,
        }),
        // No message would fare better: the token is wrong or has expired, the place is not there yet or any more (CloudEvents webhooks,
        // section 2.2), or it is none that takes messages. A receiver that means one message by these is told apart by no status; to
        // hold what it never takes is seen and mended, and to give up what it would have taken is neither.
        401 | 403 | 404 | 405 | 407 | 410 => Err(Error::Misconfigured { broker, reason }),
        400..=499 => Err(Error::Refused { broker, reason }),
        _ => Err(Error::Misconfigured {
            broker,
            reason: format!("{reason}; redirects are not followed: set the URL to the place itself"),
        }),
    }
}

/// An answer in words: its status and how its body begins, on one line. A receiver may send back what it was sent, in a page for those who
/// debug it: the token is masked, before the rest is cut, so that no part of it is left.
pub(super) fn described(status: StatusCode, body: &[u8], token: Option<&Secret>) -> String {
    let text = String::from_utf8_lossy(body);
    let text = match token {
        Some(token) => text.replace(token.reveal(), "***"),
        None => text.into_owned(),
    };
    let excerpt = text
        .get(..text.floor_char_boundary(EXCERPT_BYTES_MAX))
        .unwrap_or_default();
    let text: String = excerpt.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    match text.trim() {
        "" => format!("the receiver answers {status}"),
        text => format!("the receiver answers {status}: {text}"),
    }
}

/// The pause that the receiver asks for: seconds or an HTTP date (RFC 9110, section 10.2.3).
pub(super) fn retry_after(headers: &HeaderMap, now: Timestamp) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    let pause = match text.parse() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => date(text)?.since(now),
    };
    Some(pause.min(RETRY_AFTER_MAX))
}

fn date(text: &str) -> Option<Timestamp> {
    let date = jiff::fmt::rfc2822::parse(text).ok()?;
    Some(Timestamp(
        u64::try_from(date.timestamp().as_millisecond()).unwrap_or_default(),
    ))
}

#[cfg(test)]
mod tests {
    use reqwest::header::HeaderValue;

    use super::*;

    fn pause(header: &str) -> Option<Duration> {
        let headers = [(RETRY_AFTER, HeaderValue::from_str(header).expect("a header"))];
        // 1994-11-06T08:49:37Z
        retry_after(&headers.into_iter().collect(), Timestamp(784_111_777_000))
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        assert_eq!(pause("120"), Some(Duration::from_secs(120)));
        assert_eq!(pause("0"), Some(Duration::ZERO));
        assert_eq!(pause("Sun, 06 Nov 1994 08:50:07 GMT"), Some(Duration::from_secs(30)));
        assert_eq!(pause("Sun, 06 Nov 1994 08:00:00 GMT"), Some(Duration::ZERO));
        assert_eq!(pause("Sat, 06 Nov 2094 08:00:00 GMT"), Some(RETRY_AFTER_MAX));
        assert_eq!(pause("18446744073709551615"), Some(RETRY_AFTER_MAX));
        for nonsense in ["", "soon", "-1", "1.5", "Sun, 99 Nov 1994 08:50:07 GMT"] {
            assert_eq!(pause(nonsense), None, "{nonsense}");
        }
    }

    #[test]
    fn every_status_has_its_meaning() {
        let broker = Name::new("hook").expect("a name");
        let meaning = |status: u16| {
            let status = StatusCode::from_u16(status).expect("a status");
            match verdict(&broker, status, None, "") {
                Ok(()) => "ok",
                Err(Error::Unreachable { .. }) => "again",
                Err(Error::Refused { .. }) => "refused",
                Err(Error::Misconfigured { .. }) => "person",
            }
        };
        for (statuses, expected) in [
            (&[200, 201, 202, 204, 299][..], "ok"),
            (&[408, 425, 429, 500, 502, 503, 504, 599], "again"),
            (&[400, 402, 406, 409, 413, 415, 422, 499], "refused"),
            (
                &[301, 302, 304, 307, 308, 401, 403, 404, 405, 407, 410, 600, 100],
                "person",
            ),
        ] {
            for status in statuses {
                assert_eq!(meaning(*status), expected, "{status}");
            }
        }
    }

    #[test]
    fn a_refusal_repeats_the_beginning_of_the_body_on_one_line() {
        let broker = Name::new("hook").expect("a name");
        let body = format!("no\nsuch\torder{}", "x".repeat(1_000));
        let said = described(StatusCode::BAD_REQUEST, body.as_bytes(), None);
        let error = verdict(&broker, StatusCode::BAD_REQUEST, None, &said).expect_err("refused");
        let shown = error.to_string();
        assert!(shown.contains("400 Bad Request: no such order"), "{shown}");
        assert!(shown.len() < 300, "{shown}");
    }
}
