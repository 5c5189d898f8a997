//! What the host needs of a broker: take deliveries, settle them, publish. No type of any broker's client passes here.
//!
//! Each broker is one file below this one, and each passes `broker/suite.rs`. What a broker can't promise it declares
//! in its [`Promises`], which the suite and the pipeline read; nothing is skipped silently.

pub mod embedded;
pub mod http;
pub mod nats;
#[doc(hidden)]
pub mod suite;

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::event::Message;
use crate::plan;

/// A connection to one broker. One per `[broker.NAME]`; it reconnects by itself until it is dropped.
pub trait Broker: Send + Sync {
    /// Starts taking from a stream.
    ///
    /// Goes back to the lowest position that is not settled and gives everything from there in order, whatever was
    /// pending when the last host stopped (see [`Promises::goes_back`]).
    ///
    /// # Errors
    /// [`Error::Unreachable`] if trying again may help; anything else needs a person.
    fn subscribe(&self, subscription: Subscription) -> BoxFuture<'_, Result<Subscribed, Error>>;

    /// A publisher onto a stream of this broker.
    ///
    /// # Errors
    /// As for [`Broker::subscribe`].
    fn publisher(&self, stream: Arc<plan::Stream>) -> BoxFuture<'_, Result<Arc<dyn Publisher>, Error>>;

    /// Whether the broker answers now; the error says what is wrong.
    ///
    /// # Errors
    /// As for [`Broker::subscribe`].
    fn check(&self) -> BoxFuture<'_, Result<(), Error>>;
}

/// Who reads what, and how much at most.
#[derive(Clone, Debug)]
pub struct Subscription {
    /// The consumer's name; on the broker its durable cursor is known by it.
    pub consumer: plan::Name,
    /// What is read.
    pub stream: Arc<plan::Stream>,
    /// The most that the consumer holds unsettled at any time.
    pub room: Room,
}

/// An open subscription: one half takes, the other settles.
pub struct Subscribed {
    /// Gives deliveries. Belongs to one task.
    pub source: Box<dyn Source>,
    /// Settles them. Tasks may share it.
    pub settle: Arc<dyn Settle>,
    /// What this broker promises of order.
    pub promises: Promises,
}

/// What a broker promises beyond at-least-once delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Promises {
    /// After a crash it gives again everything from the lowest unsettled position, in order. Without it, order by key
    /// holds only while a host lives.
    pub goes_back: bool,
}

/// How soon and how often a source says that there is nothing more, at least.
pub const QUIET: Duration = Duration::from_secs(5);

/// The half of a subscription that takes.
pub trait Source: Send {
    /// Waits for at least one delivery and returns what there is, at most `room`, in the broker's order, each position
    /// once (a redelivery of what is still unsettled here is absorbed; one of what was settled is settled again).
    ///
    /// Returns nothing to say that the broker answers and that everything there was has been given, within [`QUIET`] after that became
    /// so, and then again as often. It says so only if it knows: a broker that is silent is not quiet.
    ///
    /// From here until it is settled, a delivery's acknowledgement deadline is kept alive by the source.
    ///
    /// # Errors
    /// [`Error::Unreachable`] while the broker is away: call again after a pause, nothing is lost. Other errors need a person
    /// (the stream is gone, access was revoked); calling again is harmless and succeeds once they are mended.
    ///
    /// # Cancellation
    /// Safe: what was taken from the broker and not returned is returned by the next call.
    fn next(&mut self, room: Room) -> BoxFuture<'_, Result<Vec<Delivery>, Error>>;
}

/// The half of a subscription that settles.
pub trait Settle: Send + Sync {
    /// Tells the broker what became of deliveries. A settlement that does not reach the broker is not an error that the caller
    /// can mend: the broker gives the delivery again, and the ledger knows it.
    ///
    /// # Errors
    /// [`Error::Unreachable`] for the log and the readiness only.
    fn settle(&self, settled: Vec<(Receipt, Settlement)>) -> BoxFuture<'_, Result<(), Error>>;
}

/// What becomes of a delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settlement {
    /// The ledger holds it: the broker may forget it.
    Done,
    /// It was not touched: the broker gives it to someone else, soon.
    HandBack,
}

/// One arrival of an event.
#[derive(Debug)]
pub struct Delivery {
    /// What arrived.
    pub message: Message,
    /// Where it stands in the broker's order.
    pub position: Position,
    /// When it was taken.
    pub taken: Instant,
    /// To settle it with, once.
    pub receipt: Receipt,
}

/// The right to settle one delivery. It can't be cloned, so a delivery is settled once; dropping it settles nothing, and the
/// broker gives the delivery again to the next host.
#[derive(Debug)]
pub struct Receipt(pub(crate) u64);

/// A place in a stream's order. Positions of one stream compare; whether they are dense is the broker's affair.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Position(pub u64);

/// How much may be taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// Deliveries.
    pub count: usize,
    /// Bytes, by [`Message::size`]. One delivery larger than this is given alone.
    pub bytes: usize,
}

/// Publishes onto one stream.
pub trait Publisher: Send + Sync {
    /// Publishes a batch and waits until the broker has each message durably, or the publisher's own time limit has passed.
    /// Answers in the order of the batch.
    ///
    /// A message whose id the broker has seen within its window counts as confirmed.
    fn publish(&self, batch: Vec<Outgoing>) -> BoxFuture<'_, Vec<Result<(), Error>>>;

    /// Whether messages of one batch or of batches in flight together keep their order even when some of them fail. Where
    /// not, the relay has one unconfirmed message of a key in flight at a time.
    fn keeps_order(&self) -> bool {
        false
    }

    /// The largest message that the broker takes, in bytes.
    fn size_max(&self) -> usize;
}

/// A message to publish.
#[derive(Clone, Debug)]
pub struct Outgoing {
    /// Always the same for the same output: brokers with a window drop the second (`Nats-Msg-Id`).
    pub id: Arc<str>,
    /// The ordering key, for brokers that have the notion.
    pub key: Arc<[u8]>,
    /// What is published.
    pub message: Message,
}

/// A broker said no, or nothing.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// It is away, slow or overloaded: trying again can help, nobody is at fault.
    #[error("broker {broker} is out of reach: {reason}")]
    Unreachable {
        /// The broker's name in the config.
        broker: plan::Name,
        /// What the client said.
        reason: String,
        /// When the broker asked to be tried again, if it did.
        retry_after: Option<Duration>,
    },
    /// It refuses this message for good (too large, rejected by the receiver). The message is at fault.
    #[error("broker {broker} refuses the message: {reason}")]
    Refused {
        /// The broker's name in the config.
        broker: plan::Name,
        /// What it said.
        reason: String,
    },
    /// Something on the broker is not as the config says (no such stream, no permission, server too old): a person must act.
    #[error("broker {broker}: {reason}")]
    Misconfigured {
        /// The broker's name in the config.
        broker: plan::Name,
        /// What is wrong and what to do.
        reason: String,
    },
}

impl Error {
    /// Every code, in the order of `docs/errors.md`.
    pub const CODES: [&str; 3] = ["broker-unreachable", "broker-refused", "broker-misconfigured"];

    /// The heading in `docs/errors.md`.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Unreachable { .. } => "broker-unreachable",
            Self::Refused { .. } => "broker-refused",
            Self::Misconfigured { .. } => "broker-misconfigured",
        }
    }
}
