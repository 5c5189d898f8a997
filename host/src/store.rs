//! The embedded store: one folder, one process, every durable byte of a host without servers.
//!
//! One thread commits. It takes all work that waits as one batch, lets each piece look at what the earlier ones would write,
//! makes the batch durable with one sync, and only then answers: so many callers share the price of one sync, and no reader
//! ever sees what a power cut could take back. The ledger and the embedded broker are two users of the same batches, which is
//! what makes an event, its effects and its outputs one transaction.
//!
//! Only this file and those below it name the storage engine.

mod batch;
mod bloom;
mod bucket;
mod buckets;
mod committer;
mod cursors;
mod fault;
mod folder;
#[cfg(fuzzing)]
pub mod fuzzing;
mod health;
mod journal;
mod keys;
mod known;
mod logs;
mod tables;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::fs::File;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use crate::broker::Position;
use crate::clock::{Clock, Timestamp};
use crate::crash::{self, Point};
use crate::plan::Name;

pub(crate) use batch::Batch;
#[cfg(test)]
pub(crate) use fault::Failing;
pub use health::Trouble;
pub(crate) use keys::{Key, KeyReader, decode, decode_first, encode, encode_onto};
pub(crate) use logs::Entry as LogEntry;
pub use logs::{Cursor, Log};
pub(crate) use tables::{Record, RecordState, Table, Tables};

use committer::{Committer, Job, Message};
use cursors::Cursors;

/// Pieces of work that may wait for the committer; whoever brings more waits to hand over.
const JOBS_MAX: usize = 1024;

/// Where the store is and how it keeps.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The folder. Made if it is absent; refused if it holds anything else.
    pub path: PathBuf,
    /// How long records are kept, at least; at most an eighth longer.
    pub retention: Duration,
    /// Whether a commit waits for the disk.
    pub fsync: bool,
}

/// The store, open. One per folder; share the `Arc`. [`Store::close`] makes the stop a clean one; dropping the last handle
/// without it is a crash to the next start: nothing is lost, but what may have been under way is under suspicion.
pub struct Store {
    shared: Arc<Shared>,
    // `None` only while the store is being dropped: the committer ends when the last sender is gone.
    jobs: Option<mpsc::Sender<Message>>,
    committer: Mutex<Option<JoinHandle<()>>>,
}

/// What the handle and the committer share.
struct Shared {
    settings: Settings,
    clock: Clock,
    /// `None` while the engine is down: readers and writers are told that the store is unavailable.
    tables: RwLock<Option<Arc<Tables>>>,
    riders: RwLock<Vec<Arc<dyn Rider>>>,
    cursors: Arc<Cursors>,
    tails: logs::Tails,
    health: health::Health,
    /// Consumers that have not gone through yet what an earlier host may have had in hand.
    recovering: Mutex<BTreeSet<Name>>,
    unclean: bool,
    opened: Instant,
}

/// Something that is written along with whatever is committed next, because nobody waits for it. If the batch fails, what it
/// gave is lost: ride only with what can be told again or done without.
pub(crate) trait Rider: Send + Sync {
    /// Adds rows to a batch that is about to be committed.
    ///
    /// # Errors
    /// [`Error`] fails the whole batch.
    fn ride(&self, batch: &mut Batch<'_>, ride: Ride) -> Result<(), Error>;
}

/// Which batch it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ride {
    /// One of many.
    Passing,
    /// The last before a clean stop.
    Last,
}

/// What a piece of work weighs against the bounds of a batch.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Weight {
    /// Entries.
    pub(crate) entries: usize,
    /// Bytes, about.
    pub(crate) bytes: usize,
}

impl Weight {
    /// Work that hardly weighs anything.
    pub(crate) const LIGHT: Self = Self { entries: 1, bytes: 64 };
}

