//! Names on the command line that the config does not have, and what was probably meant.

use std::fmt::Display;

use crate::config::nearest;
use crate::plan::{Name, Plan};

/// The config has no such stream.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the config has no stream {name}: {meant}")]
pub struct Stream {
    name: Name,
    meant: String,
}

impl Stream {
    /// The heading in `docs/errors.md`.
    pub const CODE: &str = "no-stream";
}

/// Whether the config has the stream.
///
/// # Errors
/// It has not.
pub fn stream(name: &Name, plan: &Plan) -> Result<(), Stream> {
    if plan.streams.contains_key(name) {
        return Ok(());
    }
    Err(Stream {
        name: name.clone(),
        meant: meant(name, plan.streams.keys()),
    })
}

/// What to say of a consumer that the config does not have. No failure: it may have been removed, and its dead letters are still there.
#[must_use]
pub fn consumer(name: &Name, plan: &Plan) -> Option<String> {
    let meant = || meant(name, plan.consumers.keys());
    (!plan.consumers.contains_key(name)).then(|| format!("warning: the config has no consumer {name}: {}", meant()))
}

fn meant<'a>(name: &Name, known: impl Iterator<Item = &'a Name> + Clone) -> String {
    let there_are = match list(known.clone()) {
        none if none.is_empty() => "it has none".to_owned(),
        some => format!("it has {some}"),
    };
    match nearest(name.as_str(), known.map(Name::as_str)) {
        Some(near) => format!("did you mean {near}? {there_are}"),
        None => there_are,
    }
}

fn list(names: impl Iterator<Item = impl Display>) -> String {
    names.map(|name| name.to_string()).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::tests::proven;

    fn name(text: &str) -> Name {
        Name::new(text).unwrap()
    }

    #[test]
    fn what_was_probably_meant_is_told() {
        let plan = proven();
        let streams = list(plan.streams.keys());
        crate::documented::documented(&[Stream::CODE]);
        assert_eq!(stream(&name("orders"), &plan), Ok(()));
        let told = |text: &str| stream(&name(text), &plan).unwrap_err().to_string();
        assert_eq!(
            told("order"),
            format!("the config has no stream order: did you mean orders? it has {streams}")
        );
        assert_eq!(
            told("banana"),
            format!("the config has no stream banana: it has {streams}")
        );
    }

    #[test]
    fn a_consumer_that_is_not_there_is_no_failure() {
        let mut plan = proven();
        assert_eq!(consumer(&name("inventory"), &plan), None);
        assert_eq!(
            consumer(&name("inventry"), &plan).unwrap(),
            "warning: the config has no consumer inventry: did you mean inventory? it has inventory"
        );
        plan.consumers.clear();
        assert_eq!(
            consumer(&name("banana"), &plan).unwrap(),
            "warning: the config has no consumer banana: it has none"
        );
    }
}
