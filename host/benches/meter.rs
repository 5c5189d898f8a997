//! What a piece of work costs this process: CPU time and allocations per event, which a busy machine disturbs less than seconds.
//!
//! CPU is of all threads, in steps of the kernel's clock tick (10 ms on most Linux machines): a sample should last a second or more.
//! Allocations are counted around the system's allocator, also of all threads.

#![expect(clippy::expect_used, reason = "a benchmark that can't measure ends")]

use std::{alloc, fmt};

use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};
use sysinfo::{Pid, ProcessRefreshKind, ProcessesToUpdate, System};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<alloc::System> = &INSTRUMENTED_SYSTEM;

/// A measurement under way.
pub(crate) struct Sample {
    cpu_ms: u64,
    allocated: Region<'static, alloc::System>,
}

/// What one event of a sample cost.
pub(crate) struct Cost {
    pub(crate) cpu_us: f64,
    pub(crate) allocations: f64,
    pub(crate) allocated_bytes: f64,
}

impl Sample {
    pub(crate) fn start() -> Self {
        Self {
            cpu_ms: cpu_ms(),
            allocated: Region::new(ALLOCATOR),
        }
    }

    /// The cost per event of what was done since the start for `events` events.
    pub(crate) fn end(self, events: u32) -> Cost {
        let allocated = self.allocated.change();
        let per_event = |amount: f64| amount / f64::from(events);
        #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
        Cost {
            cpu_us: per_event((cpu_ms() - self.cpu_ms) as f64 * 1_000.0),
            allocations: per_event((allocated.allocations + allocated.reallocations) as f64),
            allocated_bytes: per_event(allocated.bytes_allocated as f64),
        }
    }
}

impl fmt::Display for Cost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:8.2} us CPU {:7.1} allocations {:9.0} bytes allocated",
            self.cpu_us, self.allocations, self.allocated_bytes
        )
    }
}

/// The CPU time of this process until now.
fn cpu_ms() -> u64 {
    let mut system = System::new().expect("the system tells about its processes");
    let me = Pid::from_u32(std::process::id());
    let cpu = ProcessRefreshKind::nothing().with_cpu();
    system.refresh_processes_specifics(ProcessesToUpdate::Some(&[me]), false, cpu);
    let process = system.process(me).expect("this process is one");
    process.accumulated_cpu_time()
}
