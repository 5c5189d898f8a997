//! Header lines in one piece of memory: a message has about ten, and one allocation for each name and value would cost more than all
//! else that is done with them.

use std::fmt;

use bytes::Bytes;
use serde::de::{SeqAccess, Visitor};
use serde::ser::SerializeSeq;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Bytes before each line: the lengths of its name and its value.
const LENGTH: usize = size_of::<usize>();

/// Header lines. Names keep the case they arrived with and are compared without it; values are bytes, since nothing
/// promises that they are text. Cloning copies them, in one allocation.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Headers(Vec<u8>);

impl Headers {
    /// No lines yet, but memory for so many, whose names and values have so many bytes together.
    #[must_use]
    pub fn with_capacity(lines: usize, bytes: usize) -> Self {
        Self(Vec::with_capacity(lines * 2 * LENGTH + bytes))
    }

    /// The first value under `name`, in whatever case.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&[u8]> {
        let mut lines = self.lines();
        lines
            .find(|(found, _)| found.eq_ignore_ascii_case(name.as_bytes()))
            .map(|(_, value)| value)
    }

    /// Adds a line.
    pub fn push(&mut self, name: impl AsRef<str>, value: impl AsRef<[u8]>) {
        let (name, value) = (name.as_ref().as_bytes(), value.as_ref());
        self.0.reserve(2 * LENGTH + name.len() + value.len());
        self.0.extend_from_slice(&name.len().to_le_bytes());
        self.0.extend_from_slice(&value.len().to_le_bytes());
        self.0.extend_from_slice(name);
        self.0.extend_from_slice(value);
    }

    /// All lines in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &[u8])> {
        // Only text is pushed as a name.
        self.lines()
            .map(|(name, value)| (std::str::from_utf8(name).unwrap_or_default(), value))
    }

    /// Whether there is no line.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The bytes of all names and values.
    #[must_use]
    pub fn size(&self) -> usize {
        self.lines().map(|(name, value)| name.len() + value.len()).sum()
    }

    fn lines(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        let mut rest = self.0.as_slice();
        std::iter::from_fn(move || {
            let (name, after) = rest.split_first_chunk::<LENGTH>()?;
            let (value, after) = after.split_first_chunk::<LENGTH>()?;
            let (name, after) = after.split_at_checked(usize::from_le_bytes(*name))?;
            let (value, after) = after.split_at_checked(usize::from_le_bytes(*value))?;
            rest = after;
            Some((name, value))
        })
    }
}

impl fmt::Debug for Headers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines = self.lines();
        f.debug_list()
            .entries(lines.map(|(name, value)| format!("{}: {}", name.escape_ascii(), value.escape_ascii())))
            .finish()
    }
}

/// What is stored and sent has pairs of text and bytes.
impl Serialize for Headers {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut lines = serializer.serialize_seq(Some(self.lines().count()))?;
        for (name, value) in self.iter() {
            lines.serialize_element(&(name, Value(value)))?;
        }
        lines.end()
    }
}

struct Value<'a>(&'a [u8]);

impl Serialize for Value<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(self.0)
    }
}

impl<'de> Deserialize<'de> for Headers {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(Lines)
    }
}

struct Lines;

impl<'de> Visitor<'de> for Lines {
    type Value = Headers;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("header lines")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Headers, A::Error> {
        let mut headers = Headers::default();
        while let Some((name, value)) = seq.next_element::<(String, Bytes)>()? {
            headers.push(name, value);
        }
        Ok(headers)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers() -> Headers {
        let mut headers = Headers::default();
        headers.push("ce-id", "17");
        headers.push("Empty", "");
        headers.push("raw", [0xff, b'\n']);
        headers.push("CE-ID", "18");
        headers
    }

    #[test]
    fn lines_keep_their_order_and_bytes() {
        let headers = headers();
        let lines: Vec<_> = headers.iter().collect();
        assert_eq!(
            lines,
            [
                ("ce-id", &b"17"[..]),
                ("Empty", b""),
                ("raw", b"\xff\n"),
                ("CE-ID", b"18")
            ]
        );
        assert_eq!(headers.get("Ce-Id"), Some(&b"17"[..]), "the first, in whatever case");
        assert_eq!(headers.get("absent"), None);
        assert_eq!(
            format!("{headers:?}"),
            r#"["ce-id: 17", "Empty: ", "raw: \xff\n", "CE-ID: 18"]"#.replace('\\', "\\\\")
        );
    }

    /// Rows in a store and answers of the admin API were written like this from the beginning.
    #[test]
    fn they_are_stored_as_pairs() {
        let pairs: Vec<(String, Bytes)> = headers()
            .iter()
            .map(|(name, value)| (name.to_owned(), Bytes::copy_from_slice(value)))
            .collect();
        let stored = postcard::to_allocvec(&pairs).unwrap();
        assert_eq!(postcard::to_allocvec(&headers()).unwrap(), stored);
        assert_eq!(postcard::from_bytes::<Headers>(&stored).unwrap(), headers());
        let text = serde_json::to_string(&pairs).unwrap();
        assert_eq!(serde_json::to_string(&headers()).unwrap(), text);
        assert_eq!(serde_json::from_str::<Headers>(&text).unwrap(), headers());
    }
}
