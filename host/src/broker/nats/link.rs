//! The connection: how it is made, whether it is up, and what the server last refused.
//!
//! The client reconnects by itself and says nothing to those who use it. So every life of the connection has a number here: whoever
//! depends on a delivery not being lost on the way compares it.

use std::sync::{Arc, Once};
use std::time::Duration;

use async_nats::{Client, ConnectErrorKind, ConnectOptions, Event, ServerError};
use bytes::Bytes;
use tokio::sync::watch;
use tokio::time::timeout;

use crate::broker::Error;
use crate::clock::Clock;
use crate::plan;

/// How long a connection may take to come up, over all servers and addresses.
const CONNECT_TIME: Duration = Duration::from_secs(5);
/// How long one server may take to answer.
const SERVER_TIME: Duration = Duration::from_secs(3);
/// A dead peer is noticed after two unanswered pings.
const PING_INTERVAL: Duration = Duration::from_secs(10);
/// The longest pause between two attempts to reconnect.
const RECONNECT_PAUSE_MAX: Duration = Duration::from_secs(2);
/// How long anything may take to reach the socket of a connection that is up.
const SEND_TIME: Duration = Duration::from_secs(5);
/// Consumer priorities, atomic batches, the JetStream API level: the oldest server that our consumers are tested against.
const VERSION_MIN: (u32, u32) = (2, 12);
/// The first server with `$JS.API.CONSUMER.RESET`.
const VERSION_WITH_RESET: (u32, u32) = (2, 14);

/// One connection. Tasks share it; dropping the last one closes it.
pub(super) struct Link {
    /// The broker's name in the config.
    pub(super) name: plan::Name,
    /// The client itself.
    pub(super) client: Client,
    /// The only source of time.
    pub(super) clock: Clock,
    /// Where it goes, for people.
    servers: String,
    state: watch::Receiver<State>,
}

/// What is known of the connection.
#[derive(Clone, Debug, Default)]
pub(super) struct State {
    /// Whether it is up.
    pub(super) is_up: bool,
    /// Counts its lives, from 1.
    pub(super) life: u64,
    /// Counts the server's refusals.
    pub(super) refusals: u64,
    /// The latest of them.
    pub(super) refusal: Option<Arc<str>>,
    /// Why it is down, if the client said.
    down_because: Option<Arc<str>>,
    /// Whether that is because the server does not know the host any more.
    is_turned_away: bool,
}

impl Link {
    /// Connects.
    pub(super) async fn open(name: plan::Name, nats: &plan::Nats, clock: Clock) -> Result<Self, Error> {
        use_ring();
        let (sender, mut state) = watch::channel(State::default());
        let options = options(&name, nats, &clock, sender).await?;
        let client = match timeout(CONNECT_TIME, options.connect(nats.servers.as_slice())).await {
            Ok(Ok(client)) => client,
            Ok(Err(error)) => return Err(refusal_to_connect(name, nats, &error)),
            Err(_) => {
                return Err(Error::Unreachable {
                    broker: name,
                    reason: format!(
                        "no answer from {} within {} s",
                        nats.servers.join(", "),
                        CONNECT_TIME.as_secs()
                    ),
                    retry_after: None,
                });
            }
        };
        check_version(&name, &client.server_info().version)?;
        // The event of this first connection is on its way; waiting for it makes the first life number 1 for everybody.
        let _ = timeout(CONNECT_TIME, state.wait_for(|state| state.is_up)).await;
        Ok(Self {
            name,
            client,
            clock,
            servers: nats.servers.join(", "),
            state,
        })
    }

    /// Whether the server can move a consumer back by itself.
    pub(super) fn can_reset(&self) -> bool {
        parse_version(&self.client.server_info().version) >= Some(VERSION_WITH_RESET)
    }

    /// To watch the connection with.
    pub(super) fn watch(&self) -> watch::Receiver<State> {
        self.state.clone()
    }

    /// The number of the connection's present life.
    ///
    /// # Errors
    /// [`Error::Unreachable`] if it is down; [`Error::Misconfigured`] if it is down because the server turns the host away.
    pub(super) fn life(&self) -> Result<u64, Error> {
        let state = self.state.borrow();
        if state.is_up {
            Ok(state.life)
        } else {
            let reason = state.down_because.as_deref();
            let reason = reason.unwrap_or("the connection is down and being remade");
            let text = format!("{}: {reason}", self.servers);
            Err(match state.is_turned_away {
                true => self.misconfigured(format!("{text}: check the credentials")),
                false => self.unreachable(text),
            })
        }
    }

