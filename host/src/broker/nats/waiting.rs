//! Batches whose confirmations are awaited, and what is confirmed after its batch gave up.
//!
//! A slow broker confirms in the end what was published long ago, and whoever publishes that again needs no second answer. Otherwise
//! nothing would ever be done on a connection whose answers always come later than the publisher waits.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use super::api::Refusal;
use crate::broker::Error;

/// Messages that gave up and are remembered: four times as many as may be unconfirmed at once, at about 100 bytes.
const GIVEN_UP_MAX: usize = 16_384;
/// How long a late confirmation counts: longer than anyone pauses before the same message is published again. Not for ever, since
/// somebody may put it on its stream anew, after that was emptied.
const KNOWN_TIME: Duration = Duration::from_secs(30);

/// What became of one message.
#[derive(Clone, Debug)]
pub(super) enum Answer {
    Confirmed,
    Refused(Refusal),
    /// No stream takes the subject, or its stream has no leader.
    NobodyThere,
    /// It never left.
    NotSent(Error),
}

/// All batches of a connection.
#[derive(Default)]
pub(super) struct Waiting(Mutex<Table>);

#[derive(Default)]
struct Table {
    next: u64,
    under_way: HashMap<u64, Arc<Batch>>,
    late: Late,
}

impl Waiting {
    /// Enters a batch of messages with these ids.
    pub(super) fn enter(&self, ids: Vec<Arc<str>>, now: Instant) -> Entered<'_> {
        let mut table = lock(&self.0);
        let known = table.late.take(&ids, now);
        let number = table.next;
        table.next += 1;
        let batch = Arc::new(Batch::new(ids));
        for index in &known {
            batch.answer(*index, Answer::Confirmed);
        }
        table.under_way.insert(number, Arc::clone(&batch));
        Entered {
            waiting: self,
            number,
            batch,
            known,
        }
    }

    /// Gives an answer to its batch, or, if that gave up, to whoever publishes the message again.
    pub(super) fn answer(&self, (number, index): (u64, usize), answer: Answer, now: impl FnOnce() -> Instant) {
        let mut table = lock(&self.0);
        if let Some(batch) = table.under_way.get(&number) {
            batch.answer(index, answer);
        } else if matches!(answer, Answer::Confirmed)
            && let Some(id) = table.late.id(number, index)
            && !table.under_way.values().any(|batch| batch.confirm(&id))
        {
            table.late.confirmed.insert(id, now());
        }
    }
}

/// A batch in the table; leaves it when dropped, also when its caller gave up.
pub(super) struct Entered<'a> {
    waiting: &'a Waiting,
    /// What its messages' reply subjects name it by.
    pub(super) number: u64,
    pub(super) batch: Arc<Batch>,
    known: BTreeSet<usize>,
}

impl Entered<'_> {
    /// Whether a message was confirmed before it was sent: an earlier batch had it.
    pub(super) fn is_known(&self, index: usize) -> bool {
        self.known.contains(&index)
    }

    /// Ends the wait. What has no answer may get it late.
    pub(super) fn leave(self) -> Vec<Option<Answer>> {
        let answers = self.batch.take();
        if answers.iter().any(Option::is_none) {
            let unanswered = answers.iter().zip(&self.batch.ids);
            let unanswered = unanswered.map(|(answer, id)| answer.is_none().then(|| Arc::clone(id)));
            lock(&self.waiting.0).late.give_up(self.number, unanswered.collect());
        }
        answers
    }
}

impl Drop for Entered<'_> {
    fn drop(&mut self) {
        lock(&self.waiting.0).under_way.remove(&self.number);
    }
}

/// A batch under way.
pub(super) struct Batch {
    ids: Vec<Arc<str>>,
    answers: Mutex<Answers>,
    all: Notify,
}

struct Answers {
    slots: Vec<Option<Answer>>,
    missing: usize,
}

impl Batch {
    fn new(ids: Vec<Arc<str>>) -> Self {
        Self {
            answers: Mutex::new(Answers {
                slots: vec![None; ids.len()],
                missing: ids.len(),
            }),
            ids,
            all: Notify::new(),
        }
    }

    /// Answers one message, if it has no answer yet.
    pub(super) fn answer(&self, index: usize, answer: Answer) {
        let mut answers = lock(&self.answers);
        let Some(slot @ None) = answers.slots.get_mut(index) else {
            return;
        };
        *slot = Some(answer);
        answers.missing -= 1;
        if answers.missing == 0 {
            self.all.notify_one();
        }
    }

    /// Confirms the message with this id; whether it is here.
    fn confirm(&self, id: &Arc<str>) -> bool {
        let index = self.ids.iter().position(|known| known == id);
        if let Some(index) = index {
            self.answer(index, Answer::Confirmed);
        }
        index.is_some()
    }

    /// Waits until every message has an answer.
    pub(super) async fn all_answered(&self) {
        while lock(&self.answers).missing > 0 {
            self.all.notified().await;
        }
    }

    fn take(&self) -> Vec<Option<Answer>> {
        std::mem::take(&mut lock(&self.answers).slots)
    }
}

