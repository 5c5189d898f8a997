//! The examples of the repository, which `demo` and `bench` run: found from here, and built by cargo.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, bail, ensure};
use tokio::process::Command;

use super::complain;

const TARGET: &str = "wasm32-wasip2";

/// The folder that has `file`: the one asked for, or this one or one above, or that in which this binary was built.
///
/// # Errors
/// There is none.
pub(super) fn find(asked: Option<&Path>, file: &str, whose: &str) -> anyhow::Result<PathBuf> {
    if let Some(dir) = asked {
        ensure!(dir.join(file).is_file(), "{} has no {file}", dir.display());
        return Ok(dir.to_owned());
    }
    let here = std::env::current_dir()?;
    let built = Path::new(env!("CARGO_MANIFEST_DIR")).parent();
    let found = here.ancestors().chain(built).find(|folder| folder.join(file).is_file());
    let found = found.with_context(|| {
        format!(
            "{file} is neither here nor above: run {whose} in a clone of the repository, or name the folder with --dir"
        )
    })?;
    Ok(found.to_owned())
}

/// Builds the plugins in a folder, for Wasm. Quick when they are built already.
///
/// # Errors
/// There is no Rust toolchain, or the build fails.
pub(super) async fn build_plugins(folder: &Path) -> anyhow::Result<()> {
    add_target().await?;
    build(
        folder,
        "the plugins",
        &["build", "--quiet", "--release", "--target", TARGET],
    )
    .await
}

/// Runs cargo in a folder.
///
/// # Errors
/// There is no cargo, or it fails.
pub(super) async fn build(folder: &Path, what: &str, arguments: &[&str]) -> anyhow::Result<()> {
    complain(&format!("building {what}"));
    let mut cargo = Command::new("cargo");
    // The variables of a cargo that runs this would make the inner one build everything anew, or for another target.
    cargo
        .env_remove("CARGO_TARGET_DIR")
        .env_remove("RUSTFLAGS")
        .env_remove("CARGO_ENCODED_RUSTFLAGS");
    let status = cargo
        .args(arguments)
        .current_dir(folder)
        .stdout(Stdio::null())
        .status()
        .await;
    let status = status.with_context(|| {
        format!("cargo can't be run: {what} are built from source, install Rust from https://rustup.rs")
    })?;
    ensure!(status.success(), "{what}: the build failed, cargo says why above");
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
    complain("adding the target wasm32-wasip2");
    let status = Command::new("rustup").args(["target", "add", TARGET]).status().await?;
    if !status.success() {
        bail!("the target {TARGET} can't be added: run `rustup target add {TARGET}`");
    }
    Ok(())
}
