//! The half of a subscription that takes.
//!
//! It asks for batches on the consumer's `MSG.NEXT` subject and reads them from one inbox. What was [asked](Asked) for and has not
//! come is counted, so that it never exceeds the room. Two requests are open at most, each for half of the room, so that one is
//! there while the other is renewed. Whatever goes wrong makes the source stale: it then leaves its inbox, and with it everything
//! under way, and goes back to the lowest unsettled position on a fresh one.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use async_nats::{StatusCode, Subject};
use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::{FutureExt, StreamExt};
use serde_json::json;
use tokio::sync::watch;
use tokio::time::{Instant, timeout};

use super::asked::Asked;
use super::held::Arrival;
use super::inbox::{Inbox, Numbers};
use super::link::{Link, State};
use super::settle::Settler;
use super::unreadable::{Step, Unreadable};
use super::{cursor, headers, payload, stream, unreadable};
use crate::broker::{Delivery, Error, Position, Promises, Receipt, Room, Source, Subscribed, Subscription};
use crate::event::Message;

/// How long a request stays open on the server.
const REQUEST_TIME: Duration = Duration::from_secs(30);
/// How often the server says that an open request is known to it.
const HEARTBEAT: Duration = Duration::from_secs(3);
/// Two heartbeats missed, and a little.
const SILENCE_MAX: Duration = Duration::from_secs(7);

/// Starts to take.
pub(super) async fn subscribe(link: Arc<Link>, subscription: Subscription) -> Result<Subscribed, Error> {
    let ack_wait = stream::place(&link, &subscription.stream)?.ack_wait;
    let settler = Settler::start(Arc::clone(&link), ack_wait);
    let mut source = Nats::new(link, subscription, Arc::clone(&settler));
    source.go_back().await?;
    Ok(Subscribed {
        source: Box::new(source),
        settle: settler,
        promises: Promises { goes_back: true },
    })
}

struct Nats {
    link: Arc<Link>,
    subscription: Subscription,
    settler: Arc<Settler>,
    state: watch::Receiver<State>,
    /// Deliveries that arrived and were not returned yet.
    ready: VecDeque<Delivery>,
    /// Subjects of deliveries to settle again.
    again: VecDeque<Subject>,
    /// Where deliveries arrive; `None` before the first time and while the source is stale.
    inbox: Option<Inbox>,
    /// The stream's age, once it is known.
    created: Option<String>,
    /// The latest refusal of the server that was looked at.
    refusals: u64,
    /// Whether the next message may be why the connection was lost.
    is_suspicious: bool,
    /// The next message, if it was. Nothing is asked for until it is passed.
    unreadable: Option<Unreadable>,
}

impl Source for Nats {
    fn next(&mut self, room: Room) -> BoxFuture<'_, Result<Vec<Delivery>, Error>> {
        // Every wait below leaves the state whole, so that dropping this future loses nothing.
        async move {
            if room.count == 0 {
                return std::future::pending().await;
            }
            loop {
                self.empty_inbox()?;
                if !self.ready.is_empty() {
                    return Ok(self.give(room).await);
                }
                if self.unreadable.is_none() && self.inbox.as_mut().is_some_and(Inbox::was_quiet) {
                    return Ok(Vec::new());
                }
                self.look_at_link()?;
                self.settle_again().await?;
                if self.inbox.is_none() {
                    self.go_back().await?;
                }
                self.look_ahead().await?;
                if self.step_over_unreadable().await? {
                    continue;
                }
                self.ask(room).await?;
                self.wait().await?;
            }
        }
        .boxed()
    }
}

impl Drop for Nats {
    fn drop(&mut self) {
        // Nobody will settle these: they must not be kept alive.
        let mut held = self.settler.held();
        for delivery in &self.ready {
            held.forget(delivery.receipt.0);
        }
    }
}

impl Nats {
    fn new(link: Arc<Link>, subscription: Subscription, settler: Arc<Settler>) -> Self {
        let mut state = link.watch();
        let refusals = state.borrow_and_update().refusals;
        Self {
            link,
            subscription,
            settler,
            state,
            ready: VecDeque::new(),
            again: VecDeque::new(),
            inbox: None,
            created: None,
            refusals,
            is_suspicious: false,
            unreadable: None,
        }
    }

