//! What people read about dead letters. Everything in them came from outside.

use std::path::Path;

use super::letters::Act;
use crate::admin::view::{Attempt, DeadLetter, DeadLetterLine, Selection};
use crate::app::dead_letters::{Done, DoneLetter};
use crate::cli::config_option;
use crate::cli::printed::{cell, indented, line, lines, table};

/// Ids that were selected and are not there, named at most so many.
const ABSENT_MAX: usize = 10;

/// A table of them.
pub(super) fn list(letters: &[DeadLetterLine], more: bool) -> String {
    if letters.is_empty() {
        return "no dead letters".to_owned();
    }
    let row = |letter: &DeadLetterLine| {
        let state = if letter.redriving { " (redriven)" } else { "" };
        [
            letter.id.clone(),
            letter.last_at.clone(),
            cell(&letter.consumer),
            format!("{}{state}", line(&letter.reason)),
            letter.failed.to_string(),
            letter.applied_meanwhile.to_string(),
            cell(&letter.key),
            cell(letter.event_id.as_deref().unwrap_or("-")),
        ]
    };
    let rows: Vec<_> = letters.iter().map(row).collect();
    let mut text = table(
        [
            "ID",
            "DEAD SINCE",
            "CONSUMER",
            "REASON",
            "FAILED",
            "LATER",
            "KEY",
            "EVENT",
        ],
        &rows,
    );
    if more {
        text.push_str("\nthere are more: see them with --limit, or fewer with --consumer and --reason");
    }
    text
}

/// Everything that is known of one, and what to do next.
pub(super) fn letter(letter: &DeadLetter, config: &Path) -> String {
    let mut blocks = vec![summary(letter), event(letter), headers(letter)];
    blocks.extend([attempts(letter), payload(letter), next(&letter.line, config)]);
    blocks.retain(|block| !block.is_empty());
    blocks.join("\n\n")
}

fn summary(letter: &DeadLetter) -> String {
    let DeadLetter { line: of, .. } = letter;
    let mut facts = vec![
        format!("dead letter  {}", of.id),
        format!("reason       {}: {}", line(&of.reason), line(&of.detail)),
        format!("             see docs/errors.md#{}", line(&of.reason)),
        format!(
            "consumer     {} (plugin {})",
            line(&of.consumer),
            plugin(&letter.revision)
        ),
        format!(
            "stream       {}, position {}{}",
            line(&of.stream),
            letter.position,
            place(letter)
        ),
        format!("key          {}", line(&of.key)),
        format!("first tried  {}", of.first_at),
        format!("dead since   {}", of.last_at),
        format!(
            "later events {} of the same key took effect since",
            of.applied_meanwhile
        ),
    ];
    if of.redriving {
        facts.push("state        redriven: it waits in its lane to run again".to_owned());
    }
    facts.join("\n")
}

fn plugin(revision: &str) -> String {
    if revision.is_empty() {
        "not involved".to_owned()
    } else {
        line(revision)
    }
}

fn place(letter: &DeadLetter) -> String {
    if letter.subject.is_empty() {
        String::new()
    } else {
        format!(", subject {}", line(&letter.subject))
    }
}

/// The attributes that every event has stand first.
fn event(letter: &DeadLetter) -> String {
    if letter.attributes.is_empty() {
        return "event\n  its message could not be read as an event".to_owned();
    }
    let first = ["id", "source", "type", "subject", "time"];
    let rest = letter
        .attributes
        .keys()
        .map(String::as_str)
        .filter(|name| !first.contains(name));
    let names: Vec<&str> = first
        .into_iter()
        .chain(rest)
        .filter(|name| letter.attributes.contains_key(*name))
        .collect();
    let width = names.iter().map(|name| name.len()).max().unwrap_or_default();
    let show = |name: &&str| {
        let value = letter
            .attributes
            .get(*name)
            .map(|value| line(value))
            .unwrap_or_default();
        format!("  {:width$}  {value}", line(name))
    };
    format!("event\n{}", names.iter().map(show).collect::<Vec<_>>().join("\n"))
}

/// Those that are no attributes of the event; all, if it could not be read.
fn headers(letter: &DeadLetter) -> String {
    let is_attribute = |name: &str| name.get(..3).is_some_and(|start| start.eq_ignore_ascii_case("ce-"));
    let shown = letter
        .headers
        .iter()
        .filter(|header| letter.attributes.is_empty() || !is_attribute(&header.name));
    let shown: Vec<_> = shown
        .map(|header| {
            let binary = || format!("(base64) {}", header.value.base64);
            let value = header.value.text.as_ref().map_or_else(binary, |text| line(text));
            format!("  {}: {value}", line(&header.name))
        })
        .collect();
    if shown.is_empty() {
        String::new()
    } else {
        format!("headers\n{}", shown.join("\n"))
    }
}

fn attempts(letter: &DeadLetter) -> String {
    if letter.attempts.is_empty() {
        return "attempts\n  none: its plugin was not called".to_owned();
    }
    let kept = match letter.line.failed as usize {
        failed if failed > letter.attempts.len() => format!(", {} of them kept", letter.attempts.len()),
        _ => String::new(),
    };
    let mut shown = vec![format!("attempts ({} failed{kept})", letter.line.failed)];
    let mut previous = None;
    for attempt in &letter.attempts {
        shown.push(ran(attempt));
        shown.extend(failure(attempt, previous, &letter.revision));
        previous = Some(attempt);
    }
    shown.join("\n")
}

