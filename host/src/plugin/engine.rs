//! The one wasmtime engine of the process: where instances get their memory, how compiled plugins are kept, and the tick that
//! takes the processor back from a guest that will not give it.

use std::env;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use wasmtime::{Cache, CacheConfig, Config, Enabled, InstanceAllocationStrategy, OptLevel, PoolingAllocationConfig};

use super::component::Components;
use super::pool::Idle;
use crate::plan::Plan;

/// How often a running guest is looked at while few of them run long. Half of it is added to an endless loop on average.
const TICK: Duration = Duration::from_millis(5);
/// The shortest tick: below it, the looking costs more than the guests.
const TICK_MIN: Duration = Duration::from_micros(500);
/// Within this time every guest that runs long has had its turn: it bounds how late a time limit is noticed.
const ROUND: Duration = Duration::from_millis(10);
/// Linear memory that stays mapped between two instances: what a plugin of a compact language uses in all (Rust, C, Zig, JavaScript
/// on QuickJS). Costs at most this for each warm slot, and saves the page faults, which were half the cost of an event.
const MEMORY_KEEP_RESIDENT: usize = 2 << 20;
/// The same for tables; a table of 8,192 functions fits.
const TABLE_KEEP_RESIDENT: usize = 64 << 10;
/// Core instances, memories and tables that one component may be made of. A compiled one has up to four of each; Python, which links
/// its native libraries at start, has some dozens of core instances and tables.
pub(super) const CORE_INSTANCES_MAX: u32 = 128;
pub(super) const MEMORIES_MAX: u32 = 8;
pub(super) const TABLES_MAX: u32 = 64;
/// The unit of linear memory.
const WASM_PAGE: usize = 64 << 10;
/// The wasm stack of one call. Deep recursion ends here; the rest of the fiber's 2 MiB is for host functions.
const STACK_BYTES: usize = 1 << 20;
/// Names kept of a trapped guest's stack.
pub(super) const FRAMES_MAX: usize = 32;

/// What the engine is sized for.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Instances alive at once.
    pub instances_max: NonZeroU32,
    /// Linear memory of one instance, in bytes.
    pub memory_max: usize,
    /// Elements of one table.
    pub table_elements_max: usize,
    /// Where compiled plugins are kept; `None`: `tidegate` in the user's cache folder, or nowhere if there is no such folder.
    pub cache: Option<PathBuf>,
}

impl Settings {
    /// What a plan asks for.
    #[must_use]
    pub fn of(plan: &Plan) -> Self {
        let limits = || plan.consumers.values().map(|consumer| &consumer.limits);
        Self {
            instances_max: plan.host.instances_max,
            memory_max: limits().map(|limits| limits.memory).max().unwrap_or(0),
            table_elements_max: limits().map(|limits| limits.table_elements).max().unwrap_or(0),
            cache: plan.host.cache.clone(),
        }
    }
}

/// Compiles and runs plugins. A process needs one: it holds the address space for all instances, and one ticking thread. Cloning
/// shares it, and tasks may share it. Dropping the last clone stops the thread and waits for it, at most one tick.
#[derive(Clone)]
pub struct Engine(Arc<Inner>);

struct Inner {
    wasm: wasmtime::Engine,
    permits: Arc<Semaphore>,
    idle: Mutex<Vec<Weak<Idle>>>,
    components: Components,
    long_running: Arc<AtomicU32>,
    // Dropped last: until then, a guest that runs is being looked at.
    _ticker: Ticker,
}

impl Engine {
    /// Makes an engine.
    ///
    /// # Errors
    /// [`EngineError`]: the machine or the config needs a person.
    pub fn new(settings: &Settings) -> Result<Self, EngineError> {
        let mut config = config(settings);
        config.cache(cache(settings.cache.as_ref())?);
        let wasm = wasmtime::Engine::new(&config).map_err(|error| EngineError::Unsupported(format!("{error:#}")))?;
        let long_running = Arc::new(AtomicU32::new(0));
        Ok(Self(Arc::new(Inner {
            _ticker: Ticker::start(wasm.clone(), Arc::clone(&long_running))?,
            wasm,
            permits: Arc::new(Semaphore::new(settings.instances_max.get() as usize)),
            idle: Mutex::default(),
            components: Components::default(),
            long_running,
        })))
    }

