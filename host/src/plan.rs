//! The proven config: every name resolves, every number has its bound, every default is filled in. Nothing past this type
//! checks or defaults again. `config` has the file as written; [`config::prove`](crate::config) makes one of the other.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::num::{NonZeroU32, NonZeroUsize};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A name from the config: `[a-z0-9]([a-z0-9-]*[a-z0-9])?`, at most 63 bytes, so that it fits broker names, metric labels and
/// file names alike. Cloning shares it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Name(Arc<str>);

impl Name {
    /// Checks a name.
    ///
    /// # Errors
    /// [`BadName`] if it is empty, too long or has other characters.
    pub fn new(text: &str) -> Result<Self, BadName> {
        let edge = |byte: Option<&u8>| byte.is_some_and(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
        let bytes = text.as_bytes();
        let inner = bytes
            .iter()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || *byte == b'-');
        if bytes.len() <= 63 && edge(bytes.first()) && edge(bytes.last()) && inner {
            Ok(Self(text.into()))
        } else {
            Err(BadName(text.to_owned()))
        }
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for Name {
    type Error = BadName;

    fn try_from(text: String) -> Result<Self, BadName> {
        Self::new(&text)
    }
}

impl From<Name> for String {
    fn from(name: Name) -> Self {
        name.0.as_ref().to_owned()
    }
}

/// The text is no name.
#[derive(Debug, thiserror::Error)]
#[error("\"{0}\" is no name: use 1 to 63 of a-z, 0-9 and -, with no - at either end")]
pub struct BadName(String);

/// Everything the host needs to run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The store of records, state, outbox and dead letters.
    pub ledger: Ledger,
    /// The brokers, by name.
    pub brokers: BTreeMap<Name, Arc<Broker>>,
    /// The streams, by name.
    pub streams: BTreeMap<Name, Arc<Stream>>,
    /// The consumers, by name.
    pub consumers: BTreeMap<Name, Arc<Consumer>>,
    /// The admin API.
    pub admin: Admin,
    /// The HTTP listener that puts events on streams, if there is one.
    pub ingress: Option<Ingress>,
    /// What concerns the host as a whole.
    pub host: Host,
}

/// `[host]`.
#[derive(Clone, Debug)]
pub struct Host {
    /// How long a drain may take before what still runs is left to the next host. Default 30 s, at most 1 h.
    pub grace: Duration,
    /// Where compiled plugins are kept between starts. Default: the user's cache folder.
    pub cache: Option<PathBuf>,
    /// The most instances alive at once over all consumers: sizes the pooling allocator. Default: the sum of concurrencies,
    /// at most 1,000. From 1 to 10,000.
    pub instances_max: NonZeroU32,
}

/// `[ledger]`.
#[derive(Clone, Debug)]
pub struct Ledger {
    /// Where it is.
    pub place: LedgerPlace,
    /// How long an event id is remembered. Exceeds every stream's redelivery horizon. Default 7 days,
    /// from 1 minute to 3,650 days.
    pub retention: Duration,
    /// Whether a commit waits for the disk. Only `bench` and tests turn it off.
    pub fsync: bool,
}

/// Which ledger.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LedgerPlace {
    /// `embedded:PATH`: a folder that one host owns.
    Embedded(PathBuf),
}

/// `[broker.NAME]`.
#[derive(Clone, Debug)]
pub struct Broker {
    /// Its name.
    pub name: Name,
    /// Which broker, and how it is reached.
    pub kind: BrokerKind,
}

/// The kinds of broker.
#[derive(Clone, Debug)]
pub enum BrokerKind {
    /// `embedded:`: durable logs in the ledger's own store. Its path must be the ledger's.
    Embedded,
    /// `nats://` or `tls://`: JetStream.
    Nats(Nats),
    /// `http://` or `https://`: a webhook, only written to.
    Webhook(Webhook),
}

/// How a NATS server is reached. `Debug` hides secrets.
#[derive(Clone, Debug)]
pub struct Nats {
    /// Server URLs without credentials.
    pub servers: Vec<String>,
    /// How the host says who it is.
    pub credentials: NatsCredentials,
    /// TLS, if asked for or demanded by a `tls://` URL.
    pub tls: Option<Tls>,
}