fn ran(attempt: &Attempt) -> String {
    let held = attempt.memory_bytes as f64 / 1_048_576.0;
    let Attempt {
        number,
        at,
        duration_ms,
        ..
    } = attempt;
    format!("  {number}  {at}, ran {duration_ms} ms, held {held:.1} MiB")
}

/// Twenty times the same backtrace would hide that it is the same.
fn failure(attempt: &Attempt, previous: Option<&Attempt>, revision: &str) -> Vec<String> {
    let what = |attempt: &Attempt| {
        (
            attempt.class.clone(),
            attempt.message.clone(),
            attempt.backtrace.clone(),
        )
    };
    let mut shown = Vec::new();
    if attempt.revision != revision {
        shown.push(format!(
            "     by another build of the plugin: {}",
            line(&attempt.revision)
        ));
    }
    if previous.is_some_and(|previous| what(previous) == what(attempt)) {
        shown.push("     as before".to_owned());
        return shown;
    }
    shown.push(format!("     {}: {}", line(&attempt.class), line(&attempt.message)));
    shown.extend(
        attempt
            .backtrace
            .iter()
            .map(|function| format!("       at {}", line(function))),
    );
    shown
}

fn payload(letter: &DeadLetter) -> String {
    let (kind, shown) = match &letter.payload.text {
        Some(text) if text.is_empty() => return "payload\n  empty".to_owned(),
        Some(text) => match indented(text) {
            Some(json) => ("JSON", lines(&json)),
            None => ("text", lines(text)),
        },
        None => ("base64", letter.payload.base64.clone()),
    };
    let shown: Vec<_> = shown.lines().map(|line| format!("  {line}")).collect();
    format!("payload ({kind})\n{}", shown.join("\n"))
}

fn next(letter: &DeadLetterLine, config: &Path) -> String {
    let config = config_option(config);
    let id = &letter.id;
    format!(
        "what next\n  find the cause: docs/errors.md#{reason} says how\n  run it again:   tidegate dlq redrive {id}{config}\n  give it up:     tidegate dlq purge {id}{config}",
        reason = line(&letter.reason),
    )
}

/// What was done.
pub(super) fn done(act: Act, done: &Done, selection: &Selection, is_running: bool) -> String {
    if done.count == 0 {
        let verb = match act {
            Act::Redrive => "redriven",
            Act::Purge => "purged",
        };
        return format!("nothing matched: no dead letter is {verb}");
    }
    let rows: Vec<_> = done.letters.iter().map(done_row).collect();
    let mut shown = vec![table(["ID", "CONSUMER", "KEY", "LATER"], &rows)];
    if done.count > done.letters.len() {
        shown.push(format!("and {} more", done.count - done.letters.len()));
    }
    shown.push(outcome(act, done, is_running));
    shown.extend(overtaken(act, done));
    shown.extend(absent(done, selection));
    shown.join("\n")
}

fn done_row(letter: &DoneLetter) -> [String; 4] {
    [
        letter.id.clone(),
        cell(&letter.consumer),
        cell(&letter.key),
        letter.applied_meanwhile.to_string(),
    ]
}

fn outcome(act: Act, done: &Done, is_running: bool) -> String {
    let count = match done.count {
        1 => "1 dead letter".to_owned(),
        count => format!("{count} dead letters"),
    };
    match (act, done.dry_run) {
        (Act::Redrive, true) => format!("would redrive {count}"),
        (Act::Purge, true) => format!("would purge {count}"),
        (Act::Redrive, false) if is_running => format!("redrove {count}: tidegate tail shows what becomes of them"),
        (Act::Redrive, false) => format!("redrove {count}: no host runs, they run when one starts"),
        (Act::Purge, false) => format!("purged {count}"),
    }
}

/// Whoever redrives gives up the order of the key: say so where later events are ahead.
fn overtaken(act: Act, done: &Done) -> Option<String> {
    let is_ahead = |letter: &&DoneLetter| letter.applied_meanwhile > 0;
    let count = done.letters.iter().filter(is_ahead).count();
    let is_said = act == Act::Redrive && count > 0;
    is_said.then(|| {
        format!("later events of the same key took effect before {count} of them (LATER): those run out of order")
    })
}

fn absent(done: &Done, selection: &Selection) -> Option<String> {
    let is_absent = |id: &&String| done.letters.iter().all(|letter| letter.id != **id);
    let absent: Vec<_> = selection.ids.iter().filter(is_absent).map(String::as_str).collect();
    // What is not named is not known to be absent.
    if absent.is_empty() || done.count > done.letters.len() {
        return None;
    }
    let named = absent.iter().take(ABSENT_MAX).copied().collect::<Vec<_>>().join(", ");
    let more = if absent.len() > ABSENT_MAX { ", ..." } else { "" };
    Some(format!("not there: {named}{more}"))
}
