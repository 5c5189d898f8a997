//! The server under the benchmark: its streams, its CPU time, and whether it has what a round should leave.

use anyhow::{Context as _, Result, ensure};
use async_nats::HeaderMap;
use async_nats::jetstream::consumer::{AckPolicy, pull};
use async_nats::jetstream::context::PublishAckFuture;
use async_nats::jetstream::{self, Context, stream};
use sysinfo::{Pid, ProcessRefreshKind, ProcessesToUpdate, System};

use super::{HEADERS, IN, IN_FLIGHT, OUT};

pub(crate) struct Server {
    context: Context,
    pid: Pid,
}

impl Server {
    pub(crate) async fn find(url: &str, pid: Option<u32>) -> Result<Self> {
        let context = jetstream::new(async_nats::connect(url).await?);
        let pid = pid.map_or_else(only_server, |pid| Ok(Pid::from_u32(pid)))?;
        Ok(Self { context, pid })
    }

    /// Makes the stream that is read.
    pub(crate) async fn fill(&self, events: u32) -> Result<()> {
        for (name, subject) in [(IN, "bench.in"), (OUT, "bench.out")] {
            let _ = self.context.delete_stream(name).await;
            let stream = stream::Config {
                name: name.to_owned(),
                subjects: vec![subject.to_owned()],
                storage: stream::StorageType::File,
                ..Default::default()
            };
            self.context.create_stream(stream).await?;
        }
        let payload = format!("{{\"order\":17,\"note\":\"{}\"}}", "x".repeat(256 - 24));
        let mut unconfirmed: Vec<PublishAckFuture> = Vec::new();
        for event in 0..events {
            let mut headers = HeaderMap::new();
            for (name, value) in HEADERS {
                headers.insert(name, value);
            }
            headers.insert("ce-id", format!("order-{event:010}"));
            let message = jetstream::message::PublishMessage::build()
                .headers(headers)
                .payload(payload.clone().into());
            unconfirmed.push(self.context.send_publish("bench.in", message).await?);
            if unconfirmed.len() == IN_FLIGHT {
                for confirmation in unconfirmed.drain(..) {
                    confirmation.await?;
                }
            }
        }
        for confirmation in unconfirmed {
            confirmation.await?;
        }
        Ok(())
    }

    /// Empties the stream that is written.
    pub(crate) async fn begin_round(&self) -> Result<()> {
        self.context.get_stream(OUT).await?.purge().await?;
        Ok(())
    }

    /// Whether every event was acknowledged and has its one output. Then forgets the consumer.
    pub(crate) async fn check(&self, name: &str, events: u32) -> Result<()> {
        let mut out = self.context.get_stream(OUT).await?;
        let outputs = out.info().await?.state.messages;
        ensure!(
            outputs == u64::from(events),
            "{name}: {outputs} outputs of {events} events"
        );
        let stream = self.context.get_stream(IN).await?;
        let consumer = format!("tidegate-{name}");
        let mut left = usize::MAX;
        // Acknowledgements are not confirmed: the last ones may be on their way.
        for _ in 0..100 {
            let info = stream.consumer_info(&consumer).await?;
            left = info.num_ack_pending + usize::try_from(info.num_pending)?;
            if left == 0 {
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        ensure!(left == 0, "{name}: {left} events are not acknowledged");
        stream.delete_consumer(&consumer).await?;
        Ok(())
    }

    /// The server's CPU time until now.
    pub(crate) fn cpu_ms(&self) -> Result<u64> {
        let mut system = System::new()?;
        let cpu = ProcessRefreshKind::nothing().with_cpu();
        system.refresh_processes_specifics(ProcessesToUpdate::Some(&[self.pid]), false, cpu);
        let process = system.process(self.pid).context("the server has ended")?;
        Ok(process.accumulated_cpu_time())
    }
}

/// The consumer that a host would make, for the peer too.
pub(crate) fn consumer(name: &str) -> pull::Config {
    pull::Config {
        durable_name: Some(format!("tidegate-{name}")),
        ack_policy: AckPolicy::Explicit,
        max_ack_pending: -1,
        ..Default::default()
    }
}

fn only_server() -> Result<Pid> {
    let mut system = System::new()?;
    system.refresh_processes_specifics(ProcessesToUpdate::All, false, ProcessRefreshKind::nothing());
    let mut servers = system.processes_by_exact_name("nats-server".as_ref());
    match (servers.next(), servers.next()) {
        (Some(one), None) => Ok(one.pid()),
        _ => anyhow::bail!("there is not exactly one nats-server: name it with --server-pid"),
    }
}
