//! What is said about a wrong config: each kind of problem by code, place and words.

use super::*;

#[test]
fn all_problems_are_told_at_once_by_line_as_a_compiler_would() {
    let text = r#"[ledger]
url = "embedded:./data"
retention = "1 fortnight"

[stream.orders]
broker = "mian"

[broker.main]
url = "embedded:"

[consumer.inventory]
plugin = "plugins/inventory"
	reads = "ordesr"
concurency = 64
"#;
    let problems = parse(text, Path::new("/nowhere/tidegate.toml"), &no_env).unwrap_err();
    let expected = r#"error[config-bad-duration]: "1 fortnight" is no duration: there is no unit "fortnight"
 --> /nowhere/tidegate.toml:3:13
  |
3 | retention = "1 fortnight"
  |             ^^^^^^^^^^^^^
  = help: write a number and a unit: "100ms", "30s", "1h30m", "7d"

error[config-unknown-reference]: there is no broker "mian"
 --> /nowhere/tidegate.toml:6:10
  |
6 | broker = "mian"
  |          ^^^^^^
  = help: did you mean "main"?

error[config-plugin-not-found]: there is no /nowhere/plugins/inventory
  --> /nowhere/tidegate.toml:12:10
   |
12 | plugin = "plugins/inventory"
   |          ^^^^^^^^^^^^^^^^^^^
   = help: name a .wasm file, a folder with plugin.wasm, or a Cargo project built for wasm32-wasip2; paths are relative to the config file's folder

error[config-unknown-reference]: there is no stream "ordesr"
  --> /nowhere/tidegate.toml:13:10
   |
13 | 	reads = "ordesr"
   | 	        ^^^^^^^^
   = help: did you mean "orders"?

error[config-unknown-key]: unknown key `concurency` in [consumer.inventory]
  --> /nowhere/tidegate.toml:14:1
   |
14 | concurency = 64
   | ^^^^^^^^^^
   = help: did you mean `concurrency`?

5 errors in /nowhere/tidegate.toml"#;
    assert_eq!(problems.to_string(), expected);
    let json = serde_json::to_value(&problems).unwrap();
    let first = serde_json::json!({
        "code": "config-bad-duration",
        "severity": "error",
        "message": "\"1 fortnight\" is no duration: there is no unit \"fortnight\"",
        "file": "/nowhere/tidegate.toml",
        "line": 3,
        "column": 13,
        "hint": "write a number and a unit: \"100ms\", \"30s\", \"1h30m\", \"7d\"",
    });
    assert_eq!(json[0], first);
}

/// What is said of a text at the end of [`BASE`]: code, line below the base, column, message and hint of each problem.
fn said(text: &str) -> Vec<(&'static str, usize, usize, String, String)> {
    let problems = match parsed(&format!("{BASE}{text}"), &no_env) {
        Ok(loaded) => loaded.warnings,
        Err(Problems(problems)) => problems,
    };
    let base = BASE.lines().count();
    problems
        .into_iter()
        .map(|problem| {
            let place = problem.place.unwrap();
            let hint = problem.hint.unwrap_or_default();
            (
                problem.code.as_str(),
                place.line - base,
                place.column,
                problem.message,
                hint,
            )
        })
        .collect()
}

/// One problem is said of a text: with this code, at this line and column, with these words in message or hint.
fn check(text: &str, code: &str, (line, column): (usize, usize), words: &[&str]) {
    let said = said(text);
    let [(found, found_line, found_column, message, hint)] = said.as_slice() else {
        panic!("{text}: {said:#?}");
    };
    assert_eq!(
        (*found, *found_line, *found_column),
        (code, line, column),
        "{text}: {message}"
    );
    for word in words {
        assert!(
            message.contains(word) || hint.contains(word),
            "{text}: {message} ({hint})"
        );
    }
}

