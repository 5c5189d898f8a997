//! The config as written: every section and key that may stand in the file. The text of each is what editors show, by way of
//! the JSON Schema; defaults and bounds are those of [`plan`](crate::plan), where [`prove`](super::prove) takes them from here.

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use toml::Spanned;
use toml::de::DeValue;

use super::quantity::{Period, Periods, Size};
use super::read::{At, Location, Named, Reader, Written, choice, section};
use crate::plan::{ContentMode, OnDead, Secret, SettleWhen};

section! {
    /// The config of a Tidegate host. Strings may hold `${VAR}` and `${VAR:-default}`; paths are relative to this file's folder.
    File {
        /// Where records, state, outbox and dead letters are kept.
        #[schemars(required)]
        ledger: Ledger,
        /// The brokers, by name.
        broker: Named<Broker>,
        /// The streams, by name: places on a broker that are read or written.
        stream: Named<Stream>,
        /// The consumers, by name: a plugin with what it reads, what it writes and its policies.
        consumer: Named<Consumer>,
        /// The admin API.
        admin: Admin,
        /// A listener that takes events over HTTP and puts them on streams.
        ingress: Ingress,
        /// What concerns the host as a whole.
        host: Host,
    }
}

section! {
    /// The ledger.
    Ledger {
        /// `embedded:PATH`: a folder that this host alone uses.
        #[schemars(required)]
        url: Location,
        /// How long an event id is remembered. Default 7d, from 1m to 3650d; must exceed every stream's redelivery horizon.
        retention: Period,
        /// Whether a commit waits for the disk. For tests and measurements only.
        #[schemars(skip)]
        fsync: bool,
    }
}

section! {
    /// A broker.
    Broker {
        /// `embedded:` (in the ledger's folder), `nats://HOST` or `tls://HOST` (JetStream; several with commas between), `http://` or
        /// `https://` (a webhook, only written to).
        #[schemars(required)]
        url: Location,
        /// NATS: the user; needs `password`.
        user: String,
        /// NATS: the password; needs `user`.
        password: Secret,
        /// NATS: a token. Webhook: sent as `Authorization: Bearer`.
        token: Secret,
        /// NATS: an nkey seed.
        nkey: Secret,
        /// NATS: a `.creds` file.
        creds: String,
        /// NATS: CA certificates (PEM) to trust instead of the system's.
        ca: String,
        /// NATS: client certificate (PEM); needs `key`.
        cert: String,
        /// NATS: the key (PEM) of `cert`.
        key: String,
        /// Webhook: how long one request may take. Default 30s, from 100ms to 10m.
        timeout: Period,
        /// Webhook: requests under way at once. Default 64, from 1 to 4096.
        concurrency: u64,
    }
}

section! {
    /// A stream. The words `stream`, `subjects`, `subject`, `create` and `ack_wait` are for NATS, `age_max` and `bytes_max` for
    /// embedded brokers, `path` for webhooks. Where the broker's url has a variable in it, words for other kinds are allowed and
    /// without effect, so that one file serves several environments.
    Stream {
        /// The broker it is on.
        #[schemars(required)]
        broker: String,
        /// How events are written: `binary` (attributes in headers, the default) or `structured` (all in the body, as JSON).
        mode: ContentMode,
        /// How a message without CloudEvents headers becomes an event.
        mapping: Mapping,
        /// NATS: the stream's name on the server. Default: found by its subjects; this section's name if it is created.
        stream: String,
        /// NATS: what is read, and the subjects of the stream if it is created.
        subjects: Vec<At<String>>,
        /// NATS: where events are written, with attributes in braces: `stock.{type}`.
        subject: String,
        /// NATS: whether the host creates the stream if it is absent. Default false.
        create: bool,
        /// NATS: how long the deliveries of a host that died wait for another. Default 30s, from 1s to 1h.
        ack_wait: Period,
        /// Embedded: what is older is dropped, even if nobody read it. Default: nothing is; at least 1m.
        age_max: Period,
        /// Embedded: what is over this is dropped, oldest first, once every consumer has it settled. Default 1GiB, at least 1MiB.
        bytes_max: Size,
        /// Webhook: joined onto the broker's url, with attributes in braces. Default: nothing, the url itself.
        path: String,
    }
}

section! {
    /// Where the attributes of a foreign message come from. Each is `header:NAME`, `data:/json/pointer` (a string, number or
    /// boolean in the JSON body), `subject` (the message's place), `hash` (of place and body), or otherwise the value itself.
    Mapping {
        /// Where `id` comes from. Never a fixed value: all events would be one.
        #[schemars(required)]
        id: String,
        /// Where `source` comes from.
        #[schemars(required)]
        source: String,
        /// Where `type` comes from.
        #[schemars(required)]
        r#type: String,
        /// Where `subject` comes from. Default: it is not set.
        subject: String,
        /// `datacontenttype` of the event, as it is. Default: it is not set.
        datacontenttype: String,
    }
}

