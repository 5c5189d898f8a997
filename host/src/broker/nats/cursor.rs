//! The durable consumer on the server, and how a source goes back on it.
//!
//! Its ack floor is the truth about where a host stood. What is pending above it would come again only after the ack wait, and
//! newer messages first; going back makes the server forget what it gave, and give everything from the floor in order.

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::api::{self, Failure};
use super::link::Link;
use super::stream::{self, Retention, Stream};
use crate::broker::{Error, Subscription};
use crate::plan::JetStream;

/// Where a source stands after it went back.
#[derive(Debug)]
pub(super) struct Standing {
    /// The stream it reads.
    pub(super) stream: Stream,
    /// Everything up to here is settled.
    pub(super) floor: u64,
    /// The consumer's number for the next delivery; they have no gaps.
    pub(super) next: u64,
}

#[derive(Deserialize)]
struct Info {
    #[serde(default)]
    config: Map<String, Value>,
    delivered: Pair,
    ack_floor: Pair,
    num_ack_pending: u64,
}

#[derive(Clone, Copy, Deserialize)]
struct Pair {
    consumer_seq: u64,
    stream_seq: u64,
}

/// The name of the durable consumer.
pub(super) fn durable(subscription: &Subscription) -> String {
    format!("tidegate-{}", subscription.consumer)
}

/// Goes back to the lowest unsettled position. The consumer is made if it is absent: from `resume` on, if the source knows better
/// than the server (someone deleted the consumer while it was read).
pub(super) async fn go_back(
    link: &Link,
    subscription: &Subscription,
    stream: Stream,
    resume: Option<u64>,
) -> Result<Standing, Error> {
    let cursor = Cursor {
        link,
        durable: durable(subscription),
        stream: &stream,
    };
    if stream.retention == Retention::Interest && !link.can_reset() {
        return Err(link.misconfigured(format!(
            "stream {} keeps messages by interest, and reading it in order after a crash needs NATS server 2.14 or newer: upgrade it",
            stream.name
        )));
    }
    let place = stream::place(link, &subscription.stream)?;
    let wanted = wanted(subscription, place, &stream);
    let info = match cursor.info().await? {
        Some(info) => cursor.reconcile(info, &wanted).await?,
        None => cursor.make_anew(wanted.clone(), resume).await?,
    };
    let (floor, next) = if info.num_ack_pending == 0 {
        (info.ack_floor.stream_seq, info.delivered.consumer_seq + 1)
    } else {
        cursor.reset(&info, wanted).await?
    };
    Ok(Standing { stream, floor, next })
}

/// Moves the consumer past a position that the server has no delivery of. Everything before it is settled.
pub(super) async fn pass(link: &Link, subscription: &Subscription, position: u64) -> Result<(), Error> {
    let place = stream::place(link, &subscription.stream)?;
    let stream = stream::ensure(link, &subscription.stream.name, place).await?;
    let cursor = Cursor {
        link,
        durable: durable(subscription),
        stream: &stream,
    };
    let start = position + 1;
    if stream.retention == Retention::WorkQueue {
        // What is acknowledged in a work queue is gone; a consumer that only moves on would leave it there.
        return cursor.delete_message(position).await;
    }
    if !link.can_reset() {
        return cursor.replace(start, wanted(subscription, place, &stream)).await;
    }
    match api::request(link, cursor.subject("RESET", &cursor.durable), &json!({ "seq": start })).await {
        Ok(_) => Ok(()),
        Err(Failure::NobodyThere) => Err(cursor.without_leader()),
        Err(failure) => Err(cursor.explain(failure, "reset")),
    }
}

struct Cursor<'a> {
    link: &'a Link,
    durable: String,
    stream: &'a Stream,
}

