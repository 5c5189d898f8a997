//! Rows of the store: dead letters first, as they are shown to people and programs, then every other kind, keys, and journals.
#![no_main]

use std::sync::LazyLock;

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use tidegate::admin::view;
use tidegate::cli::dlq;
use tidegate::ledger::{DeadLetter, PayloadHash, embedded};
use tidegate::plan::Plan;
use tidegate::store;
use tidegate_fuzz::{CONFIG, plan};

static PLAN: LazyLock<Plan> = LazyLock::new(|| plan(CONFIG));

fuzz_target!(|input: &[u8]| {
    let Some((kind, row)) = input.split_first() else { return };
    let row = Bytes::copy_from_slice(row);
    if *kind == 0
        && let Some(letter) = embedded::fuzzing::letter(&row)
    {
        is_shown(&letter);
    }
    let ours = *kind < embedded::fuzzing::KINDS;
    let read = |row: &Bytes| match ours {
        true => embedded::fuzzing::read(*kind, row),
        false => store::fuzzing::read(*kind - embedded::fuzzing::KINDS, row),
    };
    if let Some((said, again)) = read(&row) {
        // What is written again is read as the same; and so it was by itself, for there is one way to write it.
        assert_eq!(read(&again), Some((said, again.clone())));
    }
    embedded::fuzzing::key(&row);
    let parts = store::fuzzing::key(&row);
    assert!(parts.iter().map(|part| part.len() + 2).sum::<usize>() <= row.len());
    let (length, is_anywhere) = store::fuzzing::batch(&row);
    assert!(length.is_none_or(|length| length > 0 && length <= row.len() && is_anywhere));
});

fn is_shown(letter: &DeadLetter) {
    let whole = view::DeadLetter::of(letter, &PLAN);
    let json = serde_json::to_string(&whole).unwrap();
    let mut read: view::DeadLetter = serde_json::from_str(&json).unwrap();
    for (read, whole) in read.attempts.iter_mut().zip(&whole.attempts) {
        // The reader may miss the last of 16 digits: a microsecond in 200 years.
        assert!((read.duration_ms - whole.duration_ms).abs() <= whole.duration_ms * 1e-15);
        read.duration_ms = whole.duration_ms;
    }
    assert_eq!(read, whole);
    assert_eq!(read.line, view::DeadLetterLine::of(letter));
    for (shown, keeps) in [
        (dlq::fuzzing::shown(&whole), &['\n', '\t'][..]),
        (dlq::fuzzing::listed(read.line), &['\n']),
    ] {
        assert!(
            shown.chars().all(|c| !c.is_control() || keeps.contains(&c)),
            "{shown:?}"
        );
    }
    // An event's hash depends on all of it.
    let mut other = letter.message.clone();
    other.subject.push('x');
    assert_ne!(
        PayloadHash::of_message(&letter.message),
        PayloadHash::of_message(&other)
    );
}
