//! The memory of an endpoint's own slice: which parts are free. Kept in memory of its own, so nobody else has a say in it.

use std::{collections::BTreeMap, ops::Range};

/// Free parts by where they begin; no two touch.
#[derive(Debug)]
pub(super) struct Slice {
    free: BTreeMap<usize, usize>,
}

impl Slice {
    /// All of it is free.
    pub(super) fn new(range: Range<usize>) -> Self {
        Self { free: BTreeMap::from([(range.start, range.len())]) }
    }

    /// Takes `len` bytes from the smallest free part that has as many.
    pub(super) fn take(&mut self, len: usize) -> Option<Range<usize>> {
        let fitting = self.free.iter().filter(|(_, part)| **part >= len);
        let (start, part) = fitting.min_by_key(|(_, part)| **part).map(|(start, part)| (*start, *part))?;
        self.free.remove(&start);
        if part > len {
            self.free.insert(start + len, part - len);
        }
        Some(start..start + len)
    }

    /// Takes just this. False if some of it is taken, or it is not of this slice.
    pub(super) fn take_this(&mut self, range: &Range<usize>) -> bool {
        let before = self.free.range(..=range.start).next_back();
        let Some((start, end)) = before.map(|(at, part)| (*at, at + part)) else { return false };
        if range.is_empty() || range.end > end {
            return false;
        }
        self.free.remove(&start);
        for rest in [start..range.start, range.end..end].into_iter().filter(|rest| !rest.is_empty()) {
            self.free.insert(rest.start, rest.len());
        }
        true
    }

    /// Gives back what was taken.
    pub(super) fn give_back(&mut self, range: Range<usize>) {
        let (mut start, mut len) = (range.start, range.len());
        if let Some((before, part)) = self.free.range(..start).next_back().map(|(at, part)| (*at, *part))
            && before + part == start
        {
            (start, len) = (before, part + len);
        }
        if let Some(after) = self.free.remove(&range.end) {
            len += after;
        }
        self.free.insert(start, len);
    }

    /// Bytes that are free, in however many parts.
    pub(super) fn left(&self) -> usize {
        self.free.values().sum()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_comes_back_joins_its_neighbours() {
        let mut slice = Slice::new(100..400);
        let parts = [100, 100, 100].map(|len| slice.take(len).unwrap());
        assert_eq!(slice.take(1), None);
        for at in [0, 2, 1] {
            slice.give_back(parts[at].clone());
        }
        assert_eq!(slice.take(300), Some(100..400));
    }

    #[test]
    fn what_is_named_is_taken_if_it_is_free() {
        let mut slice = Slice::new(100..400);
        assert!(slice.take_this(&(200..300)));
        for range in [250..260, 199..201, 299..301, 50..150, 350..401, 0..usize::MAX, 120..120] {
            assert!(!slice.take_this(&range), "{range:?}");
        }
        assert!(slice.take_this(&(100..200)) && slice.take_this(&(390..400)));
        assert_eq!(slice.left(), 90);
        for range in [200..300, 390..400, 100..200] {
            slice.give_back(range);
        }
        assert_eq!(slice.take(300), Some(100..400));
    }

    proptest! {
        #[test]
        fn nothing_is_given_twice_and_nothing_is_lost(steps in prop::collection::vec((1usize..50, any::<prop::sample::Index>()), 0..100)) {
            let mut slice = Slice::new(1000..1500);
            let mut taken: Vec<Range<usize>> = Vec::new();
            for (len, which) in steps {
                match slice.take(len) {
                    Some(range) => {
                        prop_assert_eq!(range.len(), len);
                        prop_assert!(range.start >= 1000 && range.end <= 1500);
                        prop_assert!(taken.iter().all(|other| other.end <= range.start || range.end <= other.start));
                        taken.push(range);
                    }
                    None if !taken.is_empty() => {
                        let at = which.index(taken.len());
                        slice.give_back(taken.swap_remove(at));
                    }
                    None => {}
                }
                prop_assert_eq!(slice.left() + taken.iter().map(ExactSizeIterator::len).sum::<usize>(), 500);
            }
            taken.into_iter().for_each(|range| slice.give_back(range));
            prop_assert_eq!(slice.take(500), Some(1000..1500));
        }
    }
}
