//! The signal bits (SBA): a page of ours in which the function says which DMBs were written into.
//!
//! Bits are counted from the most significant on, as on s390, and words are big-endian. Both sides change the page at the
//! same time, so each change is one atomic operation on the word that holds the bits.
//!
//! | byte | content |
//! |---|---|
//! | 0 | 0x80: there are signals, 0x40: there are events |
//! | 4 - 243 | a bit for each DMB index |
//! | 256 - 4095 | 16 bits for each DMB index: which of its elements |

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use crate::dibs::{DeviceError, Memory};

/// Bytes of the page.
pub(super) const LEN: usize = 4096;

/// Indexes of DMBs are below this.
pub(super) const END: u16 = 1920;

/// The first index in use, so that the bits in use begin with a word.
pub(super) const FIRST: u16 = 32;

const SUMMARY: u64 = 1 << 63;
const EVENT: u64 = 1 << 62;

/// Where the word with the bit of the first index is.
const BITS: usize = 8;
const WORDS: usize = (END as usize - FIRST as usize).div_ceil(64);
const MASKS: usize = 256;

/// What has been signalled since the last look.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Signalled {
    /// Indexes of DMBs.
    pub(super) indexes: Vec<u16>,
    /// There are events in the queue.
    pub(super) has_events: bool,
}

/// Takes out what has been signalled.
///
/// The summary goes first: whatever the function sets from now on interrupts once more.
pub(super) fn take(page: &Memory) -> Result<Signalled, DeviceError> {
    let head = page.word64(0)?;
    clear64(head, SUMMARY);
    let mut indexes = Vec::new();
    for (at, word) in page.words64(BITS, WORDS)?.iter().enumerate() {
        let mut bits = u64::from_be(word.load(Ordering::Acquire));
        while bits != 0 {
            let bit = bits.leading_zeros();
            bits &= !(1 << (63 - bit));
            // At most 64 * 30.
            let index = FIRST + 64 * at as u16 + bit as u16;
            if index < END {
                clear(page, index)?;
                indexes.push(index);
            }
        }
    }
    let has_events = clear64(head, EVENT);
    Ok(Signalled { indexes, has_events })
}

/// Takes back what is signalled of a DMB.
pub(super) fn clear(page: &Memory, index: u16) -> Result<(), DeviceError> {
    let (word, bit) = bit(page, index)?;
    clear64(word, bit);
    // Which elements it was does not matter: there is a signal for each DMB, and who gets it looks at all of it.
    let (word, shift) = mask(page, index)?;
    word.fetch_and(!(0xffffu32 << shift).to_be(), Ordering::AcqRel);
    Ok(())
}

/// What a function does for a signal; true if it has to interrupt.
pub(super) fn signal(page: &Memory, index: u16, element: u8) -> Result<bool, DeviceError> {
    let (word, shift) = mask(page, index)?;
    // As the loopback device of Linux has them, from the fourth bit on and around.
    let element = 0x1000u16.rotate_right(element.into());
    word.fetch_or((u32::from(element) << shift).to_be(), Ordering::AcqRel);
    let (word, bit) = bit(page, index)?;
    set64(word, bit);
    Ok(set64(page.word64(0)?, SUMMARY))
}

/// What a function does for an event that it has put into the queue; true if it has to interrupt.
pub(super) fn signal_event(page: &Memory) -> Result<bool, DeviceError> {
    Ok(set64(page.word64(0)?, EVENT))
}

/// Clears a bit; true if it was set.
fn clear64(word: &AtomicU64, bit: u64) -> bool {
    word.fetch_and(!bit.to_be(), Ordering::AcqRel) & bit.to_be() != 0
}

/// Sets a bit; true if it was not.
fn set64(word: &AtomicU64, bit: u64) -> bool {
    word.fetch_or(bit.to_be(), Ordering::AcqRel) & bit.to_be() == 0
}

/// The word of an index, and its bit in there.
fn bit(page: &Memory, index: u16) -> Result<(&AtomicU64, u64), DeviceError> {
    let number = usize::from(check(index)?);
    // Index 0 is in the fourth byte.
    let number = number + 32;
    Ok((page.word64(number / 64 * 8)?, 1 << (63 - number % 64)))
}

