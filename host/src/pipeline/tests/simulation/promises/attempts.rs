//! How attempts are counted, when they are made, and what follows from them.

use std::collections::{BTreeMap, BTreeSet};

use super::Story;
use crate::outcome::Reason;
use crate::pipeline::tests::simulation::policy;
use crate::pipeline::tests::simulation::trace::{Change, Fact, How, Number, Stop};

/// What is known of the attempts of an event since it came, or came back.
#[derive(Clone, Copy, Debug, Default)]
struct Tries {
    /// Durably failed.
    failed: u32,
    /// The next is not before then.
    next_at: u64,
    /// Attempts that ended in a way that counts.
    ended: u32,
    /// The number of the last one, and how it ended in the life of its host.
    last: u32,
    how: Option<How>,
    /// People have forgotten it: what is still on its way to an attempt is refused.
    is_purged: bool,
}

/// Goes through the attempts; `check` sees each fact before it is taken into account.
fn follow(
    story: &Story<'_>,
    mut check: impl FnMut(u64, Number, &Tries, &Fact) -> Result<(), String>,
) -> Result<(), String> {
    let mut tries: BTreeMap<Number, Tries> = BTreeMap::new();
    for (line, fact) in story.facts() {
        let event = match fact {
            Fact::Started => {
                tries.values_mut().for_each(|tries| tries.how = None);
                continue;
            }
            Fact::Called { event, .. } | Fact::Redriven { event } => *event,
            Fact::Purged { event: Some(event) } => *event,
            Fact::Wrote { event: Some(event), .. } => *event,
            Fact::Ended { call, .. } => story.by_call[call],
            _ => continue,
        };
        let tries = tries.entry(event).or_default();
        if !tries.is_purged {
            check(line.at, event, tries, fact).map_err(|why| format!("{why}: {line}"))?;
        }
        match fact {
            Fact::Called { attempt, .. } => (tries.last, tries.how) = (*attempt, None),
            Fact::Ended { how, .. } => {
                tries.ended += u32::from(!matches!(how, How::Succeeded | How::NotRun));
                tries.how = Some(*how);
            }
            Fact::Wrote {
                change: Change::Failed { failed, next_at },
                ..
            } => {
                (tries.failed, tries.next_at) = (*failed, *next_at);
            }
            Fact::Wrote {
                change: Change::Dead { .. },
                ..
            } => *tries = Tries::default(),
            Fact::Purged { .. } => tries.is_purged = true,
            _ => {}
        }
    }
    Ok(())
}

pub(super) fn counted(story: &Story<'_>) -> Result<(), String> {
    let counts_always = !policy::can_open(story.plan);
    follow(story, |_, event, tries, fact| match fact {
        Fact::Called { attempt, .. } if *attempt != tries.failed + 1 => Err(format!(
            "attempt {attempt} of event {event}, of which {} failed",
            tries.failed
        )),
        Fact::Called { attempt, .. } if counts_always && tries.how == Some(How::Failed) && *attempt <= tries.last => {
            Err(format!(
                "attempt {} of event {event} failed and did not count",
                tries.last
            ))
        }
        Fact::Wrote {
            change: Change::Failed { failed, .. },
            ..
        } if !(tries.failed..=tries.failed + 1).contains(failed) || *failed > tries.ended => Err(format!(
            "{failed} failures of event {event} are written; {} were, and {} attempts failed",
            tries.failed, tries.ended
        )),
        _ => Ok(()),
    })
}

pub(super) fn by_policy(story: &Story<'_>) -> Result<(), String> {
    let attempts = story.plan.retry.attempts.get();
    follow(story, |at, event, tries, fact| match fact {
        Fact::Called { .. } if tries.failed > 0 && at < tries.next_at => {
            Err(format!("event {event} is attempted before {} ms", tries.next_at))
        }
        Fact::Called { attempt, .. } if *attempt > attempts => {
            Err(format!("attempt {attempt} of event {event}: there are {attempts}"))
        }
        Fact::Wrote {
            change: Change::Dead { reason, failed, .. },
            ..
        } => {
            let is_right = match reason {
                Reason::Permanent => tries.how == Some(How::Refused) && *failed == tries.failed + 1,
                Reason::AttemptsExhausted | Reason::TimeLimit => {
                    tries.how == Some(How::Failed) && *failed == attempts && *failed == tries.failed + 1
                }
                Reason::Trap | Reason::MemoryLimit => {
                    tries.how == Some(How::Trapped) && *failed == attempts && *failed == tries.failed + 1
                }
                Reason::HostCrash => *failed == tries.failed,
                Reason::Undecodable | Reason::IdConflict => true,
                Reason::NoKey | Reason::EffectLimit | Reason::OutputRefused => false,
            };
            match is_right {
                true => Ok(()),
                false => Err(format!(
                    "event {event} is a dead letter for another reason than its attempts {tries:?}"
                )),
            }
        }
        _ => Ok(()),
    })
}

pub(super) fn killers_found(story: &Story<'_>) -> Result<(), String> {
    let (mut stops, mut drains) = (0, 0);
    // Events whose beginning is on record, and how many hosts died since then of each.
    let mut begun: BTreeSet<Number> = BTreeSet::new();
    let mut deaths: BTreeMap<Number, u32> = BTreeMap::new();
    // Attempts under way, and how many hosts died while each event was attempted.
    let mut running: BTreeMap<u32, Number> = BTreeMap::new();
    let mut kills: BTreeMap<Number, u32> = BTreeMap::new();
    for (line, fact) in story.facts() {
        match fact {
            Fact::Stopped(stop) => {
                stops += 1;
                // A drain takes beginnings back, as far as the ledger lets it in the little time that it has.
                std::mem::take(&mut begun)
                    .into_iter()
                    .for_each(|event| *deaths.entry(event).or_default() += 1);
                let running = std::mem::take(&mut running);
                match stop {
                    Stop::Drain => drains += 1,
                    Stop::Crash => running
                        .into_values()
                        .for_each(|event| *kills.entry(event).or_default() += 1),
                }
            }
            Fact::Called { call, event, .. } => {
                running.insert(*call, *event);
                let killed = kills.get(event).copied().unwrap_or(0);
                // Three hosts, and one more for each stop in good order between them.
                if killed >= 3 + drains {
                    return Err(format!(
                        "{killed} hosts died of event {event}, and it runs again: {line}"
                    ));
                }
            }
            Fact::Ended { call, .. } | Fact::Cut { call } => {
                if let Some(event) = running.remove(call) {
                    kills.remove(&event);
                }
            }
            Fact::Wrote {
                event: Some(event),
                change: Change::Begun,
                ..
            } => _ = begun.insert(*event),
            Fact::Wrote {
                event: Some(event),
                change: Change::Failed { .. },
                ..
            } => {
                begun.remove(event);
                deaths.remove(event);
                // Taken back, or it ended: what it may have killed before counts no more.
                kills.remove(event);
            }
            Fact::Wrote {
                event: Some(event),
                change: Change::Dead { reason, .. },
                ..
            } => {
                let seen = deaths.get(event).copied().unwrap_or(0);
                if *reason == Reason::HostCrash && (seen < 2 || stops < 3) {
                    return Err(format!(
                        "event {event} is found guilty of {seen} deaths of {stops}: {line}"
                    ));
                }
                begun.remove(event);
                kills.remove(event);
            }
            Fact::Wrote {
                event: Some(event),
                change: Change::Applied { .. },
                ..
            } => _ = begun.remove(event),
            _ => {}
        }
    }
    Ok(())
}
