//! Which records are free.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use zerocopy::FromZeros;

/// Hands out numbers below a limit, the lowest that were never used if none has come back. Without a lock: it may be
/// used by a child of a process that has forked while another thread was at it.
pub(super) struct FreeList {
    /// The first number that was never used.
    fresh: AtomicU32,
    /// The number on top of those that came back, plus one, and above it a count of all changes: without it, a number
    /// that was taken and given back meanwhile would look as if nothing had happened.
    top: AtomicU64,
    /// For each number, the one below it, plus one.
    below: Box<[AtomicU32]>,
}

impl FreeList {
    /// A list of numbers below `limit`; `None` if there is no memory for it.
    pub(super) fn new(limit: usize) -> Option<Self> {
        // Memory that is zero from the start is not touched before it is used.
        let below = <[AtomicU32]>::new_box_zeroed_with_elems(limit).ok()?;
        Some(Self { fresh: AtomicU32::new(0), top: AtomicU64::new(0), below })
    }

    /// Takes a number, if there is one.
    pub(super) fn take(&self) -> Option<u32> {
        self.pop().or_else(|| {
            let limit = u32::try_from(self.below.len()).unwrap_or(u32::MAX);
            let next = |fresh: u32| (fresh < limit).then_some(fresh + 1);
            self.fresh.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next).ok()
        })
    }

    fn pop(&self) -> Option<u32> {
        let mut top = self.top.load(Ordering::Acquire);
        loop {
            let number = (top as u32).checked_sub(1)?;
            let below = self.below.get(number as usize)?.load(Ordering::Relaxed);
            match self.top.compare_exchange_weak(
                top,
                changed(top, below),
                Ordering::Acquire,
                Ordering::Acquire,
            ) {
                Ok(_) => return Some(number),
                Err(now) => top = now,
            }
        }
    }

    /// Gives a number back.
    pub(super) fn give_back(&self, number: u32) {
        let Some(below) = self.below.get(number as usize) else { return };
        let mut top = self.top.load(Ordering::Relaxed);
        loop {
            below.store(top as u32, Ordering::Relaxed);
            match self.top.compare_exchange_weak(
                top,
                changed(top, number + 1),
                Ordering::Release,
                Ordering::Relaxed,
            ) {
                Ok(_) => return,
                Err(now) => top = now,
            }
        }
    }
}

/// The next value of the top.
fn changed(top: u64, number: u32) -> u64 {
    ((top >> 32).wrapping_add(1) << 32) | u64::from(number)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{collections::HashSet, sync::Mutex, thread};

    #[test]
    fn numbers_come_back() {
        let list = FreeList::new(3).unwrap();
        let taken: Vec<_> = (0..4).map(|_| list.take()).collect();
        assert_eq!(taken, [Some(0), Some(1), Some(2), None]);
        list.give_back(1);
        list.give_back(0);
        assert_eq!([list.take(), list.take(), list.take()], [Some(0), Some(1), None]);
        list.give_back(7);
        assert_eq!(list.take(), None, "no number of ours");
    }

    #[test]
    fn nobody_gets_what_another_has() {
        let (list, held) = (FreeList::new(8).unwrap(), Mutex::new(HashSet::new()));
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..20_000 {
                        let Some(number) = list.take() else { continue };
                        assert!(held.lock().unwrap().insert(number));
                        assert!(held.lock().unwrap().remove(&number));
                        list.give_back(number);
                    }
                });
            }
        });
    }
}
