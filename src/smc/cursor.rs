//! Positions in a ring, and the arithmetic on them.

use crate::sync::{AtomicU64, Ordering};

use super::PeerMisbehaved;

/// Bytes in front of the ring in a DMB: the CDC slot.
pub(crate) const CDC_LEN: usize = 32;

/// Bytes in the data ring of a DMB: the DMB less its CDC slot, and so never a power of two.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct RingLen(u32);

impl RingLen {
    /// The ring of a DMB of `dmb_len` bytes; `None` if there is no room for one or it would not fit in 32 bits.
    pub(crate) fn of_dmb(dmb_len: usize) -> Option<Self> {
        Self::new(u32::try_from(dmb_len.checked_sub(CDC_LEN)?).ok()?)
    }

    /// A ring of so many bytes; `None` if it cannot be.
    pub(crate) fn new(len: u32) -> Option<Self> {
        // Twice the ring must fit in 32 bits, so that no sum of two positions overflows.
        (1..=u32::MAX / 2).contains(&len).then_some(Self(len))
    }

    pub(crate) const fn get(self) -> u32 {
        self.0
    }
}

/// A position in a ring: an offset below the ring's length, and how often the ring was gone round, modulo 2^16.
///
/// Equal offsets with equal laps mean "empty", with different laps "full"; all bytes of a ring are usable.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(crate) struct Cursor {
    pub(crate) wrap: u16,
    pub(crate) count: u32,
}

impl Cursor {
    /// The two numbers as a word of the CDC slot has them, in the byte order of the host, with the two flag bytes.
    pub(crate) fn to_word(self, flags: [u8; 2]) -> u64 {
        let [w0, w1] = self.wrap.to_ne_bytes();
        let [c0, c1, c2, c3] = self.count.to_ne_bytes();
        u64::from_ne_bytes([w0, w1, c0, c1, c2, c3, flags[0], flags[1]])
    }

    /// Splits a word of the CDC slot. The count is whatever the peer wrote.
    pub(crate) fn from_word(word: u64) -> (Self, [u8; 2]) {
        let [w0, w1, c0, c1, c2, c3, f0, f1] = word.to_ne_bytes();
        let cursor = Self { wrap: u16::from_ne_bytes([w0, w1]), count: u32::from_ne_bytes([c0, c1, c2, c3]) };
        (cursor, [f0, f1])
    }

    /// The position `n` bytes on, `n` at most one ring.
    pub(crate) fn add(self, ring: RingLen, n: u32) -> Self {
        debug_assert!(self.count < ring.get() && n <= ring.get());
        let count = self.count + n;
        if count >= ring.get() {
            Self { wrap: self.wrap.wrapping_add(1), count: count - ring.get() }
        } else {
            Self { wrap: self.wrap, count }
        }
    }

    /// As [`Cursor::distance`], where this position too may be anything.
    pub(crate) fn checked_distance(self, to: Self, ring: RingLen) -> Option<u32> {
        if self.count < ring.get() { self.distance(to, ring).ok() } else { None }
    }

    /// Bytes from here to `to`, if `to` is a valid position at most one ring ahead.
    ///
    /// Linux takes any cursor; here one that cannot be is refused.
    pub(crate) fn distance(self, to: Self, ring: RingLen) -> Result<u32, PeerMisbehaved> {
        let impossible = PeerMisbehaved::Cursor {
            seen: (to.wrap, to.count),
            from: (self.wrap, self.count),
            ring: ring.get(),
        };
        if to.count >= ring.get() {
            return Err(impossible);
        }
        if to.wrap == self.wrap {
            to.count.checked_sub(self.count).ok_or(impossible)
        } else if to.wrap == self.wrap.wrapping_add(1) && to.count <= self.count {
            Ok(ring.get() - self.count + to.count)
        } else {
            Err(impossible)
        }
    }
}

