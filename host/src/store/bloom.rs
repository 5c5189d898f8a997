//! Which ids a bucket may hold, in memory: a Bloom filter that grows. Nearly every look-up is for an id that is in no bucket, and
//! is answered here, by about one line of memory for each filter, instead of by the tables of the engine.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use fastbloom::AtomicBloomFilter;

/// Bits for each id, and how many of them it sets: one in a thousand ids that a full filter does not hold is taken for one that
/// it may hold, and asked of the engine.
const BITS_PER_ID: u64 = 16;
const HASHES: u32 = 6;

/// Ids that the first filter is made for, at least: 128 KiB.
const IDS_MIN: u64 = 64 * 1024;

/// Each filter is made for twice as many ids as the one before, so that no bucket comes to more.
const STAGES: usize = 32;

/// The ids of one bucket. All threads may ask, while any of them adds.
pub(super) struct Bloom {
    /// Ids that the first stage is made for.
    first: u64,
    added: AtomicU64,
    stages: [OnceLock<AtomicBloomFilter>; STAGES],
    is_whole: AtomicBool,
}

impl Bloom {
    /// For a bucket of about so many ids, none of which it knows. It is whole if the bucket is empty.
    pub(super) fn new(expected: u64, is_whole: bool) -> Self {
        Self {
            first: expected.max(IDS_MIN),
            added: AtomicU64::new(0),
            stages: [const { OnceLock::new() }; STAGES],
            is_whole: AtomicBool::new(is_whole),
        }
    }

    /// Adds an id: before it is in the bucket, so that nobody finds it there and not here.
    pub(super) fn add(&self, id: [u8; 16]) {
        let number = self.added.fetch_add(1, Ordering::Relaxed);
        // The stages up to n hold first * (2^(n+1) - 1) ids.
        let stage = (number / self.first + 1).ilog2() as usize;
        if let Some(filter) = self.stages.get(stage) {
            filter.get_or_init(|| self.stage(stage)).insert_hash(hash(id));
        }
    }

    fn stage(&self, stage: usize) -> AtomicBloomFilter {
        let bits = (self.first * BITS_PER_ID) << stage;
        AtomicBloomFilter::with_num_bits(usize::try_from(bits).unwrap_or(usize::MAX)).hashes(HASHES)
    }

    /// Whether the bucket may hold an id. Until it is whole, it may hold any.
    pub(super) fn may_hold(&self, id: [u8; 16]) -> bool {
        !self.is_whole() || self.holds(id)
    }

    /// Whether an id was added, or is taken for one that was.
    pub(super) fn holds(&self, id: [u8; 16]) -> bool {
        let mut filters = self.stages.iter().map_while(OnceLock::get);
        filters.any(|filter| filter.contains_hash(hash(id)))
    }

    /// Whether everything that is in the bucket has been added.
    pub(super) fn is_whole(&self) -> bool {
        self.is_whole.load(Ordering::Acquire)
    }

    /// From now on it is whole.
    pub(super) fn complete(&self) {
        self.is_whole.store(true, Ordering::Release);
    }

    /// Its filters, as they are now.
    pub(super) fn words(&self) -> Vec<Vec<u64>> {
        let filters = self.stages.iter().map_while(OnceLock::get);
        filters.map(|filter| filter.iter().collect()).collect()
    }

    /// Takes filters of old, before anything is added.
    pub(super) fn restore(&self, filters: Vec<Vec<u64>>) {
        for (stage, words) in self.stages.iter().zip(filters) {
            stage.get_or_init(|| AtomicBloomFilter::from_vec(words).hashes(HASHES));
        }
    }

    /// Ids that were added; those that were added twice count twice.
    pub(super) fn len(&self) -> u64 {
        self.added.load(Ordering::Relaxed)
    }
}

/// An id is a hash already: eight bytes of it are one, too.
fn hash(id: [u8; 16]) -> u64 {
    let [a, b, c, d, e, f, g, h, ..] = id;
    u64::from_ne_bytes([a, b, c, d, e, f, g, h])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: u64) -> [u8; 16] {
        let hash = xxhash_rust::xxh3::xxh3_128(&number.to_ne_bytes());
        hash.to_ne_bytes()
    }

    fn filled(expected: u64, ids: u64) -> Bloom {
        let bloom = Bloom::new(expected, true);
        (0..ids).for_each(|number| bloom.add(id(number)));
        bloom
    }

    #[test]
    fn every_id_that_was_added_is_found_however_many_more_than_expected_there_are() {
        let ids = 10 * IDS_MIN;
        let bloom = filled(1, ids);
        assert_eq!((0..ids).filter(|number| !bloom.may_hold(id(*number))).count(), 0);
        assert_eq!(bloom.len(), ids);
    }

    #[test]
    fn of_ids_that_were_not_added_one_in_a_thousand_is_taken_for_one_that_was() {
        let ids = 2 * IDS_MIN;
        let bloom = filled(ids, ids);
        let wrong = (ids..2 * ids).filter(|number| bloom.may_hold(id(*number))).count() as u64;
        assert!(wrong <= ids * 2 / 1_000, "{wrong} of {ids}");
    }

    #[test]
    fn restored_it_holds_the_same() {
        let ids = 3 * IDS_MIN;
        let bloom = filled(1, ids);
        let restored = Bloom::new(1, false);
        restored.restore(bloom.words());
        restored.complete();
        for number in 0..2 * ids {
            assert_eq!(restored.may_hold(id(number)), bloom.may_hold(id(number)), "{number}");
        }
    }

    #[test]
    fn until_it_is_whole_it_may_hold_any() {
        let bloom = Bloom::new(0, false);
        assert!(bloom.may_hold(id(1)));
        bloom.complete();
        assert!(!bloom.may_hold(id(1)));
    }
}
