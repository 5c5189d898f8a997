//! From a file to a plugin that runs: read, check, compile, link what is granted, start once on trial.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use wasmtime::component::{Component as Code, HasSelf, Linker};

use super::bindings::{config, consumer, keyvalue, keyvalue_draft};
use super::component::{Component, Stamp};
use super::grants::{self, InspectError, Inspection, Refusal};
use super::instance::{Guest, Shared};
use super::pool::Plugin;
use super::{Encode, Engine, logging};
use crate::clock::Clock;
use crate::outcome::{Failure, Outcome};
use crate::plan::{self, Grants};

/// Bytes of a plugin's file: three times the largest that any toolchain makes of a usual plugin (Python, 18 MB).
const FILE_BYTES_MAX: u64 = 64 << 20;
/// What a trial start may take at least, however short the time of an event: the first one maps the plugin's memory image.
const TRIAL_MIN: Duration = Duration::from_secs(1);

/// A plugin can't be loaded. Nothing runs of it.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// Its file can't be read.
    #[error("{path} can't be read: {source}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Its file is too large.
    #[error(
        "{path} has {size} bytes; a plugin has at most {FILE_BYTES_MAX}: strip it, or leave out what it does not use"
    )]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Its bytes.
        size: u64,
    },
    /// It is not what the config pins.
    #[error("{path} is {found}, but the config pins {pinned}: restore the file, or pin the new one")]
    DigestMismatch {
        /// The file.
        path: PathBuf,
        /// Its digest.
        found: String,
        /// The digest that it should have.
        pinned: String,
    },
    /// It is no component.
    #[error("{path}: {source}")]
    NotComponent {
        /// The file.
        path: PathBuf,
        /// What it is.
        source: InspectError,
    },
    /// It has more memory when it starts than it may have.
    #[error(
        "{path} has {needed} bytes of memory when it starts, and limits.memory is {limit}: raise the limit, or build it smaller"
    )]
    NeedsMemory {
        /// The file.
        path: PathBuf,
        /// What it has when it starts, in bytes.
        needed: u64,
        /// What it may have, in bytes.
        limit: usize,
    },
    /// It may not run here.
    #[error("{path}: {refusal}")]
    Refused {
        /// The file.
        path: PathBuf,
        /// Why.
        refusal: Refusal,
    },
    /// It does not compile.
    #[error("{path} does not compile: {reason}")]
    Invalid {
        /// The file.
        path: PathBuf,
        /// What the compiler said.
        reason: String,
    },
    /// A name is right and its type is not.
    #[error("{path} does not fit the contract: {reason}; build it against the wit folder of this version")]
    Mismatch {
        /// The file.
        path: PathBuf,
        /// What does not fit.
        reason: String,
    },
    /// It failed when it was started on trial.
    #[error("{path} fails to start ({}): {}", .failure.class, .failure.message)]
    StartFailed {
        /// The file.
        path: PathBuf,
        /// How.
        failure: Box<Failure>,
    },
    /// The host could not try it.
    #[error("{path} could not be tried: {reason}")]
    NotTried {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
}

impl LoadError {
    /// Every code, in the order of `docs/errors.md`.
    pub const CODES: [&str; 14] = [
        "plugin-unreadable",
        "plugin-too-large",
        "plugin-digest-mismatch",
        "plugin-not-component",
        "plugin-invalid",
        "plugin-no-handler",
        "plugin-contract-newer",
        "plugin-contract-mismatch",
        "plugin-import-not-granted",
        "plugin-import-not-available",
        "plugin-import-unknown",
        "plugin-needs-memory",
        "plugin-start-failed",
        "plugin-not-tried",
    ];

    /// The heading in `docs/errors.md`.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Unreadable { .. } => "plugin-unreadable",
            Self::TooLarge { .. } => "plugin-too-large",
            Self::DigestMismatch { .. } => "plugin-digest-mismatch",
            Self::NotComponent { .. } => "plugin-not-component",
            Self::NeedsMemory { .. } => "plugin-needs-memory",
            Self::Refused { refusal, .. } => match refusal {
                Refusal::NoHandler { .. } => "plugin-no-handler",
                Refusal::ContractNewer { .. } => "plugin-contract-newer",
                Refusal::NotGranted { .. } => "plugin-import-not-granted",
                Refusal::NotAvailable { .. } => "plugin-import-not-available",
                Refusal::Unknown { .. } => "plugin-import-unknown",
            },
            Self::Invalid { .. } => "plugin-invalid",
            Self::Mismatch { .. } => "plugin-contract-mismatch",
            Self::StartFailed { .. } => "plugin-start-failed",
            Self::NotTried { .. } => "plugin-not-tried",
        }
    }
}

