//! What of a URL may be shown: never who asks, and with what password or token.

/// A URL without what stands before its `@` and behind its `?`. Where the `@` stands behind the `?`, a password may have been written as it
/// is, or what is asked for may have an `@` in it: nothing is left but the scheme.
pub(super) fn redacted(url: &str) -> String {
    match url.split_once(['?', '#']) {
        Some((before, after)) if after.contains('@') => match split_scheme(before) {
            Some((scheme, _)) => format!("{scheme}://***"),
            None => "***".to_owned(),
        },
        Some((before, _)) => format!("{}?***", without_user(before)),
        None => without_user(url),
    }
}

/// The scheme of a URL and what follows. What stands before `://` and is no scheme may be a part of a password.
pub(super) fn split_scheme(url: &str) -> Option<(&str, &str)> {
    let is_scheme = |c: char| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.');
    url.split_once("://")
        .filter(|(scheme, _)| scheme.chars().all(is_scheme))
}

fn without_user(url: &str) -> String {
    let (scheme, rest) = split_scheme(url).unwrap_or(("", url));
    match rest.rsplit_once('@') {
        Some((_, host)) if scheme.is_empty() => format!("***@{host}"),
        Some((_, host)) => format!("{scheme}://***@{host}"),
        None => url.to_owned(),
    }
}
