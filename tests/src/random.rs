//! Chance that comes again: the same numbers for the same seed, on every machine.

/// Knuth's MMIX generator.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// Seeds next to each other have nothing in common.
    pub const fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x2545_f491_4f6c_dd1d)
    }

    /// Any 32 bits.
    pub const fn word(&mut self) -> u32 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 32) as u32
    }

    /// Below `bound`, which is not 0.
    pub const fn below(&mut self, bound: usize) -> usize {
        ((self.word() as u64 * bound as u64) >> 32) as usize
    }

    /// Whether something happens that does so `n` times in a hundred.
    pub const fn percent(&mut self, n: usize) -> bool {
        self.below(100) < n
    }

    /// Bytes.
    pub fn bytes(&mut self, length: usize) -> Vec<u8> {
        (0..length).map(|_| self.word() as u8).collect()
    }
}
