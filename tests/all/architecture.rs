//! Holds `docs/ARCHITECTURE.md` against the code: its import map and its absences.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Every Rust file of the host with its top module.
fn sources() -> Vec<(String, PathBuf, String)> {
    let mut found = Vec::new();
    let src = root().join("host/src");
    let mut folders = vec![src.clone()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let inner = path.strip_prefix(&src).unwrap();
                let top = inner.components().next().unwrap().as_os_str().to_str().unwrap();
                let text = fs::read_to_string(&path).unwrap();
                found.push((top.trim_end_matches(".rs").to_owned(), path.clone(), text));
            }
        }
    }
    assert!(found.len() > 20, "the host's sources are not where this test looks");
    found
}

/// The code of a file without its comments and unit tests.
fn code(text: &str) -> String {
    let text = text.split("#[cfg(test)]").next().unwrap();
    let is_code = |line: &&str| !line.trim_start().starts_with("//");
    text.lines().filter(is_code).collect::<Vec<_>>().join("\n")
}

fn map() -> BTreeMap<String, BTreeSet<String>> {
    let text = fs::read_to_string(root().join("docs/ARCHITECTURE.md")).unwrap();
    let block = text.split("```imports\n").nth(1).unwrap().split("```").next().unwrap();
    let line = |line: &str| {
        let (module, uses) = line.split_once("->").unwrap();
        (
            module.trim().to_owned(),
            uses.split_whitespace().map(str::to_owned).collect(),
        )
    };
    block.lines().map(line).collect()
}

/// The modules of this crate that a file names.
fn used(code: &str) -> BTreeSet<String> {
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let names = code.split("crate::").skip(1).flat_map(|rest| {
        // `crate::name…` or `crate::{name, name…}`.
        let names = match rest.strip_prefix('{') {
            Some(group) => group.split('}').next().unwrap().split(',').collect(),
            None => vec![rest],
        };
        let first = move |name: &str| name.trim().split(|c| !is_name(c)).next().unwrap().to_owned();
        names.into_iter().map(first).collect::<Vec<_>>()
    });
    names
        .filter(|name| name.chars().next().is_some_and(char::is_lowercase))
        .collect()
}

#[test]
fn modules_use_only_what_the_map_allows() {
    let map = map();
    let mut wrong = Vec::new();
    for (module, path, text) in sources() {
        if matches!(module.as_str(), "lib" | "main") || is_test(&path) {
            continue;
        }
        let allowed = map.get(&module).unwrap_or_else(|| panic!("{module} is not in the map"));
        for used in used(&code(&text)) {
            if used != module && !allowed.contains(&used) {
                wrong.push(format!("{} uses {used}", path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "not in docs/ARCHITECTURE.md:\n{}", wrong.join("\n"));
}

#[test]
fn the_map_names_no_use_that_is_gone() {
    let mut seen: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (module, _, text) in sources() {
        seen.entry(module).or_default().extend(used(&text));
    }
    let mut gone = Vec::new();
    for (module, allowed) in map() {
        let seen = seen.get(&module).unwrap_or_else(|| panic!("{module} is gone"));
        gone.extend(allowed.difference(seen).map(|used| format!("{module} -> {used}")));
    }
    assert!(
        gone.is_empty(),
        "nobody does this any more, take it out of the map: {gone:?}"
    );
}

#[test]
fn each_foreign_crate_is_named_in_one_place() {
    for (name, places) in [
        ("wasmtime", "plugin"),
        ("fjall", "store"),
        ("async_nats", "broker/nats"),
    ] {
        let mut named = 0;
        for (_, path, text) in sources() {
            if !code(&text).contains(&format!("{name}::")) {
                continue;
            }
            named += 1;
            let inner = path
                .strip_prefix(root().join("host/src"))
                .unwrap()
                .to_str()
                .unwrap()
                .to_owned();
            assert!(inner.starts_with(places), "{inner} names {name}");
        }
        assert!(named > 0, "nothing names {name}: this test looks for the wrong thing");
    }
}

fn is_test(path: &Path) -> bool {
    let name = path.file_name().unwrap().to_str().unwrap();
    name == "tests.rs" || name == "suite.rs" || path.components().any(|part| part.as_os_str() == "tests")
}
