//! Reads TOML into the sections of [`file`](super::file), and goes on after a problem, so that all of them are found at once.
//!
//! Serde would stop at the first. Each type that a key can have says here how it is read ([`Written`]); a section is a struct
//! that [`section!`] makes readable, so that its keys, their types and the JSON Schema come from one definition.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::interpolate::{self, interpolate};
use super::location;
use super::nearest::nearest;
use super::problem::Code;
use super::quantity::{self, Period, Periods, Size};
use super::sheet::{Sheet, Span};
use crate::plan::Secret;

/// A value and where it stands. Without a value it was there but wrong, and that has been said.
pub(super) struct At<T> {
    pub(super) value: Option<T>,
    pub(super) span: Span,
}

/// A key that the user chose.
#[derive(Clone)]
pub(super) struct Key {
    pub(super) text: String,
    pub(super) span: Span,
}

/// A table whose keys the user chooses, in the order of the file.
pub(super) struct Named<T>(pub(super) Vec<(Key, At<T>)>);

/// Text that may hold credentials in front of an `@`, or behind a `?`: they are never quoted.
pub(super) struct Location {
    pub(super) text: String,
    /// Its scheme comes from a variable, so that the file can mean another kind of broker elsewhere.
    pub(super) varies: bool,
}

/// Reads one file.
pub(super) struct Reader<'a> {
    pub(super) sheet: Sheet<'a>,
    env: &'a dyn Fn(&str) -> Option<String>,
    section: Vec<String>,
}

/// How a kind of quantity is written.
struct Notation<T> {
    expected: &'static str,
    parse: fn(&str) -> Result<T, String>,
    code: Code,
    hint: &'static str,
}

const PERIOD: Notation<Period> = Notation {
    expected: "a duration such as \"30s\"",
    parse: quantity::period,
    code: Code::BadDuration,
    hint: "write a number and a unit: \"100ms\", \"30s\", \"1h30m\", \"7d\"",
};

const PERIODS: Notation<Periods> = Notation {
    expected: "a range of durations such as \"100ms..10s\"",
    parse: quantity::periods,
    code: Code::BadDuration,
    hint: "write the shortest and the longest: \"100ms..10s\"",
};

const SIZE: Notation<Size> = Notation {
    expected: "a size such as \"64MiB\"",
    parse: quantity::size,
    code: Code::BadSize,
    hint: "write a number and a unit: \"64MiB\", \"10kB\"",
};

const TABLE: &str = "a table";

const VARIABLE_HINT: &str = "write ${VAR} or ${VAR:-default}, and $${ for the text ${";

/// A type that a key can have.
pub(super) trait Written: Sized {
    /// Reads a value; `None` if it is wrong, which has been said then.
    fn read(value: &Spanned<DeValue<'_>>, reader: &mut Reader<'_>) -> Option<Self>;
}

impl<'a> Reader<'a> {
    pub(super) fn new(sheet: Sheet<'a>, env: &'a dyn Fn(&str) -> Option<String>) -> Self {
        Self {
            sheet,
            env,
            section: Vec::new(),
        }
    }

    pub(super) fn at<T: Written>(&mut self, value: &Spanned<DeValue<'_>>) -> At<T> {
        At {
            value: T::read(value, self),
            span: value.span(),
        }
    }

    /// A string with its variables filled in.
    fn text(&mut self, value: &Spanned<DeValue<'_>>) -> Option<String> {
        let Some(text) = value.get_ref().as_str() else {
            return self.wrong_type(value, "a string");
        };
        interpolate(text, self.env)
            .map_err(|error| self.bad_variable(&error, &value.span()))
            .ok()
    }

    /// As [`Reader::text`], and shows nothing of the text but a name that is all of it: `"${TOKEN}"` is no secret, and worth seeing.
    fn secret(&mut self, value: &Spanned<DeValue<'_>>) -> Option<String> {
        if value.get_ref().as_str().is_some_and(interpolate::is_one_variable) {
            return self.text(value);
        }
        self.conceal_all(value);
        let Some(text) = value.get_ref().as_str() else {
            return self.wrong_type(value, "a string");
        };
        let (code, message) = match interpolate(text, self.env) {
            Ok(text) => return Some(text),
            Err(interpolate::Error::Missing { .. }) => {
                (Code::MissingVariable, "an environment variable in it is not set")
            }
            Err(_) => (Code::BadVariable, "there is a `${` in it that begins no variable"),
        };
        self.sheet.error(code, &value.span(), message).hint(VARIABLE_HINT);
        None
    }

