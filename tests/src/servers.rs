//! Real servers for tests, started by the scripts in `tests/servers/`, each on a free port and in a folder of its own.

use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

/// How long a server may take to end.
const END_TIME: Duration = Duration::from_secs(20);
/// How often it is looked at meanwhile.
const END_PAUSE: Duration = Duration::from_millis(5);

/// A NATS server with JetStream. Killed, and its folder removed, when it is dropped.
#[derive(Debug)]
pub struct Nats {
    folder: tempfile::TempDir,
    config: Option<PathBuf>,
    url: String,
    address: SocketAddr,
    /// While it runs.
    pid: Option<u32>,
}

impl Nats {
    /// Starts a server that asks nobody who they are.
    #[must_use]
    pub fn start() -> Self {
        Self::launch(None)
    }

    /// Starts a server with further configuration, in the server's own syntax.
    #[must_use]
    pub fn with_config(config: &str) -> Self {
        Self::launch(Some(config))
    }

    fn launch(config: Option<&str>) -> Self {
        let folder = tempfile::tempdir().expect("a folder can be made");
        let config = config.map(|text| {
            let file = folder.path().join("server.conf");
            std::fs::write(&file, text).expect("the folder can be written");
            file
        });
        let (url, pid) = run(folder.path(), config.as_deref(), None);
        let address = url.split_once("://").expect("a URL").1;
        Self {
            address: address.parse().expect("an address"),
            folder,
            config,
            url,
            pid: Some(pid),
        }
    }

    /// Where it listens, without a scheme.
    #[must_use]
    pub fn address(&self) -> String {
        self.address.to_string()
    }

    /// Where it listens: `nats://127.0.0.1:PORT`, or `tls://` where its configuration says so.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Its folder: streams, log, configuration.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Ends it as an administrator would.
    pub fn stop(&mut self) {
        self.end("-TERM");
    }

    /// Ends it without warning.
    pub fn kill(&mut self) {
        self.end("-KILL");
    }

    /// Starts it again on the same port and folder, after ending it if it runs.
    pub fn restart(&mut self) {
        self.stop();
        let port = self.address.port();
        let (_, pid) = run(self.folder.path(), self.config.as_deref(), Some(port));
        self.pid = Some(pid);
    }

    /// Starts it again as [`Nats::restart`] does, with other configuration.
    pub fn restart_with(&mut self, config: &str) {
        self.stop();
        let file = self.folder.path().join("server.conf");
        std::fs::write(&file, config).expect("the folder can be written");
        self.config = Some(file);
        self.restart();
    }

    /// Gives it other configuration while it runs. It must have been started with some.
    pub fn reload_with(&self, config: &str) {
        let file = self.config.as_ref().expect("it has a configuration");
        std::fs::write(file, config).expect("the folder can be written");
        self.signal("-HUP");
    }

    /// Stops its process in the middle of what it does; its connections stay.
    pub fn freeze(&self) {
        self.signal("-STOP");
    }

    /// Lets it go on.
    pub fn thaw(&self) {
        self.signal("-CONT");
    }

    fn signal(&self, signal: &str) {
        let pid = self.pid.expect("it runs").to_string();
        let sent = Command::new("kill").args([signal, &pid]).status();
        assert!(sent.is_ok_and(|status| status.success()), "the server ended by itself");
    }

    fn end(&mut self, signal: &str) {
        if self.pid.is_none() {
            return;
        }
        self.signal(signal);
        self.pid = None;
        // Not our child, so there is nothing to wait for but its port.
        for _ in 0..END_TIME.as_millis() / END_PAUSE.as_millis() {
            if TcpStream::connect_timeout(&self.address, Duration::from_secs(1)).is_err() {
                return;
            }
            std::thread::sleep(END_PAUSE);
        }
        panic!(
            "the server still listens on {} {END_TIME:?} after kill {signal}",
            self.address
        );
    }
}

impl Drop for Nats {
    fn drop(&mut self) {
        if let Some(pid) = self.pid.take() {
            let _ = Command::new("kill").args(["-KILL", &pid.to_string()]).status();
        }
    }
}

/// Runs the script; gives URL and pid.
fn run(folder: &Path, config: Option<&Path>, port: Option<u16>) -> (String, u32) {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("servers/nats.sh");
    let mut command = Command::new(script);
    command.arg("--folder").arg(folder);
    command.arg("--owner").arg(std::process::id().to_string());
    if let Some(config) = config {
        command.arg("--config").arg(config);
    }
    if let Some(port) = port {
        command.arg("--port").arg(port.to_string());
    }
    let output = command
        .stderr(Stdio::inherit())
        .output()
        .expect("the script can be run");
    let line = String::from_utf8_lossy(&output.stdout).into_owned();
    let mut words = line.split_whitespace();
    let url = words.next().expect("the script says where the server is");
    let pid = words.next().and_then(|pid| pid.parse().ok());
    (url.to_owned(), pid.expect("the script says its pid"))
}
