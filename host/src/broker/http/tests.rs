//! Webhook and ingress over real HTTP on the loopback address.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use tokio::sync::Semaphore;

use super::ingress::{Door, Lookup, Serving};
use super::webhook::Webhook;
use crate::broker::{Broker as _, Error, Outgoing, Publisher};
use crate::clock::Clock;
use crate::event::{Event, Extension, Value};
use crate::plan::{
    Broker, BrokerKind, ContentMode, Ingress, Log, Mapping, Name, Origin, Place, Secret, Stream, Template, TemplatePart,
};

mod ingress;
mod round;
mod webhook;

fn name(text: &str) -> Name {
    Name::new(text).expect("a name")
}

/// No test waits longer than this for anything.
async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(20), future)
        .await
        .expect("in time")
}

/// A fake publisher: keeps what it is given and answers as told.
struct Recorder {
    published: Mutex<Vec<Outgoing>>,
    answer: fn(&Outgoing) -> Result<(), Error>,
    size_max: usize,
    /// One permit is added by each batch that arrives.
    arrived: Semaphore,
    /// One permit is taken by each batch: none, and the publisher hangs.
    gate: Semaphore,
}

impl Recorder {
    fn answering(answer: fn(&Outgoing) -> Result<(), Error>) -> Arc<Self> {
        Arc::new(Self {
            published: Mutex::default(),
            answer,
            size_max: 10_000,
            arrived: Semaphore::new(0),
            gate: Semaphore::new(1_000),
        })
    }

    fn new() -> Arc<Self> {
        Self::answering(|_| Ok(()))
    }

    fn published(&self) -> Vec<Outgoing> {
        self.published.lock().expect("unpoisoned").clone()
    }

    fn events(&self) -> Vec<Event> {
        let decode = |outgoing: &Outgoing| {
            crate::event::codec::decode(&outgoing.message, crate::event::codec::Binding::Nats, None).expect("an event")
        };
        self.published().iter().map(decode).collect()
    }
}

impl Publisher for Recorder {
    fn publish(&self, batch: Vec<Outgoing>) -> BoxFuture<'_, Vec<Result<(), Error>>> {
        async move {
            self.arrived.add_permits(1);
            self.gate.acquire().await.expect("open").forget();
            let answers = batch.iter().map(self.answer).collect();
            self.published.lock().expect("unpoisoned").extend(batch);
            answers
        }
        .boxed()
    }

    fn size_max(&self) -> usize {
        self.size_max
    }
}

fn embedded(stream: &str, mapping: Option<Mapping>) -> Arc<Stream> {
    Arc::new(Stream {
        name: name(stream),
        broker: Arc::new(Broker {
            name: name("main"),
            kind: BrokerKind::Embedded,
        }),
        place: Place::Log(Log {
            age_max: None,
            bytes_max: 1 << 20,
        }),
        mode: ContentMode::Binary,
        mapping,
    })
}

fn mapping() -> Mapping {
    Mapping {
        id: Origin::Data("/id".to_owned()),
        source: Origin::Fixed("/legacy".to_owned()),
        kind: Origin::Header("x-event".to_owned()),
        subject: None,
        datacontenttype: None,
    }
}

fn ingress_plan() -> Ingress {
    Ingress {
        listen: "127.0.0.1:0".parse().expect("an address"),
        token: None,
        routes: BTreeMap::from([
            ("/orders".to_owned(), embedded("orders", None)),
            ("/legacy/in".to_owned(), embedded("legacy", Some(mapping()))),
        ]),
        body_bytes_max: 4_096,
        concurrency: NonZeroUsize::new(8).expect("not zero"),
    }
}

async fn start(plan: Ingress, publisher: &Arc<Recorder>) -> Serving {
    let publisher: Arc<dyn Publisher> = publisher.clone();
    let lookup: Lookup = Arc::new(move |_| Some(publisher.clone()));
    Door::open(plan).await.expect("listens").serve(lookup)
}

fn event(id: &str) -> Event {
    let extension = |name: &str, value| Extension {
        name: name.to_owned(),
        value,
    };
    Event {
        id: id.to_owned(),
        source: "/shop/\u{e9}".to_owned(),
        kind: "com.example.order".to_owned(),
        subject: Some("order \"7\" 100%".to_owned()),
        time: Some("2026-04-05T17:31:00.5Z".to_owned()),
        datacontenttype: Some("application/json".to_owned()),
        dataschema: Some("https://example.com/schema".to_owned()),
        extensions: vec![
            extension(
                "traceparent",
                Value::String("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".to_owned()),
            ),
            extension("note", Value::String("Euro € 😀".to_owned())),
            extension("empty", Value::String(String::new())),
        ],
        data: Some(Bytes::from_static(br#"{ "total" : 1.50 }"#)),
    }
}
