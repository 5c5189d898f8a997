//! `tidegate inspect`: what a component is and asks for. Runs nothing of it, and needs no config.

use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::ValueHint;

use super::{Global, say};
use crate::config::{locate_plugin, show_size};
use crate::plugin::{self, Grant, Import, Inspection, Need};

/// Arguments of `tidegate inspect`.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// The component, or the folder that has it: whatever `plugin` in the config may name.
    #[arg(value_hint = ValueHint::AnyPath)]
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
    // A file that is not there is told as such, not as a plugin that is not built.
    let file = match args.file.is_dir() {
        true => locate_plugin(&args.file).map_err(anyhow::Error::msg)?,
        false => args.file.clone(),
    };
    let found = inspect(&file).await?;
    let text = if global.json {
        serde_json::to_string(&found)?
    } else {
        shown(&found, &file)
    };
    say(&text);
    Ok(())
}

/// Reads a component.
///
/// # Errors
/// It can't be read, or is none.
pub async fn inspect(file: &Path) -> anyhow::Result<Inspection> {
    let bytes = tokio::fs::read(file).await;
    let bytes = bytes.with_context(|| format!("{} can't be read", file.display()))?;
    plugin::inspect(&bytes).with_context(|| file.display().to_string())
}

/// Whether it can emit events, which needs `writes` in its consumer.
#[must_use]
pub fn emits(found: &Inspection) -> bool {
    let is_outbox = |import: &Import| import.name.starts_with("tidegate:plugin/outbox@");
    found.imports.iter().any(is_outbox)
}

fn shown(found: &Inspection, file: &Path) -> String {
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
        format!("file      {}", file.display()),
        format!("digest    {}", found.digest),
        format!("size      {} bytes", found.size),
        format!("contract  {contract}"),
        format!("memory    {} at start", show_size(found.memory_at_start)),
        format!("names     {names}"),
    ];
    lines.extend(found.exports.iter().map(|export| format!("exports   {export}")));
    lines.extend(found.imports.iter().map(shown_import));
    lines.extend(needed(found));
    lines.join("\n")
}

/// What its consumer must have, as lines for the config.
fn needed(found: &Inspection) -> Vec<String> {
    let mut lines = Vec::new();
    if emits(found) {
        lines.push("writes    it emits events; its consumer needs:\nwrites = \"STREAM\"".to_owned());
    }
    let grants: Vec<&str> = found.grants.iter().filter_map(|grant| granted(*grant)).collect();
    lines.push(if grants.is_empty() {
        "grants    it needs none".to_owned()
    } else {
        format!("grants    its consumer needs:\ngrants = {{ {} }}", grants.join(", "))
    });
    lines
}

/// As it stands in the config; `None` if this version has nothing to grant.
fn granted(grant: Grant) -> Option<&'static str> {
    match grant {
        Grant::State => Some("state = true"),
        Grant::Config => Some("config = { NAME = \"VALUE\" }"),
        Grant::Http => None,
    }
}

fn shown_import(import: &Import) -> String {
    let name = &import.name;
    match import.needs {
        Need::Nothing => format!("imports   {name}"),
        Need::Grant(Grant::Http) => format!("imports   {name} (not available in this version)"),
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
        let text = shown(&found, Path::new("x.wasm"));
        assert!(
            text.contains("size      8 bytes\ncontract  none: it exports no tidegate:plugin/handler"),
            "{text}"
        );
        assert!(text.starts_with("file      x.wasm\n"), "{text}");
        assert!(text.ends_with("grants    it needs none"), "{text}");
    }

    #[test]
    fn what_its_consumer_needs_is_told_for_the_config() {
        let mut found = plugin::inspect(b"\0asm\x0d\0\x01\0").unwrap();
        found.grants = [Grant::State, Grant::Config, Grant::Http].into();
        found.imports = vec![Import {
            name: "tidegate:plugin/outbox@0.1.0".to_owned(),
            needs: Need::Nothing,
        }];
        let expected = "\
writes    it emits events; its consumer needs:
writes = \"STREAM\"
grants    its consumer needs:
grants = { state = true, config = { NAME = \"VALUE\" } }";
        assert_eq!(needed(&found).join("\n"), expected);
        let line = expected.lines().last().unwrap().replace("NAME", "name");
        assert!(line.parse::<toml::Table>().is_ok(), "{line}");
    }

    #[tokio::test]
    async fn a_folder_is_taken_as_the_config_takes_it() {
        let folder = tempfile::tempdir().unwrap();
        let args = Args {
            file: folder.path().to_owned(),
        };
        let global = Global {
            config: PathBuf::new(),
            json: false,
            log_format: crate::cli::logs::Format::default(),
        };
        let absent = run(&args, &global).await.unwrap_err().to_string();
        assert!(absent.contains("has no .wasm file"), "{absent}");
        std::fs::write(folder.path().join("plugin.wasm"), b"\0asm\x0d\0\x01\0").unwrap();
        run(&args, &global).await.unwrap();
    }
}