    pub(super) fn wasm(&self) -> &wasmtime::Engine {
        &self.0.wasm
    }

    /// What plugins share.
    pub(super) fn components(&self) -> &Components {
        &self.0.components
    }

    /// The right to have one more instance alive. Waits for one if there is none, after taking those that only wait to be used again.
    ///
    /// # Cancellation
    /// Safe: the place in the queue is lost, nothing else.
    pub(super) async fn permit(&self) -> Option<OwnedSemaphorePermit> {
        let permits = &self.0.permits;
        if let Ok(permit) = Arc::clone(permits).try_acquire_owned() {
            return Some(permit);
        }
        self.evict();
        Arc::clone(permits).acquire_owned().await.ok()
    }

    /// Whether somebody may be waiting for an instance.
    pub(super) fn is_full(&self) -> bool {
        self.0.permits.available_permits() == 0
    }

    /// Makes a consumer's idle instances known, so that another consumer can have their places.
    pub(super) fn register(&self, idle: &Arc<Idle>) {
        let mut all = self.0.idle.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|known| known.strong_count() > 0);
        all.push(Arc::downgrade(idle));
    }

    /// Drops one idle instance, if there is any.
    fn evict(&self) {
        let all = self.0.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let evicted = all.iter().filter_map(Weak::upgrade).find_map(|idle| idle.pop());
        drop(all);
        drop(evicted);
    }

    /// Counts a guest as running long for as long as the mark lives.
    pub(super) fn long_running(&self) -> LongRunning {
        self.0.long_running.fetch_add(1, Ordering::Relaxed);
        LongRunning(Arc::clone(&self.0.long_running))
    }
}

/// While it lives, a guest counts as running long.
pub(super) struct LongRunning(Arc<AtomicU32>);

impl Drop for LongRunning {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The engine can't be made.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The machine does not give what the settings ask for, most often address space.
    #[error(
        "the plugin engine can't start: {0}; a smaller host.instances_max or smaller limits.memory needs less address space"
    )]
    Unsupported(String),
    /// The folder for compiled plugins can't be used.
    #[error("compiled plugins can't be kept in {folder}: {reason}; give host.cache a folder that can be written")]
    Cache {
        /// The folder.
        folder: PathBuf,
        /// What was wrong.
        reason: String,
    },
    /// The ticking thread can't be started.
    #[error("no thread can be started: {0}")]
    Thread(#[from] std::io::Error),
}

impl EngineError {
    /// The heading in `docs/errors.md`.
    pub const CODE: &str = "engine-unavailable";
}

fn config(settings: &Settings) -> Config {
    let count = settings.instances_max.get();
    let mut pool = PoolingAllocationConfig::new();
    // Most components have a few memories and tables, so the pool has a few for each; but one that has all it may have must always fit.
    pool.total_component_instances(count)
        .total_core_instances(count.saturating_mul(CORE_INSTANCES_MAX))
        .total_memories(count.saturating_mul(2).max(MEMORIES_MAX))
        .total_tables(count.saturating_mul(8).max(TABLES_MAX))
        .total_stacks(count)
        .max_core_instances_per_component(CORE_INSTANCES_MAX)
        .max_memories_per_component(MEMORIES_MAX)
        .max_tables_per_component(TABLES_MAX)
        .max_memories_per_module(MEMORIES_MAX)
        .max_tables_per_module(TABLES_MAX)
        .max_memory_size(settings.memory_max.next_multiple_of(WASM_PAGE))
        .table_elements(settings.table_elements_max)
        .linear_memory_keep_resident(MEMORY_KEEP_RESIDENT)
        .table_keep_resident(TABLE_KEEP_RESIDENT)
        .pagemap_scan(Enabled::Auto);
    let mut config = Config::new();
    config
        .allocation_strategy(InstanceAllocationStrategy::Pooling(pool))
        .cranelift_opt_level(OptLevel::Speed)
        .epoch_interruption(true)
        .max_wasm_stack(STACK_BYTES)
        .wasm_backtrace_max_frames(std::num::NonZeroUsize::new(FRAMES_MAX));
    config
}