    fn bad_variable(&mut self, error: &interpolate::Error, span: &Span) {
        let (code, name, hint) = match error {
            interpolate::Error::Missing { name, .. } => (
                Code::MissingVariable,
                Some(name),
                format!("set it, or give it a default: ${{{name}:-...}}"),
            ),
            interpolate::Error::Unclosed { .. } | interpolate::Error::BadName { .. } => {
                (Code::BadVariable, None, VARIABLE_HINT.to_owned())
            }
        };
        let span = name
            .and_then(|name| self.variable(name, span))
            .unwrap_or_else(|| span.clone());
        self.sheet.error(code, &span, error.to_string()).hint(hint);
    }

    /// Where `${name}` stands within a string, if it is written there without escapes.
    fn variable(&self, name: &str, within: &Span) -> Option<Span> {
        let expression = format!("${{{name}}}");
        let start = within.start + self.sheet.raw(within).find(&expression)?;
        Some(start..start + expression.len())
    }

    /// Shows a plain value that stands in another's place. Where a table belongs or stands, it may be credentials instead, or hold some.
    fn wrong_type<T>(&mut self, value: &Spanned<DeValue<'_>>, expected: &str) -> Option<T> {
        let is_plain = !value.get_ref().is_table() && !value.get_ref().is_array();
        if !is_plain || expected == TABLE {
            self.conceal_all(value);
        }
        let found = value.get_ref().type_str();
        let article = if found.starts_with(['a', 'i']) { "an" } else { "a" };
        let message = format!("expected {expected}, found {article} {found}");
        self.sheet.error(Code::WrongType, &value.span(), message);
        None
    }

    /// Reads text of which one value can be made.
    fn quantity<T>(&mut self, value: &Spanned<DeValue<'_>>, notation: &Notation<T>) -> Option<T> {
        if !value.get_ref().is_str() {
            return self.wrong_type(value, notation.expected);
        }
        let text = self.text(value)?;
        (notation.parse)(&text)
            .map_err(|message| {
                self.sheet
                    .error(notation.code, &value.span(), message)
                    .hint(notation.hint)
            })
            .ok()
    }

    /// Masks every value below a value. A number is no secret where text belongs, but it may have been meant as one.
    fn conceal_all(&mut self, value: &Spanned<DeValue<'_>>) {
        match value.get_ref() {
            DeValue::Array(values) => values.iter().for_each(|value| self.conceal_all(value)),
            DeValue::Table(table) => table.values().for_each(|value| self.conceal_all(value)),
            _ => self.sheet.conceal(value.span()),
        }
    }

    fn place(&self) -> String {
        if self.section.is_empty() {
            "at the top level".to_owned()
        } else {
            format!("in [{}]", self.section.join("."))
        }
    }
}

/// The entries of one table that are not read yet.
pub(super) struct Entries<'v, 'i> {
    left: Vec<(Key, &'v Spanned<DeValue<'i>>)>,
    section: Span,
}

impl<'v, 'i> Entries<'v, 'i> {
    fn of(table: &'v DeTable<'i>, section: Span) -> Self {
        let mut left: Vec<_> = table
            .iter()
            .map(|(key, value)| {
                let text = key.get_ref().to_string();
                let span = key.span();
                (Key { text, span }, value)
            })
            .collect();
        left.sort_by_key(|(key, _)| key.span.start);
        Self { left, section }
    }

    /// Opens a table, if it is one.
    pub(super) fn open(value: &'v Spanned<DeValue<'i>>, reader: &mut Reader<'_>) -> Option<Self> {
        match value.get_ref().as_table() {
            Some(table) => Some(Self::of(table, value.span())),
            None => reader.wrong_type(value, TABLE),
        }
    }

    /// Reads the value of one key.
    pub(super) fn take<T: Written>(&mut self, key: &str, reader: &mut Reader<'_>) -> Option<At<T>> {
        let index = self.left.iter().position(|(found, _)| found.text == key)?;
        let (key, value) = self.left.remove(index);
        reader.section.push(key.text);
        let read = reader.at(value);
        reader.section.pop();
        Some(read)
    }

