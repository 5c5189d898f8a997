//! What was found in the end, held against what must have come: by the ids, the data and the order of the outputs and the dead
//! letters alone.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::AddAssign;

use super::traffic::Truth;

/// An output, as a receiver sees it.
#[derive(Clone, Debug)]
pub(crate) struct Output {
    pub(crate) id: String,
    /// The event that it is the consequence of.
    pub(crate) root: String,
    pub(crate) data: String,
}

/// A dead letter.
#[derive(Clone, Debug)]
pub(crate) struct Dead {
    pub(crate) event: String,
    pub(crate) reason: String,
}

/// What is wrong, counted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) rounds: usize,
    pub(crate) events: usize,
    pub(crate) lost: usize,
    pub(crate) applied_twice: usize,
    pub(crate) out_of_order: usize,
    pub(crate) dead_and_applied: usize,
    pub(crate) unexpected: usize,
}

impl Tally {
    /// The heads of [`Self::cells`].
    pub(crate) const COLUMNS: &str = "rounds | events | lost | applied twice | out of order | otherwise wrong";

    /// A part of a row of a table.
    pub(crate) fn cells(&self) -> String {
        let otherwise = self.dead_and_applied + self.unexpected;
        let Self {
            rounds, events, lost, ..
        } = self;
        let (twice, out_of_order) = (self.applied_twice, self.out_of_order);
        format!("{rounds} | {events} | {lost} | {twice} | {out_of_order} | {otherwise}")
    }

    pub(crate) fn is_clean(&self) -> bool {
        self.lost + self.applied_twice + self.out_of_order + self.dead_and_applied + self.unexpected == 0
    }
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.rounds += other.rounds;
        self.events += other.events;
        self.lost += other.lost;
        self.applied_twice += other.applied_twice;
        self.out_of_order += other.out_of_order;
        self.dead_and_applied += other.dead_and_applied;
        self.unexpected += other.unexpected;
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            rounds,
            events,
            lost,
            applied_twice,
            out_of_order,
            dead_and_applied,
            unexpected,
        } = self;
        write!(
            f,
            "rounds {rounds}, events {events}, lost {lost}, applied twice {applied_twice}, out of order {out_of_order}, \
             dead and applied {dead_and_applied}, unexpected {unexpected}"
        )
    }
}

/// Holds what was found against what must have come. Who receives an output under a known id drops it, as all receivers do.
pub(crate) fn compare(truth: &Truth, outputs: &[Output], dead: &[Dead]) -> Tally {
    let mut tally = Tally {
        rounds: 1,
        events: truth.count() + truth.dead.len(),
        ..Tally::default()
    };
    let mut ids = BTreeSet::new();
    let first: Vec<&Output> = outputs.iter().filter(|output| ids.insert(&output.id)).collect();
    let mut applied: BTreeMap<&str, usize> = BTreeMap::new();
    for output in &first {
        *applied.entry(&output.root).or_default() += 1;
    }
    tally.applied_twice += applied.values().map(|times| times - 1).sum::<usize>();
    for (key, events) in &truth.effects {
        tally.lost += events
            .iter()
            .filter(|event| !applied.contains_key(event.as_str()))
            .count();
        let of_key: Vec<&&Output> = first.iter().filter(|output| events.contains(&output.root)).collect();
        tally.out_of_order += descents(events, &of_key);
        // The count in the state says the same once more: of what the ledger kept, not of what was published.
        let counted = of_key
            .iter()
            .map(|output| output.data.lines().last().unwrap_or_default());
        let expected = (1..=events.len()).map(|count| format!("Ok({count})"));
        let wrong = counted.zip(expected).filter(|(counted, expected)| counted != expected);
        let wrong = wrong.count();
        if wrong > 0 {
            eprintln!("key {key}: {wrong} counts are wrong");
        }
        tally.unexpected += wrong;
    }
    let is_known = |root: &str| truth.effects.values().flatten().any(|event| event == root);
    for root in applied.keys().filter(|root| !is_known(root)) {
        match truth.dead.contains_key(*root) {
            true => tally.dead_and_applied += 1,
            false => tally.unexpected += 1,
        }
    }
    tally += letters(truth, dead);
    tally
}

