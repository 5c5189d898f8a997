//! How long a host takes from its start until it is ready, with ten consumers whose plugin is compiled already.

use std::fmt::Write;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::Context;

use super::Bench;
use super::contender::{Contender, Kind, free_address};
use super::report::Spread;
use crate::cli::client;

const CONSUMERS: usize = 10;
const TIMES: usize = 7;
/// Between two looks.
const LOOK: Duration = Duration::from_millis(1);
/// A host that is not ready by then never will be.
const PATIENCE: Duration = Duration::from_secs(30);

/// In milliseconds, over several starts; the first, which may have to compile, is not counted.
///
/// # Errors
/// The host can't be run, or does not become ready.
pub(super) async fn run(bench: &Bench) -> anyhow::Result<Spread> {
    let folder = bench.folder.path().join("start");
    std::fs::create_dir_all(&folder)?;
    let admin = free_address()?;
    let config = folder.join("tidegate.toml");
    std::fs::write(&config, text(&bench.built.plugin, &folder, admin)?)?;
    once(bench, &config, admin).await?;
    let mut took = Vec::with_capacity(TIMES);
    for _ in 0..TIMES {
        took.push(once(bench, &config, admin).await?);
    }
    Ok(Spread::of(took))
}

async fn once(bench: &Bench, config: &Path, admin: SocketAddr) -> anyhow::Result<f64> {
    let (http, url) = (client::http()?, format!("http://{admin}/readyz"));
    let start = bench.clock.now();
    let host = Contender::host(Kind::Embedded, config, &bench.built)?;
    let ready = async {
        while !http
            .get(&url)
            .send()
            .await
            .is_ok_and(|answer| answer.status().is_success())
        {
            tokio::time::sleep(LOOK).await;
        }
    };
    let ready = tokio::time::timeout(PATIENCE, ready).await;
    ready.context("the host does not become ready")?;
    let took = bench.clock.now() - start;
    host.stop().await?;
    Ok(took.as_secs_f64() * 1_000.0)
}

fn text(plugin: &Path, folder: &Path, admin: SocketAddr) -> Result<String, std::fmt::Error> {
    let mut text = format!("[ledger]\nurl = \"embedded:{}\"\n", folder.join("ledger").display());
    writeln!(
        text,
        "[broker.main]\nurl = \"embedded:\"\n[admin]\nlisten = \"{admin}\""
    )?;
    writeln!(
        text,
        "[stream.orders]\nbroker = \"main\"\n[stream.invoices]\nbroker = \"main\""
    )?;
    for number in 0..CONSUMERS {
        writeln!(text, "[consumer.invoice-{number}]\nplugin = \"{}\"", plugin.display())?;
        writeln!(text, "reads = \"orders\"\nwrites = \"invoices\"")?;
    }
    Ok(text)
}
