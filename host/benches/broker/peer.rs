//! The hand-written consumer: async-nats as its documentation shows it, tuned: large pulls, many events in flight, plain acks. It keeps
//! no order and remembers nothing; a crash or a failed publish redelivers.

use anyhow::{Context as _, Result};
use async_nats::jetstream::consumer::{PullConsumer, pull};
use async_nats::jetstream::message::PublishMessage;
use async_nats::jetstream::{self, Context};
use async_nats::{HeaderMap, jetstream::Message};
use futures_util::TryStreamExt;
use futures_util::stream::StreamExt;

use super::{HEADERS, IN, IN_FLIGHT, server};

pub(crate) struct Peer {
    context: Context,
    messages: pull::Stream,
    name: String,
}

impl Peer {
    pub(crate) async fn connect(url: &str, name: &str) -> Result<Self> {
        let context = jetstream::new(async_nats::connect(url).await?);
        let stream = context.get_stream(IN).await?;
        let consumer: PullConsumer = stream.create_consumer(server::consumer(name)).await?;
        let messages = consumer.stream().max_messages_per_batch(1_000).messages().await?;
        Ok(Self {
            context,
            messages,
            name: name.to_owned(),
        })
    }

    pub(crate) async fn run(&mut self, events: u32) -> Result<()> {
        let Self {
            context,
            messages,
            name,
        } = self;
        let messages = messages.take(events as usize).map_err(anyhow::Error::from);
        messages
            .try_for_each_concurrent(IN_FLIGHT, |message| handle(context, name, message))
            .await?;
        context.client().flush().await?;
        Ok(())
    }
}

async fn handle(context: &Context, name: &str, message: Message) -> Result<()> {
    let received = message.headers.as_ref().and_then(|headers| headers.get("ce-id"));
    let id = format!("{name}-{}", received.context("an event has an id")?);
    let mut headers = HeaderMap::new();
    for (name, value) in HEADERS {
        headers.insert(name, value);
    }
    headers.insert("ce-id", id.as_str());
    headers.insert("Nats-Msg-Id", id.as_str());
    let output = PublishMessage::build()
        .headers(headers)
        .payload(message.payload.clone());
    context.send_publish("bench.out", output).await?.await?;
    message.ack().await.map_err(anyhow::Error::from_boxed)
}
