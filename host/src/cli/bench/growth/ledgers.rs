//! Ledgers that remember ids already, as that of a host does which has run for the whole retention: an eighth of them in each of the
//! eight buckets of time, the last of which is the present one.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use std::{fs, io};

use anyhow::{Context, bail, ensure};
use tokio::time::interval;
use xxhash_rust::xxh3::xxh3_128;

use crate::cli::complain;
use crate::clock::{Clock, Timestamp};
use crate::event::key::LaneKey;
use crate::ledger::embedded::{self, Embedded};
use crate::ledger::{Change, Effects, Entry, Known, Ledger, PayloadHash, RecordKey};
use crate::plan::{self, LedgerPlace, Name};
use crate::store::{Settings, Store};

/// Buckets of the store in one retention.
const BUCKETS: u32 = 8;
/// Ids in one write.
const BATCH: u32 = 10_000;
/// How often a folder is looked at, and how many looks in a row must find it unchanged.
const LOOK: Duration = Duration::from_millis(100);
const LOOKS_QUIET: usize = 10;
/// Looks after which a store is still not done with what was written: a quarter of an hour.
const LOOKS_MAX: usize = 9_000;

/// Filled ledgers, each filled once and copied for each run.
pub(super) struct Ledgers {
    folder: PathBuf,
    filled: BTreeMap<u32, PathBuf>,
}

impl Ledgers {
    /// They will be in `folder`.
    pub(super) fn new(folder: &Path) -> Self {
        Self {
            folder: folder.to_owned(),
            filled: BTreeMap::new(),
        }
    }

    /// Puts a ledger that remembers so many ids where a host will look for its own. Of none, there is none.
    ///
    /// # Errors
    /// The disk is full or refuses.
    pub(super) async fn place(&mut self, ids: u32, plan: &plan::Ledger, clock: &Clock) -> anyhow::Result<()> {
        if ids == 0 {
            return Ok(());
        }
        if !self.filled.contains_key(&ids) {
            complain(&format!("filling a ledger with {ids} ids"));
            let folder = self.folder.join(format!("ledger-{ids}"));
            let filled = fill(&folder, ids, plan.retention, clock).await;
            filled.with_context(|| format!("a ledger of {ids} ids can't be filled"))?;
            self.filled.insert(ids, folder);
        }
        let LedgerPlace::Embedded(target) = plan.place.clone();
        let source = self.filled.get(&ids).context("it was filled")?.clone();
        let copied = tokio::task::spawn_blocking(move || copy(&source, &target)).await?;
        copied.context("a filled ledger can't be copied")
    }
}

async fn fill(folder: &Path, ids: u32, retention: Duration, clock: &Clock) -> anyhow::Result<()> {
    let now = clock.wall();
    let mut next = 0;
    for bucket in 1..=BUCKETS {
        let age = retention / BUCKETS * (BUCKETS - bucket);
        let at = Timestamp(now.0.saturating_sub(u64::try_from(age.as_millis())?));
        let (store, ledger) = open(folder, retention, at).await?;
        let end = u32::try_from(u64::from(ids) * u64::from(bucket) / u64::from(BUCKETS))?;
        while next < end {
            let batch = next..end.min(next + BATCH);
            next = batch.end;
            let entries = batch.map(entry).collect::<anyhow::Result<Vec<_>>>()?;
            for written in ledger.write(Arc::new(entries)).await? {
                written?;
            }
        }
        // As a host does every few seconds.
        store.expire(at, Duration::ZERO).await?;
        settle(folder).await?;
        if bucket == BUCKETS {
            expect_known(&ledger, ids).await?;
        }
        drop(ledger);
        store.close().await?;
    }
    Ok(())
}

/// A ledger in a store whose clock begins at `at`. It need not outlive a power cut.
async fn open(folder: &Path, retention: Duration, at: Timestamp) -> anyhow::Result<(Arc<Store>, Arc<Embedded>)> {
    let settings = Settings {
        path: folder.to_owned(),
        retention,
        fsync: false,
    };
    let clock = Clock::seeded(at, 1);
    let store = tokio::task::spawn_blocking(|| Store::open(settings, clock)).await??;
    let ledger = embedded::open(store.clone(), [].into());
    Ok((store, ledger))
}

fn entry(number: u32) -> anyhow::Result<Entry> {
    Ok(Entry {
        consumer: Name::new("of-old")?,
        record: record(number),
        payload: PayloadHash(u64::from(number)),
        lane: LaneKey(Arc::from(*b"any")),
        parked: None,
        change: Change::Applied(Effects::default()),
    })
}

