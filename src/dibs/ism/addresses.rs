//! Where our memory appears to the function: which addresses of its DMA window are free.

use std::{collections::BTreeMap, ops::Range};

use super::store::{PAGE, SEGMENT};

/// Free addresses. What is taken begins at a multiple of its size, rounded up to a power of two; so no DMB crosses a
/// segment.
#[derive(Debug)]
pub(super) struct Addresses {
    /// Ends of free parts by where they begin; no two touch.
    free: BTreeMap<u64, u64>,
}

impl Addresses {
    /// All whole pages of the window are free.
    pub(super) fn new(window: Range<u64>) -> Self {
        let page = PAGE as u64;
        // Zero is not given out: it is no address to many.
        let start = window.start.max(1).checked_next_multiple_of(page);
        let end = window.end / page * page;
        let free = start.filter(|start| *start < end).map(|start| (start, end));
        Self { free: free.into_iter().collect() }
    }

    /// Takes room for `len` bytes, a multiple of a page and at most a segment: the lowest that there is.
    pub(super) fn take(&mut self, len: usize) -> Option<u64> {
        if len == 0 || len > SEGMENT || !len.is_multiple_of(PAGE) {
            return None;
        }
        let (size, len) = (len.next_power_of_two() as u64, len as u64);
        let (start, end, at) = self.free.iter().find_map(|(start, end)| {
            let at = start.checked_next_multiple_of(size)?;
            (at.checked_add(len)? <= *end).then_some((*start, *end, at))
        })?;
        self.free.remove(&start);
        self.add(start..at);
        self.add(at + len..end);
        Some(at)
    }

    /// Gives back what was taken.
    pub(super) fn give_back(&mut self, at: u64, len: usize) {
        let (mut start, mut end) = (at, at.saturating_add(len as u64));
        if let Some((before, _)) = self.free.range(..at).next_back().filter(|(_, to)| **to == at) {
            start = *before;
        }
        if let Some(after) = self.free.remove(&end) {
            end = after;
        }
        self.add(start..end);
    }

    /// Bytes that are free, in however many parts.
    pub(super) fn left(&self) -> u64 {
        self.free.iter().map(|(start, end)| end - start).sum()
    }

    fn add(&mut self, part: Range<u64>) {
        if !part.is_empty() {
            self.free.insert(part.start, part.end);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn only_whole_pages_of_the_window() {
        let mut addresses = Addresses::new(0..3 * 4096 + 1);
        assert_eq!([addresses.take(4096), addresses.take(4096)], [Some(4096), Some(8192)]);
        assert_eq!(addresses.take(4096), None);
        for nothing in [0..0, 5..4095, 0..4096, u64::MAX - 10..u64::MAX, Range { start: 9, end: 3 }] {
            assert_eq!(Addresses::new(nothing).take(4096), None);
        }
        for wrong in [0, 1, 4095, SEGMENT + PAGE, usize::MAX] {
            assert_eq!(Addresses::new(0..u64::MAX).take(wrong), None);
        }
    }

    #[test]
    fn the_end_of_the_window_is_the_end() {
        let mut addresses = Addresses::new(u64::MAX - 16383..u64::MAX);
        assert_eq!(addresses.take(16384), None);
        assert!(addresses.take(8192).is_some());
    }

    proptest! {
        #[test]
        fn nothing_overlaps_or_crosses(
            start in 0u64..1 << 40, lens in proptest::collection::vec((1usize..=256, any::<bool>()), 0..60),
        ) {
            let window = start..start + (16 << 20);
            let mut addresses = Addresses::new(window.clone());
            let all = addresses.left();
            let mut taken: Vec<(u64, usize)> = Vec::new();
            for (pages, is_given_back) in lens {
                let len = pages * PAGE;
                if let Some(at) = addresses.take(len) {
                    let end = at + len as u64;
                    prop_assert!(at >= window.start && end <= window.end);
                    prop_assert_eq!(at % PAGE as u64, 0);
                    prop_assert_eq!(at / SEGMENT as u64, (end - 1) / SEGMENT as u64);
                    for (other, len) in &taken {
                        prop_assert!(end <= *other || other + *len as u64 <= at);
                    }
                    taken.push((at, len));
                }
                if is_given_back && !taken.is_empty() {
                    let (at, len) = taken.swap_remove(0);
                    addresses.give_back(at, len);
                }
                let used: u64 = taken.iter().map(|(_, len)| *len as u64).sum();
                prop_assert_eq!(addresses.left() + used, all);
            }
            for (at, len) in taken {
                addresses.give_back(at, len);
            }
            prop_assert_eq!(addresses.left(), all);
            prop_assert!(addresses.free.len() <= 1);
        }
    }
}
