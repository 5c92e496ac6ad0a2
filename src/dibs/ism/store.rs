//! How data gets into a remote DMB: by store blocks into BAR 0, whose address says where to.
//!
//! | bits of the address | meaning |
//! |---|---|
//! | 63-32 | the token; its other bits are zero, and so are those from 48 on |
//! | 31-24 | index of the element, which the owner finds as a bit of the DMB's mask |
//! | 23 | the owner is signalled |
//! | 22-0 | offset in the DMB |

use std::ops::Range;

use crate::dibs::{DeviceError, DmbToken};

/// A store block lies within a page.
pub(super) const PAGE: usize = 4096;

/// The largest DMB; and none crosses a multiple of this.
pub(super) const SEGMENT: usize = 1 << 20;

const SIGNAL: u64 = 1 << 23;
const ELEMENT_SHIFT: u32 = 24;
const OFFSETS: u64 = SIGNAL - 1;
const TOKENS: u64 = 0x0000_ffff_0000_0000;

/// True if it can be the token of a DMB: all its bits have a place in an address.
pub(super) fn is_token(token: DmbToken) -> bool {
    token.0 != 0 && token.0 & !TOKENS == 0
}

/// Where a store block goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Address {
    pub(super) token: DmbToken,
    pub(super) element: u8,
    pub(super) signals: bool,
    pub(super) offset: usize,
}

impl Address {
    pub(super) fn emit(self) -> u64 {
        let signal = if self.signals { SIGNAL } else { 0 };
        // An offset in a segment.
        self.token.0 | u64::from(self.element) << ELEMENT_SHIFT | signal | self.offset as u64 & OFFSETS
    }

    /// `None` if it has bits that mean nothing.
    pub(super) fn parse(address: u64) -> Option<Self> {
        let token = DmbToken(address & !0xffff_ffff);
        // The lowest eight of these bits.
        let element = (address >> ELEMENT_SHIFT) as u8;
        let (signals, offset) = (address & SIGNAL != 0, (address & OFFSETS) as usize);
        is_token(token).then_some(Self { token, element, signals, offset })
    }
}

/// A store block: its address, and which of the data it takes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Piece {
    pub(super) address: Address,
    pub(super) data: Range<usize>,
}

/// The store blocks for `len` bytes at an address: as few as there can be, of at most `max` bytes each. Only the last of
/// them signals. No bytes are no blocks, and so no signal.
///
/// # Errors
/// [`DeviceError::OutOfRange`] if no DMB has such an offset.
pub(super) fn pieces(
    to: Address,
    len: usize,
    max: usize,
) -> Result<impl Iterator<Item = Piece>, DeviceError> {
    if to.offset.checked_add(len).is_none_or(|end| end > SEGMENT) {
        return Err(DeviceError::OutOfRange { offset: to.offset, len, size: SEGMENT });
    }
    let mut at = 0;
    Ok(std::iter::from_fn(move || {
        if at == len {
            return None;
        }
        let offset = to.offset + at;
        let room = PAGE - offset % PAGE;
        let data = at..at + room.min(max.max(1)).min(len - at);
        at = data.end;
        Some(Piece { address: Address { offset, signals: to.signals && at == len, ..to }, data })
    }))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TOKEN: DmbToken = DmbToken(0x0000_00a1_0000_0000);

    fn to(offset: usize, signals: bool) -> Address {
        Address { token: TOKEN, element: 0, signals, offset }
    }

    fn addresses(to: Address, len: usize, max: usize) -> Vec<(u64, usize)> {
        let pieces = pieces(to, len, max).unwrap();
        pieces.map(|piece| (piece.address.emit(), piece.data.len())).collect()
    }

    #[test]
    fn the_examples() {
        assert_eq!(addresses(to(0, true), 32, PAGE), [(0xa1_0080_0000, 32)]);
        assert_eq!(addresses(to(4064, false), 100, PAGE), [(0xa1_0000_0fe0, 32), (0xa1_0000_1000, 68)]);
        assert_eq!(
            addresses(to(4064, true), 100, 40),
            [(0xa1_0000_0fe0, 32), (0xa1_0000_1000, 40), (0xa1_0080_1028, 28)]
        );
        let element = Address { element: 0xff, ..to(0x7_ffff, true) };
        assert_eq!(addresses(element, 1, PAGE), [(0xa1_ff87_ffff, 1)]);
        assert_eq!(addresses(to(17, true), 0, PAGE), []);
    }

    #[test]
    fn tokens_have_their_place() {
        assert!(is_token(TOKEN) && is_token(DmbToken(0xffff_0000_0000)));
        for wrong in [0, 1, 0xa1_0000_0001, 0xa1_8000_0000, 1 << 48, u64::MAX] {
            assert!(!is_token(DmbToken(wrong)), "{wrong:x}");
        }
    }

    #[test]
    fn offsets_that_no_dmb_has() {
        assert!(pieces(to(SEGMENT, false), 0, PAGE).is_ok());
        for (offset, len) in [(SEGMENT, 1), (SEGMENT - 1, 2), (usize::MAX, 1), (usize::MAX, 0)] {
            assert!(matches!(pieces(to(offset, false), len, PAGE), Err(DeviceError::OutOfRange { .. })));
        }
    }

    proptest! {
        #[test]
        fn all_data_in_few_blocks(
            offset in 0usize..40_000, len in 0usize..40_000, max in 1usize..5000, signals: bool,
        ) {
            let pieces: Vec<_> = pieces(to(offset, signals), len, max).unwrap().collect();
            let mut at = 0;
            for piece in &pieces {
                prop_assert_eq!(piece.data.start, at);
                prop_assert_eq!(piece.address.offset, offset + at);
                prop_assert!(!piece.data.is_empty() && piece.data.len() <= max);
                prop_assert!(piece.address.offset % PAGE + piece.data.len() <= PAGE);
                at = piece.data.end;
                prop_assert_eq!(piece.address.signals, signals && at == len);
                prop_assert_eq!(Address::parse(piece.address.emit()), Some(piece.address));
            }
            prop_assert_eq!(at, len);
            // No page takes more blocks than its bytes need.
            for page in offset / PAGE..=(offset + len) / PAGE {
                let within = (page * PAGE).max(offset)..((page + 1) * PAGE).min(offset + len);
                let blocks = pieces.iter().filter(|piece| piece.address.offset / PAGE == page).count();
                prop_assert_eq!(blocks, within.len().div_ceil(max));
            }
        }

        #[test]
        fn addresses_are_parsed_or_refused(address: u64) {
            if let Some(parsed) = Address::parse(address) {
                prop_assert_eq!(parsed.emit(), address);
            } else {
                prop_assert!(address >> 48 != 0 || address >> 32 == 0);
            }
        }
    }
}