#[test]
fn what_is_wrong_with_a_stream_is_said() {
    let at = |line| format!("[stream.x]\nbroker = \"{}\"\n", line);
    let [log, nats, hook] = ["log", "nats", "hook"].map(at);
    check("[stream.x]\n", "config-missing-key", (1, 1), &["`broker` is missing"]);
    check(
        "[stream.X]\nbroker = \"log\"\n",
        "config-bad-name",
        (1, 9),
        &["\"X\" is no name"],
    );
    check(
        "[stream.x]\nbroker = \"nope\"\n",
        "config-unknown-reference",
        (2, 10),
        &["no broker \"nope\"", "add [broker.nope]"],
    );
    check(
        "[stream.x]\nbroker = 5\n",
        "config-wrong-type",
        (2, 10),
        &["expected a string, found an integer"],
    );
    check(
        &(log.clone() + "subjects = [\"a\"]"),
        "config-misplaced-key",
        (3, 12),
        &["`subjects`", "an embedded broker's stream"],
    );
    check(
        &(log.clone() + "path = \"/x\""),
        "config-misplaced-key",
        (3, 8),
        &["`path`"],
    );
    check(
        &(nats.clone() + "age_max = \"1h\""),
        "config-misplaced-key",
        (3, 11),
        &["`age_max`", "a NATS stream"],
    );
    check(
        &(hook.clone() + "subject = \"a\""),
        "config-misplaced-key",
        (3, 11),
        &["`subject`", "a webhook's stream"],
    );
    check(
        &(nats.clone() + "subject = \"a.*\""),
        "config-bad-place",
        (3, 11),
        &["wildcard"],
    );
    check(
        &(nats.clone() + "subject = \"a..b\""),
        "config-bad-place",
        (3, 11),
        &["\"a..b\" is no NATS subject"],
    );
    check(
        &(nats.clone() + "subject = \"a.{Type}\""),
        "config-bad-place",
        (3, 11),
        &["\"Type\" is no attribute"],
    );
    check(
        &(nats.clone() + "subject = \"a.{type\""),
        "config-bad-place",
        (3, 11),
        &["a brace without its other half"],
    );
    check(
        &(nats.clone() + "subjects = [\"a.>.b\"]"),
        "config-bad-place",
        (3, 13),
        &["\"a.>.b\" is no NATS subject"],
    );
    check(
        &(nats.clone() + "subjects = []"),
        "config-bad-place",
        (3, 12),
        &["`subjects` is empty"],
    );
    check(
        &(nats.clone() + "stream = \"A.B\""),
        "config-bad-place",
        (3, 10),
        &["\"A.B\" is no name"],
    );
    check(
        &(nats.clone() + "create = true"),
        "config-missing-key",
        (3, 10),
        &["needs `subjects`"],
    );
    check(
        &(nats.clone() + "ack_wait = \"10ms\""),
        "config-out-of-bounds",
        (3, 12),
        &["`ack_wait` is 10ms", "at least 1s and at most 1h"],
    );
    check(
        &(log.clone() + "bytes_max = \"1kB\""),
        "config-out-of-bounds",
        (3, 13),
        &["`bytes_max` is 1000B", "at least 1MiB"],
    );
    check(
        &(log.clone() + "mode = \"binry\""),
        "config-bad-value",
        (3, 8),
        &["\"binary\", \"structured\"", "did you mean \"binary\"?"],
    );
    let mapped = |mapping: &str| format!("{nats}mapping = {{ {mapping} }}");
    check(
        &mapped("id = \"hash\", source = \"s\""),
        "config-missing-key",
        (3, 11),
        &["`type` is missing"],
    );
    check(
        &mapped("id = \"fix\", source = \"s\", type = \"t\""),
        "config-bad-value",
        (3, 18),
        &["the id \"fix\"", "write hash"],
    );
    check(
        &mapped("id = \"data:id\", source = \"s\", type = \"t\""),
        "config-bad-value",
        (3, 18),
        &["no JSON pointer"],
    );
    check(
        &mapped("id = \"header:\", source = \"s\", type = \"t\""),
        "config-bad-value",
        (3, 18),
        &["no name of a header"],
    );
}

