//! What a component is and asks for, read from its bytes; and whether its consumer grants it.
//!
//! Nothing is compiled here, so `inspect` and a refusal take no time, whatever the plugin's size.

use std::collections::BTreeSet;
use std::fmt;

use serde::Serialize;
use sha2::{Digest, Sha256};
use wasmparser::{Encoding, Parser, Payload};

use crate::plan::Grants;

/// The package of our contract, and the version that this host speaks.
const CONTRACT: &str = "tidegate:plugin";
const CONTRACT_VERSION: (u64, u64) = (0, 1);
/// What a plugin exports.
const HANDLER: &str = "handler";
/// The unit of linear memory.
const WASM_PAGE: u64 = 64 << 10;

/// What a component is and asks for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Inspection {
    /// `sha256:` and 64 hex digits.
    pub digest: String,
    /// Bytes of the file.
    pub size: u64,
    /// The version of `tidegate:plugin/handler` that it exports, if it does.
    pub contract: Option<String>,
    /// What it exports, by name.
    pub exports: Vec<String>,
    /// What it imports, and what that needs.
    pub imports: Vec<Import>,
    /// The grants it can't load without.
    pub grants: BTreeSet<Grant>,
    /// Linear memory that it has when it starts, in bytes, over all its parts.
    pub memory_at_start: u64,
    /// Whether functions have names, so that a trap can say where it was.
    pub has_names: bool,
}

/// An import of a component.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Import {
    /// As the component has it: `wasi:keyvalue/store@0.2.0-draft2`.
    pub name: String,
    /// What it needs.
    pub needs: Need,
}

/// What an import needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Need {
    /// Nothing: it is always there.
    Nothing,
    /// A grant.
    Grant(Grant),
    /// A newer version of the host.
    NewerHost,
    /// A host that has it: this one does not.
    OtherHost,
}

/// A grant that an import can need.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Grant {
    /// `grants.state`.
    State,
    /// `grants.config`.
    Config,
    /// `grants.http`.
    Http,
}

impl fmt::Display for Grant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::State => "grants.state",
            Self::Config => "grants.config",
            Self::Http => "grants.http",
        })
    }
}

impl Grant {
    /// A line that gives it, for the config.
    fn example(self) -> &'static str {
        match self {
            Self::State => "grants = { state = true }",
            Self::Config => "grants = { config = { name = \"value\" } }",
            Self::Http => "grants = { http = [\"https://example.com\"] }",
        }
    }
}

/// The bytes are no component.
#[derive(Debug, thiserror::Error)]
pub enum InspectError {
    /// They are a core module.
    #[error(
        "this is a core WebAssembly module, not a component: build it for wasm32-wasip2, or make a component of it with `tidegate build`"
    )]
    CoreModule,
    /// They are no WebAssembly.
    #[error("this is no WebAssembly component: {0}")]
    Invalid(String),
}

/// Why a component may not run here.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It exports no handler.
    #[error(
        "the component exports no tidegate:plugin/handler@0.1.0, but {}: build it for the world `consumer` of tidegate:plugin", list(.exports)
    )]
    NoHandler {
        /// What it exports.
        exports: Vec<String>,
    },
    /// It was built for a newer contract.
    #[error(
        "the component needs {name}, and this host speaks tidegate:plugin@0.1: update the host, or build for the older contract"
    )]
    ContractNewer {
        /// The import or export.
        name: String,
    },
    /// An import is not granted.
    #[error("the component imports {import}, which needs {grant}: add `{}` to its consumer", .grant.example())]
    NotGranted {
        /// The import.
        import: String,
        /// What it needs.
        grant: Grant,
    },
    /// An import is known and not served yet.
    #[error(
        "the component imports {import}, and {grant} is not available in this version: build the plugin without it"
    )]
    NotAvailable {
        /// The import.
        import: String,
        /// What it will need.
        grant: Grant,
    },
    /// An import is unknown.
    #[error("the component imports {import}, which this host does not have, and no grant gives it")]
    Unknown {
        /// The import.
        import: String,
    },
}

fn list(names: &[String]) -> String {
    match names {
        [] => "nothing".to_owned(),
        names => names.join(", "),
    }
}

