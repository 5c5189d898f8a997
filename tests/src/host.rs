//! The host as its users have it: the binary, a folder with a config, commands, signals, HTTP.

use std::ffi::OsStr;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Output, Stdio};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStderr, ChildStdout, Command};
use tokio::task::JoinHandle;

/// How long a test waits for what must come.
const PATIENCE: Duration = Duration::from_secs(60);
/// How often it looks meanwhile.
const LOOK: Duration = Duration::from_millis(10);

/// Stands at the end of every config: addresses that are free, and the compiled plugins that tests share.
const TAIL: &str = "
[admin]
listen = \"${ADMIN:-127.0.0.1:0}\"

[host]
cache = \"${CACHE}\"
";

/// Waits until `is_true`.
///
/// # Panics
/// If it does not come true in a minute.
pub async fn until(what: &str, is_true: impl AsyncFnMut() -> bool) {
    assert!(comes(PATIENCE, is_true).await, "waited in vain for {what}");
}

/// Waits until `is_true`, but not longer than so; says whether it came true.
pub async fn comes(patience: Duration, mut is_true: impl AsyncFnMut() -> bool) -> bool {
    let looking = async {
        while !is_true().await {
            tokio::time::sleep(LOOK).await;
        }
    };
    tokio::time::timeout(patience, looking).await.is_ok()
}

/// The binary, built as it stands.
fn binary() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let built = std::process::Command::new(env!("CARGO"))
            // With all that tests/run builds: of fewer packages the dependencies have other features, and are built once more.
            .args(["build", "--quiet", "--workspace", "--all-targets"])
            .current_dir(&root)
            .status();
        assert!(built.is_ok_and(|status| status.success()), "the host does not build");
        let test = std::env::current_exe().expect("a test is a file");
        let profile = test.ancestors().nth(2).expect("it lies in target/PROFILE/deps");
        profile.join("tidegate")
    })
}

pub(crate) fn client() -> reqwest::Client {
    // An error says that there is one already, which serves as well.
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder().no_proxy().build().expect("a client")
}

/// A folder with a `tidegate.toml`, where hosts run one after the other. Removed when it is dropped.
#[derive(Debug)]
pub struct Home(tempfile::TempDir);

impl Home {
    /// A folder with this config; its admin API listens on a free port.
    ///
    /// # Panics
    /// If it can't be written.
    #[must_use]
    pub fn new(config: &str) -> Self {
        let home = Self(tempfile::tempdir().expect("a folder can be made"));
        home.configure(config);
        home
    }

    /// Gives it another config.
    ///
    /// # Panics
    /// If it can't be written.
    pub fn configure(&self, config: &str) {
        std::fs::write(self.path().join("tidegate.toml"), format!("{config}{TAIL}"))
            .expect("the folder can be written");
    }

    /// The folder.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.0.path()
    }

    fn command(&self, args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Command {
        let mut command = Command::new(binary());
        command.args(args).current_dir(self.path()).kill_on_drop(true);
        command.env("CACHE", crate::plugins::cache());
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    /// Runs a command to its end, without a host.
    ///
    /// # Panics
    /// If it does not end in a minute.
    pub async fn ask(&self, args: &[&str]) -> Said {
        self.ask_with(&[], args).await
    }

    /// Runs a command to its end with these variables in its environment.
    ///
    /// # Panics
    /// If it does not end in a minute.
    pub async fn ask_with(&self, environment: &[(&str, String)], args: &[&str]) -> Said {
        let mut command = self.command(args);
        command.envs(environment.iter().map(|(name, value)| (name, value)));
        let output = command.output();
        let output = tokio::time::timeout(PATIENCE, output).await.expect("it ends");
        Said::of(output.expect("the binary can be run"))
    }

    /// Starts a host and waits until its admin API listens.
    ///
    /// # Panics
    /// If it ends instead.
    pub async fn start(&self) -> Host<'_> {
        match self.start_with(&[]).await {
            Ok(host) => host,
            Err(ended) => panic!("the host does not start:\n{}", ended.log),
        }
    }

    /// Starts a host with these variables in its environment, and waits until its admin API listens.
    ///
    /// # Errors
    /// How it ended, if it ended instead.
    ///
    /// # Panics
    /// If there is no binary.
    pub async fn start_with(&self, environment: &[(&str, String)]) -> Result<Host<'_>, Ended> {
        let mut command = self.command(["run", "--json"]);
        command.envs(environment.iter().map(|(name, value)| (name, value)));
        let mut child = command.spawn().expect("the binary can be run");
        let log = Log::of(child.stderr.take().expect("it is piped"));
        let mut stdout = BufReader::new(child.stdout.take().expect("it is piped")).lines();
        let line = stdout.next_line().await.expect("stdout is text");
        let Some(line) = line else {
            return Err(Ended {
                status: child.wait().await.expect("it is a child"),
                log: log.whole().await,
            });
        };
        let line: Value = serde_json::from_str(&line).expect("it says where it listens");
        let address = |key: &str| line[key].as_str().map(|text| text.parse().expect("an address"));
        Ok(Host {
            home: self,
            child,
            stdout,
            log,
            admin: address("admin").expect("it has an admin API"),
            ingress: address("ingress"),
            http: client(),
        })
    }
}

