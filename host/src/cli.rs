//! The command line: what may be said on it, and which command it means. Each command is one file below this one, with its
//! arguments and what it does; what people read goes to stdout, logs and problems to stderr.

pub mod check;
pub mod completions;
pub mod demo;
pub mod inspect;
pub mod logs;
pub mod run;
pub mod schema;

use std::fmt::Display;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand, ValueHint};
use serde::Serialize;
use serde_json::json;

use crate::config::{self, Loaded, Problems};
use crate::outcome::Reason;
use crate::plan::Name;

const EXIT_CODES: &str = "Exit codes:
  0  it is done, or all is well
  1  it failed; the last line on stderr says why
  2  the config or the arguments are wrong; stderr says what and where

Problems have codes; docs/errors.md has what to do for each.";

/// Dispatches broker events to sandboxed WebAssembly plugins, each taking effect once.
#[derive(Debug, Parser)]
#[command(name = "tidegate", version, max_term_width = 100, after_help = EXIT_CODES)]
pub struct Cli {
    /// What every command understands.
    #[command(flatten)]
    pub global: Global,
    /// The command.
    #[command(subcommand)]
    pub command: Command,
}

/// What every command understands.
#[derive(Clone, Debug, Args)]
pub struct Global {
    /// The config file.
    #[arg(
        long,
        global = true,
        value_name = "FILE",
        env = "TIDEGATE_CONFIG",
        default_value = "tidegate.toml"
    )]
    pub config: PathBuf,
    /// Print JSON: one object, or one per line where there are many.
    #[arg(long, global = true)]
    pub json: bool,
    /// How log lines on stderr look. What is logged is set by TIDEGATE_LOG, such as "debug" or "tidegate::broker=trace"; default "info", of the demo "off".
    #[arg(long, global = true, value_name = "FORMAT", value_enum, default_value_t)]
    pub log_format: logs::Format,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the service, until SIGTERM or SIGINT.
    Run(run::Args),
    /// Prove the config and its plugins; say what would run.
    Check(check::Args),
    /// Say what a component is and asks for.
    Inspect(inspect::Args),
    /// Run the flash sale on the embedded broker, and check from outside that it came out right.
    Demo(demo::Args),
    /// Print the JSON Schema of the config file, for editors.
    Schema(schema::Args),
    /// Print the completions of a shell.
    Completions(completions::Args),
}

impl Command {
    /// What is logged unless `TIDEGATE_LOG` says otherwise. The demo is full of things that go wrong on purpose; its table tells them.
    #[must_use]
    pub fn log_level(&self) -> &'static str {
        match self {
            Self::Demo(_) => "off",
            _ => "info",
        }
    }

    /// Does it.
    ///
    /// # Errors
    /// What [`Global::report`] tells people.
    ///
    /// # Cancellation
    /// As the command's own.
    pub async fn run(self, global: &Global) -> anyhow::Result<()> {
        match self {
            Self::Run(args) => run::run(&args, global).await,
            Self::Demo(args) => demo::run(&args, global).await,
            Self::Check(args) => check::run(&args, global).await,
            Self::Inspect(args) => inspect::run(&args, global).await,
            Self::Schema(args) => schema::run(&args),
            Self::Completions(args) => completions::run(&args),
        }
    }
}

impl Global {
    /// Loads the config with this process's environment, and prints its warnings.
    ///
    /// # Errors
    /// All that is wrong with it; pass it on, [`Global::report`] prints it.
    pub fn load(&self) -> Result<Loaded, Problems> {
        let loaded = config::load(&self.config, &|name| std::env::var(name).ok())?;
        for warning in &loaded.warnings {
            complain(&warning.to_string());
        }
        Ok(loaded)
    }

    /// Prints why a command failed, and says what the process ends with: 2 if config or arguments are wrong, else 1.
    #[must_use]
    pub fn report(&self, error: &anyhow::Error) -> ExitCode {
        let (exit, text) = if let Some(problems) = error.downcast_ref::<Problems>() {
            (2, self.told("problems", problems))
        } else if let Some(refused) = error.downcast_ref::<check::Refused>() {
            (1, self.told("plugins", refused))
        } else if self.json {
            (1, json!({ "error": format!("{error:#}") }).to_string())
        } else {
            (1, format!("error: {error:#}"))
        };
        complain(&text);
        ExitCode::from(exit)
    }

    fn told(&self, key: &str, error: &(impl Display + Serialize)) -> String {
        if self.json {
            json!({ key: error }).to_string()
        } else {
            error.to_string()
        }
    }
}

/// Arguments of `tidegate run`.
#[derive(Clone, Debug, Args)]
pub struct RunArgs {}

/// Arguments of `tidegate publish`: either one event by its attributes, or events read from a file.
#[derive(Clone, Debug, Args)]
pub struct PublishArgs {
    /// The stream in the config.
    #[arg(value_parser = Name::new)]
    pub stream: Name,
    /// Read events as JSON (CloudEvents, one per line) from this file; `-` is stdin.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, required_unless_present = "kind")]
    pub input: Option<PathBuf>,
    /// The type of the one event.
    #[arg(long = "type", value_name = "TYPE", conflicts_with = "input")]
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
    /// The media type of its data.
    #[arg(
        long,
        value_name = "MEDIA_TYPE",
        requires = "kind",
        default_value = "application/json"
    )]
    pub datacontenttype: String,
    /// Its data; `@FILE` reads it from a file, `@-` from stdin.
    #[arg(long, value_name = "TEXT", requires = "kind")]
    pub data: Option<String>,
    /// An extension attribute; may be given several times.
    #[arg(long = "extension", short = 'x', value_name = "NAME=VALUE", requires = "kind", value_parser = extension)]
    pub extensions: Vec<(String, String)>,
}