impl Cursor<'_> {
    async fn info(&self) -> Result<Option<Info>, Error> {
        self.info_of(&self.durable).await
    }

    async fn info_of(&self, durable: &str) -> Result<Option<Info>, Error> {
        match api::request(self.link, self.subject("INFO", durable), &Value::Null).await {
            Ok(answer) => api::parse(self.link, answer).map(Some),
            Err(failure) if is_absent(&failure) => Ok(None),
            Err(failure) => Err(self.explain(failure, "look up")),
        }
    }

    /// Brings an existing consumer to what the config says now.
    async fn reconcile(&self, info: Info, wanted: &Map<String, Value>) -> Result<Info, Error> {
        self.refuse_drift(&info.config)?;
        let config = overlay(&info.config, wanted);
        if config == info.config {
            return Ok(info);
        }
        tracing::info!(broker = %self.link.name, stream = self.stream.name, consumer = self.durable, "updating the JetStream consumer");
        self.put(&self.durable, config, "update").await
    }

    /// What the server can't change in a consumer that exists.
    fn refuse_drift(&self, config: &Map<String, Value>) -> Result<(), Error> {
        let text = |key| config.get(key).and_then(Value::as_str).unwrap_or_default();
        let fault = if !text("deliver_subject").is_empty() {
            "is a push consumer"
        } else if text("ack_policy") != "explicit" {
            "does not acknowledge explicitly"
        } else if text("replay_policy") == "original" {
            "replays at the original speed"
        } else if config.get("mem_storage").and_then(Value::as_bool) == Some(true) {
            "keeps its state in memory"
        } else {
            return Ok(());
        };
        Err(self.link.misconfigured(format!(
            "consumer {} on stream {} {fault}, which can't be changed: delete it on the server (the host makes it anew and begins where the stream begins), or give the consumer another name",
            self.durable, self.stream.name
        )))
    }

    async fn make_anew(&self, wanted: Map<String, Value>, resume: Option<u64>) -> Result<Info, Error> {
        let bookmark = self.info_of(&self.bookmark()).await?;
        let marked = bookmark
            .as_ref()
            .and_then(|info| info.config.get("opt_start_seq"))
            .and_then(Value::as_u64);
        let info = self.create(wanted, resume.or(marked)).await?;
        if bookmark.is_some() {
            self.delete(&self.bookmark()).await?;
        }
        Ok(info)
    }

    async fn create(&self, config: Map<String, Value>, start: Option<u64>) -> Result<Info, Error> {
        // What a work queue still has is what is unsettled; it allows no other start.
        let start = start.filter(|start| *start > 1 && self.stream.retention != Retention::WorkQueue);
        tracing::info!(broker = %self.link.name, stream = self.stream.name, consumer = self.durable, start = start.unwrap_or(1), "creating the JetStream consumer");
        self.put(&self.durable, starting(config, start), "create").await
    }

    /// Makes the server forget what is pending. Gives the floor and the next number.
    async fn reset(&self, info: &Info, wanted: Map<String, Value>) -> Result<(u64, u64), Error> {
        #[derive(Deserialize)]
        struct Answer {
            reset_seq: u64,
        }
        tracing::debug!(broker = %self.link.name, consumer = self.durable, floor = info.ack_floor.stream_seq, pending = info.num_ack_pending, "going back to the lowest unsettled position");
        if !self.link.can_reset() {
            // Such a server does not say no to the request: it says nothing.
            let floor = info.ack_floor.stream_seq;
            self.replace(floor + 1, wanted).await?;
            return Ok((floor, 1));
        }
        // Without a body it goes to the floor that the server has at that moment.
        match api::request(self.link, self.subject("RESET", &self.durable), &Value::Null).await {
            Ok(answer) => {
                let Answer { reset_seq } = api::parse(self.link, answer)?;
                Ok((reset_seq.saturating_sub(1), 1))
            }
            Err(Failure::NobodyThere) => Err(self.without_leader()),
            Err(failure) => Err(self.explain(failure, "reset")),
        }
    }

    /// What a reset does, on servers before 2.14: deletes the consumer and makes it anew.
    async fn replace(&self, start: u64, wanted: Map<String, Value>) -> Result<(), Error> {
        let needs_bookmark = self.stream.retention == Retention::Limits && start > 1;
        if needs_bookmark {
            // A crash after the delete below would lose the place; this consumer is never read and remembers it.
            let bookmark = json!({ "durable_name": self.bookmark(), "ack_policy": "none", "max_deliver": -1 });
            let bookmark = bookmark.as_object().cloned().unwrap_or_default();
            self.delete(&self.bookmark()).await?;
            self.put(&self.bookmark(), starting(bookmark, Some(start)), "create")
                .await?;
        }
        self.delete(&self.durable).await?;
        self.create(wanted, Some(start)).await?;
        if needs_bookmark {
            self.delete(&self.bookmark()).await?;
        }
        Ok(())
    }

    async fn delete_message(&self, position: u64) -> Result<(), Error> {
        let subject = format!("$JS.API.STREAM.MSG.DELETE.{}", self.stream.name);
        api::request(self.link, subject, &json!({ "seq": position, "no_erase": true }))
            .await
            .map(drop)
            .map_err(|failure| {
                let what = format!("take message {position} out of work queue {}", self.stream.name);
                failure.explain(self.link, &what)
            })
    }

    fn without_leader(&self) -> Error {
        self.link
            .unreachable(format!("consumer {} has no leader now", self.durable))
    }

    async fn put(&self, durable: &str, config: Map<String, Value>, action: &str) -> Result<Info, Error> {
        let body = json!({ "stream_name": self.stream.name, "config": config, "action": action });
        let answer = api::request(self.link, self.subject("CREATE", durable), &body)
            .await
            .map_err(|failure| self.explain(failure, action))?;
        api::parse(self.link, answer)
    }

    async fn delete(&self, durable: &str) -> Result<(), Error> {
        match api::request(self.link, self.subject("DELETE", durable), &Value::Null).await {
            Ok(_) => Ok(()),
            Err(failure) if is_absent(&failure) => Ok(()),
            Err(failure) => Err(self.explain(failure, "delete")),
        }
    }

    /// No consumer of ours has this name: theirs have no underscore.
    fn bookmark(&self) -> String {
        format!("{}_bookmark", self.durable)
    }

    fn subject(&self, verb: &str, durable: &str) -> String {
        format!("$JS.API.CONSUMER.{verb}.{}.{durable}", self.stream.name)
    }

    fn explain(&self, failure: Failure, verb: &str) -> Error {
        let what = format!("{verb} consumer {} on stream {}", self.durable, self.stream.name);
        failure.explain(self.link, &what)
    }
}