impl Store {
    /// Opens the store in a folder, or makes it there. Blocks on the disk.
    ///
    /// # Errors
    /// [`Error::Locked`], [`Error::Newer`], [`Error::Older`], [`Error::Damaged`]: a person must act, nothing was changed.
    /// [`Error::Unavailable`]: the disk is full or refuses.
    pub fn open(settings: Settings, clock: Clock) -> Result<Arc<Self>, Error> {
        let mut folder = folder::Folder::lock(&settings.path)?;
        let found = folder.begin()?;
        if found == folder::Found::New {
            crash::at(Point::StoreBegun);
        }
        let tables = Tables::open(&folder.database(), settings.retention, found)?;
        let memory = committer::Memory::load(&tables)?;
        folder.check(found, memory.next())?;
        crash::at(Point::StoreMade);
        folder.opened()?;
        let cursors = Arc::new(Cursors::load(&tables)?);
        let unclean = found == folder::Found::Open;
        let recovering = tables.marked()?;
        let shared = Arc::new(Shared {
            opened: clock.now(),
            tails: logs::Tails::default(),
            health: health::Health::default(),
            riders: RwLock::new(vec![cursors.clone()]),
            tables: RwLock::new(Some(Arc::new(tables))),
            recovering: Mutex::new(recovering),
            cursors,
            unclean,
            settings,
            clock,
        });
        let (jobs, waiting) = mpsc::channel(JOBS_MAX);
        let committer = Committer::new(shared.clone(), waiting, memory, folder).spawn()?;
        Ok(Arc::new(Self {
            shared,
            jobs: Some(jobs),
            committer: Mutex::new(Some(committer)),
        }))
    }

    /// Why it holds up those who write to it, if it does.
    #[must_use]
    pub fn trouble(&self) -> Option<Trouble> {
        self.shared.health.trouble(self.shared.clock.now())
    }

    /// Commits what waits, notes that the stop was clean and lets go of the folder. What is asked afterwards is unavailable.
    ///
    /// # Errors
    /// [`Error::Unavailable`]: the last batch did not become durable, and the next start counts this stop as a crash.
    pub async fn close(&self) -> Result<(), Error> {
        let (done, closed) = oneshot::channel();
        self.send(Message::Close(done)).await?;
        self.wake();
        let closed = closed.await.map_err(|_| Error::closed())?;
        let committer = lock(&self.committer).take();
        if let Some(committer) = committer {
            // It has answered, so that it only has its own locals left to drop.
            let _ = committer.join();
        }
        closed
    }

    /// Whether the last stop was a crash.
    #[must_use]
    pub fn was_unclean(&self) -> bool {
        self.shared.unclean
    }