    /// Reads all of them, whatever their keys.
    fn take_all<T: Written>(self, reader: &mut Reader<'_>) -> Named<T> {
        let read = |(key, value): (Key, _)| {
            reader.section.push(key.text.clone());
            let read = reader.at(value);
            reader.section.pop();
            (key, read)
        };
        Named(self.left.into_iter().map(read).collect())
    }

    /// Complains about what is left.
    pub(super) fn finish(self, known: &[&str], reader: &mut Reader<'_>) {
        for (key, value) in self.left {
            let near = nearest(&key.text, known.iter().copied());
            // It may be a password under a mistyped key, unless it is clear that another key was meant.
            if !near.is_some_and(|near| is_plain(&[&key.text, near], value)) {
                reader.conceal_all(value);
            }
            if let Some(near) = near {
                reader.sheet.mean(near, &self.section);
            }
            let message = format!("unknown key `{}` {}", key.text, reader.place());
            let hint = match near {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("the keys here are {}", known.join(", ")),
            };
            reader.sheet.error(Code::UnknownKey, &key.span, message).hint(hint);
        }
    }
}

/// Whether a value is no secret by the names that its key has and was meant to have: a number, a text, or a list of them, without credentials
/// in a URL.
fn is_plain(names: &[&str], value: &Spanned<DeValue<'_>>) -> bool {
    const SECRET: [&str; 8] = ["pass", "pwd", "token", "nkey", "secret", "cred", "auth", "_key"];
    let is_secret = |name: &&str| SECRET.iter().any(|word| name.to_ascii_lowercase().contains(word));
    let is_plain_text = |value: &Spanned<DeValue<'_>>| {
        let value = value.get_ref();
        let text = value.as_str();
        !value.is_table() && !value.is_array() && text.is_none_or(|text| !text.contains("://") && !text.contains('@'))
    };
    let is_plain_value = match value.get_ref() {
        DeValue::Array(values) => values.iter().all(is_plain_text),
        _ => is_plain_text(value),
    };
    is_plain_value && !names.iter().any(is_secret)
}

