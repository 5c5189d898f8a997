//! `outbox.emit`: a draft becomes an event with everything the host knows of it, encoded for the stream it goes to, and waits with the
//! attempt's other effects.

use std::sync::Arc;

use super::Call;
use super::bindings::consumer::tidegate::plugin::outbox::{Draft, EmitError, Host};
use super::instance::Guest;
use crate::event::key::LaneKey;
use crate::event::{Event, Extension, Headers, TRACE_HEADERS, Value, codec};
use crate::ledger::{Output, RecordKey};
use crate::plan;

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

/// Trace headers that are longer do not go on: no reader must take them (W3C Baggage, section 3.3.2).
const TRACE_BYTES_MAX: usize = 8_192;

/// Of the event being handled, what its outputs are made with.
#[derive(Clone, Debug)]
pub(super) struct Cause {
    id: String,
    inherited: Vec<Extension>,
    /// Headers of the trace, which each output is given.
    trace: Headers,
    pub(super) record: RecordKey,
    pub(super) lane: LaneKey,
}

impl Cause {
    pub(super) fn of(call: &Call<'_>) -> Self {
        let inherited =
            |extension: &&Extension| matches!(&*extension.name, "correlationid" | "traceparent" | "tracestate");
        Self {
            id: call.event.id.clone(),
            inherited: call.event.extensions.iter().filter(inherited).cloned().collect(),
            trace: trace(call.headers),
            record: call.record,
            lane: call.lane.clone(),
        }
    }

