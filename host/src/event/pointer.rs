//! One value out of JSON by its JSON pointer (RFC 6901), without building the rest.
//!
//! The whole text is still read once: of a member that is there twice the last counts, as it does for every guest's parser,
//! and a text that is not JSON to its end has no values.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

/// The string, number or boolean at a pointer as text: a string without its quotes, a number digit by digit as it stands there.
pub(crate) fn scalar(json: &[u8], pointer: &str) -> Option<String> {
    let tokens = tokens(pointer)?;
    let mut deserializer = serde_json::Deserializer::from_slice(json);
    let raw = Descend(&tokens).deserialize(&mut deserializer).ok()?;
    deserializer.end().ok()?;
    let raw = raw?.get();
    match raw.as_bytes().first() {
        Some(b'"') => serde_json::from_str(raw).ok(),
        Some(b'{' | b'[' | b'n') | None => None,
        Some(_) => Some(raw.to_owned()),
    }
}

/// The unescaped tokens of a pointer; `None` if it neither is empty nor begins with a slash.
fn tokens(pointer: &str) -> Option<Vec<String>> {
    if pointer.is_empty() {
        return Some(Vec::new());
    }
    let tokens = pointer.strip_prefix('/')?.split('/');
    Some(
        tokens
            .map(|token| token.replace("~1", "/").replace("~0", "~"))
            .collect(),
    )
}

/// Reads one JSON value and gives what lies at the tokens below it.
struct Descend<'t>(&'t [String]);

impl<'de> DeserializeSeed<'de> for Descend<'_> {
    type Value = Option<&'de RawValue>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        match self.0.split_first() {
            Some((token, rest)) => deserializer.deserialize_any(Step { token, rest }),
            None => serde::Deserialize::deserialize(deserializer).map(Some),
        }
    }
}

struct Step<'t> {
    token: &'t str,
    rest: &'t [String],
}

impl Step<'_> {
    /// The array index that the token stands for: no sign, no leading zero.
    fn index(&self) -> Option<usize> {
        let is_plain = self.token == "0" || !self.token.starts_with(['0', '+']);
        self.token.parse().ok().filter(|_| is_plain)
    }
}

impl<'de> Visitor<'de> for Step<'_> {
    type Value = Option<&'de RawValue>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut found = None;
        while let Some(is_wanted) = map.next_key_seed(Is(self.token))? {
            if is_wanted {
                found = map.next_value_seed(Descend(self.rest))?;
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(found)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let mut found = None;
        if let Some(index) = self.index() {
            for _ in 0..index {
                if seq.next_element::<IgnoredAny>()?.is_none() {
                    return Ok(None);
                }
            }
            found = seq.next_element_seed(Descend(self.rest))?.flatten();
        }
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(found)
    }

    // What follows has nothing below it.
    fn visit_bool<E>(self, _: bool) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_str<E>(self, _: &str) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(None)
    }
}

/// Whether a member's name is this one.
struct Is<'t>(&'t str);

impl<'de> DeserializeSeed<'de> for Is<'_> {
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<bool, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Is<'_> {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a member's name")
    }

    fn visit_str<E>(self, name: &str) -> Result<bool, E> {
        Ok(name == self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::scalar;

    fn check(json: &str, pointer: &str, expected: Option<&str>) {
        assert_eq!(
            scalar(json.as_bytes(), pointer).as_deref(),
            expected,
            "{pointer} in {json}"
        );
    }

    #[test]
    fn scalars_are_found_wherever_they_are() {
        let json = r#"{"a":{"b":[1,{"c":"x\ny"}]},"t":true,"n":null,"":"empty","a/b":1,"m~n":2,"d":1.50}"#;
        check(json, "/a/b/0", Some("1"));
        check(json, "/a/b/1/c", Some("x\ny"));
        check(json, "/t", Some("true"));
        check(json, "/", Some("empty"));
        check(json, "/a~1b", Some("1"));
        check(json, "/m~0n", Some("2"));
        check(json, "/d", Some("1.50"));
        check("\"whole\"", "", Some("whole"));
        check(" 7 ", "", Some("7"));
    }

    #[test]
    fn what_is_no_scalar_or_absent_is_none() {
        let json = r#"{"a":{"b":[1,2]},"n":null,"t":true}"#;
        for pointer in [
            "/a", "/a/b", "/n", "/x", "/a/b/2", "/a/b/01", "/a/b/-", "/a/b/+1", "/t/x", "a", "/a/b/0/c",
        ] {
            check(json, pointer, None);
        }
    }

    #[test]
    fn long_numbers_keep_their_digits() {
        let id = "123456789012345678901234567890";
        check(&format!("{{\"id\":{id}}}"), "/id", Some(id));
    }

    #[test]
    fn the_last_of_two_members_counts() {
        check(r#"{"a":1,"a":2}"#, "/a", Some("2"));
        check(r#"{"a":{"b":1},"a":2}"#, "/a/b", None);
    }

    #[test]
    fn what_is_not_json_to_its_end_has_no_values() {
        check(r#"{"a":1"#, "/a", None);
        check(r#"{"a":1} x"#, "/a", None);
        check(r#"{"a":1,"b":tru}"#, "/a", None);
        check("", "/a", None);
        assert_eq!(scalar(b"{\"a\":\"\xff\"}", "/a"), None);
    }

    #[test]
    fn depth_is_no_danger() {
        let deep = format!("{{\"x\":{}{},\"a\":1}}", "[".repeat(100_000), "]".repeat(100_000));
        check(&deep, "/a", Some("1"));
        check(&deep, &"/0".repeat(1_000), None);
    }
}