/// Makes a struct of optional keys readable: `key: Type` becomes `Option<At<Type>>`.
macro_rules! section {
    ($(#[$meta:meta])* $name:ident { $($(#[$field_meta:meta])* $field:ident: $type:ty,)* }) => {
        $(#[$meta])*
        #[derive(Default, schemars::JsonSchema)]
        #[schemars(deny_unknown_fields)]
        pub(super) struct $name {
            $($(#[$field_meta])* pub(super) $field: Option<$crate::config::read::At<$type>>,)*
        }

        impl $crate::config::read::Written for $name {
            fn read(
                value: &toml::Spanned<toml::de::DeValue<'_>>,
                reader: &mut $crate::config::read::Reader<'_>,
            ) -> Option<Self> {
                let mut entries = $crate::config::read::Entries::open(value, reader)?;
                let section = Self {
                    $($field: entries.take($crate::config::read::key(stringify!($field)), reader),)*
                };
                let known = [$($crate::config::read::key(stringify!($field)),)*];
                entries.finish(&known, reader);
                Some(section)
            }
        }
    };
}
pub(super) use section;

/// The key of a field: `type` of `r#type`.
pub(super) fn key(field: &'static str) -> &'static str {
    field.strip_prefix("r#").unwrap_or(field)
}

/// Makes one of a few words readable as a value.
macro_rules! choice {
    ($type:ty: $($word:literal => $value:expr,)*) => {
        impl $crate::config::read::Written for $type {
            fn read(
                value: &toml::Spanned<toml::de::DeValue<'_>>,
                reader: &mut $crate::config::read::Reader<'_>,
            ) -> Option<Self> {
                match $crate::config::read::word(value, &[$($word,)*], reader)? {
                    $($word => Some($value),)*
                    _ => None,
                }
            }
        }
    };
}
pub(super) use choice;

/// Reads one of a few words.
pub(super) fn word(
    value: &Spanned<DeValue<'_>>,
    words: &[&'static str],
    reader: &mut Reader<'_>,
) -> Option<&'static str> {
    let text = reader.text(value)?;
    let found = words.iter().find(|word| **word == text).copied();
    if found.is_none() {
        let quoted: Vec<_> = words.iter().map(|word| format!("\"{word}\"")).collect();
        let message = format!("\"{text}\" is none of {}", quoted.join(", "));
        let finding = reader.sheet.error(Code::BadValue, &value.span(), message);
        if let Some(near) = nearest(&text, words.iter().copied()) {
            finding.hint(format!("did you mean \"{near}\"?"));
        }
    }
    found
}

impl Written for String {
    fn read(value: &Spanned<DeValue<'_>>, reader: &mut Reader<'_>) -> Option<Self> {
        reader.text(value)
    }
}

impl Written for Secret {
    fn read(value: &Spanned<DeValue<'_>>, reader: &mut Reader<'_>) -> Option<Self> {
        reader.secret(value).map(Secret::new)
    }
}

impl Written for Location {
    fn read(value: &Spanned<DeValue<'_>>, reader: &mut Reader<'_>) -> Option<Self> {
        let span = value.span();
        let raw = reader.sheet.raw(&span);
        if let Some(end) = raw.rfind('@') {
            let scheme = location::split_scheme(raw.get(1..).unwrap_or_default());
            let start = scheme.map_or(1, |(scheme, _)| 1 + scheme.len() + 3);
            reader.sheet.conceal(span.start + start..span.start + end);
        }
        if let Some(start) = raw.find(['?', '#']) {
            reader.sheet.conceal(span.start + start + 1..span.end.saturating_sub(1));
        }
        let written = value.get_ref().as_str().unwrap_or_default();
        let varies = written.split(':').next().is_some_and(|scheme| scheme.contains("${"));
        let text = reader.text(value)?;
        Some(Self { text, varies })
    }
}

impl Written for bool {
    fn read(value: &Spanned<DeValue<'_>>, reader: &mut Reader<'_>) -> Option<Self> {
        match value.get_ref().as_bool() {
            Some(flag) => Some(flag),
            None => reader.wrong_type(value, "true or false"),
        }
    }
}

impl Written for u64 {
    fn read(value: &Spanned<DeValue<'_>>, reader: &mut Reader<'_>) -> Option<Self> {
        let Some(number) = value.get_ref().as_integer() else {
            return reader.wrong_type(value, "a whole number");
        };
        Self::from_str_radix(number.as_str(), number.radix())
            .map_err(|_| {
                let message = format!("{number} is out of bounds: at least 0, at most 2^64 - 1");
                reader.sheet.error(Code::OutOfBounds, &value.span(), message);
            })
            .ok()
    }
}

impl Written for f64 {
    fn read(value: &Spanned<DeValue<'_>>, reader: &mut Reader<'_>) -> Option<Self> {
        let text = match value.get_ref() {
            DeValue::Float(number) => number.as_str(),
            DeValue::Integer(number) if number.radix() == 10 => number.as_str(),
            _ => return reader.wrong_type(value, "a number"),
        };
        text.parse().ok()
    }
}

impl Written for Period {
    fn read(value: &Spanned<DeValue<'_>>, reader: &mut Reader<'_>) -> Option<Self> {
        reader.quantity(value, &PERIOD)
    }
}

impl Written for Periods {
    fn read(value: &Spanned<DeValue<'_>>, reader: &mut Reader<'_>) -> Option<Self> {
        reader.quantity(value, &PERIODS)
    }
}

impl Written for Size {
    fn read(value: &Spanned<DeValue<'_>>, reader: &mut Reader<'_>) -> Option<Self> {
        if value.get_ref().is_integer() {
            return u64::read(value, reader).map(Self);
        }
        reader.quantity(value, &SIZE)
    }
}

impl<T: Written> Written for Vec<At<T>> {
    fn read(value: &Spanned<DeValue<'_>>, reader: &mut Reader<'_>) -> Option<Self> {
        match value.get_ref().as_array() {
            Some(values) => Some(values.iter().map(|value| reader.at(value)).collect()),
            None => reader.wrong_type(value, "an array"),
        }
    }
}

impl<T: Written> Written for Named<T> {
    fn read(value: &Spanned<DeValue<'_>>, reader: &mut Reader<'_>) -> Option<Self> {
        let entries = Entries::open(value, reader)?;
        Some(entries.take_all(reader))
    }
}

impl<T: JsonSchema> JsonSchema for At<T> {
    fn inline_schema() -> bool {
        T::inline_schema()
    }

    fn schema_name() -> Cow<'static, str> {
        T::schema_name()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        T::json_schema(generator)
    }
}

impl<T: JsonSchema> JsonSchema for Named<T> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        format!("Named{}", T::schema_name()).into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        std::collections::BTreeMap::<String, T>::json_schema(generator)
    }
}
