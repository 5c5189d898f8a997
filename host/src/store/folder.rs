//! The folder around the engine's files: who owns it, which format it has, how the last stop went.
//!
//! The engine makes a new database wherever its own version file is absent, which would turn a damaged folder into an empty
//! one without a word. So a file of ours says what must be there, and a folder that has something but not that is refused.

use std::cmp::Ordering;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use super::tables::damaged;
use super::{Error, sync_folder};

/// The format that this version writes, and the only one it reads. 2: what one write emits is one row of the outbox.
pub(super) const FORMAT: u32 = 2;

const STATE_FILE: &str = "tidegate-store";
const LOCK_FILE: &str = "lock";
const DATABASE: &str = "database";
const TITLE: &str = "tidegate store";

/// A folder that this process owns until it is dropped.
pub(super) struct Folder {
    path: PathBuf,
    // Held for its lock, which the system takes back even from a killed process.
    _lock: File,
}

/// How the last stop went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// Nothing was ever committed here.
    New,
    /// The last owner did not close it.
    Open,
    /// It was closed when this was the next number to give out.
    Closed(u64),
}

impl Folder {
    /// Takes a folder, which is made if it is absent.
    pub(super) fn lock(path: &Path) -> Result<Self, Error> {
        make(path).map_err(|error| Error::io("make the folder", &error))?;
        if !path.join(STATE_FILE).exists() && !is_empty(path)? {
            return Err(damaged(
                path,
                &format!("it is not empty, and its file {STATE_FILE} is missing"),
            ));
        }
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(path.join(LOCK_FILE))
            .map_err(|error| Error::io("open the lock file", &error))?;
        match lock.try_lock() {
            Ok(()) => Ok(Self {
                path: path.to_owned(),
                _lock: lock,
            }),
            Err(TryLockError::WouldBlock) => Err(Error::Locked(path.display().to_string())),
            Err(TryLockError::Error(error)) => Err(Error::io("lock the folder", &error)),
        }
    }

    /// Where the engine's files are.
    pub(super) fn database(&self) -> PathBuf {
        self.path.join(DATABASE)
    }

    /// Reads how the last stop went. A folder whose making was cut short is made ready to be made again: nothing was ever
    /// committed to it.
    pub(super) fn begin(&mut self) -> Result<Found, Error> {
        let found = self.read()?;
        if found != Found::New {
            return Ok(found);
        }
        match fs::remove_dir_all(self.database()) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                return Err(Error::io("clear the folder", &error));
            }
            _ => {}
        }
        self.write("new")?;
        Ok(found)
    }

    /// Checks that nothing that was there at a clean stop is gone.
    pub(super) fn check(&self, found: Found, next: u64) -> Result<(), Error> {
        match found {
            Found::Closed(noted) if noted != next => Err(damaged(
                &self.path,
                &format!("it was closed at {noted}, and what is there ends at {next}"),
            )),
            _ => Ok(()),
        }
    }

    /// From here on, a stop that does not come to [`Self::closed`] was a crash.
    pub(super) fn opened(&mut self) -> Result<(), Error> {
        self.write("open")
    }

    /// The stop was a clean one. Everything before it must be durable.
    pub(super) fn closed(&mut self, next: u64) -> Result<(), Error> {
        self.write(&format!("closed {next}"))
    }

    fn read(&self) -> Result<Found, Error> {
        let text = match fs::read_to_string(self.path.join(STATE_FILE)) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Found::New),
            Err(error) if error.kind() == ErrorKind::InvalidData => return Err(self.garbled()),
            Err(error) => return Err(Error::io("read the state file", &error)),
        };
        let mut lines = text.lines();
        if lines.next() != Some(TITLE) {
            return Err(self.garbled());
        }
        let format = lines
            .next()
            .and_then(|line| line.strip_prefix("format "))
            .and_then(|format| format.parse().ok())
            .ok_or_else(|| self.garbled())?;
        self.check_format(format)?;
        lines.next().and_then(parse_state).ok_or_else(|| self.garbled())
    }

    fn check_format(&self, found: u32) -> Result<(), Error> {
        let folder = || self.path.display().to_string();
        let known = FORMAT;
        match found.cmp(&known) {
            Ordering::Equal => Ok(()),
            Ordering::Less => Err(Error::Older {
                folder: folder(),
                found,
                known,
            }),
            Ordering::Greater => Err(Error::Newer {
                folder: folder(),
                found,
                known,
            }),
        }
    }

    fn garbled(&self) -> Error {
        damaged(&self.path, &format!("its file {STATE_FILE} is garbled"))
    }

    /// Replaces the state file whole: a crash leaves the old one or the new one.
    fn write(&self, state: &str) -> Result<(), Error> {
        let new = self.path.join(format!("{STATE_FILE}.new"));
        let write = || {
            let mut file = File::create(&new)?;
            writeln!(file, "{TITLE}\nformat {FORMAT}\n{state}")?;
            file.sync_all()?;
            fs::rename(&new, self.path.join(STATE_FILE))?;
            sync_folder(&self.path)
        };
        write().map_err(|error| Error::io("write the state file", &error))
    }
}

/// Makes a folder and those above it, so that a power cut leaves them. What a start that was cut short may have made is synced, too.
fn make(path: &Path) -> std::io::Result<()> {
    if path.join(STATE_FILE).exists() {
        return Ok(());
    }
    let is_absent = |folder: &&Path| !folder.as_os_str().is_empty() && !folder.exists();
    let absent = path.ancestors().take_while(is_absent).count();
    fs::create_dir_all(path)?;
    for made in path.ancestors().take(absent.max(1)) {
        match made.parent() {
            Some(above) if above.as_os_str().is_empty() => keep(Path::new("."))?,
            Some(above) => keep(above)?,
            None => {}
        }
    }
    Ok(())
}

/// Who may write a folder and not read it can't sync it: most file systems keep a name with what is synced below it all the same.
fn keep(folder: &Path) -> std::io::Result<()> {
    match sync_folder(folder) {
        Err(error) if error.kind() == ErrorKind::PermissionDenied => Ok(()),
        other => other,
    }
}

fn parse_state(line: &str) -> Option<Found> {
    match line {
        "new" => Some(Found::New),
        "open" => Some(Found::Open),
        line => line.strip_prefix("closed ")?.parse().ok().map(Found::Closed),
    }
}

/// Whether a folder holds nothing but what a first start that was cut short leaves.
fn is_empty(path: &Path) -> Result<bool, Error> {
    let ours = [LOCK_FILE.to_owned(), format!("{STATE_FILE}.new")];
    for entry in fs::read_dir(path).map_err(|error| Error::io("read the folder", &error))? {
        let entry = entry.map_err(|error| Error::io("read the folder", &error))?;
        if !ours.iter().any(|name| entry.file_name() == name.as_str()) {
            return Ok(false);
        }
    }
    Ok(true)
}