/// How the host says who it is.
#[derive(Clone, Debug)]
pub enum NatsCredentials {
    /// It does not.
    None,
    /// User and password.
    Password {
        /// The user.
        user: String,
        /// The password.
        password: Secret,
    },
    /// A token.
    Token(Secret),
    /// An nkey seed.
    Nkey(Secret),
    /// A `.creds` file.
    File(PathBuf),
}

/// TLS for a client.
#[derive(Clone, Debug, Default)]
pub struct Tls {
    /// CA certificates (PEM) to trust instead of the system's.
    pub ca: Option<PathBuf>,
    /// Client certificate and key (PEM).
    pub identity: Option<(PathBuf, PathBuf)>,
}

/// A webhook broker.
#[derive(Clone, Debug)]
pub struct Webhook {
    /// The base URL, without user, query or fragment; a stream's path is joined onto it.
    pub url: String,
    /// Sent as `Authorization: Bearer`.
    pub token: Option<Secret>,
    /// How long one request may take. Default 30 s, from 100 ms to 10 min.
    pub timeout: Duration,
    /// Requests under way at once. Default 64, at most 4,096.
    pub concurrency: NonZeroUsize,
}

/// Text that never appears in a log, an error or a debug print.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Wraps a secret.
    #[must_use]
    pub fn new(text: String) -> Self {
        Self(text)
    }

    /// The secret itself: hand it to a client, not to a formatter.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// `[stream.NAME]`: a named place on a broker.
#[derive(Clone, Debug)]
pub struct Stream {
    /// Its name.
    pub name: Name,
    /// The broker it is on.
    pub broker: Arc<Broker>,
    /// Where on it.
    pub place: Place,
    /// How events are written. Default binary.
    pub mode: ContentMode,
    /// How a message without CloudEvents headers becomes an event, if it may.
    pub mapping: Option<Mapping>,
}

/// The place of a stream, in its broker's own words.
#[derive(Clone, Debug)]
pub enum Place {
    /// A log in the embedded store, known by the stream's name.
    Log(Log),
    /// On JetStream.
    JetStream(JetStream),
    /// A path below the webhook's URL; without parts, the URL itself.
    Path(Template),
}

/// An embedded log.
#[derive(Clone, Debug)]
pub struct Log {
    /// What is older is dropped, even if nobody read it. Default: none; at least 1 minute.
    pub age_max: Option<Duration>,
    /// What is over this, oldest first, is dropped once every consumer has it settled. In bytes. Default 1 GiB,
    /// at least 1 MiB.
    pub bytes_max: u64,
}

/// A JetStream stream.
#[derive(Clone, Debug)]
pub struct JetStream {
    /// The stream's name on the server; `None`: found by its subjects. Always there if the host creates the stream.
    pub stream: Option<String>,
    /// The subjects that are read, and those of the stream if the host creates it: not empty then.
    pub subjects: Vec<String>,
    /// Where events are written. Without wildcards.
    pub subject: Option<Template>,
    /// Whether the host creates the stream if it is absent. Default false.
    pub create: bool,
    /// Ack wait of the consumer. The host keeps deliveries alive, so this is only how long a dead host's deliveries wait.
    /// Default 30 s, from 1 s to 1 h.
    pub ack_wait: Duration,
}

/// A place with attributes of the event in it: `stock.{type}`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    /// The parts in order.
    pub parts: Vec<TemplatePart>,
}

/// A part of a template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TemplatePart {
    /// Stands as it is.
    Literal(String),
    /// The value of this attribute or extension.
    Attribute(String),
}

/// How events are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ContentMode {
    /// Attributes in headers, data in the body.
    #[default]
    Binary,
    /// The whole event in the body, as JSON.
    Structured,
}

/// How a message without CloudEvents headers becomes an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mapping {
    /// Where `id` comes from.
    pub id: Origin,
    /// Where `source` comes from.
    pub source: Origin,
    /// Where `type` comes from.
    pub kind: Origin,
    /// Where `subject` comes from, if it is set.
    pub subject: Option<Origin>,
    /// `datacontenttype` of the result, if it is set.
    pub datacontenttype: Option<String>,
}

/// Where a value comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Always this text. Never the origin of an `id`.
    Fixed(String),
    /// `header:NAME`.
    Header(String),
    /// `data:/json/pointer` (RFC 6901): a string, number or boolean in the JSON body.
    Data(String),
    /// `subject`: the message's place.
    Subject,
    /// `hash`: hex of the first 128 bits of SHA-256 over place and body.
    Hash,
}

