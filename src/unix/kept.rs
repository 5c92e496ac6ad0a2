//! Descriptors that the library keeps for long.
//!
//! In a program of its own choice it does not matter which numbers they have. One that knows nothing of this library may
//! count on the lowest free number, close all that it does not know, or hand numbers beyond 1023 to `select`. For such a
//! program they are moved out of its way ([`move_aside`]), and [`is_kept`] tells which they are.

use std::{
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd},
    sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
};

use rustix::{
    io::fcntl_dupfd_cloexec,
    process::{Resource, getrlimit},
};

/// Descriptors beyond this number are not marked, and so not moved. Linux' default for the most that there can be.
const MARKED: usize = 1 << 20;

static ASIDE: AtomicBool = AtomicBool::new(false);
static KEPT: AtomicUsize = AtomicUsize::new(0);
static MARKS: [AtomicU64; MARKED / 64] = [const { AtomicU64::new(0) }; MARKED / 64];

/// From now on descriptors that are kept get numbers in the upper half of those that the process may have.
pub fn move_aside() {
    ASIDE.store(true, Ordering::Relaxed);
}

/// True if this descriptor is one that the library keeps, and has moved aside.
#[inline]
pub fn is_kept(fd: RawFd) -> bool {
    mark(fd).is_some_and(|(word, bit)| word.load(Ordering::Relaxed) & bit != 0)
}

/// How many descriptors the library keeps that it has moved aside.
pub fn kept() -> usize {
    KEPT.load(Ordering::Relaxed)
}

/// Those within a range.
pub fn kept_within(first: u32, last: u32) -> impl Iterator<Item = u32> {
    let last = last.min(MARKED as u32 - 1);
    let is_there = |word: u32| MARKS.get(word as usize).is_some_and(|word| word.load(Ordering::Relaxed) != 0);
    let words = (first / 64..=last / 64).filter(move |word| is_there(*word));
    words
        .flat_map(|word| word * 64..(word + 1) * 64)
        .filter(move |fd| (first..=last).contains(fd) && RawFd::try_from(*fd).is_ok_and(is_kept))
}

fn mark(fd: RawFd) -> Option<(&'static AtomicU64, u64)> {
    let fd = usize::try_from(fd).ok()?;
    Some((MARKS.get(fd / 64)?, 1 << (fd % 64)))
}

/// A descriptor that is kept for long; closed on drop.
#[derive(Debug)]
pub struct Kept(OwnedFd);

impl Kept {
    /// Keeps this descriptor, under another number if it is to be moved aside and there is one.
    pub fn new(fd: OwnedFd) -> Self {
        if !ASIDE.load(Ordering::Relaxed) {
            return Self(fd);
        }
        let half = getrlimit(Resource::Nofile).current.unwrap_or(0) / 2;
        let base = i32::try_from(half).unwrap_or(i32::MAX).min(MARKED as i32 / 2);
        match fcntl_dupfd_cloexec(&fd, base) {
            Ok(moved) => {
                if let Some((word, bit)) = mark(moved.as_raw_fd()) {
                    word.fetch_or(bit, Ordering::Relaxed);
                    KEPT.fetch_add(1, Ordering::Relaxed);
                }
                Self(moved)
            }
            Err(_) => Self(fd),
        }
    }
}

impl AsFd for Kept {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl AsRawFd for Kept {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        // Before it is closed: its number may be the application's next.
        if let Some((word, bit)) = mark(self.0.as_raw_fd())
            && word.fetch_and(!bit, Ordering::Relaxed) & bit != 0
        {
            KEPT.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::pipe::pipe;

    #[test]
    fn what_is_kept_is_known_and_moved() {
        let (plain, _) = pipe().unwrap();
        assert!(!is_kept(plain.as_raw_fd()) && !is_kept(-1) && !is_kept(i32::MAX));
        move_aside();
        let kept = Kept::new(pipe().unwrap().0);
        ASIDE.store(false, Ordering::Relaxed);
        let number = kept.as_raw_fd();
        let half = getrlimit(Resource::Nofile).current.unwrap() / 2;
        assert!(is_kept(number) && u64::try_from(number).unwrap() >= half.min(MARKED as u64 / 2));
        drop(kept);
        assert!(!is_kept(number));
    }
}
