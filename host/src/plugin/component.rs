//! What all consumers that have the same file share: a large one takes longer to read and to map than all else when a host starts, and its
//! compiled code more memory.

use std::collections::HashMap;
use std::fs::Metadata;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::SystemTime;

use super::grants::Inspection;

/// A component as it was in its file, compiled.
pub(super) struct Component {
    pub(super) inspection: Inspection,
    pub(super) code: wasmtime::component::Component,
    stamp: Stamp,
}

/// What of a file changes when it is written anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    pub(super) size: u64,
    /// `None` where the file system does not tell: such a file is always read.
    modified: Option<SystemTime>,
}

impl Stamp {
    /// To be taken before the file is read: one that is written meanwhile is then read again the next time.
    pub(super) fn of(metadata: &Metadata) -> Self {
        Self {
            size: metadata.len(),
            modified: metadata.modified().ok(),
        }
    }
}

/// The components that some plugin has.
#[derive(Default)]
pub(super) struct Components(Mutex<HashMap<PathBuf, Weak<Component>>>);

impl Components {
    /// The component of a file that has not changed since.
    pub(super) fn get(&self, path: &Path, stamp: Stamp) -> Option<Arc<Component>> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let known = all.get(path).and_then(Weak::upgrade)?;
        (known.stamp == stamp && stamp.modified.is_some()).then_some(known)
    }

    /// Makes a component known for as long as a plugin has it.
    pub(super) fn add(
        &self,
        path: &Path,
        stamp: Stamp,
        inspection: Inspection,
        code: wasmtime::component::Component,
    ) -> Arc<Component> {
        let component = Arc::new(Component {
            inspection,
            code,
            stamp,
        });
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|_, known| known.strong_count() > 0);
        all.insert(path.to_owned(), Arc::downgrade(&component));
        component
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugin::inspect;

    const EMPTY: &[u8] = b"\0asm\x0d\0\x01\0";

    fn stamp(size: u64, modified: Option<SystemTime>) -> Stamp {
        Stamp { size, modified }
    }

    fn add(components: &Components, stamp: Stamp) -> Arc<Component> {
        let code = wasmtime::component::Component::from_binary(&wasmtime::Engine::default(), EMPTY).unwrap();
        components.add(Path::new("plugin.wasm"), stamp, inspect(EMPTY).unwrap(), code)
    }

    #[test]
    fn a_file_is_known_until_it_is_written_anew_or_no_plugin_has_it() {
        let (components, path) = (Components::default(), Path::new("plugin.wasm"));
        let written = stamp(8, Some(SystemTime::UNIX_EPOCH));
        let known = add(&components, written);
        assert!(Arc::ptr_eq(&components.get(path, written).unwrap(), &known));
        let later = SystemTime::UNIX_EPOCH + std::time::Duration::from_millis(1);
        for anew in [stamp(9, written.modified), stamp(8, Some(later))] {
            assert!(components.get(path, anew).is_none());
        }
        assert!(components.get(Path::new("other.wasm"), written).is_none());
        drop(known);
        assert!(components.get(path, written).is_none());
    }

    #[test]
    fn a_file_of_which_nobody_knows_when_it_was_written_is_read_each_time() {
        let components = Components::default();
        let _known = add(&components, stamp(8, None));
        assert!(components.get(Path::new("plugin.wasm"), stamp(8, None)).is_none());
    }
}
