//! `${VAR}` and `${VAR:-default}` in the strings of a config.

/// Why a text can't be filled in. `at` is the byte of the text where the `$` stands.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Error {
    #[error("the environment variable {name} is not set")]
    Missing { name: String, at: usize },
    #[error("`${{` without its `}}`")]
    Unclosed { at: usize },
    #[error("\"{name}\" is no name of an environment variable")]
    BadName { name: String, at: usize },
}

/// Fills in variables. `${VAR:-default}` gives `default` (which ends at the first `}`) if the variable is unset or empty;
/// `$${` stands for `${`; a `$` before anything else stands for itself. What a variable holds is taken as it is.
pub(super) fn interpolate(text: &str, env: &dyn Fn(&str) -> Option<String>) -> Result<String, Error> {
    let mut filled = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(dollar) = rest.find("${") {
        let at = text.len() - rest.len() + dollar;
        let (before, from_dollar) = rest.split_at(dollar);
        let inside = from_dollar.strip_prefix("${").unwrap_or_default();
        if let Some(before) = before.strip_suffix('$') {
            filled.push_str(before);
            filled.push_str("${");
            rest = inside;
            continue;
        }
        filled.push_str(before);
        let Some((expression, after)) = inside.split_once('}') else {
            return Err(Error::Unclosed { at });
        };
        filled.push_str(&value(expression, at, env)?);
        rest = after;
    }
    filled.push_str(rest);
    Ok(filled)
}

fn value(expression: &str, at: usize, env: &dyn Fn(&str) -> Option<String>) -> Result<String, Error> {
    let (name, default) = match expression.split_once(":-") {
        Some((name, default)) => (name, Some(default)),
        None => (expression, None),
    };
    if !is_variable(name) {
        return Err(Error::BadName {
            name: name.to_owned(),
            at,
        });
    }
    match (env(name), default) {
        (Some(value), None) => Ok(value),
        (Some(value), Some(_)) if !value.is_empty() => Ok(value),
        (_, Some(default)) => Ok(default.to_owned()),
        (None, None) => Err(Error::Missing {
            name: name.to_owned(),
            at,
        }),
    }
}

/// Whether a text is one variable and nothing else, without a default.
pub(super) fn is_one_variable(text: &str) -> bool {
    let name = text.strip_prefix("${").and_then(|rest| rest.strip_suffix('}'));
    name.is_some_and(is_variable)
}

fn is_variable(name: &str) -> bool {
    !name.is_empty()
        && !name.starts_with(|c: char| c.is_ascii_digit())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(text: &str) -> Result<String, Error> {
        interpolate(text, &|name| match name {
            "HOST" => Some("nats.example".to_owned()),
            "EMPTY" => Some(String::new()),
            "TRICK" => Some("${HOST}".to_owned()),
            _ => None,
        })
    }

    #[test]
    fn variables_and_defaults_are_filled_in() {
        for (text, expected) in [
            ("plain $5", "plain $5"),
            ("nats://${HOST}:4222", "nats://nats.example:4222"),
            ("${HOST}${HOST}", "nats.examplenats.example"),
            ("${NONE:-embedded:./data}", "embedded:./data"),
            ("${NONE:-}", ""),
            ("${EMPTY}", ""),
            ("${EMPTY:-default}", "default"),
            ("${HOST:-default}", "nats.example"),
            ("$${HOST} is ${HOST}", "${HOST} is nats.example"),
            ("${TRICK}", "${HOST}"),
        ] {
            assert_eq!(filled(text).as_deref(), Ok(expected), "{text}");
        }
    }

    #[test]
    fn what_can_not_be_filled_in_says_where() {
        let missing = |name: &str, at| Error::Missing {
            name: name.to_owned(),
            at,
        };
        let bad = |name: &str, at| Error::BadName {
            name: name.to_owned(),
            at,
        };
        assert_eq!(filled("a${NONE}"), Err(missing("NONE", 1)));
        assert_eq!(filled("${HOST}${NONE}"), Err(missing("NONE", 7)));
        assert_eq!(filled("ab${HOST"), Err(Error::Unclosed { at: 2 }));
        assert_eq!(filled("${}"), Err(bad("", 0)));
        assert_eq!(filled("${1A}"), Err(bad("1A", 0)));
        assert_eq!(filled("${A B}"), Err(bad("A B", 0)));
    }
}
