//! Publishing with confirmation: one inbox takes the confirmations of everything that is published over a connection.
//!
//! A batch is sent whole and then awaited. Each message carries the batch's number and its own in its reply subject, so that a
//! confirmation finds its place (`waiting`) without a task, a timer or a subscription of its own.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use async_nats::{PublishErrorKind, StatusCode, Subscriber};
use futures_util::future::BoxFuture;
use futures_util::{FutureExt, StreamExt};
use serde::Deserialize;
use tokio::sync::Semaphore;
use tokio::task::AbortHandle;
use tokio::time::{Instant, timeout, timeout_at};

use super::api::Refusal;
use super::link::Link;
use super::waiting::{Answer, Batch, Entered, Waiting};
use super::{headers, stream};
use crate::broker::{Error, Outgoing, Publisher};
use crate::clock::Clock;

/// How long a confirmation may take.
const CONFIRM_TIME: Duration = Duration::from_secs(5);
/// Messages that are sent before the first of them is awaited.
const BATCH_MAX: usize = 1_024;
/// Unconfirmed messages on one connection. The server refuses more than 10,000 for one stream, and the client drops
/// confirmations that it has no room for.
const UNCONFIRMED_MAX: usize = 4 * BATCH_MAX;
/// A subject longer than this could exceed the server's control line (4 KiB with reply and sizes), for which it hangs up.
const SUBJECT_BYTES_MAX: usize = 2_048;

/// Of the server's errors (`server/errors.json` in nats-server), those whose status does not say what they mean for a message.
/// The account's storage is full, with status 400.
const ACCOUNT_FULL: u32 = 10_002;
/// The stream has become read-only, with status 400.
const SEALED: u32 = 10_109;
/// In a cluster, the same id is being stored now, with status 409.
const ID_IN_PROCESS: u32 = 10_158;
/// The stream is full, or the message is larger than any store can hold, both with status 503.
const NOT_STORED: u32 = 10_077;
const TOO_LARGE: &str = "message too large";

/// A publisher onto JetStream. The subject is the message's, so one would do for all streams.
pub(super) struct Nats {
    confirmations: Arc<Confirmations>,
}

impl Nats {
    pub(super) fn new(confirmations: Arc<Confirmations>) -> Self {
        Self { confirmations }
    }
}

impl Publisher for Nats {
    fn publish(&self, batch: Vec<Outgoing>) -> BoxFuture<'_, Vec<Result<(), Error>>> {
        async move {
            let mut results = Vec::with_capacity(batch.len());
            let mut batch = batch.into_iter();
            loop {
                let part: Vec<Outgoing> = batch.by_ref().take(BATCH_MAX).collect();
                if part.is_empty() {
                    return results;
                }
                results.extend(self.confirmations.publish(part).await);
            }
        }
        .boxed()
    }

    fn size_max(&self) -> usize {
        self.confirmations.link.client.max_payload()
    }
}

/// The inbox of confirmations, and who waits for them.
pub(super) struct Confirmations {
    link: Arc<Link>,
    inbox: String,
    waiting: Arc<Waiting>,
    unconfirmed: Semaphore,
    reader: AbortHandle,
}

impl Confirmations {
    /// Opens the inbox.
    pub(super) async fn open(link: Arc<Link>) -> Result<Arc<Self>, Error> {
        link.life()?;
        let inbox = link.client.new_inbox();
        let subscriber = timeout(CONFIRM_TIME, link.client.subscribe(format!("{inbox}.*.*")))
            .await
            .map_err(|_| link.unreachable("the connection takes nothing"))?
            .map_err(|error| link.unreachable(error))?;
        let waiting = Arc::new(Waiting::default());
        let reader = tokio::spawn(read(subscriber, inbox.len(), Arc::clone(&waiting), link.clock.clone()));
        Ok(Arc::new(Self {
            link,
            inbox,
            waiting,
            unconfirmed: Semaphore::new(UNCONFIRMED_MAX),
            reader: reader.abort_handle(),
        }))
    }