#[test]
fn what_is_wrong_with_a_broker_is_said() {
    let of = |lines: &str| format!("[broker.x]\n{lines}\n");
    let nkey = format!("url = \"nats://h\"\nnkey = \"U{}\"", "A".repeat(55));
    check("[broker.x]\n", "config-missing-key", (1, 1), &["`url` is missing"]);
    for (lines, code, place, words) in [
        (
            "url = \"embedded:other\"",
            "config-ledger-mismatch",
            (2, 7),
            &["broker \"x\" is in ", "one store"][..],
        ),
        (
            "url = \"kafka://h\"",
            "config-unsupported",
            (2, 7),
            &["this version has no kafka: broker"],
        ),
        (
            "url = \"gopher://h\"",
            "config-bad-url",
            (2, 7),
            &["\"gopher://h\" is no broker"],
        ),
        ("url = \"nats://\"", "config-bad-url", (2, 7), &["it names no host"]),
        (
            "url = \"nats://h:x\"",
            "config-bad-url",
            (2, 7),
            &["invalid port number"],
        ),
        (
            "url = \"nats://h/x\"",
            "config-bad-url",
            (2, 7),
            &["more than a host and a port"],
        ),
        (
            "url = \"nats://h,http://h\"",
            "config-bad-url",
            (2, 7),
            &["\"http://h\" is no NATS server"],
        ),
        (
            "url = \"nats://a@h,nats://b@h\"",
            "config-conflict",
            (2, 7),
            &["different users"],
        ),
        (
            "url = \"nats://a@h\"\ntoken = \"t\"",
            "config-conflict",
            (3, 9),
            &["in two ways"],
        ),
        (
            "url = \"nats://h\"\nuser = \"u\"",
            "config-missing-key",
            (3, 8),
            &["`password` is missing"],
        ),
        (
            "url = \"nats://h\"\ncreds = \"none.creds\"",
            "config-file-not-found",
            (3, 9),
            &["there is no file"],
        ),
        (&nkey, "config-bad-value", (3, 8), &["no nkey seed", "begins with SU"]),
        (
            "url = \"nats://h\"\ntimeout = \"1s\"",
            "config-misplaced-key",
            (3, 11),
            &["`timeout`", "a NATS broker"],
        ),
        (
            "url = \"nats://${H:-h}\"\ntimeout = \"1s\"",
            "config-misplaced-key",
            (3, 11),
            &["`timeout`"],
        ),
        (
            "url = \"http://h\"\nuser = \"u\"",
            "config-misplaced-key",
            (3, 8),
            &["`user`", "a webhook"],
        ),
        (
            "url = \"embedded:\"\ntoken = \"t\"",
            "config-misplaced-key",
            (3, 9),
            &["an embedded broker"],
        ),
        (
            "url = \"http://u@h\"",
            "config-bad-url",
            (2, 7),
            &["has a user in it", "`token`"],
        ),
        ("url = \"http://h?a=b\"", "config-bad-url", (2, 7), &["has a ? or #"]),
        (
            "url = \"http://h\"\ntoken = \"\"",
            "config-bad-value",
            (3, 9),
            &["the secret is empty"],
        ),
        (
            "url = \"${NONE}\"",
            "config-missing-variable",
            (2, 8),
            &["variable NONE is not set", "${NONE:-...}"],
        ),
        (
            "url = \"${NO NE}\"",
            "config-bad-variable",
            (2, 7),
            &["\"NO NE\" is no name"],
        ),
        ("url = \"${NONE\"", "config-bad-variable", (2, 7), &["without its `}`"]),
    ] {
        check(&of(lines), code, place, words);
    }
}

