//! The command line: what may be said on it, and which command it means. Each command is one file below this one, with its
//! arguments and what it does; what people read goes to stdout, logs and problems to stderr.

pub mod bench;
pub mod check;
pub mod client;
pub mod completions;
pub mod demo;
pub mod dlq;
mod example;
pub mod inspect;
pub mod logs;
pub mod printed;
pub mod publish;
pub mod run;
pub mod schema;
pub mod tail;
pub mod unknown;

use std::fmt::Display;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use serde::Serialize;
use serde_json::json;

use crate::config::{self, Loaded, Problems};
use crate::event::codec;
use crate::plan::{Name, Plan};
use crate::{admin, app, ledger, plugin};

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
    /// Put events on a stream of the running host.
    Publish(publish::Args),
    /// Show what becomes of events, as it happens.
    Tail(tail::Args),
    /// Dead letters: list them, show one, run them again, give them up.
    Dlq(dlq::Args),
    /// Prove the config and its plugins; say what would run.
    Check(check::Args),
    /// Say what a component is and asks for.
    Inspect(inspect::Args),
    /// Run the flash sale on the embedded broker, and check from outside that it came out right.
    Demo(demo::Args),
    /// Measure the host against a consumer written by hand, in a clone of the repository.
    Bench(bench::Args),
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
            Self::Bench(_) => "error",
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
            Self::Publish(args) => publish::run(&args, global).await,
            Self::Tail(args) => tail::run(&args, global).await,
            Self::Dlq(args) => dlq::run(&args, global).await,
            Self::Demo(args) => demo::run(&args, global).await,
            Self::Bench(args) => bench::run(&args, global).await,
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

    /// Warns of a consumer that was named and is not in the config.
    fn warn_of_unknown(&self, consumer: Option<&Name>, plan: &Plan) {
        if let Some(warning) = consumer.and_then(|name| unknown::consumer(name, plan)) {
            complain(&warning);
        }
    }

    /// Prints why a command failed, and says what the process ends with: 2 if config or arguments are wrong, else 1.
    #[must_use]
    pub fn report(&self, error: &anyhow::Error) -> ExitCode {
        let (exit, text) = if let Some(problems) = error.downcast_ref::<Problems>() {
            (2, self.told("problems", problems))
        } else if let Some(refused) = error.downcast_ref::<check::Refused>() {
            (1, self.told("plugins", refused))
        } else {
            (if error.is::<unknown::Stream>() { 2 } else { 1 }, self.failed(error))
        };
        complain(&text);
        ExitCode::from(exit)
    }

    fn failed(&self, error: &anyhow::Error) -> String {
        match (self.json, code(error)) {
            (true, Some(code)) => json!({ "code": code, "error": format!("{error:#}") }).to_string(),
            (true, None) => json!({ "error": format!("{error:#}") }).to_string(),
            (false, Some(code)) => format!("error[{code}]: {error:#}"),
            (false, None) => format!("error: {error:#}"),
        }
    }

    fn told(&self, key: &str, error: &(impl Display + Serialize)) -> String {
        if self.json {
            json!({ key: error }).to_string()
        } else {
            error.to_string()
        }
    }
}

/// The heading in `docs/errors.md`, if it has one for this.
fn code(error: &anyhow::Error) -> Option<String> {
    error.chain().find_map(|cause| {
        if let Some(refused) = cause.downcast_ref::<client::Refused>() {
            return Some(refused.code.clone());
        }
        if let Some(stopped) = cause.downcast_ref::<publish::Stopped>() {
            return stopped.code();
        }
        known_code(cause).map(str::to_owned)
    })
}

fn known_code(cause: &(dyn std::error::Error + 'static)) -> Option<&'static str> {
    let app = cause.downcast_ref().map(app::Error::code);
    let admin = || cause.downcast_ref().map(admin::Error::code);
    let ledger = || cause.downcast_ref().map(ledger::Error::code);
    let event = || cause.downcast_ref().map(codec::Error::code);
    let engine = || cause.is::<plugin::EngineError>().then_some(plugin::EngineError::CODE);
    let host = || cause.is::<client::NoHost>().then_some(client::NoHost::CODE);
    let stream = || cause.is::<unknown::Stream>().then_some(unknown::Stream::CODE);
    let letter = || cause.downcast_ref().map(dlq::prefix::Unclear::code);
    let ours = || host().or_else(stream).or_else(letter);
    app.or_else(admin)
        .or_else(ledger)
        .or_else(event)
        .or_else(engine)
        .or_else(ours)
}

/// What has to follow a command that people are told to run, so that it means the same config.
fn config_option(config: &Path) -> String {
    match config.display().to_string() {
        default if default == "tidegate.toml" => String::new(),
        other => format!(" --config {}", printed::line(&other)),
    }
}

/// Prints lines for people or programs to stdout. A closed pipe is no failure: whoever reads has seen enough.
pub fn say(text: &str) {
    let _ = writeln!(std::io::stdout().lock(), "{text}");
}

/// Says what is wrong. Errors repeat what came from outside: it may be of several lines, and moves no cursor.
fn complain(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{}", printed::lines(text));
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, Parser};

    use super::*;

    fn parsed(line: &str) -> Result<Command, String> {
        let cli = Cli::try_parse_from(line.split(' '));
        cli.map(|cli| cli.command).map_err(|error| error.to_string())
    }

    #[test]
    fn the_arguments_fit_together() {
        Cli::command().debug_assert();
    }

    #[test]
    fn global_options_may_stand_after_the_command() {
        let cli = Cli::try_parse_from(["tidegate", "check", "--json", "--config", "x.toml"]).unwrap();
        assert!(cli.global.json);
        assert_eq!(cli.global.config, PathBuf::from("x.toml"));
    }

    #[test]
    fn an_event_is_published_by_attributes_or_from_a_file() {
        let Ok(Command::Publish(args)) = parsed("tidegate publish orders --type a.b -x tenant=a=b") else {
            panic!("not understood");
        };
        assert_eq!(args.extensions, [("tenant".to_owned(), "a=b".to_owned())]);
        assert!(parsed("tidegate publish orders -").is_ok());
        assert!(parsed("tidegate publish orders").is_ok());
        assert!(parsed("tidegate publish orders - --type a.b").is_err());
        assert!(parsed("tidegate publish Orders").unwrap_err().contains("is no name"));
    }

    #[test]
    fn nothing_is_redriven_or_purged_without_a_selection() {
        assert!(parsed("tidegate dlq redrive").is_err());
        assert!(parsed("tidegate dlq purge --json").is_err());
        assert!(parsed("tidegate dlq purge --json --reason trap").is_ok());
        assert!(
            parsed("tidegate dlq list --reason bored")
                .unwrap_err()
                .contains("no such reason: bored")
        );
    }
}
