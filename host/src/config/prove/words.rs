//! The little languages in a config's strings: templates, origins, keys, type patterns, NATS subjects. Text in, value out;
//! an error says what is wrong with the text.

use crate::config::location;
use crate::plan::{Key, Origin, Template, TemplatePart, TypePattern};

/// `stock.{type}`: attributes in braces; `{{` and `}}` stand for braces.
pub(super) fn template(text: &str) -> Result<Template, String> {
    let mut parts = Vec::new();
    let mut literal = String::new();
    let mut rest = text;
    while let Some(at) = rest.find(['{', '}']) {
        let (before, brace) = rest.split_at(at);
        literal.push_str(before);
        if let Some(after) = brace.strip_prefix("{{") {
            literal.push('{');
            rest = after;
        } else if let Some(after) = brace.strip_prefix("}}") {
            literal.push('}');
            rest = after;
        } else {
            let (name, after) = brace
                .strip_prefix('{')
                .and_then(|inside| inside.split_once('}'))
                .ok_or_else(|| format!("\"{text}\" has a brace without its other half"))?;
            if !literal.is_empty() {
                parts.push(TemplatePart::Literal(std::mem::take(&mut literal)));
            }
            parts.push(TemplatePart::Attribute(attribute(name)?));
            rest = after;
        }
    }
    literal.push_str(rest);
    if !literal.is_empty() {
        parts.push(TemplatePart::Literal(literal));
    }
    Ok(Template { parts })
}

/// Where a mapping takes a value from.
pub(super) fn origin(text: &str) -> Result<Origin, String> {
    match text {
        "" => Err("an empty text is no attribute".to_owned()),
        "subject" => Ok(Origin::Subject),
        "hash" => Ok(Origin::Hash),
        _ => {
            if let Some(name) = text.strip_prefix("header:") {
                header(name).map(Origin::Header)
            } else if let Some(path) = text.strip_prefix("data:") {
                pointer(path).map(Origin::Data)
            } else {
                Ok(Origin::Fixed(text.to_owned()))
            }
        }
    }
}

/// Where the ordering key is.
pub(super) fn key(text: &str) -> Result<Key, String> {
    match text.strip_prefix("data:") {
        Some(path) => pointer(path).map(Key::Data),
        None if text == "none" => Ok(Key::None),
        None => attribute(text).map(Key::Attribute),
    }
}

/// A type, or a prefix of types and `*`.
pub(super) fn type_pattern(text: &str) -> Result<TypePattern, String> {
    let (prefix, is_prefix) = match text.strip_suffix('*') {
        Some(prefix) => (prefix, true),
        None => (text, false),
    };
    if text.is_empty() {
        Err("an empty text is no type".to_owned())
    } else if prefix.contains('*') {
        Err(format!("\"{text}\" has a * that is not at its end"))
    } else if is_prefix {
        Ok(TypePattern::Prefix(prefix.to_owned()))
    } else {
        Ok(TypePattern::Exact(prefix.to_owned()))
    }
}

/// A pinned digest.
pub(super) fn digest(text: &str) -> Result<String, String> {
    let hex = text.strip_prefix("sha256:").unwrap_or_default();
    let is_hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    if hex.len() == 64 && hex.bytes().all(is_hex) {
        Ok(text.to_owned())
    } else {
        Err(format!(
            "\"{text}\" is no digest: write sha256: and 64 hex digits (`tidegate inspect FILE.wasm` shows it)"
        ))
    }
}

/// An origin of the web: scheme, host and maybe a port.
pub(super) fn web_origin(text: &str) -> Result<String, String> {
    let origin = url::Url::parse(text)
        .ok()
        .filter(|url| matches!(url.scheme(), "http" | "https"))
        .map(|url| url.origin().ascii_serialization());
    match origin {
        Some(origin) if origin == text.trim_end_matches('/') => Ok(origin),
        _ => Err(format!(
            "\"{}\" is no origin: write only scheme, host and port, as in https://api.example.com",
            location::redacted(text)
        )),
    }
}

/// A NATS subject that is read; wildcards are welcome.
pub(super) fn nats_filter(text: &str) -> Result<String, String> {
    let tokens: Vec<&str> = text.split('.').collect();
    let last = tokens.len() - 1;
    let bad = tokens.iter().enumerate().any(|(at, token)| {
        let wildcard = *token == "*" || (*token == ">" && at == last);
        !wildcard && (token.contains(['*', '>']) || !is_token(token))
    });
    if bad {
        return Err(format!(
            "\"{text}\" is no NATS subject: dots between words without blanks, `*` for one word, `>` at the end for the rest"
        ));
    }
    Ok(text.to_owned())
}

/// A NATS subject that is written: a template without wildcards.
pub(super) fn nats_subject(text: &str) -> Result<Template, String> {
    let template = template(text)?;
    let filled: String = template
        .parts
        .iter()
        .map(|part| match part {
            TemplatePart::Literal(literal) => literal.as_str(),
            TemplatePart::Attribute(_) => "x",
        })
        .collect();
    if filled.contains(['*', '>']) {
        return Err(format!("\"{text}\" has a wildcard: events are written to one subject"));
    }
    if filled.split('.').all(is_token) {
        Ok(template)
    } else {
        Err(format!(
            "\"{text}\" is no NATS subject: dots between words without blanks"
        ))
    }
}

/// The name of a JetStream stream.
pub(super) fn nats_stream(text: &str) -> Result<String, String> {
    if is_token(text) && !text.contains(['.', '*', '>', '/', '\\']) {
        Ok(text.to_owned())
    } else {
        Err(format!(
            "\"{text}\" is no name of a JetStream stream: it has no blanks and none of . * > / \\"
        ))
    }
}

/// A path that takes events over HTTP.
pub(super) fn route(text: &str) -> Result<String, String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/-_.~".contains(c);
    if text.starts_with('/') && text.chars().all(plain) {
        Ok(text.to_owned())
    } else {
        Err(format!(
            "\"{text}\" is no path: write a / and then letters, digits and any of / - _ . ~"
        ))
    }
}

fn is_token(token: &str) -> bool {
    !token.is_empty() && !token.contains(|c: char| c.is_whitespace() || c.is_control())
}

/// The name of a CloudEvents attribute.
fn attribute(text: &str) -> Result<String, String> {
    let fits = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    if !text.is_empty() && text.bytes().all(fits) {
        Ok(text.to_owned())
    } else {
        Err(format!(
            "\"{text}\" is no attribute of an event: their names have only a-z and 0-9"
        ))
    }
}

fn header(text: &str) -> Result<String, String> {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    if !text.is_empty() && text.bytes().all(fits) {
        Ok(text.to_owned())
    } else {
        Err(format!("\"{text}\" is no name of a header"))
    }
}

/// A JSON pointer (RFC 6901).
fn pointer(text: &str) -> Result<String, String> {
    let escapes_end = text.split('~').skip(1).all(|after| after.starts_with(['0', '1']));
    if text.starts_with('/') && escapes_end {
        Ok(text.to_owned())
    } else {
        Err(format!(
            "\"{text}\" is no JSON pointer: write data:/name or data:/outer/inner, with ~0 for ~ and ~1 for /"
        ))
    }
}
