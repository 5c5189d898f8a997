//! A webhook: each message becomes one `POST`, confirmed by a 2xx answer.
//!
//! The same output always carries the same `Idempotency-Key`, so that a receiver can drop what it has taken before. Nothing
//! keeps requests in order: of one key, the relay has one under way at a time. Redirects are never followed, as the webhook
//! specification of CloudEvents demands: they would lead a token astray.

mod answer;
#[cfg(fuzzing)]
pub mod fuzzing;

use std::error::Error as _;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::{FutureExt as _, StreamExt as _, stream};
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use reqwest::{Client, Response, Url};
use tokio::sync::Semaphore;

use crate::broker::{Broker, Error, Outgoing, Publisher, Subscribed, Subscription};
use crate::clock::Clock;
use crate::event::Message;
use crate::plan;

/// Opening a connection may take this much of a request's time.
const CONNECT_TIMEOUT_MAX: Duration = Duration::from_secs(10);
/// What is read of an answer, in bytes. It is read at all so that the connection can be used again.
const ANSWER_BYTES_MAX: usize = 64 * 1024;

/// One webhook. One per `[broker.NAME]`; it holds a pool of connections, which its publishers share and which closes with the last
/// of them.
#[derive(Debug)]
pub struct Webhook {
    sender: Arc<Sender>,
}

impl Webhook {
    /// Prepares a webhook; connects to nothing yet.
    ///
    /// # Errors
    /// [`Error::Misconfigured`] if the URL or the token can't be sent, or the system has no certificates to trust.
    pub fn new(broker: plan::Name, plan: &plan::Webhook, clock: Clock) -> Result<Self, Error> {
        let misconfigured = |reason: String| Error::Misconfigured {
            broker: broker.clone(),
            reason,
        };
        let base =
            Url::parse(&plan.url).map_err(|error| misconfigured(format!("\"{}\" is no URL: {error}", plan.url)))?;
        let token = plan.token.as_ref().map(bearer).transpose().map_err(misconfigured)?;
        let client = client(&base, plan.timeout).map_err(|error| misconfigured(text(error)))?;
        let sender = Sender {
            concurrency: plan.concurrency,
            permits: Semaphore::new(plan.concurrency.get().min(Semaphore::MAX_PERMITS)),
            broker,
            base,
            authorization: authorization(token),
            token: plan.token.clone(),
            client,
            clock,
        };
        Ok(Self {
            sender: Arc::new(sender),
        })
    }
}

impl Broker for Webhook {
    fn subscribe(&self, subscription: Subscription) -> BoxFuture<'_, Result<Subscribed, Error>> {
        let reason = format!(
            "stream {} is a webhook, which is only written to: to take events over HTTP, add a route to [ingress]",
            subscription.stream.name
        );
        let broker = self.sender.broker.clone();
        async { Err(Error::Misconfigured { broker, reason }) }.boxed()
    }

    fn publisher(&self, _: Arc<plan::Stream>) -> BoxFuture<'_, Result<Arc<dyn Publisher>, Error>> {
        let publisher: Arc<dyn Publisher> = self.sender.clone();
        async { Ok(publisher) }.boxed()
    }

    /// Sends a `HEAD`: any answer at all will do.
    fn check(&self) -> BoxFuture<'_, Result<(), Error>> {
        async {
            let request = self
                .sender
                .client
                .head(self.sender.base.clone())
                .headers(self.sender.authorization.clone());
            request
                .send()
                .await
                .map(|_| ())
                .map_err(|error| self.sender.unreachable(error))
        }
        .boxed()
    }
}

/// Sends messages. The place of a message is below the base URL, so one serves all streams.
#[derive(Debug)]
struct Sender {
    broker: plan::Name,
    base: Url,
    /// What every request says of who we are.
    authorization: HeaderMap,
    /// To be kept out of what is said of answers.
    token: Option<plan::Secret>,
    client: Client,
    clock: Clock,
    /// Of one batch, and of all batches together.
    concurrency: NonZeroUsize,
    permits: Semaphore,
}

impl Publisher for Sender {
    fn publish(&self, batch: Vec<Outgoing>) -> BoxFuture<'_, Vec<Result<(), Error>>> {
        let sent = stream::iter(batch).map(|outgoing| self.send(outgoing));
        sent.buffered(self.concurrency.get()).collect().boxed()
    }

    /// What a receiver takes is not known before it answers 413.
    fn size_max(&self) -> usize {
        usize::MAX
    }
}