    async fn publish(&self, batch: Vec<Outgoing>) -> Vec<Result<(), Error>> {
        let subjects: Vec<String> = batch.iter().map(|out| out.message.subject.clone()).collect();
        let seen = self.link.watch().borrow().refusals;
        let permits = u32::try_from(batch.len()).unwrap_or(u32::MAX);
        let room = match timeout(CONFIRM_TIME * 2, self.unconfirmed.acquire_many(permits)).await {
            Ok(Ok(room)) => room,
            _ => {
                let error = self.link.unreachable("too many messages are unconfirmed");
                return vec![Err(error); subjects.len()];
            }
        };
        let ids = batch.iter().map(|out| Arc::clone(&out.id)).collect();
        let entered = self.waiting.enter(ids, self.link.clock.now());
        self.send(batch, &entered).await;
        self.wait(&entered.batch).await;
        let answers = entered.leave();
        drop(room);
        self.explain(subjects, answers, seen).await
    }

    /// Sends a batch in order. What can't be sent is answered here.
    async fn send(&self, batch: Vec<Outgoing>, entered: &Entered<'_>) {
        let deadline = self.link.clock.now() + CONFIRM_TIME;
        for (index, outgoing) in batch.into_iter().enumerate() {
            if entered.is_known(index) {
                continue;
            }
            let reply = format!("{}.{}.{index}", self.inbox, entered.number);
            if let Err(error) = self.send_one(outgoing, reply, deadline).await {
                entered.batch.answer(index, Answer::NotSent(error));
            }
        }
    }

    async fn send_one(&self, outgoing: Outgoing, reply: String, deadline: Instant) -> Result<(), Error> {
        self.link.life()?;
        let Outgoing { id, message, .. } = outgoing;
        check_subject(&message.subject).map_err(|reason| self.link.refused(reason))?;
        let headers = headers::write(&message.headers, &id).map_err(|reason| self.link.refused(reason))?;
        let sent = self
            .link
            .client
            .publish_with_reply_and_headers(message.subject, reply, headers, message.payload);
        match timeout_at(deadline, sent).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(match error.kind() {
                PublishErrorKind::MaxPayloadExceeded | PublishErrorKind::InvalidSubject => self.link.refused(error),
                PublishErrorKind::Send => self.link.unreachable(error),
            }),
            Err(_) => Err(self.link.unreachable("the connection takes nothing")),
        }
    }

    /// Waits until the whole batch is answered, the time is over, or the connection is lost and its confirmations with it.
    async fn wait(&self, batch: &Batch) {
        let mut state = self.link.watch();
        let life = state.borrow_and_update().life;
        tokio::select! {
            () = batch.all_answered() => {}
            _ = state.wait_for(|state| !state.is_up || state.life != life) => {}
            () = tokio::time::sleep(CONFIRM_TIME) => {}
        }
    }

    async fn explain(&self, subjects: Vec<String>, answers: Vec<Option<Answer>>, seen: u64) -> Vec<Result<(), Error>> {
        let mut lonely = BTreeSet::new();
        for (subject, answer) in subjects.iter().zip(&answers) {
            if matches!(answer, Some(Answer::NobodyThere)) {
                lonely.insert(subject.clone());
            }
        }
        let lonely = self.explain_lonely(lonely).await;
        let refusal = {
            let state = self.link.watch();
            let state = state.borrow();
            state.refusal.clone().filter(|_| state.refusals > seen)
        };
        let explain = |(subject, answer): (String, Option<Answer>)| match answer {
            Some(Answer::Confirmed) => Ok(()),
            Some(Answer::Refused(refusal)) => Err(self.explain_refusal(&subject, &refusal)),
            Some(Answer::NotSent(error)) => Err(error),
            Some(Answer::NobodyThere) => Err(lonely
                .get(&subject)
                .cloned()
                .unwrap_or_else(|| self.link.unreachable(format!("nobody answers for {subject}")))),
            None => Err(match &refusal {
                Some(refusal) if refusal.contains(&format!("\"{subject}\"")) => self.link.not_permitted(refusal),
                _ => self.link.unreachable(format!("{subject} was not confirmed in time")),
            }),
        };
        subjects.into_iter().zip(answers).map(explain).collect()
    }

    /// For subjects that nobody answered for: whether their stream is missing or only has no leader.
    async fn explain_lonely(&self, subjects: BTreeSet<String>) -> HashMap<String, Error> {
        let mut errors = HashMap::new();
        for subject in subjects {
            let error = match stream::taking(&self.link, &subject).await {
                Ok(streams) if streams.is_empty() => self.link.misconfigured(format!(
                    "no JetStream stream takes {subject}: create one, or give the stream that is written `subjects` and `create = true`"
                )),
                Ok(streams) => self.link.unreachable(format!("stream {} has no leader now", streams.join(", "))),
                Err(error) => error,
            };
            errors.insert(subject, error);
        }
        errors
    }

    /// A full or overloaded stream may have room later, and a sealed one is none to write to; anything else is wrong with the message.
    fn explain_refusal(&self, subject: &str, refusal: &Refusal) -> Error {
        let text = format!("{subject}: {}", refusal.description);
        match (refusal.err_code, refusal.code) {
            (SEALED, _) => self.link.misconfigured(format!(
                "{text}: its stream takes nothing any more, so write to another or replace it"
            )),
            (NOT_STORED, _) if refusal.description == TOO_LARGE => self.link.refused(text),
            (ACCOUNT_FULL | ID_IN_PROCESS, _) | (_, 408 | 429 | 500..) => self.link.unreachable(text),
            _ => self.link.refused(text),
        }
    }
}

