//! A home with a broker around it: events go in, outputs and dead letters are read from outside.

use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_nats::HeaderMap;
use async_nats::jetstream::{self, stream};
use serde_json::Value;
use tidegate_tests::guests;
use tidegate_tests::host::{Home, Host, until};
use tidegate_tests::servers::Nats;
use tidegate_tests::sink::Sink;

use super::findings::{Dead, Output};
use super::traffic::{Event, Traffic};

/// How long a client waits that was told to come again.
const PAUSE: Duration = Duration::from_millis(20);

/// Which broker.
#[derive(Clone)]
pub(crate) enum Broker {
    /// One consumer, from a stream of the server to another.
    Nats(Arc<Nats>),
    /// The same on a server of the caller's, which the host comes to by a way of its own.
    Between {
        /// The connection of publisher and receiver.
        around: async_nats::Client,
        /// The URL for the host.
        host: String,
    },
    /// Two consumers: from the ingress over a log, the first, another log, in one transaction with its effects, and the second to a
    /// webhook.
    Embedded,
}

/// What a config says beside the streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Policy {
    /// Attempts in all.
    pub(crate) attempts: u32,
    /// Whether commits wait for the disk.
    pub(crate) fsync: bool,
}

/// Where a round is played.
pub(crate) struct Stage {
    pub(crate) home: Home,
    policy: Policy,
    traffic: Traffic,
    around: Around,
}

enum Around {
    Nats(Box<Streams>),
    Embedded { sink: Sink, sent: AtomicUsize },
}

/// Two streams of a server that many rounds share.
struct Streams {
    /// The URL for the host.
    url: String,
    context: jetstream::Context,
    name: String,
    /// Runs as long as anybody needs it.
    _server: Option<Arc<Nats>>,
}

impl Stage {
    /// A home and what is around it. On NATS all events are published at once.
    pub(crate) async fn new(broker: &Broker, name: &str, traffic: &Traffic, policy: Policy) -> Self {
        let around = match broker {
            Broker::Nats(server) => {
                let client = async_nats::connect(server.url()).await.expect("the server listens");
                let mut streams = Streams::make(client, server.url(), name).await;
                streams._server = Some(server.clone());
                streams.publish(traffic).await;
                Around::Nats(Box::new(streams))
            }
            Broker::Between { around, host } => {
                let streams = Streams::make(around.clone(), host, name).await;
                streams.publish(traffic).await;
                Around::Nats(Box::new(streams))
            }
            Broker::Embedded => Around::Embedded {
                sink: Sink::start().await,
                sent: AtomicUsize::new(0),
            },
        };
        let stage = Self {
            home: Home::new(""),
            policy,
            traffic: traffic.clone(),
            around,
        };
        stage.configure(false);
        stage
    }

    /// Gives the plugin `open`, or takes it.
    pub(crate) fn configure(&self, is_open: bool) {
        let mut config = format!(
            "[ledger]\nurl = \"embedded:./data\"\nretention = \"1h\"\nfsync = {}\n",
            self.policy.fsync
        );
        match &self.around {
            Around::Nats(streams) => {
                config += &streams.config();
                config += &self.consumer("plain", "in", "out", is_open);
            }
            Around::Embedded { sink, .. } => {
                let _ = write!(
                    config,
                    "[broker.main]\nurl = \"embedded:./data\"\n[broker.shop]\nurl = \"{}\"\n\
                     [stream.in]\nbroker = \"main\"\nbytes_max = \"1MiB\"\n[stream.middle]\nbroker = \"main\"\n\
                     [stream.out]\nbroker = \"shop\"\n\
                     [ingress]\nlisten = \"127.0.0.1:0\"\nroutes = {{ \"/in\" = \"in\" }}\n",
                    sink.url()
                );
                config += &self.consumer("plain", "in", "middle", is_open);
                config += &self.consumer("second", "middle", "out", is_open);
            }
        }
        self.home.configure(&config);
    }

    fn consumer(&self, name: &str, reads: &str, writes: &str, is_open: bool) -> String {
        // A machine that stands still is no fault of an event's. All attempts together must be over within the retention.
        let time_s = (2_000 / self.policy.attempts).min(30);
        let open = if is_open { "open = \"yes\"" } else { "" };
        format!(
            "[consumer.{name}]\nplugin = \"{}\"\nreads = \"{reads}\"\nwrites = \"{writes}\"\nconcurrency = 8\n\
             grants = {{ state = true, config = {{ {open} }} }}\n\
             retry = {{ attempts = {}, backoff = \"10ms..200ms\", park_after = \"100ms\" }}\n\
             breaker = {{ failure_rate = 1.0 }}\nlimits = {{ time = \"{time_s}s\" }}\n",
            guests::build("plain").display(),
            self.policy.attempts,
        )
    }

    /// Puts in what is not in yet, until all is or the host goes away. A client that gets no answer sends again.
    pub(crate) async fn feed(&self, host: &Host<'_>) {
        let Around::Embedded { sent, .. } = &self.around else {
            return;
        };
        while let Some(event) = self.traffic.0.get(sent.load(Ordering::SeqCst)) {
            match host.send(event.says(), &event.id, &event.key, &event.data()).await {
                Ok(202) => _ = sent.fetch_add(1, Ordering::SeqCst),
                // Its disk does not take anything now: a client waits a little and sends again.
                Ok(503) => tokio::time::sleep(PAUSE).await,
                Ok(status) => panic!("the ingress answers {status} to {event:?}"),
                Err(_) => return,
            }
        }
    }