impl Sender {
    async fn send(&self, outgoing: Outgoing) -> Result<(), Error> {
        // The semaphore is never closed; were it, sending unbounded would be no reason to lose a message.
        let _permit = self.permits.acquire().await.ok();
        let url = self.url(&outgoing.message)?;
        let headers = self.headers(&outgoing)?;
        let request = self.client.post(url).headers(headers).body(outgoing.message.payload);
        let response = request.send().await.map_err(|error| self.unreachable(error))?;
        let (status, retry_after) = (
            response.status(),
            answer::retry_after(response.headers(), self.clock.wall()),
        );
        let body = beginning(response).await;
        let described = answer::described(status, &body, self.token.as_ref());
        answer::verdict(&self.broker, status, retry_after, &described)
    }

    /// The base URL with the message's place below its path; a query of the base stays at the end.
    fn url(&self, message: &Message) -> Result<Url, Error> {
        let mut url = self.base.clone();
        let place = message.subject.trim_start_matches('/');
        if place.is_empty() {
            return Ok(url);
        }
        let (path, query) = place
            .split_once('?')
            .map_or((place, None), |(path, query)| (path, Some(query)));
        let above = format!("{}/", self.base.path().trim_end_matches('/'));
        url.set_path(&format!("{above}{path}"));
        // Places are checked when they are rendered, but a message may be of an older config.
        if !url.path().starts_with(&above) {
            return Err(self.refused(format!("its place {place} leads out of {above}")));
        }
        let queries: Vec<&str> = query.into_iter().chain(self.base.query()).collect();
        url.set_query((!queries.is_empty()).then(|| queries.join("&")).as_deref());
        Ok(url)
    }

    fn headers(&self, outgoing: &Outgoing) -> Result<HeaderMap, Error> {
        let mut headers = self.authorization.clone();
        for (name, value) in outgoing.message.headers.iter() {
            match (HeaderName::try_from(name), HeaderValue::try_from(value)) {
                (Ok(name), Ok(value)) => headers.append(name, value),
                _ => return Err(self.refused(format!("header {name} can't be sent over HTTP"))),
            };
        }
        let id = HeaderValue::try_from(outgoing.id.as_ref())
            .map_err(|_| self.refused("its id can't be sent as a header".to_owned()))?;
        headers.insert("idempotency-key", id);
        Ok(headers)
    }

    fn unreachable(&self, error: reqwest::Error) -> Error {
        Error::Unreachable {
            broker: self.broker.clone(),
            reason: text(error),
            retry_after: None,
        }
    }

    fn refused(&self, reason: String) -> Error {
        Error::Refused {
            broker: self.broker.clone(),
            reason,
        }
    }
}

fn client(base: &Url, timeout: Duration) -> Result<Client, reqwest::Error> {
    // Fails only if another part of the process has installed a provider before, which then serves as well.
    rustls::crypto::ring::default_provider().install_default().ok();
    let builder = Client::builder()
        .user_agent(concat!("tidegate/", env!("CARGO_PKG_VERSION")))
        .redirect(reqwest::redirect::Policy::none())
        .referer(false)
        .timeout(timeout)
        .connect_timeout(timeout.min(CONNECT_TIMEOUT_MAX));
    match base.scheme() {
        // Plain HTTP must also work where there is no certificate at all, as in an empty container.
        "http" => builder.tls_certs_only([]).build(),
        _ => builder.build(),
    }
}

fn bearer(token: &plan::Secret) -> Result<HeaderValue, String> {
    let mut value = HeaderValue::try_from(format!("Bearer {}", token.reveal()))
        .map_err(|_| "its token has characters that a header can't hold".to_owned())?;
    value.set_sensitive(true);
    Ok(value)
}

fn authorization(token: Option<HeaderValue>) -> HeaderMap {
    let lines = token.map(|token| (reqwest::header::AUTHORIZATION, token));
    lines.into_iter().collect()
}

/// The beginning of an answer's body. One that breaks off is as good as its status.
async fn beginning(mut response: Response) -> Bytes {
    let mut body = Vec::new();
    while body.len() < ANSWER_BYTES_MAX {
        match response.chunk().await {
            Ok(Some(chunk)) => body.extend(chunk.iter().take(ANSWER_BYTES_MAX - body.len())),
            Ok(None) | Err(_) => break,
        }
    }
    body.into()
}

/// An error with its causes, without the URL, which may hold secrets.
fn text(error: reqwest::Error) -> String {
    let error = error.without_url();
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
