//! The host of native tests: a recorder per thread, so that tests do not see each other.
//!
//! ```
//! # use tidegate_plugin::{Draft, Event, Failure};
//! # fn handle(event: Event) -> Result<(), Failure> {
//! #     Draft::new("com.example.seen").emit()?;
//! #     Ok(())
//! # }
//! use tidegate_plugin::testing;
//!
//! testing::reset();
//! testing::deliver(handle, testing::event("com.example.order.placed", r#"{"id":"o-1"}"#)).unwrap();
//! assert_eq!(testing::emitted()[0].kind, "com.example.seen");
//! ```

use std::cell::RefCell;
use std::collections::BTreeMap;

use crate::log::Level;
use crate::{Attempt, Draft, EmitError, Event, Failure};

pub(crate) mod host;

/// The keys and values of one bucket.
pub type State = BTreeMap<String, Vec<u8>>;

#[derive(Clone)]
struct Recorder {
    emitted: Vec<Draft>,
    refusal: Option<EmitError>,
    state: BTreeMap<String, State>,
    config: BTreeMap<String, String>,
    logged: Vec<(Level, String)>,
    context: Attempt,
}

impl Default for Recorder {
    fn default() -> Self {
        Self {
            emitted: Vec::new(),
            refusal: None,
            state: BTreeMap::new(),
            config: BTreeMap::new(),
            logged: Vec::new(),
            context: Attempt {
                consumer: "test".into(),
                attempt: 1,
                remaining_ms: 2_000,
                idempotency_key: "test-1".into(),
                key: String::new(),
                revision: format!("sha256:{}", "0".repeat(64)),
            },
        }
    }
}

thread_local!(static RECORDER: RefCell<Recorder> = RefCell::default());

/// Forgets everything. A thread that runs several tests begins each with it.
pub fn reset() {
    RECORDER.set(Recorder::default());
}

/// An event of this type with this JSON text for data.
#[must_use]
pub fn event(kind: &str, json: impl Into<Vec<u8>>) -> Event {
    Event {
        kind: kind.into(),
        datacontenttype: Some("application/json".into()),
        data: json.into(),
        ..Event::default()
    }
}

/// Calls a handler as the host does: if it fails, what it emitted and wrote vanishes. What it logged stays.
///
/// # Errors
/// Those of the handler.
pub fn deliver(handle: impl FnOnce(Event) -> Result<(), Failure>, event: Event) -> Result<(), Failure> {
    let (emitted, state) = RECORDER.with_borrow(|recorder| (recorder.emitted.len(), recorder.state.clone()));
    let result = handle(event);
    if result.is_err() {
        RECORDER.with_borrow_mut(|recorder| {
            recorder.emitted.truncate(emitted);
            recorder.state = state;
        });
    }
    result
}

/// What was emitted so far, oldest first. Empties the list.
#[must_use]
pub fn emitted() -> Vec<Draft> {
    RECORDER.with_borrow_mut(|recorder| std::mem::take(&mut recorder.emitted))
}

/// From now on, emits fail with this error.
pub fn refuse_emits(error: EmitError) {
    RECORDER.with_borrow_mut(|recorder| recorder.refusal = Some(error));
}

/// What a bucket holds. To fill one before a test, write to it with [`crate::state`].
#[must_use]
pub fn state(bucket: &str) -> State {
    RECORDER.with_borrow(|recorder| {
        recorder
            .state
            .get(if bucket.is_empty() { "default" } else { bucket })
            .cloned()
            .unwrap_or_default()
    })
}

/// Sets a value that [`crate::config::get`] gives.
pub fn set_config(key: &str, value: &str) {
    RECORDER.with_borrow_mut(|recorder| recorder.config.insert(key.into(), value.into()));
}

/// Changes what [`crate::context()`] gives: `testing::set_context(|context| context.attempt = 3)`.
pub fn set_context(change: impl FnOnce(&mut Attempt)) {
    RECORDER.with_borrow_mut(|recorder| change(&mut recorder.context));
}

/// What was logged so far, oldest first. Empties the list.
#[must_use]
pub fn logged() -> Vec<(Level, String)> {
    RECORDER.with_borrow_mut(|recorder| std::mem::take(&mut recorder.logged))
}