/// What gave up, and what of it was confirmed since. Forgets the oldest first: what it has forgotten is only published once more.
#[derive(Default)]
struct Late {
    /// By batch, its unanswered messages in their places.
    given_up: VecDeque<(u64, Vec<Option<Arc<str>>>)>,
    count: usize,
    confirmed: HashMap<Arc<str>, Instant>,
}

impl Late {
    fn give_up(&mut self, number: u64, ids: Vec<Option<Arc<str>>>) {
        self.count += ids.len();
        self.given_up.push_back((number, ids));
        while self.count > GIVEN_UP_MAX
            && let Some((_, ids)) = self.given_up.pop_front()
        {
            self.count -= ids.len();
            for id in ids.iter().flatten() {
                self.confirmed.remove(id);
            }
        }
    }

    fn id(&self, number: u64, index: usize) -> Option<Arc<str>> {
        let (_, ids) = self.given_up.iter().rev().find(|(known, _)| *known == number)?;
        ids.get(index)?.clone()
    }

    /// Which of these were confirmed; they are told once.
    fn take(&mut self, ids: &[Arc<str>], now: Instant) -> BTreeSet<usize> {
        if self.confirmed.is_empty() {
            return BTreeSet::new();
        }
        let is_known = |(index, id): (usize, &Arc<str>)| {
            let confirmed = self.confirmed.remove(id)?;
            (confirmed + KNOWN_TIME > now).then_some(index)
        };
        ids.iter().enumerate().filter_map(is_known).collect()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // No holder of these locks can panic half way.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(names: &[&str]) -> Vec<Arc<str>> {
        names.iter().map(|name| Arc::from(*name)).collect()
    }

    fn confirmed(answers: &[Option<Answer>]) -> Vec<bool> {
        let is_confirmed = |answer: &Option<Answer>| matches!(answer, Some(Answer::Confirmed));
        answers.iter().map(is_confirmed).collect()
    }

    #[expect(clippy::disallowed_methods, reason = "any instant will do")]
    fn now() -> Instant {
        Instant::now()
    }

    /// What had come too late counted for nothing, and the same message was published for ever.
    #[test]
    fn a_late_confirmation_counts_for_the_next_time() {
        let (waiting, now) = (Waiting::default(), now());
        let first = waiting.enter(ids(&["a", "b", "c"]), now);
        let number = first.number;
        waiting.answer((number, 0), Answer::Confirmed, || now);
        assert_eq!(confirmed(&first.leave()), [true, false, false]);
        waiting.answer((number, 2), Answer::Confirmed, || now);
        let second = waiting.enter(ids(&["b", "c"]), now);
        assert_eq!((second.is_known(0), second.is_known(1)), (false, true));
        assert_eq!(confirmed(&second.leave()), [false, true]);
        assert!(!waiting.enter(ids(&["c"]), now).is_known(0), "it is told once");
    }

    #[test]
    fn a_late_confirmation_counts_for_what_is_under_way() {
        let (waiting, now) = (Waiting::default(), now());
        let first = waiting.enter(ids(&["a"]), now);
        let number = first.number;
        first.leave();
        let second = waiting.enter(ids(&["b", "a"]), now);
        assert!(!second.is_known(1));
        waiting.answer((number, 0), Answer::Confirmed, || now);
        assert_eq!(confirmed(&second.leave()), [false, true]);
        assert!(!waiting.enter(ids(&["a"]), now).is_known(0));
    }

    #[test]
    fn only_a_confirmation_counts_when_it_is_late() {
        let (waiting, now) = (Waiting::default(), now());
        let first = waiting.enter(ids(&["a", "b"]), now);
        let number = first.number;
        waiting.answer((number, 0), Answer::NobodyThere, || now);
        first.leave();
        waiting.answer((number, 0), Answer::Confirmed, || now);
        waiting.answer((number, 1), Answer::NobodyThere, || now);
        waiting.answer((number + 1, 0), Answer::Confirmed, || now);
        let second = waiting.enter(ids(&["a", "b"]), now);
        assert_eq!((second.is_known(0), second.is_known(1)), (false, false));
    }

    #[test]
    fn a_late_confirmation_is_forgotten_in_the_end() {
        let (waiting, now) = (Waiting::default(), now());
        let first = waiting.enter(ids(&["a"]), now);
        let number = first.number;
        first.leave();
        waiting.answer((number, 0), Answer::Confirmed, || now);
        assert!(!waiting.enter(ids(&["a"]), now + KNOWN_TIME).is_known(0));

        let mut late = Late::default();
        for number in 0..=GIVEN_UP_MAX as u64 {
            let id: Arc<str> = format!("m{number}").into();
            late.give_up(number, vec![Some(Arc::clone(&id))]);
            late.confirmed.insert(id, now);
        }
        assert_eq!((late.count, late.confirmed.len()), (GIVEN_UP_MAX, GIVEN_UP_MAX));
        assert_eq!((late.id(0, 0), late.id(1, 0).is_some()), (None, true));
    }
}
