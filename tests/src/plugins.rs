//! Plugins as the pipeline has them, without a pipeline: load one, call it, look at what came of it.

use std::collections::BTreeMap;
use std::num::{NonZeroU32, NonZeroUsize};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::{BoxFuture, ready};
use tidegate::clock::Clock;
use tidegate::event::key::LaneKey;
use tidegate::event::{Event, Extension, Headers, Message, Value};
use tidegate::ledger::{self, Read, RecordKey, StateBucket, StateKey, StateReader, Version};
use tidegate::outcome::{Failure, Outcome};
use tidegate::plan::{
    Breaker, Broker, BrokerKind, Budget, Consumer, ContentMode, Grants, Instances, Key, Limits, Log, Name, OnDead,
    Place, Retry, SettleWhen, Stream, TypePattern, WriteRule,
};
use tidegate::plugin::{Attempted, Call, Engine, Handler, LoadError, Plugin, Settings, load};

/// The engine that all tests share, as all consumers of a host do.
///
/// # Panics
/// If the machine gives no engine.
#[must_use]
pub fn engine() -> Engine {
    static ENGINE: OnceLock<Engine> = OnceLock::new();
    ENGINE.get_or_init(|| engine_with_room(100)).clone()
}

/// An engine of a test's own.
///
/// # Panics
/// If the machine gives none.
#[must_use]
#[expect(clippy::expect_used, reason = "there is no test without an engine")]
pub fn engine_with_room(instances_max: u32) -> Engine {
    Engine::new(&Settings {
        instances_max: NonZeroU32::new(instances_max).expect("it is not 0"),
        memory_max: 64 << 20,
        table_elements_max: 20_000,
        cache: Some(cache()),
    })
    .expect("the machine has room for an engine")
}

/// Where the tests keep compiled plugins.
#[must_use]
pub fn cache() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/guests/compiled")
}

/// A consumer called `test` with the defaults of the config, that may write state and emit what begins with its plugin's name to the
/// stream `out`.
///
/// # Panics
/// Never: its names are names.
#[must_use]
#[expect(clippy::expect_used, reason = "the literals are not 0, and are names")]
pub fn consumer(plugin: PathBuf) -> Consumer {
    let name = |name| Name::new(name).expect("it is a name");
    let count = |count| NonZeroUsize::new(count).expect("it is not 0");
    let broker = Arc::new(Broker {
        name: name("main"),
        kind: BrokerKind::Embedded,
    });
    let stream = |text| {
        Arc::new(Stream {
            name: name(text),
            broker: Arc::clone(&broker),
            place: Place::Log(Log {
                age_max: None,
                bytes_max: 1 << 30,
            }),
            mode: ContentMode::Binary,
            mapping: None,
        })
    };
    let rule = |prefix: &str| WriteRule {
        types: TypePattern::Prefix(prefix.to_owned()),
        stream: stream("out"),
    };
    Consumer {
        name: name("test"),
        plugin,
        digest: None,
        reads: stream("in"),
        writes: vec![rule("plain."), rule("hostile.")],
        types: Vec::new(),
        key: Key::Attribute("subject".to_owned()),
        concurrency: count(64),
        budget: Budget {
            events: count(1024),
            bytes: count(64 << 20),
        },
        retry: Retry {
            attempts: NonZeroU32::new(5).expect("it is not 0"),
            backoff_min: Duration::from_millis(100),
            backoff_max: Duration::from_secs(10),
            park_after: Duration::from_secs(5),
            park_over: count(128),
            parked_max: count(10_000),
        },
        limits: Limits {
            memory: 64 << 20,
            time: Duration::from_secs(2),
            table_elements: 20_000,
            emits: 100,
            emit_bytes: 1 << 20,
            state_writes: 1000,
            effect_bytes: 8 << 20,
            log_lines: 100,
            log_line_bytes: 4 << 10,
        },
        grants: Grants {
            state: true,
            config: Some(BTreeMap::from([("currency".to_owned(), "EUR".to_owned())])),
            logging: true,
            http: Vec::new(),
        },
        instances: Instances::Fresh,
        on_dead: OnDead::Continue,
        dead_letter: None,
        settle: SettleWhen::Confirmed,
        breaker: Breaker {
            failure_rate: 0.5,
            window: count(100),
            keys_min: count(5),
            open_min: Duration::from_secs(5),
            open_max: Duration::from_secs(60),
        },
    }
}

/// Loads a consumer's plugin into the shared engine.
///
/// # Errors
/// As [`load`].
pub async fn try_load(consumer: Consumer) -> Result<Plugin, LoadError> {
    try_load_into(&engine(), consumer).await
}

/// Loads a consumer's plugin into an engine.
///
/// # Errors
/// As [`load`].
pub async fn try_load_into(engine: &Engine, consumer: Consumer) -> Result<Plugin, LoadError> {
    load(engine, &Arc::new(consumer), &Clock::system(), encode).await
}

/// An encoder that needs no broker: the event's attributes as header lines.
///
/// # Errors
/// If an extension is called `refused`.
pub fn encode(event: &Event, stream: &Stream) -> Result<Message, String> {
    if event.extension("refused").is_some() {
        return Err("it can't be written there".to_owned());
    }
    let mut message = Message {
        subject: stream.name.to_string(),
        payload: event.data.clone().unwrap_or_default(),
        ..Message::default()
    };
    for name in ["id", "source", "type", "subject", "time", "datacontenttype"] {
        if let Some(value) = event.attribute(name) {
            message.headers.push(name, value);
        }
    }
    for Extension { name, value } in &event.extensions {
        message.headers.push(name.as_str(), value.to_string());
    }
    Ok(message)
}

