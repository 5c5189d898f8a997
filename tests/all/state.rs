//! `wasi:keyvalue`: all calls of one attempt are one transaction.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "tests report by panicking, also from their helpers"
)]

use tidegate::ledger::{Effects, StateWrite, Version};
use tidegate::outcome::{Class, Outcome};
use tidegate_tests::guests::build;
use tidegate_tests::plugins::{State, call, consumer, event, failure, key_of, try_load};

/// Runs a script over committed state; its answers must be these. Gives what the attempt would do.
async fn check(state: &State, script: &[&str], answers: &[&str]) -> Effects {
    let plugin = try_load(consumer(build("plain"))).await.unwrap();
    let done = call(&plugin, &event("state", &script.join("\n")), state).await;
    assert_eq!(done.outcome, Outcome::Succeeded);
    let said = &done.effects.outputs[0].message.payload;
    let said = String::from_utf8(said.to_vec()).unwrap();
    assert_eq!(said.lines().collect::<Vec<_>>(), answers, "{script:?}");
    done.effects
}

fn set(key: &str, value: &'static str) -> StateWrite {
    StateWrite::Set(key_of(key), value.into())
}

fn reads(effects: &Effects) -> Vec<(&str, u64)> {
    let reads = effects.reads.iter();
    reads.map(|(key, version)| (&*key.key, version.0)).collect()
}

#[tokio::test]
async fn an_attempt_sees_its_own_writes_and_reads_nothing_for_them() {
    let state = State::default();
    let script = ["set a 1", "get a", "delete a", "get a", "exists a", "set a 2", "get a"];
    let answers = [
        "Ok(())",
        "Ok(Some(\"1\"))",
        "Ok(())",
        "Ok(None)",
        "Ok(false)",
        "Ok(())",
        "Ok(Some(\"2\"))",
    ];
    let effects = check(&state, &script, &answers).await;
    assert_eq!(effects.writes, [set("a", "2")]);
    assert_eq!(reads(&effects), []);
    assert_eq!(state.reads(), 0);
}

#[tokio::test]
async fn a_read_is_validated_with_the_version_it_saw() {
    let state = State::default();
    state.put("a", "old");
    state.put("a", "new");
    let effects = check(&state, &["get a", "get absent"], &["Ok(Some(\"new\"))", "Ok(None)"]).await;
    assert_eq!(reads(&effects), [("a", 2), ("absent", 0)]);
    assert_eq!(effects.writes, []);
}

#[tokio::test]
async fn an_increment_reads_nothing_that_must_be_validated() {
    let state = State::default();
    state.put("n", "40");
    let script = ["add n 1", "add n 1", "add fresh -5"];
    let effects = check(&state, &script, &["Ok(41)", "Ok(42)", "Ok(-5)"]).await;
    assert_eq!(
        effects.writes,
        [StateWrite::Add(key_of("n"), 2), StateWrite::Add(key_of("fresh"), -5)]
    );
    assert_eq!(reads(&effects), []);
}

#[tokio::test]
async fn a_get_after_an_increment_is_a_read() {
    let state = State::default();
    state.put("n", "40");
    let effects = check(&state, &["add n 2", "get n"], &["Ok(42)", "Ok(Some(\"42\"))"]).await;
    assert_eq!(reads(&effects), [("n", 1)]);
    assert_eq!(effects.writes, [StateWrite::Add(key_of("n"), 2)]);
}

#[tokio::test]
async fn a_set_or_delete_takes_the_place_of_increments_and_is_counted_on_from() {
    let state = State::default();
    state.put("n", "40");
    let script = ["add n 2", "set n 7", "add n 1", "get n"];
    let answers = ["Ok(42)", "Ok(())", "Ok(8)", "Ok(Some(\"8\"))"];
    let effects = check(&state, &script, &answers).await;
    assert_eq!(effects.writes, [set("n", "8")]);
    assert_eq!(reads(&effects), []);

    let script = ["add n 2", "delete n", "add n 1"];
    let effects = check(&state, &script, &["Ok(42)", "Ok(())", "Ok(1)"]).await;
    assert_eq!(effects.writes, [set("n", "1")]);
}