fn extension(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("write NAME=VALUE")?;
    Ok((name.to_owned(), value.to_owned()))
}

/// Arguments of `tidegate tail`.
#[derive(Clone, Debug, Args)]
pub struct TailArgs {
    /// Only of these consumers. Default: of all.
    #[arg(value_name = "CONSUMER", value_parser = Name::new)]
    pub consumers: Vec<Name>,
    /// Stop after so many.
    #[arg(long, short = 'n', value_name = "COUNT")]
    pub limit: Option<u64>,
}

/// `tidegate dlq`: dead letters.
#[derive(Clone, Debug, Subcommand)]
pub enum DlqCommand {
    /// List them, the oldest first.
    List(DlqListArgs),
    /// Show one: the event, its attempts, why each failed.
    Show(DlqShowArgs),
    /// Run them again.
    Redrive(DlqSelection),
    /// Give them up for good.
    Purge(DlqPurgeArgs),
}

/// Which dead letters to list.
#[derive(Clone, Debug, Args)]
pub struct DlqListArgs {
    /// Only of this consumer.
    #[arg(long, value_name = "CONSUMER", value_parser = Name::new)]
    pub consumer: Option<Name>,
    /// Only for this reason (docs/errors.md has the list).
    #[arg(long, value_name = "REASON")]
    pub reason: Option<Reason>,
    /// So many at most.
    #[arg(long, short = 'n', value_name = "COUNT", default_value_t = 50)]
    pub limit: usize,
}

/// Which dead letter to show.
#[derive(Clone, Debug, Args)]
pub struct DlqShowArgs {
    /// As `dlq list` shows it.
    pub id: String,
}

/// Dead letters to act on: by id, or all that match.
#[derive(Clone, Debug, Args)]
pub struct DlqSelection {
    /// As `dlq list` shows them.
    #[arg(value_name = "ID", required_unless_present_any = ["consumer", "reason"])]
    pub ids: Vec<String>,
    /// All of this consumer.
    #[arg(long, value_name = "CONSUMER", value_parser = Name::new, conflicts_with = "ids")]
    pub consumer: Option<Name>,
    /// All for this reason.
    #[arg(long, value_name = "REASON", conflicts_with = "ids")]
    pub reason: Option<Reason>,
}

/// Which dead letters to give up.
#[derive(Clone, Debug, Args)]
pub struct DlqPurgeArgs {
    /// Which.
    #[command(flatten)]
    pub selection: DlqSelection,
    /// Do not ask.
    #[arg(long, short = 'y')]
    pub yes: bool,
}

/// Arguments of `tidegate demo`.
#[derive(Clone, Debug, Args)]
pub struct DemoArgs {
    /// Orders to place.
    #[arg(long, value_name = "COUNT", default_value_t = 10_000)]
    pub orders: u64,
    /// The same seed makes the same sale.
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    pub seed: u64,
    /// Keep ledger and config in this folder. Default: a temporary one that is removed.
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub keep: Option<PathBuf>,
}

/// Prints lines for people or programs to stdout. A closed pipe is no failure: whoever reads has seen enough.
pub fn say(text: &str) {
    let _ = writeln!(std::io::stdout().lock(), "{text}");
}

fn complain(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, Parser};

    use super::*;

    /// The commands whose files come with their parts.
    #[derive(Debug, Parser)]
    enum Later {
        Run(RunArgs),
        Publish(PublishArgs),
        Tail(TailArgs),
        #[command(subcommand)]
        Dlq(DlqCommand),
        Demo(DemoArgs),
    }

    fn later(line: &str) -> Result<Later, String> {
        Later::try_parse_from(line.split(' ')).map_err(|error| error.to_string())
    }

    #[test]
    fn the_arguments_fit_together() {
        Cli::command().debug_assert();
        Later::command().debug_assert();
    }

    #[test]
    fn global_options_may_stand_after_the_command() {
        let cli = Cli::try_parse_from(["tidegate", "check", "--json", "--config", "x.toml"]).unwrap();
        assert!(cli.global.json);
        assert_eq!(cli.global.config, PathBuf::from("x.toml"));
    }

    #[test]
    fn an_event_is_published_by_attributes_or_from_a_file() {
        let Ok(Later::Publish(args)) = later("tidegate publish orders --type a.b -x tenant=a=b") else {
            panic!("not understood");
        };
        assert_eq!(args.extensions, [("tenant".to_owned(), "a=b".to_owned())]);
        assert!(later("tidegate publish orders --input -").is_ok());
        assert!(later("tidegate publish orders").is_err());
        assert!(later("tidegate publish orders --input - --type a.b").is_err());
        assert!(
            later("tidegate publish Orders --input -")
                .unwrap_err()
                .contains("is no name")
        );
    }

    #[test]
    fn nothing_is_redriven_or_purged_without_a_selection() {
        assert!(later("tidegate dlq redrive").is_err());
        assert!(later("tidegate dlq purge --yes").is_err());
        assert!(later("tidegate dlq purge --yes --reason trap").is_ok());
        assert!(later("tidegate dlq redrive 1 2").is_ok());
        assert!(later("tidegate dlq redrive 1 --reason trap").is_err());
        assert!(
            later("tidegate dlq list --reason bored")
                .unwrap_err()
                .contains("no such reason: bored")
        );
    }
}
