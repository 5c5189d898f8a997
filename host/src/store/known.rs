//! What memory knows of a bucket, in a file beside the engine's, so that a start need not read the bucket's rows for it.
//!
//! A file is written only when the bucket is closed: a newer one is durable, so that nothing is added any more, in this process or another.
//! One that is absent, or not as it was written, costs a start some seconds of reading. One that knew less than its bucket holds would let
//! events take effect twice, which is why [`Shelf::keep_only`] stands at the beginning of each start.

use std::fs::{self, File};
use std::io::{self, BufWriter, ErrorKind, Write};
use std::path::{Path, PathBuf};

use xxhash_rust::xxh3::{Xxh3, xxh3_64};

use super::sync_folder;

/// How a file begins: a later format has another number. 1: filters of fastbloom 0.17 with six hashes.
const MAGIC: [u8; 8] = *b"tgknown1";
/// What stands for a number of open records that are too many to be known.
const TOO_MANY: u64 = u64::MAX;

/// What there is to know of a bucket.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Known {
    /// The words of its filters.
    pub(super) filters: Vec<Vec<u64>>,
    /// The records that were not over when they were written; `None` if they are too many.
    pub(super) open: Option<Vec<[u8; 16]>>,
}

/// The folder of these files. A file has the name of its bucket: when it began.
pub(super) struct Shelf(PathBuf);

impl Shelf {
    /// Beside this database.
    pub(super) fn beside(database: &Path) -> Self {
        Self(database.with_file_name("known"))
    }

    /// Removes all files but those of these buckets, durably.
    ///
    /// # Errors
    /// The disk refuses.
    pub(super) fn keep_only(&self, buckets: &[u64]) -> io::Result<()> {
        let files = match fs::read_dir(&self.0) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            files => files?,
        };
        for file in files {
            let file = file?;
            if !buckets
                .iter()
                .any(|start| file.file_name() == start.to_string().as_str())
            {
                fs::remove_file(file.path())?;
            }
        }
        // Also if nothing was there to remove: a start that removed it may have ended before it came to this.
        sync_folder(&self.0)
    }

    /// Writes a bucket's file; whole or not at all.
    ///
    /// # Errors
    /// The disk is full or refuses.
    pub(super) fn write(&self, start: u64, known: &Known) -> io::Result<()> {
        fs::create_dir_all(&self.0)?;
        let new = self.0.join(format!("{start}.new"));
        let mut file = Summed::new(BufWriter::new(File::create(&new)?));
        file.put(&MAGIC)?;
        file.number(start)?;
        file.number(known.open.as_ref().map_or(TOO_MANY, |open| open.len() as u64))?;
        for key in known.open.iter().flatten() {
            file.put(key)?;
        }
        for filter in &known.filters {
            file.number(filter.len() as u64)?;
            for word in filter {
                file.number(*word)?;
            }
        }
        file.end()?
            .into_inner()
            .map_err(io::IntoInnerError::into_error)?
            .sync_all()?;
        fs::rename(new, self.path(start))?;
        sync_folder(&self.0)
    }

    /// Reads a bucket's file; nothing if there is none, or it is not as it was written.
    ///
    /// # Errors
    /// The disk refuses.
    pub(super) fn read(&self, start: u64) -> io::Result<Option<Known>> {
        match fs::read(self.path(start)) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            bytes => Ok(parse(start, &bytes?)),
        }
    }

    /// Removes a bucket's file, if there is one, durably: where the clock is set back, there may be another bucket that began then.
    ///
    /// # Errors
    /// The disk refuses.
    pub(super) fn remove(&self, start: u64) -> io::Result<()> {
        match fs::remove_file(self.path(start)) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            removed => removed.and_then(|()| sync_folder(&self.0)),
        }
    }

    fn path(&self, start: u64) -> PathBuf {
        self.0.join(start.to_string())
    }
}

