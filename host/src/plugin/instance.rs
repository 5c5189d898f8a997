//! One instance of a plugin: what its host functions see, what it may use, and how a call of it ends.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, timeout_at};
use wasmtime::component::ResourceTable;
use wasmtime::{ResourceLimiter, Store, StoreContextMut, UpdateDeadline};
use wasmtime_wasi::{HostMonotonicClock, HostWallClock, WasiCtx, WasiCtxView, WasiView};

use super::bindings::config::wasi::config::store as config;
use super::bindings::consumer::tidegate::plugin::{context, types};
use super::bindings::consumer::{Consumer, ConsumerPre};
use super::component::Component;
use super::engine::{CORE_INSTANCES_MAX, Engine, LongRunning, MEMORIES_MAX, TABLES_MAX};
use super::failure::{self, Refusal, Stop};
use super::logging::{Log, Output as StdStream, Stream};
use super::outbox::Cause;
use super::state::{self, Desk, Room, Transaction};
use super::{Call, Encode};
use crate::clock::Clock;
use crate::event::{self, Event};
use crate::ledger::{Effects, Output};
use crate::outcome::Outcome;
use crate::plan::{self, Limits};

/// A guest that waits in a host function can't look at the time itself: it is cancelled this long after its deadline. A guest that
/// runs is stopped sooner, by the tick, and so keeps its backtrace.
const CANCEL_AFTER: Duration = Duration::from_millis(20);
/// Resources that a guest may hold: streams, pollables, buckets.
const RESOURCES_MAX: usize = 10_000;
/// Random bytes of one call.
const RANDOM_BYTES_MAX: u64 = 1 << 20;
/// What a guest may hand over in one call, however small its limits of effects.
const HANDED_OVER_MIN: usize = 1 << 20;

/// What all instances of a plugin share.
pub(super) struct Shared {
    pub(super) consumer: Arc<plan::Consumer>,
    pub(super) revision: Arc<str>,
    pub(super) engine: Engine,
    pub(super) clock: Clock,
    pub(super) encode: Encode,
    pub(super) started: Instant,
    /// Kept, so that another consumer can have it too.
    pub(super) _component: Arc<Component>,
}

/// What the host functions of one instance see.
pub(super) struct Guest {
    pub(super) shared: Arc<Shared>,
    pub(super) table: ResourceTable,
    pub(super) log: Log,
    /// The bytes that the attempt's effects may still take.
    pub(super) room: Room,
    pub(super) transaction: Option<Transaction>,
    pub(super) outputs: Vec<Output>,
    pub(super) cause: Cause,
    attempt: u32,
    deadline: Instant,
    limiter: Limiter,
    /// Made when the guest first asks for something of it: most events never do.
    wasi: Option<WasiCtx>,
    /// The guest has just been given the processor again and has not looked at the time yet.
    resumed: bool,
    long_running: Option<LongRunning>,
}

impl Guest {
    fn new(shared: Arc<Shared>) -> Self {
        let plan::Consumer {
            name, limits, grants, ..
        } = &*shared.consumer;
        let mut table = ResourceTable::new();
        table.set_max_capacity(RESOURCES_MAX);
        Self {
            table,
            log: Log::new(name.clone(), grants.logging, limits),
            room: Room {
                bytes: limits.effect_bytes,
                bytes_max: limits.effect_bytes,
            },
            transaction: None,
            outputs: Vec::new(),
            cause: Cause::none(),
            attempt: 0,
            deadline: shared.started,
            limiter: Limiter::new(limits),
            wasi: None,
            resumed: false,
            long_running: None,
            shared,
        }
    }

    /// Makes everything as new for a call, but what the guest itself holds.
    fn begin(&mut self, call: &Call<'_>) -> Option<Desk> {
        let consumer = &self.shared.consumer;
        self.log.begin(&call.event.id);
        self.room.bytes = self.room.bytes_max;
        self.outputs = Vec::new();
        self.cause = Cause::of(call);
        self.attempt = call.attempt;
        self.limiter.begin();
        self.resumed = false;
        let desk = consumer.grants.state.then(state::desk);
        desk.map(|(reader, desk)| {
            let transaction = Transaction::new(consumer.name.clone(), reader, &consumer.limits);
            self.transaction = Some(transaction);
            desk
        })
    }

