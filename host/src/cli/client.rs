//! A running host, as commands reach it: over the admin API that its config names.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use reqwest::{RequestBuilder, Response, StatusCode};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{complain, config_option};
use crate::admin::view::{Accepted, Alive, Problem};
use crate::plan::{self, Name, Secret};

/// How long a host may take to say that it lives. One that hangs is told from one that is not there.
const PROBE: Duration = Duration::from_secs(3);
/// How long one request may take: redriving 100,000 dead letters is a thousand commits.
const REQUEST: Duration = Duration::from_secs(300);

/// How long a host may take from its start until it listens: `tidegate run & tidegate publish ...` is how scripts begin.
const START: Duration = Duration::from_secs(5);
/// How often it is looked for meanwhile.
const LOOK: Duration = Duration::from_millis(100);
/// After so many looks a person is told what takes so long: a second.
const LOOKS_UNTOLD: u32 = 10;

/// No host answers where the config says.
#[derive(Debug, thiserror::Error)]
pub enum NoHost {
    /// Nothing listens there.
    #[error("no host answers on {listen}: start it with tidegate run{}", config_option(.config))]
    Absent {
        /// The address of the config.
        listen: SocketAddr,
        /// The config.
        config: PathBuf,
    },
    /// Nor has one ever run.
    #[error("no host answers on {listen}, and there is no ledger in {}: none has run with this config", .folder.display())]
    NoLedger {
        /// The address of the config.
        listen: SocketAddr,
        /// The ledger of the config.
        folder: PathBuf,
    },
    /// One seems to run, under another address.
    #[error(
        "a process holds the ledger in {}, but no admin API answers on {listen}: run this command with the config of that process",
        .folder.display()
    )]
    Elsewhere {
        /// The address of the config.
        listen: SocketAddr,
        /// The ledger of the config.
        folder: PathBuf,
    },
    /// It answered, and then no more.
    #[error("the host went away without stopping: it crashed, was killed, or can't be reached any more")]
    Lost,
}

impl NoHost {
    /// The heading in `docs/errors.md`.
    pub const CODE: &str = "no-host";
}

/// The host does not do as asked.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct Refused {
    /// The heading in `docs/errors.md`. A newer host may have others than this version.
    pub code: String,
    /// Why, for people.
    pub message: String,
}

/// A host that answers. Cheap to share by reference; commands need one.
pub struct Client {
    base: String,
    token: Option<Secret>,
    http: reqwest::Client,
}

impl Client {
    /// The host that runs with this config; `None` if nothing listens there.
    ///
    /// # Errors
    /// Something listens, but it is no Tidegate host or hangs.
    pub async fn find(plan: &plan::Admin) -> anyhow::Result<Option<Self>> {
        let address = reachable(plan.listen);
        let client = Self {
            base: format!("http://{address}"),
            token: plan.token.clone(),
            http: http()?,
        };
        let probe = client.http.get(client.url("/healthz")).timeout(PROBE);
        let response = match probe.send().await {
            Ok(response) => response,
            Err(error) if error.is_connect() => return Ok(None),
            Err(error) => return Err(error).with_context(|| format!("{address} is in use, but does not answer")),
        };
        let stranger = || format!("{address} answers, but is no Tidegate host: see admin.listen in the config");
        let alive: Alive = read(response).await.with_context(stranger)?;
        anyhow::ensure!(alive.service == Alive::now().service, stranger());
        Ok(Some(client))
    }

    /// The host that runs with this config, or that is starting.
    ///
    /// # Errors
    /// As for [`Client::find`], and [`NoHost`].
    ///
    /// # Cancellation
    /// Safe: it only looks.
    pub async fn reach(plan: &plan::Admin, config: &Path) -> anyhow::Result<Self> {
        let absent = || NoHost::Absent {
            listen: plan.listen,
            config: config.to_owned(),
        };
        Ok(Self::wait(plan).await?.ok_or_else(absent)?)
    }

    /// As [`Client::find`], again and again until a host that is starting must have come.
    ///
    /// # Errors
    /// As for [`Client::find`].
    ///
    /// # Cancellation
    /// Safe: it only looks.
    pub async fn wait(plan: &plan::Admin) -> anyhow::Result<Option<Self>> {
        let looking = async {
            let mut looks = 0;
            loop {
                if let Some(client) = Self::find(plan).await? {
                    return Ok(Some(client));
                }
                looks += 1;
                if looks == LOOKS_UNTOLD {
                    complain(&format!("waiting for a host to answer on {}", plan.listen));
                }
                tokio::time::sleep(LOOK).await;
            }
        };
        tokio::time::timeout(START, looking).await.unwrap_or(Ok(None))
    }

    /// Where the host is.
    #[must_use]
    pub fn base(&self) -> &str {
        &self.base
    }

    /// Asks for something, with what is asked in the query.
    ///
    /// # Errors
    /// What the host says, or that it does not.
    pub async fn get<T: DeserializeOwned>(&self, path: &str, query: &[(&str, &str)]) -> anyhow::Result<T> {
        self.ask(self.http.get(self.url_with(path, query)).timeout(REQUEST))
            .await
    }

    /// Asks for something, with what is asked in the body.
    ///
    /// # Errors
    /// As for [`Client::get`].
    pub async fn post<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> anyhow::Result<T> {
        self.ask(self.http.post(self.url(path)).json(body).timeout(REQUEST))
            .await
    }