#[test]
fn what_is_wrong_with_a_consumer_is_said() {
    let of = |lines: &str| format!("[consumer.x]\nplugin = \"plugins/inventory\"\nreads = \"in\"\n{lines}\n");
    check(
        "[consumer.x]\nreads = \"in\"",
        "config-missing-key",
        (1, 1),
        &["`plugin` is missing"],
    );
    check(
        "[consumer.x]\nplugin = \"plugins/inventory\"",
        "config-missing-key",
        (1, 1),
        &["`reads` is missing"],
    );
    let reads = |stream: &str| format!("[consumer.x]\nplugin = \"plugins/inventory\"\nreads = \"{stream}\"\n");
    check(
        &reads("out"),
        "config-not-readable",
        (3, 9),
        &["\"out\" can't be read: it is a webhook", "[ingress]"],
    );
    check(
        &reads("js-out"),
        "config-not-readable",
        (3, 9),
        &["it has no `subjects`", "[stream.js-out]"],
    );
    check(
        "[consumer.x]\nplugin = \"oci://x/y\"\nreads = \"in\"",
        "config-unsupported",
        (2, 10),
        &["from the disk only"],
    );
    check(
        "[consumer.x]\nplugin = \"plugins\"\nreads = \"in\"",
        "config-plugin-not-found",
        (2, 10),
        &["has no .wasm file"],
    );
    for (lines, code, place, words) in [
        (
            "writes = \"js\"",
            "config-not-writable",
            (4, 10),
            &["it has no `subject`", "[stream.js]"][..],
        ),
        (
            "writes = { \"a.*\" = \"otu\" }",
            "config-unknown-reference",
            (4, 20),
            &["did you mean \"out\"?"],
        ),
        (
            "writes = { \"a.*.b\" = \"out\" }",
            "config-bad-value",
            (4, 12),
            &["a * that is not at its end"],
        ),
        ("dead_letter = \"js\"", "config-not-writable", (4, 15), &[]),
        (
            "dead_letter = \"in\"",
            "config-loop",
            (4, 15),
            &["read its own dead letters"],
        ),
        ("types = []", "config-bad-value", (4, 9), &["would want nothing"]),
        ("types = [\"\"]", "config-bad-value", (4, 10), &["no type"]),
        ("digest = \"sha256:12\"", "config-bad-value", (4, 10), &["no digest"]),
        (
            "key = \"Subject\"",
            "config-bad-value",
            (4, 7),
            &["\"Subject\" is no attribute"],
        ),
        (
            "key = \"data:orderId\"",
            "config-bad-value",
            (4, 7),
            &["no JSON pointer", "data:/name"],
        ),
        (
            "concurrency = 0",
            "config-out-of-bounds",
            (4, 15),
            &["`concurrency` is 0", "at least 1 and at most 4096"],
        ),
        (
            "concurrency = -1",
            "config-out-of-bounds",
            (4, 15),
            &["-1 is out of bounds"],
        ),
        (
            "concurrency = \"64\"",
            "config-wrong-type",
            (4, 15),
            &["expected a whole number, found a string"],
        ),
        (
            "budget = { events = 10 }",
            "config-out-of-bounds",
            (4, 21),
            &["at least 64"],
        ),
        (
            "retry = { attempts = 1001 }",
            "config-out-of-bounds",
            (4, 22),
            &["at most 1000"],
        ),
        (
            "retry = { backoff = \"1us..1s\" }",
            "config-out-of-bounds",
            (4, 21),
            &["within 1ms..1d"],
        ),
        (
            "retry = { backoff = \"1s..1ms\" }",
            "config-bad-duration",
            (4, 21),
            &["begins above its end"],
        ),
        (
            "retry = { backoff = \"1s\" }",
            "config-bad-duration",
            (4, 21),
            &["no range", "100ms..10s"],
        ),
        (
            "retry = { park_over = 2000 }",
            "config-out-of-bounds",
            (4, 23),
            &["at most 1024"],
        ),
        (
            "limits = { time = 2 }",
            "config-wrong-type",
            (4, 19),
            &["expected a duration such as \"30s\""],
        ),
        (
            "limits = { memory = \"64MiX\" }",
            "config-bad-size",
            (4, 21),
            &["\"64MiX\" is no size"],
        ),
        (
            "limits = { emit_bytes = \"9MiB\" }",
            "config-out-of-bounds",
            (4, 25),
            &["at most 8MiB"],
        ),
        (
            "limits = { emit = 1 }",
            "config-unknown-key",
            (4, 12),
            &["in [consumer.x.limits]", "`emits`"],
        ),
        (
            "grants = { http = [\"api.example.com\"] }",
            "config-bad-url",
            (4, 20),
            &["no origin"],
        ),
        (
            "grants = { http = [\"https://h/path\"] }",
            "config-bad-url",
            (4, 20),
            &["no origin"],
        ),
        (
            "grants = { state = 1 }",
            "config-wrong-type",
            (4, 20),
            &["expected true or false"],
        ),
        (
            "instances = \"reused\"",
            "config-bad-value",
            (4, 13),
            &["did you mean \"reuse\"?"],
        ),
        (
            "instances = { uses_max = 0 }",
            "config-out-of-bounds",
            (4, 26),
            &["at least 1"],
        ),
        (
            "on_dead = \"hold-key\"",
            "config-bad-value",
            (4, 11),
            &["did you mean \"hold_key\"?"],
        ),
        (
            "breaker = { failure_rate = 1.5 }",
            "config-out-of-bounds",
            (4, 28),
            &["above 0 and at most 1"],
        ),
        (
            "breaker = { failure_rate = nan }",
            "config-out-of-bounds",
            (4, 28),
            &["NaN"],
        ),
        (
            "breaker = { keys_min = 101 }",
            "config-out-of-bounds",
            (4, 24),
            &["at most 100"],
        ),
    ] {
        check(&of(lines), code, place, words);
    }
}