    /// Publishes more, on NATS.
    pub(crate) async fn add(&self, more: &Traffic) {
        match &self.around {
            Around::Nats(streams) => streams.publish(more).await,
            Around::Embedded { .. } => panic!("its events are fed"),
        }
    }

    /// The publisher's and receiver's connection, on NATS.
    pub(crate) fn context(&self) -> &jetstream::Context {
        match &self.around {
            Around::Nats(streams) => &streams.context,
            Around::Embedded { .. } => panic!("it has no server"),
        }
    }

    /// The outputs so far, in the order of their stream.
    pub(crate) async fn outputs(&self) -> Vec<Output> {
        match &self.around {
            Around::Nats(streams) => streams.read().await,
            Around::Embedded { sink, .. } => {
                let received = sink.received().into_iter();
                let output = received.map(|received| Output {
                    id: received.id,
                    root: received.root,
                    data: received.data,
                });
                output.collect()
            }
        }
    }

    /// How many outputs there are, a repetition of an id not counted.
    pub(crate) async fn count(&self) -> usize {
        match &self.around {
            Around::Nats(streams) => streams.count().await,
            Around::Embedded { sink, .. } => {
                let ids: std::collections::BTreeSet<_> =
                    sink.received().into_iter().map(|received| received.id).collect();
                ids.len()
            }
        }
    }
}

/// The dead letters that a host has.
pub(crate) async fn dead_letters(host: &Host<'_>) -> Vec<Dead> {
    let page = host.json("/api/v1/dead-letters?limit=1000").await;
    let text = |letter: &Value, key: &str| letter[key].as_str().unwrap_or_default().to_owned();
    let letters = page["dead_letters"].as_array().expect("a list").iter();
    let dead = letters.map(|letter| Dead {
        event: text(letter, "event_id"),
        reason: text(letter, "reason"),
    });
    dead.collect()
}

/// Whether nothing is under way in a host, and nothing waits in its ledger but `parked` events.
pub(crate) async fn is_quiet(host: &Host<'_>, parked: impl Fn(i64) -> bool) -> bool {
    let consumers = host.json("/api/v1/consumers").await;
    let streams = host.json("/api/v1/streams").await;
    let sum = |of: &Value, key: &str| -> i64 {
        let numbers = of.as_array().expect("a list").iter().map(|one| one[key].as_i64());
        numbers.map(|number| number.expect("a number")).sum()
    };
    let is_subscribed = |consumer: &Value| consumer["subscribed"] == true;
    consumers.as_array().expect("a list").iter().all(is_subscribed)
        && sum(&consumers, "in_flight") == 0
        && parked(sum(&consumers, "parked"))
        && sum(&streams, "outbox") == 0
}

/// A stream that takes what comes in, or goes out, in the stage of this name.
pub(crate) fn config_of(stage: &str, part: &str) -> stream::Config {
    stream::Config {
        name: format!("{stage}-{part}"),
        subjects: vec![format!("{stage}.{part}.>")],
        ..Default::default()
    }
}

impl Streams {
    async fn make(client: async_nats::Client, host: &str, name: &str) -> Self {
        let streams = Self {
            url: host.to_owned(),
            context: jetstream::new(client),
            name: name.to_owned(),
            _server: None,
        };
        for part in ["in", "out"] {
            let config = config_of(name, part);
            streams.context.create_stream(config).await.expect("a stream");
        }
        streams
    }

    fn config(&self) -> String {
        let mut config = format!("[broker.main]\nurl = \"{}\"\n", self.url);
        for part in ["in", "out"] {
            let _ = write!(
                config,
                "[stream.{part}]\nbroker = \"main\"\nstream = \"{0}-{part}\"\nsubjects = [\"{0}.{part}.>\"]\n\
                 subject = \"{0}.{part}.{{type}}\"\n",
                self.name
            );
        }
        config
    }

    /// Publishes in order; what the server does not take now is published again.
    async fn publish(&self, traffic: &Traffic) {
        for event in &traffic.0 {
            until("the server takes it", async || self.publish_one(event).await.is_some()).await;
        }
    }

    async fn publish_one(&self, event: &Event) -> Option<()> {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("ce-specversion", "1.0"),
            ("ce-type", event.says()),
            ("ce-source", "/test"),
            ("ce-id", &event.id),
            ("ce-subject", &event.key),
            ("content-type", "text/plain"),
        ] {
            headers.insert(name, value);
        }
        let subject = format!("{}.in.{}", self.name, event.says());
        let data = event.data().into();
        let published = self.context.publish_with_headers(subject, headers, data).await;
        published.ok()?.await.ok().map(drop)
    }

    async fn count(&self) -> usize {
        let mut out = self
            .context
            .get_stream(format!("{}-out", self.name))
            .await
            .expect("the stream");
        usize::try_from(out.info().await.expect("its state").state.messages).expect("it fits")
    }

    async fn read(&self) -> Vec<Output> {
        let out = self
            .context
            .get_stream(format!("{}-out", self.name))
            .await
            .expect("the stream");
        let mut outputs = Vec::new();
        for number in 1..=self.count().await {
            let message = out.get_raw_message(number as u64).await.expect("a message");
            let header = |name| message.headers.get(name).map(ToString::to_string).unwrap_or_default();
            outputs.push(Output {
                id: header("ce-id"),
                root: header("ce-correlationid"),
                data: String::from_utf8_lossy(&message.payload).into_owned(),
            });
        }
        outputs
    }
}
