//! What does not load is refused with what it is and what to do; what it is can be seen without running it.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "tests report by panicking, also from their helpers"
)]

use std::collections::BTreeSet;
use std::path::PathBuf;

use tidegate::outcome::{Class, Outcome};
use tidegate::plan::Consumer;
use tidegate::plugin::{Grant, Handler, LoadError, Need, inspect};
use tidegate_tests::guests::{assemble, build};
use tidegate_tests::plugins::{
    State, cache, call, consumer, engine_with_room, event, failure, try_load, try_load_into,
};

/// The plugin must be refused under this code, with these words in the text.
async fn check(consumer: Consumer, code: &str, words: &[&str]) -> LoadError {
    let path = consumer.plugin.display().to_string();
    let error = try_load(consumer).await.err().expect("it is refused");
    let text = error.to_string();
    assert_eq!(error.code(), code, "{text}");
    assert!(LoadError::CODES.contains(&code));
    for word in words {
        assert!(text.contains(word), "\"{word}\" in: {text}");
    }
    assert!(text.contains(&path), "{text}");
    error
}

fn of(name: &str) -> Consumer {
    consumer(assemble(name).unwrap())
}

fn written(name: &str, bytes: &[u8]) -> PathBuf {
    let folder = cache().join("../written");
    std::fs::create_dir_all(&folder).unwrap();
    let path = folder.join(name);
    std::fs::write(&path, bytes).unwrap();
    path
}

#[tokio::test]
async fn what_is_no_component_is_refused() {
    let absent = consumer(PathBuf::from("/no/such/plugin.wasm"));
    check(absent, "plugin-unreadable", &["No such file"]).await;
    let module = written("module.wasm", b"\0asm\x01\0\0\0");
    let words = ["core WebAssembly module", "wasm32-wasip2"];
    check(consumer(module), "plugin-not-component", &words).await;
    let text = written("text.wasm", b"console.log('hello')");
    check(consumer(text), "plugin-not-component", &["no WebAssembly component"]).await;
    let half = std::fs::read(build("plain")).unwrap();
    let half = written("half.wasm", &half[..half.len() / 2]);
    check(consumer(half), "plugin-not-component", &["unexpected end"]).await;
}

#[tokio::test]
async fn a_file_that_is_too_large_is_not_read() {
    let path = written("large.wasm", b"");
    let file = std::fs::File::options().write(true).open(&path).unwrap();
    file.set_len((64 << 20) + 1).unwrap();
    check(consumer(path), "plugin-too-large", &["67108865"]).await;
}

#[tokio::test]
async fn a_component_of_another_world_is_refused() {
    let words = ["tidegate:plugin/handler@0.1.0", "wasi:cli/run@0.2.6"];
    check(of("no-handler"), "plugin-no-handler", &words).await;
}

#[tokio::test]
async fn a_newer_contract_is_refused() {
    let words = ["tidegate:plugin/handler@0.2.0", "update the host"];
    check(of("newer-contract"), "plugin-contract-newer", &words).await;
    let words = ["tidegate:plugin/outbox@0.2.0", "update the host"];
    check(of("newer-import"), "plugin-contract-newer", &words).await;
}

#[tokio::test]
async fn an_import_that_is_not_granted_is_refused_with_the_grant_to_add() {
    let mut without = consumer(build("hostile"));
    without.grants.state = false;
    let words = [
        "wasi:keyvalue/store@0.2.0-draft2",
        "grants.state",
        "grants = { state = true }",
    ];
    check(without, "plugin-import-not-granted", &words).await;
    let mut without = consumer(build("plain"));
    without.grants.config = None;
    let words = ["wasi:config/store@0.2.0-rc.1", "grants.config"];
    check(without, "plugin-import-not-granted", &words).await;
}

#[tokio::test]
async fn what_one_consumer_has_is_checked_for_another_and_loaded_anew_when_it_has_changed() {
    let path = written("shared.wasm", &std::fs::read(build("hostile")).unwrap());
    let had = try_load(consumer(path.clone())).await.unwrap();
    let mut without = consumer(path.clone());
    without.grants.state = false;
    check(without, "plugin-import-not-granted", &["grants.state"]).await;
    let mut pinned = consumer(path.clone());
    pinned.digest = Some("sha256:0000".to_owned());
    check(pinned, "plugin-digest-mismatch", &["sha256:0000"]).await;
    let changed = std::fs::read(build("plain")).unwrap();
    std::fs::write(&path, &changed).unwrap();
    let has = try_load(consumer(path)).await.unwrap();
    assert_eq!(*has.revision(), *inspect(&changed).unwrap().digest);
    assert_ne!(has.revision(), had.revision());
}

