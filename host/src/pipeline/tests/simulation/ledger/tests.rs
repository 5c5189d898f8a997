//! The simulated ledger against the suite. Runs are far shorter than a retention, so that it has none: the promises of that are left out.

use std::collections::BTreeSet;
use std::sync::Arc;

use futures_util::future::BoxFuture;

use super::Vault;
use crate::ledger::suite::{Sides, Stop, Subject, suite};
use crate::ledger::{PayloadHash, RecordKey};
use crate::pipeline::tests::simulation::case::Case;
use crate::pipeline::tests::simulation::events::Events;
use crate::pipeline::tests::simulation::world::World;

struct Simulated {
    world: Arc<World>,
    vault: Arc<Vault>,
}

fn simulated() -> Simulated {
    let case = Case {
        seed: 1,
        events: 0,
        faults: BTreeSet::new(),
    };
    let world = Arc::new(World::new(case, None));
    let events = Arc::new(Events::new(&world));
    let vault = Vault::new(world.clone(), events);
    Simulated { world, vault }
}

impl Subject for Simulated {
    fn open(&mut self) -> BoxFuture<'_, Sides> {
        let access = self.vault.open(self.world.begin_life());
        Box::pin(std::future::ready(Sides {
            ledger: access.clone(),
            outbox: access.clone(),
            parking: access.clone(),
            letters: access,
        }))
    }

    fn stop(&mut self, stop: Stop) -> BoxFuture<'_, ()> {
        self.world.end_life();
        match stop {
            Stop::Clean => self.vault.close(),
            Stop::Crash => self.vault.crash(),
        }
        Box::pin(std::future::ready(()))
    }

    fn outlive(&mut self) -> BoxFuture<'_, ()> {
        unreachable!("it has no retention")
    }

    fn finish_elsewhere(&mut self, record: RecordKey, payload: PayloadHash) -> BoxFuture<'_, ()> {
        self.vault
            .state
            .lock()
            .unwrap()
            .tables
            .finish_elsewhere(record, payload);
        Box::pin(std::future::ready(()))
    }
}

suite! { simulated();
    applied_once
    twice_in_one_write_is_applied_once
    of_two_writers_one_wins
    everything_of_an_entry_survives_a_crash
    a_refused_entry_writes_nothing
    a_read_that_is_stale_conflicts
    entries_of_one_write_see_each_other
    deleted_state_has_version_zero
    counters_merge_and_saturate
    state_keys_are_listed_in_order
    buckets_and_consumers_do_not_share_state
    outbox_rows_ascend_across_restarts
    confirmed_rows_are_forgotten
    rows_confirmed_bit_by_bit_are_forgotten
    large_outputs_of_one_write_come_back_page_by_page
    failed_attempts_survive_and_end_with_success
    starts_are_counted_across_crashes
    a_parked_lane_keeps_its_order
    parked_twice_is_refused
    a_parked_event_runs_from_its_place_only
    attempts_of_a_parked_event_survive
    a_dead_letter_keeps_everything
    a_dead_event_is_done
    dead_letters_are_listed_oldest_first
    a_list_goes_on_where_it_was_whatever_vanishes
    events_applied_meanwhile_are_counted
    a_held_lane_waits_for_its_letter
    a_redriven_event_runs_and_its_letter_is_gone
    a_redriven_event_that_dies_again_is_one_letter
    redriving_twice_parks_once
    without_a_hold_a_redriven_event_goes_behind
    a_purged_letter_frees_its_lane_and_never_runs
    purging_takes_a_redriven_event_out_again
    a_conflict_is_a_letter_beside_its_event
    a_refused_output_is_never_redriven
    marks_are_suspect_only_after_a_crash
    an_event_that_is_done_already_leaves_the_parking
}