#[tokio::test]
async fn a_counter_that_is_no_number_is_an_error_for_the_guest() {
    let state = State::default();
    state.put("n", "many");
    let answer = "Err(Error::Other(\"the value of \\\"n\\\" is no whole number\"))";
    let effects = check(
        &state,
        &["add n 1", "set m x", "add m 1"],
        &[answer, "Ok(())", &answer.replace("\\\"n\\\"", "\\\"m\\\"")],
    )
    .await;
    assert_eq!(effects.writes, [set("m", "x")]);
}

#[tokio::test]
async fn increments_that_overflow_are_told_and_sums_saturate() {
    let state = State::default();
    state.put("n", "9223372036854775806");
    let script = ["add n 9", "add m 9223372036854775807", "add m 1"];
    let plugin_says = "Err(Error::Other(\"the increments of \\\"m\\\" in this attempt (9223372036854775807 so far) exceed 64 bits\"))";
    check(
        &state,
        &script,
        &["Ok(9223372036854775807)", "Ok(9223372036854775807)", plugin_says],
    )
    .await;
}

#[tokio::test]
async fn a_listing_merges_what_is_committed_with_what_is_written() {
    let state = State::default();
    for key in ["b", "d", "f"] {
        state.put(key, "x");
    }
    let script = ["set e 1", "delete d", "add a 1", "in other set c 1", "list"];
    let effects = check(
        &state,
        &script,
        &[
            "Ok(())",
            "Ok(())",
            "Ok(1)",
            "Ok(())",
            "(1, [\"a\", \"b\", \"e\", \"f\"])",
        ],
    )
    .await;
    assert_eq!(reads(&effects), []);
    let StateWrite::Set(other, _) = &effects.writes[3] else {
        panic!("{effects:?}")
    };
    assert_eq!(&*other.bucket.bucket, "other");
}

#[tokio::test]
async fn a_long_listing_comes_in_pages_and_whole() {
    let state = State::default();
    for n in 0..1200 {
        state.put(&format!("k{n:04}"), "x");
    }
    let script = ["set k0499x 1", "set k0500x 1", "delete k0999", "set zz 1", "list"];
    let mut keys: Vec<String> = (0..1200).map(|n| format!("k{n:04}")).collect();
    keys.retain(|key| key != "k0999");
    keys.extend(["k0499x", "k0500x", "zz"].map(str::to_owned));
    keys.sort();
    let listing = format!("(3, {keys:?})");
    check(&state, &script, &["Ok(())", "Ok(())", "Ok(())", "Ok(())", &listing]).await;
}

#[tokio::test]
async fn a_compare_and_swap_is_a_read_and_a_set() {
    let state = State::default();
    state.put("a", "1");
    let effects = check(
        &state,
        &["cas a", "swap 2", "get a"],
        &["Ok(Some(\"1\"))", "Ok(())", "Ok(Some(\"2\"))"],
    )
    .await;
    assert_eq!(reads(&effects), [("a", 1)]);
    assert_eq!(effects.writes, [set("a", "2")]);
}

#[tokio::test]
async fn many_keys_are_read_in_one_call() {
    let state = State::default();
    state.put("a", "1");
    let answer = "[Some((\"a\", \"1\")), None, Some((\"c\", \"3\"))]";
    let effects = check(&state, &["set c 3", "get-many a b c"], &["Ok(())", answer]).await;
    assert_eq!(reads(&effects), [("a", 1), ("b", 0)]);
    assert!(effects.reads.contains(&(key_of("a"), Version(1))));
}