impl Drop for Confirmations {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

/// Gives each confirmation to its batch.
async fn read(mut subscriber: Subscriber, prefix: usize, waiting: Arc<Waiting>, clock: Clock) {
    while let Some(message) = subscriber.next().await {
        let place = message.subject.get(prefix + 1..).and_then(|rest| rest.split_once('.'));
        let Some((number, index)) = place.and_then(|(n, i)| Some((n.parse().ok()?, i.parse().ok()?))) else {
            continue;
        };
        waiting.answer((number, index), parse(&message), || clock.now());
    }
}

pub(super) fn parse(message: &async_nats::Message) -> Answer {
    #[derive(Deserialize)]
    struct Confirmation {
        error: Option<Refusal>,
    }
    if message.status == Some(StatusCode::NO_RESPONDERS) {
        return Answer::NobodyThere;
    }
    match serde_json::from_slice(&message.payload) {
        // A duplicate is confirmed like any other.
        Ok(Confirmation { error: None }) => Answer::Confirmed,
        Ok(Confirmation { error: Some(refusal) }) => Answer::Refused(refusal),
        Err(error) => Answer::Refused(Refusal {
            code: 500,
            err_code: 0,
            description: format!("the confirmation is not understood: {error}"),
        }),
    }
}

fn check_subject(subject: &str) -> Result<(), String> {
    let is_token = |token: &str| {
        !token.is_empty()
            && !matches!(token, "*" | ">")
            && !token.contains(|c: char| c.is_whitespace() || c.is_control())
    };
    if subject.len() <= SUBJECT_BYTES_MAX && subject.split('.').all(is_token) {
        Ok(())
    } else {
        Err(format!(
            "\"{}\" is no subject to publish to: tokens with . between them, without blanks and wildcards, at most {SUBJECT_BYTES_MAX} bytes",
            subject.escape_debug()
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_subjects_are_published_to() {
        for subject in ["a", "orders.eu.placed", "stock.com.example.order-placed", "ü.x"] {
            assert!(check_subject(subject).is_ok(), "{subject}");
        }
        let long = "a".repeat(SUBJECT_BYTES_MAX + 1);
        for subject in ["", ".", "a.", ".a", "a..b", "a b", "a.*", "a.>", "a\r\nPUB x", &long] {
            assert!(check_subject(subject).is_err(), "{subject}");
        }
    }
}