#[tokio::test]
async fn an_import_that_no_grant_gives_is_refused() {
    let words = [
        "wasi:http/outgoing-handler@0.2.4",
        "grants.http is not available in this version",
    ];
    check(of("wants-http"), "plugin-import-not-available", &words).await;
    let words = ["acme:secrets/store@1.0.0", "no grant gives it"];
    check(of("wants-secrets"), "plugin-import-unknown", &words).await;
}

#[tokio::test]
async fn a_right_name_of_a_wrong_type_is_refused() {
    check(of("other-handler"), "plugin-contract-mismatch", &["handle"]).await;
    check(of("other-outbox"), "plugin-contract-mismatch", &["outbox", "emit"]).await;
}

#[tokio::test]
async fn a_pinned_digest_must_be_the_files() {
    let mut pinned = consumer(build("plain"));
    pinned.digest = Some("sha256:0000".to_owned());
    check(pinned, "plugin-digest-mismatch", &["sha256:0000", "pin the new one"]).await;
    let bytes = std::fs::read(build("plain")).unwrap();
    let digest = inspect(&bytes).unwrap().digest;
    let mut pinned = consumer(build("plain"));
    pinned.digest = Some(digest.clone());
    assert_eq!(*try_load(pinned).await.unwrap().revision(), *digest);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plugin_that_can_not_start_is_refused() {
    let error = check(of("start-traps"), "plugin-start-failed", &["(trap)", "unreachable"]).await;
    let LoadError::StartFailed { failure, .. } = error else {
        panic!("{error:?}")
    };
    assert_eq!(failure.backtrace.len(), 1, "{failure:?}");
    check(of("start-loops"), "plugin-start-failed", &["(time-limit)"]).await;
    let words = ["131072000", "limits.memory is 67108864"];
    check(of("starts-large"), "plugin-needs-memory", &words).await;
}

/// The pool had 8 tables and 2 memories for each instance, all told.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plugin_of_the_most_parts_starts_where_there_is_room_for_one_instance() {
    let plugin = try_load_into(&engine_with_room(1), of("many-tables")).await.unwrap();
    let done = call(&plugin, &event("x", ""), &State::default()).await;
    assert_eq!(done.outcome, Outcome::Succeeded);
}

/// A guest that breaks the rules of the boundary must trap, with these words, and leave the host as it was.
async fn breaks(name: &str, class: Class, words: &str) {
    let plugin = try_load(of(name)).await.unwrap();
    for _ in 0..2 {
        let failed = failure(call(&plugin, &event("x", "data"), &State::default()).await);
        assert_eq!(failed.class, class, "{name}: {failed:?}");
        assert!(failed.message.contains(words), "{name}: {failed:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_guest_that_breaks_the_rules_of_the_boundary_traps() {
    breaks("lying-realloc", Class::Trap, "realloc").await;
    breaks("garbage-pointer", Class::Trap, "pointer").await;
    breaks("garbage-length", Class::Trap, "out of bounds").await;
    breaks("garbage-text", Class::Trap, "utf-8").await;
    breaks("garbage-case", Class::Trap, "discriminant").await;
    breaks("huge-failure", Class::EffectLimit, "more data in one call").await;
    breaks("looping-realloc", Class::TimeLimit, "time limit").await;
    breaks("grow-table", Class::MemoryLimit, "limits.table_elements (20000)").await;
    breaks("unreachable", Class::Trap, "unreachable").await;
}

#[tokio::test]
async fn an_inspection_says_what_a_plugin_is_and_needs() {
    let bytes = std::fs::read(build("plain")).unwrap();
    let found = inspect(&bytes).unwrap();
    assert_eq!(found.size, bytes.len() as u64);
    assert_eq!(found.contract.as_deref(), Some("0.1.0"));
    assert_eq!(found.exports, ["tidegate:plugin/handler@0.1.0"]);
    assert_eq!(found.grants, BTreeSet::from([Grant::State, Grant::Config]));
    assert!(found.has_names);
    assert!(found.memory_at_start >= 1 << 20);
    let needs = |name: &str| {
        let import = found.imports.iter().find(|import| import.name.starts_with(name));
        import.unwrap_or_else(|| panic!("{name}")).needs
    };
    assert_eq!(needs("wasi:keyvalue/atomics"), Need::Grant(Grant::State));
    assert_eq!(needs("tidegate:plugin/outbox"), Need::Nothing);
    assert_eq!(needs("wasi:cli/stderr"), Need::Nothing);
}