/// An event of a type, with data.
#[must_use]
pub fn event(kind: &str, data: &str) -> Event {
    Event {
        id: "e1".to_owned(),
        source: "/tests".to_owned(),
        kind: kind.to_owned(),
        subject: Some("s1".to_owned()),
        time: Some("2026-11-24T12:00:00Z".to_owned()),
        datacontenttype: Some("text/plain".to_owned()),
        dataschema: None,
        extensions: vec![
            Extension {
                name: "traceparent".to_owned(),
                value: Value::String("00-ab-cd-01".to_owned()),
            },
            Extension {
                name: "priority".to_owned(),
                value: Value::Integer(7),
            },
        ],
        data: Some(Bytes::copy_from_slice(data.as_bytes())),
    }
}

/// Calls a plugin once, within `time`, over committed state.
pub async fn call_within(plugin: &impl Handler, event: &Event, state: &dyn StateReader, time: Duration) -> Attempted {
    call_with_headers(plugin, event, &Headers::default(), state, time).await
}

/// The same for an event that came with these headers.
pub async fn call_with_headers(
    plugin: &impl Handler,
    event: &Event,
    headers: &Headers,
    state: &dyn StateReader,
    time: Duration,
) -> Attempted {
    plugin
        .attempt(Call {
            event,
            headers,
            attempt: 1,
            deadline: Clock::system().now() + time,
            lane: &LaneKey(Arc::from(&b"s1"[..])),
            record: record(event),
            state,
        })
        .await
}

/// What the ledger knows an event of the tests' consumer by.
///
/// # Panics
/// Never: "test" is a name.
#[must_use]
pub fn record(event: &Event) -> RecordKey {
    RecordKey::of(&Name::new("test").expect("it is a name"), event)
}

/// Calls a plugin once, within the time that a consumer has by default.
pub async fn call(plugin: &impl Handler, event: &Event, state: &dyn StateReader) -> Attempted {
    call_within(plugin, event, state, Duration::from_secs(2)).await
}

/// The failure of an attempt.
///
/// # Panics
/// If it did not fail.
#[must_use]
#[expect(clippy::panic, reason = "the test expects it to have failed")]
pub fn failure(attempted: Attempted) -> Failure {
    match attempted.outcome {
        Outcome::Failed(failure) => failure,
        other => panic!("it should have failed: {other:?}"),
    }
}

/// Committed state in memory. Counts what is read; can be made to fail or to never answer.
#[derive(Default)]
pub struct State {
    values: Mutex<BTreeMap<StateKey, (Bytes, Version)>>,
    reads: Mutex<usize>,
    /// How it answers.
    pub mood: Mood,
}

/// How [`State`] answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mood {
    /// As it should.
    #[default]
    Well,
    /// Not at all.
    Silent,
    /// That it can't.
    Away,
}

impl State {
    /// Commits a value, as version 1 or the next.
    pub fn put(&self, key: &str, value: &str) {
        let mut values = self.values.lock().unwrap_or_else(PoisonError::into_inner);
        let known = values.entry(key_of(key)).or_default();
        *known = (Bytes::copy_from_slice(value.as_bytes()), Version(known.1.0 + 1));
    }

    /// How many keys have been read.
    pub fn reads(&self) -> usize {
        *self.reads.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn answer<'a, T: Send + 'a>(&self, value: T) -> BoxFuture<'a, Result<T, ledger::Error>> {
        match self.mood {
            Mood::Well => Box::pin(ready(Ok(value))),
            Mood::Silent => Box::pin(std::future::pending()),
            Mood::Away => Box::pin(ready(Err(ledger::Error::Unavailable("the disk is full".to_owned())))),
        }
    }
}

/// A key in the default bucket of the consumer `test`.
///
/// # Panics
/// Never: the name is one.
#[must_use]
#[expect(clippy::expect_used, reason = "the literal is a name")]
pub fn key_of(key: &str) -> StateKey {
    StateKey {
        bucket: StateBucket {
            consumer: Name::new("test").expect("it is a name"),
            bucket: "default".into(),
        },
        key: key.into(),
    }
}

impl StateReader for State {
    fn read<'a>(&'a self, key: &'a StateKey) -> BoxFuture<'a, Result<Read, ledger::Error>> {
        *self.reads.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        let values = self.values.lock().unwrap_or_else(PoisonError::into_inner);
        let read = values.get(key).map_or_else(Read::default, |(value, version)| Read {
            value: Some(value.clone()),
            version: *version,
        });
        self.answer(read)
    }

    fn list<'a>(
        &'a self,
        bucket: &'a StateBucket,
        after: Option<&'a str>,
        limit: usize,
    ) -> BoxFuture<'a, Result<Vec<String>, ledger::Error>> {
        let values = self.values.lock().unwrap_or_else(PoisonError::into_inner);
        let keys = values
            .keys()
            .filter(|key| key.bucket == *bucket)
            .map(|key| key.key.to_string())
            .filter(|key| after.is_none_or(|after| key.as_str() > after))
            .take(limit)
            .collect();
        self.answer(keys)
    }
}