    /// Leaves the inbox: everything on its way there comes again, in order.
    fn make_stale(&mut self, because: &str) {
        if self.inbox.take().is_some() {
            tracing::debug!(broker = %self.link.name, consumer = %self.subscription.consumer, because, "taking again from the lowest unsettled position");
        }
    }

    /// Goes back to the lowest unsettled position, on a fresh inbox.
    async fn go_back(&mut self) -> Result<(), Error> {
        let life = self.link.life()?;
        let place = stream::place(&self.link, &self.subscription.stream)?;
        let stream = stream::ensure(&self.link, &self.subscription.stream.name, place).await?;
        let resume = self.recognise(&stream);
        let subject = self.link.client.new_inbox();
        let subscriber = timeout(SILENCE_MAX, self.link.client.subscribe(format!("{subject}.*")))
            .await
            .map_err(|_| self.link.unreachable("the connection takes nothing"))?
            .map_err(|error| self.link.unreachable(error))?;
        let standing = cursor::go_back(&self.link, &self.subscription, stream, resume).await?;
        self.settler.held().settled_up_to(standing.floor);
        let named = format!("{}.{}", standing.stream.name, cursor::durable(&self.subscription));
        self.created = Some(standing.stream.created);
        self.inbox = Some(Inbox {
            subject,
            subscriber,
            next_subject: format!("$JS.API.CONSUMER.MSG.NEXT.{named}").into(),
            stream: standing.stream.name,
            named,
            life,
            asked: Asked::new(self.subscription.room),
            next: standing.next,
            is_next_large: false,
            heard: self.link.clock.now(),
            is_quiet: false,
        });
        Ok(())
    }

    /// Whether the stream is the one that was read before; if not, positions begin anew. Says where to begin if its consumer is gone.
    fn recognise(&mut self, stream: &stream::Stream) -> Option<u64> {
        let created = self.created.as_ref()?;
        let mut held = self.settler.held();
        if *created == stream.created && held.highest() <= stream.last {
            return Some(held.resume());
        }
        tracing::warn!(broker = %self.link.name, stream = stream.name, "the stream was made anew or set back on the server: positions begin anew");
        held.begin_anew();
        self.again.clear();
        self.unreadable = None;
        None
    }

    /// After a lost connection: whether the client could not read the next message.
    async fn look_ahead(&mut self) -> Result<(), Error> {
        if !self.is_suspicious || self.unreadable.is_some() {
            return Ok(());
        }
        let place = stream::place(&self.link, &self.subscription.stream)?;
        let from = self.settler.held().highest() + 1;
        if let Some(inbox) = &self.inbox {
            self.unreadable = unreadable::look(&self.link, &inbox.stream, &place.subjects, from).await?;
        }
        self.is_suspicious = false;
        Ok(())
    }

    /// Does what is next about a message that the client can't read. Whether there is one.
    async fn step_over_unreadable(&mut self) -> Result<bool, Error> {
        let Some(unreadable) = &mut self.unreadable else {
            return Ok(false);
        };
        let step = unreadable.step(&self.settler.held());
        match step {
            Step::Wait => tokio::select! {
                () = self.settler.settled() => {}
                _ = self.state.changed() => {}
            },
            Step::Give => {
                unreadable.is_given = true;
                let (position, message) = (unreadable.position, unreadable.message.clone());
                let now = self.link.clock.now();
                self.hand_out(position, Subject::from_static(""), message, now);
            }
            Step::Pass => {
                cursor::pass(&self.link, &self.subscription, unreadable.position).await?;
                self.unreadable = None;
                self.make_stale("a message that can't be read was passed");
                // Seldom alone: looking is cheaper than another connection.
                self.is_suspicious = true;
            }
            Step::TakeBefore => self.unreadable = None,
        }
        Ok(true)
    }

