//! What grows, and how far.

use std::num::NonZeroU32;

use serde::Serialize;

use crate::cli::bench::contender::Setup;
use crate::cli::bench::orders::Orders;

/// Invoices per second at which latency is measured.
const RATE: u32 = 1_000;
/// The same where there may be only one key, of which one event is under way at a time.
const RATE_OF_KEYS: u32 = 500;

const KEYS: [u32; 3] = [1, 1_000, 1_000_000];
const CONSUMERS: [u32; 3] = [1, 8, 64];
/// The last one leaves 1 KiB for the headers in what a NATS server takes by default, 1 MiB.
const PAYLOAD_BYTES: [u32; 4] = [100, 1 << 10, 64 << 10, 1_023 << 10];
const IN_FLIGHT: [u32; 5] = [1, 16, 64, 256, 1_024];

/// What grows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(in crate::cli::bench) enum Dimension {
    /// Ids that the ledger remembers when the host starts.
    Ids,
    /// Distinct ordering keys.
    Keys,
    /// Consumers that all read the same stream.
    Consumers,
    /// Bytes of an order's data.
    Payload,
    /// Attempts under way at once.
    InFlight,
}

impl Dimension {
    pub(super) const ALL: [Self; 5] = [Self::Ids, Self::Keys, Self::Consumers, Self::Payload, Self::InFlight];

    /// For the command line.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Ids => "ids",
            Self::Keys => "keys",
            Self::Consumers => "consumers",
            Self::Payload => "payload",
            Self::InFlight => "in-flight",
        }
    }

    /// For the head of a table.
    pub(super) fn title(self) -> &'static str {
        match self {
            Self::Ids => "remembered ids",
            Self::Keys => "keys",
            Self::Consumers => "consumers",
            Self::Payload => "data of an event",
            Self::InFlight => "in flight",
        }
    }

    /// Its sizes, the smallest first. A run has `events` orders, or fewer where they are dear; more only where there would not
    /// be as many keys otherwise.
    pub(super) fn sizes(self, events: u32, ids: &[u32]) -> Vec<Size> {
        match self {
            Self::Ids => {
                let mut ids = ids.to_vec();
                ids.sort_unstable();
                ids.dedup();
                let size = |ids| Size {
                    ids,
                    ..Size::plain(ids, events)
                };
                ids.into_iter().map(size).collect()
            }
            Self::Keys => KEYS.map(|keys| Size::of_keys(keys, events)).into(),
            Self::Consumers => CONSUMERS.map(|consumers| Size::of_consumers(consumers, events)).into(),
            Self::Payload => PAYLOAD_BYTES.map(|bytes| Size::of_payload(bytes, events)).into(),
            Self::InFlight => IN_FLIGHT.map(|attempts| Size::of_attempts(attempts, events)).into(),
        }
    }
}

/// One size of one dimension, with the runs that it gets.
pub(super) struct Size {
    /// How much of what grows.
    pub(super) figure: u32,
    /// The same for people.
    pub(super) label: String,
    /// Orders of a run.
    pub(super) events: u32,
    /// Orders per second at which latency is measured.
    pub(super) rate: u32,
    /// Ids that the ledger remembers.
    pub(super) ids: u32,
    pub(super) orders: Orders,
    pub(super) setup: Setup,
}

impl Size {
    /// With nothing grown yet.
    fn plain(figure: u32, events: u32) -> Self {
        Self {
            figure,
            label: figure.to_string(),
            events,
            rate: RATE,
            ids: 0,
            orders: Orders::default(),
            setup: Setup::default(),
        }
    }

    fn of_keys(keys: u32, events: u32) -> Self {
        let events = match keys {
            1 => events / 5,
            keys => events.max(keys),
        };
        let plain = Self::plain(keys, events);
        Self {
            rate: RATE_OF_KEYS,
            orders: Orders {
                customers: NonZeroU32::new(keys).unwrap_or(NonZeroU32::MIN),
                ..plain.orders
            },
            ..plain
        }
    }

    /// The rate is the same over all consumers, so that an order comes seldom and all of them have it at once.
    fn of_consumers(consumers: u32, events: u32) -> Self {
        let plain = Self::plain(consumers, (events / consumers).max(events / 25));
        Self {
            rate: RATE.div_ceil(consumers),
            setup: Setup {
                consumers,
                ..plain.setup
            },
            ..plain
        }
    }

    fn of_payload(bytes: u32, events: u32) -> Self {
        // As much as a disk takes beside all else: 13 and 20 MiB/s.
        let (events, rate) = match bytes {
            0..=4_096 => (events, RATE),
            4_097..=65_536 => (events / 10, 200),
            _ => (events / 100, 20),
        };
        let plain = Self::plain(bytes, events);
        Self {
            label: match bytes % 1_024 {
                0 => format!("{} KiB", bytes / 1_024),
                _ => format!("{bytes} B"),
            },
            rate,
            orders: Orders {
                data_bytes: bytes as usize,
                ..plain.orders
            },
            ..plain
        }
    }

    fn of_attempts(attempts: u32, events: u32) -> Self {
        let plain = Self::plain(attempts, events);
        Self {
            setup: Setup {
                concurrency: Some(attempts),
                ..plain.setup
            },
            ..plain
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_grow_and_are_no_size_twice() {
        for dimension in Dimension::ALL {
            let sizes = dimension.sizes(50_000, &[10, 0, 10]);
            let figures: Vec<u32> = sizes.iter().map(|size| size.figure).collect();
            assert!(
                figures.is_sorted_by(|one, next| one < next),
                "{dimension:?}: {figures:?}"
            );
            assert!(figures.len() > 1, "{dimension:?}");
        }
    }

    #[test]
    fn every_key_has_an_order() {
        for size in Dimension::Keys.sizes(10_000, &[]) {
            assert_eq!(size.orders.customers.get(), size.figure);
            assert!(size.events >= size.figure, "{} of {}", size.events, size.figure);
        }
    }

    #[test]
    fn consumers_share_the_rate() {
        let rates: Vec<u32> = Dimension::Consumers
            .sizes(50_000, &[])
            .iter()
            .map(|size| size.rate)
            .collect();
        assert_eq!(rates, [1_000, 125, 16]);
    }

    #[test]
    fn only_what_grows_differs_from_the_default() {
        let payload = Dimension::Payload.sizes(50_000, &[]);
        let labels: Vec<&str> = payload.iter().map(|size| size.label.as_str()).collect();
        assert_eq!(labels, ["100 B", "1 KiB", "64 KiB", "1023 KiB"]);
        assert!(
            payload
                .iter()
                .all(|size| size.ids == 0 && size.setup.concurrency.is_none())
        );
        let in_flight = Dimension::InFlight.sizes(50_000, &[]);
        assert!(in_flight.iter().all(|size| size.setup.concurrency == Some(size.figure)));
        assert!(
            in_flight
                .iter()
                .all(|size| size.orders.data_bytes == 256 && size.setup.consumers == 1)
        );
    }
}
