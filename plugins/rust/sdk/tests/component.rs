//! What the template becomes: a component that imports no more than it uses, and whose functions keep their names.

#![expect(clippy::unwrap_used, reason = "a test stops at what it did not expect")]

use std::path::Path;
use std::process::Command;

use wasmparser::{KnownCustom, Name, Parser, Payload};

fn template() -> Option<Vec<u8>> {
    let template = Path::new(env!("CARGO_MANIFEST_DIR")).join("../template");
    if !template.exists() {
        return None; // The crate outside its repository.
    }
    let status = Command::new(env!("CARGO"))
        .args(["build", "--quiet", "--release", "--target", "wasm32-wasip2"])
        .current_dir(&template)
        .env_remove("CARGO_TARGET_DIR")
        .status();
    assert!(status.unwrap().success(), "rustup target add wasm32-wasip2");
    Some(std::fs::read(template.join("target/wasm32-wasip2/release/my_plugin.wasm")).unwrap())
}

/// The component's own imports, without what the standard library brings.
fn imports(component: &[u8]) -> Vec<String> {
    let mut depth = 0;
    let mut imports = Vec::new();
    for payload in Parser::new(0).parse_all(component) {
        match payload.unwrap() {
            Payload::ModuleSection { .. } | Payload::ComponentSection { .. } => depth += 1,
            Payload::End(_) => depth -= 1,
            Payload::ComponentImportSection(section) if depth == 0 => {
                imports.extend(section.into_iter().map(|import| import.unwrap().name.name.to_owned()));
            }
            _ => {}
        }
    }
    imports.retain(|name| !name.starts_with("wasi:cli/") && !name.starts_with("wasi:io/"));
    imports
}

fn function_names(component: &[u8]) -> Vec<String> {
    let mut names = Vec::new();
    for payload in Parser::new(0).parse_all(component) {
        let Payload::CustomSection(section) = payload.unwrap() else {
            continue;
        };
        let KnownCustom::Name(reader) = section.as_known() else {
            continue;
        };
        for name in reader {
            if let Name::Function(functions) = name.unwrap() {
                names.extend(functions.into_iter().map(|naming| naming.unwrap().name.to_owned()));
            }
        }
    }
    names
}

#[test]
fn template_imports_only_what_it_uses_and_keeps_its_names() {
    let Some(component) = template() else {
        return;
    };

    assert_eq!(
        imports(&component),
        ["tidegate:plugin/types@0.1.0", "tidegate:plugin/outbox@0.1.0"]
    );
    let names = function_names(&component);
    assert!(
        names
            .iter()
            .any(|name| name.contains("my_plugin") && name.contains("handle")),
        "{names:?}"
    );
}
