//! Which dead letters a person means: said wholly and in one way, or refused. An empty selection that meant "all" would purge everything
//! after a slip of the pen.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::app::dead_letters::Which;
use crate::ledger::{BadRecordKey, DeadFilter, DeadId};
use crate::outcome::{Reason, UnknownReason};
use crate::plan::{BadName, Name};

/// Which dead letters are meant: `ids`, or those of a `consumer`, a `reason` or both, or `all`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Selection {
    /// These.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ids: Vec<String>,
    /// All of this consumer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub consumer: Option<String>,
    /// All with this reason.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// All there are.
    #[serde(default)]
    pub all: bool,
    /// Do nothing, only say what would be done.
    #[serde(default)]
    pub dry_run: bool,
}

/// It can't be told which dead letters are meant.
#[derive(Debug, thiserror::Error)]
pub enum BadSelection {
    /// Nothing is.
    #[error("nothing is selected: give ids, a consumer, a reason, or all")]
    Empty,
    /// Two ways at once.
    #[error("ids, all, and consumer or reason exclude each other: say it in one way")]
    Mixed,
    /// No id.
    #[error(transparent)]
    Id(#[from] BadRecordKey),
    /// No consumer's name.
    #[error(transparent)]
    Consumer(#[from] BadName),
    /// No reason.
    #[error(transparent)]
    Reason(#[from] UnknownReason),
}

impl Selection {
    /// What is meant. A consumer that the config does not have (any more) may be: its dead letters outlive it.
    ///
    /// # Errors
    /// [`BadSelection`]: a person must say it otherwise.
    pub fn which(&self) -> Result<Which, BadSelection> {
        let is_filtered = self.consumer.is_some() || self.reason.is_some();
        match (self.ids.is_empty(), is_filtered, self.all) {
            (true, false, false) => Err(BadSelection::Empty),
            (false, false, false) => self.ids().map(Which::Ids),
            (true, true, false) => Self::filter(self.consumer.as_deref(), self.reason.as_deref()).map(Which::Matching),
            (true, false, true) => Ok(Which::Matching(DeadFilter::default())),
            _ => Err(BadSelection::Mixed),
        }
    }

    /// Each once: a letter that is named twice is one letter.
    fn ids(&self) -> Result<Vec<DeadId>, BadSelection> {
        let mut ids: Vec<DeadId> = self.ids.iter().map(|id| id.parse()).collect::<Result<_, _>>()?;
        ids.sort_unstable();
        ids.dedup();
        Ok(ids)
    }

    /// The filter of a consumer and a reason as they are written.
    ///
    /// # Errors
    /// [`BadSelection`]: one of them can't be.
    pub fn filter(consumer: Option<&str>, reason: Option<&str>) -> Result<DeadFilter, BadSelection> {
        Ok(DeadFilter {
            consumer: consumer.map(Name::new).transpose()?,
            reason: reason.map(str::parse::<Reason>).transpose()?,
        })
    }
}
