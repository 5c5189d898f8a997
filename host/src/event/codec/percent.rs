//! Attribute values in headers: the percent-encoding of the HTTP binding (section 3.1.3.2), which NATS shares.

use std::borrow::Cow;

use percent_encoding::{AsciiSet, CONTROLS, percent_decode, utf8_percent_encode};

/// What is escaped besides control characters and everything outside ASCII.
const ESCAPED: &AsciiSet = &CONTROLS.add(b' ').add(b'"').add(b'%');

/// A value as a header writes it: printable ASCII. Most values are that already.
pub(crate) fn encode(value: &str) -> Cow<'_, str> {
    utf8_percent_encode(value, ESCAPED).into()
}

/// A value as a header wrote it: quotes undone, then one round of percent-decoding. A `%` that begins no escape stays, as older
/// producers escaped nothing.
pub(super) fn decode(header: &[u8]) -> Result<String, &'static str> {
    let unquoted = unquote(header.trim_ascii())?;
    let bytes = Cow::from(percent_decode(&unquoted));
    String::from_utf8(bytes.into_owned()).map_err(|_| "it is not UTF-8 once its escapes are undone")
}

/// Undoes double-quoted strings (RFC 7230, section 3.2.6).
fn unquote(header: &[u8]) -> Result<Cow<'_, [u8]>, &'static str> {
    if !header.contains(&b'"') {
        return Ok(Cow::Borrowed(header));
    }
    let mut plain = Vec::with_capacity(header.len());
    let mut is_quoted = false;
    let mut bytes = header.iter().copied();
    while let Some(byte) = bytes.next() {
        match byte {
            b'"' => is_quoted = !is_quoted,
            b'\\' if is_quoted => plain.push(bytes.next().ok_or("its last backslash escapes nothing")?),
            other => plain.push(other),
        }
    }
    if is_quoted {
        return Err("a double quote is not closed: escape it as %22");
    }
    Ok(Cow::Owned(plain))
}
