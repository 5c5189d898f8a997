//! The thread that commits. It owns the engine: when a commit fails the engine refuses all that follow, since it can't know
//! what reached the disk (a full disk, mostly). Then the committer lets go of it and opens it anew until it can see whether
//! the batch is there: every batch takes a number, and the last one taken is stored with it. Only then does it answer, so
//! that what was reported failed never turns out to have happened.

use std::sync::{Arc, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc::error::TryRecvError;
use tokio::sync::{mpsc, oneshot};

use super::batch::{self, Batch, Committed, Map};
use super::folder::{Folder, Found};
use super::tables::{Table, Tables};
use super::{Error, JOBS_MAX, Ride, Shared, Weight, journal, keys};
use crate::clock::Timestamp;
use crate::crash::{self, Point};

/// A batch is closed at so many entries or bytes: beyond, one sync more costs less than the wait for a bigger one.
const BATCH_ENTRIES: usize = 1000;
const BATCH_BYTES: usize = 8 * 1024 * 1024;

/// Pauses between attempts to open a failed engine anew. The first attempt fails where somebody still reads; each reads all
/// journals again, hence the longest.
const PAUSE_MIN: Duration = Duration::from_millis(20);
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// What the handle tells the committer.
pub(super) enum Message {
    Job(Job),
    Close(oneshot::Sender<Result<(), Error>>),
}

/// A piece of work.
pub(super) struct Job {
    at: Timestamp,
    weight: Weight,
    run: Box<Run>,
}

/// Does the work and hands back how to answer for it; given no batch, it only tells whoever asked why.
type Run = dyn FnOnce(Result<&mut Batch<'_>, Error>) -> Result<Box<Answer>, Error> + Send;

/// Tells whoever asked how the commit went.
type Answer = dyn FnOnce(Result<(), Error>) + Send;

/// The jobs of a batch that it has not come to yet.
type Jobs = std::vec::IntoIter<Job>;

impl Job {
    pub(super) fn new<T: Send + 'static>(
        at: Timestamp,
        weight: Weight,
        work: impl FnOnce(&mut Batch<'_>) -> Result<T, Error> + Send + 'static,
        answer: oneshot::Sender<Result<T, Error>>,
    ) -> Self {
        // A caller that has gone away is no reason to undo its work, nor to fail: hence the sends whose result is dropped.
        let run = move |batch: Result<&mut Batch<'_>, Error>| match batch.and_then(work) {
            Ok(value) => Ok(Box::new(move |committed: Result<(), Error>| {
                let _ = answer.send(committed.map(|()| value));
            }) as Box<Answer>),
            Err(error) => {
                let _ = answer.send(Err(error.clone()));
                Err(error)
            }
        };
        Self {
            at,
            weight,
            run: Box::new(run),
        }
    }

    /// Does nothing of it, and says why.
    fn refuse(self, error: &Error) {
        let _ = (self.run)(Err(error.clone()));
    }
}

/// What the committer has of the store in memory: exactly what is committed of the resident tables.
pub(super) struct Memory {
    next: u64,
    rows: Map<(Table, Bytes), Bytes>,
}

impl Memory {
    pub(super) fn load(tables: &Tables) -> Result<Self, Error> {
        let mut rows = Map::default();
        for table in Table::RESIDENT {
            for row in tables.prefix(table, &[]) {
                let (key, value) = row?;
                rows.insert((table, key), value);
            }
        }
        let next = rows.get(&(Table::Meta, batch::next_key()));
        Ok(Self {
            next: next.map_or(Ok(1), |row| keys::decode(row))?,
            rows,
        })
    }

    /// The next number to give out.
    pub(super) fn next(&self) -> u64 {
        self.next
    }

    /// A row of a resident table; `None` if the table is not resident.
    pub(super) fn get(&self, table: Table, key: &Bytes) -> Option<Option<Bytes>> {
        table
            .is_resident()
            .then(|| self.rows.get(&(table, key.clone())).cloned())
    }

    fn apply(&mut self, committed: Committed) {
        self.next = committed.next;
        for (key, row) in committed.resident {
            match row {
                Some(row) => self.rows.insert(key, row),
                None => self.rows.remove(&key),
            };
        }
    }
}

/// The committing thread's own.
pub(super) struct Committer {
    shared: Arc<Shared>,
    jobs: mpsc::Receiver<Message>,
    memory: Memory,
    folder: Folder,
    /// Who waits for the close, once it was asked for.
    closing: Option<oneshot::Sender<Result<(), Error>>>,
}

impl Committer {
    pub(super) fn new(shared: Arc<Shared>, jobs: mpsc::Receiver<Message>, memory: Memory, folder: Folder) -> Self {
        Self {
            shared,
            jobs,
            memory,
            folder,
            closing: None,
        }
    }

    pub(super) fn spawn(self) -> Result<JoinHandle<()>, Error> {
        std::thread::Builder::new()
            .name("committer".to_owned())
            .spawn(move || self.run())
            .map_err(|error| Error::io("start the committer", &error))
    }

    fn run(mut self) {
        self.serve();
        let closed = self.closing.is_some().then(|| self.close());
        let closing = self.closing.take();
        self.shared.set_tables(None);
        // The lock goes before the answer, so that whoever waited for it can open the folder.
        drop(self);
        if let (Some(answer), Some(closed)) = (closing, closed) {
            let _ = answer.send(closed);
        }
    }

    /// Commits until it is told to close, or nobody is left who could ask.
    fn serve(&mut self) {
        while self.closing.is_none() {
            let Some(jobs) = self.gather() else { return };
            // Everybody who asked was told, and nobody else needs to know.
            let _ = self.commit(jobs, Ride::Passing);
            crash::at(Point::BetweenCommits);
        }
    }

    /// Waits for work and takes what there is, up to the bounds of a batch.
    fn gather(&mut self) -> Option<Vec<Job>> {
        let mut jobs = Vec::new();
        let (mut entries, mut bytes) = (0, 0);
        let mut message = self.jobs.blocking_recv()?;
        loop {
            match message {
                Message::Close(answer) => {
                    self.closing = Some(answer);
                    return Some(jobs);
                }
                Message::Job(job) => {
                    entries += job.weight.entries;
                    bytes += job.weight.bytes;
                    jobs.push(job);
                }
            }
            if entries >= BATCH_ENTRIES || bytes >= BATCH_BYTES {
                return Some(jobs);
            }
            match self.jobs.try_recv() {
                Ok(next) => message = next,
                Err(_) => return Some(jobs),
            }
        }
    }

    /// Everything is durable, then the folder says so, in this order.
    fn close(&mut self) -> Result<(), Error> {
        self.jobs.close();
        self.commit(Vec::new(), Ride::Last)?;
        let tables = self.shared.tables()?;
        tables
            .database
            .persist(fjall::PersistMode::SyncAll)
            .map_err(|error| Error::engine(&error))?;
        crash::at(Point::Closing);
        self.folder.closed(self.memory.next())?;
        crash::at(Point::Closed);
        Ok(())
    }

    /// Makes one batch of the jobs and answers each.
    fn commit(&mut self, jobs: Vec<Job>, ride: Ride) -> Result<(), Error> {
        let mut answers = Vec::with_capacity(jobs.len());
        let mut jobs = jobs.into_iter();
        let committed = self.write(&mut jobs, ride, &mut answers);
        if let Err(error) = &committed {
            tracing::warn!(%error, "a batch was not committed");
            // It never came to these.
            jobs.for_each(|job| job.refuse(error));
        }
        for answer in answers {
            answer(committed.clone());
        }
        committed
    }

    fn write(&mut self, jobs: &mut Jobs, ride: Ride, answers: &mut Vec<Box<Answer>>) -> Result<(), Error> {
        let tables = self.engine()?;
        let now = jobs.as_slice().iter().map(|job| job.at).max().unwrap_or_default();
        let mut batch = Batch::new(&tables, &self.memory, now);
        self.fill(&mut batch, jobs, ride, answers)?;
        crash::at(Point::Committing);
        self.shared.health.begins(self.shared.clock.now());
        let (committed, written) = batch.write(self.shared.settings.fsync);
        self.shared.health.ends(self.shared.clock.now());
        if let Err(error) = written {
            self.shared.health.fails(&error);
            let found = self.find_out(tables, &committed, error);
            self.shared.health.mended();
            return found;
        }
        crash::at(Point::Durable);
        tables.buckets.durable();
        self.shared.tails.publish(&committed.tails);
        self.memory.apply(committed);
        Ok(())
    }

    /// A write failed, and what the engine knows of it is worth nothing: the batch may be in the journal whole. Looks anew until
    /// it is known. Gives up only if the store is being closed meanwhile: then the next start finds out.
    fn find_out(&mut self, failed: Arc<Tables>, committed: &Committed, error: Error) -> Result<(), Error> {
        tracing::warn!(%error, "a write failed: looking whether it is durable");
        self.shared.set_tables(None);
        let mut failed = Some(failed);
        let mut pause = PAUSE_MIN;
        loop {
            // The engine may write once more when it is dropped, so that must be over before anyone looks.
            failed = failed.and_then(|tables| Arc::try_unwrap(tables).err());
            let opened = match failed {
                Some(_) => Err(Error::Unavailable("it is still being read".to_owned())),
                None => self.engine().map(|_| ()),
            };
            match opened {
                Ok(()) if self.memory.next() == committed.next => {
                    tracing::info!("the write that failed is durable");
                    self.shared.tails.publish(&committed.tails);
                    return Ok(());
                }
                Ok(()) => return Err(error),
                Err(opening) => tracing::warn!(error = %opening, "the store could not be opened anew"),
            }
            if !self.wait(pause, &error) {
                return Err(error);
            }
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    /// Waits, or less long if somebody closes. Whoever asks for something meanwhile is told why it can't be: nothing of it was
    /// begun. Says whether anybody still wants the store.
    fn wait(&mut self, pause: Duration, error: &Error) -> bool {
        std::thread::park_timeout(pause);
        for _ in 0..JOBS_MAX {
            match self.jobs.try_recv() {
                Ok(Message::Job(job)) => job.refuse(error),
                Ok(Message::Close(answer)) => self.closing = Some(answer),
                Err(TryRecvError::Empty) => break,
                Err(TryRecvError::Disconnected) => return false,
            }
        }
        self.closing.is_none()
    }

    /// Runs the jobs. The first that fails fails the batch, as it may have written half of what it wanted.
    fn fill(
        &self,
        batch: &mut Batch<'_>,
        jobs: &mut Jobs,
        ride: Ride,
        answers: &mut Vec<Box<Answer>>,
    ) -> Result<(), Error> {
        for rider in self.shared.riders.read().unwrap_or_else(PoisonError::into_inner).iter() {
            rider.ride(batch, ride)?;
        }
        for job in jobs {
            answers.push((job.run)(Ok(&mut *batch))?);
        }
        Ok(())
    }

    /// The engine; opened anew if it failed before.
    fn engine(&mut self) -> Result<Arc<Tables>, Error> {
        if let Ok(tables) = self.shared.tables() {
            return Ok(tables);
        }
        let path = self.folder.database();
        if self.shared.settings.fsync {
            journal::harden(&path)?;
        }
        let tables = Tables::open(&path, self.shared.settings.retention, Found::Open)
            .map_err(|error| Error::Unavailable(error.to_string()))?;
        self.memory = Memory::load(&tables)?;
        let tables = Arc::new(tables);
        self.shared.set_tables(Some(tables.clone()));
        tracing::info!("the store is open again");
        Ok(tables)
    }
}
