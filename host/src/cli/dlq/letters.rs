//! Where dead letters are: with a running host, or in the ledger that no host has open.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::List;
use super::prefix::Unclear;
use crate::admin::view::{DeadLetter, DeadLetterLine, DeadLetterPage, Selection};
use crate::app::dead_letters::{self, Done};
use crate::cli::client::{Client, NoHost};
use crate::clock::Clock;
use crate::ledger::{self, DeadFilter, DeadId, DeadLetters, DeadPlace};
use crate::plan::{LedgerPlace, Plan};
use crate::store::{Settings, Store};

/// What one page may hold: the most that the API gives.
const PAGE: usize = 1_000;

/// Dead letters, wherever they are.
pub(super) enum Letters {
    /// A host runs, and has the ledger.
    Host(Client),
    /// None does.
    Ledger(Box<Offline>),
}

/// What is done to many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Act {
    /// Put back and run again.
    Redrive,
    /// Forget.
    Purge,
}

/// Why the ledger can't be opened.
enum NotOpened {
    /// There is none.
    Absent,
    /// It is there.
    Ledger(ledger::Error),
}

/// The ledger, opened for one command.
pub(super) struct Offline {
    letters: Arc<dyn DeadLetters>,
    store: Arc<Store>,
    plan: Plan,
}

impl Letters {
    /// Asks for a host first: two processes can't have the ledger. Whoever has it may be a host that is starting, so it is asked for again
    /// before giving up; and so it is if there is no ledger, since the first host may be about to make it.
    pub(super) async fn find(plan: &Plan) -> anyhow::Result<Self> {
        if let Some(client) = Client::find(&plan.admin).await? {
            return Ok(Self::Host(client));
        }
        match open_offline(plan).await {
            Ok(offline) => return Ok(Self::Ledger(Box::new(offline))),
            Err(NotOpened::Absent | NotOpened::Ledger(ledger::Error::Locked(_))) => {}
            Err(NotOpened::Ledger(error)) => return Err(closed(error, plan)),
        }
        if let Some(client) = Client::wait(&plan.admin).await? {
            return Ok(Self::Host(client));
        }
        let LedgerPlace::Embedded(folder) = &plan.ledger.place;
        let (listen, folder) = (plan.admin.listen, folder.clone());
        // Another command may have had it, and be done.
        match open_offline(plan).await {
            Ok(offline) => Ok(Self::Ledger(Box::new(offline))),
            Err(NotOpened::Absent) => Err(NoHost::NoLedger { listen, folder }.into()),
            Err(NotOpened::Ledger(ledger::Error::Locked(_))) => Err(NoHost::Elsewhere { listen, folder }.into()),
            Err(NotOpened::Ledger(error)) => Err(closed(error, plan)),
        }
    }

    /// Whether a host runs, which runs what is redriven at once.
    pub(super) fn runs(&self) -> bool {
        matches!(self, Self::Host(_))
    }

    /// A page of at most `room`, after the place given.
    pub(super) async fn list(&self, list: &List, after: Option<u64>, room: usize) -> anyhow::Result<DeadLetterPage> {
        let limit = room.min(PAGE);
        match self {
            Self::Host(client) => {
                let after = after.map(|place| place.to_string());
                client
                    .get(
                        "/api/v1/dead-letters",
                        &query(list, after.as_deref(), &limit.to_string()),
                    )
                    .await
            }
            Self::Ledger(offline) => offline.list(list, after, limit).await,
        }
    }

    /// One, whole.
    pub(super) async fn show(&self, id: DeadId) -> anyhow::Result<DeadLetter> {
        match self {
            Self::Host(client) => client.get(&format!("/api/v1/dead-letters/{id}"), &[]).await,
            Self::Ledger(offline) => {
                let letter = offline.letters.get(id).await?;
                let letter = letter.ok_or_else(|| Unclear::Absent(id.to_string()))?;
                Ok(DeadLetter::of(&letter, &offline.plan))
            }
        }
    }

    /// Does something to all that are selected.
    pub(super) async fn act(&self, act: Act, selection: &Selection) -> anyhow::Result<Done> {
        match (self, act) {
            (Self::Host(client), Act::Redrive) => client.post("/api/v1/dead-letters/redrive", selection).await,
            (Self::Host(client), Act::Purge) => client.post("/api/v1/dead-letters/purge", selection).await,
            (Self::Ledger(offline), act) => offline.act(act, selection).await,
        }
    }

    /// Lets go of the ledger. A host that crashed must find at its next start that it did: its stop stays unclean.
    pub(super) async fn close(self) -> anyhow::Result<()> {
        match self {
            Self::Ledger(offline) if !offline.store.was_unclean() => Ok(offline.store.close().await?),
            Self::Ledger(_) | Self::Host(_) => Ok(()),
        }
    }
}

impl Offline {
    async fn list(&self, list: &List, after: Option<u64>, limit: usize) -> anyhow::Result<DeadLetterPage> {
        let filter = DeadFilter {
            consumer: list.consumer.clone(),
            reason: list.reason,
        };
        let letters = self.letters.as_ref();
        let listed = dead_letters::list(letters, &filter, after.map(DeadPlace), limit, DeadLetterLine::of);
        let (lines, next) = listed.await?;
        Ok(DeadLetterPage::of(lines, next))
    }

    async fn act(&self, act: Act, selection: &Selection) -> anyhow::Result<Done> {
        let (letters, which) = (self.letters.as_ref(), selection.which()?);
        let done = match act {
            Act::Redrive => dead_letters::redrive(letters, &which, selection.dry_run).await,
            Act::Purge => dead_letters::purge(letters, &which, selection.dry_run).await,
        };
        Ok(done?)
    }
}

/// Opens the embedded ledger of a host that does not run. Never makes one: a wrong path would look like an empty ledger.
async fn open_offline(plan: &Plan) -> Result<Offline, NotOpened> {
    let LedgerPlace::Embedded(path) = &plan.ledger.place;
    if !path.is_dir() {
        return Err(NotOpened::Absent);
    }
    let settings = Settings {
        path: path.clone(),
        retention: plan.ledger.retention,
        fsync: plan.ledger.fsync,
    };
    let opened = tokio::task::spawn_blocking(|| Store::open(settings, Clock::system())).await;
    let opened = opened.map_err(|error| NotOpened::Ledger(ledger::Error::Unavailable(error.to_string())))?;
    let store = opened.map_err(|error| NotOpened::Ledger(error.into()))?;
    Ok(Offline {
        // Which streams are logs of the store matters to commits of outputs only.
        letters: ledger::embedded::open(store.clone(), BTreeSet::new()),
        store,
        plan: plan.clone(),
    })
}

fn closed(error: ledger::Error, plan: &Plan) -> anyhow::Error {
    let listen = plan.admin.listen;
    anyhow::Error::new(error).context(format!("no host answers on {listen}, and its ledger can't be opened"))
}

fn query<'a>(list: &'a List, after: Option<&'a str>, limit: &'a str) -> Vec<(&'static str, &'a str)> {
    let consumer = list.consumer.as_ref().map(|consumer| ("consumer", consumer.as_str()));
    let reason = list.reason.map(|reason| ("reason", reason.as_str()));
    let after = after.map(|after| ("after", after));
    [consumer, reason, after, Some(("limit", limit))]
        .into_iter()
        .flatten()
        .collect()
}