#[test]
fn dead_letters_need_a_place_without_attributes() {
    let text = |stream: &str| {
        format!(
            "[stream.dead]\n{stream}\n[consumer.x]\nplugin = \"plugins/inventory\"\nreads = \"in\"\ndead_letter = \"dead\"\n"
        )
    };
    for (stream, words) in [
        (
            "broker = \"nats\"\nsubject = \"dead.{type}\"",
            ["`subject` has {type}", "no braces"],
        ),
        (
            "broker = \"hook\"\npath = \"/dead/{id}\"",
            ["`path` has {id}", "no braces"],
        ),
    ] {
        check(&text(stream), "config-not-writable", (7, 15), &words);
    }
    for stream in [
        "broker = \"nats\"\nsubject = \"dead.all\"",
        "broker = \"hook\"",
        "broker = \"log\"",
    ] {
        let said = said(&text(stream));
        assert!(said.is_empty(), "{said:?}");
    }
}

#[test]
fn too_few_instances_are_warned_of() {
    let text = |instances: u32| {
        format!(
            "[host]\ninstances_max = {instances}\n[consumer.x]\nplugin = \"plugins/inventory\"\nreads = \"in\"\nconcurrency = 3\n\
             [consumer.y]\nplugin = \"plugins/inventory\"\nreads = \"in\"\nconcurrency = 4\n"
        )
    };
    check(
        &text(6),
        "config-out-of-bounds",
        (2, 17),
        &["is 6", "together is 7", "wait"],
    );
    assert!(parsed(&format!("{BASE}{}", text(6)), &no_env).is_ok());
    assert!(said(&text(7)).is_empty());
}

#[test]
fn a_token_that_no_client_can_send_is_refused() {
    for token in ["t0ken\\n", " t0ken", "to ken", "t0ken\\u0000"] {
        let text = format!("[admin]\ntoken = \"{token}\"\n");
        check(&text, "config-bad-value", (2, 9), &["white space", "line break"]);
        assert!(!said(&text)[0].3.contains("ken\""), "it is never shown");
    }
}

#[test]
fn what_is_wrong_with_a_listener_is_said() {
    check(
        "[admin]\nlisten = \"localhost:7070\"",
        "config-bad-address",
        (2, 10),
        &["an IP address and a port"],
    );
    check(
        "[admin]\nlisten = \"0.0.0.0:7070\"",
        "config-token-needed",
        (2, 10),
        &["0.0.0.0:7070 can be reached", "token ="],
    );
    let of = |routes: &str| format!("[ingress]\nlisten = \"127.0.0.1:0\"\nroutes = {routes}");
    check(
        "[ingress]\nlisten = \"10.0.0.1:1\"\nroutes = {}",
        "config-token-needed",
        (2, 10),
        &["10.0.0.1:1"],
    );
    check(
        "[ingress]\nlisten = \"127.0.0.1:0\"",
        "config-missing-key",
        (1, 1),
        &["`routes` is missing"],
    );
    check(
        &of("{ orders = \"in\" }"),
        "config-bad-place",
        (3, 12),
        &["\"orders\" is no path"],
    );
    check(
        &of("{ \"/orders\" = \"nope\" }"),
        "config-unknown-reference",
        (3, 24),
        &["no stream \"nope\""],
    );
    check(
        &of("{ \"/orders\" = \"js\" }"),
        "config-not-writable",
        (3, 24),
        &["no `subject`"],
    );
}