    /// Puts events on a stream; gives how many.
    ///
    /// # Errors
    /// As for [`Client::get`].
    pub async fn publish(&self, stream: &Name, batch: String) -> anyhow::Result<usize> {
        let request = self.http.post(self.url(&format!("/api/v1/streams/{stream}/events")));
        let request = request.header("content-type", "application/cloudevents-batch+json");
        let accepted: Accepted = self.ask(request.body(batch).timeout(REQUEST)).await?;
        Ok(accepted.accepted)
    }

    /// Opens a stream that goes on until either side ends it.
    ///
    /// # Errors
    /// As for [`Client::get`].
    pub async fn follow(&self, path: &str, query: &[(&str, &str)]) -> anyhow::Result<Response> {
        self.send(self.http.get(self.url_with(path, query))).await
    }

    async fn ask<T: DeserializeOwned>(&self, request: RequestBuilder) -> anyhow::Result<T> {
        let response = self.send(request).await?;
        let read = read(response).await;
        read.with_context(|| {
            format!(
                "the host at {} answers in a way that this version does not know",
                self.base
            )
        })
    }

    async fn send(&self, request: RequestBuilder) -> anyhow::Result<Response> {
        let request = match &self.token {
            Some(token) => request.bearer_auth(token.reveal()),
            None => request,
        };
        let response = request.send().await;
        let response = response.with_context(|| format!("the host at {} went away", self.base))?;
        match response.status() {
            status if status.is_success() => Ok(response),
            status => Err(self.refused(status, &response.text().await.unwrap_or_default())),
        }
    }

    fn refused(&self, status: StatusCode, body: &str) -> anyhow::Error {
        match serde_json::from_str::<Problem>(body) {
            Ok(Problem { error: code, message }) => Refused { code, message }.into(),
            Err(_) => anyhow::anyhow!("the host at {} answers {status}", self.base),
        }
    }

    fn url(&self, path: &str) -> String {
        format!("{}{path}", self.base)
    }

    fn url_with(&self, path: &str, query: &[(&str, &str)]) -> String {
        let encode =
            |text: &str| percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC).to_string();
        let pairs: Vec<_> = query
            .iter()
            .map(|(name, value)| format!("{name}={}", encode(value)))
            .collect();
        format!("{}?{}", self.url(path), pairs.join("&"))
    }
}

/// Through no proxy: the admin API is on this machine or on its network, and the token is for it alone.
pub(super) fn http() -> anyhow::Result<reqwest::Client> {
    // An error says that there is one already, which serves as well.
    let _ = rustls::crypto::ring::default_provider().install_default();
    Ok(reqwest::Client::builder().no_proxy().connect_timeout(PROBE).build()?)
}

async fn read<T: DeserializeOwned>(response: Response) -> anyhow::Result<T> {
    Ok(serde_json::from_slice(&response.bytes().await?)?)
}

/// A host that listens on every address is reached on loopback.
fn reachable(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        ip if !ip.is_unspecified() => ip,
        IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
    };
    SocketAddr::new(ip, listen.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_on_every_address_is_reached_on_loopback() {
        let check = |listen: &str, expected: &str| assert_eq!(reachable(listen.parse().unwrap()).to_string(), expected);
        check("0.0.0.0:7070", "127.0.0.1:7070");
        check("[::]:7070", "[::1]:7070");
        check("10.1.2.3:7070", "10.1.2.3:7070");
    }

    #[tokio::test]
    async fn nothing_that_listens_is_no_host_and_no_error() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let listen = listener.local_addr().unwrap();
        drop(listener);
        let found = Client::find(&plan::Admin { listen, token: None }).await.unwrap();
        assert!(found.is_none());
    }

    /// A port that is free.
    fn free() -> plan::Admin {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let listen = listener.local_addr().unwrap();
        plan::Admin { listen, token: None }
    }

    #[tokio::test]
    async fn a_host_that_is_starting_is_waited_for() {
        let plan = free();
        let (refused, has_refused) = tokio::sync::oneshot::channel();
        let host = async {
            has_refused.await.unwrap();
            let listener = tokio::net::TcpListener::bind(plan.listen).await.unwrap();
            let alive = axum::Router::new().fallback(async || axum::Json(Alive::now()));
            axum::serve(listener, alive).await
        };
        let command = async {
            assert!(Client::find(&plan).await.unwrap().is_none());
            refused.send(()).unwrap();
            Client::reach(&plan, Path::new("tidegate.toml")).await
        };
        tokio::select! {
            reached = command => assert!(reached.unwrap().base().ends_with(&plan.listen.to_string())),
            _ = host => panic!("it serves"),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_host_that_never_comes_is_told_with_its_code() {
        crate::documented::documented(&[NoHost::CODE]);
        let plan = free();
        let error = async |config: &str| Client::reach(&plan, Path::new(config)).await.err().unwrap();
        let listen = plan.listen;
        let plain = error("tidegate.toml").await;
        assert_eq!(
            plain.to_string(),
            format!("no host answers on {listen}: start it with tidegate run")
        );
        assert_eq!(crate::cli::code(&plain).as_deref(), Some("no-host"));
        let other = error("etc/shop.toml").await;
        assert!(
            other.to_string().ends_with("tidegate run --config etc/shop.toml"),
            "{other}"
        );
    }

    #[tokio::test]
    async fn something_else_that_listens_is_no_host() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let listen = listener.local_addr().unwrap();
        let other = axum::Router::new().fallback(async || "hello");
        let other = tokio::spawn(axum::serve(listener, other).into_future());
        let error = Client::find(&plan::Admin { listen, token: None }).await.err().unwrap();
        assert!(error.to_string().contains("is no Tidegate host"), "{error:#}");
        other.abort();
    }
}
