//! One event from its attributes.

use anyhow::Context;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use super::Args;
use crate::clock::Clock;

/// One event.
pub(super) struct One {
    pub(super) id: String,
    /// In JSON. Its data is the text that was given, to the letter.
    text: String,
}

impl One {
    /// The batch of it alone.
    pub(super) fn batch(&self) -> String {
        format!("[{}]", self.text)
    }
}

/// The event of these arguments.
///
/// # Errors
/// An attribute is given twice, or the data is no JSON.
pub(super) fn event(args: &Args, kind: &str, clock: &Clock) -> anyhow::Result<One> {
    let id = args.id.clone().unwrap_or_else(|| fresh_id(clock));
    let mut attributes = Map::new();
    let mut set = |name: &str, value: &str| attributes.insert(name.to_owned(), json!(value));
    for (name, value) in &args.extensions {
        let is_taken = set(name, value).is_some() || NAMED.contains(&name.as_str());
        anyhow::ensure!(
            !is_taken,
            "attribute {name} is given twice: extensions have names of their own"
        );
    }
    set("specversion", "1.0");
    set("id", &id);
    set("source", &args.source);
    set("type", kind);
    set("time", &clock.wall().to_string());
    if let Some(subject) = &args.subject {
        set("subject", subject);
    }
    let Some(data) = &args.data else {
        let text = Value::Object(attributes).to_string();
        return Ok(One { id, text });
    };
    let data: &RawValue = serde_json::from_str(data).with_context(|| format!("--data is no JSON: {data}"))?;
    set("datacontenttype", "application/json");
    let text = Value::Object(attributes).to_string();
    // Beside the attributes and not among them: there its numbers would be read and written again.
    let open = text.strip_suffix('}').unwrap_or(&text);
    let text = format!("{open},\"data\":{data}}}");
    Ok(One { id, text })
}

/// Attributes that have an option of their own, or that the command sets.
const NAMED: [&str; 8] = [
    "specversion",
    "id",
    "source",
    "type",
    "subject",
    "time",
    "datacontenttype",
    "data",
];

/// A UUID of version 7 (RFC 9562): 48 bits of time, then chance.
fn fresh_id(clock: &Clock) -> String {
    let draw = |bits: u32| (clock.random() * f64::from(1_u32 << bits)) as u64;
    let time = clock.wall().0 & 0xffff_ffff_ffff;
    format!(
        "{:08x}-{:04x}-7{:03x}-{:04x}-{:06x}{:06x}",
        time >> 16,
        time & 0xffff,
        draw(12),
        0x8000 | draw(14),
        draw(24),
        draw(24)
    )
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::clock::Timestamp;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    fn built(line: &[&str]) -> anyhow::Result<String> {
        let args = Line::try_parse_from([&["publish", "orders"], line].concat())?.args;
        let kind = args.kind.clone().unwrap();
        let one = event(&args, &kind, &Clock::seeded(Timestamp(1_790_000_000_000), 7))?;
        assert!(one.text.contains(&format!("\"id\":\"{}\"", one.id)));
        Ok(one.text)
    }

    #[tokio::test(start_paused = true)]
    async fn an_event_has_what_was_given_to_the_letter() {
        let data = r#"{"b":1.10,"a":{"x":"}"}}"#;
        let line = [
            "--type",
            "a.b",
            "--source",
            "/shop",
            "--id",
            "1",
            "--subject",
            "s",
            "--data",
            data,
            "-x",
            "tenant=a=b",
        ];
        let event = built(&line).unwrap();
        assert_eq!(
            event,
            r#"{"datacontenttype":"application/json","id":"1","source":"/shop","specversion":"1.0","subject":"s","tenant":"a=b","time":"2026-09-21T14:13:20.000Z","type":"a.b","data":{"b":1.10,"a":{"x":"}"}}}"#
        );
    }

    #[tokio::test(start_paused = true)]
    async fn an_event_without_id_gets_a_uuid() {
        let event: Value = serde_json::from_str(&built(&["--type", "a.b"]).unwrap()).unwrap();
        let id = event["id"].as_str().unwrap();
        assert!(id.starts_with("01a0c450-6c00-7"), "{id}");
        let parts: Vec<_> = id.split('-').map(str::len).collect();
        assert_eq!(parts, [8, 4, 4, 4, 12]);
        assert!(event.get("data").is_none());
    }

    #[test]
    fn ids_differ() {
        let clock = Clock::seeded(Timestamp(1), 7);
        let ids: std::collections::BTreeSet<_> = (0..10_000).map(|_| fresh_id(&clock)).collect();
        assert_eq!(ids.len(), 10_000);
    }

    #[test]
    fn what_can_not_be_is_refused() {
        let check = |line: &[&str], expected: &str| {
            let error = built(line).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        };
        check(&["--type", "a.b", "--data", "{"], "--data is no JSON");
        check(&["--type", "a.b", "-x", "id=2"], "attribute id is given twice");
        check(
            &["--type", "a.b", "-x", "x=1", "-x", "x=2"],
            "attribute x is given twice",
        );
        check(&["--type", "a.b", "-x", "x"], "NAME=VALUE");
        check(&["--id", "1"], "--type");
        check(&["file", "--type", "a.b"], "cannot be used with");
    }
}