/// Says what a component is and asks for.
///
/// # Errors
/// [`InspectError`] if the bytes are no component.
pub fn inspect(bytes: &[u8]) -> Result<Inspection, InspectError> {
    // Of something that is no Wasm at all the parser shows the bytes, one per line.
    let invalid = |error: wasmparser::BinaryReaderError| {
        let text = error
            .message()
            .lines()
            .next()
            .unwrap_or_default()
            .trim_end_matches([' ', '-', '=', '[']);
        InspectError::Invalid(format!("{text} (at offset 0x{:x})", error.offset()))
    };
    let mut found = Inspection {
        digest: digest(bytes),
        size: bytes.len() as u64,
        contract: None,
        exports: Vec::new(),
        imports: Vec::new(),
        grants: BTreeSet::new(),
        memory_at_start: 0,
        has_names: false,
    };
    let mut depth = 0_usize;
    for payload in Parser::new(0).parse_all(bytes) {
        match payload.map_err(invalid)? {
            Payload::Version { encoding, .. } => {
                if depth == 0 && encoding == Encoding::Module {
                    return Err(InspectError::CoreModule);
                }
                depth += 1;
            }
            Payload::End(_) => depth = depth.saturating_sub(1),
            Payload::ComponentImportSection(section) if depth == 1 => {
                for import in section {
                    found.import(import.map_err(invalid)?.name.name);
                }
            }
            Payload::ComponentExportSection(section) if depth == 1 => {
                for export in section {
                    found.export(export.map_err(invalid)?.name.name);
                }
            }
            Payload::MemorySection(section) => {
                for memory in section {
                    let pages = memory.map_err(invalid)?.initial;
                    found.memory_at_start = found.memory_at_start.saturating_add(pages.saturating_mul(WASM_PAGE));
                }
            }
            Payload::CustomSection(section) if depth > 1 && section.name() == "name" => {
                found.has_names = true;
            }
            _ => {}
        }
    }
    Ok(found)
}

impl Inspection {
    fn import(&mut self, name: &str) {
        let needs = need(name);
        if let Need::Grant(grant) = needs {
            self.grants.insert(grant);
        }
        self.imports.push(Import {
            name: name.to_owned(),
            needs,
        });
    }

    fn export(&mut self, name: &str) {
        if let Some((package, interface, version)) = parts(name)
            && package == CONTRACT
            && interface == HANDLER
        {
            self.contract = Some(version.to_owned());
        }
        self.exports.push(name.to_owned());
    }

    /// Whether the component may run with these grants.
    ///
    /// # Errors
    /// The first [`Refusal`], if there is any.
    pub fn check(&self, grants: &Grants) -> Result<(), Refusal> {
        match &self.contract {
            Some(version) if speaks(version) => {}
            Some(version) => {
                return Err(Refusal::ContractNewer {
                    name: format!("{CONTRACT}/{HANDLER}@{version}"),
                });
            }
            None => {
                return Err(Refusal::NoHandler {
                    exports: self.exports.clone(),
                });
            }
        }
        self.imports.iter().try_for_each(|import| import.check(grants))
    }
}

impl Import {
    fn check(&self, grants: &Grants) -> Result<(), Refusal> {
        let import = self.name.clone();
        match self.needs {
            Need::Nothing => Ok(()),
            Need::Grant(Grant::State) if grants.state => Ok(()),
            Need::Grant(Grant::Config) if grants.config.is_some() => Ok(()),
            Need::Grant(grant @ Grant::Http) => Err(Refusal::NotAvailable { import, grant }),
            Need::Grant(grant) => Err(Refusal::NotGranted { import, grant }),
            Need::NewerHost => Err(Refusal::ContractNewer { name: import }),
            Need::OtherHost => Err(Refusal::Unknown { import }),
        }
    }
}

