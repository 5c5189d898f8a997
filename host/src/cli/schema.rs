//! `tidegate schema`: the JSON Schema of the config file.

use super::say;
use crate::config;

/// Arguments of `tidegate schema`.
#[derive(Debug, clap::Args)]
pub struct Args {}

/// Prints the schema, as `docs/tidegate.schema.json` has it.
///
/// # Errors
/// None in practice: the schema is plain JSON.
pub fn run(_: &Args) -> anyhow::Result<()> {
    say(&serde_json::to_string_pretty(&config::schema())?);
    Ok(())
}
