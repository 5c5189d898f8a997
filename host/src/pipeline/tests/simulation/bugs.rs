//! Bugs to put in, so that the checkers show that they can see. Most are put into what the pipeline works with, where they look to the world
//! as if the pipeline had them; those that can only be its own have a hook in it that exists in tests alone.

use std::cell::Cell;
use std::collections::VecDeque;

/// A bug.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::pipeline) enum Bug {
    /// A delivery is settled when it arrives.
    AckBeforeCommit,
    /// A record is durable before the effects that it stands for.
    RecordBeforeEffects,
    /// The next event of a key runs while one waits for its retry.
    RetryIsOvertaken,
    /// After a crash newer events come before those that are pending.
    NewerBeforePending,
    /// The next output of a key is published while one before it is not confirmed.
    PublishIsOvertaken,
    /// How many attempts failed is forgotten with the host.
    AttemptsInMemory,
    /// What has taken effect before is not refused.
    AppliedTwice,
    /// Nobody is asked whether an event is done.
    NeverLookedUp,
    /// What is durable is reported failed.
    FailedButDurable,
    /// An output is confirmed that its broker has not.
    ConfirmedUnseen,
    /// An output has another id each time.
    FreshIds,
    /// More is taken than there is room for.
    OverBudget,
    /// What is parked comes back in another order.
    ParkedShuffled,
    /// An attempt that could not be run is counted.
    HoldsAreCounted,
    /// State is written without a look at what was read.
    LostUpdates,
    /// What is published stays in the outbox for ever.
    NeverForgotten,
}

thread_local! {
    static PRESENT: Cell<Option<Bug>> = const { Cell::new(None) };
}

/// Puts a bug into the pipelines of this thread, or takes it out.
pub(super) fn put_in(bug: Option<Bug>) {
    PRESENT.set(bug);
}

/// The hook where a lane takes back an event that is to be tried again.
pub(in crate::pipeline) fn taken_back<T>(queue: &mut VecDeque<T>) {
    if PRESENT.get() == Some(Bug::RetryIsOvertaken) {
        queue.rotate_left(1);
    }
}