    fn look_at_link(&mut self) -> Result<(), Error> {
        if let Err(error) = self.link.life() {
            self.inbox = None;
            self.is_suspicious = true;
            return Err(error);
        }
        let (life, refusals, refusal) = {
            let state = self.state.borrow_and_update();
            (state.life, state.refusals, state.refusal.clone())
        };
        if self.inbox.as_ref().is_some_and(|inbox| inbox.life != life) {
            self.make_stale("the connection was remade");
            self.is_suspicious = true;
        }
        let is_new = std::mem::replace(&mut self.refusals, refusals) != refusals;
        match (refusal, &self.inbox) {
            (Some(refusal), Some(inbox)) if is_new && inbox.is_named_in(&refusal) => {
                self.make_stale("the server refuses what it permitted");
                Err(self.link.not_permitted(&refusal))
            }
            _ => Ok(()),
        }
    }

    /// Takes in what has arrived, without waiting.
    fn empty_inbox(&mut self) -> Result<(), Error> {
        let now = self.link.clock.now();
        while let Some(inbox) = &mut self.inbox {
            match inbox.subscriber.next().now_or_never() {
                Some(Some(message)) => self.take_in(message, now)?,
                Some(None) => self.make_stale("the client closed the inbox"),
                None => break,
            }
        }
        Ok(())
    }

    /// Waits for anything to happen.
    async fn wait(&mut self) -> Result<(), Error> {
        let Some(inbox) = &mut self.inbox else {
            return Ok(());
        };
        tokio::select! {
            message = inbox.subscriber.next() => match message {
                Some(message) => {
                    let now = self.link.clock.now();
                    self.take_in(message, now)?;
                }
                None => self.make_stale("the client closed the inbox"),
            },
            // An error means that the client is gone, which the next look at the link reports.
            _ = self.state.changed() => {}
            () = tokio::time::sleep_until(inbox.heard + SILENCE_MAX) => self.make_stale("the server has forgotten the request"),
        }
        Ok(())
    }

    async fn settle_again(&mut self) -> Result<(), Error> {
        while let Some(reply) = self.again.front() {
            self.settler.again(reply.clone()).await?;
            self.again.pop_front();
        }
        Ok(())
    }

    fn take_in(&mut self, message: async_nats::Message, now: Instant) -> Result<(), Error> {
        let Some(inbox) = &mut self.inbox else {
            return Ok(());
        };
        inbox.heard = now;
        let Some(numbers) = message.reply.as_deref().and_then(Numbers::parse) else {
            // Without a status either, someone else published to our inbox. With both it is a delivery: anybody may publish a
            // message that looks like a status.
            return match message.status {
                Some(status) => self.take_status(status, &message),
                None => Ok(()),
            };
        };
        if numbers.delivery != inbox.next {
            tracing::warn!(
                broker = %self.link.name, consumer = %self.subscription.consumer, expected = inbox.next, found = numbers.delivery,
                "deliveries were lost on the way, or someone else reads the same consumer"
            );
            self.make_stale("deliveries were lost");
            return Ok(());
        }
        inbox.next += 1;
        inbox.is_quiet = false;
        inbox.asked.arrived(message.length);
        inbox.is_next_large = false;
        let reply = message.reply.unwrap_or_else(|| Subject::from_static(""));
        let message = Message {
            subject: message.subject.into_string(),
            headers: headers::read(message.headers.as_ref()),
            payload: payload::own(message.payload),
        };
        self.hand_out(numbers.stream, reply, message, now);
        Ok(())
    }

    /// Makes a message ready to be returned, if it is not held or settled already.
    fn hand_out(&mut self, position: u64, reply: Subject, message: Message, now: Instant) {
        // The guard must be gone before the arms run.
        let arrival = self.settler.held().arrive(position, reply, now);
        match arrival {
            Arrival::New(receipt) => self.ready.push_back(Delivery {
                message,
                position: Position(position),
                taken: now,
                receipt: Receipt(receipt),
            }),
            Arrival::Held => {}
            Arrival::Settled(reply) => self.again.push_back(reply),
        }
    }

