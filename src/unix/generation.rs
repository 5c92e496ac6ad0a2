//! Telling a process from those that it came from by `fork`.
//!
//! What a process inherits so is a copy: memory of its own, but the descriptors are those of the parent too. Who does
//! something to them beyond closing does it to the parent. And a lock that another thread held stays locked for ever.
#![allow(unsafe_code)]

use std::{
    ptr,
    sync::{
        OnceLock,
        atomic::{AtomicU32, Ordering},
    },
};

use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap_anonymous};

const PAGE: usize = 4096;

/// The youngest generation among this process and those that it came from. `fork` copies it.
static YOUNGEST: AtomicU32 = AtomicU32::new(0);

/// Which of a line of processes, each forked by the one before, something belongs to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Generation(u32);

impl Generation {
    /// That of this process.
    pub fn current() -> Self {
        let Some(word) = mark() else {
            // An old kernel. Only a process that is the first of its pid namespace could be taken for its parent so.
            return Self(rustix::process::getpid().as_raw_nonzero().get().unsigned_abs());
        };
        match word.load(Ordering::Relaxed) {
            0 => Self(begin(word)),
            known => Self(known),
        }
    }

    /// True if it is that of a process that this one came from.
    pub fn is_past(self) -> bool {
        self != Self::current()
    }
}

/// The first look after a fork.
#[cold]
fn begin(word: &AtomicU32) -> u32 {
    let new = YOUNGEST.fetch_add(1, Ordering::Relaxed) + 1;
    match word.compare_exchange(0, new, Ordering::Relaxed, Ordering::Relaxed) {
        Ok(_) => new,
        Err(known) => known,
    }
}

/// A word that `fork` clears in the child, and nobody else; `None` if the kernel does not (before 4.14).
fn mark() -> Option<&'static AtomicU32> {
    static MARK: OnceLock<Option<&'static AtomicU32>> = OnceLock::new();
    // Not `get_or_init`: whoever forks while that is at work leaves the child a lock that is never released.
    if MARK.get().is_none() {
        let _ = MARK.set(wiped_by_fork());
    }
    MARK.get().copied().flatten()
}

fn wiped_by_fork() -> Option<&'static AtomicU32> {
    // SAFETY: no address is asked for, so no existing mapping is replaced.
    let page = unsafe {
        mmap_anonymous(ptr::null_mut(), PAGE, ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE)
    };
    let page = page.ok()?;
    // SAFETY: the page is ours, and nobody knows of it yet.
    unsafe { madvise(page, PAGE, Advice::LinuxWipeOnFork) }.ok()?;
    // SAFETY: aligned, as pages are; zeroed; and never unmapped. Nobody else writes to it but the kernel, to the child's
    // copy at a fork.
    Some(unsafe { AtomicU32::from_ptr(page.cast()) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_has_one_generation() {
        let now = Generation::current();
        assert!(!now.is_past());
        assert_eq!(std::thread::spawn(Generation::current).join().unwrap(), now);
    }
}
