//! Numbers for tests.
#![allow(dead_code)]

/// A small generator (xorshift), so that a run can be told by its seed.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(2).wrapping_add(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    pub(crate) fn percent(&mut self, of: u64) -> bool {
        self.next() % 100 < of
    }

    /// Less than the limit.
    pub(crate) fn below(&mut self, limit: usize) -> usize {
        self.next() as usize % limit
    }
}
