//! A look at the engine's journals before it opens them.
//!
//! The engine takes the first entry that it can't read for the torn end of its last write, cuts the journal there and goes on:
//! right after a power cut, but a flipped bit in the middle would silently undo every commit behind it, and events would run
//! again. So we read the journals first, by the same rules, and tell the two apart: at most one write was under way when the
//! host stopped, so behind a tear no whole batch can follow; after a clean stop there is no tear at all. The tail of a torn
//! write is cut here, since the engine refuses some of them.
//!
//! What can't be told from a torn write is damage to the very last batch after an unclean stop.
//!
//! The format is that of fjall 3 (its `journal/entry.rs`): batches of a start (tag 1, count, sequence number), items (tag 2)
//! and an end (tag 3, XXH3 of the items, magic), in numbered files, little-endian, the last one filled up with zeros.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use super::Error;
use super::folder::Found;
use super::tables::damaged;

const MAGIC: &[u8] = b"FJL\x03";

/// Refuses journals with anything missing or damaged; cuts off a write that was never finished.
pub(super) fn check(path: &Path, found: Found) -> Result<(), Error> {
    let journals = list(path)?;
    let Some((_, last)) = journals.last() else {
        return Err(damaged(path, "its journal is missing"));
    };
    // Journals are made with ascending numbers and removed from the oldest on.
    let has_gap = journals
        .iter()
        .zip(journals.iter().skip(1))
        .any(|(a, b)| a.0 + 1 != b.0);
    if has_gap {
        return Err(damaged(path, "one of its journals is missing"));
    }
    for (_, journal) in &journals {
        let may_be_torn = journal == last && found == Found::Open;
        check_one(path, journal, may_be_torn)?;
    }
    Ok(())
}

/// Writes the last journal again as it reads, and syncs it. When a sync fails, the system may drop what it could not write and
/// show it to readers all the same (<https://lwn.net/Articles/752063/>), and a second sync then succeeds: without this, what is
/// found to be durable may be gone after a power cut.
pub(super) fn harden(path: &Path) -> Result<(), Error> {
    let Some((_, journal)) = list(path)?.pop() else {
        return Ok(());
    };
    let again = || {
        let bytes = fs::read(&journal)?;
        let mut file = OpenOptions::new().write(true).open(&journal)?;
        file.write_all(without_padding(&bytes))?;
        file.sync_all()
    };
    again().map_err(|error| Error::io("write a journal again", &error))
}

fn list(path: &Path) -> Result<Vec<(u64, PathBuf)>, Error> {
    let entries = match fs::read_dir(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            return Err(damaged(path, "the folder is missing"));
        }
        other => other.map_err(|error| Error::io("read the folder", &error))?,
    };
    let mut journals = Vec::new();
    for entry in entries {
        let file = entry.map_err(|error| Error::io("read the folder", &error))?.path();
        let number = file.file_stem().and_then(|stem| stem.to_str()?.parse().ok());
        if let (Some(number), true) = (number, file.extension().is_some_and(|ext| ext == "jnl")) {
            journals.push((number, file));
        }
    }
    journals.sort();
    Ok(journals)
}

fn check_one(path: &Path, journal: &Path, may_be_torn: bool) -> Result<(), Error> {
    let bytes = fs::read(journal).map_err(|error| Error::io("read a journal", &error))?;
    let bytes = without_padding(&bytes);
    let mut whole = 0;
    while let Some(length) = bytes.get(whole..).and_then(batch_length) {
        whole += length;
    }
    let rest = bytes.get(whole..).unwrap_or_default();
    if rest.is_empty() {
        return Ok(());
    }
    let name = journal.file_name().unwrap_or_default().to_string_lossy();
    if !may_be_torn || has_batch(rest) {
        let reason = format!("its journal {name} can't be read from byte {whole} on");
        return Err(damaged(path, &reason));
    }
    tracing::warn!(
        journal = %name,
        bytes = rest.len(),
        "cut off the last write, which was never finished"
    );
    cut(journal, whole).map_err(|error| Error::io("cut a journal", &error))
}

fn cut(journal: &Path, length: usize) -> std::io::Result<()> {
    let file: File = OpenOptions::new().write(true).open(journal)?;
    file.set_len(length as u64)?;
    file.sync_all()
}

/// Without the zeros at the end, compared by the block, as there are 64 MiB of them. No batch ends in one.
fn without_padding(mut bytes: &[u8]) -> &[u8] {
    let zeros = [0; 4096];
    while let Some(rest) = bytes.strip_suffix(&zeros) {
        bytes = rest;
    }
    let end = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    bytes.get(..end).unwrap_or_default()
}

/// Whether a whole batch begins anywhere.
pub(super) fn has_batch(bytes: &[u8]) -> bool {
    (0..bytes.len()).any(|at| bytes.get(at..).and_then(batch_length).is_some())
}

/// The length of the whole batch that `bytes` begin with.
pub(super) fn batch_length(bytes: &[u8]) -> Option<usize> {
    let mut rest = Reader(bytes);
    rest.tag(1)?;
    let count = rest.u32()?;
    rest.take(8)?;
    let items = rest.0;
    for _ in 0..count {
        rest.item()?;
    }
    let items = items.get(..items.len() - rest.0.len())?;
    rest.tag(3)?;
    let hash = u64::from_le_bytes(rest.take(8)?.try_into().ok()?);
    let is_whole = rest.take(MAGIC.len())? == MAGIC && hash == xxhash_rust::xxh3::xxh3_64(items);
    is_whole.then(|| bytes.len() - rest.0.len())
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn tag(&mut self, tag: u8) -> Option<()> {
        (self.take(1)? == [tag]).then_some(())
    }

    fn u32(&mut self) -> Option<u32> {
        Some(u32::from_le_bytes(self.take(4)?.try_into().ok()?))
    }

    /// A row (kind, compression, keyspace, lengths of key and value, length of the value as stored, both), or the clearing of a
    /// keyspace.
    fn item(&mut self) -> Option<()> {
        match self.take(1)? {
            [2] => {
                self.take(1 + 1 + 8)?;
                let key = u16::from_le_bytes(self.take(2)?.try_into().ok()?);
                self.take(4)?;
                let value = usize::try_from(self.u32()?).ok()?;
                self.take(usize::from(key).checked_add(value)?).map(|_| ())
            }
            [4] => self.take(8).map(|_| ()),
            _ => None,
        }
    }
}
