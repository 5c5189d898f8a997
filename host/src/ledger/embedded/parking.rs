//! The parking: events of lanes that wait in the ledger.

use futures_util::future::BoxFuture;

use super::rows::{self, Attempts, Lane, Parked};
use super::{Embedded, Error};
use crate::event::key::LaneKey;
use crate::ledger::{ParkedEvent, ParkedLane, Parking};
use crate::plan::Name;
use crate::store::{self, Table, Tables};

impl Parking for Embedded {
    fn lanes<'a>(&'a self, consumer: &'a Name) -> BoxFuture<'a, Result<Vec<ParkedLane>, Error>> {
        let prefix = rows::lane_prefix(consumer).done();
        let lanes = self.store.read_apart(move |tables| lanes(tables, &prefix));
        Box::pin(async move { Ok(lanes.await?) })
    }

    fn first<'a>(
        &'a self,
        consumer: &'a Name,
        lane: &'a LaneKey,
        limit: usize,
    ) -> BoxFuture<'a, Result<Vec<ParkedEvent>, Error>> {
        let prefix = rows::parked_prefix(consumer, lane).done();
        let events = self.store.read_apart(move |tables| first(tables, &prefix, limit));
        Box::pin(async move { Ok(events.await?) })
    }
}

/// A lane that is held is parked even while nothing waits in it: what comes next must wait.
fn lanes(tables: &Tables, prefix: &[u8]) -> Result<Vec<ParkedLane>, store::Error> {
    let mut lanes = Vec::new();
    for row in tables.prefix(Table::Lanes, prefix) {
        let (key, value) = row?;
        let lane: Lane = store::decode(&value)?;
        if lane.waiting > 0 || lane.held_by.is_some() {
            lanes.push(ParkedLane {
                lane: rows::read_lane_key(prefix, &key)?,
                waiting: lane.waiting,
                held_by: lane.held_by,
            });
        }
    }
    Ok(lanes)
}

fn first(tables: &Tables, prefix: &[u8], limit: usize) -> Result<Vec<ParkedEvent>, store::Error> {
    let rows = tables.prefix(Table::Parked, prefix).take(limit);
    rows.map(|row| {
        let (key, value) = row?;
        let Parked {
            record,
            position,
            message,
        } = store::decode(&value)?;
        let Attempts { history, started } = rows::attempts(tables, record)?;
        Ok(ParkedEvent {
            id: rows::read_parked_key(&key)?,
            record,
            position,
            message,
            history,
            started,
        })
    })
    .collect()
}
