//! The guests that tests load, built from their sources in `tests/guests` when first asked for.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};

/// Makes a component of the text in `guests/NAME.wat`: a component as it stands there, or what a core module is made of, set into
/// `guests/frame.wat`.
///
/// # Errors
/// If it can't be.
pub fn assemble(name: &str) -> anyhow::Result<PathBuf> {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    let read = |name| std::fs::read_to_string(tests.join("guests").join(name).with_extension("wat"));
    let mut text = read(name)?;
    if !text.contains("(component") {
        text = read("frame")?.replacen(";; MODULE\n", &text, 1);
    }
    let wasm = wat::parse_str(text)?;
    let folder = tests.join("../target/guests/wat");
    std::fs::create_dir_all(&folder)?;
    let path = folder.join(name).with_extension("wasm");
    // Tests that assemble the same write the same: each its own file, renamed onto the one name, so that nobody reads half of it.
    let own = folder.join(format!("{name}-{:?}", std::thread::current().id()));
    std::fs::write(&own, wasm)?;
    std::fs::rename(own, &path)?;
    Ok(path)
}

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