section! {
    /// A consumer. Its name is the scope of its records, state and cursor: renaming it makes a new one.
    Consumer {
        /// A `.wasm` file, or a folder with `plugin.wasm`, a single `.wasm` file, or a Cargo project built for `wasm32-wasip2`.
        #[schemars(required)]
        plugin: String,
        /// The digest the plugin must have: `sha256:` and 64 hex digits. Default: any.
        digest: String,
        /// The stream that is read.
        #[schemars(required)]
        reads: String,
        /// The stream where emitted events go, or a table from types (exact, or a prefix and `*`) to streams; the most specific
        /// wins. Default: the plugin may not emit.
        writes: Writes,
        /// The types it wants: exact, or a prefix and `*`. Others are settled untouched. Default: all.
        types: Vec<At<String>>,
        /// The ordering key: an attribute or extension, `data:/json/pointer`, or `none`. Default `subject`. An event without the attribute has a
        /// lane of its own, in no order with others; one without the data becomes a dead letter.
        key: String,
        /// Attempts under way at once. Default 64, from 1 to 4096.
        concurrency: u64,
        /// The most held unsettled.
        budget: Budget,
        /// When and how often to try again.
        retry: Retry,
        /// What one attempt may use.
        limits: Limits,
        /// What the plugin may do.
        grants: Grants,
        /// How instances live: `fresh` (one per event, the default), `reuse`, or a table that bounds the reuse.
        instances: Instances,
        /// What follows a dead letter for later events of its key: they go on (`continue`, the default), or wait until it is
        /// redriven or purged (`hold_key`).
        on_dead: OnDead,
        /// A stream where dead letters are published too. They are always kept in the ledger.
        dead_letter: String,
        /// When a delivery is settled: after its outputs are `confirmed` (the default) or after it is `committed`.
        settle: SettleWhen,
        /// When the whole consumer pauses.
        breaker: Breaker,
    }
}

section! {
    /// The most that a consumer holds unsettled.
    Budget {
        /// Events. Default 16 times the concurrency, but from 1024 to 16384; at least the concurrency, at most 65536.
        events: u64,
        /// Bytes of messages. Default 64MiB, from 64KiB to 4GiB.
        bytes: Size,
    }
}

section! {
    /// When and how often to try again.
    Retry {
        /// Attempts in all, the first included. Default 5, from 1 to 1000.
        attempts: u64,
        /// The first pause, which doubles, and the longest. Default `100ms..10s`, within 1ms and 24h.
        backoff: Periods,
        /// How long a key may wait before its events are parked in the ledger. Default 5s, from 10ms to 1h.
        park_after: Period,
        /// How many events a waiting key may hold before they are parked. Default an eighth of the budget; at most the budget.
        park_over: u64,
        /// How many events may be parked at once; beyond, they wait at the broker, those of other keys too. Default 1000000, at most 1000000000.
        parked_max: u64,
    }
}

section! {
    /// What one attempt may use.
    Limits {
        /// Linear memory. Default 64MiB, from 64KiB to 4GiB.
        memory: Size,
        /// Wall time. Default 2s, from 1ms to 15m.
        time: Period,
        /// Elements over all tables. Default 20000, at most 10000000.
        table_elements: u64,
        /// Events emitted. Default 100, at most 10000.
        emits: u64,
        /// The size of one emitted event. Default 1MiB, from 1KiB to 64MiB; at most `effect_bytes`.
        emit_bytes: Size,
        /// State writes. Default 1000, at most 100000.
        state_writes: u64,
        /// The size of all state writes and emitted events together. Default 8MiB, from 1KiB to 256MiB.
        effect_bytes: Size,
        /// Log lines; what is over is counted. Default 100, at most 10000.
        log_lines: u64,
        /// The size of a log line; the rest is cut. Default 4KiB, from 64B to 64KiB.
        log_line_bytes: Size,
    }
}

section! {
    /// What the plugin may do.
    Grants {
        /// `wasi:keyvalue`: its own state. Default false.
        state: bool,
        /// `wasi:config`: these values.
        config: Named<Secret>,
        /// `wasi:logging` and the standard streams, into the host's log. Default true.
        logging: bool,
        /// Outgoing HTTP to these origins. Not in this version: a plugin that needs it is refused.
        http: Vec<At<String>>,
    }
}

