//! Keeps apart what may have killed a host, so that the innocent are not found guilty with it.
//!
//! After an unclean stop, an event that may have been under way begins with a record, and few such events are under way at a time: if the
//! host dies again, only those few are suspected any further. An event that has such a record already runs while nothing else
//! runs in the host. If that kills it too, the next host knows which it was.

use tokio::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard, Semaphore, SemaphorePermit};

/// Suspects under way at once in a host. More would recover faster and suspect more of the innocent.
const SUSPECTS: usize = 4;

/// One per host, shared by all consumers.
#[derive(Debug)]
pub struct Quarantine {
    ward: RwLock<()>,
    suspects: Semaphore,
}

/// Leave to run; given back when it is dropped.
#[derive(Debug)]
pub enum Leave<'q> {
    /// Beside others.
    Shared(RwLockReadGuard<'q, ()>),
    /// Beside others, as one of few suspects.
    Suspect(RwLockReadGuard<'q, ()>, Option<SemaphorePermit<'q>>),
    /// With nothing else under way.
    Alone(RwLockWriteGuard<'q, ()>),
}

impl Default for Quarantine {
    fn default() -> Self {
        Self {
            ward: RwLock::new(()),
            suspects: Semaphore::new(SUSPECTS),
        }
    }
}

impl Quarantine {
    /// Leave for what is under no suspicion.
    pub async fn shared(&self) -> Leave<'_> {
        Leave::Shared(self.ward.read().await)
    }

    /// Leave for an event that may have killed `started` hosts since it was first given a record.
    pub async fn suspect(&self, started: u32) -> Leave<'_> {
        if started > 0 {
            return Leave::Alone(self.ward.write().await);
        }
        // It is never closed; without a permit the event would only be suspected beside more others.
        let permit = self.suspects.acquire().await.ok();
        Leave::Suspect(self.ward.read().await, permit)
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[tokio::test]
    async fn an_old_suspect_runs_while_nothing_else_does() {
        let quarantine = Quarantine::default();
        let shared = quarantine.shared().await;
        assert!(quarantine.suspect(1).now_or_never().is_none());
        drop(shared);
        let alone = quarantine.suspect(1).await;
        assert!(quarantine.shared().now_or_never().is_none());
        drop(alone);
        assert!(quarantine.shared().now_or_never().is_some());
    }

    #[tokio::test]
    async fn few_new_suspects_run_at_a_time_beside_others() {
        let quarantine = Quarantine::default();
        let _shared = quarantine.shared().await;
        let mut suspects = Vec::new();
        for _ in 0..SUSPECTS {
            suspects.push(quarantine.suspect(0).await);
        }
        assert!(quarantine.suspect(0).now_or_never().is_none());
        suspects.pop();
        assert!(quarantine.suspect(0).now_or_never().is_some());
    }
}
