//! State that lives from event to event (`wasi:keyvalue`; grant `state = true`).
//!
//! Writes take effect with everything else the attempt does, or not at all. What an attempt read is checked when it is committed:
//! if another event has changed it meanwhile, the handler runs again. [`Bucket::increment`] merges instead, and so never runs
//! into another.
//!
//! ```
//! # fn main() -> Result<(), tidegate_plugin::Failure> {
//! use tidegate_plugin::state;
//!
//! let stock = state::bucket("stock")?;
//! let left: u32 = stock.json("sku-1")?.unwrap_or(100);
//! stock.set_json("sku-1", &(left - 1))?;
//! # Ok(()) }
//! ```

use std::fmt;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::{Failure, host};

/// Opens one of the consumer's buckets; it begins empty. No other consumer sees it.
///
/// # Errors
/// [`Error`] if the host refuses its name; `?` makes the fitting failure of it, as of every error here.
pub fn bucket(name: &str) -> Result<Bucket, Error> {
    host::Bucket::open(name).map(Bucket)
}

/// An open bucket. Opening it twice gives the same keys.
#[derive(Debug)]
pub struct Bucket(host::Bucket);

impl Bucket {
    /// The value of a key, if it has one.
    ///
    /// # Errors
    /// [`Error`] if the key has no byte or more than 1,024.
    pub fn get(&self, key: &str) -> Result<Option<Vec<u8>>, Error> {
        self.0.get(key)
    }

    /// Sets a key.
    ///
    /// # Errors
    /// [`Error`] if the key is none, as for [`Bucket::get`], or the write is over the consumer's limits.
    pub fn set(&self, key: &str, value: impl AsRef<[u8]>) -> Result<(), Error> {
        self.0.set(key, value.as_ref())
    }

    /// Deletes a key; one that is absent stays so.
    ///
    /// # Errors
    /// As for [`Bucket::set`].
    pub fn delete(&self, key: &str) -> Result<(), Error> {
        self.0.delete(key)
    }

    /// Whether a key has a value.
    ///
    /// # Errors
    /// As for [`Bucket::get`].
    pub fn exists(&self, key: &str) -> Result<bool, Error> {
        self.0.exists(key)
    }

    /// Adds to a counter, which is absent at 0, and returns its new value as far as this attempt can know: what others add
    /// meanwhile is merged at commit.
    ///
    /// # Errors
    /// [`Error`] if the key holds something that is no counter.
    pub fn increment(&self, key: &str, delta: i64) -> Result<i64, Error> {
        self.0.increment(key, delta)
    }

    /// All keys, page by page, in no promised order.
    #[must_use]
    pub fn keys(&self) -> Keys<'_> {
        Keys {
            bucket: self,
            page: Vec::new().into_iter(),
            next: Next::First,
        }
    }

    /// The value of a key, read as JSON.
    ///
    /// # Errors
    /// [`Failure::Permanent`] if the value is something else, or the key is none.
    pub fn json<T: DeserializeOwned>(&self, key: &str) -> Result<Option<T>, Failure> {
        let Some(value) = self.get(key)? else {
            return Ok(None);
        };
        let read = serde_json::from_slice(&value);
        read.map(Some).map_err(|error| {
            Failure::permanent(format!("state under \"{key}\" is not what the plugin expects: {error}"))
        })
    }

    /// Sets a key to a value, written as JSON.
    ///
    /// # Errors
    /// As for [`Bucket::json`].
    pub fn set_json<T: Serialize + ?Sized>(&self, key: &str, value: &T) -> Result<(), Failure> {
        let value = serde_json::to_vec(value)
            .map_err(|error| Failure::permanent(format!("state under \"{key}\" can't be written as JSON: {error}")))?;
        Ok(self.set(key, value)?)
    }
}

/// The keys of a bucket. Ends after the first error.
#[derive(Debug)]
pub struct Keys<'a> {
    bucket: &'a Bucket,
    page: std::vec::IntoIter<String>,
    next: Next,
}

#[derive(Debug)]
enum Next {
    First,
    After(String),
    End,
}

impl Iterator for Keys<'_> {
    type Item = Result<String, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(key) = self.page.next() {
                return Some(Ok(key));
            }
            let cursor = match std::mem::replace(&mut self.next, Next::End) {
                Next::First => None,
                Next::After(cursor) => Some(cursor),
                Next::End => return None,
            };
            match self.bucket.0.list(cursor) {
                Ok((keys, cursor)) => {
                    self.page = keys.into_iter();
                    self.next = cursor.map_or(Next::End, Next::After);
                }
                Err(error) => return Some(Err(error)),
            }
        }
    }
}

/// The state was not read or written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Error {
    /// The consumer has no grant for it.
    Denied,
    /// What the host refused, in its words.
    Other(String),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Denied => f.write_str("state is not granted: set `grants = { state = true }` on the consumer"),
            Self::Other(reason) => write!(f, "state: {reason}"),
        }
    }
}

impl std::error::Error for Error {}

/// What the host refuses, a key or a write over its bounds, it refuses at every attempt: permanent. A missing grant is the config's
/// fault and may be mended. A store out of reach is neither: the host ends the attempt itself, and nobody is told.
impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        match error {
            Error::Denied => Self::transient(error.to_string()),
            Error::Other(_) => Self::permanent(error.to_string()),
        }
    }
}
