//! What `host/fuzz` reaches here: a dead letter as a terminal shows it.

use std::path::Path;

use super::text;
use crate::admin::view::{DeadLetter, DeadLetterLine};

/// `dlq show`.
#[must_use]
pub fn shown(letter: &DeadLetter) -> String {
    text::letter(letter, Path::new("tidegate.toml"))
}

/// `dlq list`.
#[must_use]
pub fn listed(letter: DeadLetterLine) -> String {
    text::list(&[letter], false)
}
