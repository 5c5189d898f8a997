//! What is measured: `tidegate run` in several settings, the consumer written by hand, and if asked for, Benthos.

use std::fmt::Write;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use serde::Serialize;
use sysinfo::{Pid, Signal};
use tokio::process::{Child, Command};
use tokio::task::JoinHandle;

use super::benthos::Benthos;
use super::orders::Order;
use super::{Bench, allocations, watch};
use crate::config;
use crate::plan::Plan;

/// How long a host may take to finish what it has in hand.
const STOP: Duration = Duration::from_secs(60);

/// Which contender.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Kind {
    /// `examples/handwritten/peer`: no record, no order, no dead letters.
    Handwritten,
    /// Everything on, an instance for each event. The ratio of the benchmark is of this one to the peer.
    Full,
    /// Everything on, instances reused.
    Reused,
    /// An instance for each event, and commits that do not wait for the disk.
    NoFsync,
    /// Everything on, an instance for each event, from and to logs of the embedded broker.
    Embedded,
    /// `examples/handwritten/benthos`: the engine of Redpanda Connect, with a record in memory and no order.
    Benthos,
}

impl Kind {
    /// Those that always have their turn, the peer first.
    pub(super) const USUAL: [Self; 5] = [
        Self::Handwritten,
        Self::Full,
        Self::Reused,
        Self::NoFsync,
        Self::Embedded,
    ];
    /// Those whose latency is measured.
    pub(super) const PACED: [Self; 3] = [Self::Handwritten, Self::Full, Self::Reused];

    /// What is to be checked of the order of what it writes.
    pub(super) fn order(self) -> Order {
        match self {
            Self::Handwritten | Self::Benthos => Order::Any,
            _ => Order::Kept,
        }
    }

    /// For tables and file names.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Handwritten => "handwritten",
            Self::Full => "full",
            Self::Reused => "reused",
            Self::NoFsync => "no-fsync",
            Self::Embedded => "embedded",
            Self::Benthos => "benthos",
        }
    }
}

/// What is built before anything is measured.
#[derive(Clone)]
pub(super) struct Built {
    /// The host.
    pub(super) host: PathBuf,
    /// The consumer written by hand.
    pub(super) peer: PathBuf,
    /// The same as a plugin.
    pub(super) plugin: PathBuf,
    /// Only if it was asked for.
    pub(super) benthos: Option<Benthos>,
}

/// How a host is set up, beyond what its kind says.
#[derive(Clone, Copy, Debug)]
pub(super) struct Setup {
    /// Consumers, each of which reads all orders and writes a stream of its own. At least 1.
    pub(super) consumers: u32,
    /// The `concurrency` of each; none: the host's default.
    pub(super) concurrency: Option<u32>,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            consumers: 1,
            concurrency: None,
        }
    }
}

/// One contender's place in one run: what it reads and writes, where it keeps its files.
pub(super) struct Place {
    pub(super) kind: Kind,
    /// The stream it reads; the same on the server.
    pub(super) orders: String,
    /// The stream it writes, its own; of several consumers, the first one's.
    pub(super) invoices: String,
    setup: Setup,
    /// The address of its admin API.
    pub(super) admin: std::net::SocketAddr,
    folder: PathBuf,
    config: PathBuf,
}

impl Place {
    /// Makes the folder and writes the config, from which the benchmark itself knows the streams, too.
    ///
    /// # Errors
    /// The folder can't be written.
    pub(super) fn prepare(bench: &Bench, kind: Kind, orders: &str, run: usize) -> anyhow::Result<Self> {
        let invoices = format!("invoices-{run}-{}", kind.name());
        let folder = bench.folder.path().join(&invoices);
        std::fs::create_dir_all(&folder)?;
        let place = Self {
            kind,
            orders: orders.to_owned(),
            invoices,
            setup: bench.setup,
            admin: free_address()?,
            config: folder.join("tidegate.toml"),
            folder,
        };
        std::fs::write(&place.config, place.text(&bench.server.url, &bench.built.plugin)?)?;
        Ok(place)
    }

    /// The streams it writes, one for each consumer, which has the same name.
    pub(super) fn written(&self) -> Vec<String> {
        let others = (1..self.setup.consumers).map(|number| format!("{}-{number}", self.invoices));
        std::iter::once(self.invoices.clone()).chain(others).collect()
    }

    /// The proven config.
    ///
    /// # Errors
    /// This version does not take what the benchmark writes.
    pub(super) fn plan(&self) -> anyhow::Result<Plan> {
        Ok(config::load(&self.config, &|name| std::env::var(name).ok())?.plan)
    }

    /// Removes its files: many ledgers would fill the disk.
    pub(super) fn remove(self) {
        // What can't be removed now goes with the benchmark's folder.
        let _ = std::fs::remove_dir_all(self.folder);
    }

