//! Checks that `docs/errors.md` has a heading for each code that people can meet. The tests of each module that has codes hand
//! in its own.

const ERRORS: &str = include_str!("../../docs/errors.md");

/// Asserts that each code has a heading (``### `code` ``) with a text below it.
pub(crate) fn documented(codes: &[&str]) {
    let written: Vec<&str> = headings()
        .filter(|(_, text)| !text.is_empty())
        .map(|(code, _)| code)
        .collect();
    let missing: Vec<_> = codes.iter().filter(|code| !written.contains(code)).collect();
    assert!(
        missing.is_empty(),
        "docs/errors.md has no heading or no text for {missing:?}"
    );
}

/// Codes and what stands below them.
fn headings() -> impl Iterator<Item = (&'static str, &'static str)> {
    ERRORS.split("\n### ").skip(1).map(|block| {
        let (heading, rest) = block.split_once('\n').unwrap_or((block, ""));
        let text = rest.split("\n## ").next().unwrap_or_default();
        (heading.trim().trim_matches('`'), text.trim())
    })
}

#[test]
fn every_reason_and_every_error_of_the_contract_is_documented() {
    documented(&crate::outcome::Reason::ALL.map(crate::outcome::Reason::as_str));
    documented(&crate::broker::Error::CODES);
    documented(&crate::ledger::Error::CODES);
    documented(&crate::app::Error::CODES);
}

#[test]
fn the_headings_about_the_config_are_its_codes_in_order() {
    let written: Vec<_> = headings()
        .map(|(code, _)| code)
        .filter(|code| code.starts_with("config-"))
        .collect();
    assert_eq!(written, crate::config::Code::ALL.map(crate::config::Code::as_str));
    documented(&written);
}

#[test]
#[should_panic(expected = "no-such-code")]
fn a_code_without_a_heading_is_found() {
    documented(&["trap", "no-such-code"]);
}