#[test]
fn what_is_wrong_with_the_ledger_is_said() {
    let said = |text: &str| {
        let Problems(problems) = parsed(text, &no_env).unwrap_err();
        let codes: Vec<_> = problems.iter().map(|problem| problem.code.as_str()).collect();
        (codes.join(" "), problems[0].to_string())
    };
    assert_eq!(said("").0, "config-missing-key");
    assert!(said("").1.contains("[ledger] is missing"));
    assert_eq!(said("[ledger]").0, "config-missing-key");
    assert_eq!(said("[ledger]\nurl = \"embedded:\"").0, "config-bad-url");
    assert_eq!(said("[ledger]\nurl = \"data\"").0, "config-bad-url");
    let (code, text) = said("[ledger]\nurl = \"redis://h\"");
    assert_eq!(code, "config-unsupported");
    assert!(text.contains("this version has no redis: ledger"), "{text}");
    assert_eq!(said("ledger = 5").0, "config-wrong-type");
    assert_eq!(
        said("[ledger]\nurl = \"embedded:d\"\nretention = \"1s\"").0,
        "config-out-of-bounds"
    );
}

#[test]
fn ids_are_remembered_for_longer_than_events_come_again() {
    let text = |retention: &str, stream: &str| {
        format!(
            "[ledger]\nurl = \"embedded:data\"\nretention = \"{retention}\"\n[broker.log]\nurl = \"embedded:\"\n[broker.nats]\nurl = \"nats://h\"\n\
             [stream.log]\nbroker = \"log\"\n[stream.js]\nbroker = \"nats\"\nsubjects = [\"a\"]\nack_wait = \"1m\"\n\
             [consumer.x]\nplugin = \"plugins/inventory\"\nreads = \"{stream}\"\nretry = {{ attempts = 5, backoff = \"1s..15s\" }}\n"
        )
    };
    // 5 attempts of 2 s and 4 pauses of 15 s: 70 s; on JetStream 3 ack waits of 1 m more: 250 s.
    assert!(parsed(&text("71s", "log"), &no_env).is_ok());
    assert!(parsed(&text("251s", "js"), &no_env).is_ok());
    let problem = |retention: &str, stream: &str| parsed(&text(retention, stream), &no_env).unwrap_err().0.remove(0);
    let problem = (problem("70s", "log"), problem("250s", "js"));
    assert_eq!(problem.0.code, Code::RetentionTooShort);
    assert_eq!(
        problem.0.message,
        "`retention` is 1m10s, but consumer \"x\" may be given an event of stream \"log\" again for 1m10s (5 attempts of 2s and 4 pauses of 15s)"
    );
    assert!(
        problem
            .1
            .message
            .contains("again for 4m10s (3 ack waits of 1m, 5 attempts of 2s and 4 pauses of 15s)")
    );
    assert_eq!(problem.1.place.map(|place| (place.line, place.column)), Some((3, 13)));
}

#[test]
fn a_consumer_that_may_read_what_it_writes_is_warned_of() {
    let of = |lines: &str| format!("[consumer.x]\nplugin = \"plugins/inventory\"\nreads = \"in\"\n{lines}\n");
    check(
        &of("writes = \"in\""),
        "config-loop",
        (4, 10),
        &["writes \"*\" to stream \"in\"", "narrow its `types`"],
    );
    check(
        &of("types = [\"a.*\"]\nwrites = { \"a.b\" = \"in\" }"),
        "config-loop",
        (5, 10),
        &["writes \"a.b\""],
    );
    let said = said(&of("types = [\"a.*\"]\nwrites = { \"b.*\" = \"in\" }"));
    assert!(said.is_empty(), "{said:?}");
    let loaded = parsed(&format!("{BASE}{}", of("writes = \"in\"")), &no_env).unwrap();
    assert!(loaded.warnings[0].to_string().starts_with("warning[config-loop]: "));
}