    /// Drops the buckets of records that are older than the retention, except for what is not over: records of events that
    /// wait in the parking stay, those of events that are being tried stay for one retention more. Says how many went. Call it
    /// every few seconds; it also carries what waits for a batch, so that nothing waits long on a quiet host, and notes for the next
    /// start which ids are in buckets that are closed.
    ///
    /// `unsettled` is the age of the oldest delivery that no consumer has settled: what was done since it was taken may be
    /// given again as long as it is unsettled, so that records are kept for that much longer.
    ///
    /// After a start nothing is dropped while a consumer may still be given events that an earlier host had in hand: a host
    /// that was down for longer than the retention would forget what it did just before it stopped. That is until each
    /// consumer with a mark has [`recovered`](Self::recovered), or, since a broker may stay away, until the store has been
    /// open for as long as the retention.
    ///
    /// # Errors
    /// [`Error::Unavailable`]
    pub async fn expire(&self, now: Timestamp, unsettled: Duration) -> Result<usize, Error> {
        let expired = match self.is_recovering() {
            true => Vec::new(),
            false => self.read(|tables| Ok(tables.buckets.expired(now, unsettled)))?,
        };
        let is_needed = !expired.is_empty();
        let begin = move |batch: &mut Batch<'_>| {
            if is_needed {
                batch.begin_bucket(now);
            }
            Ok(())
        };
        self.commit(Weight::LIGHT, begin).await?;
        self.read_apart(|tables| {
            tables.buckets.keep();
            Ok(())
        })
        .await?;
        for start in &expired {
            let start = *start;
            // A crash in between leaves records twice, of which the newer holds.
            self.carry(start).await?;
            crash::at(Point::BucketDropping);
            let drop = move |batch: &mut Batch<'_>| {
                batch.drop_bucket(start);
                Ok(())
            };
            self.commit(Weight::LIGHT, drop).await?;
        }
        Ok(expired.len())
    }

    /// Carries forward what a bucket holds of events that are not over, a batch of them at a time.
    async fn carry(&self, start: u64) -> Result<(), Error> {
        let mut after = None;
        loop {
            let page = self.read_apart(move |tables| tables.buckets.open_after(start, after));
            let page = page.await?;
            if !page.records.is_empty() {
                let weight = Weight {
                    entries: page.records.len(),
                    bytes: Weight::LIGHT.bytes * page.records.len(),
                };
                let records = page.records;
                self.commit(weight, move |batch| batch.carry(start, &records)).await?;
                crash::at(Point::BucketCarried);
            }
            match page.next {
                None => return Ok(()),
                next => after = next,
            }
        }
    }

    /// Lets only these readers, each a stream and a consumer, hold up the trimming of logs and the expiry of records; without
    /// this call all do that ever read. Others are named in a warning. What is known of them is kept: one that comes back goes on
    /// where it was, as far as its log still goes back to there.
    pub fn heed(&self, readers: &BTreeSet<(Name, Name)>) {
        let cursors = self.shared.cursors.heed(readers);
        let is_reader = |consumer: &Name| readers.iter().any(|(_, reader)| reader == consumer);
        let has_cursor = |consumer: &Name| cursors.iter().any(|(_, reader)| reader == consumer);
        let mut recovering = lock(&self.shared.recovering);
        let marked = recovering.extract_if(.., |consumer| !is_reader(consumer));
        let gone: Vec<String> = cursors
            .iter()
            .map(|(stream, consumer)| format!("{consumer} of {stream}"))
            .chain(
                marked
                    .filter(|consumer| !has_cursor(consumer))
                    .map(|name| name.to_string()),
            )
            .collect();
        if !gone.is_empty() {
            tracing::warn!(
                consumers = %gone.join(", "),
                "the store knows consumers that are not in the config: they hold up nothing, and streams may be trimmed beyond where they were"
            );
        }
    }

    fn is_recovering(&self) -> bool {
        let open_for = self.shared.clock.now() - self.shared.opened;
        open_for < self.shared.settings.retention && !lock(&self.shared.recovering).is_empty()
    }

    /// The consumer has been through everything it may have had in hand when the last host stopped.
    pub fn recovered(&self, consumer: &Name) {
        lock(&self.shared.recovering).remove(consumer);
    }

    /// The mark a consumer left, until it has [`recovered`](Self::recovered), and whether the last stop was unclean.
    ///
    /// # Errors
    /// [`Error::Unavailable`]
    pub(crate) fn taken_before(&self, consumer: &Name) -> Result<Option<(Position, bool)>, Error> {
        if !lock(&self.shared.recovering).contains(consumer) {
            return Ok(None);
        }
        let mark = self.read(|tables| tables.mark(consumer))?;
        Ok(mark.map(|upto| (upto, self.shared.unclean)))
    }

    /// Durably notes that a consumer may take positions up to this one. A mark never goes back.
    ///
    /// # Errors
    /// [`Error::Unavailable`]
    pub(crate) async fn mark_taken(&self, consumer: &Name, upto: Position) -> Result<(), Error> {
        let consumer = consumer.clone();
        self.commit(Weight::LIGHT, move |batch| batch.mark(&consumer, upto))
            .await
    }

    /// Reads what is committed, here and now: for reads that memory answers.
    pub(crate) fn read<T>(&self, read: impl FnOnce(&Tables) -> Result<T, Error>) -> Result<T, Error> {
        read(&*self.shared.tables()?)
    }

    /// Reads what is committed on a thread that may wait for the disk.
    pub(crate) async fn read_apart<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Tables) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let tables = self.shared.tables()?;
        tokio::task::spawn_blocking(move || read(&tables))
            .await
            .map_err(|error| Error::Unavailable(error.to_string()))?
    }

    /// Runs a piece of work in the next batch and answers when it is durable. If the work itself fails, so does its batch.
    ///
    /// # Errors
    /// [`Error::Unavailable`]: nothing of it was written, so that it may be asked for again. Only of a store that was closed
    /// while its disk failed does the next start know.
    ///
    /// # Cancellation
    /// Dropping the answer does not undo the work.
    pub(crate) async fn commit<T: Send + 'static>(
        &self,
        weight: Weight,
        work: impl FnOnce(&mut Batch<'_>) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let (answer, answered) = oneshot::channel();
        self.send(Message::Job(Job::new(self.shared.clock.wall(), weight, work, answer)))
            .await?;
        answered.await.map_err(|_| Error::closed())?
    }

    /// Asks for a batch soon, for the riders' sake. Does nothing if the committer is busy: then there is one anyway.
    pub(crate) fn nudge(&self) {
        if let Some(jobs) = &self.jobs {
            let now = self.shared.clock.wall();
            let (answer, _) = oneshot::channel();
            let _ = jobs.try_send(Message::Job(Job::new(now, Weight::LIGHT, |_| Ok(()), answer)));
        }
    }

    /// Lets something ride along with each batch from now on.
    pub(crate) fn add_rider(&self, rider: Arc<dyn Rider>) {
        self.shared
            .riders
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .push(rider);
    }

    /// Lets the committer see that the store is being closed, if it waits for a failed engine.
    fn wake(&self) {
        if let Some(committer) = &*lock(&self.committer) {
            committer.thread().unpark();
        }
    }

    /// Makes the next batch fail.
    #[cfg(test)]
    pub(crate) fn fail_next(&self, failing: Failing) {
        self.shared.tables().unwrap().fault.next(failing);
    }

    async fn send(&self, message: Message) -> Result<(), Error> {
        let jobs = self.jobs.as_ref().ok_or_else(Error::closed)?;
        jobs.send(message).await.map_err(|_| Error::closed())
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        self.jobs = None;
        self.wake();
        if let Some(committer) = lock(&self.committer).take() {
            let _ = committer.join();
        }
    }
}