/// How a host ended.
#[derive(Debug)]
pub struct Ended {
    /// Its status.
    pub status: ExitStatus,
    /// Its log.
    pub log: String,
}

/// What a command said.
#[derive(Debug)]
pub struct Said {
    /// Its exit code; `None` if a signal ended it.
    pub code: Option<i32>,
    /// What it printed.
    pub stdout: String,
    /// What it complained of.
    pub stderr: String,
}

impl Said {
    fn of(output: Output) -> Self {
        Self {
            code: output.status.code(),
            stdout: String::from_utf8(output.stdout).expect("it prints text"),
            stderr: String::from_utf8(output.stderr).expect("it prints text"),
        }
    }

    /// What it printed, as JSON, a value per line.
    ///
    /// # Panics
    /// If it failed, or a line is no JSON.
    #[must_use]
    pub fn json(&self) -> Vec<Value> {
        assert_eq!(self.code, Some(0), "{}", self.stderr);
        let lines = self.stdout.lines();
        lines
            .map(|line| serde_json::from_str(line).expect("a line of JSON"))
            .collect()
    }
}

/// A running host. Killed when it is dropped.
#[derive(Debug)]
pub struct Host<'h> {
    home: &'h Home,
    child: Child,
    stdout: Lines<BufReader<ChildStdout>>,
    log: Log,
    admin: SocketAddr,
    ingress: Option<SocketAddr>,
    http: reqwest::Client,
}

