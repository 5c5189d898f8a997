//! Settles deliveries, in chunks, and gives their room back to the budget: the last step of every event.
//!
//! A crash before a settlement reaches the broker leaves a delivery that the broker gives again and the ledger knows.

use std::sync::Arc;

use tokio::sync::mpsc;
use tracing::debug;

use super::ages::Ages;
use super::arrival::Spent;
use super::budget::Budget;
use crate::broker::{Room, Settle, Settlement};
use crate::clock::Clock;
use crate::crash::{self, Point};
use crate::metrics;

/// Settlements in one call of the broker.
const CHUNK: usize = 1_024;

/// What a settler is told.
pub(super) enum Order {
    /// Settle through this from now on.
    Through(Arc<dyn Settle>),
    /// Settle a delivery.
    Settle(Spent, Settlement),
}

/// Settles until the sender is dropped and everything was told to the broker.
///
/// # Cancellation
/// Safe: what was not told is given again.
pub(super) async fn run(
    mut orders: mpsc::Receiver<Order>,
    budget: Arc<Budget>,
    ages: Arc<Ages>,
    metrics: metrics::Consumer,
    clock: Clock,
) {
    let mut through: Option<Arc<dyn Settle>> = None;
    let mut chunk = Vec::with_capacity(CHUNK);
    while orders.recv_many(&mut chunk, CHUNK).await > 0 {
        let mut settled = Vec::with_capacity(chunk.len());
        let mut taken = Vec::with_capacity(chunk.len());
        let mut weight = Room { count: 0, bytes: 0 };
        let now = clock.now();
        for order in chunk.drain(..) {
            match order {
                Order::Through(settle) => through = Some(settle),
                Order::Settle(spent, settlement) => {
                    weight.count += spent.weight.count;
                    weight.bytes += spent.weight.bytes;
                    if settlement == Settlement::Done {
                        metrics.settled(now.saturating_duration_since(spent.taken));
                    }
                    taken.push(spent.taken);
                    settled.extend(spent.receipt.map(|receipt| (receipt, settlement)));
                }
            }
        }
        if let Some(settle) = &through
            && !settled.is_empty()
        {
            crash::at(Point::Settling);
            if let Err(error) = settle.settle(settled).await {
                // The source reports the broker's absence; the broker gives these again, and they are duplicates.
                debug!(error = %error, "settlements did not reach the broker");
            }
            crash::at(Point::Settled);
        }
        budget.give_back(weight);
        ages.settle(taken.into_iter());
    }
}
