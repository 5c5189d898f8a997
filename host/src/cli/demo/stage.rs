//! Sets the stage of the demo: its plan and its folder.

use std::path::{Path, PathBuf};

use anyhow::ensure;

use crate::config;
use crate::plan::Plan;

/// Where it is in the example's folder.
pub(super) const CONFIG: &str = "tidegate.toml";

/// The example's plan, with its ledger in `data`. Its admin API is not served.
///
/// # Errors
/// What is wrong with its config.
pub(super) fn plan(example: &Path, data: &Path) -> anyhow::Result<Plan> {
    let data = data.display().to_string();
    let env = |name: &str| match name {
        "TIDEGATE_DATA" => Some(data.clone()),
        "TIDEGATE_ADMIN" => Some("127.0.0.1:0".to_owned()),
        other => std::env::var(other).ok(),
    };
    Ok(config::load(&example.join(CONFIG), &env)?.plan)
}

/// A folder for the ledger, removed when it is dropped unless it was asked for.
pub(super) struct Data {
    path: PathBuf,
    is_temporary: bool,
}

impl Data {
    pub(super) fn new(keep: Option<&Path>) -> anyhow::Result<Self> {
        if let Some(path) = keep {
            ensure!(!path.exists(), "{} exists already", path.display());
            return Ok(Self {
                path: std::path::absolute(path)?,
                is_temporary: false,
            });
        }
        let path = std::env::temp_dir().join(format!("tidegate-demo-{}", std::process::id()));
        Ok(Self {
            path,
            is_temporary: true,
        })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Data {
    fn drop(&mut self) {
        if self.is_temporary {
            // What is left in the temporary folder is the system's to remove.
            let _ = std::fs::remove_dir_all(&self.path);
        }
    }
}
