//! The stream on the server: found by name or by subject, created where the config says so.

use serde::Deserialize;
use serde_json::{Value, json};

use super::api::{self, Failure};
use super::link::Link;
use crate::broker::Error;
use crate::plan::{self, JetStream, Place, TemplatePart};

/// How long the server remembers the ids of what was published, in a stream that we create. JetStream's own default.
const DUPLICATE_WINDOW_NS: u64 = 120_000_000_000;

/// What is known of a stream.
#[derive(Clone, Debug)]
pub(super) struct Stream {
    /// Its name on the server.
    pub(super) name: String,
    /// When it was created: a stream of the same name and another age is another stream.
    pub(super) created: String,
    /// The subjects it takes.
    pub(super) subjects: Vec<String>,
    /// When it lets messages go.
    pub(super) retention: Retention,
    /// The position of its newest message.
    pub(super) last: u64,
}

/// When a stream lets messages go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Retention {
    /// By age, count and size.
    Limits,
    /// When every consumer has acknowledged them.
    Interest,
    /// When a consumer has acknowledged them.
    WorkQueue,
}

#[derive(Deserialize)]
struct Answer {
    created: String,
    config: Config,
    state: Messages,
}

#[derive(Deserialize)]
struct Config {
    name: String,
    #[serde(default)]
    subjects: Vec<String>,
    retention: Retention,
}

#[derive(Deserialize)]
struct Messages {
    last_seq: u64,
}

/// The place of a stream, if it is one of ours.
pub(super) fn place<'a>(link: &Link, stream: &'a plan::Stream) -> Result<&'a JetStream, Error> {
    match &stream.place {
        Place::JetStream(place) => Ok(place),
        _ => Err(link.misconfigured(format!("stream {} is not on JetStream", stream.name))),
    }
}

/// Finds or creates the stream that is read.
pub(super) async fn ensure(link: &Link, name: &plan::Name, place: &JetStream) -> Result<Stream, Error> {
    let found = match &place.stream {
        Some(on_server) => look_up(link, on_server).await?,
        None => find(link, name, &subjects(place)).await?,
    };
    match found {
        Some(stream) => Ok(stream),
        None if place.create => create(link, name, place).await,
        None => Err(link.misconfigured(format!(
            "there is no JetStream stream {}: create it on the server, or set create = true for stream {name}",
            called(place)
        ))),
    }
}

/// Makes sure that what is written will be kept, as far as the config says where.
pub(super) async fn ensure_written(link: &Link, name: &plan::Name, place: &JetStream) -> Result<(), Error> {
    // Only where a stream is named or to be created is there something to look for: the subjects come from the events.
    if place.stream.is_none() && place.subjects.is_empty() && !place.create {
        return Ok(());
    }
    ensure(link, name, place).await.map(drop)
}

/// The streams that take any of a subject.
pub(super) async fn taking(link: &Link, subject: &str) -> Result<Vec<String>, Error> {
    #[derive(Deserialize)]
    struct Names {
        streams: Option<Vec<String>>,
    }
    let answer = api::request(link, "$JS.API.STREAM.NAMES".to_owned(), &json!({ "subject": subject }))
        .await
        .map_err(|failure| failure.explain(link, &format!("look for the stream of {subject}")))?;
    Ok(api::parse::<Names>(link, answer)?.streams.unwrap_or_default())
}

async fn look_up(link: &Link, on_server: &str) -> Result<Option<Stream>, Error> {
    match api::request(link, format!("$JS.API.STREAM.INFO.{on_server}"), &Value::Null).await {
        Ok(answer) => read(link, answer).map(Some),
        Err(Failure::Refused(refusal)) if refusal.err_code == api::STREAM_NOT_FOUND => Ok(None),
        Err(failure) => Err(failure.explain(link, &format!("look up stream {on_server}"))),
    }
}

async fn find(link: &Link, name: &plan::Name, subjects: &[String]) -> Result<Option<Stream>, Error> {
    let mut found = Vec::new();
    for subject in subjects {
        found.extend(taking(link, subject).await?);
    }
    found.sort_unstable();
    found.dedup();
    match found.as_slice() {
        [] => Ok(None),
        [one] => look_up(link, one).await,
        several => Err(link.misconfigured(format!(
            "the subjects of stream {name} are in several JetStream streams ({}): name one of them with stream = \"...\"",
            several.join(", ")
        ))),
    }
}

async fn create(link: &Link, name: &plan::Name, place: &JetStream) -> Result<Stream, Error> {
    let on_server = place.stream.as_deref().unwrap_or(name.as_str());
    let subjects = subjects(place);
    if subjects.is_empty() {
        return Err(link.misconfigured(format!(
            "stream {name} is to be created and has no subjects: add subjects = [\"...\"]"
        )));
    }
    let config = json!({
        "name": on_server,
        "subjects": subjects,
        "storage": "file",
        "retention": "limits",
        "duplicate_window": DUPLICATE_WINDOW_NS,
    });
    match api::request(link, format!("$JS.API.STREAM.CREATE.{on_server}"), &config).await {
        Ok(answer) => {
            tracing::info!(broker = %link.name, stream = on_server, "created the JetStream stream");
            read(link, answer)
        }
        // Another host was quicker.
        Err(Failure::Refused(refusal)) if refusal.err_code == api::STREAM_NAME_IN_USE => look_up(link, on_server)
            .await?
            .ok_or_else(|| link.unreachable("the stream was deleted just now")),
        Err(failure) => Err(failure.explain(link, &format!("create stream {on_server}"))),
    }
}

fn read(link: &Link, answer: Value) -> Result<Stream, Error> {
    let Answer { created, config, state } = api::parse(link, answer)?;
    Ok(Stream {
        name: config.name,
        created,
        subjects: config.subjects,
        retention: config.retention,
        last: state.last_seq,
    })
}

/// The subjects of a place; of one that is only written, what its template can come to.
fn subjects(place: &JetStream) -> Vec<String> {
    if !place.subjects.is_empty() {
        return place.subjects.clone();
    }
    let Some(template) = &place.subject else {
        return Vec::new();
    };
    match template.parts.as_slice() {
        [] | [TemplatePart::Attribute(_), ..] => Vec::new(),
        [TemplatePart::Literal(whole)] => vec![whole.clone()],
        // An attribute may have dots in it: everything below its last whole token.
        [TemplatePart::Literal(start), ..] => start
            .rsplit_once('.')
            .map(|(tokens, _)| format!("{tokens}.>"))
            .into_iter()
            .collect(),
    }
}

fn called(place: &JetStream) -> String {
    match &place.stream {
        Some(name) => name.clone(),
        None => format!("that takes {}", subjects(place).join(", ")),
    }
}
