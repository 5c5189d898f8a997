//! Keys and values as bytes. Keys are parts one after the other, each but the last with its length before it, numbers
//! big-endian: so keys sort by their parts, and no two lists of parts make the same key. Values are postcard behind a version
//! byte, so that a later format can tell what it reads.

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::Error;

/// The version byte of every value.
const VERSION: u8 = 1;

/// A key under construction.
#[derive(Default)]
pub(crate) struct Key(Vec<u8>);

impl Key {
    pub(crate) fn new() -> Self {
        Self(Vec::with_capacity(64))
    }

    /// A single byte, to tell kinds of rows in one table.
    pub(crate) fn tag(mut self, tag: u8) -> Self {
        self.0.push(tag);
        self
    }

    /// Bytes of any length up to 64 KiB, with the length before them. The engine refuses longer keys anyway, and the plan's
    /// bounds keep every part far below.
    pub(crate) fn part(mut self, part: impl AsRef<[u8]>) -> Self {
        let part = part.as_ref();
        let length = u16::try_from(part.len()).unwrap_or(u16::MAX);
        self.0.extend_from_slice(&length.to_be_bytes());
        self.0.extend_from_slice(part);
        self
    }

    /// Bytes up to the end of the key: only as the last part.
    pub(crate) fn rest(mut self, rest: impl AsRef<[u8]>) -> Self {
        self.0.extend_from_slice(rest.as_ref());
        self
    }

    /// A number.
    pub(crate) fn number(mut self, number: u64) -> Self {
        self.0.extend_from_slice(&number.to_be_bytes());
        self
    }

    /// A number that may be negative; sorts as numbers do.
    pub(crate) fn signed(self, number: i64) -> Self {
        self.number(number.cast_unsigned() ^ (1 << 63))
    }

    pub(crate) fn done(self) -> Bytes {
        self.0.into()
    }
}

/// Takes a key apart again; `None` where it is too short.
pub(crate) struct KeyReader<'a>(&'a [u8]);

impl<'a> KeyReader<'a> {
    pub(crate) fn new(key: &'a [u8]) -> Self {
        Self(key)
    }

    pub(crate) fn skip_tag(&mut self) -> Option<()> {
        self.take(1).map(|_| ())
    }

    pub(crate) fn part(&mut self) -> Option<&'a [u8]> {
        let length = u16::from_be_bytes(self.take(2)?.try_into().ok()?);
        self.take(usize::from(length))
    }

    pub(crate) fn text(&mut self) -> Option<&'a str> {
        std::str::from_utf8(self.part()?).ok()
    }

    pub(crate) fn number(&mut self) -> Option<u64> {
        Some(u64::from_be_bytes(self.take(8)?.try_into().ok()?))
    }

    pub(crate) fn signed(&mut self) -> Option<i64> {
        Some((self.number()? ^ (1 << 63)).cast_signed())
    }

    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }
}

/// The smallest key above all that begin with `prefix`.
pub(super) fn after_prefix(prefix: &[u8]) -> Option<Vec<u8>> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if let Some(next) = last.checked_add(1) {
            end.push(next);
            return Some(end);
        }
    }
    None
}

/// A value as bytes.
///
/// # Errors
/// [`Error::Unavailable`] if it can't be written as postcard, which no type of ours does.
pub(crate) fn encode<T: Serialize>(value: &T) -> Result<Bytes, Error> {
    encode_onto(Vec::with_capacity(64), value).map(Bytes::from)
}

/// The same, behind what is in `row` already.
///
/// # Errors
/// As for [`encode`].
pub(crate) fn encode_onto<T: Serialize>(mut row: Vec<u8>, value: &T) -> Result<Vec<u8>, Error> {
    row.push(VERSION);
    postcard::to_extend(value, row).map_err(|error| Error::Unavailable(format!("a row can't be written: {error}")))
}

/// A value from bytes.
///
/// # Errors
/// [`Error::Unavailable`] if the row is not one that this version wrote.
pub(crate) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Error> {
    decode_first(bytes).map(|(value, _)| value)
}

/// The value that bytes begin with, and the bytes behind it.
///
/// # Errors
/// As for [`decode`].
pub(crate) fn decode_first<T: DeserializeOwned>(bytes: &[u8]) -> Result<(T, &[u8]), Error> {
    match bytes.split_first() {
        Some((&VERSION, rest)) => postcard::take_from_bytes(rest).map_err(|error| unreadable(&error.to_string())),
        Some((version, _)) => Err(unreadable(&format!("its version is {version}"))),
        None => Err(unreadable("it is empty")),
    }
}

/// A row that makes no sense. The engine checks its blocks, so this is a bug or a downgrade rather than a bad disk.
pub(super) fn unreadable(reason: &str) -> Error {
    Error::Unavailable(format!(
        "a row can't be read: {reason}; restore the folder from a backup, or run the version that wrote it"
    ))
}