fn is_absent(failure: &Failure) -> bool {
    matches!(failure, Failure::Refused(refusal) if refusal.err_code == api::CONSUMER_NOT_FOUND)
}

/// What we say about a consumer; the rest is the server's or its administrator's.
fn wanted(subscription: &Subscription, place: &JetStream, stream: &Stream) -> Map<String, Value> {
    let ack_wait = u64::try_from(place.ack_wait.as_nanos()).unwrap_or(u64::MAX);
    let mut config = Map::new();
    let mut set = |key: &str, value: Value| config.insert(key.to_owned(), value);
    set("durable_name", durable(subscription).into());
    set(
        "description",
        format!("Tidegate consumer {}", subscription.consumer).into(),
    );
    set("ack_policy", "explicit".into());
    set("ack_wait", ack_wait.into());
    set("max_deliver", (-1).into());
    set("max_ack_pending", subscription.room.count.into());
    set("replay_policy", "instant".into());
    match filter(&place.subjects, &stream.subjects) {
        [] => None,
        [one] => set("filter_subject", one.as_str().into()),
        several => set("filter_subjects", several.to_vec().into()),
    };
    config
}

/// The subjects to filter by: none where all of the stream is read.
fn filter<'a>(read: &'a [String], all: &[String]) -> &'a [String] {
    if all.iter().all(|subject| read.contains(subject)) {
        &[]
    } else {
        read
    }
}

/// Settings that change what a consumer gives or when it is gone, and that we leave at their defaults. `backoff` among them: it
/// silently overrides `ack_wait`.
const UNWANTED: [&str; 10] = [
    "backoff",
    "filter_subject",
    "filter_subjects",
    "headers_only",
    "inactive_threshold",
    "max_batch",
    "max_bytes",
    "max_expires",
    "priority_groups",
    "rate_limit_bps",
];

fn overlay(existing: &Map<String, Value>, wanted: &Map<String, Value>) -> Map<String, Value> {
    let mut config = existing.clone();
    config.retain(|key, _| !UNWANTED.contains(&key.as_str()));
    config.extend(wanted.clone());
    config
}

fn starting(mut config: Map<String, Value>, start: Option<u64>) -> Map<String, Value> {
    let policy = if start.is_some() { "by_start_sequence" } else { "all" };
    config.insert("deliver_policy".to_owned(), policy.into());
    if let Some(start) = start {
        config.insert("opt_start_seq".to_owned(), start.into());
    }
    config
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(value: Value) -> Map<String, Value> {
        value.as_object().unwrap().clone()
    }

    #[test]
    fn a_filter_is_set_only_where_less_than_the_stream_is_read() {
        let strings = |list: &[&str]| list.iter().map(ToString::to_string).collect::<Vec<_>>();
        let all = strings(&["orders.>"]);
        assert!(filter(&strings(&["orders.>"]), &all).is_empty());
        assert!(filter(&strings(&["orders.>", "orders.eu"]), &all).is_empty());
        assert_eq!(filter(&strings(&["orders.eu"]), &all), ["orders.eu"]);
        assert!(filter(&[], &all).is_empty());
    }

    #[test]
    fn an_update_keeps_what_is_not_ours_and_drops_a_backoff() {
        let existing = map(json!({
            "durable_name": "tidegate-a", "deliver_policy": "by_start_sequence", "opt_start_seq": 7,
            "backoff": [1, 2], "ack_wait": 1, "metadata": { "owner": "ops" }, "some_new_setting": true,
        }));
        let updated = overlay(&existing, &map(json!({ "durable_name": "tidegate-a", "ack_wait": 30 })));
        assert_eq!(
            updated,
            map(json!({
                "durable_name": "tidegate-a", "deliver_policy": "by_start_sequence", "opt_start_seq": 7,
                "ack_wait": 30, "metadata": { "owner": "ops" }, "some_new_setting": true,
            }))
        );
    }
}
