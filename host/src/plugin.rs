//! What the pipeline needs of a plugin: run one attempt, say what came of it. Only files below this one know wasmtime.

mod bindings;
mod component;
mod engine;
mod failure;
mod grants;
mod instance;
mod keyvalue;
mod load;
mod logging;
mod outbox;
mod pool;
mod state;

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::time::Instant;

pub use self::engine::{Engine, EngineError, Settings};
pub use self::grants::{Grant, Import, InspectError, Inspection, Need, Refusal, inspect};
pub use self::load::{LoadError, load};
pub use self::pool::Plugin;
use crate::event::key::LaneKey;
use crate::event::{Event, Headers, Message};
use crate::ledger::{Effects, RecordKey, StateReader};
use crate::outcome::Outcome;
use crate::plan;

/// Encodes an emitted event for the stream it goes to, or says why it can't be written there.
pub type Encode = fn(&Event, &plan::Stream) -> Result<Message, String>;

/// Runs attempts of one consumer's plugin. One per consumer; tasks share it.
pub trait Handler: Send + Sync {
    /// Runs one attempt to its end. Never panics, and never outlives `call.deadline` and the time it waited for an instance by more
    /// than 50 ms: whatever the guest does ends as an [`Outcome`] of this one event.
    ///
    /// # Cancellation
    /// Safe: the instance is dropped, its effects vanish.
    fn attempt<'a>(&'a self, call: Call<'a>) -> BoxFuture<'a, Attempted>;

    /// The plugin's digest: `sha256:` and 64 hex digits.
    fn revision(&self) -> Arc<str>;
}

/// One call of the plugin.
pub struct Call<'a> {
    /// The event.
    pub event: &'a Event,
    /// The headers it came with, of which those in [`TRACE_HEADERS`](crate::event::TRACE_HEADERS) go on with what it causes.
    pub headers: &'a Headers,
    /// Counted from 1, over restarts.
    pub attempt: u32,
    /// When the attempt must have ended, if it has an instance at once. One is waited for until then, and what was waited is added:
    /// the guest has its whole time.
    pub deadline: Instant,
    /// The event's ordering key.
    pub lane: &'a LaneKey,
    /// What the ledger knows the event by, the same for every attempt of it by this consumer: the ids of outputs come from it, and calls
    /// to others can be deduped by it.
    pub record: RecordKey,
    /// Committed state of this consumer; what the attempt reads through it is validated at commit.
    pub state: &'a dyn StateReader,
}

/// What came of a call.
#[derive(Debug)]
pub struct Attempted {
    /// How it ended.
    pub outcome: Outcome,
    /// What it would do; empty unless the outcome is [`Outcome::Succeeded`].
    pub effects: Effects,
    /// How long the guest ran.
    pub duration: Duration,
    /// The most linear memory the guest held, in bytes.
    pub memory: u64,
}
