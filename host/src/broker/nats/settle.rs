//! The half of a subscription that settles, and what keeps alive until then.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use async_nats::Subject;
use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::sync::Notify;
use tokio::task::AbortHandle;

use super::held::Held;
use super::link::Link;
use crate::broker::{Error, Receipt, Settle, Settlement};

const DONE: Bytes = Bytes::from_static(b"+ACK");
const HAND_BACK: Bytes = Bytes::from_static(b"-NAK");
const IN_PROGRESS: Bytes = Bytes::from_static(b"+WPI");

/// What the halves of a subscription share. When both are gone, nothing is kept alive any more.
pub(super) struct Settler {
    link: Arc<Link>,
    held: Mutex<Held>,
    /// The task that keeps alive; it holds no share of this, so that it ends with it.
    keeper: Mutex<Option<AbortHandle>>,
    /// Told whenever something was settled; the source may wait for it.
    settled: Notify,
}

impl Settler {
    /// Begins to keep alive what will be held.
    pub(super) fn start(link: Arc<Link>, ack_wait: Duration) -> Arc<Self> {
        let settler = Arc::new(Self {
            link,
            held: Mutex::default(),
            keeper: Mutex::default(),
            settled: Notify::new(),
        });
        let keeper = tokio::spawn(keep_alive(Arc::downgrade(&settler), ack_wait));
        *lock(&settler.keeper) = Some(keeper.abort_handle());
        settler
    }

    /// What is held. Locked for a decision, never across a wait.
    pub(super) fn held(&self) -> MutexGuard<'_, Held> {
        lock(&self.held)
    }

    /// Settles again what the server did not hear of.
    pub(super) async fn again(&self, reply: Subject) -> Result<(), Error> {
        self.link.send(reply, DONE).await
    }

    /// Waits until something was settled since the last time.
    pub(super) async fn settled(&self) {
        self.settled.notified().await;
    }

    async fn send_all(&self, mut messages: Vec<(Subject, Bytes)>) -> Result<(), Error> {
        // What the client could not read has no subject: the server waits for no word about it.
        messages.retain(|(reply, _)| !reply.is_empty());
        if messages.is_empty() {
            return Ok(());
        }
        for (reply, body) in messages {
            self.link.send(reply, body).await?;
        }
        self.link.flush().await
    }
}

impl Drop for Settler {
    fn drop(&mut self) {
        if let Some(keeper) = lock(&self.keeper).take() {
            keeper.abort();
        }
    }
}

impl Settle for Settler {
    fn settle(&self, settled: Vec<(Receipt, Settlement)>) -> BoxFuture<'_, Result<(), Error>> {
        // Released first and told afterwards: if the server does not hear of it, it gives the delivery again, and the source
        // knows that it was settled.
        let messages = {
            let mut held = self.held();
            settled
                .into_iter()
                .filter_map(|(Receipt(receipt), settlement)| {
                    let body = match settlement {
                        Settlement::Done => DONE,
                        Settlement::HandBack => HAND_BACK,
                    };
                    held.settle(receipt, settlement).map(|reply| (reply, body))
                })
                .collect()
        };
        self.settled.notify_one();
        self.send_all(messages).boxed()
    }
}

/// Tells the server that work is in progress, long before the ack wait has passed: a delivery is looked at every sixth of it, and
/// touched when it has not been for a third.
async fn keep_alive(settler: Weak<Settler>, ack_wait: Duration) {
    loop {
        tokio::time::sleep(ack_wait / 6).await;
        let Some(settler) = settler.upgrade() else {
            return;
        };
        if settler.link.life().is_err() {
            // The source goes back when the connection is there again.
            continue;
        }
        let due = settler.held().due(ack_wait / 3, settler.link.clock.now());
        let messages = due.into_iter().map(|reply| (reply, IN_PROGRESS)).collect();
        if let Err(error) = settler.send_all(messages).await {
            tracing::debug!(broker = %settler.link.name, %error, "could not keep deliveries alive");
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // No holder of these locks can panic half way.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