section! {
    /// When the whole consumer pauses, and the broker keeps its events.
    Breaker {
        /// The share of failed attempts that opens it. Default 0.5, above 0, at most 1.
        failure_rate: f64,
        /// How many attempts are looked at. Default 100, from 2 to 10000.
        window: u64,
        /// From how many keys the failures must come. Default 5, from 1 to `window`.
        keys_min: u64,
        /// How long it stays open before one event probes, and the longest between probes. Default `5s..1m`, within 10ms and 1h.
        open: Periods,
    }
}

section! {
    /// Bounds of the reuse of an instance.
    Reuse {
        /// Events per instance. Default 10000, at least 1.
        uses_max: u64,
        /// Age of an instance. Default 10m, from 1s to 24h.
        age_max: Period,
    }
}

section! {
    /// The admin API.
    Admin {
        /// Where it listens; port 0 asks for a free one. Default `127.0.0.1:7070`.
        listen: String,
        /// Demanded as `Authorization: Bearer` on `/api`; required on any address but loopback.
        token: Secret,
    }
}

section! {
    /// A listener that takes events over HTTP.
    Ingress {
        /// Where it listens; port 0 asks for a free one.
        #[schemars(required)]
        listen: String,
        /// Demanded as `Authorization: Bearer`; required on any address but loopback.
        token: Secret,
        /// From a path to the stream its events are put on.
        #[schemars(required)]
        routes: Named<String>,
        /// The size of one request body. Default 1MiB, from 1KiB to 64MiB.
        body_max: Size,
        /// Requests under way at once. Default 256, from 1 to 65536; what is over gets 503.
        concurrency: u64,
    }
}

section! {
    /// The host as a whole.
    Host {
        /// How long a stopping host waits for what still runs. Default 30s, at most 1h.
        grace: Period,
        /// Where compiled plugins are kept. Default: the user's cache folder.
        cache: String,
        /// Plugin instances alive at once. Default the sum of all concurrencies, but at most 1000; from 1 to 10000.
        instances_max: u64,
    }
}

/// `writes`.
#[derive(JsonSchema)]
#[schemars(untagged)]
pub(super) enum Writes {
    /// Everything goes to this stream.
    All(String),
    /// Types to streams.
    ByType(Named<String>),
}

impl Written for Writes {
    fn read(value: &Spanned<DeValue<'_>>, reader: &mut Reader<'_>) -> Option<Self> {
        if value.get_ref().is_table() {
            return Named::read(value, reader).map(Self::ByType);
        }
        String::read(value, reader).map(Self::All)
    }
}

/// `instances`.
pub(super) enum Instances {
    /// `fresh`
    Fresh,
    /// `reuse`, or a table.
    Reuse(Reuse),
}

impl Written for Instances {
    fn read(value: &Spanned<DeValue<'_>>, reader: &mut Reader<'_>) -> Option<Self> {
        if value.get_ref().is_table() {
            return Reuse::read(value, reader).map(Self::Reuse);
        }
        InstancesWord::read(value, reader).map(|word| match word {
            InstancesWord::Fresh => Self::Fresh,
            InstancesWord::Reuse => Self::Reuse(Reuse::default()),
        })
    }
}

enum InstancesWord {
    Fresh,
    Reuse,
}

choice! { InstancesWord: "fresh" => Self::Fresh, "reuse" => Self::Reuse, }
choice! { ContentMode: "binary" => Self::Binary, "structured" => Self::Structured, }
choice! { OnDead: "continue" => Self::Continue, "hold_key" => Self::HoldKey, }
choice! { SettleWhen: "confirmed" => Self::Confirmed, "committed" => Self::Committed, }

/// Schemas of types that are one value in the file.
macro_rules! value_schema {
    ($($type:ty: $schema:tt)*) => {$(
        impl JsonSchema for $type {
            fn inline_schema() -> bool {
                true
            }

            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($type).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!($schema)
            }
        }
    )*};
}

value_schema! {
    Secret: { "type": "string" }
    Location: { "type": "string" }
    Period: { "type": "string", "examples": ["100ms", "30s", "1h30m", "7d"] }
    Periods: { "type": "string", "examples": ["100ms..10s"] }
    Size: { "type": ["string", "integer"], "minimum": 0, "examples": ["64MiB", "10kB"] }
    ContentMode: { "enum": ["binary", "structured"] }
    OnDead: { "enum": ["continue", "hold_key"] }
    SettleWhen: { "enum": ["confirmed", "committed"] }
}

impl JsonSchema for Instances {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Instances".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let reuse = generator.subschema_for::<Reuse>();
        json_schema!({ "anyOf": [{ "enum": ["fresh", "reuse"] }, reuse] })
    }
}
