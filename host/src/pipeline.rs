//! The way of one event through one consumer: taken, looked up, attempted, judged, committed, relayed, settled.
//!
//! ```text
//! source -> intake -> dispatcher -> chunk of attempts -> dispatcher -> ledger -> dispatcher -> relay -> dispatcher -> settler
//!           decode    lanes         plugin               verdict       commit                  publish
//!           look up
//! ```
//!
//! The dispatcher is the one task that owns a consumer's state: its lanes, its breaker, what waits for what. Everything else is handed
//! values and hands values back. Nothing here knows a broker, a store or an engine; those stand behind the traits in `broker`,
//! `ledger` and `plugin`.

#![expect(
    clippy::vec_box,
    reason = "events are large and change hands often: in a box they move as a pointer"
)]

pub mod ages;
mod arrival;
pub mod attempt;
pub mod backoff;
pub mod breaker;
pub mod budget;
mod commit;
mod dispatch;
mod drain;
mod in_hand;
mod intake;
mod job;
mod judge;
mod lane;
pub mod letter;
mod loader;
mod park;
pub mod quarantine;
pub mod relay;
mod runner;
mod settle;
#[cfg(test)]
mod tests;
pub mod unconfirmed;
pub mod verdict;

use std::collections::HashMap;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{broadcast, mpsc};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::broker::Broker;
use crate::clock::{Clock, Timestamp};
use crate::ledger::{self, Ledger, Parking};
use crate::metrics;
use crate::plan::{self, Name};
use crate::plugin::Handler;

/// How long after its deadline a drain may still tell the broker what it has settled. A pipeline that does not answer by then is
/// stopped: the broker gives again what was not settled.
const LATE: Duration = Duration::from_secs(5);

/// What a pipeline is made of.
pub struct Parts {
    /// Whose it is.
    pub consumer: Arc<plan::Consumer>,
    /// What it reads from.
    pub broker: Arc<dyn Broker>,
    /// Runs its plugin.
    pub handler: Arc<dyn Handler>,
    /// Records and effects.
    pub ledger: Arc<dyn Ledger>,
    /// Lanes that wait.
    pub parking: Arc<dyn Parking>,
    /// The relays of all streams that it may write, by name. Streams without one are logs in the ledger's own store.
    pub relays: HashMap<Name, relay::Relay>,
    /// Outputs of it that an earlier host committed and that are not confirmed.
    pub inherited: unconfirmed::Inherited,
    /// How long its deliveries have been unsettled.
    pub ages: Arc<ages::Ages>,
    /// Held by whatever must run alone in this host.
    pub quarantine: Arc<quarantine::Quarantine>,
    /// Chunks of attempts that can compute at once: the machine's cores.
    pub workers: NonZeroUsize,
    /// What it counts.
    pub metrics: metrics::Consumer,
    /// Where it tells what became of events, for whoever watches.
    pub feed: broadcast::Sender<Happening>,
    /// For time and chance.
    pub clock: Clock,
}

/// What became of an event, for `tail`.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Happening {
    /// When.
    pub at: Timestamp,
    /// Whose.
    pub consumer: Name,
    /// `committed`, `duplicate`, `retry`, `dead`, `parked`.
    pub outcome: &'static str,
    /// The event's id.
    pub event_id: String,
    /// The event's type.
    pub event_type: String,
    /// Its ordering key.
    pub key: String,
    /// Attempts made by now, as far as this delivery knows: 0 of a duplicate.
    pub attempt: u32,
    /// The ids of what it emitted.
    pub emitted: Vec<String>,
    /// What went wrong, if something did.
    pub error: Option<String>,
}

/// A running pipeline. Dropping it stops it at once, which is a crash in small: the broker gives again what was not settled.
pub struct Pipeline {
    control: mpsc::Sender<dispatch::Control>,
    task: JoinHandle<Left>,
}

/// What a drain left behind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Left {
    /// Deliveries handed back untouched.
    pub handed_back: usize,
    /// Events whose attempt or commit had not ended within the grace time; they run again.
    pub unfinished: usize,
    /// Deliveries that were committed but whose outputs had not been confirmed; they are duplicates when they come again.
    pub unconfirmed: usize,
}

impl Parts {
    /// Starts taking.
    #[must_use]
    pub fn start(self) -> Pipeline {
        let (control, orders) = mpsc::channel(16);
        let task = tokio::spawn(dispatch::Dispatcher::run(self, orders));
        Pipeline { control, task }
    }
}

/// Tells a running pipeline things. Cloning is cheap; tasks may share it; it does not keep the pipeline alive.
#[derive(Clone)]
pub struct Handle {
    control: mpsc::Sender<dispatch::Control>,
}

impl Handle {
    /// Looks at the parking again: dead letters were redriven or purged.
    pub async fn parking_changed(&self) {
        // A pipeline that has stopped looks at the parking when it starts.
        let _ = self.control.send(dispatch::Control::ParkingChanged).await;
    }
}

impl Pipeline {
    /// A handle on it.
    #[must_use]
    pub fn handle(&self) -> Handle {
        Handle {
            control: self.control.clone(),
        }
    }

    /// Whether it still runs. It ends by itself only if it panicked.
    #[must_use]
    pub fn is_running(&self) -> bool {
        !self.task.is_finished()
    }

    /// Stops taking, finishes what runs until `deadline`, hands the rest back, and says what was left.
    pub async fn drain(mut self, deadline: Instant) -> Left {
        let drained = async {
            let _ = self.control.send(dispatch::Control::Drain(deadline)).await;
            (&mut self.task).await.unwrap_or_default()
        };
        tokio::time::timeout_at(deadline + LATE, drained)
            .await
            .unwrap_or_default()
    }
}

impl Drop for Pipeline {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Calls the ledger until it answers. What waits for the answer is held; nothing is counted against it.
pub(crate) async fn until_answered<T, F>(metrics: &metrics::Consumer, what: &'static str, call: impl Fn() -> F) -> T
where
    F: Future<Output = Result<T, ledger::Error>>,
{
    let mut pause = Duration::from_millis(100);
    loop {
        match call().await {
            Ok(answer) => return answer,
            Err(error) => metrics.ledger_failed(what, &error),
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_secs(5));
    }
}