    /// No event is being handled yet.
    pub(super) fn none() -> Self {
        Self {
            id: String::new(),
            inherited: Vec::new(),
            trace: Headers::default(),
            record: RecordKey([0; 16]),
            lane: LaneKey(Arc::from([])),
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

    /// An output with all that it is given, checked by the rules that its readers go by.
    ///
    /// What it is given comes from the event that is handled, and may be too large beside what the plugin set: the id of that event alone
    /// may have 60 KiB, and is given twice. The plugin can do nothing about that, so what does not fit is left out, the first given
    /// first kept. It is not cut: an id that is cut short is the id of another event, or of none.
    fn complete(&self, mut event: Event) -> Result<Event, codec::Error> {
        let set = event.extensions.len();
        for given in self.extensions() {
            if !event.extensions.iter().any(|known| known.name == given.name) {
                event.extensions.push(given);
            }
        }
        if codec::check(&event).is_ok() {
            return Ok(event);
        }
        let given = event.extensions.split_off(set);
        codec::check(&event)?;
        for extension in given {
            event.extensions.push(extension);
            if codec::check(&event).is_err() {
                event.extensions.pop();
            }
        }
        Ok(event)
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
        let id = self.cause.record.output_id(self.outputs.len());
        let event = self.cause.complete(self.event(draft, &id)).map_err(invalid)?;
        let stream = route(consumer, &event.kind)?;
        let mut message = (shared.encode)(&event, stream).map_err(EmitError::Invalid)?;
        within(message.size(), consumer.limits.emit_bytes)?;
        self.room.exchange(0, message.size()).map_err(EmitError::Limit)?;
        // They are the sender's, and no fault of the plugin: they are not counted, and what does not fit is left out.
        for (name, value) in self.cause.trace.iter() {
            if message.size() + name.len() + value.len() <= consumer.limits.emit_bytes {
                message.headers.push(name, value);
            }
        }
        self.outputs.push(Output {
            id: id.as_str().into(),
            stream: stream.name.clone(),
            key: self.cause.lane.clone(),
            message,
        });
        Ok(id)
    }

    /// The event that a draft says, without what it is given.
    fn event(&self, draft: Draft, id: &str) -> Event {
        let extensions = draft.extensions.into_iter();
        Event {
            id: id.to_owned(),
            source: format!("/tidegate/{}", self.shared.consumer.name),
            kind: draft.kind,
            subject: draft.subject,
            time: Some(self.shared.clock.wall().to_string()),
            datacontenttype: draft.datacontenttype,
            dataschema: draft.dataschema,
            extensions: extensions
                .map(|extension| Extension {
                    name: extension.name,
                    value: Value::String(extension.value),
                })
                .collect(),
            data: (!draft.data.is_empty()).then(|| draft.data.into()),
        }
    }
}

/// The headers of the trace that every broker can carry.
fn trace(headers: &Headers) -> Headers {
    let fits = |value: &&[u8]| value.len() <= TRACE_BYTES_MAX && value.iter().all(|byte| matches!(byte, b' '..=b'~'));
    let mut trace = Headers::default();
    for name in TRACE_HEADERS {
        if let Some(value) = headers.get(name).filter(fits) {
            trace.push(name, value);
        }
    }
    trace
}

fn invalid(error: codec::Error) -> EmitError {
    EmitError::Invalid(error.to_string())
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

/// What is asked of a draft beyond what [`codec::check`] asks of every event.
fn check(draft: &Draft) -> Result<(), String> {
    // Before anything is made of them: there is time in a call for as many as fit into its bytes.
    if draft.extensions.len() > codec::EXTENSIONS_MAX {
        let count = draft.extensions.len();
        return Err(format!("{count} extensions are more than {}", codec::EXTENSIONS_MAX));
    }
    characters("type", &draft.kind)?;
    for (name, value) in [
        ("subject", &draft.subject),
        ("datacontenttype", &draft.datacontenttype),
        ("dataschema", &draft.dataschema),
    ] {
        value.as_ref().map_or(Ok(()), |value| characters(name, value))?;
    }
    for extension in &draft.extensions {
        let name = extension.name.as_str();
        if RESERVED.contains(&name) {
            return Err(format!("\"{name}\" can't be set as an extension"));
        }
        characters(name, &extension.value)?;
    }
    Ok(())
}

/// CloudEvents 1.0, section 2.3: no noncharacters. They are taken from others, as most producers know nothing of them, but not sent.
fn characters(name: &str, value: &str) -> Result<(), String> {
    let is_bad = |c: &char| matches!(*c as u32 & 0xFFFF, 0xFFFE | 0xFFFF) || matches!(c, '\u{FDD0}'..='\u{FDEF}');
    // All of them are outside ASCII, as little that is sent is.
    if value.is_ascii() {
        return Ok(());
    }
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
    fn what_only_a_draft_can_break_is_refused_with_the_reason() {
        let refused = |draft: &Draft| check(draft).unwrap_err();
        assert!(check(&draft(&[("region", "eu"), ("n1", "")])).is_ok());
        assert!(refused(&draft(&[("source", "eu")])).contains("can't be set"));
        assert!(refused(&draft(&[("a", "x\u{FFFE}")])).contains("U+FFFE"));
        assert!(check(&draft(&[("a", ""); 128])).is_ok());
        assert!(refused(&draft(&[("a", ""); 129])).contains("129 extensions"));
    }

    fn caused_by(id: String) -> Vec<String> {
        let cause = Cause {
            id,
            inherited: vec![Extension {
                name: "traceparent".to_owned(),
                value: Value::String("00-ab-cd-01".to_owned()),
            }],
            ..Cause::none()
        };
        let output = Event {
            id: "o1".to_owned(),
            source: "/tidegate/test".to_owned(),
            kind: "com.example.done".to_owned(),
            ..Event::default()
        };
        let names = cause.complete(output).unwrap().extensions.into_iter();
        names.map(|extension| extension.name).collect()
    }

    #[test]
    fn what_an_output_is_given_is_left_out_where_it_does_not_fit() {
        let all = ["causationid", "correlationid", "traceparent"];
        assert_eq!(caused_by("e1".to_owned()), all);
        assert_eq!(caused_by("x".repeat(40 << 10)), ["causationid", "traceparent"]);
        assert_eq!(caused_by("x".repeat(65_500)), ["traceparent"]);
    }

    #[test]
    fn headers_of_a_trace_go_on_unless_no_broker_could_carry_them() {
        let mut headers = Headers::default();
        headers.push("Traceparent", "00-ab-cd-01");
        headers.push("tracestate", "a=\u{7}");
        headers.push("baggage", "x".repeat(8_193));
        headers.push("nats-msg-id", "e1");
        let mut expected = Headers::default();
        expected.push("traceparent", "00-ab-cd-01");
        assert_eq!(trace(&headers), expected);
    }

    #[test]
    fn an_event_that_begins_a_chain_gives_its_id_to_it() {
        let cause = Cause {
            id: "e1".to_owned(),
            ..Cause::none()
        };
        let names: Vec<String> = cause
            .extensions()
            .map(|extension| format!("{}={}", extension.name, extension.value))
            .collect();
        assert_eq!(names, ["causationid=e1", "correlationid=e1"]);
    }
}
