//! NATS JetStream: streams are read through a durable pull consumer, and written with a message id.
//!
//! What JetStream does not do by itself, and this file's children add:
//! - It gives pending messages again only after their ack wait, and newer ones first. A source therefore goes back (`cursor`)
//!   to the consumer's ack floor at start and after every gap, and drops what it holds already.
//! - It counts an ack wait from delivery, however long the work takes. Held deliveries are kept alive (`settle`).
//! - Its client drops what a slow reader leaves lying. Nothing is pulled (`source`) that there is no room for, and the numbers
//!   in the ack subjects show whatever was lost all the same.
//!
//! The server must be 2.12 or newer; from 2.14 on, going back is one request and works with every retention policy.

mod api;
mod asked;
mod cursor;
#[cfg(fuzzing)]
pub mod fuzzing;
mod headers;
mod held;
mod inbox;
mod link;
mod payload;
mod publisher;
mod settle;
mod source;
mod stream;
mod unreadable;
mod waiting;

use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::sync::OnceCell;

use super::{Broker, Error, Publisher, Subscribed, Subscription};
use crate::clock::Clock;
use crate::plan;

use link::Link;
use publisher::Confirmations;

/// Connects to a `nats://` broker. The connection then mends itself for ever, until the broker is dropped.
///
/// # Errors
/// [`Error::Unreachable`] if no server answers within five seconds; [`Error::Misconfigured`] if one answers and refuses, is
/// older than 2.12, or if a credential or certificate can't be read.
pub async fn connect(broker: &Arc<plan::Broker>, clock: Clock) -> Result<Arc<dyn Broker>, Error> {
    let plan::BrokerKind::Nats(nats) = &broker.kind else {
        return Err(Error::Misconfigured {
            broker: broker.name.clone(),
            reason: "it is no NATS broker".to_owned(),
        });
    };
    let link = Link::open(broker.name.clone(), nats, clock).await?;
    Ok(Arc::new(Nats {
        link: Arc::new(link),
        confirmations: OnceCell::new(),
    }))
}

/// One connection, shared by everything that is read and written through it.
struct Nats {
    link: Arc<Link>,
    /// Where the confirmations of everything published arrive; opened by the first publisher.
    confirmations: OnceCell<Arc<Confirmations>>,
}

impl Broker for Nats {
    fn subscribe(&self, subscription: Subscription) -> BoxFuture<'_, Result<Subscribed, Error>> {
        source::subscribe(Arc::clone(&self.link), subscription).boxed()
    }

    fn publisher(&self, stream: Arc<plan::Stream>) -> BoxFuture<'_, Result<Arc<dyn Publisher>, Error>> {
        async move {
            let place = stream::place(&self.link, &stream)?;
            stream::ensure_written(&self.link, &stream.name, place).await?;
            let confirmations = self
                .confirmations
                .get_or_try_init(|| Confirmations::open(Arc::clone(&self.link)))
                .await?;
            Ok(Arc::new(publisher::Nats::new(Arc::clone(confirmations))) as Arc<dyn Publisher>)
        }
        .boxed()
    }

    fn check(&self) -> BoxFuture<'_, Result<(), Error>> {
        api::check(&self.link).boxed()
    }
}