/// As random as those of events, which are of a hash, too.
fn record(number: u32) -> RecordKey {
    RecordKey(xxh3_128(&number.to_le_bytes()).to_be_bytes())
}

/// Waits until the store has put what was written into the files in which it stays. A store that is closed before does not go on with
/// that for an old bucket, and each host would begin anew with the present one.
async fn settle(folder: &Path) -> anyhow::Result<()> {
    let mut looks = interval(LOOK);
    let (mut before, mut quiet) = (BTreeMap::new(), 0);
    for _ in 0..LOOKS_MAX {
        looks.tick().await;
        let now = files(folder)?;
        quiet = if now == before { quiet + 1 } else { 0 };
        if quiet == LOOKS_QUIET {
            return Ok(());
        }
        before = now;
    }
    bail!("its store does not come to rest")
}

/// The files in a folder and below, with their sizes.
fn files(folder: &Path) -> io::Result<BTreeMap<PathBuf, u64>> {
    let mut files = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            match entry.metadata() {
                Ok(metadata) if metadata.is_dir() => folders.push(entry.path()),
                Ok(metadata) => drop(files.insert(entry.path(), metadata.len())),
                // Removed since it was listed, as the store does with what it has merged.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
    }
    Ok(files)
}

/// Copies a folder that nobody uses, through to the disk: what would be written later would be so while a host is measured.
fn copy(source: &Path, target: &Path) -> io::Result<()> {
    for (from, _) in files(source)? {
        let Ok(name) = from.strip_prefix(source) else {
            continue;
        };
        let to = target.join(name);
        if let Some(folder) = to.parent() {
            fs::create_dir_all(folder)?;
        }
        fs::copy(from, &to)?;
        fs::File::open(to)?.sync_all()?;
    }
    Ok(())
}

/// One id in a thousand, and so some of each bucket.
async fn expect_known(ledger: &Embedded, ids: u32) -> anyhow::Result<()> {
    let asked = (0..ids).step_by(1_000).map(record).collect();
    let known = ledger.look_up(asked).await?;
    let is_done = |known: &Known| matches!(known, Known::Done(_));
    ensure!(known.iter().all(is_done), "an id was forgotten");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const RETENTION: Duration = Duration::from_hours(8);
    /// In the middle of a bucket.
    const NOW: Timestamp = Timestamp(1_795_512_600_000);

    async fn filled(folder: &Path, ids: u32) -> PathBuf {
        let path = folder.join("copy");
        let plan = plan::Ledger {
            place: LedgerPlace::Embedded(path.clone()),
            retention: RETENTION,
            fsync: true,
        };
        let mut ledgers = Ledgers::new(folder);
        ledgers.place(ids, &plan, &Clock::seeded(NOW, 1)).await.unwrap();
        path
    }

    #[tokio::test]
    async fn a_ledger_remembers_what_it_was_filled_with() {
        let folder = tempfile::tempdir().unwrap();
        let path = filled(folder.path(), 20_001).await;
        let (store, ledger) = open(&path, RETENTION, NOW).await.unwrap();
        assert!(!store.was_unclean());
        let known = ledger
            .look_up([0, 10_000, 20_000, 20_001].map(record).into())
            .await
            .unwrap();
        let done = [0, 10_000, 20_000].map(|number| Known::Done(PayloadHash(number)));
        assert_eq!(known, [done.as_slice(), &[Known::New]].concat());
    }

    #[tokio::test]
    async fn ids_are_spread_over_all_buckets_and_none_is_over() {
        let folder = tempfile::tempdir().unwrap();
        let path = filled(folder.path(), 80).await;
        let (store, ledger) = open(&path, RETENTION, NOW).await.unwrap();
        for gone in 0..=BUCKETS {
            // Of a bucket, nothing is forgotten before its last id is as old as the retention.
            let later = NOW.after(RETENTION / BUCKETS * (gone + 1));
            store.expire(later, Duration::ZERO).await.unwrap();
            let known = ledger.look_up((0..80).map(record).collect()).await.unwrap();
            let forgotten = known.iter().filter(|known| **known == Known::New).count();
            assert_eq!(forgotten, 10 * gone as usize);
        }
    }

    #[tokio::test]
    async fn a_ledger_that_remembers_nothing_is_not_there() {
        let folder = tempfile::tempdir().unwrap();
        assert!(!filled(folder.path(), 0).await.exists());
    }
}
