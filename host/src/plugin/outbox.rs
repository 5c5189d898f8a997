//! `outbox.emit`: a draft becomes an event with everything the host knows of it, encoded for the stream it goes to, and waits with the
//! attempt's other effects.

use std::sync::Arc;

use super::bindings::consumer::tidegate::plugin::outbox::{Draft, EmitError, Host};
use super::instance::Guest;
use crate::event::key::LaneKey;
use crate::event::{Event, Extension, Value};
use crate::ledger::{Output, RecordKey};
use crate::plan::{self, Name};

/// Names that an extension can't have: the attributes, and `data` of the JSON format.
const RESERVED: [&str; 9] = [
    "data",
    "datacontenttype",
    "dataschema",
    "id",
    "source",
    "specversion",
    "subject",
    "time",
    "type",
];

/// Of the event being handled, what its outputs are made with.
#[derive(Clone, Debug, Default)]
pub(super) struct Cause {
    id: String,
    source: String,
    inherited: Vec<Extension>,
    record: Option<RecordKey>,
    lane: Option<LaneKey>,
}

impl Cause {
    pub(super) fn of(event: &Event) -> Self {
        let inherited =
            |extension: &&Extension| matches!(&*extension.name, "correlationid" | "traceparent" | "tracestate");
        Self {
            id: event.id.clone(),
            source: event.source.clone(),
            inherited: event.extensions.iter().filter(inherited).cloned().collect(),
            record: None,
            lane: None,
        }
    }

    /// What an output is given unless it has it: who caused it, and what the trace and the chain of causes hang together by.
    fn extensions(&self) -> impl Iterator<Item = Extension> {
        let own = |name: &str| Extension {
            name: name.to_owned(),
            value: Value::String(self.id.clone()),
        };
        let begins = !self.inherited.iter().any(|known| known.name == "correlationid");
        [own("causationid")]
            .into_iter()
            .chain(begins.then(|| own("correlationid")))
            .chain(self.inherited.iter().cloned())
    }

    fn record(&mut self, consumer: &Name) -> RecordKey {
        *self.record.get_or_insert_with(|| {
            let event = Event {
                id: self.id.clone(),
                source: self.source.clone(),
                ..Event::default()
            };
            RecordKey::of(consumer, &event)
        })
    }

    fn lane(&mut self, key: &str) -> LaneKey {
        self.lane.get_or_insert_with(|| LaneKey(key.as_bytes().into())).clone()
    }
}

impl Host for Guest {
    fn emit(&mut self, draft: Draft) -> wasmtime::Result<Result<String, EmitError>> {
        let emitted = self.take(draft);
        if let Err(EmitError::Limit(text)) = &emitted {
            self.refused_effect(text);
        }
        Ok(emitted)
    }
}

impl Guest {
    fn take(&mut self, draft: Draft) -> Result<String, EmitError> {
        let shared = Arc::clone(&self.shared);
        let consumer = &shared.consumer;
        if self.outputs.len() >= consumer.limits.emits {
            let text = format!("more than limits.emits ({}) events", consumer.limits.emits);
            return Err(EmitError::Limit(text));
        }
        within(size(&draft), consumer.limits.emit_bytes)?;
        check(&draft).map_err(EmitError::Invalid)?;
        let stream = route(consumer, &draft.kind)?;
        let id = self.cause.record(&consumer.name).output_id(self.outputs.len());
        let event = self.event(draft, &id);
        let message = (shared.encode)(&event, stream).map_err(EmitError::Invalid)?;
        within(message.size(), consumer.limits.emit_bytes)?;
        self.room.exchange(0, message.size()).map_err(EmitError::Limit)?;
        self.outputs.push(Output {
            id: id.as_str().into(),
            stream: stream.name.clone(),
            key: self.cause.lane(&self.key),
            message,
        });
        Ok(id)
    }

    fn event(&self, draft: Draft, id: &str) -> Event {
        let mut extensions: Vec<Extension> = draft
            .extensions
            .into_iter()
            .map(|extension| Extension {
                name: extension.name,
                value: Value::String(extension.value),
            })
            .collect();
        for extension in self.cause.extensions() {
            if !extensions.iter().any(|set| set.name == extension.name) {
                extensions.push(extension);
            }
        }
        Event {
            id: id.to_owned(),
            source: format!("/tidegate/{}", self.shared.consumer.name),
            kind: draft.kind,
            subject: draft.subject,
            time: Some(self.shared.clock.wall().to_string()),
            datacontenttype: draft.datacontenttype,
            dataschema: draft.dataschema,
            extensions,
            data: (!draft.data.is_empty()).then(|| draft.data.into()),
        }
    }
}

