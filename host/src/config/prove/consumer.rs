//! Proves a `[consumer.NAME]`: what it reads and writes, and that its promises can be kept with the streams it has.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::{Directory, Prover, count, given, plugin, span_of, words};
use crate::config::file::{self, Writes};
use crate::config::problem::Code;
use crate::config::quantity::show_period;
use crate::config::read::{At, Named};
use crate::config::sheet::Span;
use crate::plan::{self, Key, Name, Place, Secret, TemplatePart, TypePattern, WriteRule};

/// An event that kills its host is found at its third such stop, so it is given that often by the ack wait alone.
const UNCLEAN_STOPS: u32 = 3;

impl Prover<'_, '_> {
    pub(super) fn consumer(
        &mut self,
        name: &Name,
        at: &At<file::Consumer>,
        streams: &Directory<plan::Stream>,
    ) -> Option<plan::Consumer> {
        let consumer = at.value.as_ref()?;
        let concurrency = count(self.bounded(&consumer.concurrency, "concurrency", 64, 1..=4_096));
        let budget = self.budget(&consumer.budget, concurrency);
        let retry = self.retry(&consumer.retry, budget);
        let limits = self.limits(&consumer.limits);
        let types = self.types(&consumer.types);
        let writes = self.writes(&consumer.writes, streams);
        let digest = self.parsed(Code::BadValue, &consumer.digest, words::digest);
        let key = self.parsed(Code::BadValue, &consumer.key, words::key);
        let grants = self.grants(&consumer.grants);
        let breaker = self.breaker(&consumer.breaker);
        let instances = self.instances(&consumer.instances);
        let dead_letter = consumer
            .dead_letter
            .as_ref()
            .and_then(|reference| self.letters(reference, streams));
        let plugin = self.plugin(&consumer.plugin, &at.span);
        self.required(&consumer.reads, "reads", &at.span);
        let reads = self.read(consumer.reads.as_ref()?, streams)?;
        let proven = plan::Consumer {
            name: name.clone(),
            plugin: plugin?,
            digest,
            reads,
            writes,
            types,
            key: key.unwrap_or_else(|| Key::Attribute("subject".to_owned())),
            concurrency,
            budget,
            retry,
            limits,
            grants,
            instances,
            on_dead: given(&consumer.on_dead).map_or_else(Default::default, |(on_dead, _)| *on_dead),
            dead_letter,
            settle: given(&consumer.settle).map_or_else(Default::default, |(settle, _)| *settle),
            breaker,
        };
        self.retention(&proven, consumer);
        self.loops(&proven, consumer);
        Some(proven)
    }

    fn plugin(&mut self, field: &Option<At<String>>, section: &Span) -> Option<std::path::PathBuf> {
        let (text, span) = self.required(field, "plugin", section)?;
        if text.contains("://") || text.starts_with("oci:") {
            self.sheet
                .error(Code::Unsupported, span, "this version takes plugins from the disk only")
                .hint("fetch the file, and name it here");
            return None;
        }
        plugin::locate(&self.path(text))
            .map_err(|message| self.sheet.error(Code::PluginNotFound, span, message).hint(plugin::HINT))
            .ok()
    }

    fn types(&mut self, field: &Option<At<Vec<At<String>>>>) -> Vec<TypePattern> {
        let Some((types, span)) = given(field) else {
            return Vec::new();
        };
        if types.is_empty() {
            self.sheet
                .error(
                    Code::BadValue,
                    span,
                    "`types` is empty: the consumer would want nothing",
                )
                .hint("leave it out to take all types");
        }
        types
            .iter()
            .filter_map(|at| self.pattern(at.value.as_ref()?, &at.span))
            .collect()
    }

    fn pattern(&mut self, text: &str, span: &Span) -> Option<TypePattern> {
        words::type_pattern(text)
            .map_err(|message| self.sheet.error(Code::BadValue, span, message))
            .ok()
    }

    fn writes(&mut self, field: &Option<At<Writes>>, streams: &Directory<plan::Stream>) -> Vec<WriteRule> {
        match given(field) {
            None => Vec::new(),
            Some((Writes::All(stream), span)) => {
                let reference = At {
                    value: Some(stream.clone()),
                    span: span.clone(),
                };
                let types = TypePattern::Prefix(String::new());
                let stream = self.written(&reference, streams);
                stream.map(|stream| WriteRule { types, stream }).into_iter().collect()
            }
            Some((Writes::ByType(rules), _)) => self.rules(rules, streams),
        }
    }

    /// The stream for copies of dead letters. Its place must be there for every message, also for one that is no event.
    fn letters(&mut self, reference: &At<String>, streams: &Directory<plan::Stream>) -> Option<Arc<plan::Stream>> {
        let stream = self.written(reference, streams)?;
        let (key, template) = match &stream.place {
            Place::Log(_) => return Some(stream),
            Place::JetStream(place) => ("subject", place.subject.as_ref()?),
            Place::Path(template) => ("path", template),
        };
        let attribute = template.parts.iter().find_map(|part| match part {
            TemplatePart::Attribute(name) => Some(name),
            TemplatePart::Literal(_) => None,
        });
        if let Some(attribute) = attribute {
            let message = format!(
                "stream \"{}\" can't take dead letters: its `{key}` has {{{attribute}}} in it, and what could not be decoded has no attributes",
                stream.name
            );
            self.sheet
                .error(Code::NotWritable, &reference.span, message)
                .hint(format!(
                    "name a stream whose `{key}` has no braces; headers say what each letter is"
                ));
        }
        Some(stream)
    }

