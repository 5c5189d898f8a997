//! Reading an event, building a draft.

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::{Draft, EmitError, Event, Extension, Failure, host};

impl Event {
    /// The data, read as JSON.
    ///
    /// # Errors
    /// [`Failure::Permanent`]: the event will not be another the next time.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, Failure> {
        serde_json::from_slice(&self.data).map_err(Failure::from)
    }

    /// The value of an extension attribute.
    #[must_use]
    pub fn extension(&self, name: &str) -> Option<&str> {
        value(&self.extensions, name)
    }
}

/// An event with nothing in it: in tests, name the fields that matter and take the rest from here.
impl Default for Event {
    fn default() -> Self {
        Self {
            id: "1".into(),
            source: "/test".into(),
            kind: "test".into(),
            subject: None,
            time: None,
            datacontenttype: None,
            dataschema: None,
            extensions: Vec::new(),
            data: Vec::new(),
        }
    }
}

impl Draft {
    /// An event of this type, with nothing else in it. The host gives it its id, source and time.
    #[must_use]
    pub fn new(kind: impl Into<String>) -> Self {
        Self {
            kind: kind.into(),
            subject: None,
            datacontenttype: None,
            dataschema: None,
            extensions: Vec::new(),
            data: Vec::new(),
        }
    }

    /// Sets `subject`: what the event is about, and by default the key that keeps events in order.
    #[must_use]
    pub fn subject(mut self, subject: impl Into<String>) -> Self {
        self.subject = Some(subject.into());
        self
    }

    /// Sets `dataschema`.
    #[must_use]
    pub fn dataschema(mut self, uri: impl Into<String>) -> Self {
        self.dataschema = Some(uri.into());
        self
    }

    /// Adds an extension attribute; its name is `[a-z0-9]+`.
    #[must_use]
    pub fn extension(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.extensions.push(Extension {
            name: name.into(),
            value: value.into(),
        });
        self
    }

    /// Sets the data and its media type.
    #[must_use]
    pub fn data(mut self, datacontenttype: impl Into<String>, data: impl Into<Vec<u8>>) -> Self {
        self.datacontenttype = Some(datacontenttype.into());
        self.data = data.into();
        self
    }

    /// Sets the data to a value, as `application/json`.
    ///
    /// # Errors
    /// [`Failure::Permanent`] if the value can't be written as JSON (a map whose keys are no strings).
    pub fn json<T: Serialize + ?Sized>(self, value: &T) -> Result<Self, Failure> {
        let data = serde_json::to_vec(value)
            .map_err(|error| Failure::permanent(format!("draft can't be written as JSON: {error}")))?;
        Ok(self.data("application/json", data))
    }

    /// The data, read as JSON: for tests that look at what was emitted.
    ///
    /// # Errors
    /// [`Failure::Permanent`] if it is something else.
    pub fn read_json<T: DeserializeOwned>(&self) -> Result<T, Failure> {
        serde_json::from_slice(&self.data).map_err(Failure::from)
    }

    /// Emits it: it is published after the handler has returned `Ok`, or never. Returns the id that it will have.
    ///
    /// # Errors
    /// [`EmitError`] if it was not taken; `?` makes the fitting [`Failure`] of it.
    pub fn emit(&self) -> Result<String, EmitError> {
        host::emit(self)
    }
}

fn value<'a>(extensions: &'a [Extension], name: &str) -> Option<&'a str> {
    extensions
        .iter()
        .find(|extension| extension.name == name)
        .map(|extension| extension.value.as_str())
}
