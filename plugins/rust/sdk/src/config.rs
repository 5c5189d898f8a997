//! The consumer's `grants.config` (`wasi:config`). Granting it is what makes the import possible.

use crate::{Failure, host};

/// The value under a key, if there is one.
///
/// # Errors
/// [`Error`] if the host can't tell; `?` makes a transient failure of it.
pub fn get(key: &str) -> Result<Option<String>, Error> {
    host::config_get(key).map_err(Error)
}

/// The config could not be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error(String);

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "config can't be read: {}", self.0)
    }
}

impl std::error::Error for Error {}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::transient(error.to_string())
    }
}