    fn rules(&mut self, rules: &Named<String>, streams: &Directory<plan::Stream>) -> Vec<WriteRule> {
        let mut proven = Vec::new();
        for (key, reference) in &rules.0 {
            let types = self.pattern(&key.text, &key.span);
            let stream = self.written(reference, streams);
            if let (Some(types), Some(stream)) = (types, stream) {
                proven.push(WriteRule { types, stream });
            }
        }
        // The first that matches wins, so the most specific stands first: names, then prefixes, the longer first.
        proven.sort_by_key(|rule| match &rule.types {
            TypePattern::Exact(_) => (0, 0),
            TypePattern::Prefix(prefix) => (1, usize::MAX - prefix.len()),
        });
        proven
    }

    fn grants(&mut self, field: &Option<At<file::Grants>>) -> plan::Grants {
        let none = file::Grants::default();
        let grants = given(field).map_or(&none, |(grants, _)| grants);
        let origins = given(&grants.http).map_or(&[][..], |(origins, _)| origins);
        let http = origins
            .iter()
            .filter_map(|at| {
                words::web_origin(at.value.as_ref()?)
                    .map_err(|message| self.sheet.error(Code::BadUrl, &at.span, message))
                    .ok()
            })
            .collect();
        plan::Grants {
            state: self.flag(&grants.state, false),
            config: given(&grants.config).map(|(values, _)| granted_values(values)),
            logging: self.flag(&grants.logging, true),
            http,
        }
    }

    /// An id must be remembered for longer than its event can come again.
    fn retention(&mut self, consumer: &plan::Consumer, written: &file::Consumer) {
        let horizon = Horizon::of(consumer);
        if self.retention > horizon.total {
            return;
        }
        let span = self.retention_span.clone().or_else(|| span_of(&written.reads));
        let message = format!(
            "`retention` is {}, but consumer \"{}\" may be given an event of stream \"{}\" again for {} ({})",
            show_period(self.retention),
            consumer.name,
            consumer.reads.name,
            show_period(horizon.total),
            horizon.sum,
        );
        self.sheet
            .error(Code::RetentionTooShort, &span.unwrap_or_default(), message)
            .hint("remember ids for longer: raise `retention`, or lower the consumer's retry or limits.time");
    }

    /// Warns of a consumer that may read what it wrote, and refuses one that must.
    fn loops(&mut self, consumer: &plan::Consumer, written: &file::Consumer) {
        let reads = &consumer.reads.name;
        if let Some(span) = span_of(&written.dead_letter)
            && consumer
                .dead_letter
                .as_ref()
                .is_some_and(|stream| stream.name == *reads)
        {
            let message = format!(
                "consumer \"{}\" would read its own dead letters from stream \"{reads}\"",
                consumer.name
            );
            self.sheet
                .error(Code::Loop, &span, message)
                .hint("publish them on a stream of their own; they are always kept in the ledger");
        }
        let rule = consumer
            .writes
            .iter()
            .find(|rule| rule.stream.name == *reads && wants(&consumer.types, &rule.types));
        if let (Some(rule), Some(span)) = (rule, span_of(&written.writes)) {
            let message = format!(
                "consumer \"{}\" writes {} to stream \"{reads}\", which it reads: it may be handed its own events",
                consumer.name,
                shown(&rule.types),
            );
            self.sheet
                .warn(Code::Loop, &span, message)
                .hint("narrow its `types` to what it does not emit, or write to another stream");
        }
    }
}

/// How long an event may come again after it took effect.
struct Horizon {
    total: Duration,
    /// How it came about, for people.
    sum: String,
}

impl Horizon {
    /// The event itself was done, but one before it in the stream was not, and keeps the position low: for all its attempts with
    /// the longest pauses between them; and where the broker waits for acknowledgements, through stops of the host.
    fn of(consumer: &plan::Consumer) -> Self {
        let attempts = consumer.retry.attempts.get();
        let (time, pause) = (consumer.limits.time, consumer.retry.backoff_max);
        let mut total = time * attempts + pause * (attempts - 1);
        let mut sum = format!(
            "{attempts} attempts of {} and {} pauses of {}",
            show_period(time),
            attempts - 1,
            show_period(pause),
        );
        if let Place::JetStream(place) = &consumer.reads.place {
            total += place.ack_wait * UNCLEAN_STOPS;
            sum = format!("{UNCLEAN_STOPS} ack waits of {}, {sum}", show_period(place.ack_wait));
        }
        Self { total, sum }
    }
}

fn granted_values(values: &Named<Secret>) -> BTreeMap<String, String> {
    let read = values.0.iter().filter_map(|(key, at)| {
        let value = at.value.as_ref()?.reveal();
        Some((key.text.clone(), value.to_owned()))
    });
    read.collect()
}

/// Whether one of the wanted types may be among the written ones.
fn wants(wanted: &[TypePattern], written: &TypePattern) -> bool {
    wanted.is_empty() || wanted.iter().any(|wanted| overlap(wanted, written))
}

fn overlap(one: &TypePattern, other: &TypePattern) -> bool {
    match (one, other) {
        (TypePattern::Exact(exact), pattern) | (pattern, TypePattern::Exact(exact)) => pattern.matches(exact),
        (TypePattern::Prefix(one), TypePattern::Prefix(other)) => {
            one.starts_with(other.as_str()) || other.starts_with(one.as_str())
        }
    }
}

fn shown(types: &TypePattern) -> String {
    match types {
        TypePattern::Exact(exact) => format!("\"{exact}\""),
        TypePattern::Prefix(prefix) => format!("\"{prefix}*\""),
    }
}