#[tokio::test]
async fn many_keys_are_written_and_deleted_in_one_call() {
    let state = State::default();
    let script = ["set-many 3 a b", "delete-many b c"];
    let effects = check(&state, &script, &["Ok(())", "Ok(())"]).await;
    let deleted = ["b", "c"].map(|key| StateWrite::Delete(key_of(key)));
    assert_eq!(effects.writes[0], set("a", "3"));
    assert_eq!(effects.writes[1..], deleted);
}

#[tokio::test]
async fn more_keys_than_one_call_may_have_are_an_error_for_the_guest() {
    let keys = |count| vec!["k"; count].join(" ");
    let script = |count| ["get-many", "set-many 1", "delete-many"].map(|step| format!("{step} {}", keys(count)));
    let refused = "Err(Error::Other(\"1001 keys in one call: at most 1000 are allowed\"))";
    let too_many = script(1001);
    let effects = check(
        &State::default(),
        &too_many.each_ref().map(String::as_str),
        &[refused; 3],
    )
    .await;
    assert_eq!(effects.writes, []);
    let enough = script(1000);
    let none = format!("{:?}", vec![None::<()>; 1000]);
    let answers = [none.as_str(), "Ok(())", "Ok(())"];
    check(&State::default(), &enough.each_ref().map(String::as_str), &answers).await;
}

#[tokio::test]
async fn names_out_of_bounds_are_errors_for_the_guest() {
    let long = "k".repeat(1025);
    let state = State::default();
    let answer = "Err(Error::Other(\"a key has 1 to 1024 bytes, not 1025\"))";
    check(&state, &[&format!("set {long} 1")], &[answer]).await;
    let answer = answer.replace("1025", "0");
    check(&state, &["get "], &[&answer]).await;
}

#[tokio::test]
async fn a_failed_attempt_has_no_effects() {
    let plugin = try_load(consumer(build("plain"))).await.unwrap();
    let done = call(&plugin, &event("state", "set a 1\nfail"), &State::default()).await;
    assert_eq!(done.effects, Effects::default());
    assert_eq!(failure(done).class, Class::Permanent);
}

#[tokio::test]
async fn bytes_over_their_limit_are_told_and_what_is_overwritten_gives_its_place_back() {
    let mut consumer = consumer(build("plain"));
    consumer.limits.effect_bytes = 1000;
    let plugin = try_load(consumer).await.unwrap();
    let long = "v".repeat(900);
    let script = format!("set a {long}\nset b {long}\nset a 1\nset b 2");
    let done = call(&plugin, &event("state", &script), &State::default()).await;
    assert_eq!(done.outcome, Outcome::Succeeded);
    let said = String::from_utf8_lossy(&done.effects.outputs[0].message.payload).into_owned();
    let said: Vec<&str> = said.lines().collect();
    let refused = "901 bytes are more than the 99 that are left of limits.effect_bytes (1000)";
    assert_eq!(said[0], "Ok(())");
    assert!(said[1].contains(refused), "{said:?}");
    assert_eq!(said[2..], ["Ok(())", "Ok(())"]);
    assert_eq!(done.effects.writes, [set("a", "1"), set("b", "2")]);
}

#[tokio::test]
async fn the_older_name_of_the_interface_means_the_same() {
    let state = State::default();
    for n in 0..1200 {
        state.put(&format!("k{n:04}"), "x");
    }
    state.put("n", "40");
    state.put("below", "-5");
    let plugin = try_load(consumer(build("draft"))).await.unwrap();
    let failed = failure(call(&plugin, &event("x", ""), &state).await);
    // 1,200 keys and two counters are committed; one is deleted, one is new.
    let answers = [
        "Ok(42)",
        "Err(Error::Other(\"the increment does not fit\"))",
        "Err(Error::Other(\"a negative counter does not fit\"))",
        "Ok(false)",
        "3",
        "1202",
        "Err(Error::Other(\"no such cursor: 99\"))",
    ];
    assert_eq!(failed.message, answers.join(" "));
}
