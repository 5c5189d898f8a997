//! The NATS server of a benchmark: started for it alone, by the tests' script, and ended with it.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, ensure};
use serde::Deserialize;
use sysinfo::Pid;
use tokio::process::Command;

use crate::cli::client;

/// How long the server's monitor may take to answer.
const ANSWER: Duration = Duration::from_secs(10);

/// A running server. Dropping it ends it and removes its folder.
pub(super) struct Server {
    /// For clients.
    pub(super) url: String,
    /// Its process.
    pub(super) pid: Pid,
    monitor: String,
    folder: PathBuf,
    http: reqwest::Client,
}

#[derive(Deserialize)]
struct Jetstream {
    #[serde(default)]
    account_details: Vec<Account>,
}

#[derive(Deserialize)]
struct Account {
    #[serde(default)]
    stream_detail: Vec<Stream>,
}

#[derive(Deserialize)]
struct Stream {
    name: String,
    state: State,
}

#[derive(Deserialize)]
struct State {
    messages: u64,
}

impl Server {
    /// Starts one whose streams are in `folder`.
    ///
    /// # Errors
    /// There is no server and none can be installed, or it does not start.
    pub(super) async fn start(repository: &Path, folder: PathBuf) -> anyhow::Result<Self> {
        let script = repository.join("tests/servers/nats.sh");
        let mut command = Command::new(&script);
        command
            .args(["--owner", &std::process::id().to_string(), "--folder"])
            .arg(&folder);
        let output = command.stderr(Stdio::inherit()).output().await;
        let output = output.with_context(|| format!("{} can't be run", script.display()))?;
        ensure!(output.status.success(), "no NATS server: the script says why above");
        let line = String::from_utf8(output.stdout)?;
        let words: Vec<&str> = line.split_whitespace().collect();
        let [url, pid, monitor, _] = words.as_slice() else {
            anyhow::bail!("{} said {line:?}", script.display());
        };
        Ok(Self {
            url: (*url).to_owned(),
            pid: pid.parse()?,
            monitor: (*monitor).to_owned(),
            folder,
            http: client::http()?,
        })
    }

    /// How many messages some streams hold together; none where there is no such stream yet.
    ///
    /// # Errors
    /// The server does not answer.
    pub(super) async fn messages(&self, streams: &[String]) -> anyhow::Result<u64> {
        let url = format!("{}/jsz?accounts=true&streams=true", self.monitor);
        let answer: Jetstream = self
            .http
            .get(url)
            .timeout(ANSWER)
            .send()
            .await?
            .error_for_status()?
            .json()
            .await?;
        let found = answer.account_details.iter().flat_map(|account| &account.stream_detail);
        let asked = found.filter(|found| streams.contains(&found.name));
        Ok(asked.map(|found| found.state.messages).sum())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Ok(system) = super::watch::processes(&[self.pid])
            && let Some(process) = system.process(self.pid)
        {
            process.kill();
        }
        // What is left in the temporary folder is the system's to remove.
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}
