//! `tidegate publish`: puts events on a stream of the running host.

mod input;
mod one;

use std::fs::File;
use std::io::{IsTerminal, Read};
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::ValueHint;
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

use self::input::{Batch, Batches};
use super::client::Client;
use super::printed::line;
use super::{Global, complain, say, unknown};
use crate::clock::Clock;
use crate::plan::Name;

/// Of more events than this only the number is told, not the ids.
const IDS_MAX: usize = 100;
const AFTER_HELP: &str = "Prints how many were published, and the id of a single one. With --json: {\"published\":1,\"ids\":[\"...\"]}; \
    of more than 100 events without the ids.";

/// Arguments of `tidegate publish`: events from a file or stdin, or one event by its attributes.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub struct Args {
    /// The stream in the config.
    #[arg(value_parser = Name::new)]
    pub stream: Name,
    /// Where the events are: CloudEvents in JSON, one per line, or one object, or an array. Default, and for "-": stdin. They are sent
    /// 500 at a time.
    #[arg(value_name = "FILE", value_hint = ValueHint::FilePath, conflicts_with = "kind")]
    pub file: Option<PathBuf>,
    /// The type of the one event.
    #[arg(long = "type", value_name = "TYPE")]
    pub kind: Option<String>,
    /// Its source.
    #[arg(long, value_name = "URI", requires = "kind", default_value = "/tidegate/publish")]
    pub source: String,
    /// Its id. Default: a fresh one.
    #[arg(long, requires = "kind")]
    pub id: Option<String>,
    /// Its subject.
    #[arg(long, requires = "kind")]
    pub subject: Option<String>,
    /// Its data, in JSON.
    #[arg(long, value_name = "JSON", requires = "kind")]
    pub data: Option<String>,
    /// An extension attribute of it; may be given several times.
    #[arg(long = "extension", short = 'x', value_name = "NAME=VALUE", requires = "kind", value_parser = extension)]
    pub extensions: Vec<(String, String)>,
}

fn extension(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("write NAME=VALUE")?;
    Ok((name.to_owned(), value.to_owned()))
}

/// What was published.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
struct Published {
    #[serde(rename = "published")]
    count: usize,
    /// Of all, or of none if there are too many.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    ids: Vec<String>,
}

/// It ended before all was published. The cause stands first; what to do about the rest depends on what was done before.
#[derive(Debug, thiserror::Error)]
#[error("{cause:#}; {}", so_far(*.published))]
pub struct Stopped {
    /// Why.
    pub cause: anyhow::Error,
    published: usize,
}

impl Stopped {
    /// The heading in `docs/errors.md`, if it has one for this.
    pub(super) fn code(&self) -> Option<String> {
        match self.cause.downcast_ref().and_then(input::Error::code) {
            Some(code) => Some(code.to_owned()),
            None => super::code(&self.cause),
        }
    }
}

fn so_far(published: usize) -> String {
    match published {
        0 => "nothing was published".to_owned(),
        count => format!(
            "the first {count} were published: send all again, and the broker drops those by their ids while it remembers them"
        ),
    }
}

/// Publishes, and says how many.
///
/// # Errors
/// The config is wrong; no host runs; what is read is no event; the host or the stream's broker does not take it. What was
/// published before stays; all of it may be published again, since brokers drop the same source and id within their window.
///
/// # Cancellation
/// The batch under way may be published or not.
pub async fn run(args: &Args, global: &Global) -> anyhow::Result<()> {
    let loaded = global.load()?;
    unknown::stream(&args.stream, &loaded.plan)?;
    // Read before anyone is asked: a wrong argument is wrong without a host too.
    let one = args
        .kind
        .as_deref()
        .map(|kind| one::event(args, kind, &Clock::system()))
        .transpose()?;
    let client = Client::reach(&loaded.plan.admin, &global.config).await?;
    let published = match one {
        Some(event) => Published {
            count: client.publish(&args.stream, event.batch()).await?,
            ids: vec![event.id],
        },
        None => publish_all(&client, args, global).await?,
    };
    let shown = if global.json {
        serde_json::to_string(&published)?
    } else {
        published.text(&args.stream)
    };
    say(&shown);
    Ok(())
}

async fn publish_all(client: &Client, args: &Args, global: &Global) -> anyhow::Result<Published> {
    let (input, bar) = open(args.file.as_deref(), global)?;
    let mut published = Published::default();
    for batch in Batches::new(input) {
        match send(client, args, batch).await {
            Ok((count, ids)) => published.add(count, ids),
            Err(cause) => {
                let published = published.count;
                return Err(Stopped { cause, published }.into());
            }
        }
        bar.set_message(format!("{} published", published.count));
    }
    bar.finish_and_clear();
    Ok(published)
}

async fn send(
    client: &Client,
    args: &Args,
    batch: Result<Batch, input::Error>,
) -> anyhow::Result<(usize, Vec<String>)> {
    let Batch { text, ids } = batch?;
    Ok((client.publish(&args.stream, text).await?, ids))
}

impl Published {
    fn add(&mut self, count: usize, ids: Vec<String>) {
        self.count += count;
        if self.count <= IDS_MAX {
            self.ids.extend(ids);
        } else {
            self.ids.clear();
        }
    }

    fn text(&self, stream: &Name) -> String {
        match self.ids.as_slice() {
            [id] => format!("published 1 to {stream}: {}", line(id)),
            _ => format!("published {} to {stream}", self.count),
        }
    }
}

/// The input, and a bar on stderr that is drawn if that is a terminal.
fn open(file: Option<&Path>, global: &Global) -> anyhow::Result<(Box<dyn Read>, ProgressBar)> {
    match file.filter(|file| *file != Path::new("-")) {
        None => {
            if std::io::stdin().is_terminal() && !global.json {
                complain("reading events from the terminal: one per line, Ctrl-D ends");
            }
            Ok((Box::new(std::io::stdin()), ProgressBar::hidden()))
        }
        Some(file) => {
            let named = || format!("{} can't be read", file.display());
            let opened = File::open(file).with_context(named)?;
            let length = opened.metadata().with_context(named)?.len();
            let style = ProgressStyle::with_template("{wide_bar} {bytes}/{total_bytes}, {msg}, {eta} left")?;
            let bar = ProgressBar::new(length).with_style(style);
            Ok((Box::new(bar.wrap_read(opened)), bar))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ids_of_a_few_events_are_told() {
        let check = |counts: &[usize], text: &str, json: &str| {
            let mut published = Published::default();
            for count in counts {
                published.add(*count, vec!["a".to_owned(); *count]);
            }
            assert_eq!(published.text(&Name::new("orders").unwrap()), text);
            assert_eq!(serde_json::to_string(&published).unwrap(), json);
        };
        check(&[1], "published 1 to orders: a", r#"{"published":1,"ids":["a"]}"#);
        check(&[1, 1], "published 2 to orders", r#"{"published":2,"ids":["a","a"]}"#);
        check(&[500, 1], "published 501 to orders", r#"{"published":501}"#);
        check(&[], "published 0 to orders", r#"{"published":0}"#);
    }

    #[test]
    fn the_cause_stands_before_what_was_published() {
        let check = |published, expected: &str| {
            let cause = anyhow::anyhow!("away").context("no answer");
            assert_eq!(Stopped { cause, published }.to_string(), expected);
        };
        check(0, "no answer: away; nothing was published");
        check(
            500,
            "no answer: away; the first 500 were published: send all again, and the broker drops those by their ids while it remembers them",
        );
    }
}
