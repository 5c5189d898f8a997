//! Events from a file or a pipe, as batches that the API takes.

use std::collections::VecDeque;
use std::io::{BufReader, Read};

use bytes::Bytes;
use serde_json::StreamDeserializer;
use serde_json::de::IoRead;
use serde_json::value::RawValue;

use crate::admin::BODY_BYTES_MAX;
use crate::event::codec::{self, Binding};
use crate::event::{Headers, Message};

/// Events in one batch.
const EVENTS_MAX: usize = 500;

/// The batches of an input, each a JSON array of events that were checked. Ends after the first error.
pub(super) struct Batches {
    values: StreamDeserializer<'static, IoRead<BufReader<Box<dyn Read>>>, Box<RawValue>>,
    /// The rest of an array.
    waiting: VecDeque<Box<RawValue>>,
    /// Events so far.
    count: usize,
    has_failed: bool,
}

/// Events that are sent at once.
#[derive(Debug)]
pub(super) struct Batch {
    /// A JSON array.
    pub(super) text: String,
    /// Theirs, in order.
    pub(super) ids: Vec<String>,
}

/// What is read is no event. Events are counted from 1; where there is none, lines are.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    /// No JSON.
    #[error("line {line} is no JSON: {reason}; write one CloudEvent per line, or an array of them")]
    Json {
        /// Counted from 1.
        line: usize,
        /// What the parser says, and where in the line.
        reason: String,
    },
    /// Nothing can be read.
    #[error("the events can't be read: {0}")]
    Unreadable(serde_json::Error),
    /// No event.
    #[error("event {number} is no CloudEvent")]
    Event {
        /// Counted from 1.
        number: usize,
        /// What is wrong.
        source: codec::Error,
    },
    /// Larger than what the API takes.
    #[error("event {number} has {bytes} bytes: at most {BODY_BYTES_MAX} are taken")]
    TooLarge {
        /// Counted from 1.
        number: usize,
        /// How large it is.
        bytes: usize,
    },
}

impl Error {
    /// The heading in `docs/errors.md`; those of no event are its own.
    pub(super) fn code(&self) -> Option<&'static str> {
        match self {
            Self::Json { .. } => Some("event-bad-json"),
            Self::Unreadable(_) => None,
            Self::Event { source, .. } => Some(source.code()),
            Self::TooLarge { .. } => Some("admin-too-large"),
        }
    }
}

impl Batches {
    pub(super) fn new(input: Box<dyn Read>) -> Self {
        Self {
            values: serde_json::Deserializer::from_reader(BufReader::new(input)).into_iter(),
            waiting: VecDeque::new(),
            count: 0,
            has_failed: false,
        }
    }

    fn batch(&mut self) -> Result<Option<Batch>, Error> {
        let (mut text, mut ids) = (String::new(), Vec::new());
        while ids.len() < EVENTS_MAX
            && let Some((event, id)) = self.event()?
        {
            // With its comma or brackets.
            if text.len() + event.get().len() + 2 > BODY_BYTES_MAX && !ids.is_empty() {
                self.waiting.push_front(event);
                self.count -= 1;
                break;
            }
            text.push(if ids.is_empty() { '[' } else { ',' });
            text.push_str(event.get());
            ids.push(id);
        }
        if ids.is_empty() {
            return Ok(None);
        }
        text.push(']');
        Ok(Some(Batch { text, ids }))
    }

    /// The next one, and its id.
    fn event(&mut self) -> Result<Option<(Box<RawValue>, String)>, Error> {
        while self.waiting.is_empty() {
            let Some(value) = self.values.next() else {
                return Ok(None);
            };
            let value = value.map_err(no_json)?;
            if value.get().starts_with('[') {
                let array: Vec<Box<RawValue>> = serde_json::from_str(value.get()).map_err(no_json)?;
                self.waiting.extend(array);
            } else {
                self.waiting.push_back(value);
            }
        }
        let Some(event) = self.waiting.pop_front() else {
            return Ok(None);
        };
        self.count += 1;
        let id = check(&event, self.count)?;
        Ok(Some((event, id)))
    }
}

fn no_json(error: serde_json::Error) -> Error {
    if error.is_io() {
        return Error::Unreadable(error);
    }
    let text = error.to_string();
    let what = text.rsplit_once(" at line ").map_or(text.as_str(), |(what, _)| what);
    Error::Json {
        line: error.line(),
        reason: format!("{what} at column {}", error.column()),
    }
}

impl Iterator for Batches {
    type Item = Result<Batch, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.has_failed {
            return None;
        }
        let batch = self.batch();
        self.has_failed = batch.is_err();
        batch.transpose()
    }
}

