//! `tidegate publish`: puts events on a stream of the running host.

mod input;
mod one;

use std::fs::File;
use std::io::{IsTerminal, Read};
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::ValueHint;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;

use self::input::Batches;
use super::client::Client;
use super::{Global, complain, say};
use crate::clock::Clock;
use crate::plan::Name;

/// Arguments of `tidegate publish`: events from a file or stdin, or one event by its attributes.
#[derive(Clone, Debug, clap::Args)]
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
    // Read before anyone is asked: a wrong argument is wrong without a host too.
    let one = args
        .kind
        .as_deref()
        .map(|kind| one::event(args, kind, &Clock::system()))
        .transpose()?;
    let client = Client::reach(&loaded.plan.admin, &global.config).await?;
    let published = match one {
        Some(event) => client.publish(&args.stream, format!("[{event}]")).await?,
        None => publish_all(&client, args, global).await?,
    };
    if global.json {
        say(&json!({ "published": published }).to_string());
    } else {
        say(&format!("published {published} to {}", args.stream));
    }
    Ok(())
}

async fn publish_all(client: &Client, args: &Args, global: &Global) -> anyhow::Result<usize> {
    let (input, bar) = open(args.file.as_deref(), global)?;
    let mut published = 0;
    let so_far = |published: usize| {
        format!("{published} were published before; publishing all again is safe within the broker's window")
    };
    for batch in Batches::new(input) {
        let batch = batch.with_context(|| so_far(published))?;
        let sent = client.publish(&args.stream, batch).await;
        published += sent.with_context(|| so_far(published))?;
        bar.set_message(format!("{published} published"));
    }
    bar.finish_and_clear();
    Ok(published)
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
