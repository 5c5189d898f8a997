//! `tidegate inspect`: what a component is and asks for. Runs nothing of it, and needs no config.

use std::path::PathBuf;

use anyhow::Context;
use clap::ValueHint;

use super::{Global, say};
use crate::config::show_size;
use crate::plugin::{self, Import, Inspection, Need};

/// Arguments of `tidegate inspect`.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// The component.
    #[arg(value_hint = ValueHint::FilePath)]
    pub file: PathBuf,
}

/// Prints it.
///
/// # Errors
/// The file can't be read, or is no component.
///
/// # Cancellation
/// Safe: it only reads.
pub async fn run(args: &Args, global: &Global) -> anyhow::Result<()> {
    let file = args.file.display();
    let bytes = tokio::fs::read(&args.file)
        .await
        .with_context(|| format!("{file} can't be read"))?;
    let found = plugin::inspect(&bytes).with_context(|| file.to_string())?;
    let text = if global.json {
        serde_json::to_string(&found)?
    } else {
        shown(&found)
    };
    say(&text);
    Ok(())
}

fn shown(found: &Inspection) -> String {
    let contract = found.contract.as_ref().map_or_else(
        || "none: it exports no tidegate:plugin/handler".to_owned(),
        |version| format!("tidegate:plugin@{version}"),
    );
    let names = if found.has_names {
        "yes: a trap can say where it was"
    } else {
        "no: a trap can't say where it was"
    };
    let mut lines = vec![
        format!("digest    {}", found.digest),
        format!("size      {} bytes", found.size),
        format!("contract  {contract}"),
        format!("memory    {} at start", show_size(found.memory_at_start)),
        format!("names     {names}"),
    ];
    lines.extend(found.exports.iter().map(|export| format!("exports   {export}")));
    lines.extend(found.imports.iter().map(shown_import));
    let grants: Vec<_> = found.grants.iter().map(ToString::to_string).collect();
    lines.push(if grants.is_empty() {
        "grants    it needs none".to_owned()
    } else {
        format!("grants    it needs {}", grants.join(", "))
    });
    lines.join("\n")
}

fn shown_import(import: &Import) -> String {
    let name = &import.name;
    match import.needs {
        Need::Nothing => format!("imports   {name}"),
        Need::Grant(grant) => format!("imports   {name} (needs {grant})"),
        Need::NewerHost => format!("imports   {name} (needs a newer host)"),
        Need::OtherHost => format!("imports   {name} (this host does not have it)"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_component_is_shown() {
        let found = plugin::inspect(b"\0asm\x0d\0\x01\0").unwrap();
        let text = shown(&found);
        assert!(
            text.contains("size      8 bytes\ncontract  none: it exports no tidegate:plugin/handler"),
            "{text}"
        );
        assert!(text.ends_with("grants    it needs none"), "{text}");
    }
}
