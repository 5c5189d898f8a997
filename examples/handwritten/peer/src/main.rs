//! A consumer written by hand: reads orders from a JetStream stream, writes an invoice for each to a subject, acknowledges the order
//! when the invoice is confirmed. It is what Tidegate's speed is measured against, so it is tuned: large pulls, many publishes under
//! way at once, plain acknowledgements, no task per order. It keeps no record, no order, no dead letters: the first failure ends it.
//!
//! usage: `handwritten URL STREAM CONSUMER SUBJECT`

use anyhow::{Context, Result};
use async_nats::jetstream::consumer::pull;
use async_nats::jetstream::{self, AckKind, Message};
use async_nats::{HeaderMap, HeaderValue};
use futures_util::TryStreamExt;
use serde::{Deserialize, Serialize};

/// Orders asked for at once.
const PULL: usize = 1_000;
/// Invoices that wait for their confirmation at once: more gained nothing.
const IN_FLIGHT: usize = 1_024;

#[derive(Deserialize)]
struct Order {
    number: u64,
    customer: String,
    quantity: u64,
    price_cents: u64,
}

#[derive(Serialize)]
struct Invoice<'a> {
    number: u64,
    customer: &'a str,
    total_cents: u64,
}

#[tokio::main]
async fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [url, stream, consumer, subject] = arguments.as_slice() else {
        anyhow::bail!("usage: handwritten URL STREAM CONSUMER SUBJECT");
    };
    let context = jetstream::new(async_nats::connect(url).await?);
    let config = pull::Config {
        durable_name: Some(consumer.clone()),
        max_ack_pending: 16_384,
        ..Default::default()
    };
    let orders = context.get_stream(stream).await?.create_consumer(config).await?;
    let messages = orders.stream().max_messages_per_batch(PULL).messages().await?;
    messages
        .map_err(anyhow::Error::from)
        .map_ok(|order| handle(&context, subject, order))
        .try_buffer_unordered(IN_FLIGHT)
        .try_for_each(|()| async { Ok(()) })
        .await
}

/// Writes the invoice of one order, and acknowledges the order when it is stored.
async fn handle(context: &jetstream::Context, subject: &str, message: Message) -> Result<()> {
    let headers = message.headers.as_ref().context("an order without headers")?;
    let order_id = headers.get("ce-id").context("an order without an id")?.as_str();
    let order: Order = serde_json::from_slice(&message.payload)?;
    let invoice = serde_json::to_vec(&Invoice {
        number: order.number,
        customer: &order.customer,
        total_cents: order.quantity * order.price_cents,
    })?;
    let attributes = attributes(order_id, &order.customer);
    let stored = context
        .publish_with_headers(subject.to_owned(), attributes, invoice.into())
        .await?;
    stored.await?;
    message.ack_with(AckKind::Ack).await.map_err(anyhow::Error::from_boxed)
}

/// The CloudEvent around an invoice. The same order always gives the same id, by which the server drops the second within its window.
fn attributes(order_id: &str, customer: &str) -> HeaderMap {
    let id = format!("invoice/{order_id}");
    let mut headers = HeaderMap::new();
    let mut insert = |name: &'static str, value: &str| headers.insert(name, HeaderValue::from(value));
    insert("Nats-Msg-Id", &id);
    insert("ce-specversion", "1.0");
    insert("ce-id", &id);
    insert("ce-source", "/handwritten");
    insert("ce-type", "com.example.invoice.issued");
    insert("ce-subject", customer);
    insert("ce-partitionkey", customer);
    insert("ce-causationid", order_id);
    insert("ce-datacontenttype", "application/json");
    headers
}