/// How often an event comes after one that was published after it.
fn descents(events: &[String], outputs: &[&&Output]) -> usize {
    let place = |output: &&&Output| events.iter().position(|event| *event == output.root);
    let places: Vec<_> = outputs.iter().map(place).collect();
    places.windows(2).filter(|pair| pair[0] > pair[1]).count()
}

fn letters(truth: &Truth, dead: &[Dead]) -> Tally {
    let mut tally = Tally::default();
    let mut found: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for letter in dead {
        found.entry(&letter.event).or_default().push(&letter.reason);
    }
    for (event, reason) in &truth.dead {
        match found.remove(event.as_str()).as_deref() {
            None => tally.lost += 1,
            Some([of]) if of == reason => {}
            Some([_]) => tally.unexpected += 1,
            Some(more) => tally.applied_twice += more.len() - 1,
        }
    }
    let is_effect = |event: &str| truth.effects.values().flatten().any(|effect| effect == event);
    for event in found.keys() {
        match is_effect(event) {
            true => tally.dead_and_applied += 1,
            false => tally.unexpected += 1,
        }
    }
    tally
}

mod tests {
    use super::super::traffic::Traffic;
    use super::*;

    /// A right run: the tests break it.
    fn right() -> (Truth, Vec<Output>, Vec<Dead>) {
        let truth = Traffic::mixed(60).truth(false);
        let outputs = truth.effects.values().flat_map(|events| {
            events.iter().enumerate().map(|(count, event)| Output {
                id: format!("of-{event}"),
                root: event.clone(),
                data: format!("Ok({})", count + 1),
            })
        });
        let dead = truth.dead.iter().map(|(event, reason)| Dead {
            event: event.clone(),
            reason: (*reason).to_owned(),
        });
        let (outputs, dead) = (outputs.collect(), dead.collect());
        (truth, outputs, dead)
    }

    fn check(spoil: impl FnOnce(&mut Vec<Output>, &mut Vec<Dead>), expected: fn(&Tally) -> usize) {
        let (truth, mut outputs, mut dead) = right();
        assert!(compare(&truth, &outputs, &dead).is_clean());
        spoil(&mut outputs, &mut dead);
        let tally = compare(&truth, &outputs, &dead);
        assert_eq!(expected(&tally), 1, "{tally}");
    }

    #[test]
    fn the_checker_finds_what_is_lost() {
        check(|outputs, _| _ = outputs.pop(), |tally| tally.lost);
        check(|_, dead| _ = dead.pop(), |tally| tally.lost);
    }

    #[test]
    fn the_checker_finds_what_was_applied_twice() {
        check(
            |outputs, _| {
                let mut again = outputs[3].clone();
                again.id.push('x');
                outputs.push(again);
            },
            |tally| tally.applied_twice,
        );
        check(|_, dead| dead.push(dead[0].clone()), |tally| tally.applied_twice);
    }

    #[test]
    fn the_checker_takes_one_id_for_one_output() {
        let (truth, mut outputs, dead) = right();
        outputs.push(outputs[3].clone());
        assert!(compare(&truth, &outputs, &dead).is_clean());
    }

    #[test]
    fn the_checker_finds_what_is_out_of_order_or_counted_wrong() {
        check(|outputs, _| outputs.swap(2, 3), |tally| tally.out_of_order);
        check(
            |outputs, _| outputs[0].data = "Ok(2)".to_owned(),
            |tally| tally.unexpected,
        );
    }

    #[test]
    fn the_checker_finds_what_is_dead_and_applied() {
        check(
            |outputs, dead| {
                let (id, root) = ("y".to_owned(), dead[0].event.clone());
                let data = String::new();
                outputs.push(Output { id, root, data });
            },
            |tally| tally.dead_and_applied,
        );
        check(
            |outputs, dead| {
                let (event, reason) = (outputs[0].root.clone(), "permanent".to_owned());
                dead.push(Dead { event, reason });
            },
            |tally| tally.dead_and_applied,
        );
    }
}