/// What an import needs, by its name.
fn need(name: &str) -> Need {
    let Some((package, interface, version)) = parts(name) else {
        return Need::OtherHost;
    };
    match (package, interface, version) {
        (CONTRACT, "types" | "outbox" | "context", version) if speaks(version) => Need::Nothing,
        (CONTRACT, _, version) if is_newer(version) => Need::NewerHost,
        ("wasi:keyvalue", "store" | "atomics" | "batch", "0.2.0-draft" | "0.2.0-draft2") => Need::Grant(Grant::State),
        ("wasi:config", "store", "0.2.0-rc.1") => Need::Grant(Grant::Config),
        ("wasi:logging", "logging", "0.1.0-draft") => Need::Nothing,
        ("wasi:http", _, _) => Need::Grant(Grant::Http),
        // With no folder and no network: a guest's standard library imports these whether or not it uses them.
        ("wasi:io" | "wasi:clocks" | "wasi:random" | "wasi:cli" | "wasi:filesystem" | "wasi:sockets", _, version)
            if version.starts_with("0.2.") =>
        {
            Need::Nothing
        }
        _ => Need::OtherHost,
    }
}

/// `namespace:package`, interface and version of a name.
fn parts(name: &str) -> Option<(&str, &str, &str)> {
    let (path, version) = name.split_once('@')?;
    let (package, interface) = path.split_once('/')?;
    Some((package, interface, version))
}

/// Before 1.0, a new minor version is another contract.
fn speaks(version: &str) -> bool {
    major_minor(version) == Some(CONTRACT_VERSION)
}

fn is_newer(version: &str) -> bool {
    major_minor(version).is_some_and(|version| version > CONTRACT_VERSION)
}

fn major_minor(version: &str) -> Option<(u64, u64)> {
    let mut numbers = version.splitn(3, '.');
    let mut number = || numbers.next()?.parse().ok();
    Some((number()?, number()?))
}

/// `sha256:` and 64 hex digits.
fn digest(bytes: &[u8]) -> String {
    let hex = Sha256::digest(bytes)
        .iter()
        .fold(String::with_capacity(64), |mut hex, byte| {
            for nibble in [byte >> 4, byte & 15] {
                hex.extend(char::from_digit(u32::from(nibble), 16));
            }
            hex
        });
    format!("sha256:{hex}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_import_needs_what_its_name_says() {
        let check = |name, needs| assert_eq!(need(name), needs, "{name}");
        check("tidegate:plugin/outbox@0.1.0", Need::Nothing);
        check("tidegate:plugin/outbox@0.1.7", Need::Nothing);
        check("tidegate:plugin/outbox@0.2.0", Need::NewerHost);
        check("tidegate:plugin/outbox@1.0.0", Need::NewerHost);
        check("tidegate:plugin/secrets@0.1.0", Need::OtherHost);
        check("wasi:keyvalue/store@0.2.0-draft", Need::Grant(Grant::State));
        check("wasi:keyvalue/atomics@0.2.0-draft2", Need::Grant(Grant::State));
        check("wasi:keyvalue/store@0.3.0", Need::OtherHost);
        check("wasi:config/store@0.2.0-rc.1", Need::Grant(Grant::Config));
        check("wasi:http/outgoing-handler@0.2.4", Need::Grant(Grant::Http));
        check("wasi:cli/exit@0.2.6", Need::Nothing);
        check("wasi:cli/exit@0.3.0", Need::OtherHost);
        check("acme:secrets/store", Need::OtherHost);
        check("emit", Need::OtherHost);
    }

    #[test]
    fn a_core_module_is_told_from_what_is_no_wasm() {
        let module = b"\0asm\x01\0\0\0";
        assert!(matches!(inspect(module), Err(InspectError::CoreModule)));
        assert!(matches!(inspect(b"hello"), Err(InspectError::Invalid(_))));
        assert!(matches!(inspect(b""), Err(InspectError::Invalid(_))));
    }

    #[test]
    fn an_empty_component_exports_no_handler() {
        let found = inspect(b"\0asm\x0d\0\x01\0").unwrap();
        assert_eq!(found.size, 8);
        let refusal = found.check(&Grants::default()).unwrap_err();
        assert!(refusal.to_string().contains("but nothing"), "{refusal}");
    }

    #[test]
    fn the_digest_is_that_of_sha256sum() {
        let empty = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(digest(b""), empty);
    }
}