    /// Sends one message without an answer. Waits only while the client's own short queue is full.
    pub(super) async fn send(&self, subject: async_nats::Subject, body: Bytes) -> Result<(), Error> {
        self.life()?;
        match timeout(SEND_TIME, self.client.publish(subject, body)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(self.unreachable(error)),
            Err(_) => Err(self.unreachable("the connection takes nothing")),
        }
    }

    /// Waits until what was sent is on the socket.
    pub(super) async fn flush(&self) -> Result<(), Error> {
        match timeout(SEND_TIME, self.client.flush()).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(self.unreachable(error)),
            Err(_) => Err(self.unreachable("the connection takes nothing")),
        }
    }

    /// Trying again can help.
    pub(super) fn unreachable(&self, reason: impl ToString) -> Error {
        Error::Unreachable {
            broker: self.name.clone(),
            reason: reason.to_string(),
            retry_after: None,
        }
    }

    /// A person must act.
    pub(super) fn misconfigured(&self, reason: impl ToString) -> Error {
        Error::Misconfigured {
            broker: self.name.clone(),
            reason: reason.to_string(),
        }
    }

    /// The message is at fault.
    pub(super) fn refused(&self, reason: impl ToString) -> Error {
        Error::Refused {
            broker: self.name.clone(),
            reason: reason.to_string(),
        }
    }

    /// A refusal of the server, as an error that says what to do.
    pub(super) fn not_permitted(&self, refusal: &str) -> Error {
        self.misconfigured(format!("{refusal}: give the host's user this permission on the server"))
    }
}

/// TLS needs one process-wide choice of cryptography; whoever made it first is right.
fn use_ring() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let _ = rustls::crypto::ring::default_provider().install_default();
    });
}

async fn options(
    name: &plan::Name,
    nats: &plan::Nats,
    clock: &Clock,
    state: watch::Sender<State>,
) -> Result<ConnectOptions, Error> {
    let state = Arc::new(state);
    let pause_clock = clock.clone();
    let log_name = name.clone();
    let options = ConnectOptions::new()
        .name("tidegate")
        .connection_timeout(SERVER_TIME)
        .ping_interval(PING_INTERVAL)
        .max_reconnects(None)
        .reconnect_delay_callback(move |attempts| reconnect_pause(attempts, pause_clock.random()))
        .event_callback(move |event| {
            observe(&state, &log_name, &event);
            std::future::ready(())
        });
    credentials(name, tls(options, nats.tls.as_ref()), &nats.credentials).await
}

fn tls(options: ConnectOptions, tls: Option<&plan::Tls>) -> ConnectOptions {
    let Some(tls) = tls else { return options };
    let mut options = options.require_tls(true);
    if let Some(ca) = &tls.ca {
        options = options.add_root_certificates(ca.clone());
    }
    if let Some((certificate, key)) = &tls.identity {
        options = options.add_client_certificate(certificate.clone(), key.clone());
    }
    options
}

async fn credentials(
    name: &plan::Name,
    options: ConnectOptions,
    credentials: &plan::NatsCredentials,
) -> Result<ConnectOptions, Error> {
    use plan::NatsCredentials as C;
    Ok(match credentials {
        C::None => options,
        C::Password { user, password } => options.user_and_password(user.clone(), password.reveal().to_owned()),
        C::Token(token) => options.token(token.reveal().to_owned()),
        C::Nkey(seed) => options.nkey(seed.reveal().to_owned()),
        C::File(path) => options
            .credentials_file(path)
            .await
            .map_err(|error| Error::Misconfigured {
                broker: name.clone(),
                reason: format!("credentials file {}: {error}", path.display()),
            })?,
    })
}

/// Doubles from 25 ms; a quarter of it is drawn by lot, so that a restarted server is not met by all hosts at once.
fn reconnect_pause(attempts: usize, random: f64) -> Duration {
    // The client counts attempts from 1, and the first one deserves no pause.
    let Some(doublings) = attempts.checked_sub(2) else {
        return Duration::ZERO;
    };
    let doublings = u32::try_from(doublings).unwrap_or(u32::MAX).min(16);
    let pause = (Duration::from_millis(25) * 2_u32.pow(doublings)).min(RECONNECT_PAUSE_MAX);
    pause.mul_f64(1.0 - random / 4.0)
}

