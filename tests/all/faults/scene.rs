//! Where a round is played: a server, a way to it that can be made bad, and what publishes and receives around that way.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use async_nats::jetstream::stream::{self, DiscardPolicy};
use tidegate_tests::host::{Host, comes};
use tidegate_tests::servers::Nats;
use tidegate_tests::toxiproxy::{Toxiproxy, Way};

use crate::restart::findings::Output;
use crate::restart::stage::{Broker, Policy, Stage, config_of};
use crate::restart::traffic::Traffic;

pub(super) struct Scene {
    pub(super) name: String,
    pub(super) way: Way,
    pub(super) stage: Stage,
    /// What was received before the stream was deleted that it was in.
    kept: Mutex<Vec<Output>>,
    /// How many outputs follow from what is published, or will be while the fault lasts.
    expected: AtomicUsize,
}

/// How long a round waits for what must come.
const PATIENCE: Duration = Duration::from_secs(120);
const BALLAST: &str = "ballast";
/// Room that is left for a server's own and for events: less than these and their outputs need.
const ROOM: usize = 24 << 10;

impl Scene {
    pub(super) async fn new(
        proxy: &Toxiproxy,
        server: &Nats,
        name: &str,
        (traffic, policy): (&Traffic, Policy),
    ) -> Self {
        let way = proxy.way(name, &server.address()).await;
        // A server that asks for nobody's name takes these, too.
        let administrator = async_nats::ConnectOptions::with_user_and_password("admin".to_owned(), "secret".to_owned());
        let broker = Broker::Between {
            around: administrator.connect(server.url()).await.expect("the server listens"),
            host: format!("nats://host:secret@{}", way.address()),
        };
        Self {
            stage: Stage::new(&broker, name, traffic, policy).await,
            name: name.to_owned(),
            way,
            kept: Mutex::default(),
            expected: AtomicUsize::new(0),
        }
    }

    pub(super) fn expect(&self, count: usize) {
        self.expected.store(count, Ordering::SeqCst);
    }

    /// How many outputs there are or were.
    pub(super) async fn count(&self) -> usize {
        self.kept().len() + self.stage.count().await
    }

    pub(super) async fn outputs(&self) -> Vec<Output> {
        let mut outputs = self.kept();
        outputs.extend(self.stage.outputs().await);
        outputs
    }

    /// Keeps what was received: its stream will be deleted.
    pub(super) async fn keep(&self) {
        let outputs = self.stage.outputs().await;
        *self.kept.lock().unwrap_or_else(PoisonError::into_inner) = outputs;
    }

    fn kept(&self) -> Vec<Output> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits until `is_true`; if it is in vain, what the host said is the reason.
    pub(super) async fn until(&self, host: &Host<'_>, what: &str, is_true: impl AsyncFnMut() -> bool) {
        let came = comes(PATIENCE, is_true).await;
        assert!(came, "{}: waited in vain for {what}\n{}", self.name, host.log());
    }

    pub(super) async fn all_done(&self, host: &Host<'_>) {
        let expected = self.expected.load(Ordering::SeqCst);
        let is_done = async || self.count().await >= expected;
        self.until(host, "what was published", is_done).await;
    }

    /// Waits for some more outputs, or all.
    pub(super) async fn some_done(&self, host: &Host<'_>, count: usize) {
        let enough = self.expected.load(Ordering::SeqCst).min(self.count().await + count);
        self.until(host, "some outputs", async || self.count().await >= enough)
            .await;
    }

    pub(super) async fn until_reachable(&self, host: &Host<'_>) {
        let (context, out) = (self.stage.context(), format!("{}-out", self.name));
        let is_there = async || context.get_stream(&out).await.is_ok();
        self.until(host, "the server", is_there).await;
    }

    pub(super) async fn delete(&self, part: &str) {
        let deleted = self
            .stage
            .context()
            .delete_stream(format!("{}-{part}", self.name))
            .await;
        assert!(deleted.expect("it is there").success);
    }

    pub(super) async fn make(&self, part: &str) {
        let made = self.stage.context().create_stream(config_of(&self.name, part)).await;
        made.expect("a stream");
    }

    pub(super) async fn delete_consumer(&self) {
        let context = self.stage.context();
        let stream = context
            .get_stream(format!("{}-in", self.name))
            .await
            .expect("the stream");
        // It may be gone still.
        let _ = stream.delete_consumer("tidegate-plain").await;
    }

    pub(super) async fn put_output(&self, config: stream::Config) {
        let put = self.stage.context().update_stream(config).await;
        put.expect("the server takes it");
    }

    /// Gives the stream that is written no more room than for what it has.
    pub(super) async fn fill_output(&self) {
        let config = config_of(&self.name, "out");
        let mut out = self.stage.context().get_stream(&config.name).await.expect("the stream");
        let used = out.info().await.expect("its state").state.bytes;
        self.put_output(stream::Config {
            max_bytes: i64::try_from(used.max(1)).expect("it fits"),
            discard: DiscardPolicy::New,
            ..config
        })
        .await;
    }

    /// Fills the server's storage, but for a little room.
    pub(super) async fn fill_server(&self) {
        let context = self.stage.context();
        let config = stream::Config {
            name: BALLAST.to_owned(),
            subjects: vec![BALLAST.to_owned()],
            ..Default::default()
        };
        let ballast = context.create_stream(config).await.expect("a stream");
        let put = async |bytes: usize| {
            let published = context.publish(BALLAST, vec![0; bytes].into()).await;
            published
                .expect("it is sent")
                .await
                .ok()
                .map(|confirmed| confirmed.sequence)
        };
        let first = put(ROOM).await.expect("there is room");
        while put(64 << 10).await.is_some() {}
        assert!(ballast.delete_message(first).await.expect("it is there"));
    }

    pub(super) async fn empty_server(&self) {
        let deleted = self.stage.context().delete_stream(BALLAST).await;
        assert!(deleted.expect("it is there").success);
    }
}