impl Host<'_> {
    /// Runs a command that asks this host.
    ///
    /// # Panics
    /// If it does not end in a minute.
    pub async fn ask(&self, args: &[&str]) -> Said {
        let output = self.home.command(args).env("ADMIN", self.admin.to_string()).output();
        let output = tokio::time::timeout(PATIENCE, output).await.expect("it ends");
        Said::of(output.expect("the binary can be run"))
    }

    /// Where its admin API is.
    #[must_use]
    pub fn admin(&self) -> SocketAddr {
        self.admin
    }

    /// Where its ingress is.
    ///
    /// # Panics
    /// If it has none.
    #[must_use]
    pub fn ingress(&self) -> SocketAddr {
        self.ingress.expect("it has an ingress")
    }

    /// Reads from the admin API; status and body.
    ///
    /// # Panics
    /// If it does not answer.
    pub async fn get(&self, path: &str) -> (u16, String) {
        let response = self.http.get(format!("http://{}{path}", self.admin)).send().await;
        let response = response.expect("the admin API answers");
        (response.status().as_u16(), response.text().await.expect("a body"))
    }

    /// The body of `get`, as JSON.
    ///
    /// # Panics
    /// If it is none.
    pub async fn json(&self, path: &str) -> Value {
        serde_json::from_str(&self.get(path).await.1).expect("JSON")
    }

    /// A request to put something on the stream `/in` of the ingress.
    ///
    /// # Panics
    /// If it has no ingress.
    pub fn post(&self, body: impl Into<reqwest::Body>) -> reqwest::RequestBuilder {
        self.http.post(format!("http://{}/in", self.ingress())).body(body)
    }

    /// Puts an event in, in binary mode; the status of the answer.
    ///
    /// # Errors
    /// If the host went away meanwhile.
    pub async fn send(&self, kind: &str, id: &str, key: &str, data: &str) -> reqwest::Result<u16> {
        let attributes = [
            ("specversion", "1.0"),
            ("type", kind),
            ("id", id),
            ("source", "/test"),
            ("subject", key),
        ];
        let mut request = self.post(data.to_owned()).header("content-type", "text/plain");
        for (name, value) in attributes {
            request = request.header(format!("ce-{name}"), value);
        }
        Ok(request.send().await?.status().as_u16())
    }

    /// A number of `/metrics`: that of the only line that begins so.
    ///
    /// # Panics
    /// If there is none or more than one.
    pub async fn metric(&self, begins: &str) -> f64 {
        let (_, text) = self.get("/metrics").await;
        let mut lines = text.lines().filter(|line| line.starts_with(begins));
        let line = lines.next().unwrap_or_else(|| panic!("no {begins} in:\n{text}"));
        assert_eq!(lines.next(), None, "{begins} is ambiguous");
        let value = line.rsplit(' ').next().and_then(|value| value.parse().ok());
        value.expect("a metric has a value")
    }

    /// How many deliveries ended so.
    pub async fn deliveries(&self, consumer: &str, outcome: &str) -> f64 {
        let labels = format!("tidegate_deliveries_total{{consumer=\"{consumer}\",outcome=\"{outcome}\"}}");
        self.metric(&labels).await
    }

    /// Waits until every consumer is subscribed.
    pub async fn until_ready(&self) {
        until("ready", async || self.get("/readyz").await.0 == 200).await;
    }

    /// What it has logged so far.
    #[must_use]
    pub fn log(&self) -> String {
        self.log.so_far()
    }

    /// Kills it, as a power cut would.
    ///
    /// # Panics
    /// If it has ended before.
    pub async fn kill(mut self) {
        assert_eq!(
            self.child.try_wait().expect("it is a child"),
            None,
            "it ended by itself"
        );
        self.child.kill().await.expect("it is a child");
    }

    /// Sends it a signal.
    ///
    /// # Panics
    /// If it has ended before.
    pub fn signal(&self, signal: &str) {
        let pid = self.child.id().expect("it runs").to_string();
        let sent = std::process::Command::new("kill").args([signal, &pid]).status();
        assert!(sent.is_ok_and(|status| status.success()), "it ended by itself");
    }

    /// Waits for its end; how it ended, what it said at last, and its log.
    ///
    /// # Panics
    /// If it does not end in a minute.
    pub async fn ended(mut self) -> (ExitStatus, Option<Value>, String) {
        let status = tokio::time::timeout(PATIENCE, self.child.wait()).await;
        let status = status.expect("it ends").expect("it is a child");
        let last = self.stdout.next_line().await.expect("stdout is text");
        let last = last.map(|line| serde_json::from_str(&line).expect("JSON"));
        (status, last, self.log.whole().await)
    }

    /// Stops it as a service manager does, and waits for its end.
    ///
    /// # Panics
    /// If it does not end well in a minute.
    pub async fn stop(self) {
        self.signal("-TERM");
        let (status, _, log) = self.ended().await;
        assert!(status.success(), "{log}");
    }
}

/// What a process writes to stderr.
#[derive(Debug)]
struct Log {
    text: Arc<Mutex<Vec<u8>>>,
    reader: JoinHandle<()>,
}

impl Log {
    fn of(mut stderr: ChildStderr) -> Self {
        let text = Arc::new(Mutex::new(Vec::new()));
        let into = text.clone();
        let reader = tokio::spawn(async move {
            let mut part = vec![0; 4096];
            while let Ok(read @ 1..) = stderr.read(&mut part).await {
                into.lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .extend(&part[..read]);
            }
        });
        Self { text, reader }
    }

    fn so_far(&self) -> String {
        String::from_utf8_lossy(&self.text.lock().unwrap_or_else(PoisonError::into_inner)).into_owned()
    }

    /// All of it, once the process has ended.
    async fn whole(mut self) -> String {
        let _ = (&mut self.reader).await;
        self.so_far()
    }
}
