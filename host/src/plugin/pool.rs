//! A loaded plugin, and where its instances come from.
//!
//! By default each event gets a fresh instance: nothing a guest does reaches the next event. With `instances = "reuse"` a guest that
//! came back from its call is kept for another, and with it all that it holds in its memory: caches and open handles, but also
//! leaks and whatever one event left behind for the next. One that trapped or ran out of its time is never kept.

use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::time::{Instant, timeout_at};

use super::bindings::consumer::ConsumerPre;
use super::instance::{Ended, Guest, Instance, Shared};
use super::{Attempted, Call, Handler};
use crate::ledger::Effects;
use crate::outcome::Outcome;
use crate::plan::Instances;

/// A loaded plugin of one consumer: compiled, checked against its grants, started once on trial. One per consumer and revision; tasks
/// share it. Dropping it drops its idle instances; calls that run hold what they need.
pub struct Plugin {
    pre: ConsumerPre<Guest>,
    shared: Arc<Shared>,
    idle: Option<Arc<Idle>>,
}

impl Plugin {
    /// Starts the plugin once on trial and makes it ready.
    pub(super) async fn start(
        pre: ConsumerPre<Guest>,
        shared: Arc<Shared>,
        deadline: Instant,
    ) -> Result<Self, Outcome> {
        let idle = match shared.consumer.instances {
            Instances::Fresh => None,
            Instances::Reuse { uses_max, age_max } => {
                let idle = Arc::new(Idle {
                    uses_max,
                    age_max,
                    count_max: shared.consumer.concurrency.get(),
                    instances: Mutex::default(),
                });
                shared.engine.register(&idle);
                Some(idle)
            }
        };
        let plugin = Self { pre, shared, idle };
        let mut trial = plugin.fresh(deadline).await?;
        trial.try_start(&plugin.pre, deadline).await?;
        Ok(plugin)
    }

    async fn run(&self, call: Call<'_>) -> Attempted {
        let asked = self.shared.clock.now();
        let mut instance = match self.take(call.deadline).await {
            Ok(instance) => instance,
            Err(outcome) => return not_run(outcome),
        };
        let began = self.shared.clock.now();
        // That it had to wait is no fault of the event: its time begins now.
        let call = Call {
            deadline: call.deadline + began.saturating_duration_since(asked),
            ..call
        };
        let Ended {
            outcome,
            effects,
            memory,
            is_sound,
        } = instance.run(&self.pre, &call).await;
        let ended = self.shared.clock.now();
        if is_sound {
            self.keep(instance, ended);
        }
        Attempted {
            outcome,
            effects,
            duration: ended.saturating_duration_since(began),
            memory,
        }
    }

    async fn take(&self, deadline: Instant) -> Result<Instance, Outcome> {
        if let Some(idle) = &self.idle {
            let now = self.shared.clock.now();
            while let Some(instance) = idle.pop() {
                if idle.is_usable(&instance, now) {
                    return Ok(instance);
                }
            }
        }
        self.fresh(deadline).await
    }

    async fn fresh(&self, deadline: Instant) -> Result<Instance, Outcome> {
        match timeout_at(deadline, self.shared.engine.permit()).await {
            Ok(Some(permit)) => Ok(Instance::new(&self.shared, permit)),
            Ok(None) | Err(_) => Err(Outcome::NotRun(
                "no instance became free in time: host.instances_max is too low for the load".to_owned(),
            )),
        }
    }

    /// Keeps an instance for another event, unless somebody else needs its place.
    fn keep(&self, instance: Instance, now: Instant) {
        if let Some(idle) = &self.idle
            && idle.is_usable(&instance, now)
            && !self.shared.engine.is_full()
        {
            idle.push(instance);
        }
    }
}

impl Handler for Plugin {
    fn attempt<'a>(&'a self, call: Call<'a>) -> BoxFuture<'a, Attempted> {
        self.run(call).boxed()
    }

    fn revision(&self) -> Arc<str> {
        Arc::clone(&self.shared.revision)
    }
}

fn not_run(outcome: Outcome) -> Attempted {
    Attempted {
        outcome,
        effects: Effects::default(),
        duration: Duration::ZERO,
        memory: 0,
    }
}

/// Instances of one plugin that wait for another event; the one used last is taken first, so that its memory is still near.
pub(super) struct Idle {
    uses_max: NonZeroU32,
    age_max: Duration,
    count_max: usize,
    instances: Mutex<Vec<Instance>>,
}

impl Idle {
    /// Takes an instance out.
    pub(super) fn pop(&self) -> Option<Instance> {
        self.instances.lock().unwrap_or_else(PoisonError::into_inner).pop()
    }

    fn push(&self, instance: Instance) {
        let mut instances = self.instances.lock().unwrap_or_else(PoisonError::into_inner);
        if instances.len() < self.count_max {
            instances.push(instance);
        }
    }

    fn is_usable(&self, instance: &Instance, now: Instant) -> bool {
        instance.uses < self.uses_max.get() && now.saturating_duration_since(instance.born) < self.age_max
    }
}
