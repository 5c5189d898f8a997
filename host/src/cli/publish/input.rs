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

/// What is read is no event.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    /// No JSON.
    #[error("what follows event {count} is no JSON: {error}; write one CloudEvent per line, or an array of them")]
    Json {
        /// How many came before.
        count: usize,
        /// What the parser says.
        error: serde_json::Error,
    },
    /// No event.
    #[error("event {number} is none: {error}")]
    Event {
        /// Counted from 1.
        number: usize,
        /// What is wrong.
        error: codec::Error,
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

impl Batches {
    pub(super) fn new(input: Box<dyn Read>) -> Self {
        Self {
            values: serde_json::Deserializer::from_reader(BufReader::new(input)).into_iter(),
            waiting: VecDeque::new(),
            count: 0,
            has_failed: false,
        }
    }

    fn batch(&mut self) -> Result<Option<String>, Error> {
        let mut batch = String::new();
        let mut events = 0;
        while events < EVENTS_MAX
            && let Some(event) = self.event()?
        {
            let text = event.get();
            // With its comma or brackets.
            if batch.len() + text.len() + 2 > BODY_BYTES_MAX && events > 0 {
                self.waiting.push_front(event);
                self.count -= 1;
                break;
            }
            batch.push(if events == 0 { '[' } else { ',' });
            batch.push_str(text);
            events += 1;
        }
        if events == 0 {
            return Ok(None);
        }
        batch.push(']');
        Ok(Some(batch))
    }

    fn event(&mut self) -> Result<Option<Box<RawValue>>, Error> {
        while self.waiting.is_empty() {
            let Some(value) = self.values.next() else {
                return Ok(None);
            };
            let value = value.map_err(|error| self.no_json(error))?;
            if value.get().starts_with('[') {
                let array: Vec<Box<RawValue>> =
                    serde_json::from_str(value.get()).map_err(|error| self.no_json(error))?;
                self.waiting.extend(array);
            } else {
                self.waiting.push_back(value);
            }
        }
        let Some(event) = self.waiting.pop_front() else {
            return Ok(None);
        };
        self.count += 1;
        check(&event, self.count)?;
        Ok(Some(event))
    }

    fn no_json(&self, error: serde_json::Error) -> Error {
        Error::Json {
            count: self.count,
            error,
        }
    }
}

impl Iterator for Batches {
    type Item = Result<String, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.has_failed {
            return None;
        }
        let batch = self.batch();
        self.has_failed = batch.is_err();
        batch.transpose()
    }
}

/// Here and not only at the host, whose error would count within a batch.
fn check(event: &RawValue, number: usize) -> Result<(), Error> {
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
    event.map(drop).map_err(|error| Error::Event { number, error })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(id: usize) -> String {
        format!(r#"{{"specversion":"1.0","id":"{id}","source":"/s","type":"t"}}"#)
    }

    fn batches(text: &str) -> Vec<Result<String, Error>> {
        Batches::new(Box::new(std::io::Cursor::new(text.to_owned()))).collect()
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
            let last = batches(text).pop().unwrap().unwrap_err().to_string();
            assert!(last.contains(expected), "{last}");
        };
        check(&format!("{}\n{{\"id\":\"2\"}}", event(1)), "event 2 is none: attribute");
        check(&format!("{}\nnonsense", event(1)), "what follows event 1 is no JSON");
        check("7", "event 1 is none");
        let huge = event(1).replace("\"t\"", &format!("\"t\",\"data\":\"{}\"", "x".repeat(BODY_BYTES_MAX)));
        check(&huge, "event 1 has");
    }
}
