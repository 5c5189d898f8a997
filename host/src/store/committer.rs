//! The thread that commits. It owns the engine: when a commit fails the engine refuses all that follow, since it can't know
//! what reached the disk (a full disk, mostly). Then the committer lets go of it, tells everybody that the store is
//! unavailable, and opens it anew with the next work that comes: recovery finds out what is durable.

use std::sync::{Arc, PoisonError};
use std::thread::JoinHandle;

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};

use super::batch::{self, Batch, Committed, Map};
use super::folder::{Folder, Found};
use super::tables::{Table, Tables};
use super::{Error, Ride, Shared, Weight, keys};
use crate::clock::Timestamp;

/// A batch is closed at so many entries or bytes: beyond, one sync more costs less than the wait for a bigger one.
const BATCH_ENTRIES: usize = 1000;
const BATCH_BYTES: usize = 8 * 1024 * 1024;

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
}

impl Committer {
    pub(super) fn new(shared: Arc<Shared>, jobs: mpsc::Receiver<Message>, memory: Memory, folder: Folder) -> Self {
        Self {
            shared,
            jobs,
            memory,
            folder,
        }
    }

    pub(super) fn spawn(self) -> Result<JoinHandle<()>, Error> {
        std::thread::Builder::new()
            .name("committer".to_owned())
            .spawn(move || self.run())
            .map_err(|error| Error::io("start the committer", &error))
    }

    fn run(mut self) {
        let closing = self.serve();
        let closed = closing.is_some().then(|| self.close());
        self.shared.set_tables(None);
        // The lock goes before the answer, so that whoever waited for it can open the folder.
        drop(self);
        if let (Some(answer), Some(closed)) = (closing, closed) {
            let _ = answer.send(closed);
        }
    }

    /// Commits until it is told to close, or nobody is left who could ask.
    fn serve(&mut self) -> Option<oneshot::Sender<Result<(), Error>>> {
        loop {
            let mut jobs = Vec::new();
            let closing = self.gather(&mut jobs)?;
            // Everybody who asked was told, and nobody else needs to know.
            let _ = self.commit(jobs, Ride::Passing);
            if let Gathered::Closing(answer) = closing {
                return Some(answer);
            }
        }
    }

    /// Waits for work and takes what there is, up to the bounds of a batch.
    fn gather(&mut self, jobs: &mut Vec<Job>) -> Option<Gathered> {
        let (mut entries, mut bytes) = (0, 0);
        let mut message = self.jobs.blocking_recv()?;
        loop {
            match message {
                Message::Close(answer) => return Some(Gathered::Closing(answer)),
                Message::Job(job) => {
                    entries += job.weight.entries;
                    bytes += job.weight.bytes;
                    jobs.push(job);
                }
            }
            if entries >= BATCH_ENTRIES || bytes >= BATCH_BYTES {
                return Some(Gathered::Batch);
            }
            match self.jobs.try_recv() {
                Ok(next) => message = next,
                Err(_) => return Some(Gathered::Batch),
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
        self.folder.closed(self.memory.next())
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
        let mut result = self.fill(&mut batch, jobs, ride, answers);
        if result.is_ok() {
            result = match batch.write(self.shared.settings.fsync) {
                Ok(committed) => {
                    self.shared.tails.publish(&committed.tails);
                    self.memory.apply(committed);
                    Ok(())
                }
                Err(error) => {
                    // The engine is poisoned. Readers that still hold it keep it locked until they are done.
                    self.shared.set_tables(None);
                    Err(error)
                }
            };
        }
        result
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
        let tables = Tables::open(&self.folder.database(), self.shared.settings.retention, Found::Open)
            .map_err(|error| Error::Unavailable(error.to_string()))?;
        self.memory = Memory::load(&tables)?;
        let tables = Arc::new(tables);
        self.shared.set_tables(Some(tables.clone()));
        tracing::info!("the store is open again");
        Ok(tables)
    }
}

/// What was gathered, and what comes after it.
enum Gathered {
    Batch,
    Closing(oneshot::Sender<Result<(), Error>>),
}
