//! The one place that knows which host answers: the real one in a component, the recorder natively.

#[cfg(not(target_arch = "wasm32"))]
pub(crate) use crate::testing::host::*;
#[cfg(target_arch = "wasm32")]
pub(crate) use component::*;

#[cfg(target_arch = "wasm32")]
mod component {
    use crate::bindings::tidegate::plugin as contract;
    use crate::bindings::wasi::config::store as config;
    use crate::bindings::wasi::keyvalue::{atomics, store};
    use crate::bindings::wasi::logging::logging;
    use crate::log::Level;
    use crate::{Attempt, Draft, EmitError, state};

    pub(crate) fn emit(draft: &Draft) -> Result<String, EmitError> {
        contract::outbox::emit(draft)
    }

    pub(crate) fn context() -> Attempt {
        contract::context::current()
    }

    pub(crate) fn log(level: Level, context: &str, message: &str) {
        logging::log(level, context, message);
    }

    pub(crate) fn config_get(key: &str) -> Result<Option<String>, String> {
        config::get(key).map_err(|error| match error {
            config::Error::Upstream(reason) | config::Error::Io(reason) => reason,
        })
    }

    #[derive(Debug)]
    pub(crate) struct Bucket(store::Bucket);

    impl Bucket {
        pub(crate) fn open(name: &str) -> Result<Self, state::Error> {
            store::open(name).map(Self).map_err(refused)
        }

        pub(crate) fn get(&self, key: &str) -> Result<Option<Vec<u8>>, state::Error> {
            self.0.get(key).map_err(refused)
        }

        pub(crate) fn set(&self, key: &str, value: &[u8]) -> Result<(), state::Error> {
            self.0.set(key, value).map_err(refused)
        }

        pub(crate) fn delete(&self, key: &str) -> Result<(), state::Error> {
            self.0.delete(key).map_err(refused)
        }

        pub(crate) fn exists(&self, key: &str) -> Result<bool, state::Error> {
            self.0.exists(key).map_err(refused)
        }

        pub(crate) fn increment(&self, key: &str, delta: i64) -> Result<i64, state::Error> {
            atomics::increment(&self.0, key, delta).map_err(refused)
        }

        pub(crate) fn list(&self, cursor: Option<String>) -> Result<(Vec<String>, Option<String>), state::Error> {
            let page = self.0.list_keys(cursor.as_deref()).map_err(refused)?;
            Ok((page.keys, page.cursor))
        }
    }

    fn refused(error: store::Error) -> state::Error {
        match error {
            store::Error::AccessDenied => state::Error::Denied,
            store::Error::NoSuchStore => state::Error::Other("no such bucket".into()),
            store::Error::Other(reason) => state::Error::Other(reason),
        }
    }
}