/// The word with the mask of an index, and how far that is from the lowest bit.
fn mask(page: &Memory, index: u16) -> Result<(&AtomicU32, u32), DeviceError> {
    let index = usize::from(check(index)?);
    let shift = if index.is_multiple_of(2) { 16 } else { 0 };
    Ok((page.word32(MASKS + index / 2 * 4)?, shift))
}

fn check(index: u16) -> Result<u16, DeviceError> {
    if index < END {
        return Ok(index);
    }
    Err(DeviceError::OutOfRange { offset: index.into(), len: 1, size: END.into() })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn page() -> Memory {
        Memory::anonymous(LEN).unwrap()
    }

    fn bytes(page: &Memory) -> Vec<u8> {
        let mut bytes = vec![0; LEN];
        page.read(0, &mut bytes).unwrap();
        bytes
    }

    /// Bytes that are not zero.
    fn set(page: &Memory) -> Vec<(usize, u8)> {
        bytes(page).into_iter().enumerate().filter(|(_, byte)| *byte != 0).collect()
    }

    #[test]
    fn bits_lie_as_on_s390() {
        for (index, at, bit) in [(32, 8, 0x80), (33, 8, 0x40), (39, 8, 1), (40, 9, 0x80), (1919, 243, 1)] {
            let page = page();
            assert!(signal(&page, index, 0).unwrap());
            // 0x1000 for the element 0, big-endian.
            assert_eq!(set(&page), [(0, 0x80), (at, bit), (256 + 2 * usize::from(index), 0x10)]);
        }
    }

    #[test]
    fn elements_have_a_bit_each() {
        let page = page();
        signal(&page, 32, 3).unwrap();
        signal(&page, 32, 4).unwrap();
        signal(&page, 33, 1).unwrap();
        assert_eq!(bytes(&page)[320..324], [0x03, 0, 0x08, 0]);
        clear(&page, 32).unwrap();
        assert_eq!(bytes(&page)[320..324], [0, 0, 0x08, 0]);
    }

    #[test]
    fn events_and_signals_are_apart() {
        let page = page();
        assert!(signal_event(&page).unwrap());
        assert!(!signal_event(&page).unwrap(), "interrupted already");
        assert!(signal(&page, 100, 0).unwrap());
        assert!(!signal(&page, 101, 0).unwrap(), "interrupted already");
        assert_eq!(bytes(&page)[0], 0xc0);
        assert_eq!(take(&page).unwrap(), Signalled { indexes: vec![100, 101], has_events: true });
        assert_eq!(set(&page), []);
        assert_eq!(take(&page).unwrap(), Signalled::default());
    }

    #[test]
    fn there_is_nothing_past_the_last() {
        let page = page();
        assert!(signal(&page, END, 0).is_err() && clear(&page, u16::MAX).is_err());
        // What is reserved is not ours, and tells us nothing.
        page.write(244, &[0xff; 12]).unwrap();
        assert_eq!(take(&page).unwrap(), Signalled::default());
        assert_eq!(bytes(&page)[244..256], [0xff; 12]);
    }

    proptest! {
        #[test]
        fn whatever_stands_there(bytes in proptest::collection::vec(any::<u8>(), LEN)) {
            let page = page();
            page.write(0, &bytes).unwrap();
            let indexes = take(&page).unwrap().indexes;
            prop_assert!(indexes.iter().all(|index| (FIRST..END).contains(index)));
            prop_assert!(indexes.is_sorted(), "each at most once");
            prop_assert_eq!(take(&page).unwrap(), Signalled::default());
        }

        #[test]
        fn what_is_signalled_is_taken_once(
            indexes in proptest::collection::btree_set(FIRST..END, 0..200), element in 0u8..16,
        ) {
            let page = page();
            for index in &indexes {
                signal(&page, *index, element).unwrap();
            }
            let taken: BTreeSet<_> = take(&page).unwrap().indexes.into_iter().collect();
            prop_assert_eq!(taken, indexes);
            prop_assert_eq!(set(&page), []);
        }
    }
}
