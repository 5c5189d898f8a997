//! The recorder's answers to what a plugin calls.

use std::ops::Bound;

use super::{RECORDER, State};
use crate::log::Level;
use crate::{Attempt, Draft, EmitError, state};

/// Small, so that tests of a dozen keys see more than one page.
const PAGE_KEYS: usize = 4;
/// Bytes of a key and of a bucket's name, as in the real host.
const KEY_BYTES_MAX: usize = 1024;
const BUCKET_BYTES_MAX: usize = 255;

pub(crate) fn emit(draft: &Draft) -> Result<String, EmitError> {
    RECORDER.with_borrow_mut(|recorder| {
        if let Some(error) = recorder.refusal.clone() {
            return Err(error);
        }
        if draft.kind.is_empty() {
            return Err(EmitError::Invalid("type is empty".into()));
        }
        recorder.emitted.push(draft.clone());
        Ok(format!("test-{}", recorder.emitted.len()))
    })
}

pub(crate) fn context() -> Attempt {
    RECORDER.with_borrow(|recorder| recorder.context.clone())
}

pub(crate) fn log(level: Level, _context: &str, message: &str) {
    RECORDER.with_borrow_mut(|recorder| recorder.logged.push((level, message.into())));
}

#[expect(clippy::unnecessary_wraps, reason = "the host's own answer can fail")]
pub(crate) fn config_get(key: &str) -> Result<Option<String>, String> {
    Ok(RECORDER.with_borrow(|recorder| recorder.config.get(key).cloned()))
}

#[derive(Debug)]
pub(crate) struct Bucket(String);

impl Bucket {
    pub(crate) fn open(name: &str) -> Result<Self, state::Error> {
        match name.len() {
            0 => Ok(Self("default".into())),
            1..=BUCKET_BYTES_MAX => Ok(Self(name.into())),
            bytes => Err(refused(format!(
                "a bucket's name has up to {BUCKET_BYTES_MAX} bytes, not {bytes}"
            ))),
        }
    }

    pub(crate) fn get(&self, key: &str) -> Result<Option<Vec<u8>>, state::Error> {
        check(key)?;
        Ok(self.with(|state| state.get(key).cloned()))
    }

    pub(crate) fn set(&self, key: &str, value: &[u8]) -> Result<(), state::Error> {
        check(key)?;
        self.with(|state| state.insert(key.into(), value.into()));
        Ok(())
    }

    pub(crate) fn delete(&self, key: &str) -> Result<(), state::Error> {
        check(key)?;
        self.with(|state| state.remove(key));
        Ok(())
    }

    pub(crate) fn exists(&self, key: &str) -> Result<bool, state::Error> {
        check(key)?;
        Ok(self.with(|state| state.contains_key(key)))
    }

    /// A counter is its decimal text and saturates, as in the real host.
    pub(crate) fn increment(&self, key: &str, delta: i64) -> Result<i64, state::Error> {
        check(key)?;
        self.with(|state| {
            let sum = counter(state, key)?.saturating_add(delta);
            state.insert(key.into(), sum.to_string().into());
            Ok(sum)
        })
    }

    #[expect(clippy::unnecessary_wraps, reason = "the host's own answer can fail")]
    pub(crate) fn list(&self, cursor: Option<String>) -> Result<(Vec<String>, Option<String>), state::Error> {
        let from = cursor.map_or(Bound::Unbounded, Bound::Excluded);
        let keys: Vec<String> = self.with(|state| {
            let rest = state.range((from, Bound::Unbounded));
            rest.take(PAGE_KEYS).map(|(key, _)| key.clone()).collect()
        });
        let cursor = keys.last().filter(|_| keys.len() == PAGE_KEYS).cloned();
        Ok((keys, cursor))
    }

    fn with<T>(&self, act: impl FnOnce(&mut State) -> T) -> T {
        RECORDER.with_borrow_mut(|recorder| act(recorder.state.entry(self.0.clone()).or_default()))
    }
}

fn check(key: &str) -> Result<(), state::Error> {
    match key.len() {
        1..=KEY_BYTES_MAX => Ok(()),
        bytes => Err(refused(format!("a key has 1 to {KEY_BYTES_MAX} bytes, not {bytes}"))),
    }
}

fn refused(reason: String) -> state::Error {
    state::Error::Other(reason)
}

fn counter(state: &State, key: &str) -> Result<i64, state::Error> {
    let Some(value) = state.get(key) else {
        return Ok(0);
    };
    let text = std::str::from_utf8(value).ok();
    text.and_then(|text| text.parse().ok())
        .ok_or_else(|| refused(format!("\"{key}\" holds no counter")))
}
