//! What is wrong with a config, told as a compiler tells it: code, place, the line with a caret, and what to do.
//!
//! A [`Problem`] never shows a secret: the line it quotes has them masked, and its message was made without them.

use std::fmt;

use serde::{Serialize, Serializer};

/// What kind of problem it is. Each has its heading in `docs/errors.md`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Code {
    /// The file can't be read.
    Unreadable,
    /// It is no TOML.
    Syntax,
    /// A key that means nothing there.
    UnknownKey,
    /// A name that nothing in the file has.
    UnknownReference,
    /// A key that must be there is not.
    MissingKey,
    /// A number where text belongs, or the like.
    WrongType,
    /// The name of a section is no name.
    BadName,
    /// Text that is none of the allowed values.
    BadValue,
    /// Text that is no duration.
    BadDuration,
    /// Text that is no size.
    BadSize,
    /// Text that is no URL of the kind that belongs there.
    BadUrl,
    /// Text that is no address to listen on.
    BadAddress,
    /// A place on a broker (subject, path) that can't be one.
    BadPlace,
    /// A number, duration or size outside its bounds.
    OutOfBounds,
    /// `${VAR}` of a variable that is not set.
    MissingVariable,
    /// `${` that is no variable.
    BadVariable,
    /// A key that belongs to another kind of broker.
    MisplacedKey,
    /// Keys that exclude each other.
    Conflict,
    /// Something this version does not have.
    Unsupported,
    /// An embedded broker outside the ledger's folder.
    LedgerMismatch,
    /// A stream is read that can't be.
    NotReadable,
    /// A stream is written that can't be.
    NotWritable,
    /// Others can reach a listener and nothing is asked of them.
    TokenNeeded,
    /// Event ids are forgotten before their events stop coming again.
    RetentionTooShort,
    /// A consumer may read what it wrote.
    Loop,
    /// There is no plugin where the consumer looks for it.
    PluginNotFound,
    /// There is no file where a key points to.
    FileNotFound,
}

impl Code {
    /// Every code, in the order of `docs/errors.md`.
    pub const ALL: [Self; 27] = [
        Self::Unreadable,
        Self::Syntax,
        Self::UnknownKey,
        Self::UnknownReference,
        Self::MissingKey,
        Self::WrongType,
        Self::BadName,
        Self::BadValue,
        Self::BadDuration,
        Self::BadSize,
        Self::BadUrl,
        Self::BadAddress,
        Self::BadPlace,
        Self::OutOfBounds,
        Self::MissingVariable,
        Self::BadVariable,
        Self::MisplacedKey,
        Self::Conflict,
        Self::Unsupported,
        Self::LedgerMismatch,
        Self::NotReadable,
        Self::NotWritable,
        Self::TokenNeeded,
        Self::RetentionTooShort,
        Self::Loop,
        Self::PluginNotFound,
        Self::FileNotFound,
    ];

    /// The code as people meet it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unreadable => "config-unreadable",
            Self::Syntax => "config-syntax",
            Self::UnknownKey => "config-unknown-key",
            Self::UnknownReference => "config-unknown-reference",
            Self::MissingKey => "config-missing-key",
            Self::WrongType => "config-wrong-type",
            Self::BadName => "config-bad-name",
            Self::BadValue => "config-bad-value",
            Self::BadDuration => "config-bad-duration",
            Self::BadSize => "config-bad-size",
            Self::BadUrl => "config-bad-url",
            Self::BadAddress => "config-bad-address",
            Self::BadPlace => "config-bad-place",
            Self::OutOfBounds => "config-out-of-bounds",
            Self::MissingVariable => "config-missing-variable",
            Self::BadVariable => "config-bad-variable",
            Self::MisplacedKey => "config-misplaced-key",
            Self::Conflict => "config-conflict",
            Self::Unsupported => "config-unsupported",
            Self::LedgerMismatch => "config-ledger-mismatch",
            Self::NotReadable => "config-not-readable",
            Self::NotWritable => "config-not-writable",
            Self::TokenNeeded => "config-token-needed",
            Self::RetentionTooShort => "config-retention-too-short",
            Self::Loop => "config-loop",
            Self::PluginNotFound => "config-plugin-not-found",
            Self::FileNotFound => "config-file-not-found",
        }
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for Code {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

/// Whether the config can be used all the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// It can't.
    Error,
    /// It can; someone should look.
    Warning,
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// What kind of problem.
    pub code: Code,
    /// Whether the config can be used all the same.
    pub severity: Severity,
    /// What is wrong, with the value that is.
    pub message: String,
    /// The file, as it was named to us.
    pub file: String,
    /// Where in the file; absent if the problem is the file itself.
    #[serde(flatten)]
    pub place: Option<Place>,
    /// What to do.
    pub hint: Option<String>,
}

/// A place in a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Place {
    /// Counted from 1.
    pub line: usize,
    /// In characters, counted from 1.
    pub column: usize,
    /// The line, secrets masked.
    #[serde(skip)]
    pub text: String,
    /// How many characters are meant. At least 1.
    #[serde(skip)]
    pub width: usize,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let severity = match self.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        };
        write!(f, "{severity}[{}]: {}", self.code, self.message)?;
        let mut gutter = 1;
        if let Some(place) = &self.place {
            gutter = place.line.to_string().len();
            place.write_excerpt(f, &self.file, gutter)?;
        } else {
            write!(f, "\n  --> {}", self.file)?;
        }
        if let Some(hint) = &self.hint {
            write!(f, "\n{:gutter$} = help: {hint}", "")?;
        }
        Ok(())
    }
}

impl Place {
    fn write_excerpt(&self, f: &mut fmt::Formatter<'_>, file: &str, gutter: usize) -> fmt::Result {
        // Tabs stay tabs, so that the caret stands right however wide they are shown.
        let indent: String = self
            .text
            .chars()
            .take(self.column - 1)
            .map(|c| if c == '\t' { '\t' } else { ' ' })
            .collect();
        let carets = "^".repeat(self.width);
        write!(f, "\n{:gutter$}--> {file}:{}:{}", "", self.line, self.column)?;
        write!(f, "\n{:gutter$} |", "")?;
        write!(f, "\n{:gutter$} | {}", self.line, self.text)?;
        write!(f, "\n{:gutter$} | {indent}{carets}", "")
    }
}

/// All that is wrong with a config, by place. Not empty.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, thiserror::Error)]
#[serde(transparent)]
pub struct Problems(pub Vec<Problem>);

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for problem in &self.0 {
            write!(f, "{problem}\n\n")?;
        }
        let errors = self
            .0
            .iter()
            .filter(|problem| problem.severity == Severity::Error)
            .count();
        let file = self.0.first().map_or("the config", |problem| &problem.file);
        let plural = if errors == 1 { "" } else { "s" };
        write!(f, "{errors} error{plural} in {file}")
    }
}