fn route<'a>(consumer: &'a plan::Consumer, kind: &str) -> Result<&'a plan::Stream, EmitError> {
    let rule = consumer
        .writes
        .iter()
        .find(|rule| rule.types.matches(kind))
        .ok_or_else(|| {
            EmitError::NoRoute(format!(
                "consumer {} writes to no stream that takes \"{kind}\"",
                consumer.name
            ))
        })?;
    Ok(&rule.stream)
}

fn within(bytes: usize, bytes_max: usize) -> Result<(), EmitError> {
    if bytes <= bytes_max {
        return Ok(());
    }
    let text = format!("an event of {bytes} bytes is over limits.emit_bytes ({bytes_max})");
    Err(EmitError::Limit(text))
}

/// What a draft weighs, in bytes.
fn size(draft: &Draft) -> usize {
    let optional = [&draft.subject, &draft.datacontenttype, &draft.dataschema];
    let extensions = draft.extensions.iter();
    draft.kind.len()
        + draft.data.len()
        + optional.into_iter().flatten().map(String::len).sum::<usize>()
        + extensions
            .map(|extension| extension.name.len() + extension.value.len())
            .sum::<usize>()
}

/// The rules of CloudEvents 1.0 that a draft can break.
fn check(draft: &Draft) -> Result<(), String> {
    text("type", &draft.kind)?;
    for (name, value) in [
        ("subject", &draft.subject),
        ("datacontenttype", &draft.datacontenttype),
        ("dataschema", &draft.dataschema),
    ] {
        value.as_ref().map_or(Ok(()), |value| text(name, value))?;
    }
    for (index, extension) in draft.extensions.iter().enumerate() {
        let name = extension.name.as_str();
        let is_plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        if name.is_empty() || !name.bytes().all(is_plain) {
            return Err(format!("\"{name}\" is no extension name: use a-z and 0-9"));
        }
        if RESERVED.contains(&name) {
            return Err(format!("\"{name}\" can't be set as an extension"));
        }
        let before = draft.extensions.iter().take(index);
        if before.into_iter().any(|other| other.name == name) {
            return Err(format!("extension \"{name}\" is given twice"));
        }
        characters(name, &extension.value)?;
    }
    Ok(())
}

fn text(name: &str, value: &str) -> Result<(), String> {
    if value.is_empty() {
        return Err(format!("{name} is empty"));
    }
    characters(name, value)
}

/// CloudEvents 1.0, section 2.3: no control characters, no noncharacters. Surrogates are none of Rust's.
fn characters(name: &str, value: &str) -> Result<(), String> {
    let is_bad = |c: &char| {
        c.is_control() || matches!(*c as u32 & 0xFFFF, 0xFFFE | 0xFFFF) || matches!(c, '\u{FDD0}'..='\u{FDEF}')
    };
    match value.chars().find(is_bad) {
        Some(c) => Err(format!("{name} has the character U+{:04X}", c as u32)),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::bindings::consumer::tidegate::plugin::types::ExtensionResult;
    use super::*;

    fn draft(extensions: &[(&str, &str)]) -> Draft {
        Draft {
            kind: "com.example.done".to_owned(),
            subject: None,
            datacontenttype: None,
            dataschema: None,
            extensions: extensions
                .iter()
                .map(|(name, value)| ExtensionResult {
                    name: (*name).to_owned(),
                    value: (*value).to_owned(),
                })
                .collect(),
            data: Vec::new(),
        }
    }

    #[test]
    fn a_draft_that_breaks_cloudevents_is_refused_with_the_reason() {
        let refused = |draft: &Draft| check(draft).unwrap_err();
        assert!(check(&draft(&[("region", "eu"), ("n1", "")])).is_ok());
        assert!(refused(&draft(&[("Region", "eu")])).contains("\"Region\""));
        assert!(refused(&draft(&[("", "eu")])).contains("no extension name"));
        assert!(refused(&draft(&[("source", "eu")])).contains("can't be set"));
        assert!(refused(&draft(&[("a", "1"), ("a", "2")])).contains("twice"));
        assert!(refused(&draft(&[("a", "x\ny")])).contains("U+000A"));
        let mut empty = draft(&[]);
        empty.kind.clear();
        assert_eq!(refused(&empty), "type is empty");
        let mut subject = draft(&[]);
        subject.subject = Some(String::new());
        assert_eq!(refused(&subject), "subject is empty");
    }

    #[test]
    fn an_event_that_begins_a_chain_gives_its_id_to_it() {
        let cause = Cause::of(&Event {
            id: "e1".to_owned(),
            ..Event::default()
        });
        let names: Vec<String> = cause
            .extensions()
            .map(|extension| format!("{}={}", extension.name, extension.value))
            .collect();
        assert_eq!(names, ["causationid=e1", "correlationid=e1"]);
    }
}
