//! What the world saw of a run, in order. The promises are held against this and nothing else.

use std::fmt;
use std::sync::{Arc, Mutex};

use crate::ledger::RecordKey;
use crate::outcome::Reason;
use crate::plan::Name;

/// The number of an event: what has the same source, id and data is the same event.
pub(super) type Number = u32;

/// One line of a trace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Line {
    /// Milliseconds since the world began.
    pub at: u64,
    /// Which host lived, counted from 1.
    pub life: u32,
    pub fact: Fact,
}

/// What is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// An event that is to be handled.
    Plain,
    /// One with the id of an earlier one and other data.
    OtherData,
    /// No event at all.
    Undecodable,
    /// An event of a type that is not wanted.
    Unwanted,
}

/// How an attempt ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum How {
    Succeeded,
    /// In a way that counts against the event, unless the plugin as a whole fails.
    Failed,
    /// A trap: it counts always.
    Trapped,
    /// For good.
    Refused,
    NotRun,
}

/// An output as it was committed, or published.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Put {
    pub stream: Name,
    pub key: String,
    pub id: Arc<str>,
    pub content: String,
}

/// A durable change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// It took effect; so many counters were counted up.
    Applied { puts: Vec<Put>, counted: Option<String> },
    /// It is a dead letter.
    Dead {
        reason: Reason,
        failed: u32,
        puts: Vec<Put>,
        holds: bool,
    },
    /// An attempt failed; so many did in all; the next is not before then.
    Failed { failed: u32, next_at: u64 },
    /// An attempt is about to begin.
    Begun,
    /// It waits in the ledger, where so many do now.
    Parked { now: usize },
}

/// How a host stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stop {
    Crash,
    Drain,
}

/// One thing that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Fact {
    /// The producer put a message on the stream.
    Sent {
        position: u64,
        event: Number,
        key: u32,
        kind: Kind,
    },
    /// A host started.
    Started,
    /// It stopped.
    Stopped(Stop),
    /// The source gave a delivery.
    Given { position: u64 },
    /// The host settled it: done, or handed back.
    Settled { position: u64, is_done: bool },
    /// The host was told that the ledger knows these: from now on it may not say that it did not know.
    Called { call: u32, event: Number, attempt: u32 },
    /// An attempt ended.
    Ended { call: u32, how: How },
    /// An attempt was cut off by its host.
    Cut { call: u32 },
    /// The ledger made something durable. `was_parked`: from a place in the parking.
    Wrote {
        event: Option<Number>,
        was_parked: bool,
        change: Change,
    },
    /// The ledger refused something.
    Unwritten { event: Option<Number>, why: String },
    /// The host gave a message to the publisher.
    Publishing(Put),
    /// The receiver has it; `is_new`: for the first time.
    Published { put: Put, is_new: bool },
    /// The publisher told the host that the receiver has it, or never will.
    Answered { id: Arc<str>, is_refused: bool },
    /// People put a dead letter back.
    Redriven { event: Number },
    /// People forgot one for good; without a number, that of a refused output.
    Purged { event: Option<Number> },
    /// The host was told to look at the parking again.
    Looked,
    /// Something goes wrong now.
    Trouble(String),
}

/// The lines of a run.
#[derive(Default)]
pub(super) struct Trace(Mutex<Vec<Line>>);

impl Trace {
    pub(super) fn note(&self, at: u64, life: u32, fact: Fact) {
        self.0.lock().unwrap().push(Line { at, life, fact });
    }

    pub(super) fn lines(&self) -> Vec<Line> {
        self.0.lock().unwrap().clone()
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:>8} ms  host {}  {:?}", self.at, self.life, self.fact)
    }
}

/// What is known at the end, beside the trace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct End {
    /// Why the run did not come to rest, if it did not.
    pub stuck: Option<String>,
    /// The dead letters that there are.
    pub letters: Vec<(Number, Reason)>,
    /// Counters in the state.
    pub counters: Vec<(String, u64)>,
    /// Records of dead letters that the world does not know.
    pub strange: Vec<RecordKey>,
}
