//! The end of a consumer: it takes nothing more, finishes what runs, hands back the rest, and says what was left.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::Left;
use super::arrival::Spent;
use super::dispatch::{Dispatcher, Inbox};
use super::job::Job;
use super::settle::Order;
use crate::broker::Settlement;
use crate::ledger::Entry;

/// How long the broker may take to hear of the last settlements. What it does not hear it gives again.
const LAST_SETTLEMENTS: Duration = Duration::from_secs(2);
/// How long the ledger may take for the last write.
const LAST_WRITE: Duration = Duration::from_secs(1);

impl Dispatcher {
    pub(super) fn stop_taking(&mut self, deadline: Instant) {
        self.drain = Some(deadline);
        self.intake.abort();
        self.loader.clear();
        for job in self.lanes.drain().into_iter().chain(self.moves.clear()) {
            self.hand_back(job);
        }
    }

    /// Gives back what did not run. What came out of the ledger is still there.
    pub(super) fn hand_back(&mut self, job: Box<Job>) {
        self.in_hand.remove(job.record);
        self.hand_back_spent(job.into());
    }

    pub(super) fn hand_back_spent(&mut self, spent: Spent) {
        if spent.receipt.is_some() {
            self.left.handed_back += 1;
            self.parts.metrics.held(1);
            // Its queue has room for the whole budget.
            let _ = self.settler.try_send(Order::Settle(spent, Settlement::HandBack));
        }
    }

    pub(super) fn is_drained(&self) -> bool {
        let Some(deadline) = self.drain else { return false };
        let is_idle = self.running == 0 && self.back.is_empty() && self.unconfirmed.deliveries() == 0;
        is_idle || self.now() >= deadline
    }

    /// What was begun and not ended when a host stops in good order is no reason to suspect it.
    async fn take_back_beginnings(&mut self) {
        let ended: Vec<Entry> = std::mem::take(&mut self.begun).into_values().collect();
        if !ended.is_empty() {
            // Best effort: at worst it counts as one crash of three. What was committed meanwhile is refused.
            let write = self.parts.ledger.write(Arc::new(ended));
            let _ = tokio::time::timeout(LAST_WRITE, write).await;
        }
    }

    pub(super) async fn finish(mut self, mut inbox: Inbox) -> Left {
        inbox.arrivals.close();
        while let Ok(arrival) = inbox.arrivals.try_recv() {
            self.hand_back_arrival(arrival);
        }
        self.left.unfinished = self.running + self.in_ledger;
        self.left.unconfirmed = self.unconfirmed.deliveries();
        self.tasks.shutdown().await;
        self.take_back_beginnings().await;
        self.parts.metrics.subscribed(false);
        self.show_levels();
        let (left, mut hands) = (self.left, std::mem::take(&mut self.hands));
        // The settler ends when its last order is told.
        drop(self);
        let ended = async { while hands.join_next().await.is_some() {} };
        let _ = tokio::time::timeout(LAST_SETTLEMENTS, ended).await;
        left
    }
}
