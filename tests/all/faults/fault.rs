//! The faults: how each begins, what the host must say of it, and how it ends.

use tidegate_tests::host::Host;
use tidegate_tests::servers::Nats;
use tidegate_tests::toxiproxy::Toxic;

use super::scene::Scene;
use crate::restart::stage::config_of;

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Fault {
    /// Every answer comes late, some later than others.
    Latency,
    /// Every answer comes later than the host waits for it.
    Late,
    /// 1 KB passes in a second.
    Bandwidth,
    /// Nothing passes, and nobody closes the connection.
    HalfOpen,
    /// The same, from the host to the server alone.
    Mute,
    /// The same, from the server to the host alone.
    Deaf,
    /// Each connection is reset in the middle of a message.
    Cut,
    /// All connections are reset, again and again.
    Reset,
    /// The server is killed, and started again on its folder.
    Killed,
    /// The server's process stands still.
    Frozen,
    /// An administrator deletes the consumer, again and again.
    ConsumerDeleted,
    /// The stream that is read is deleted, and made again; everything is published once more.
    InputDeleted,
    /// The stream that is written is deleted, and made again.
    OutputDeleted,
    /// The stream that is written is full.
    OutputFull,
    /// The server has no room for anything.
    ServerFull,
    /// The host's user is taken out of the server's configuration.
    Revoked,
    /// The host's user may not publish to the output any more.
    Forbidden,
}

