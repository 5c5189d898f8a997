//! Finds the component that `plugin` means.

use std::path::{Path, PathBuf};

/// What `plugin` may name.
pub(super) const HINT: &str = "name a .wasm file, a folder with plugin.wasm, or a Cargo project built for wasm32-wasip2; paths are relative to the config file's folder";

/// The file of a plugin: the path itself; or in a folder `plugin.wasm`, else its only `.wasm` file, else what Cargo has built.
///
/// # Errors
/// What was looked for, and what to do.
pub(crate) fn locate(path: &Path) -> Result<PathBuf, String> {
    if path.is_file() {
        return Ok(path.to_owned());
    }
    if !path.is_dir() {
        return Err(format!("there is no {}", path.display()));
    }
    let named = path.join("plugin.wasm");
    if named.is_file() {
        return Ok(named);
    }
    let mut components = components(path);
    match (components.pop(), components.len()) {
        (Some(only), 0) => Ok(only),
        (Some(_), others) => Err(format!(
            "{} has {} .wasm files: name one of them, or call it plugin.wasm",
            path.display(),
            others + 1
        )),
        (None, _) => built(path),
    }
}

fn components(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|ending| ending == "wasm"))
        .collect()
}

/// Where Cargo puts the component of a project.
fn built(folder: &Path) -> Result<PathBuf, String> {
    let manifest = std::fs::read_to_string(folder.join("Cargo.toml")).ok();
    let Some(name) = manifest.as_deref().and_then(crate_name) else {
        return Err(format!("{} has no .wasm file", folder.display()));
    };
    let file = folder
        .join("target/wasm32-wasip2/release")
        .join(name.replace('-', "_"))
        .with_extension("wasm");
    if file.is_file() {
        return Ok(file);
    }
    Err(format!(
        "{} is not built (looked for {}): run `cargo build --release --target wasm32-wasip2` in it",
        folder.display(),
        file.display()
    ))
}

fn crate_name(manifest: &str) -> Option<String> {
    let manifest: toml::Table = manifest.parse().ok()?;
    let name = |section: &str| Some(manifest.get(section)?.get("name")?.as_str()?.to_owned());
    // Of no other characters does Cargo make names; with others the path could lead out of the folder.
    let is_plain = |name: &String| name.chars().all(|c| c.is_alphanumeric() || c == '-' || c == '_');
    name("lib").or_else(|| name("package")).filter(is_plain)
}