    /// Takes what the call would do.
    fn effects(&mut self) -> Effects {
        let (reads, writes) = self.transaction.take().map(Transaction::finish).unwrap_or_default();
        Effects {
            reads,
            writes,
            outputs: std::mem::take(&mut self.outputs),
        }
    }

    /// Remembers that the guest was refused an effect.
    pub(super) fn refused_effect(&mut self, text: &str) {
        self.limiter.refusal = Some(Refusal::Effect(text.to_owned()));
    }

    /// What happens at every tick while the guest runs. It gives the processor back, so that nobody waits for a long call; when it has
    /// it again it looks at the time before all else, so that what is late ends at once, however many others run.
    fn tick(&mut self) -> wasmtime::Result<UpdateDeadline> {
        if self.shared.clock.now() >= self.deadline {
            return Err(Stop::Time.into());
        }
        if std::mem::take(&mut self.resumed) {
            return Ok(UpdateDeadline::Continue(1));
        }
        self.resumed = true;
        let engine = &self.shared.engine;
        self.long_running.get_or_insert_with(|| engine.long_running());
        // tokio's own yield lets the timers and the network have a turn too, which waking ourselves would not.
        Ok(UpdateDeadline::YieldCustom(0, Box::pin(tokio::task::yield_now())))
    }
}

/// One instance, alive as long as this is.
pub(super) struct Instance {
    store: Store<Guest>,
    /// `None` until the first call, which instantiates within its own limits.
    exports: Option<Consumer>,
    /// When it was made.
    pub(super) born: Instant,
    /// Calls begun.
    pub(super) uses: u32,
    // Dropped last: the place is free when the instance is gone.
    _permit: OwnedSemaphorePermit,
}

/// How a call ended.
pub(super) struct Ended {
    pub(super) outcome: Outcome,
    pub(super) effects: Effects,
    pub(super) memory: u64,
    /// Whether the instance is in a state to be called again.
    pub(super) is_sound: bool,
}

/// What a call comes back with, if it comes back.
type Returned = wasmtime::Result<Result<(), types::Failure>>;

impl Instance {
    pub(super) fn new(shared: &Arc<Shared>, permit: OwnedSemaphorePermit) -> Self {
        let limits = &shared.consumer.limits;
        let wasm = shared.engine.wasm();
        let mut store = Store::new(wasm, Guest::new(Arc::clone(shared)));
        store.limiter(|guest| &mut guest.limiter);
        store.epoch_deadline_callback(|mut store: StoreContextMut<'_, Guest>| store.data_mut().tick());
        // Twice what it may have for effects: so that a guest that goes a little over is told so, and one that goes far over is stopped
        // before anything is copied.
        let handed_over = limits.effect_bytes.saturating_mul(2).max(HANDED_OVER_MIN);
        store.set_hostcall_fuel(handed_over);
        store.set_max_component_handles(RESOURCES_MAX);
        Self {
            store,
            exports: None,
            born: shared.clock.now(),
            uses: 0,
            _permit: permit,
        }
    }

    /// Instantiates and nothing else, to see whether it can be done.
    pub(super) async fn try_start(&mut self, plugin: &ConsumerPre<Guest>, deadline: Instant) -> Result<(), Outcome> {
        self.store.data_mut().deadline = deadline;
        self.store.set_epoch_deadline(1);
        let started = plugin.instantiate_async(&mut self.store);
        match timeout_at(deadline + CANCEL_AFTER, started).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(self.trapped(&error)),
            Err(_) => Err(failure::waits()),
        }
    }

