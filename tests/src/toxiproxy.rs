//! Toxiproxy, which makes real connections bad: started by the script in `tests/servers/`, told over HTTP.

use std::path::Path;
use std::process::{Command, Stdio};

use reqwest::Method;
use serde_json::{Value, json};

/// A Toxiproxy. Killed when it is dropped.
#[derive(Debug)]
pub struct Toxiproxy {
    api: String,
    pid: u32,
    http: reqwest::Client,
}

/// What is wrong with connections, in both directions if no other is named.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Toxic {
    /// Each byte comes so much later, in milliseconds, more or less by the second.
    Latency(u32, u32),
    /// So many KB pass in a second.
    Bandwidth(u32),
    /// Nothing passes, and nobody is told.
    Silence,
    /// Nothing passes from the client to the server.
    Mute,
    /// Nothing passes from the server to the client.
    Deaf,
    /// Each new connection is reset when so many bytes came from the server.
    CutAfter(u32),
}

/// A way through the proxy to a server.
#[derive(Clone, Debug)]
pub struct Way {
    proxy: String,
    address: String,
    http: reqwest::Client,
}

impl Toxiproxy {
    /// Starts one.
    ///
    /// # Panics
    /// If there is none and it can't be installed.
    #[must_use]
    pub fn start() -> Self {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("servers/toxiproxy.sh");
        let mut command = Command::new(script);
        command.arg("--owner").arg(std::process::id().to_string());
        let output = command.stderr(Stdio::inherit()).output();
        let line = String::from_utf8(output.expect("the script can be run").stdout).expect("it prints text");
        let mut words = line.split_whitespace();
        let api = words.next().expect("the script says where the proxy is").to_owned();
        let pid = words.next().and_then(|pid| pid.parse().ok());
        Self {
            api,
            pid: pid.expect("the script says its pid"),
            http: crate::host::client(),
        }
    }

    /// Opens a way to the server at this address. Connections through it can be reset, not only ended.
    ///
    /// # Panics
    /// If the name is taken.
    pub async fn way(&self, name: &str, server: &str) -> Way {
        let proxy = json!({ "name": name, "listen": "127.0.0.1:0", "upstream": server, "enabled": true });
        let made = ask(&self.http, Method::POST, &format!("{}/proxies", self.api), &proxy).await;
        let way = Way {
            proxy: format!("{}/proxies/{name}", self.api),
            address: made["listen"].as_str().expect("it says where it listens").to_owned(),
            http: self.http.clone(),
        };
        // It touches no byte, but where it is, a connection that is closed drops what is on its way and sends RST.
        way.put("reset", "reset_peer", "downstream", 0.0, json!({ "timeout": 0 }))
            .await;
        way
    }
}

impl Drop for Toxiproxy {
    fn drop(&mut self) {
        let _ = Command::new("kill").args(["-KILL", &self.pid.to_string()]).status();
    }
}

impl Way {
    /// Where it begins: `127.0.0.1:PORT`.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Makes its connections bad, old and new.
    ///
    /// # Panics
    /// If it is so already.
    pub async fn add(&self, toxic: Toxic) {
        let (kind, attributes) = match toxic {
            Toxic::Latency(latency, jitter) => ("latency", json!({ "latency": latency, "jitter": jitter })),
            Toxic::Bandwidth(rate) => ("bandwidth", json!({ "rate": rate })),
            Toxic::Silence | Toxic::Mute | Toxic::Deaf => ("timeout", json!({ "timeout": 0 })),
            Toxic::CutAfter(bytes) => ("limit_data", json!({ "bytes": bytes })),
        };
        for direction in toxic.directions() {
            self.put(&format!("bad-{direction}"), kind, direction, 1.0, attributes.clone())
                .await;
        }
    }

    /// Makes them good again. Those that were silent are closed.
    ///
    /// # Panics
    /// If they are.
    pub async fn remove(&self, toxic: Toxic) {
        for direction in toxic.directions() {
            let path = format!("{}/toxics/bad-{direction}", self.proxy);
            ask(&self.http, Method::DELETE, &path, &Value::Null).await;
        }
    }

    /// Resets all connections. Others may be made at once.
    ///
    /// # Panics
    /// If the proxy is gone.
    pub async fn reset(&self) {
        for enabled in [false, true] {
            let body = json!({ "enabled": enabled });
            ask(&self.http, Method::POST, &self.proxy, &body).await;
        }
    }

    async fn put(&self, name: &str, kind: &str, direction: &str, toxicity: f64, attributes: Value) {
        let body = json!({
            "name": name, "type": kind, "stream": direction, "toxicity": toxicity, "attributes": attributes,
        });
        ask(&self.http, Method::POST, &format!("{}/toxics", self.proxy), &body).await;
    }
}

impl Toxic {
    fn directions(self) -> &'static [&'static str] {
        match self {
            Self::Latency(..) | Self::Bandwidth(_) | Self::Silence => &["upstream", "downstream"],
            Self::Mute => &["upstream"],
            Self::Deaf | Self::CutAfter(_) => &["downstream"],
        }
    }
}

async fn ask(http: &reqwest::Client, method: Method, url: &str, body: &Value) -> Value {
    let request = http.request(method, url).body(body.to_string());
    let response = request.send().await.expect("the proxy answers");
    let (status, text) = (response.status(), response.text().await.expect("a body"));
    assert!(status.is_success(), "{url}: {status}: {text}");
    serde_json::from_str(&text).unwrap_or_default()
}
