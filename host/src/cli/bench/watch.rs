//! What processes have used until now, as the operating system counts it.

use anyhow::Context;
use sysinfo::{Pid, ProcessRefreshKind, ProcessesToUpdate, System};

/// What one process has used.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Usage {
    /// Of all its threads, user and system, in milliseconds; in steps of the kernel's tick, 10 ms on most Linux machines.
    pub(super) cpu_ms: u64,
    /// Resident memory now, in bytes.
    pub(super) memory: u64,
}

/// Looks at some processes.
///
/// # Errors
/// The operating system does not tell.
pub(super) fn processes(pids: &[Pid]) -> anyhow::Result<System> {
    let mut system = System::new()
        .ok()
        .context("the operating system tells nothing about its processes")?;
    let wanted = ProcessRefreshKind::nothing().with_cpu().with_memory();
    system.refresh_processes_specifics(ProcessesToUpdate::Some(pids), false, wanted);
    Ok(system)
}

/// What these processes have used, in their order.
///
/// # Errors
/// One of them has ended.
pub(super) fn usage<const N: usize>(pids: [Pid; N]) -> anyhow::Result<[Usage; N]> {
    let system = processes(&pids)?;
    let mut usage = [Usage::default(); N];
    for (pid, used) in pids.iter().zip(&mut usage) {
        let process = system
            .process(*pid)
            .with_context(|| format!("process {pid} has ended"))?;
        *used = Usage {
            cpu_ms: process.accumulated_cpu_time(),
            memory: process.memory(),
        };
    }
    Ok(usage)
}

#[expect(clippy::cast_precision_loss, reason = "bytes of memory")]
pub(super) fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}
