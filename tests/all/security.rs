//! Holds `docs/security.md` and `docs/reliability.md` against the code: each claim names tests, and each of them exists.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

/// The names of all tests, those that suites make of their promises too.
fn tests() -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut folders = vec![root().join("host/src"), root().join("tests/all")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).unwrap();
                found.extend(if path.ends_with("suite.rs") {
                    promises(&text)
                } else {
                    named(&text)
                });
            }
        }
    }
    found
}

/// The function after each attribute that makes a test of it.
fn named(text: &str) -> Vec<String> {
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    let is_test = |line: &str| line == "#[test]" || line.starts_with("#[tokio::test");
    let name = |after: &[&str]| {
        let line = after.iter().find(|line| !line.starts_with('#'))?;
        let name = line.split_once("fn ")?.1.split('(').next()?;
        Some(name.to_owned())
    };
    let tests = lines.iter().enumerate().filter(|(_, line)| is_test(line));
    tests.filter_map(|(at, _)| name(&lines[at + 1..])).collect()
}

/// Names that stand alone on their lines: what the macro of a suite lists.
fn promises(text: &str) -> Vec<String> {
    let is_name = |line: &&str| {
        !line.is_empty()
            && line
                .chars()
                .all(|c| c.is_ascii_lowercase() || c == '_' || c.is_ascii_digit())
    };
    text.lines().map(str::trim).filter(is_name).map(str::to_owned).collect()
}

/// Each claim with the tests that it names.
fn claims(document: &str) -> Vec<(&str, Vec<&str>)> {
    let tables = document.split("| claim | shown by |\n| --- | --- |\n").skip(1);
    let rows = tables.flat_map(|table| {
        table
            .lines()
            .map_while(|line| line.strip_prefix("| ")?.strip_suffix(" |"))
    });
    rows.filter_map(|row| row.rsplit_once(" | "))
        .map(|(claim, tests)| (claim, tests.split('`').skip(1).step_by(2).collect()))
        .collect()
}

/// What is wrong with a document of claims.
fn wrong(document: &str, tests: &BTreeSet<String>) -> Vec<String> {
    let mut wrong = Vec::new();
    for (claim, named) in claims(document) {
        if named.is_empty() {
            wrong.push(format!("no test: {claim}"));
        }
        let absent = named.iter().filter(|name| !tests.contains(**name));
        wrong.extend(absent.map(|name| format!("there is no test {name}: {claim}")));
    }
    wrong
}

#[test]
fn every_claim_names_tests_that_exist() {
    let tests = tests();
    for (name, least) in [("docs/security.md", 20), ("docs/reliability.md", 10)] {
        let document = fs::read_to_string(root().join(name)).unwrap();
        assert!(
            claims(&document).len() >= least,
            "the tables of {name} are not where this test looks"
        );
        let wrong = wrong(&document, &tests);
        assert!(wrong.is_empty(), "{name}:\n{}", wrong.join("\n"));
    }
}

#[test]
fn a_claim_without_a_test_is_found() {
    let document = "| claim | shown by |\n| --- | --- |\n| a | `no_such_test` |\n| b | later |\n| c | `a_claim_without_a_test_is_found` |\n";
    let expected = ["there is no test no_such_test: a", "no test: b"];
    assert_eq!(wrong(document, &tests()), expected);
}
