//! Brokers that may be away when the host starts: connected at the first use, and tried again at the next if that fails.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use tokio::sync::OnceCell;

use crate::broker::{Broker, Error, Publisher, Subscribed, Subscription, nats};
use crate::clock::Clock;
use crate::plan;

/// A broker that is connected at its first use.
pub struct Connecting {
    plan: Arc<plan::Broker>,
    clock: Clock,
    connected: OnceCell<Arc<dyn Broker>>,
}

impl Connecting {
    /// Connects later.
    #[must_use]
    pub fn new(plan: Arc<plan::Broker>, clock: Clock) -> Self {
        Self {
            plan,
            clock,
            connected: OnceCell::new(),
        }
    }

    async fn connected(&self) -> Result<&Arc<dyn Broker>, Error> {
        self.connected
            .get_or_try_init(|| nats::connect(&self.plan, self.clock.clone()))
            .await
    }
}

impl Broker for Connecting {
    fn subscribe(&self, subscription: Subscription) -> BoxFuture<'_, Result<Subscribed, Error>> {
        Box::pin(async move { self.connected().await?.subscribe(subscription).await })
    }

    fn publisher(&self, stream: Arc<plan::Stream>) -> BoxFuture<'_, Result<Arc<dyn Publisher>, Error>> {
        Box::pin(async move { self.connected().await?.publisher(stream).await })
    }

    fn check(&self) -> BoxFuture<'_, Result<(), Error>> {
        Box::pin(async move { self.connected().await?.check().await })
    }
}
