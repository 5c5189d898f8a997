//! What a person sees of dead letters, from a running host and from the ledger alone.

use std::path::Path;
use std::sync::Arc;

use clap::Parser;

use super::*;
use crate::admin::tests::fakes::letter;
use crate::admin::tests::{Running, proven};
use crate::admin::view::{Alive, DeadLetter};
use crate::app::dead_letters::{Done, DoneLetter};
use crate::clock::Clock;
use crate::event::key::LaneKey;
use crate::ledger::{Change, Entry, Known, Ledger as _, PayloadHash, embedded};
use crate::plan::{LedgerPlace, Plan};
use crate::store::{Settings, Store};

#[derive(Parser)]
struct Line {
    #[command(subcommand)]
    command: Command,
}

fn parsed(line: &str) -> Result<Command, String> {
    let line = Line::try_parse_from(["dlq"].into_iter().chain(line.split_whitespace()));
    line.map(|line| line.command).map_err(|error| error.to_string())
}

fn selected(line: &str) -> Selection {
    match parsed(line).unwrap() {
        Command::Redrive(selected) | Command::Purge(selected) => {
            let whole = |prefix: &Prefix| prefix.whole().unwrap();
            selected.selection(&selected.ids.iter().map(whole).collect::<Vec<_>>())
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_selection_is_demanded_and_said_in_one_way() {
    let (one, two) = (letter(1).id.to_string(), letter(2).id.to_string());
    assert_eq!(
        selected(&format!("redrive {one} {two}")).ids,
        [one.clone(), two.clone()]
    );
    assert_eq!(
        selected(&format!("purge {one} {two} --dry-run")).ids,
        [one.clone(), two]
    );
    assert!(selected("redrive --all").all);
    let both = selected("redrive --consumer inventory --reason trap --dry-run");
    assert_eq!(
        (both.consumer.as_deref(), both.reason.as_deref(), both.dry_run),
        (Some("inventory"), Some("trap"), true)
    );
    for line in [
        "redrive",
        "purge --dry-run",
        "redrive 12",
        "purge --reason bored",
        "purge --consumer A",
    ] {
        assert!(parsed(line).is_err(), "{line}");
    }
    for also in ["--all", "--consumer inventory", "--reason trap"] {
        assert!(parsed(&format!("purge {one} {also}")).is_err(), "{also}");
    }
    assert!(parsed("purge --all --reason trap").is_err());
    assert!(parsed("list --limit 0").is_err());
}

/// What the command line lets through, the API takes.
#[test]
fn every_selection_of_the_command_line_is_one() {
    let id = format!("redrive {}", letter(1).id);
    for line in [
        &id,
        "redrive --all",
        "purge --consumer a",
        "purge --reason trap",
        "purge --consumer a --reason trap",
    ] {
        selected(line).which().unwrap();
    }
}

#[test]
fn a_list_is_a_table() {
    let mut second = letter(2);
    (second.redriving, second.event, second.applied_meanwhile) = (true, None, 0);
    second.lane = LaneKey(b"a\x1b[2Jb".as_slice().into());
    let lines: Vec<_> = [letter(1), second].iter().map(DeadLetterLine::of).collect();
    let expected = "\
ID                                DEAD SINCE                CONSUMER   REASON           FAILED  LATER  KEY         EVENT
01010101010101010101010101010101  2026-09-21T14:13:21.250Z  inventory  trap             2       3      customer-7  order-1
02020202020202020202020202020202  2026-09-21T14:13:21.250Z  inventory  trap (redriven)  2       0      a\u{fffd}[2Jb      -
there are more: see them with --limit, or fewer with --consumer and --reason";
    assert_eq!(text::list(&lines, true), expected);
    assert_eq!(text::list(&[], false), "no dead letters");
}

#[test]
fn a_letter_is_shown_with_all_that_is_needed() {
    let shown = DeadLetter::of(&letter(1), &proven());
    let expected = r#"dead letter  01010101010101010101010101010101
reason       trap: wasm trap: unreachable
             see docs/errors.md#trap
consumer     inventory (plugin sha256:abc)
stream       orders, position 1, subject orders
key          customer-7
first tried  2026-09-21T14:13:20.000Z
dead since   2026-09-21T14:13:21.250Z
later events 3 of the same key took effect since

event
  id               order-1
  source           /shop
  type             com.example.order.placed
  subject          customer-7
  datacontenttype  application/json
  tenant           blue

headers
  X-Raw: (base64) /wA=

attempts (2 failed)
  1  2026-09-21T14:13:21.000Z, ran 1.234 ms, held 1.1 MiB
     trap: wasm trap: unreachable
       at inventory::reserve
       at handle
  2  2026-09-21T14:13:22.000Z, ran 1.234 ms, held 1.1 MiB
     as before

payload (JSON)
  {
    "item": "kettle",
    "quantity": 2
  }

what next
  find the cause: docs/errors.md#trap says how
  run it again:   tidegate dlq redrive 01010101010101010101010101010101 --config etc/shop.toml
  give it up:     tidegate dlq purge 01010101010101010101010101010101 --config etc/shop.toml"#;
    assert_eq!(text::letter(&shown, Path::new("etc/shop.toml")), expected);
}

#[test]
fn a_letter_of_no_event_is_shown_with_its_bytes() {
    let mut raw = letter(1);
    raw.message.payload = bytes::Bytes::from_static(&[0xff]);
    raw.message.headers = crate::event::Headers::default();
    (raw.event, raw.kind, raw.redriving, raw.failed) = (None, None, true, 0);
    raw.attempts.clear();
    let shown = text::letter(&DeadLetter::of(&raw, &proven()), Path::new("tidegate.toml"));
    for part in [
        "its message could not be read as an event",
        "none: its plugin was not called",
        "payload (base64)\n  /w==",
        "redriven: it waits in its lane",
        "purge 01010101010101010101010101010101",
    ] {
        assert!(shown.contains(part), "{part}\n{shown}");
    }
    assert!(!shown.contains("--config"));
}

#[test]
fn attempts_that_failed_in_another_way_or_by_another_build_say_so() {
    let mut changed = letter(1);
    changed.attempts[1].revision = "sha256:def".to_owned();
    changed.attempts[1].failure.message = "wasm trap: out of bounds".to_owned();
    changed.failed = 30;
    let shown = text::letter(&DeadLetter::of(&changed, &proven()), Path::new("tidegate.toml"));
    for part in [
        "attempts (30 failed, 2 of them kept)",
        "by another build of the plugin: sha256:def\n     trap: wasm trap: out of bounds\n       at inventory",
    ] {
        assert!(shown.contains(part), "{part}\n{shown}");
    }
}

fn done_of(count: usize, dry_run: bool) -> Done {
    let letter = DoneLetter {
        id: letter(1).id.to_string(),
        consumer: "inventory".to_owned(),
        key: "customer-7".to_owned(),
        applied_meanwhile: 3,
    };
    Done {
        count,
        dry_run,
        letters: vec![letter; count.min(1)],
    }
}

#[test]
fn what_was_done_is_said_with_what_it_means() {
    let all = Selection {
        all: true,
        ..Selection::default()
    };
    let expected = "\
ID                                CONSUMER   KEY         LATER
01010101010101010101010101010101  inventory  customer-7  3
and 4 more
redrove 5 dead letters: tidegate tail shows what becomes of them
later events of the same key took effect before 1 of them (LATER): those run out of order";
    assert_eq!(text::done(Act::Redrive, &done_of(5, false), &all, true), expected);
    let check = |act, done: Done, is_running, part: &str| {
        let shown = text::done(act, &done, &all, is_running);
        assert!(shown.contains(part), "{shown}");
    };
    check(
        Act::Redrive,
        done_of(1, false),
        false,
        "redrove 1 dead letter: no host runs, they run when one starts",
    );
    check(Act::Redrive, done_of(1, true), true, "would redrive 1 dead letter");
    check(Act::Purge, done_of(1, true), true, "would purge 1 dead letter");
    check(
        Act::Purge,
        done_of(0, false),
        true,
        "nothing matched: no dead letter is purged",
    );
    let ids = Selection {
        ids: vec![letter(1).id.to_string(), letter(2).id.to_string()],
        ..Selection::default()
    };
    let shown = text::done(Act::Purge, &done_of(1, false), &ids, true);
    assert!(
        shown.ends_with("purged 1 dead letter\nnot there: 02020202020202020202020202020202"),
        "{shown}"
    );
}

fn list_of(limit: usize) -> List {
    List {
        consumer: None,
        reason: None,
        limit: NonZeroUsize::new(limit).unwrap(),
    }
}

#[tokio::test]
async fn a_running_host_is_asked() {
    let host = Running::start().await;
    host.letters.add((0..1_200_u16).map(|number| {
        let mut letter = letter(1);
        letter.id.0[..2].copy_from_slice(&number.to_be_bytes());
        letter
    }));
    let mut plan = proven();
    plan.admin.listen = host.address;
    let letters = Letters::find(&plan).await.unwrap();
    assert!(letters.runs());
    let (all, more) = read_list(&letters, &list_of(5_000)).await.unwrap();
    assert_eq!((all.len(), more), (1_200, false));
    let (some, more) = read_list(&letters, &list_of(1_100)).await.unwrap();
    assert_eq!((some.len(), more), (1_100, true));
    assert_eq!(letters.show(all[7].id.parse().unwrap()).await.unwrap().line, all[7]);
    let gone = letters.show(letter(9).id).await.unwrap_err();
    assert_eq!(crate::cli::code(&gone).as_deref(), Some("no-dead-letter"));
    let done = letters.act(Act::Purge, &selected("purge --all")).await.unwrap();
    assert_eq!((done.count, host.letters.all().len()), (1_200, 0));
}

#[tokio::test]
async fn an_id_may_be_shortened_while_it_is_the_only_one() {
    let host = Running::start().await;
    let mut twin = letter(1);
    twin.id.0[15] = 0;
    host.letters.add([letter(1), twin, letter(2)]);
    let mut plan = proven();
    plan.admin.listen = host.address;
    let letters = Letters::find(&plan).await.unwrap();
    let resolved = async |ids: &[&str]| {
        let given: Vec<Prefix> = ids.iter().map(|id| id.parse().unwrap()).collect();
        resolve(&letters, &given).await
    };
    let absent = letter(9).id;
    assert_eq!(resolved(&[&absent.to_string()]).await.unwrap(), [absent]);
    assert_eq!(
        resolved(&["020202", &absent.to_string()]).await.unwrap(),
        [letter(2).id, absent]
    );
    let unclear = async |id: &str, code: &str, part: &str| {
        let error = resolved(&[id]).await.unwrap_err();
        assert_eq!(crate::cli::code(&error).as_deref(), Some(code));
        assert!(error.to_string().contains(part), "{error}");
    };
    unclear(
        "010101",
        "bad-selection",
        "2 dead letters have an id that begins with 010101",
    )
    .await;
    unclear("030303", "no-dead-letter", "no dead letter 030303").await;
}

/// A ledger on disk with one dead letter, and a plan whose host does not run.
struct Stopped {
    plan: Plan,
    _folder: tempfile::TempDir,
}

impl Stopped {
    async fn after_crash(is_crash: bool) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut plan = proven();
        plan.ledger.place = LedgerPlace::Embedded(folder.path().join("data"));
        // Nothing listens on the port of a listener that is gone.
        plan.admin.listen = std::net::TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap();
        let stopped = Self { plan, _folder: folder };
        let store = stopped.store();
        let ledger = embedded::open(store.clone(), std::collections::BTreeSet::new());
        let letter = letter(1);
        let entry = Entry {
            consumer: letter.consumer.clone(),
            record: letter.id,
            payload: PayloadHash::of(None),
            lane: letter.lane.clone(),
            parked: None,
            change: Change::Dead {
                letter: Box::new(letter),
                publish: None,
                hold: false,
            },
        };
        ledger.write(Arc::new(vec![entry])).await.unwrap()[0].clone().unwrap();
        if !is_crash {
            store.close().await.unwrap();
        }
        stopped
    }

    fn store(&self) -> Arc<Store> {
        let LedgerPlace::Embedded(path) = &self.plan.ledger.place;
        let settings = Settings {
            path: path.clone(),
            retention: self.plan.ledger.retention,
            fsync: false,
        };
        Store::open(settings, Clock::system()).unwrap()
    }

    async fn letters(&self) -> Letters {
        Letters::find(&self.plan).await.unwrap()
    }
}

#[tokio::test]
async fn without_a_host_the_ledger_is_opened_and_closed_again() {
    let stopped = Stopped::after_crash(false).await;
    let letters = stopped.letters().await;
    assert!(!letters.runs());
    let (all, more) = read_list(&letters, &list_of(10)).await.unwrap();
    assert_eq!(
        (all[0].id.clone(), all.len(), more),
        (letter(1).id.to_string(), 1, false)
    );
    let other = List {
        consumer: Some(Name::new("nobody").unwrap()),
        ..list_of(10)
    };
    assert!(read_list(&letters, &other).await.unwrap().0.is_empty());
    assert_eq!(letters.show(letter(1).id).await.unwrap().attributes["tenant"], "blue");
    assert!(
        letters
            .show(letter(9).id)
            .await
            .unwrap_err()
            .to_string()
            .contains("no dead letter 0909")
    );
    let done = letters
        .act(Act::Redrive, &selected("redrive --reason trap"))
        .await
        .unwrap();
    assert_eq!(done.count, 1);
    letters.close().await.unwrap();

    let store = stopped.store();
    assert!(!store.was_unclean(), "the command closed it");
    let ledger = embedded::open(store, std::collections::BTreeSet::new());
    assert!(matches!(
        ledger.look_up(vec![letter(1).id]).await.unwrap()[..],
        [Known::Parked(_)]
    ));
}

#[tokio::test]
async fn purging_without_a_host_is_for_good() {
    let stopped = Stopped::after_crash(false).await;
    let letters = stopped.letters().await;
    assert_eq!(
        letters
            .act(Act::Purge, &selected("purge --all --dry-run"))
            .await
            .unwrap()
            .count,
        1
    );
    assert_eq!(
        letters.act(Act::Purge, &selected("purge --all")).await.unwrap().count,
        1
    );
    letters.close().await.unwrap();
    let letters = stopped.letters().await;
    assert!(read_list(&letters, &list_of(10)).await.unwrap().0.is_empty());
    letters.close().await.unwrap();
}

/// A look at the dead letters after a crash must not hide the crash from the next start, which looks for events that kill hosts.
#[tokio::test]
async fn a_look_after_a_crash_leaves_it_a_crash() {
    let stopped = Stopped::after_crash(true).await;
    let letters = stopped.letters().await;
    assert_eq!(read_list(&letters, &list_of(10)).await.unwrap().0.len(), 1);
    letters.close().await.unwrap();
    assert!(stopped.store().was_unclean());
}

#[tokio::test(start_paused = true)]
async fn a_ledger_that_is_not_there_is_not_made() {
    let stopped = Stopped::after_crash(false).await;
    let mut plan = stopped.plan.clone();
    let absent = stopped._folder.path().join("absent");
    plan.ledger.place = LedgerPlace::Embedded(absent.clone());
    let error = Letters::find(&plan).await.err().unwrap();
    assert!(error.to_string().contains("there is no ledger"), "{error:#}");
    assert!(!absent.exists());
}

#[tokio::test(start_paused = true)]
async fn a_ledger_that_another_process_has_is_not_said_to_be_in_the_way() {
    let stopped = Stopped::after_crash(false).await;
    let _store = stopped.store();
    let error = Letters::find(&stopped.plan).await.err().unwrap();
    let listen = stopped.plan.admin.listen;
    let text = format!("{error:#}");
    assert!(text.starts_with("a process holds the ledger in "), "{text}");
    assert!(text.contains(&format!("no admin API answers on {listen}")), "{text}");
    assert!(!text.contains("stop"), "{text}");
    assert_eq!(crate::cli::code(&error).as_deref(), Some("no-host"));
}

#[tokio::test]
async fn a_host_that_is_starting_has_the_ledger_before_it_answers() {
    let stopped = Stopped::after_crash(false).await;
    let _store = stopped.store();
    let mut starting = Box::pin(Letters::find(&stopped.plan));
    // Until it waits, nothing answers.
    let soon = tokio::time::timeout(std::time::Duration::from_millis(50), &mut starting);
    assert!(soon.await.is_err());
    let listener = tokio::net::TcpListener::bind(stopped.plan.admin.listen).await.unwrap();
    let alive = axum::Router::new().fallback(async || axum::Json(Alive::now()));
    let host = tokio::spawn(axum::serve(listener, alive).into_future());
    assert!(starting.await.unwrap().runs());
    host.abort();
}
