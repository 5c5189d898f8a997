//! `tidegate check`: proves the config and every plugin against it, and says what would run. Touches no broker and no ledger.

mod summary;

use std::fmt::Write;

use anyhow::Context;
use sha2::{Digest, Sha256};

use self::summary::{ConsumerSummary, Summary};
use super::{Global, say};
use crate::plan::Consumer;

/// Arguments of `tidegate check`.
#[derive(Debug, clap::Args)]
pub struct Args {}

/// Proves the config, then each plugin.
///
/// # Errors
/// All that is wrong with the config; or if nothing is, all that is wrong with the plugins.
///
/// # Cancellation
/// Safe: it only reads.
pub async fn run(_: &Args, global: &Global) -> anyhow::Result<()> {
    let loaded = global.load()?;
    let mut proven = Vec::new();
    let mut refused = Vec::new();
    for consumer in loaded.plan.consumers.values() {
        match prove_plugin(consumer).await {
            Ok(revision) => proven.push(ConsumerSummary::of(consumer, revision)),
            Err(error) => refused.push(format!("consumer {}: {error:#}", consumer.name)),
        }
    }
    if !refused.is_empty() {
        anyhow::bail!(refused.join("\nerror: "));
    }
    let summary = Summary::of(&loaded.plan, proven, &loaded.warnings, &global.config);
    let text = if global.json {
        serde_json::to_string(&summary)?
    } else {
        summary.text()
    };
    say(&text);
    Ok(())
}

/// Proves one consumer's plugin, and gives its digest.
async fn prove_plugin(consumer: &Consumer) -> anyhow::Result<String> {
    let bytes = tokio::fs::read(&consumer.plugin)
        .await
        .with_context(|| format!("{} can't be read", consumer.plugin.display()))?;
    let digest = digest(&bytes);
    if let Some(pinned) = consumer.digest.as_ref().filter(|pinned| **pinned != digest) {
        anyhow::bail!(
            "{} has digest {digest}, the config pins {pinned}: put the pinned file back, or change `digest` if the new one is meant",
            consumer.plugin.display()
        );
    }
    Ok(digest)
}

fn digest(bytes: &[u8]) -> String {
    let mut text = "sha256:".to_owned();
    for byte in Sha256::digest(bytes) {
        // Writing to a string can't fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}
