//! Media types, as far as the bindings ask about them.

/// What a `Content-Type` says of CloudEvents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Declared {
    /// One event as JSON.
    Event,
    /// A JSON array of events.
    Batch,
    /// CloudEvents in a format that we do not read.
    Unknown,
}

/// What a `Content-Type` says of CloudEvents, if anything.
pub(super) fn declared(content_type: &[u8]) -> Option<Declared> {
    let essence = essence(std::str::from_utf8(content_type).ok()?);
    let rest = strip_prefix(essence, "application/cloudevents")?;
    match rest.to_ascii_lowercase().as_str() {
        // Without a format, JSON is the one that every receiver must read.
        "" | "+json" => Some(Declared::Event),
        "-batch" | "-batch+json" => Some(Declared::Batch),
        rest if rest.starts_with(['+', '-']) => Some(Declared::Unknown),
        // Another type that happens to begin the same.
        _ => None,
    }
}

/// Whether data of this type is JSON: `*/json` or `*/*+json`.
pub(super) fn is_json(datacontenttype: &str) -> bool {
    subtype(datacontenttype).is_some_and(|subtype| subtype.eq_ignore_ascii_case("json") || ends_with(subtype, "+json"))
}

/// Whether data of this type is text for a reader, which then stands in JSON as a string; anything else is base64.
pub(super) fn is_text(datacontenttype: &str) -> bool {
    let names_text = strip_prefix(essence(datacontenttype), "text/").is_some();
    names_text
        || subtype(datacontenttype).is_some_and(|subtype| {
            ["xml", "yaml", "csv", "javascript", "x-www-form-urlencoded"]
                .iter()
                .any(|text| subtype.eq_ignore_ascii_case(text))
                || ["+xml", "+yaml"].iter().any(|suffix| ends_with(subtype, suffix))
        })
}

fn essence(media_type: &str) -> &str {
    media_type.split(';').next().unwrap_or_default().trim()
}

fn subtype(media_type: &str) -> Option<&str> {
    essence(media_type).split_once('/').map(|(_, subtype)| subtype)
}

fn strip_prefix<'a>(text: &'a str, prefix: &str) -> Option<&'a str> {
    let (head, rest) = text.split_at_checked(prefix.len())?;
    head.eq_ignore_ascii_case(prefix).then_some(rest)
}

fn ends_with(text: &str, suffix: &str) -> bool {
    text.len()
        .checked_sub(suffix.len())
        .and_then(|at| text.get(at..))
        .is_some_and(|tail| tail.eq_ignore_ascii_case(suffix))
}
