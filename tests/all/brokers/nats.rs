//! NATS JetStream. Another server than the newest is tried with `NATS_SERVER=PATH` set.

use std::sync::Arc;
use std::sync::Mutex;
use std::time::Duration;

use async_nats::jetstream;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use tidegate::broker::suite::Stand;
use tidegate::broker::{self, Broker, Error};
use tidegate::clock::Clock;
use tidegate::plan;
use tidegate_tests::servers;

mod administration;
mod credentials;
mod draining;
mod mishaps;
mod permissions;

tidegate::broker_suite!(stand);

async fn stand() -> Nats {
    Nats::new(servers::Nats::start())
}

/// A server of its own, with one stream that the host creates.
struct Nats {
    server: Mutex<servers::Nats>,
    broker: Arc<plan::Broker>,
    stream: Arc<plan::Stream>,
}

impl Nats {
    fn new(server: servers::Nats) -> Self {
        Self::reading(server, created())
    }

    fn reading(server: servers::Nats, place: plan::JetStream) -> Self {
        let broker = broker_at(server.url(), plan::NatsCredentials::None, None);
        Self {
            stream: stream_on(&broker, place),
            server: Mutex::new(server),
            broker,
        }
    }

    fn as_user(server: servers::Nats, credentials: plan::NatsCredentials) -> Self {
        let broker = broker_at(server.url(), credentials, None);
        Self {
            stream: stream_on(&broker, created()),
            server: Mutex::new(server),
            broker,
        }
    }

    /// An administrator's connection, which knows nothing of the host's.
    async fn administrator(&self) -> jetstream::Context {
        let url = self.server.lock().unwrap().url().to_owned();
        jetstream::new(async_nats::connect(url).await.unwrap())
    }
}

impl Stand for Nats {
    fn stream(&self) -> Arc<plan::Stream> {
        Arc::clone(&self.stream)
    }

    fn subject(&self) -> String {
        "orders.eu.placed".to_owned()
    }

    fn open(&self) -> BoxFuture<'_, Result<Arc<dyn Broker>, Error>> {
        broker::nats::connect(&self.broker, Clock::system()).boxed()
    }

    fn ack_deadline(&self) -> Option<Duration> {
        Some(ACK_WAIT)
    }

    fn stop(&self) -> BoxFuture<'_, bool> {
        self.server.lock().unwrap().kill();
        std::future::ready(true).boxed()
    }

    fn start(&self) -> BoxFuture<'_, ()> {
        self.server.lock().unwrap().restart();
        std::future::ready(()).boxed()
    }
}

/// Short, so that what depends on it can be waited for.
const ACK_WAIT: Duration = Duration::from_secs(2);

fn broker_at(url: &str, credentials: plan::NatsCredentials, tls: Option<plan::Tls>) -> Arc<plan::Broker> {
    Arc::new(plan::Broker {
        name: plan::Name::new("main").unwrap(),
        kind: plan::BrokerKind::Nats(plan::Nats {
            servers: vec![url.to_owned()],
            credentials,
            tls,
        }),
    })
}

fn created() -> plan::JetStream {
    plan::JetStream {
        stream: None,
        subjects: vec!["orders.>".to_owned()],
        subject: None,
        create: true,
        ack_wait: ACK_WAIT,
    }
}

fn stream_on(broker: &Arc<plan::Broker>, place: plan::JetStream) -> Arc<plan::Stream> {
    Arc::new(plan::Stream {
        name: plan::Name::new("orders").unwrap(),
        broker: Arc::clone(broker),
        place: plan::Place::JetStream(place),
        mode: plan::ContentMode::Binary,
        mapping: None,
    })
}