/// Keeps [`State`] and logs each change once, however often the client repeats it.
fn observe(state: &watch::Sender<State>, broker: &plan::Name, event: &Event) {
    match event {
        Event::Connected => {
            state.send_modify(|state| {
                state.is_up = true;
                state.life += 1;
                state.down_because = None;
                state.is_turned_away = false;
            });
            tracing::info!(%broker, "connected to the broker");
        }
        Event::Disconnected => {
            state.send_modify(|state| state.is_up = false);
            tracing::warn!(%broker, "lost the connection to the broker; reconnecting");
        }
        Event::ServerError(ServerError::Other(text)) => {
            if set_refusal(state, text) {
                tracing::warn!(%broker, error = %text, "the broker refused a request");
            }
        }
        Event::ServerError(_) | Event::ClientError(_) => {
            let text = event.to_string();
            let is_news = state.borrow().down_because.as_deref() != Some(text.as_str());
            if is_news {
                state.send_modify(|state| {
                    state.down_because = Some(text.as_str().into());
                    state.is_turned_away = is_turned_away(&text);
                });
                tracing::warn!(%broker, error = %text, "cannot connect to the broker");
            }
        }
        Event::LameDuckMode => {
            tracing::info!(%broker, "the broker's server is about to stop");
        }
        Event::SlowConsumer(_) => {
            tracing::warn!(%broker, "the host reads too slowly; what was dropped is taken again");
        }
        Event::Draining | Event::Closed => {}
    }
}

/// Whether the server does not let the host in. The client gives the words when it connects again, but not their kind.
fn is_turned_away(text: &str) -> bool {
    text.ends_with("authorization violation")
}

/// Counts a refusal; whether it is another than the one before.
fn set_refusal(state: &watch::Sender<State>, text: &str) -> bool {
    let is_news = state.borrow().refusal.as_deref() != Some(text);
    state.send_modify(|state| {
        state.refusals += 1;
        if is_news {
            state.refusal = Some(text.into());
        }
    });
    is_news
}

fn refusal_to_connect(broker: plan::Name, nats: &plan::Nats, error: &async_nats::ConnectError) -> Error {
    let servers = nats.servers.join(", ");
    let advice = match error.kind() {
        ConnectErrorKind::AuthorizationViolation | ConnectErrorKind::Authentication => "check the credentials",
        ConnectErrorKind::ServerParse => "check the url",
        ConnectErrorKind::Tls => "check the tls files",
        ConnectErrorKind::Io if is_tls_refusal(error) => "check the tls files",
        _ => {
            return Error::Unreachable {
                broker,
                reason: format!("{servers}: {error}"),
                retry_after: None,
            };
        }
    };
    Error::Misconfigured {
        broker,
        reason: format!("{servers}: {error}: {advice}"),
    }
}

/// A failed handshake comes as an I/O error around one of rustls.
fn is_tls_refusal(error: &async_nats::ConnectError) -> bool {
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        let inner = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        if error.is::<rustls::Error>() || inner.is_some_and(|inner| inner.is::<rustls::Error>()) {
            return true;
        }
        cause = error.source();
    }
    false
}

/// Major and minor version.
pub(super) fn parse_version(version: &str) -> Option<(u32, u32)> {
    let mut parts = version.split('.').map(|part| part.parse::<u32>().ok());
    parts.next().flatten().zip(parts.next().flatten())
}

fn check_version(broker: &plan::Name, version: &str) -> Result<(), Error> {
    if parse_version(version) >= Some(VERSION_MIN) {
        return Ok(());
    }
    let (major, minor) = VERSION_MIN;
    Err(Error::Misconfigured {
        broker: broker.clone(),
        reason: format!("the server has version {version}: upgrade it to {major}.{minor} or newer"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reconnect_pause_doubles_up_to_its_bound() {
        assert_eq!(reconnect_pause(1, 0.0), Duration::ZERO);
        assert_eq!(reconnect_pause(2, 0.0), Duration::from_millis(25));
        assert_eq!(reconnect_pause(4, 0.0), Duration::from_millis(100));
        assert_eq!(reconnect_pause(usize::MAX, 0.0), RECONNECT_PAUSE_MAX);
        assert_eq!(reconnect_pause(usize::MAX, 1.0), RECONNECT_PAUSE_MAX * 3 / 4);
    }

    #[test]
    fn version_must_be_new_enough() {
        let name = plan::Name::new("main").unwrap();
        for version in ["2.12.0", "2.15.2", "3.0.0", "2.14.0-RC.1"] {
            assert!(check_version(&name, version).is_ok(), "{version}");
        }
        for version in ["2.11.9", "2.9.0", "1.4.1", "", "nonsense"] {
            assert!(check_version(&name, version).is_err(), "{version}");
        }
    }
}