#[test]
fn a_value_can_not_break_the_lines_of_a_message() {
    let said = said("[host]\ngrace = \"\"\"\n1 x\\u001b[2J\"\"\"\n");
    assert_eq!(said[0].3, r#""1 x\u{1b}[2J" is no duration"#);
}

#[test]
fn what_is_no_toml_is_said_with_its_place() {
    let Problems(problems) = parsed("[ledger]\nurl = \"x\nother = 1\nother = 2\na b\n", &no_env).unwrap_err();
    let places: Vec<_> = problems
        .iter()
        .map(|problem| (problem.code, problem.place.as_ref().unwrap().line))
        .collect();
    assert_eq!(places, [(Code::Syntax, 2), (Code::Syntax, 4), (Code::Syntax, 5)]);
}

/// Values were masked only beside a few words, and so a key, a granted value or a text of many lines was not.
#[test]
fn values_are_not_shown_of_what_is_no_toml() {
    for (line, shown) in [
        ("key = hunter2", "key =********"),
        ("creds = hunter2", "creds =********"),
        (
            "grants = { config = { stripe = hunter2",
            "grants =******************************",
        ),
        ("  stripe = hunter2 }", "  stripe =**********"),
        ("hunter2", "*******"),
        ("aHVudGVyMg== hunter2", "********************"),
        ("\"hunter2\" = \"x", "**************"),
        ("[consumer.x] hunter2", "[consumer.x]********"),
        ("[broker.main", "[broker.main"),
    ] {
        let problems = parsed(&format!("{line}\n"), &no_env).unwrap_err();
        let place = problems.0[0].place.as_ref().unwrap();
        assert_eq!((place.line, place.text.as_str()), (1, shown), "{problems}");
    }
}

#[test]
fn a_file_that_can_not_be_read_is_said() {
    let folder = folder();
    let path = folder.path().join("none.toml");
    let problems = load(&path, &no_env).unwrap_err();
    assert_eq!(problems.0[0].code, Code::Unreadable);
    assert!(
        problems
            .to_string()
            .contains("none.toml\n  = help: name another file with --config FILE"),
        "{problems}"
    );
    std::fs::write(&path, EXAMPLE).unwrap();
    assert!(load(&path, &no_env).is_ok());
}

#[test]
fn a_mistyped_key_is_not_missing_too() {
    let consumer = "[consumer.x]\nplugin = \"plugins/inventory\"\n";
    check(
        &format!("{consumer}raeds = \"in\""),
        "config-unknown-key",
        (3, 1),
        &["unknown key `raeds`", "did you mean `reads`?"],
    );
    // Another key is missing all the same.
    let said = said("[consumer.x]\nplugn = \"plugins/inventory\"");
    let codes: Vec<_> = said.iter().map(|(code, ..)| *code).collect();
    assert_eq!(codes, ["config-missing-key", "config-unknown-key"], "{said:#?}");
    // And of another section, too.
    let text = "[legder]\nurl = \"embedded:data\"\n";
    let problems = parsed(text, &no_env).unwrap_err();
    let codes: Vec<_> = problems.0.iter().map(|problem| problem.code.as_str()).collect();
    assert_eq!(codes, ["config-unknown-key"], "{problems}");
}

#[test]
fn what_may_be_a_secret_under_an_unknown_key_is_masked() {
    let shown = |line: &str| {
        let problems = parsed(&format!("[ledger]\nurl = \"embedded:data\"\n{line}"), &no_env).unwrap_err();
        problems.to_string()
    };
    let check = |line: &str, is_masked: bool| {
        let shown = shown(line);
        assert_eq!(!shown.contains("s3cret"), is_masked, "{shown}");
        assert!(shown.contains("config-unknown-key"), "{shown}");
    };
    check("[consumer.x]\nraeds = \"s3cret\"", false);
    check("[consumer.x]\ntype = [\"s3cret\", \"b\"]", false);
    // Near `path`, and a password.
    check("[stream.x]\npass = \"s3cret\"", true);
    check("[broker.x]\npasword = \"s3cret\"", true);
    check("[broker.x]\nulr = \"nats://bob:s3cret@host\"", true);
    check("[consumer.x]\nbanana = \"s3cret\"", true);
    check("[consumer.x.grants]\nconfg = { name = \"s3cret\" }", true);
}
