//! `tidegate dlq`: dead letters, listed, shown, run again, given up.
//!
//! Asks the running host if there is one; else opens the ledger itself, which works while no host does.

#[cfg(fuzzing)]
pub mod fuzzing;
mod letters;
pub mod prefix;
#[cfg(test)]
mod tests;
mod text;

use std::num::NonZeroUsize;

use clap::{ArgGroup, Subcommand};

use self::letters::{Act, Letters};
use self::prefix::{Prefix, resolve};
use super::{Global, say};
use crate::admin::view::{DeadLetterLine, Selection};
use crate::ledger::DeadId;
use crate::outcome::Reason;
use crate::plan::Name;

/// Arguments of `tidegate dlq`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What can be done with dead letters.
#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// List them, oldest first.
    List(List),
    /// Show one whole: the event, its attempts, why each failed, what to do next.
    Show(Show),
    /// Put them back into their lanes and run them again.
    Redrive(Selected),
    /// Forget them for good; their events never run again.
    Purge(Selected),
}

impl Command {
    fn consumer(&self) -> Option<&Name> {
        match self {
            Self::List(list) => list.consumer.as_ref(),
            Self::Show(_) => None,
            Self::Redrive(selected) | Self::Purge(selected) => selected.consumer.as_ref(),
        }
    }
}

/// Which dead letters to list.
#[derive(Clone, Debug, clap::Args)]
pub struct List {
    /// Only of this consumer.
    #[arg(long, value_name = "CONSUMER", value_parser = Name::new)]
    pub consumer: Option<Name>,
    /// Only for this reason (docs/errors.md has the list).
    #[arg(long, value_name = "REASON")]
    pub reason: Option<Reason>,
    /// So many at most.
    #[arg(long, short = 'n', value_name = "COUNT", default_value = "100")]
    pub limit: NonZeroUsize,
}

/// Which dead letter to show.
#[derive(Clone, Debug, clap::Args)]
pub struct Show {
    /// Its id, as `dlq list` shows it, or the first 6 digits or more.
    pub id: Prefix,
}

/// Which dead letters to act on: by id, all that match, or all there are.
#[derive(Clone, Debug, clap::Args)]
#[group(skip)]
#[command(group(ArgGroup::new("which").args(["ids", "consumer", "reason", "all"]).required(true).multiple(true)))]
pub struct Selected {
    /// These, as `dlq list` shows them, or the first 6 digits or more of each.
    #[arg(value_name = "ID", conflicts_with_all = ["consumer", "reason", "all"])]
    pub ids: Vec<Prefix>,
    /// All of this consumer.
    #[arg(long, value_name = "CONSUMER", value_parser = Name::new, conflicts_with = "all")]
    pub consumer: Option<Name>,
    /// All for this reason (docs/errors.md has the list).
    #[arg(long, value_name = "REASON", conflicts_with = "all")]
    pub reason: Option<Reason>,
    /// All there are.
    #[arg(long)]
    pub all: bool,
    /// Do nothing, only say what would be done.
    #[arg(long)]
    pub dry_run: bool,
}

impl Selected {
    fn selection(&self, ids: &[DeadId]) -> Selection {
        Selection {
            ids: ids.iter().map(ToString::to_string).collect(),
            consumer: self.consumer.as_ref().map(ToString::to_string),
            reason: self.reason.map(|reason| reason.to_string()),
            all: self.all,
            dry_run: self.dry_run,
        }
    }
}

/// Does what is asked. That nothing matched is no failure.
///
/// # Errors
/// The config is wrong; neither a host nor the ledger answers; the dead letter to show is not there.
///
/// # Cancellation
/// What was being redriven or purged may be done in part; asking again does the rest.
pub async fn run(args: &Args, global: &Global) -> anyhow::Result<()> {
    let loaded = global.load()?;
    global.warn_of_unknown(args.command.consumer(), &loaded.plan);
    let letters = Letters::find(&loaded.plan).await?;
    let done = match &args.command {
        Command::List(list) => self::list(&letters, list, global).await,
        Command::Show(show) => self::show(&letters, show, global).await,
        Command::Redrive(selected) => act(&letters, Act::Redrive, selected, global).await,
        Command::Purge(selected) => act(&letters, Act::Purge, selected, global).await,
    };
    letters.close().await?;
    done
}

async fn list(letters: &Letters, list: &List, global: &Global) -> anyhow::Result<()> {
    let (lines, more) = read_list(letters, list).await?;
    if global.json {
        for line in &lines {
            say(&serde_json::to_string(line)?);
        }
    } else {
        say(&text::list(&lines, more));
    }
    Ok(())
}

/// As many as are wanted, page by page, and whether there are more.
async fn read_list(letters: &Letters, list: &List) -> anyhow::Result<(Vec<DeadLetterLine>, bool)> {
    let limit = list.limit.get();
    let mut lines: Vec<DeadLetterLine> = Vec::new();
    let mut after = None;
    loop {
        let page = letters.list(list, after, limit - lines.len()).await?;
        lines.extend(page.dead_letters);
        after = page.next;
        if after.is_none() || lines.len() >= limit {
            return Ok((lines, after.is_some()));
        }
    }
}

async fn show(letters: &Letters, show: &Show, global: &Global) -> anyhow::Result<()> {
    let ids = resolve(letters, std::slice::from_ref(&show.id)).await?;
    let Some(id) = ids.first() else {
        anyhow::bail!("no id was given");
    };
    let letter = letters.show(*id).await?;
    let shown = if global.json {
        serde_json::to_string(&letter)?
    } else {
        text::letter(&letter, &global.config)
    };
    say(&shown);
    Ok(())
}

async fn act(letters: &Letters, act: Act, selected: &Selected, global: &Global) -> anyhow::Result<()> {
    let selection = selected.selection(&resolve(letters, &selected.ids).await?);
    let done = letters.act(act, &selection).await?;
    let shown = if global.json {
        serde_json::to_string(&done)?
    } else {
        text::done(act, &done, &selection, letters.runs())
    };
    say(&shown);
    Ok(())
}
