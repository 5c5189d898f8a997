//! How long a host takes from its start until it is ready, with ten consumers whose plugin is compiled already, and what memory it then has.

use std::fmt::Write;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use serde::Serialize;

use super::contender::{Contender, Kind, free_address};
use super::report::Spread;
use super::watch;
use crate::cli::client;
use crate::clock::Clock;

const CONSUMERS: usize = 10;
const TIMES: usize = 7;
/// Between two looks.
const LOOK: Duration = Duration::from_millis(1);
/// A host that is not ready by then never will be.
const PATIENCE: Duration = Duration::from_secs(30);

/// What several starts showed; the first, which may have to compile, is not counted.
#[derive(Debug, Serialize)]
pub(super) struct Start {
    /// From the start of the process until it is ready, in milliseconds.
    pub(super) start_ms: Spread,
    /// Resident memory when it is ready.
    pub(super) start_mib: Spread,
}

/// Starts a host again and again, whose ten consumers have this plugin.
///
/// # Errors
/// The host can't be run, or does not become ready.
pub(super) async fn run(host: &Path, plugin: &Path, folder: &Path, clock: &Clock) -> anyhow::Result<Start> {
    std::fs::create_dir_all(folder)?;
    let admin = free_address()?;
    let config = folder.join("tidegate.toml");
    std::fs::write(&config, text(plugin, folder, admin)?)?;
    once(host, &config, admin, clock).await?;
    let (mut took, mut memory) = (Vec::with_capacity(TIMES), Vec::with_capacity(TIMES));
    for _ in 0..TIMES {
        let (ms, mib) = once(host, &config, admin, clock).await?;
        took.push(ms);
        memory.push(mib);
    }
    Ok(Start {
        start_ms: Spread::of(took),
        start_mib: Spread::of(memory),
    })
}

async fn once(host: &Path, config: &Path, admin: SocketAddr, clock: &Clock) -> anyhow::Result<(f64, f64)> {
    let (http, url) = (client::http()?, format!("http://{admin}/readyz"));
    let start = clock.now();
    let mut host = Contender::host(Kind::Embedded, config, host)?;
    let ready = async {
        while !http
            .get(&url)
            .send()
            .await
            .is_ok_and(|answer| answer.status().is_success())
        {
            host.expect_running()?;
            tokio::time::sleep(LOOK).await;
        }
        anyhow::Ok(())
    };
    let ready = tokio::time::timeout(PATIENCE, ready).await;
    ready.context("the host does not become ready")??;
    let took = clock.now() - start;
    let [used] = watch::usage([host.pid])?;
    host.stop().await?;
    Ok((took.as_secs_f64() * 1_000.0, watch::mib(used.memory)))
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