    /// Calls the plugin once.
    pub(super) async fn run(&mut self, plugin: &ConsumerPre<Guest>, call: &Call<'_>) -> Ended {
        self.uses += 1;
        let guest = self.store.data_mut();
        guest.deadline = call.deadline;
        let mut desk = guest.begin(call);
        self.store.set_epoch_deadline(1);
        let handling = handle(&mut self.store, &mut self.exports, plugin, call.event);
        let limit = call.deadline + CANCEL_AFTER;
        let returned = match &mut desk {
            None => timeout_at(limit, handling).await,
            Some(desk) => timeout_at(limit, desk.serve(handling, call.state)).await,
        };
        let is_sound = matches!(returned, Ok(Ok(_)));
        let outcome = match returned {
            Ok(returned) => self.outcome(returned),
            Err(_) if desk.is_some_and(|desk| desk.is_asked) => {
                Outcome::NotRun("the ledger did not answer within the time limit".to_owned())
            }
            Err(_) => failure::waits(),
        };
        self.ended(outcome, is_sound)
    }

    fn outcome(&mut self, returned: Returned) -> Outcome {
        match returned {
            Ok(Ok(())) => Outcome::Succeeded,
            Ok(Err(failure)) => failure::said(failure),
            Err(error) => self.trapped(&error),
        }
    }

    fn trapped(&mut self, error: &wasmtime::Error) -> Outcome {
        let guest = self.store.data_mut();
        failure::trapped(error, guest.limiter.refusal.as_ref(), &guest.log.end())
    }

    fn ended(&mut self, outcome: Outcome, is_sound: bool) -> Ended {
        let guest = self.store.data_mut();
        guest.long_running = None;
        guest.log.end();
        let effects = guest.effects();
        Ended {
            effects: match outcome {
                Outcome::Succeeded => effects,
                Outcome::Failed(_) | Outcome::NotRun(_) => Effects::default(),
            },
            memory: guest.limiter.memory_peak as u64,
            outcome,
            is_sound,
        }
    }
}

async fn handle(
    store: &mut Store<Guest>,
    exports: &mut Option<Consumer>,
    plugin: &ConsumerPre<Guest>,
    event: &Event,
) -> Returned {
    let exports = match exports {
        Some(exports) => exports,
        None => exports.insert(plugin.instantiate_async(&mut *store).await?),
    };
    // Most extensions are text; only the others need text made of them.
    let texts: Vec<Option<String>> = event
        .extensions
        .iter()
        .map(|extension| match &extension.value {
            event::Value::String(_) => None,
            other => Some(other.to_string()),
        })
        .collect();
    let extensions: Vec<types::ExtensionParam<'_>> = event
        .extensions
        .iter()
        .zip(&texts)
        .map(|(extension, text)| types::ExtensionParam {
            name: &extension.name,
            value: match (&extension.value, text) {
                (event::Value::String(value), _) => value,
                (_, text) => text.as_deref().unwrap_or_default(),
            },
        })
        .collect();
    let event = types::Event {
        id: &event.id,
        source: &event.source,
        kind: &event.kind,
        subject: event.subject.as_deref(),
        time: event.time.as_deref(),
        datacontenttype: event.datacontenttype.as_deref(),
        dataschema: event.dataschema.as_deref(),
        extensions: &extensions,
        data: event.data.as_deref().unwrap_or_default(),
    };
    exports.tidegate_plugin_handler().call_handle(store, event).await
}

/// Bounds what an instance has of the machine, and remembers what it was refused.
struct Limiter {
    memory_max: usize,
    memory: usize,
    memory_peak: usize,
    growth: usize,
    table_elements_max: usize,
    table_elements: usize,
    refusal: Option<Refusal>,
}

impl Limiter {
    fn new(limits: &Limits) -> Self {
        Self {
            memory_max: limits.memory,
            memory: 0,
            memory_peak: 0,
            growth: 0,
            table_elements_max: limits.table_elements,
            table_elements: 0,
            refusal: None,
        }
    }

    fn begin(&mut self) {
        self.memory_peak = self.memory;
        self.refusal = None;
    }

    fn refuse(&mut self, text: String) -> wasmtime::Result<bool> {
        self.refusal = Some(Refusal::Memory(text));
        Ok(false)
    }
}

