//! What is counted of one direction of a connection, or of many.

use std::ops::AddAssign;

use super::layout::flow;

/// Upper bounds of the classes by which messages are counted, in bytes; what is larger is in one more class.
pub const SIZE_CLASSES: [u64; CLASSES - 1] = [
    64,
    256,
    1 << 10,
    4 << 10,
    8 << 10,
    16 << 10,
    32 << 10,
    64 << 10,
    128 << 10,
    256 << 10,
    512 << 10,
    1 << 20,
];

/// Classes of sizes.
pub(super) const CLASSES: usize = 13;

/// Calls by the size of what they carried: up to each of [`SIZE_CLASSES`], and those above the last.
pub type Sizes = [u64; CLASSES];

/// The class of a message. Without a loop: it is asked at each one.
#[inline]
pub(super) fn class_of(bytes: u64) -> usize {
    // The exponent of the next power of two: the bounds are 2^6, every other one up to 2^12, and each from 2^13 on.
    let exponent = (u64::BITS - bytes.saturating_sub(1).leading_zeros()) as usize;
    match exponent {
        0..=6 => 0,
        7..=12 => (exponent - 5) / 2,
        _ => (exponent - 9).min(CLASSES - 1),
    }
}

/// Bytes, and calls that carried them.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct ByWay {
    /// Payload bytes.
    pub bytes: u64,
    /// Calls that read or wrote at least one.
    pub calls: u64,
}

/// What went in one direction.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct Flow {
    /// Through shared memory.
    pub ring: ByWay,
    /// Through TCP.
    pub tcp: ByWay,
    /// How often the peer had to be woken: for each a system call.
    pub wakeups: u64,
    /// Calls by the size of what they carried.
    pub sizes: Sizes,
}

impl Flow {
    /// Takes the words of [`flow`]; those that are missing are zero.
    pub(super) fn of_words(words: &[u64]) -> Self {
        let word = |at: usize| words.get(at).copied().unwrap_or(0);
        Self {
            ring: ByWay { bytes: word(flow::RING_BYTES), calls: word(flow::RING_CALLS) },
            tcp: ByWay { bytes: word(flow::TCP_BYTES), calls: word(flow::TCP_CALLS) },
            wakeups: word(flow::WAKEUPS),
            sizes: std::array::from_fn(|class| word(flow::SIZES + class)),
        }
    }

    /// Bytes either way.
    pub fn bytes(&self) -> u64 {
        self.ring.bytes.saturating_add(self.tcp.bytes)
    }

    /// Calls either way.
    pub fn calls(&self) -> u64 {
        self.ring.calls.saturating_add(self.tcp.calls)
    }
}

/// Saturates: the numbers of others are not to be trusted.
impl AddAssign for Flow {
    fn add_assign(&mut self, other: Self) {
        let add = |to: &mut u64, n: u64| *to = to.saturating_add(n);
        add(&mut self.ring.bytes, other.ring.bytes);
        add(&mut self.ring.calls, other.ring.calls);
        add(&mut self.tcp.bytes, other.tcp.bytes);
        add(&mut self.tcp.calls, other.tcp.calls);
        add(&mut self.wakeups, other.wakeups);
        self.sizes.iter_mut().zip(other.sizes).for_each(|(to, n)| add(to, n));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_size_is_in_its_class() {
        for (class, bound) in SIZE_CLASSES.into_iter().enumerate() {
            assert_eq!(class_of(bound), class, "{bound}");
            assert_eq!(class_of(bound + 1), class + 1, "{bound} and one more");
        }
        assert_eq!(class_of(0), 0);
        assert_eq!(class_of(1), 0);
        assert_eq!(class_of(u64::MAX), CLASSES - 1);
    }

    #[test]
    fn sums_do_not_overflow() {
        let mut sum = Flow::of_words(&[u64::MAX; flow::LEN]);
        sum += Flow::of_words(&[1; flow::LEN]);
        assert_eq!(sum, Flow::of_words(&[u64::MAX; flow::LEN]));
        assert_eq!((sum.bytes(), sum.calls()), (u64::MAX, u64::MAX));
    }
}
