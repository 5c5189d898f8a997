//! Where tests make a write fail as a bad disk does. Outside tests nothing ever fails here.

use super::Error;

/// What goes wrong with the next write of an engine; gone when the engine is opened anew.
#[derive(Default)]
pub(crate) struct Fault {
    #[cfg(test)]
    next: std::sync::Mutex<Option<Failing>>,
}

/// How a write that is reported failed fails.
#[cfg(test)]
#[derive(Clone, Copy, Debug)]
pub(crate) enum Failing {
    /// Before anything is written.
    Before,
    /// When all is written.
    After,
}

impl Fault {
    /// Does a write, unless it is to fail.
    #[cfg(not(test))]
    #[expect(clippy::unused_self, reason = "it has nothing to say outside tests")]
    pub(super) fn around(&self, write: impl FnOnce() -> Result<(), Error>) -> Result<(), Error> {
        write()
    }

    #[cfg(test)]
    pub(super) fn around(&self, write: impl FnOnce() -> Result<(), Error>) -> Result<(), Error> {
        let failed = || Err(Error::Unavailable("the disk is full".to_owned()));
        match super::lock(&self.next).take() {
            None => write(),
            Some(Failing::Before) => failed(),
            Some(Failing::After) => write().and_then(|()| failed()),
        }
    }

    /// Makes the next write fail.
    #[cfg(test)]
    pub(super) fn next(&self, failing: Failing) {
        *super::lock(&self.next) = Some(failing);
    }
}
