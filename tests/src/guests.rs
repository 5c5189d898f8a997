//! The guests that tests load, built from their sources in `tests/guests` when first asked for.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};

/// Builds a guest and gives its component. Once per process; another process that builds the same waits for cargo's own lock.
///
/// # Panics
/// If it does not build: no test that needs it can go on.
#[must_use]
#[expect(clippy::panic, reason = "there is no test without its guest")]
pub fn build(name: &str) -> PathBuf {
    static BUILT: Mutex<Option<HashMap<String, PathBuf>>> = Mutex::new(None);
    let mut built = BUILT.lock().unwrap_or_else(PoisonError::into_inner);
    let built = built.get_or_insert_default();
    if let Some(path) = built.get(name) {
        return path.clone();
    }
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    let target = tests.join("../target/guests");
    let output = Command::new(env!("CARGO"))
        .args(["build", "--release", "--target", "wasm32-wasip2"])
        .arg("--manifest-path")
        .arg(tests.join("guests").join(name).join("Cargo.toml"))
        .arg("--target-dir")
        .arg(&target)
        .output();
    match output {
        Ok(output) if output.status.success() => {}
        Ok(output) => panic!(
            "guest {name} does not build:\n{}",
            String::from_utf8_lossy(&output.stderr)
        ),
        Err(error) => panic!("cargo can't be started: {error}"),
    }
    let path = target
        .join("wasm32-wasip2/release")
        .join(name.replace('-', "_"))
        .with_extension("wasm");
    built.insert(name.to_owned(), path.clone());
    path
}