/// `[consumer.NAME]`.
#[derive(Clone, Debug)]
pub struct Consumer {
    /// Its name: the scope of its records, state and cursor. Renaming a consumer makes a new one.
    pub name: Name,
    /// Where the plugin is: a `.wasm` file.
    pub plugin: PathBuf,
    /// The digest it must have (`sha256:` hex), if pinned.
    pub digest: Option<String>,
    /// What is read.
    pub reads: Arc<Stream>,
    /// Where emitted events go: the first rule that matches the event's type; the most specific stands first. Empty: the consumer
    /// may not emit.
    pub writes: Vec<WriteRule>,
    /// The types it wants (exact, or a prefix ended by `*`); empty: all. Others are settled untouched.
    pub types: Vec<TypePattern>,
    /// Where the ordering key is.
    pub key: Key,
    /// Attempts under way at once. Default 64, at most 4,096.
    pub concurrency: NonZeroUsize,
    /// The most held unsettled. Default: 16 times the concurrency, at least 1,024, at most 16,384; 64 MiB. From the
    /// concurrency to 65,536; from 64 KiB to 4 GiB.
    pub budget: Budget,
    /// When and how often to try again.
    pub retry: Retry,
    /// What one attempt may use.
    pub limits: Limits,
    /// What the plugin may do.
    pub grants: Grants,
    /// How instances live.
    pub instances: Instances,
    /// What follows a dead letter for the later events of its key.
    pub on_dead: OnDead,
    /// Where dead letters are published too.
    pub dead_letter: Option<Arc<Stream>>,
    /// When a delivery is settled.
    pub settle: SettleWhen,
    /// When the whole consumer pauses.
    pub breaker: Breaker,
}

/// One line of `writes`.
#[derive(Clone, Debug)]
pub struct WriteRule {
    /// Which types.
    pub types: TypePattern,
    /// Where to.
    pub stream: Arc<Stream>,
}

/// Types by name or by prefix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TypePattern {
    /// Just this type.
    Exact(String),
    /// Every type that begins so (written with a `*` at the end).
    Prefix(String),
}

impl TypePattern {
    /// Whether a type matches.
    #[must_use]
    pub fn matches(&self, kind: &str) -> bool {
        match self {
            Self::Exact(exact) => exact == kind,
            Self::Prefix(prefix) => kind.starts_with(prefix.as_str()),
        }
    }
}

/// Where the ordering key is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Key {
    /// An attribute or extension. Default `subject`; an event without it has its `id` for a key, so that nothing waits for it.
    Attribute(String),
    /// `data:/json/pointer` (RFC 6901): a string, number or boolean in the JSON data. An event without it is a dead letter `no-key`.
    Data(String),
    /// `none`: no order, every event on its own.
    None,
}

/// The most held unsettled.
#[derive(Clone, Copy, Debug)]
pub struct Budget {
    /// Events.
    pub events: NonZeroUsize,
    /// Bytes of messages.
    pub bytes: NonZeroUsize,
}

/// When and how often to try again.
#[derive(Clone, Debug)]
pub struct Retry {
    /// Attempts in all, the first included. Default 5, at most 1,000.
    pub attempts: NonZeroU32,
    /// The pause after the first failure; it doubles. Default 100 ms, at least 1 ms.
    pub backoff_min: Duration,
    /// The longest pause, and the most that a plugin's `retry-after-ms` is honoured. Default 10 s, at most 24 h, at
    /// least `backoff_min`.
    pub backoff_max: Duration,
    /// A lane that waits longer than this is parked in the ledger. Default 5 s, from 10 ms to 1 h.
    pub park_after: Duration,
    /// A waiting lane that holds more than this many of the budget's events is parked. Default: an eighth of the
    /// budget, at most the budget.
    pub park_over: NonZeroUsize,
    /// Events parked at once at most. Beyond, they fill the budget and then wait at the broker, those of other keys too.
    /// Default 1,000,000, at most 1,000,000,000.
    pub parked_max: NonZeroUsize,
}