impl ResourceLimiter for Limiter {
    fn memory_growing(&mut self, current: usize, desired: usize, _maximum: Option<usize>) -> wasmtime::Result<bool> {
        let growth = desired.saturating_sub(current);
        let wanted = self.memory.saturating_add(growth);
        if wanted > self.memory_max {
            let limit = self.memory_max;
            return self.refuse(format!("{wanted} bytes of memory are over limits.memory ({limit})"));
        }
        self.growth = growth;
        self.memory = wanted;
        self.memory_peak = self.memory_peak.max(wanted);
        Ok(true)
    }

    fn memory_grow_failed(&mut self, error: wasmtime::Error) -> wasmtime::Result<()> {
        self.memory = self.memory.saturating_sub(std::mem::take(&mut self.growth));
        self.refusal
            .get_or_insert_with(|| Refusal::Memory(format!("memory can't grow: {error}")));
        Ok(())
    }

    fn table_growing(&mut self, current: usize, desired: usize, _maximum: Option<usize>) -> wasmtime::Result<bool> {
        let wanted = self.table_elements.saturating_add(desired.saturating_sub(current));
        if wanted > self.table_elements_max {
            let limit = self.table_elements_max;
            return self.refuse(format!(
                "{wanted} table elements are over limits.table_elements ({limit})"
            ));
        }
        self.table_elements = wanted;
        Ok(true)
    }

    fn instances(&self) -> usize {
        CORE_INSTANCES_MAX as usize
    }

    fn tables(&self) -> usize {
        TABLES_MAX as usize
    }

    fn memories(&self) -> usize {
        MEMORIES_MAX as usize
    }
}

impl types::Host for Guest {}

impl context::Host for Guest {
    fn current(&mut self) -> wasmtime::Result<context::Attempt> {
        let remaining = self.deadline.saturating_duration_since(self.shared.clock.now());
        Ok(context::Attempt {
            consumer: self.shared.consumer.name.to_string(),
            attempt: self.attempt,
            remaining_ms: u64::try_from(remaining.as_millis()).unwrap_or(u64::MAX),
            idempotency_key: self.cause.record.to_string(),
            key: String::from_utf8_lossy(&self.cause.lane.0).into_owned(),
            revision: self.shared.revision.to_string(),
        })
    }
}

impl config::Host for Guest {
    fn get(&mut self, key: String) -> wasmtime::Result<Result<Option<String>, config::Error>> {
        let values = self.shared.consumer.grants.config.as_ref();
        Ok(Ok(values.and_then(|values| values.get(&key).cloned())))
    }

    fn get_all(&mut self) -> wasmtime::Result<Result<Vec<(String, String)>, config::Error>> {
        let values = self.shared.consumer.grants.config.clone();
        Ok(Ok(values.unwrap_or_default().into_iter().collect()))
    }
}

/// No environment, no arguments, no folders, no network; standard input is at its end.
impl WasiView for Guest {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        let Self {
            shared,
            log,
            wasi,
            table,
            ..
        } = self;
        let ctx = wasi.get_or_insert_with(|| {
            let stream = |stream| StdStream {
                log: log.clone(),
                stream,
            };
            WasiCtx::builder()
                .stdout(stream(Stream::Out))
                .stderr(stream(Stream::Err))
                .wall_clock(GuestClock(Arc::clone(shared)))
                .monotonic_clock(GuestClock(Arc::clone(shared)))
                .allow_tcp(false)
                .allow_udp(false)
                .max_random_size(RANDOM_BYTES_MAX)
                .build()
        });
        WasiCtxView { ctx, table }
    }
}

/// The host's clock, for guests.
struct GuestClock(Arc<Shared>);

impl HostWallClock for GuestClock {
    fn resolution(&self) -> Duration {
        Duration::from_millis(1)
    }

    fn now(&self) -> Duration {
        Duration::from_millis(self.0.clock.wall().0)
    }
}

impl HostMonotonicClock for GuestClock {
    fn resolution(&self) -> u64 {
        1
    }

    fn now(&self) -> u64 {
        let since = self.0.clock.now().saturating_duration_since(self.0.started);
        u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
    }
}