/// Takes the one look at a word of the CDC slot. What the peer did before it wrote the word is visible afterwards.
#[inline]
pub(crate) fn load(word: &AtomicU64) -> (Cursor, [u8; 2]) {
    // Acquire: the peer stores a cursor after the bytes that it covers.
    Cursor::from_word(word.load(Ordering::Acquire))
}

/// At most two runs of bytes within a ring, as (offset in the ring, length): what a span looks like where it wraps.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Span {
    pub(crate) first: (u32, u32),
    pub(crate) second: (u32, u32),
}

impl Span {
    /// The span of `len` bytes from `from`; `len` is at most one ring.
    pub(crate) fn new(from: Cursor, len: u32, ring: RingLen) -> Self {
        let first = len.min(ring.get() - from.count);
        Self { first: (from.count, first), second: (0, len - first) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ring(len: u32) -> RingLen {
        RingLen::of_dmb(len as usize + CDC_LEN).unwrap()
    }

    fn at(wrap: u16, count: u32) -> Cursor {
        Cursor { wrap, count }
    }

    #[test]
    fn rings_of_dmbs() {
        assert_eq!(RingLen::of_dmb(16384).unwrap().get(), 16352);
        assert_eq!(RingLen::of_dmb(1 << 20).unwrap().get(), 1_048_544);
        assert_eq!(RingLen::of_dmb(32), None);
        assert_eq!(RingLen::of_dmb(0), None);
        assert_eq!(RingLen::of_dmb(1 << 32), None);
    }

    #[test]
    fn words_as_linux_writes_them() {
        // "5 bytes sent" and "close with cons (0, 65000)" of a little-endian host.
        if cfg!(target_endian = "little") {
            assert_eq!(at(0, 5).to_word([0, 0]).to_ne_bytes(), [0, 0, 5, 0, 0, 0, 0, 0]);
            assert_eq!(at(0, 65000).to_word([0, 0x40]).to_ne_bytes(), [0, 0, 0xe8, 0xfd, 0, 0, 0, 0x40]);
        } else {
            assert_eq!(at(0, 5).to_word([0, 0]).to_ne_bytes(), [0, 0, 0, 0, 0, 5, 0, 0]);
        }
    }

    #[test]
    fn full_and_empty_differ_by_the_lap() {
        let r = ring(100);
        assert_eq!(at(3, 40).distance(at(3, 40), r).unwrap(), 0);
        assert_eq!(at(3, 40).distance(at(4, 40), r).unwrap(), 100);
        assert_eq!(at(u16::MAX, 40).distance(at(0, 39), r).unwrap(), 99);
    }

    #[test]
    fn impossible_cursors_are_refused() {
        let r = ring(100);
        for to in [at(3, 100), at(3, u32::MAX), at(3, 39), at(4, 41), at(5, 0), at(2, 99)] {
            assert!(at(3, 40).distance(to, r).is_err(), "{to:?}");
        }
    }

    proptest! {
        #[test]
        fn adding_and_measuring_agree(len in 1u32..2_000_000, wrap: u16, count: u32, n: u32) {
            let r = ring(len);
            let from = at(wrap, count % len);
            let n = n % (len + 1);
            let to = from.add(r, n);
            prop_assert!(to.count < len);
            prop_assert_eq!(from.distance(to, r).unwrap(), n);
        }

        #[test]
        fn words_keep_cursor_and_flags(wrap: u16, count: u32, flags: [u8; 2]) {
            prop_assert_eq!(Cursor::from_word(at(wrap, count).to_word(flags)), (at(wrap, count), flags));
        }

        #[test]
        fn spans_stay_in_the_ring(len in 1u32..100_000, count: u32, n: u32) {
            let r = ring(len);
            let n = n % (len + 1);
            let span = Span::new(at(0, count % len), n, r);
            prop_assert_eq!(span.first.1 + span.second.1, n);
            prop_assert!(span.first.0 + span.first.1 <= len);
            prop_assert!(span.second.1 <= count % len);
        }
    }
}