/// Loads a consumer's plugin.
///
/// # Errors
/// [`LoadError`]: a person must act, except for [`LoadError::NotTried`], where trying again helps.
///
/// # Cancellation
/// Safe. A compilation that has begun runs to its end in the background, and its result is in the cache.
pub async fn load(
    engine: &Engine,
    consumer: &Arc<plan::Consumer>,
    clock: &Clock,
    encode: Encode,
) -> Result<Plugin, LoadError> {
    let path = consumer.plugin.clone();
    let component = open(engine, consumer).await?;
    let mismatch = |error: wasmtime::Error| LoadError::Mismatch {
        path: path.clone(),
        reason: format!("{error:#}"),
    };
    let pre = link(engine, &consumer.grants)
        .and_then(|linker| linker.instantiate_pre(&component.code))
        .and_then(consumer::ConsumerPre::new)
        .map_err(mismatch)?;
    let shared = Arc::new(Shared {
        consumer: Arc::clone(consumer),
        revision: component.inspection.digest.as_str().into(),
        _component: component,
        engine: engine.clone(),
        started: clock.now(),
        clock: clock.clone(),
        encode,
    });
    let deadline = clock.now() + consumer.limits.time.max(TRIAL_MIN);
    let plugin = Plugin::start(pre, shared, deadline).await;
    plugin.map_err(|outcome| trial_failed(path, outcome))
}

/// The component of a consumer, if it may have it: the one that another consumer has of the same file, or read and compiled.
async fn open(engine: &Engine, consumer: &plan::Consumer) -> Result<Arc<Component>, LoadError> {
    let path = &consumer.plugin;
    let unreadable = |source| LoadError::Unreadable {
        path: path.clone(),
        source,
    };
    let stamp = Stamp::of(&tokio::fs::metadata(path).await.map_err(unreadable)?);
    if let Some(known) = engine.components().get(path, stamp) {
        check(&known.inspection, consumer)?;
        return Ok(known);
    }
    if stamp.size > FILE_BYTES_MAX {
        return Err(LoadError::TooLarge {
            path: path.clone(),
            size: stamp.size,
        });
    }
    let bytes = tokio::fs::read(path).await.map_err(unreadable)?;
    let inspection = grants::inspect(&bytes).map_err(|source| LoadError::NotComponent {
        path: path.clone(),
        source,
    })?;
    check(&inspection, consumer)?;
    let wasm = engine.wasm().clone();
    let code = compile(path, move || Code::from_binary(&wasm, &bytes)).await?;
    Ok(engine.components().add(path, stamp, inspection, code))
}

fn check(inspection: &Inspection, consumer: &plan::Consumer) -> Result<(), LoadError> {
    let path = || consumer.plugin.clone();
    if let Some(pinned) = &consumer.digest
        && *pinned != inspection.digest
    {
        return Err(LoadError::DigestMismatch {
            path: path(),
            found: inspection.digest.clone(),
            pinned: pinned.clone(),
        });
    }
    let refused = |refusal| LoadError::Refused { path: path(), refusal };
    inspection.check(&consumer.grants).map_err(refused)?;
    let limit = consumer.limits.memory;
    if inspection.memory_at_start > limit as u64 {
        return Err(LoadError::NeedsMemory {
            path: path(),
            needed: inspection.memory_at_start,
            limit,
        });
    }
    Ok(())
}

/// Compiles on a thread of its own: it takes from milliseconds to seconds.
async fn compile(
    path: &Path,
    compile: impl FnOnce() -> wasmtime::Result<Code> + Send + 'static,
) -> Result<Code, LoadError> {
    let invalid = |reason| LoadError::Invalid {
        path: path.to_owned(),
        reason,
    };
    tokio::task::spawn_blocking(compile)
        .await
        .map_err(|error| invalid(error.to_string()))?
        .map_err(|error| invalid(format!("{error:#}")))
}

/// Links what a consumer grants and nothing else.
fn link(engine: &Engine, grants: &Grants) -> wasmtime::Result<Linker<Guest>> {
    type Own = HasSelf<Guest>;
    fn own(guest: &mut Guest) -> &mut Guest {
        guest
    }
    let mut linker = Linker::new(engine.wasm());
    wasmtime_wasi::p2::add_to_linker_async(&mut linker)?;
    consumer::Consumer::add_to_linker::<_, Own>(&mut linker, own)?;
    logging::add_to_linker(&mut linker)?;
    if grants.state {
        keyvalue::State::add_to_linker::<_, Own>(&mut linker, own)?;
        keyvalue_draft::State::add_to_linker::<_, Own>(&mut linker, own)?;
    }
    if grants.config.is_some() {
        config::Settings::add_to_linker::<_, Own>(&mut linker, own)?;
    }
    Ok(linker)
}

fn trial_failed(path: PathBuf, outcome: Outcome) -> LoadError {
    match outcome {
        Outcome::Failed(failure) => LoadError::StartFailed {
            path,
            failure: Box::new(failure),
        },
        Outcome::NotRun(reason) => LoadError::NotTried { path, reason },
        // A trial start has no effects to succeed with.
        Outcome::Succeeded => LoadError::NotTried {
            path,
            reason: "it did not run".to_owned(),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_not_to_load_is_documented() {
        crate::documented::documented(&LoadError::CODES);
    }
}
