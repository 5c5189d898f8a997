//! What the host spends on NATS per event, beside a hand-written consumer that does the same work without any guarantee: take from a
//! pull consumer, publish one output under an id, wait until it is confirmed, acknowledge.
//!
//!     cargo bench -p tidegate --bench broker -- --nats nats://127.0.0.1:4222 [--server-pid PID] [--rounds 5] [--events 60000] [--only host]
//!
//! `NATS_URL` stands in for `--nats`. The server's process is the only one called `nats-server`, or the one that is named. Rounds of
//! both take turns, so that whatever else the machine does disturbs both. The streams are named `BENCH-IN` and `BENCH-OUT`; what was
//! in them is lost.

#[path = "broker/host.rs"]
mod host;
mod meter;
#[path = "broker/peer.rs"]
mod peer;
#[path = "broker/server.rs"]
mod server;

use std::time::Instant;

use anyhow::{Context, Result};
use meter::{Cost, Sample};
use server::Server;

/// Unsettled events at most: what both may hold.
const IN_FLIGHT: usize = 1_024;
const IN: &str = "BENCH-IN";
const OUT: &str = "BENCH-OUT";
/// Attributes of an event that arrives, and of one that is published; the id is different in each.
const HEADERS: [(&str, &str); 6] = [
    ("ce-specversion", "1.0"),
    ("ce-source", "/shops/berlin"),
    ("ce-type", "shop.order.placed"),
    ("ce-time", "2026-11-24T09:00:00Z"),
    ("ce-partitionkey", "customer-17"),
    ("content-type", "application/json"),
];

/// What the command line says.
struct Settings {
    url: String,
    server_pid: Option<u32>,
    rounds: usize,
    events: u32,
    only: Option<String>,
}

/// A round of one of the two.
struct Round {
    cost: Cost,
    server_us: f64,
    events_per_second: f64,
}

#[tokio::main]
async fn main() -> Result<()> {
    let settings = settings()?;
    let server = Server::find(&settings.url, settings.server_pid).await?;
    server.fill(settings.events).await?;
    let mut ratios = Vec::new();
    for round in 1..=settings.rounds {
        let mut rounds = Vec::new();
        for who in ["peer", "host"] {
            if settings.only.as_deref().is_none_or(|only| only == who) {
                let measured = measure(&settings, &server, who, round).await?;
                println!(
                    "round {round}  {who}  {:7.0} events/s {} {:6.2} us server",
                    measured.events_per_second, measured.cost, measured.server_us
                );
                rounds.push(measured);
            }
        }
        if let [peer, host] = rounds.as_slice() {
            ratios.push((host.cost.cpu_us / peer.cost.cpu_us, host.server_us / peer.server_us));
        }
    }
    if !ratios.is_empty() {
        let (client, server): (Vec<f64>, Vec<f64>) = ratios.into_iter().unzip();
        println!(
            "host / peer, median: CPU {:.2}, server's CPU {:.2}",
            median(client),
            median(server)
        );
    }
    Ok(())
}

async fn measure(settings: &Settings, server: &Server, who: &str, round: usize) -> Result<Round> {
    server.begin_round().await?;
    let name = format!("{who}-{round}");
    let (sample, server_ms, started);
    if who == "peer" {
        let mut peer = peer::Peer::connect(&settings.url, &name).await?;
        (sample, server_ms, started) = (Sample::start(), server.cpu_ms()?, now());
        peer.run(settings.events).await?;
    } else {
        let mut host = host::Host::connect(&settings.url, &name).await?;
        (sample, server_ms, started) = (Sample::start(), server.cpu_ms()?, now());
        host.run(settings.events).await?;
    }
    let seconds = started.elapsed().as_secs_f64();
    let (cost, spent_ms) = (sample.end(settings.events), server.cpu_ms()? - server_ms);
    server.check(&name, settings.events).await?;
    let events = f64::from(settings.events);
    #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
    Ok(Round {
        cost,
        server_us: spent_ms as f64 * 1_000.0 / events,
        events_per_second: events / seconds,
    })
}

fn settings() -> Result<Settings> {
    let mut settings = Settings {
        url: std::env::var("NATS_URL").unwrap_or_default(),
        server_pid: None,
        rounds: 5,
        events: 60_000,
        only: None,
    };
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        if argument == "--bench" {
            continue;
        }
        let value = arguments.next().with_context(|| format!("{argument} needs a value"))?;
        match argument.as_str() {
            "--nats" => settings.url = value,
            "--server-pid" => settings.server_pid = Some(value.parse()?),
            "--rounds" => settings.rounds = value.parse()?,
            "--events" => settings.events = value.parse()?,
            "--only" => settings.only = Some(value),
            _ => anyhow::bail!("{argument} is unknown"),
        }
    }
    anyhow::ensure!(
        !settings.url.is_empty(),
        "name a server: --nats nats://HOST:PORT, or NATS_URL"
    );
    Ok(settings)
}

#[expect(clippy::disallowed_methods, reason = "a benchmark reads the machine's clock")]
fn now() -> Instant {
    Instant::now()
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