    fn text(&self, server: &str, plugin: &Path) -> Result<String, std::fmt::Error> {
        let mut text = String::new();
        let is_embedded = self.kind == Kind::Embedded;
        let url = if is_embedded { "embedded:" } else { server };
        writeln!(
            text,
            "[ledger]\nurl = \"embedded:{}\"",
            self.folder.join("ledger").display()
        )?;
        if self.kind == Kind::NoFsync {
            writeln!(text, "fsync = false")?;
        }
        writeln!(text, "[broker.main]\nurl = \"{url}\"")?;
        let written = self.written();
        for name in std::iter::once(&self.orders).chain(&written) {
            writeln!(text, "[stream.{name}]\nbroker = \"main\"")?;
            if !is_embedded {
                writeln!(text, "subjects = [\"{name}\"]\nsubject = \"{name}\"\ncreate = true")?;
            }
        }
        let instances = if self.kind == Kind::Reused { "reuse" } else { "fresh" };
        for name in &written {
            writeln!(
                text,
                "[consumer.{name}]\nreads = \"{}\"\nwrites = \"{name}\"",
                self.orders
            )?;
            writeln!(
                text,
                "plugin = \"{}\"\nkey = \"partitionkey\"\ninstances = \"{instances}\"",
                plugin.display()
            )?;
            if let Some(concurrency) = self.setup.concurrency {
                writeln!(text, "concurrency = {concurrency}")?;
            }
        }
        writeln!(text, "[admin]\nlisten = \"{}\"", self.admin)?;
        Ok(text)
    }
}

/// A contender at work. Dropping it kills it.
pub(super) struct Contender {
    kind: Kind,
    child: Child,
    /// Of a host: its allocations, once it has ended.
    allocations: Option<JoinHandle<Option<u64>>>,
    /// Its process.
    pub(super) pid: Pid,
}

impl Contender {
    /// Starts it.
    ///
    /// # Errors
    /// It can't be run.
    pub(super) fn start(place: &Place, server: &str, built: &Built) -> anyhow::Result<Self> {
        let command = match place.kind {
            Kind::Handwritten => {
                let mut command = Command::new(&built.peer);
                command.args([server, &place.orders, &place.invoices, &place.invoices]);
                command
            }
            Kind::Benthos => {
                let benthos = built.benthos.as_ref().context("benthos was not built")?;
                benthos.command(place, server)
            }
            _ => return Self::host(place.kind, &place.config, &built.host),
        };
        Self::spawn(place.kind, command)
    }

    /// Starts a host with a config.
    ///
    /// # Errors
    /// It can't be run.
    pub(super) fn host(kind: Kind, config: &Path, host: &Path) -> anyhow::Result<Self> {
        let mut command = Command::new(host);
        command
            .args(["run", "--config"])
            .arg(config)
            .env("TIDEGATE_LOG", "warn");
        allocations::ask(&mut command);
        Self::spawn(kind, command)
    }

    fn spawn(kind: Kind, mut command: Command) -> anyhow::Result<Self> {
        let child = command.stdout(Stdio::null()).kill_on_drop(true).spawn();
        let mut child = child.with_context(|| format!("{} can't be run", kind.name()))?;
        let pid = child.id().context("it has ended at once")?;
        Ok(Self {
            kind,
            allocations: allocations::listen(&mut child),
            child,
            pid: Pid::from_u32(pid),
        })
    }

    /// # Errors
    /// It has ended.
    pub(super) fn expect_running(&mut self) -> anyhow::Result<()> {
        match self.child.try_wait()? {
            Some(status) => bail!("{} has ended by itself: {status}", self.kind.name()),
            None => Ok(()),
        }
    }

    /// Ends it as an operator would. The host finishes what it has in hand, and how often it has allocated memory is known then; the peer
    /// has nothing to finish.
    ///
    /// # Errors
    /// It had ended by itself, or does not end.
    pub(super) async fn stop(mut self) -> anyhow::Result<Option<u64>> {
        self.expect_running()?;
        let name = self.kind.name();
        let system = watch::processes(&[self.pid])?;
        let process = system.process(self.pid).context("it has ended")?;
        process.kill_with(Signal::Term);
        let status = tokio::time::timeout(STOP, self.child.wait()).await;
        let status = status.with_context(|| format!("{name} does not stop"))??;
        ensure!(
            status.success() || self.kind == Kind::Handwritten,
            "{name} ended with {status}"
        );
        match self.allocations {
            Some(allocations) => Ok(allocations.await?),
            None => Ok(None),
        }
    }
}

/// An address that nobody listens on.
///
/// # Errors
/// There is none.
pub(super) fn free_address() -> std::io::Result<std::net::SocketAddr> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Name;

    #[test]
    fn each_consumer_reads_all_orders_and_writes_a_stream_of_its_own() {
        let folder = tempfile::tempdir().unwrap();
        let plugin = folder.path().join("invoice.wasm");
        std::fs::write(&plugin, []).unwrap();
        let place = Place {
            kind: Kind::Full,
            orders: "orders".to_owned(),
            invoices: "invoices".to_owned(),
            setup: Setup {
                consumers: 3,
                concurrency: Some(7),
            },
            admin: free_address().unwrap(),
            folder: folder.path().to_owned(),
            config: folder.path().join("tidegate.toml"),
        };
        std::fs::write(&place.config, place.text("nats://127.0.0.1:4222", &plugin).unwrap()).unwrap();
        let plan = place.plan().unwrap();
        let written = place.written();
        assert_eq!(written, ["invoices", "invoices-1", "invoices-2"]);
        assert_eq!(plan.consumers.len(), 3);
        for name in written {
            let consumer = &plan.consumers[&Name::new(&name).unwrap()];
            assert_eq!(consumer.reads.name.as_str(), "orders");
            assert_eq!(consumer.writes[0].stream.name.as_str(), name);
            assert_eq!(consumer.concurrency.get(), 7);
        }
    }
}
