//! Proves a `[stream.NAME]`: that its place fits the kind of its broker, and what it can be used for.

use std::sync::Arc;
use std::time::Duration;

use super::{Directory, GIB, HOUR, MIB, MINUTE, Prover, given, span_of, words};
use crate::config::file;
use crate::config::problem::Code;
use crate::config::read::At;
use crate::plan::{self, BrokerKind, Name, Origin, Place};

impl Prover<'_, '_> {
    pub(super) fn stream(
        &mut self,
        name: &Name,
        at: &At<file::Stream>,
        brokers: &Directory<plan::Broker>,
    ) -> Option<plan::Stream> {
        let stream = at.value.as_ref()?;
        let mapping = stream.mapping.as_ref().map(|at| self.mapping(at));
        let (broker, span) = self.required(&stream.broker, "broker", &at.span)?;
        let broker = brokers.find(broker, span, self.sheet)?;
        if !self.varying.contains(&broker.name) {
            self.stream_keys(stream, &broker.kind);
        }
        let place = match broker.kind {
            BrokerKind::Embedded => Place::Log(self.log(stream)),
            BrokerKind::Nats(_) => Place::JetStream(self.jetstream(name, stream)?),
            BrokerKind::Webhook(_) => Place::Path(match stream.path {
                Some(_) => self.parsed(Code::BadPlace, &stream.path, words::template)?,
                None => plan::Template { parts: Vec::new() },
            }),
        };
        Some(plan::Stream {
            name: name.clone(),
            broker,
            place,
            mode: given(&stream.mode).map_or_else(Default::default, |(mode, _)| *mode),
            mapping: match mapping {
                Some(mapping) => Some(mapping?),
                None => None,
            },
        })
    }

    fn stream_keys(&mut self, stream: &file::Stream, kind: &BrokerKind) {
        let nats = [
            ("stream", span_of(&stream.stream)),
            ("subjects", span_of(&stream.subjects)),
            ("subject", span_of(&stream.subject)),
            ("create", span_of(&stream.create)),
            ("ack_wait", span_of(&stream.ack_wait)),
        ];
        let log = [
            ("age_max", span_of(&stream.age_max)),
            ("bytes_max", span_of(&stream.bytes_max)),
        ];
        let webhook = [("path", span_of(&stream.path))];
        let (others, kind) = match kind {
            BrokerKind::Embedded => ([&nats[..], &webhook[..]], "an embedded broker's stream"),
            BrokerKind::Nats(_) => ([&log[..], &webhook[..]], "a NATS stream"),
            BrokerKind::Webhook(_) => ([&nats[..], &log[..]], "a webhook's stream"),
        };
        for keys in others {
            self.misplaced(keys, kind);
        }
    }

    fn log(&mut self, stream: &file::Stream) -> plan::Log {
        let age_max = self.bounded(&stream.age_max, "age_max", MINUTE, MINUTE..=Duration::MAX);
        plan::Log {
            age_max: given(&stream.age_max).map(|_| age_max),
            bytes_max: self.bounded(&stream.bytes_max, "bytes_max", GIB, MIB..=u64::MAX),
        }
    }

    fn jetstream(&mut self, name: &Name, stream: &file::Stream) -> Option<plan::JetStream> {
        let create = self.flag(&stream.create, false);
        if create && stream.subjects.is_none() {
            let span = span_of(&stream.create).unwrap_or_default();
            self.sheet
                .error(Code::MissingKey, &span, "a stream that is created needs `subjects`");
        }
        let server_name = match stream.stream {
            Some(_) => Some(self.parsed(Code::BadPlace, &stream.stream, words::nats_stream)?),
            None => create.then(|| name.to_string()),
        };
        let subject = match stream.subject {
            Some(_) => Some(self.parsed(Code::BadPlace, &stream.subject, words::nats_subject)?),
            None => None,
        };
        Some(plan::JetStream {
            stream: server_name,
            subjects: self.subjects(&stream.subjects),
            subject,
            create,
            ack_wait: self.bounded(
                &stream.ack_wait,
                "ack_wait",
                Duration::from_secs(30),
                Duration::from_secs(1)..=HOUR,
            ),
        })
    }

    fn subjects(&mut self, field: &Option<At<Vec<At<String>>>>) -> Vec<String> {
        let Some((subjects, span)) = given(field) else {
            return Vec::new();
        };
        if subjects.is_empty() {
            self.sheet.error(Code::BadPlace, span, "`subjects` is empty");
        }
        let texts = subjects.iter().filter_map(|at| Some((at.value.as_ref()?, &at.span)));
        texts
            .filter_map(|(text, span)| {
                words::nats_filter(text)
                    .map_err(|message| self.sheet.error(Code::BadPlace, span, message))
                    .ok()
            })
            .collect()
    }

    fn mapping(&mut self, at: &At<file::Mapping>) -> Option<plan::Mapping> {
        let mapping = at.value.as_ref()?;
        for (field, key) in [
            (&mapping.id, "id"),
            (&mapping.source, "source"),
            (&mapping.r#type, "type"),
        ] {
            self.required(field, key, &at.span);
        }
        let [id, source, kind, subject] = [&mapping.id, &mapping.source, &mapping.r#type, &mapping.subject]
            .map(|field| self.parsed(Code::BadValue, field, words::origin));
        if let (Some(Origin::Fixed(fixed)), Some(span)) = (&id, span_of(&mapping.id)) {
            let message = format!("every event would have the id \"{fixed}\" and be taken for the same one");
            self.sheet
                .error(Code::BadValue, &span, message)
                .hint("take it from header:NAME or data:/pointer, or write hash");
        }
        Some(plan::Mapping {
            id: id?,
            source: source?,
            kind: kind?,
            subject,
            datacontenttype: given(&mapping.datacontenttype).map(|(text, _)| text.clone()),
        })
    }

    /// The stream that a reference means, which must be one that can be written to.
    pub(super) fn written(
        &mut self,
        reference: &At<String>,
        streams: &Directory<plan::Stream>,
    ) -> Option<Arc<plan::Stream>> {
        let stream = streams.find(reference.value.as_ref()?, &reference.span, self.sheet)?;
        if let Place::JetStream(place) = &stream.place
            && place.subject.is_none()
        {
            let message = format!("stream \"{}\" can't be written to: it has no `subject`", stream.name);
            self.sheet
                .error(Code::NotWritable, &reference.span, message)
                .hint(format!("add subject = \"...\" to [stream.{}]", stream.name));
        }
        Some(stream)
    }

    /// The stream that a reference means, which must be one that can be read.
    pub(super) fn read(
        &mut self,
        reference: &At<String>,
        streams: &Directory<plan::Stream>,
    ) -> Option<Arc<plan::Stream>> {
        let stream = streams.find(reference.value.as_ref()?, &reference.span, self.sheet)?;
        let name = &stream.name;
        let (why, hint) = match &stream.place {
            Place::JetStream(place) if place.subjects.is_empty() => (
                "it has no `subjects`",
                format!("add subjects = [\"...\"] to [stream.{name}]"),
            ),
            Place::Path(_) => (
                "it is a webhook",
                "put what comes in over HTTP on a stream with [ingress], and read that".to_owned(),
            ),
            Place::JetStream(_) | Place::Log(_) => return Some(stream),
        };
        let message = format!("stream \"{name}\" can't be read: {why}");
        self.sheet.error(Code::NotReadable, &reference.span, message).hint(hint);
        Some(stream)
    }
}
