//! The same work through the host's own broker, as the pipeline uses it: one task takes within a budget, one publishes batches with
//! several under way, one settles in chunks.

use std::sync::Arc;

use anyhow::{Context as _, Result};
use futures_util::stream::{FuturesUnordered, StreamExt};
use tidegate::broker::{
    self, Broker, Delivery, Outgoing, Publisher, Receipt, Room, Settle, Settlement, Source, Subscription,
};
use tidegate::clock::Clock;
use tidegate::event::{Headers, Message};
use tidegate::plan;
use tokio::sync::{Semaphore, mpsc};

use super::{HEADERS, IN, IN_FLIGHT, OUT};

/// As in the relay.
const BATCH: usize = 256;
const BATCHES: usize = 8;

pub(crate) struct Host {
    /// Keeps the connection.
    _broker: Arc<dyn Broker>,
    source: Box<dyn Source>,
    settle: Arc<dyn Settle>,
    publisher: Arc<dyn Publisher>,
    name: Arc<str>,
}

impl Host {
    pub(crate) async fn connect(url: &str, name: &str) -> Result<Self> {
        let plan = Arc::new(plan::Broker {
            name: plan::Name::new("nats")?,
            kind: plan::BrokerKind::Nats(plan::Nats {
                servers: vec![url.to_owned()],
                credentials: plan::NatsCredentials::None,
                tls: None,
            }),
        });
        let broker = broker::nats::connect(&plan, Clock::system()).await?;
        let subscription = Subscription {
            consumer: plan::Name::new(name)?,
            stream: stream(&plan, IN)?,
            room: room(IN_FLIGHT),
        };
        let subscribed = broker.subscribe(subscription).await?;
        let publisher = broker.publisher(stream(&plan, OUT)?).await?;
        Ok(Self {
            _broker: broker,
            source: subscribed.source,
            settle: subscribed.settle,
            publisher,
            name: name.into(),
        })
    }

    pub(crate) async fn run(&mut self, events: u32) -> Result<()> {
        let budget = Arc::new(Semaphore::new(IN_FLIGHT));
        let (taken, outputs) = mpsc::channel(IN_FLIGHT);
        let (confirmed, settlements) = mpsc::channel(IN_FLIGHT);
        let relay = tokio::spawn(relay(
            Arc::clone(&self.publisher),
            Arc::clone(&self.name),
            outputs,
            confirmed,
        ));
        let settler = tokio::spawn(settle(Arc::clone(&self.settle), settlements, Arc::clone(&budget)));
        let mut left = events as usize;
        while left > 0 {
            let permits = budget.acquire().await?;
            let free = budget.available_permits() + permits.num_permits();
            drop(permits);
            let deliveries = self.source.next(room(free.min(left))).await?;
            left -= deliveries.len();
            budget.forget_permits(deliveries.len());
            taken.send(deliveries).await.context("the relay goes on")?;
        }
        drop(taken);
        relay.await??;
        settler.await?
    }
}

/// Publishes what was taken until all of it is confirmed.
async fn relay(
    publisher: Arc<dyn Publisher>,
    name: Arc<str>,
    mut taken: mpsc::Receiver<Vec<Delivery>>,
    confirmed: mpsc::Sender<Receipt>,
) -> Result<()> {
    let mut under_way = FuturesUnordered::new();
    let mut ready = std::collections::VecDeque::new();
    let mut is_open = true;
    while is_open || !ready.is_empty() || !under_way.is_empty() {
        while !ready.is_empty() && under_way.len() < BATCHES {
            let count = ready.len().min(BATCH);
            let batch: Vec<Delivery> = ready.drain(..count).collect();
            let outgoing = batch.iter().map(|delivery| output(&name, delivery)).collect();
            let publisher = Arc::clone(&publisher);
            under_way.push(async move { (batch, publisher.publish(outgoing).await) });
        }
        tokio::select! {
            deliveries = taken.recv(), if is_open => match deliveries {
                Some(deliveries) => ready.extend(deliveries),
                None => is_open = false,
            },
            Some((batch, results)) = under_way.next() => for (delivery, result) in batch.into_iter().zip(results) {
                result?;
                confirmed.send(delivery.receipt).await?;
            },
        }
    }
    Ok(())
}

async fn settle(settle: Arc<dyn Settle>, mut confirmed: mpsc::Receiver<Receipt>, budget: Arc<Semaphore>) -> Result<()> {
    let mut chunk = Vec::with_capacity(IN_FLIGHT);
    while confirmed.recv_many(&mut chunk, IN_FLIGHT).await > 0 {
        let count = chunk.len();
        let settled = chunk.drain(..).map(|receipt| (receipt, Settlement::Done)).collect();
        settle.settle(settled).await?;
        budget.add_permits(count);
    }
    Ok(())
}

fn output(name: &str, delivery: &Delivery) -> Outgoing {
    let received = delivery.message.headers.get("ce-id").unwrap_or_default();
    let id = format!("{name}-{}", String::from_utf8_lossy(received));
    let mut headers = Headers::default();
    for (name, value) in HEADERS {
        headers.push(name, value);
    }
    headers.push("ce-id", id.clone());
    Outgoing {
        id: id.into(),
        key: Arc::from(*b"key"),
        message: Message {
            subject: "bench.out".to_owned(),
            headers,
            payload: delivery.message.payload.clone(),
        },
    }
}

fn room(count: usize) -> Room {
    Room { count, bytes: 64 << 20 }
}

fn stream(broker: &Arc<plan::Broker>, name: &str) -> Result<Arc<plan::Stream>> {
    Ok(Arc::new(plan::Stream {
        name: plan::Name::new("bench")?,
        broker: Arc::clone(broker),
        place: plan::Place::JetStream(plan::JetStream {
            stream: Some(name.to_owned()),
            subjects: Vec::new(),
            subject: None,
            create: false,
            ack_wait: std::time::Duration::from_secs(30),
        }),
        mode: plan::ContentMode::Binary,
        mapping: None,
    }))
}