/// What one attempt may use.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Linear memory, in bytes. Default 64 MiB, from 64 KiB to 4 GiB.
    pub memory: usize,
    /// Wall time. Default 2 s, from 1 ms to 15 min.
    pub time: Duration,
    /// Elements over all tables. Default 20,000, at most 10,000,000.
    pub table_elements: usize,
    /// Events emitted. Default 100, at most 10,000.
    pub emits: usize,
    /// Bytes of one emitted event. Default 1 MiB, from 1 KiB to 64 MiB, at most `effect_bytes`.
    pub emit_bytes: usize,
    /// State writes. Default 1,000, at most 100,000.
    pub state_writes: usize,
    /// Bytes over all state writes and emitted events of one attempt. Default 8 MiB, from 1 KiB to 256 MiB.
    pub effect_bytes: usize,
    /// Log lines. Default 100, at most 10,000; what is over is counted, not kept.
    pub log_lines: usize,
    /// Bytes of one log line. Default 4 KiB, from 64 bytes to 64 KiB; the rest is cut.
    pub log_line_bytes: usize,
}

/// What the plugin may do. `Debug` shows the keys of `config` without their values, which may be secrets.
#[derive(Clone, Default)]
pub struct Grants {
    /// `wasi:keyvalue`: its own state.
    pub state: bool,
    /// `wasi:config`: these values.
    pub config: Option<BTreeMap<String, String>>,
    /// `wasi:logging` and the standard streams: lines in the host's log. On by default.
    pub logging: bool,
    /// Outgoing HTTP to these origins. Not linked in this version: a plugin that imports it is refused.
    pub http: Vec<String>,
}

impl fmt::Debug for Grants {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let config = self.config.as_ref().map(|config| config.keys().collect::<Vec<_>>());
        f.debug_struct("Grants")
            .field("state", &self.state)
            .field("config", &config)
            .field("logging", &self.logging)
            .field("http", &self.http)
            .finish()
    }
}

/// How instances live.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Instances {
    /// A fresh one per event. The default: nothing leaks from one event to another.
    Fresh,
    /// Reused: the guest's memory outlives the event. A trapped instance never is.
    Reuse {
        /// Events per instance at most. Default 10,000, at least 1.
        uses_max: NonZeroU32,
        /// Age at most. Default 10 min, from 1 s to 24 h.
        age_max: Duration,
    },
}

/// What follows a dead letter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnDead {
    /// Later events of the key go on.
    #[default]
    Continue,
    /// Later events of the key wait, parked, until the dead letter is redriven or purged.
    HoldKey,
}

/// When a delivery is settled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SettleWhen {
    /// After its outputs are confirmed by their broker.
    #[default]
    Confirmed,
    /// After its commit.
    Committed,
}

/// When the whole consumer pauses.
#[derive(Clone, Debug)]
pub struct Breaker {
    /// Opens when at least this share of the last `window` attempts failed. Default 0.5, above 0, at most 1.
    pub failure_rate: f64,
    /// Attempts looked at. Default 100, from 2 to 10,000; it does not open before half of them are in.
    pub window: NonZeroUsize,
    /// Opens only if the failures come from at least this many keys: one bad key is no bad plugin. Default 5, at most
    /// `window`.
    pub keys_min: NonZeroUsize,
    /// How long it stays open before one event probes; doubles up to `open_max`. Default 5 s, at least
    /// 10 ms.
    pub open_min: Duration,
    /// The longest it stays open between probes. Default 1 min, at most 1 h, at least `open_min`.
    pub open_max: Duration,
}

/// `[admin]`.
#[derive(Clone, Debug)]
pub struct Admin {
    /// Where it listens. Default `127.0.0.1:7070`; port 0 asks for a free one.
    pub listen: SocketAddr,
    /// Demanded as `Authorization: Bearer` on `/api`; required on any address but loopback.
    pub token: Option<Secret>,
}

/// `[ingress]`.
#[derive(Clone, Debug)]
pub struct Ingress {
    /// Where it listens.
    pub listen: SocketAddr,
    /// Demanded as `Authorization: Bearer`; required on any address but loopback.
    pub token: Option<Secret>,
    /// Path (`/` and then letters, digits and any of `/-_.~`) to stream: `POST` there puts events on it.
    pub routes: BTreeMap<String, Arc<Stream>>,
    /// Bytes of one request body. Default 1 MiB, from 1 KiB to 64 MiB.
    pub body_bytes_max: usize,
    /// Requests under way at once. Default 256, at most 65,536; what is over gets 503.
    pub concurrency: NonZeroUsize,
}