/// Gives its id. Here and not only at the host, whose error would count within a batch.
fn check(event: &RawValue, number: usize) -> Result<String, Error> {
    let bytes = event.get().len();
    if bytes + 2 > BODY_BYTES_MAX {
        return Err(Error::TooLarge { number, bytes });
    }
    let mut headers = Headers::default();
    headers.push("content-type", "application/cloudevents+json");
    let message = Message {
        subject: String::new(),
        headers,
        payload: Bytes::copy_from_slice(event.get().as_bytes()),
    };
    let event = codec::decode(&message, Binding::Http, None);
    event
        .map(|event| event.id)
        .map_err(|source| Error::Event { number, source })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(id: usize) -> String {
        format!(r#"{{"specversion":"1.0","id":"{id}","source":"/s","type":"t"}}"#)
    }

    fn batches(text: &str) -> Vec<Result<String, Error>> {
        let batches = Batches::new(Box::new(std::io::Cursor::new(text.to_owned())));
        batches.map(|batch| Ok(batch?.text)).collect()
    }

    fn check_one(text: &str, ids: &[usize]) {
        let expected = format!("[{}]", ids.iter().map(|id| event(*id)).collect::<Vec<_>>().join(","));
        let found: Vec<_> = batches(text).into_iter().map(Result::unwrap).collect();
        assert_eq!(found, [expected], "{text}");
    }

    #[test]
    fn events_are_read_from_lines_objects_and_arrays() {
        let (one, two, three) = (event(1), event(2), event(3));
        check_one(&one, &[1]);
        check_one(&format!("{one}\n\n{two}\n"), &[1, 2]);
        check_one(&format!(" [ {one} ,\n {two} ]"), &[1, 2]);
        check_one(&format!("[{one},{two}]\n{three}"), &[1, 2, 3]);
        assert!(batches("").is_empty());
        assert!(batches("[]").is_empty());
    }

    #[test]
    fn a_batch_knows_its_ids() {
        let mut found = Batches::new(Box::new(std::io::Cursor::new(format!("[{},{}]", event(7), event(8)))));
        assert_eq!(found.next().unwrap().unwrap().ids, ["7", "8"]);
        assert!(found.next().is_none());
    }

    #[test]
    fn a_batch_has_500_events_and_none_is_lost_between() {
        let text: String = (0..1_201).map(|id| event(id) + "\n").collect();
        let batches: Vec<_> = batches(&text).into_iter().map(Result::unwrap).collect();
        let counted: Vec<_> = batches
            .iter()
            .map(|batch| serde_json::from_str::<Vec<&RawValue>>(batch).unwrap().len())
            .collect();
        assert_eq!(counted, [500, 500, 201]);
        let joined = batches.concat().replace("][", ",");
        let all: Vec<_> = (0..1_201).map(event).collect();
        assert_eq!(joined, format!("[{}]", all.join(",")));
    }

    #[test]
    fn a_batch_fits_the_api() {
        let large = |id| event(id).replace("\"t\"", &format!("\"t\",\"data\":\"{}\"", "x".repeat(3 << 20)));
        let text: String = (0..5).map(|id| large(id) + "\n").collect();
        let batches: Vec<_> = batches(&text).into_iter().map(Result::unwrap).collect();
        assert!(batches.iter().all(|batch| batch.len() <= BODY_BYTES_MAX));
        let counted: Vec<_> = batches
            .iter()
            .map(|batch| serde_json::from_str::<Vec<&RawValue>>(batch).unwrap().len())
            .collect();
        assert_eq!(counted, [2, 2, 1]);
    }

    #[test]
    fn what_is_no_event_is_named_by_its_number() {
        let check = |text: &str, expected: &str| {
            let last = batches(text).pop().unwrap().unwrap_err();
            crate::documented::documented(&[last.code().unwrap()]);
            let last = format!("{:#}", anyhow::Error::new(last));
            assert!(last.starts_with(expected), "{last}");
        };
        check(
            &format!("{}\n{{\"id\":\"2\"}}", event(1)),
            "event 2 is no CloudEvent: attribute",
        );
        check(
            &format!("{}\nnonsense", event(1)),
            "line 2 is no JSON: expected ident at column 2; write one CloudEvent per line",
        );
        check(
            &format!("[\n{},\n7 8]", event(1)),
            "line 3 is no JSON: expected `,` or `]` at column 3",
        );
        check("7", "event 1 is no CloudEvent");
        let huge = event(1).replace("\"t\"", &format!("\"t\",\"data\":\"{}\"", "x".repeat(BODY_BYTES_MAX)));
        check(&huge, "event 1 has");
    }
}
