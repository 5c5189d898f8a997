//! `tidegate run`: the service.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context;
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};
use tracing::{info, warn};

use super::{Global, say};
use crate::admin;
use crate::app::{App, Drained, Prepared};
use crate::clock::Clock;

/// How often the pipelines are looked at.
const LOOK: Duration = Duration::from_millis(500);
/// How long the admin API may take to answer what was asked last.
const LAST_ANSWERS: Duration = Duration::from_secs(1);

/// Arguments of `tidegate run`.
#[derive(Debug, clap::Args)]
pub struct Args {}

/// Runs until SIGTERM or SIGINT, then drains. A second signal ends it at once, which the next start counts as a crash.
///
/// # Errors
/// What keeps it from starting, or that it had to stop by itself.
///
/// # Cancellation
/// A crash in small.
pub async fn run(_: &Args, global: &Global) -> anyhow::Result<()> {
    let loaded = global.load()?;
    // Before anything runs: a signal that comes early must not find the default action.
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let start = async {
        let admin = loaded.plan.admin.clone();
        let prepared = Prepared::new(loaded.plan, Clock::system()).await?;
        let door = admin::Door::open(&admin).await?;
        anyhow::Ok((prepared.start().await?, door))
    };
    // Plugins may take long to compile, and nothing has been taken yet that would have to be finished.
    let (app, door) = tokio::select! {
        started = start => started?,
        _ = terminate.recv() => return Ok(()),
        _ = interrupt.recv() => return Ok(()),
    };
    let admin = door.serve(app.host.clone());
    announce(&app, admin.address(), global);
    let is_sound = tokio::select! {
        _ = terminate.recv() => true,
        _ = interrupt.recv() => true,
        () = unsound(&app) => false,
    };
    info!(grace = ?app.host.plan.host.grace, "draining");
    let stop = async {
        let idle = app.drain().await;
        // It is asked how the drain goes, and answers from the ledger.
        admin.stop(LAST_ANSWERS).await;
        idle.close().await
    };
    let drained = tokio::select! {
        drained = stop => drained,
        _ = terminate.recv() => anyhow::bail!("a second signal came: stopped without finishing"),
        _ = interrupt.recv() => anyhow::bail!("a second signal came: stopped without finishing"),
    };
    report(&drained, global)?;
    anyhow::ensure!(
        is_sound,
        "a pipeline panicked, which is a fault of the host: please report the backtrace above"
    );
    Ok(())
}

fn announce(app: &App, admin: SocketAddr, global: &Global) {
    let ingress = app.ingress_address();
    info!(%admin, consumers = app.host.plan.consumers.len(), "running");
    if global.json {
        say(&json!({ "admin": admin.to_string(), "ingress": ingress.map(|address| address.to_string()) }).to_string());
        return;
    }
    say(&format!("admin    http://{admin}"));
    if let Some(ingress) = ingress {
        say(&format!("ingress  http://{ingress}"));
    }
}

async fn unsound(app: &App) {
    while app.is_sound() {
        tokio::time::sleep(LOOK).await;
    }
}

fn report(drained: &Drained, global: &Global) -> anyhow::Result<()> {
    if global.json {
        say(&serde_json::to_string(drained).context("the report is no JSON")?);
        return Ok(());
    }
    for (consumer, left) in &drained.left {
        warn!(
            consumer,
            handed_back = left.handed_back,
            unfinished = left.unfinished,
            unconfirmed = left.unconfirmed,
            "left for the next host"
        );
    }
    info!(clean = drained.clean, "stopped");
    Ok(())
}
