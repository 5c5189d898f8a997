//! Uses every feature as it is meant: the event's type says which.

wit_bindgen::generate!({
    path: "../../../wit",
    inline: "
        package test:plain;
        world plain {
            include tidegate:plugin/consumer@0.1.0;
            import wasi:keyvalue/store@0.2.0-draft2;
            import wasi:keyvalue/atomics@0.2.0-draft2;
            import wasi:keyvalue/batch@0.2.0-draft2;
            import wasi:config/store@0.2.0-rc.1;
            import wasi:logging/logging@0.1.0-draft;
        }
    ",
    world: "test:plain/plain",
    generate_all,
});

use std::time::Duration;

use exports::tidegate::plugin::handler::{Event, Failure, Guest};
use tidegate::plugin::context;
use tidegate::plugin::outbox::{Draft, emit};
use tidegate::plugin::types::{Extension, Transient};
use wasi::config::store as config;
use wasi::keyvalue::{atomics, batch, store};
use wasi::logging::logging::{Level, log};

struct Plugin;

impl Guest for Plugin {
    fn handle(event: Event) -> Result<(), Failure> {
        match event.kind.as_str() {
            "echo" | "plain.said" => echo(event),
            "context" => say(&format!("{:?}", context::current())),
            "config" => say(&format!(
                "{:?} {:?} {}",
                config::get("currency"),
                config::get("absent"),
                config::get_all().unwrap().len()
            )),
            "log" => {
                log(Level::Warn, "plain", "a line");
                println!("to standard output");
                eprintln!("to standard error");
                Ok(())
            }
            "transient" => Err(Failure::Transient(Transient {
                reason: "the warehouse is closed".to_owned(),
                retry_after_ms: Some(1500),
            })),
            "permanent" => Err(Failure::Permanent("no such product".to_owned())),
            "state" => state(&event),
            other => Err(Failure::Permanent(format!("no such behaviour: {other}"))),
        }
    }
}

export!(Plugin);

/// Gives the event back as it came, under another type.
fn echo(event: Event) -> Result<(), Failure> {
    let draft = Draft {
        kind: "plain.echo".to_owned(),
        subject: event.subject,
        datacontenttype: event.datacontenttype,
        dataschema: event.dataschema,
        extensions: event.extensions,
        data: event.data,
    };
    emit(&draft)
        .map(drop)
        .map_err(|error| Failure::Permanent(format!("{error:?}")))
}

/// Emits what was found.
fn say(text: &str) -> Result<(), Failure> {
    say_of(None, text)
}

fn say_of(subject: Option<String>, text: &str) -> Result<(), Failure> {
    let draft = Draft {
        kind: "plain.said".to_owned(),
        subject,
        datacontenttype: Some("text/plain".to_owned()),
        dataschema: None,
        extensions: vec![Extension {
            name: "tone".to_owned(),
            value: "calm".to_owned(),
        }],
        data: text.as_bytes().to_vec(),
    };
    emit(&draft)
        .map(drop)
        .map_err(|error| Failure::Permanent(format!("{error:?}")))
}

/// Runs a script, a step per line, and emits what each step answered, a line each.
fn state(event: &Event) -> Result<(), Failure> {
    let script = String::from_utf8_lossy(&event.data);
    let bucket = store::open("").unwrap();
    let mut cas = None;
    let mut answers = Vec::new();
    for line in script.lines() {
        let words: Vec<&str> = line.split(' ').collect();
        let answer = match words.as_slice() {
            ["get", key] => format!("{:?}", bucket.get(key).map(|value| value.map(text))),
            ["set", key, value] => format!("{:?}", bucket.set(key, value.as_bytes())),
            ["delete", key] => format!("{:?}", bucket.delete(key)),
            ["exists", key] => format!("{:?}", bucket.exists(key)),
            ["add", key, delta] => format!("{:?}", atomics::increment(&bucket, key, delta.parse().unwrap())),
            ["list"] => format!("{:?}", list(&bucket)),
            ["in", name, "set", key, value] => format!("{:?}", store::open(name).unwrap().set(key, value.as_bytes())),
            ["cas", key] => {
                let new = atomics::Cas::new(&bucket, key).unwrap();
                let current = format!("{:?}", new.current().map(|value| value.map(text)));
                cas = Some(new);
                current
            }
            ["swap", value] => match atomics::swap(cas.take().unwrap(), value.as_bytes()) {
                Ok(()) => "Ok(())".to_owned(),
                Err(_) => "Err".to_owned(),
            },
            ["get-many", keys @ ..] => match batch::get_many(&bucket, &owned(keys)) {
                Ok(pairs) => {
                    let pairs = pairs.into_iter();
                    let pairs = pairs.map(|pair| pair.map(|(key, value)| (key, text(value))));
                    format!("{:?}", pairs.collect::<Vec<_>>())
                }
                Err(error) => format!("Err({error:?})"),
            },
            ["set-many", value, keys @ ..] => {
                let pairs = owned(keys).into_iter().map(|key| (key, value.as_bytes().to_vec()));
                format!("{:?}", batch::set_many(&bucket, &pairs.collect::<Vec<_>>()))
            }
            ["delete-many", keys @ ..] => format!("{:?}", batch::delete_many(&bucket, &owned(keys))),
            ["fill", bytes] => "x".repeat(bytes.parse().unwrap()),
            ["wait", ms] => {
                std::thread::sleep(Duration::from_millis(ms.parse().unwrap()));
                continue;
            }
            ["fail"] => return Err(Failure::Permanent("as told".to_owned())),
            ["attempt", least] if context::current().attempt < least.parse().unwrap() => return Err(later()),
            ["attempt", least, pause_ms] if context::current().attempt < least.parse().unwrap() => {
                return Err(later_by(pause_ms.parse().unwrap()));
            }
            ["need", name] if config::get(name).unwrap().is_none() => return Err(later()),
            ["want", name] if config::get(name).unwrap().is_none() => {
                return Err(Failure::Permanent(format!("no {name}")));
            }
            ["attempt" | "need" | "want" | "pad", ..] => continue,
            other => panic!("no such step: {other:?}"),
        };
        answers.push(answer);
    }
    say_of(event.subject.clone(), &answers.join("\n"))
}

fn later() -> Failure {
    later_by(200)
}

fn later_by(pause_ms: u64) -> Failure {
    Failure::Transient(Transient {
        reason: "not yet".to_owned(),
        retry_after_ms: Some(pause_ms),
    })
}

fn owned(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

fn text(value: Vec<u8>) -> String {
    String::from_utf8(value).unwrap()
}

fn list(bucket: &store::Bucket) -> (usize, Vec<String>) {
    let (mut pages, mut keys, mut cursor) = (0, Vec::new(), None);
    loop {
        let page = bucket.list_keys(cursor.as_deref()).unwrap();
        pages += 1;
        keys.extend(page.keys);
        match page.cursor {
            Some(next) => cursor = Some(next),
            None => return (pages, keys),
        }
    }
}