/// What an operator sees of a fault while it lasts.
#[derive(Clone, Copy, Debug)]
pub(super) enum Sign {
    /// Nothing: events go on.
    None,
    /// Its log has this.
    Log(&'static str),
    /// Its log and `/readyz` have this, and `/readyz` and `tidegate_subscribed` say that it does not read.
    Reading(&'static str),
    /// Its log and `/readyz` have this, and `tidegate_publish_errors_total` counts.
    Writing(&'static str),
}

/// Bytes of a connection that is cut: a part of what the host asks for at once.
const CUT_AFTER: u32 = 20_000;
/// How often that is done which takes no time.
const TIMES: usize = 4;

const LOST: &str = "lost the connection to the broker";

impl Fault {
    pub(super) const OF_THE_CONNECTION: [Self; 8] = [
        Self::HalfOpen,
        Self::Mute,
        Self::Deaf,
        Self::Bandwidth,
        Self::Latency,
        Self::Late,
        Self::Cut,
        Self::Reset,
    ];
    pub(super) const OF_THE_SERVER: [Self; 9] = [
        Self::Killed,
        Self::Frozen,
        Self::ConsumerDeleted,
        Self::InputDeleted,
        Self::OutputDeleted,
        Self::OutputFull,
        Self::ServerFull,
        Self::Revoked,
        Self::Forbidden,
    ];

    /// For the table.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Latency => "latency of 150 ms ± 100 ms each way",
            Self::Late => "latency of 3 s each way",
            Self::Bandwidth => "1 KB/s each way",
            Self::HalfOpen => "half open: nothing passes",
            Self::Mute => "half open: the server hears nothing",
            Self::Deaf => "half open: the host hears nothing",
            Self::Cut => "reset in the middle of a message",
            Self::Reset => "reset four times",
            Self::Killed => "server killed with -9",
            Self::Frozen => "server frozen",
            Self::ConsumerDeleted => "consumer deleted four times",
            Self::InputDeleted => "stream that is read deleted",
            Self::OutputDeleted => "stream that is written deleted",
            Self::OutputFull => "stream that is written full",
            Self::ServerFull => "server's storage full",
            Self::Revoked => "credentials revoked",
            Self::Forbidden => "permission to publish revoked",
        }
    }

    pub(super) fn sign(self) -> Sign {
        match self {
            Self::Latency => Sign::None,
            // What the server sends tells the host that it reads; only of what it says itself it hears nothing.
            Self::Bandwidth | Self::Late | Self::Mute => Sign::Writing("was not confirmed in time"),
            Self::HalfOpen | Self::Deaf | Self::Killed | Self::Frozen => Sign::Reading("out of reach"),
            Self::Cut | Self::Reset => Sign::Log(LOST),
            Self::ConsumerDeleted => Sign::Log("creating the JetStream consumer"),
            Self::InputDeleted => Sign::Reading("there is no JetStream stream"),
            Self::OutputDeleted => Sign::Writing("no JetStream stream"),
            Self::OutputFull => Sign::Writing("maximum bytes exceeded"),
            Self::ServerFull => Sign::Writing("insufficient"),
            Self::Revoked => Sign::Reading("authorization violation: check the credentials"),
            Self::Forbidden => Sign::Writing("give the host's user this permission"),
        }
    }

    /// Whether nothing may be under way when it begins: what is in the stream goes with it.
    pub(super) fn takes_outputs(self) -> bool {
        self == Self::OutputDeleted
    }

    /// Whether what was published goes with it, and is published again.
    pub(super) fn takes_inputs(self) -> bool {
        self == Self::InputDeleted
    }

    /// Configuration of the server.
    pub(super) fn server(self) -> String {
        match self {
            Self::ServerFull => "jetstream { max_file_store: 4MB }".to_owned(),
            Self::Revoked | Self::Forbidden => users(&["admin", HOST]),
            _ => String::new(),
        }
    }

    fn toxic(self) -> Option<Toxic> {
        Some(match self {
            Self::Latency => Toxic::Latency(150, 100),
            Self::Late => Toxic::Latency(3_000, 0),
            Self::Bandwidth => Toxic::Bandwidth(1),
            Self::HalfOpen => Toxic::Silence,
            Self::Mute => Toxic::Mute,
            Self::Deaf => Toxic::Deaf,
            Self::Cut => Toxic::CutAfter(CUT_AFTER),
            _ => return None,
        })
    }

    pub(super) async fn begin(self, server: &mut Nats, scene: &Scene) {
        if let Some(toxic) = self.toxic() {
            scene.way.add(toxic).await;
        }
        match self {
            // Of a connection that is there the proxy counts from now on: with others it counts from their beginning.
            Self::Cut => scene.way.reset().await,
            Self::Killed => server.kill(),
            Self::Frozen => server.freeze(),
            Self::InputDeleted => scene.delete("in").await,
            Self::OutputDeleted => scene.delete("out").await,
            Self::OutputFull => scene.fill_output().await,
            Self::ServerFull => scene.fill_server().await,
            Self::Revoked => server.reload_with(&users(&["admin"])),
            Self::Forbidden => server.reload_with(&users(&["admin", FORBIDDEN])),
            _ => {}
        }
    }

    /// While it lasts, after it was said.
    pub(super) async fn last(self, scene: &Scene, host: &Host<'_>) {
        match self {
            // Events go on meanwhile.
            Self::Latency | Self::Cut => scene.all_done(host).await,
            Self::Late => scene.some_done(host, 10).await,
            Self::Reset => {
                for _ in 0..TIMES {
                    scene.some_done(host, 5).await;
                    scene.way.reset().await;
                }
            }
            Self::ConsumerDeleted => {
                for _ in 0..TIMES {
                    scene.some_done(host, 5).await;
                    scene.delete_consumer().await;
                }
            }
            // It notices by itself that the connection is dead.
            Self::HalfOpen | Self::Deaf => {
                let gives_up = async || host.log().contains(LOST);
                scene.until(host, "it to give the connection up", gives_up).await;
            }
            _ => {}
        }
    }

    pub(super) async fn end(self, server: &mut Nats, scene: &Scene, host: &Host<'_>) {
        if let Some(toxic) = self.toxic() {
            scene.way.remove(toxic).await;
        }
        match self {
            Self::Killed => server.restart(),
            Self::Frozen => server.thaw(),
            Self::InputDeleted => scene.make("in").await,
            Self::OutputDeleted => scene.make("out").await,
            Self::OutputFull => scene.put_output(config_of(&scene.name, "out")).await,
            Self::ServerFull => scene.empty_server().await,
            Self::Revoked | Self::Forbidden => server.reload_with(&users(&["admin", HOST])),
            _ => {}
        }
        scene.until_reachable(host).await;
    }
}

const HOST: &str = "host";
const FORBIDDEN: &str = "host, permissions: { publish: { deny: [\"*.out.>\"] } }";

/// Who may use the server.
fn users(names: &[&str]) -> String {
    let user = |name: &&str| format!("{{ password: secret, user: {name} }}");
    let users: Vec<String> = names.iter().map(user).collect();
    format!("authorization {{ users: [ {} ] }}", users.join(", "))
}