impl Shared {
    fn tables(&self) -> Result<Arc<Tables>, Error> {
        self.tables
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
            .ok_or_else(|| Error::Unavailable("the store is closed or being mended".to_owned()))
    }

    fn set_tables(&self, tables: Option<Arc<Tables>>) {
        *self.tables.write().unwrap_or_else(PoisonError::into_inner) = tables;
    }
}

/// A lock whose holder panicked guards data that is whole: all critical sections here are single steps.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The store can't do what it was asked.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// For now: the disk is full or refuses. Ask again.
    #[error("the store is unavailable: {0}")]
    Unavailable(String),
    /// Another process has the folder.
    #[error("another process uses the store in {0}: stop it first")]
    Locked(String),
    /// A newer version wrote the folder.
    #[error(
        "the store in {folder} has format {found}, this version reads {known}: run the newer version, or give this one another folder"
    )]
    Newer {
        /// Which folder.
        folder: String,
        /// The format it has.
        found: u32,
        /// The format we know.
        known: u32,
    },
    /// An older version wrote the folder.
    #[error(
        "the store in {folder} has format {found}, this version reads {known}: run the version that wrote it, or give this one another folder"
    )]
    Older {
        /// Which folder.
        folder: String,
        /// The format it has.
        found: u32,
        /// The format we know.
        known: u32,
    },
    /// The folder is not as we left it.
    #[error(
        "the store in {folder} is damaged: {reason}; restore the folder from a backup, or move it away to begin a new one"
    )]
    Damaged {
        /// Which folder.
        folder: String,
        /// What was found.
        reason: String,
    },
}

impl Error {
    fn closed() -> Self {
        Self::Unavailable("the store is closed".to_owned())
    }

    /// The engine's error while it runs: whatever it is, asking again is all that a caller can do.
    fn engine(error: &fjall::Error) -> Self {
        Self::Unavailable(error.to_string())
    }

    fn io(doing: &str, error: &std::io::Error) -> Self {
        Self::Unavailable(format!("can't {doing}: {error}"))
    }
}

/// Syncs a folder, so that names made or renamed in it stay. Windows has no such call and needs none.
fn sync_folder(path: &std::path::Path) -> std::io::Result<()> {
    if cfg!(windows) {
        return Ok(());
    }
    File::open(path)?.sync_all()
}
