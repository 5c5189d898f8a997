//! Chance that repeats itself for the same seed.

/// A generator: xorshift64*.
#[derive(Clone, Debug)]
pub struct Chance(u64);

impl Chance {
    /// From a seed.
    #[must_use]
    pub fn seeded(seed: u64) -> Self {
        // Seeds that are near each other begin far from each other; 0 would stay 0.
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15).max(1))
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 32
    }

    /// Heads or tails.
    pub fn toss(&mut self) -> bool {
        self.next().is_multiple_of(2)
    }

    /// A number below `bound`, which is not 0.
    pub fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next()).unwrap_or(usize::MAX) % bound
    }
}
