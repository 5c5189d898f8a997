//! Sets the stage of the demo: finds the example, builds its plugins, gives it a folder.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, bail, ensure};
use tokio::process::Command;

use crate::config;
use crate::plan::Plan;

const CONFIG: &str = "tidegate.toml";
const TARGET: &str = "wasm32-wasip2";

/// The folder of the example.
///
/// # Errors
/// There is none where it may be.
pub(super) fn find(asked: Option<&Path>) -> anyhow::Result<PathBuf> {
    if let Some(dir) = asked {
        ensure!(dir.join(CONFIG).is_file(), "{} has no {CONFIG}", dir.display());
        return Ok(dir.to_owned());
    }
    let here = std::env::current_dir()?;
    let above = here.ancestors().map(|folder| folder.join("examples/flash-sale"));
    let built = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/flash-sale");
    let found = above.chain([built]).find(|folder| folder.join(CONFIG).is_file());
    found.context("examples/flash-sale is neither here nor above: run the demo in a clone of the repository, or name the folder with --dir")
}

/// Builds the plugins. Quick when they are built already.
///
/// # Errors
/// There is no Rust toolchain, or the build fails.
pub(super) async fn build(example: &Path) -> anyhow::Result<()> {
    add_target().await?;
    eprintln("building the plugins");
    let mut cargo = Command::new("cargo");
    // The variables of a cargo that runs this would make the inner one build everything anew, or for another target.
    cargo
        .env_remove("CARGO_TARGET_DIR")
        .env_remove("RUSTFLAGS")
        .env_remove("CARGO_ENCODED_RUSTFLAGS");
    cargo
        .args(["build", "--quiet", "--release", "--target", TARGET])
        .current_dir(example.join("plugins"));
    let status = cargo.stdout(Stdio::null()).status().await;
    let status = status
        .context("cargo can't be run: the demo's plugins are built from source, install Rust from https://rustup.rs")?;
    ensure!(status.success(), "the plugins do not build: cargo says why above");
    Ok(())
}

/// Adds the Wasm target where rustup manages the toolchain and it is missing.
async fn add_target() -> anyhow::Result<()> {
    let listed = Command::new("rustup")
        .args(["target", "list", "--installed"])
        .output()
        .await;
    let Ok(listed) = listed else {
        // No rustup: the toolchain is someone else's, and the build says if the target is missing.
        return Ok(());
    };
    if String::from_utf8_lossy(&listed.stdout)
        .lines()
        .any(|line| line == TARGET)
    {
        return Ok(());
    }
    eprintln("adding the target wasm32-wasip2");
    let status = Command::new("rustup").args(["target", "add", TARGET]).status().await?;
    if !status.success() {
        bail!("the target {TARGET} can't be added: run `rustup target add {TARGET}`");
    }
    Ok(())
}

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

fn eprintln(text: &str) {
    use std::io::Write;
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}
