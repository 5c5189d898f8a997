//! Ids of dead letters, shortened as people copy them.

use std::num::NonZeroUsize;
use std::str::FromStr;

use super::List;
use super::letters::Letters;
use crate::ledger::DeadId;

/// Fewer digits are too soon those of another.
const DIGITS_MIN: usize = 6;
/// Those of a whole id.
const DIGITS_MAX: usize = 32;

/// An id, or how it begins: at least 6 of its 32 hex digits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prefix(String);

/// The text does not begin an id.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("\"{0}\" is no id of a dead letter: it has 32 hex digits, of which at least the first 6 are needed")]
pub struct NoPrefix(String);

/// It can't be told which dead letter is meant.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unclear {
    /// None is.
    #[error("no dead letter {0}: tidegate dlq list shows what there is")]
    Absent(String),
    /// More than one may be.
    #[error("{count} dead letters have an id that begins with {prefix}: give more of it")]
    Ambiguous {
        /// What was given.
        prefix: String,
        /// How many there are.
        count: usize,
    },
}

impl Unclear {
    /// The heading in `docs/errors.md`.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Absent(_) => "no-dead-letter",
            Self::Ambiguous { .. } => "bad-selection",
        }
    }
}

impl Prefix {
    /// The id, if it is one.
    pub(super) fn whole(&self) -> Option<DeadId> {
        self.0.parse().ok()
    }
}

impl FromStr for Prefix {
    type Err = NoPrefix;

    fn from_str(text: &str) -> Result<Self, NoPrefix> {
        let is_prefix =
            (DIGITS_MIN..=DIGITS_MAX).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        if is_prefix {
            Ok(Self(text.to_ascii_lowercase()))
        } else {
            Err(NoPrefix(text.chars().take(64).collect()))
        }
    }
}

/// Which are meant. Whole ids need no look, and may be of letters that are gone; what is shortened is looked for among all there are.
pub(super) async fn resolve(letters: &Letters, given: &[Prefix]) -> anyhow::Result<Vec<DeadId>> {
    let whole: Option<Vec<DeadId>> = given.iter().map(Prefix::whole).collect();
    if let Some(ids) = whole {
        return Ok(ids);
    }
    let mut sought: Vec<Sought> = given.iter().map(Sought::of).collect();
    let every = List {
        consumer: None,
        reason: None,
        limit: NonZeroUsize::MAX,
    };
    let mut after = None;
    loop {
        let page = letters.list(&every, after, usize::MAX).await?;
        for line in &page.dead_letters {
            sought.iter_mut().for_each(|sought| sought.look_at(&line.id));
        }
        after = page.next;
        if after.is_none() {
            return sought.into_iter().map(Sought::found).collect();
        }
    }
}

struct Sought<'p> {
    prefix: &'p str,
    first: Option<String>,
    count: usize,
}

impl<'p> Sought<'p> {
    fn of(prefix: &'p Prefix) -> Self {
        let prefix = prefix.0.as_str();
        let (first, count) = (None, 0);
        Self { prefix, first, count }
    }

    fn look_at(&mut self, id: &str) {
        if id.starts_with(self.prefix) {
            self.count += 1;
            self.first.get_or_insert_with(|| id.to_owned());
        }
    }

    fn found(self) -> anyhow::Result<DeadId> {
        let prefix = self.prefix.to_owned();
        match (self.first, self.count) {
            (Some(id), 1) => Ok(id.parse()?),
            (None, _) if prefix.len() == DIGITS_MAX => Ok(prefix.parse()?),
            (None, _) => Err(Unclear::Absent(prefix).into()),
            (Some(_), count) => Err(Unclear::Ambiguous { prefix, count }.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_has_six_digits_or_more() {
        let check = |text: &str, is_prefix: bool| assert_eq!(text.parse::<Prefix>().is_ok(), is_prefix, "{text}");
        check("01234", false);
        check("012345", true);
        check("ABCDEF", true);
        check("xyzxyz", false);
        check(&"0".repeat(32), true);
        check(&"0".repeat(33), false);
        assert_eq!("ABCDEF".parse(), Ok(Prefix("abcdef".to_owned())));
    }
}
