//! The file as text, and what was found wrong with it so far. Findings know bytes; here they become lines and columns, once
//! it is known which bytes are secret.

use std::ops::Range;

use super::problem::{Code, Place, Problem, Severity};

/// Bytes of the file.
pub(super) type Span = Range<usize>;

/// The text of one file, with findings on it.
pub(super) struct Sheet<'a> {
    text: &'a str,
    file: String,
    secrets: Vec<Span>,
    /// Keys that unknown ones were probably meant to be, and where their section begins.
    meant: Vec<(usize, String)>,
    findings: Vec<Finding>,
}

/// A problem that does not know its line yet.
pub(super) struct Finding {
    code: Code,
    severity: Severity,
    message: String,
    span: Span,
    hint: Option<String>,
}

impl Finding {
    /// Adds what to do.
    pub(super) fn hint(&mut self, hint: impl Into<String>) {
        self.hint = Some(one_line(&hint.into()));
    }
}

impl<'a> Sheet<'a> {
    pub(super) fn new(text: &'a str, file: String) -> Self {
        Self {
            text,
            file,
            secrets: Vec::new(),
            meant: Vec::new(),
            findings: Vec::new(),
        }
    }

    /// The bytes as they stand in the file.
    pub(super) fn raw(&self, span: &Span) -> &'a str {
        self.text.get(span.clone()).unwrap_or_default()
    }

    /// Notes that an unknown key of a section was probably meant to be this one.
    pub(super) fn mean(&mut self, key: &str, section: &Span) {
        self.meant.push((section.start, key.to_owned()));
    }

    /// Whether an unknown key of the section was probably meant to be this one.
    pub(super) fn is_meant(&self, key: &str, section: &Span) -> bool {
        self.meant
            .iter()
            .any(|(start, meant)| *start == section.start && meant == key)
    }

    /// Marks bytes that are never to be quoted.
    pub(super) fn conceal(&mut self, span: Span) {
        self.secrets.push(span);
    }

    /// Marks all but section headers and keys: in text that could not be parsed, anything else may be a secret, or part of one.
    pub(super) fn conceal_values(&mut self) {
        let mut start = 0;
        for line in self.text.split_inclusive('\n') {
            let end = start + line.len();
            self.secrets.push(start + shown(line)..end);
            start = end;
        }
    }

    pub(super) fn error(&mut self, code: Code, span: &Span, message: impl Into<String>) -> &mut Finding {
        self.find(code, Severity::Error, span, message.into())
    }

    pub(super) fn warn(&mut self, code: Code, span: &Span, message: impl Into<String>) -> &mut Finding {
        self.find(code, Severity::Warning, span, message.into())
    }

    fn find(&mut self, code: Code, severity: Severity, span: &Span, message: String) -> &mut Finding {
        self.findings.push_mut(Finding {
            code,
            severity,
            message: one_line(&message),
            span: span.clone(),
            hint: None,
        })
    }

    /// Everything found, by place: errors, then warnings.
    pub(super) fn into_problems(mut self) -> (Vec<Problem>, Vec<Problem>) {
        let mut findings = std::mem::take(&mut self.findings);
        findings.sort_by_key(|finding| finding.span.start);
        findings
            .into_iter()
            .map(|finding| self.place(finding))
            .partition(|problem| problem.severity == Severity::Error)
    }

    fn place(&self, finding: Finding) -> Problem {
        let start = floor(self.text, finding.span.start);
        let before = self.text.get(..start).unwrap_or_default();
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        let after = self.text.get(start..).unwrap_or_default();
        let line_end = start + after.find(['\r', '\n']).unwrap_or(after.len());
        let end = floor(self.text, finding.span.end).clamp(start, line_end);
        let chars = |span: Span| self.raw(&span).chars().count();
        Problem {
            code: finding.code,
            severity: finding.severity,
            message: finding.message,
            file: self.file.clone(),
            place: Some(Place {
                line: before.matches('\n').count() + 1,
                column: chars(line_start..start) + 1,
                text: self.masked(line_start..line_end),
                width: chars(start..end).max(1),
            }),
            hint: finding.hint,
        }
    }

    /// A line with a `*` for each character of a secret.
    fn masked(&self, line: Span) -> String {
        self.raw(&line)
            .char_indices()
            .map(|(at, c)| {
                let at = line.start + at;
                let secret = self.secrets.iter().any(|secret| secret.contains(&at));
                match c {
                    _ if secret => '*',
                    '\t' => c,
                    _ if c.is_control() => char::REPLACEMENT_CHARACTER,
                    _ => c,
                }
            })
            .collect()
    }
}

/// How much of a line of such text can be shown, in bytes: a header, or a key and its `=`. Keys are written as all of ours are, which a line
/// from the middle of a secret hardly is.
fn shown(line: &str) -> usize {
    let is_header = |c: char| matches!(c, 'a'..='z' | '0'..='9' | '-' | '_' | '.' | '[' | ']');
    if line.starts_with('[') {
        return line.find(|c| !is_header(c)).unwrap_or(line.len());
    }
    let is_key = |c: char| matches!(c, 'a'..='z' | '_' | ' ' | '\t');
    match line.split_once('=') {
        Some((key, _)) if key.chars().all(is_key) => key.len() + 1,
        _ => 0,
    }
}

/// Text in which line breaks and terminal codes, which a value may have, are only shown.
fn one_line(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() {
            line.extend(c.escape_default());
        } else {
            line.push(c);
        }
    }
    line
}

/// The next place at or before `at` where a character begins.
fn floor(text: &str, at: usize) -> usize {
    let at = at.min(text.len());
    (0..=at).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0)
}
