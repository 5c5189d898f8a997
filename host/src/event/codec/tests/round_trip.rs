//! Whatever is written is read back the same.

use super::*;

struct Random(fastrand::Rng);

impl Random {
    /// Text without control characters, from one to 20 characters.
    fn text(&mut self) -> String {
        let alphabet: Vec<char> = "abcXYZ019 \"%\\'/:;,{}<>&=+~é€😀\u{2028}\u{feff}".chars().collect();
        (0..self.0.usize(1..20))
            .map(|_| alphabet[self.0.usize(..alphabet.len())])
            .collect()
    }

    fn maybe<T>(&mut self, make: impl FnOnce(&mut Self) -> T) -> Option<T> {
        self.0.bool().then(|| make(self))
    }

    fn value(&mut self) -> Value {
        match self.0.u8(..4) {
            0 => Value::Boolean(self.0.bool()),
            1 => Value::Integer(self.0.i32(..)),
            2 => Value::String(String::new()),
            _ => Value::String(self.text()),
        }
    }

    fn data(&mut self) -> Bytes {
        match self.0.u8(..6) {
            0 => Bytes::new(),
            1 => Bytes::from((0..self.0.usize(..40)).map(|_| self.0.u8(..)).collect::<Vec<_>>()),
            2 => Bytes::from(self.text()),
            3 => Bytes::from_static(b"null"),
            4 => Bytes::from(serde_json::to_vec(&self.text()).expect("serialises")),
            _ => Bytes::from(format!(
                "{{\"a\" : [1.50, {}, -0e1],\n \"b\":{}}}",
                self.0.u64(..),
                serde_json::to_string(&self.text()).expect("serialises")
            )),
        }
    }

    fn event(&mut self) -> Event {
        let media_types = [
            "application/json",
            "APPLICATION/vnd.x+JSON; charset=utf-8",
            "text/plain",
            "application/xml",
            "application/octet-stream",
            "application/cloudevents+json",
            "nonsense",
        ];
        let times = ["2018-04-05T17:31:00Z", "2018-04-05t17:31:00.5+02:00"];
        let uri = |text: String| text.replace(|c: char| c.is_whitespace(), "_");
        Event {
            id: self.text(),
            source: uri(self.text()),
            kind: self.text(),
            subject: self.maybe(Self::text),
            time: self.maybe(|random| times[random.0.usize(..2)].to_owned()),
            datacontenttype: self.maybe(|random| media_types[random.0.usize(..7)].to_owned()),
            dataschema: self.maybe(Self::text).map(uri),
            extensions: (0..self.0.usize(..5))
                .map(|i| extension(&format!("ext{i}"), self.value()))
                .collect(),
            data: self.maybe(Self::data),
        }
    }
}

/// What binary mode can say of an event: extensions as strings, empty data as none.
fn untyped(mut event: Event) -> Event {
    for extension in &mut event.extensions {
        extension.value = Value::String(extension.value.to_string());
    }
    event.data = event.data.filter(|data| !data.is_empty());
    event
}

/// What structured mode can say of an event: no white space around JSON data.
fn trimmed(mut event: Event) -> Event {
    let is_json = event.datacontenttype.as_deref().is_some_and(media::is_json);
    let trim = |data: Bytes| match serde_json::from_slice::<&serde_json::value::RawValue>(&data) {
        Ok(raw) if is_json => Bytes::copy_from_slice(raw.get().as_bytes()),
        _ => data,
    };
    event.data = event.data.map(trim);
    event
}

fn check(kind: &BrokerKind, place: &Place, mode: ContentMode, expected: fn(Event) -> Event) {
    let stream = stream(kind.clone(), place.clone(), mode);
    for seed in 0..3_000 {
        let event = Random(fastrand::Rng::with_seed(seed)).event();
        super::check(&event).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        let message = encode(&event, &stream).expect("encodes");
        for (name, value) in message.headers.iter() {
            let is_printable = value.iter().all(|byte| matches!(byte, b' '..=b'~'));
            assert!(is_printable, "seed {seed}: {name}");
        }
        let again = decode(&message, Binding::of(kind), None).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        let is_structured = message.headers.get("ce-id").is_none();
        let expected = if is_structured { trimmed } else { expected };
        assert_eq!(again, expected(event), "seed {seed}");
    }
}

#[test]
fn binary_over_nats() {
    check(&BrokerKind::Embedded, &log(), ContentMode::Binary, untyped);
}

#[test]
fn structured_over_nats() {
    check(&BrokerKind::Embedded, &log(), ContentMode::Structured, trimmed);
}

#[test]
fn binary_over_http() {
    let place = Place::Path(template(&["x"]));
    check(&webhook(), &place, ContentMode::Binary, untyped);
}

#[test]
fn structured_over_http() {
    let place = Place::Path(template(&["x"]));
    check(&webhook(), &place, ContentMode::Structured, trimmed);
}

/// The blanks were lost on the way: what came was another event.
#[test]
fn a_content_type_that_no_header_keeps_is_not_written_into_one() {
    let stream = stream(webhook(), Place::Path(template(&["x"])), ContentMode::Binary);
    for content_type in [" text/plain", "text/plain ", " ", "text/\u{fc}"] {
        let mut event = Random(fastrand::Rng::with_seed(1)).event();
        event.datacontenttype = Some(content_type.to_owned());
        let message = encode(&event, &stream).expect("encodes");
        let again = decode(&message, Binding::Http, None).expect("it is one");
        assert_eq!(again, trimmed(event), "{message:?}");
    }
}

#[test]
fn through_both_modes_and_bindings_in_turn() {
    let hops = [
        stream(BrokerKind::Embedded, log(), ContentMode::Binary),
        stream(webhook(), Place::Path(template(&["x"])), ContentMode::Structured),
        stream(webhook(), Place::Path(template(&["x"])), ContentMode::Binary),
        stream(BrokerKind::Embedded, log(), ContentMode::Structured),
    ];
    for seed in 0..1_000 {
        let event = Random(fastrand::Rng::with_seed(seed)).event();
        let mut last = event.clone();
        for stream in &hops {
            let message = encode(&last, stream).expect("encodes");
            last = decode(&message, Binding::of(&stream.broker.kind), None).expect("decodes");
        }
        assert_eq!(last, trimmed(untyped(event)), "seed {seed}");
    }
}