    /// A word of the server about a request.
    fn take_status(&mut self, status: StatusCode, message: &async_nats::Message) -> Result<(), Error> {
        let Some(inbox) = &mut self.inbox else {
            return Ok(());
        };
        let text = message.description.as_deref().unwrap_or_default();
        tracing::trace!(consumer = %self.subscription.consumer, status = status.as_u16(), text, headers = ?message.headers, asked = ?inbox.asked, "the server says");
        let number = |name| header_number(message, name);
        match status.as_u16() {
            // A heartbeat of a request that waits: says the number of the latest delivery.
            100 => match number("Nats-Last-Consumer") {
                Some(last) if last as u64 >= inbox.next => self.make_stale("deliveries were lost"),
                Some(_) => inbox.is_quiet = true,
                None => {}
            },
            // A request is over, and says what of it did not come.
            404 | 408 | 409 if number("Nats-Pending-Messages").is_some() => {
                let request = inbox.request_of(&message.subject);
                let left = Room {
                    count: number("Nats-Pending-Messages").unwrap_or_default(),
                    bytes: number("Nats-Pending-Bytes").unwrap_or_default(),
                };
                if inbox.asked.ended(request, left) {
                    inbox.is_next_large |= text.starts_with("Message Size Exceeds");
                }
            }
            400 => {
                let error = self
                    .link
                    .misconfigured(format!("the server refuses to give messages: {text}"));
                self.make_stale("the request was refused");
                return Err(error);
            }
            409 if text.starts_with("Exceeded") || text.starts_with("Consumer is push") => {
                let error = self.link.misconfigured(format!(
                    "the server refuses to give messages of {}: {text}: change this limit of the consumer or its stream", inbox.named
                ));
                self.make_stale("the request was refused");
                return Err(error);
            }
            _ => self.make_stale(text),
        }
        Ok(())
    }

    /// Gives of what is ready as much as there is room for.
    async fn give(&mut self, room: Room) -> Vec<Delivery> {
        let (count, left) = fitting(&self.ready, room);
        // Asked for now, so that it is on its way while the caller works. An error is for the next call, which will meet it again.
        // Deliveries leave the queue after the last wait: a dropped future has taken none.
        if self.inbox.as_ref().is_some_and(|inbox| !inbox.is_next_large) {
            let _ = self.ask(left).await;
        }
        let _ = self.settle_again().await;
        self.ready.drain(..count).collect()
    }

    /// Asks for what there is room for, as far as that is worth a request.
    async fn ask(&mut self, room: Room) -> Result<(), Error> {
        while !self.is_suspicious
            && self.unreadable.is_none()
            && let Some(inbox) = &mut self.inbox
            && let Some((request, wanted)) = inbox.decide(room)
        {
            // The server takes 0 for no bound.
            let bytes = if inbox.is_next_large { 0 } else { wanted.bytes };
            let body = json!({
                "batch": wanted.count,
                "max_bytes": bytes,
                "expires": nanos(REQUEST_TIME),
                "idle_heartbeat": nanos(HEARTBEAT),
            });
            tracing::trace!(consumer = %self.subscription.consumer, request, asked = ?inbox.asked, room = room.count, room_bytes = room.bytes, %body, "asks for messages");
            let sent = self.link.client.publish_with_reply(
                inbox.next_subject.clone(),
                format!("{}.{request}", inbox.subject),
                Bytes::from(body.to_string()),
            );
            timeout(SILENCE_MAX, sent)
                .await
                .map_err(|_| self.link.unreachable("the connection takes nothing"))?
                .map_err(|error| self.link.unreachable(error))?;
            inbox.asked.sent(request, wanted);
            inbox.heard = self.link.clock.now();
        }
        Ok(())
    }
}

/// How many of the first deliveries fit into the room, at least one, and the room that is left when all that is ready is counted.
fn fitting(ready: &VecDeque<Delivery>, room: Room) -> (usize, Room) {
    let mut left = room;
    let mut count = 0;
    for delivery in ready {
        let size = delivery.message.size();
        let fits = left.count > 0 && size <= left.bytes;
        if fits || count == 0 {
            count += 1;
        } else {
            // What does not fit waits here, and what follows it waits behind it.
            return (count, Room { count: 0, bytes: 0 });
        }
        left.count = left.count.saturating_sub(1);
        left.bytes = left.bytes.saturating_sub(size);
    }
    (count, left)
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

fn header_number(message: &async_nats::Message, name: &str) -> Option<usize> {
    message.headers.as_ref()?.get(name)?.as_str().parse().ok()
}