/// wasmtime's own cache of compiled code. What is in that folder runs with the host's rights, so it must be as well guarded as the
/// host's binary.
fn cache(folder: Option<&PathBuf>) -> Result<Option<Cache>, EngineError> {
    let Some(chosen) = folder.cloned().or_else(default_cache) else {
        tracing::info!("compiled plugins are not kept: the user has no cache folder");
        return Ok(None);
    };
    let folder_error = |reason: String| EngineError::Cache {
        folder: chosen.clone(),
        reason,
    };
    let absolute = std::path::absolute(&chosen).map_err(|error| folder_error(error.to_string()))?;
    let mut config = CacheConfig::new();
    config.with_directory(absolute);
    match Cache::new(config) {
        Ok(cache) => Ok(Some(cache)),
        Err(error) if folder.is_some() => Err(folder_error(format!("{error:#}"))),
        // Nobody asked for this folder: without it the host only starts slower.
        Err(error) => {
            tracing::warn!(folder = %chosen.display(), %error, "compiled plugins are not kept");
            Ok(None)
        }
    }
}

fn default_cache() -> Option<PathBuf> {
    let folder = |name| env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    folder("XDG_CACHE_HOME")
        .or_else(|| folder("HOME").map(|home| home.join(".cache")))
        .map(|cache| cache.join("tidegate"))
}

/// The thread that moves the epoch on: at each step, guests that run look whether they may go on. It is no task of tokio's, so that
/// it ticks when every worker is busy with guests.
struct Ticker {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Ticker {
    fn start(wasm: wasmtime::Engine, long_running: Arc<AtomicU32>) -> Result<Self, std::io::Error> {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let cores = thread::available_parallelism().map_or(1, |cores| cores.get());
        let tick = move || {
            while !stopped.load(Ordering::Relaxed) {
                thread::park_timeout(period(long_running.load(Ordering::Relaxed), cores));
                wasm.increment_epoch();
            }
        };
        let thread = thread::Builder::new().name("tidegate-tick".to_owned()).spawn(tick)?;
        Ok(Self {
            stop,
            thread: Some(thread),
        })
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            // It can't have panicked: it only sleeps and counts.
            let _ = thread.join();
        }
    }
}

/// The time between two looks: the more guests run long, the shorter each one's turn, so that all of them are looked at within
/// one [`ROUND`].
fn period(long_running: u32, cores: usize) -> Duration {
    let cores = u32::try_from(cores).unwrap_or(u32::MAX);
    let turn = ROUND.saturating_mul(cores) / long_running.max(1);
    turn.clamp(TICK_MIN, TICK)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn turns_get_shorter_the_more_guests_run_long() {
        assert_eq!(period(0, 2), TICK);
        assert_eq!(period(2, 2), TICK);
        assert_eq!(period(20, 2), Duration::from_millis(1));
        assert_eq!(period(4096, 2), TICK_MIN);
    }

    #[test]
    fn dropping_the_engine_stops_its_thread() {
        let engine = Engine::new(&Settings {
            instances_max: NonZeroU32::MIN,
            memory_max: 1 << 20,
            table_elements_max: 100,
            cache: Some(env::temp_dir().join("tidegate-test-cache")),
        })
        .unwrap();
        let stop = Arc::clone(&engine.0._ticker.stop);
        drop(engine);
        // The thread holds the other one while it lives.
        assert_eq!(Arc::strong_count(&stop), 1);
    }
}