fn parse(start: u64, bytes: &[u8]) -> Option<Known> {
    let (bytes, sum) = bytes.split_last_chunk()?;
    if xxh3_64(bytes) != u64::from_le_bytes(*sum) {
        return None;
    }
    let mut rest = bytes.strip_prefix(&MAGIC)?;
    if number(&mut rest)? != start {
        return None;
    }
    let open = match number(&mut rest)? {
        TOO_MANY => None,
        count => Some(many(&mut rest, count, |key: [u8; 16]| key)?),
    };
    let mut filters = Vec::new();
    while !rest.is_empty() {
        let words = number(&mut rest)?;
        filters.push(many(&mut rest, words, u64::from_le_bytes)?);
    }
    Some(Known { filters, open })
}

fn number(rest: &mut &[u8]) -> Option<u64> {
    let (number, after) = rest.split_first_chunk()?;
    *rest = after;
    Some(u64::from_le_bytes(*number))
}

fn many<const N: usize, T>(rest: &mut &[u8], count: u64, each: impl Fn([u8; N]) -> T) -> Option<Vec<T>> {
    let bytes = usize::try_from(count).ok()?.checked_mul(N)?;
    let (these, after) = rest.split_at_checked(bytes)?;
    *rest = after;
    let (chunks, _) = these.as_chunks::<N>();
    Some(chunks.iter().copied().map(each).collect())
}

/// A file that ends with the hash of all that was put in before.
struct Summed<W> {
    file: W,
    sum: Xxh3,
}

impl<W: Write> Summed<W> {
    fn new(file: W) -> Self {
        Self { file, sum: Xxh3::new() }
    }

    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.sum.update(bytes);
        self.file.write_all(bytes)
    }

    fn number(&mut self, number: u64) -> io::Result<()> {
        self.put(&number.to_le_bytes())
    }

    fn end(mut self) -> io::Result<W> {
        let sum = self.sum.digest();
        self.file.write_all(&sum.to_le_bytes())?;
        Ok(self.file)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(open: Option<Vec<[u8; 16]>>) -> Known {
        Known {
            filters: vec![vec![1, u64::MAX, 3], vec![7; 6]],
            open,
        }
    }

    #[test]
    fn what_was_written_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let shelf = Shelf::beside(&folder.path().join("database"));
        for known in [
            known(None),
            known(Some(Vec::new())),
            known(Some(vec![[1; 16], [2; 16]])),
        ] {
            shelf.write(5, &known).unwrap();
            assert_eq!(shelf.read(5).unwrap(), Some(known));
        }
        assert_eq!(shelf.read(6).unwrap(), None);
    }

    #[test]
    fn a_file_that_is_damaged_or_of_another_bucket_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let shelf = Shelf::beside(&folder.path().join("database"));
        shelf.write(5, &known(Some(vec![[1; 16]]))).unwrap();
        let path = folder.path().join("known/5");
        let whole = fs::read(&path).unwrap();
        for length in 0..whole.len() {
            fs::write(&path, &whole[..length]).unwrap();
            assert_eq!(shelf.read(5).unwrap(), None, "cut to {length}");
        }
        for at in 0..whole.len() {
            let mut bytes = whole.clone();
            bytes[at] ^= 1;
            fs::write(&path, bytes).unwrap();
            assert_eq!(shelf.read(5).unwrap(), None, "byte {at}");
        }
        fs::write(folder.path().join("known/6"), &whole).unwrap();
        assert_eq!(shelf.read(6).unwrap(), None);
    }

    #[test]
    fn only_files_of_these_buckets_are_kept() {
        let folder = tempfile::tempdir().unwrap();
        let shelf = Shelf::beside(&folder.path().join("database"));
        shelf.keep_only(&[]).unwrap();
        for start in [4, 5, 6] {
            shelf.write(start, &known(None)).unwrap();
        }
        fs::write(folder.path().join("known/5.new"), "half").unwrap();
        shelf.keep_only(&[5]).unwrap();
        let names = fs::read_dir(folder.path().join("known")).unwrap();
        let names: Vec<_> = names.map(|file| file.unwrap().file_name()).collect();
        assert_eq!(names, ["5"]);
        shelf.remove(5).unwrap();
        shelf.remove(5).unwrap();
        assert_eq!(shelf.read(5).unwrap(), None);
    }
}
