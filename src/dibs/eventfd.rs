//! Doorbells: eventfds, whose one file description all have that ring them or are rung by them.
//!
//! So none of them is sure of it. Another may have cleared `O_NONBLOCK`, filled the counter, or taken out what was rung.
//! Nothing here waits for that: reading says so with the call, and before a write the bell is asked whether it has room;
//! one that is full has been rung, and its owner has not looked. What remains is whoever fills a bell just between this
//! question and the write, having made it block before: then the write lasts until its owner, or anybody, reads it. There
//! is no call that writes to an eventfd and never waits. Only clients of the server can do so (QEMU, processes of the
//! host), not what runs in a virtual machine; and a client of the server can do worse things to the memory.

use std::{
    io::IoSliceMut,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use rustix::{
    event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll},
    fs::fstatfs,
    io::{Errno, ReadWriteFlags, Result, preadv2, read, write},
};

use crate::unix::Kept;

/// File system of eventfds, and of nothing that could block when it is written to or closed.
const ANON_INODE_FS_MAGIC: u64 = 0x0904_1934;

/// At the present place of a file that has none.
const HERE: u64 = u64::MAX;

/// A doorbell: that of this process, or that of another.
#[derive(Debug)]
pub(super) struct Eventfd(Kept);

impl Eventfd {
    /// A new one.
    pub(super) fn new() -> Result<Self> {
        eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).map(|fd| Self(Kept::new(fd)))
    }

    /// One that came from elsewhere; given back if it is none.
    pub(super) fn of(fd: OwnedFd) -> std::result::Result<Self, OwnedFd> {
        let is_bell = fstatfs(&fd).is_ok_and(|fs| fs.f_type as u64 == ANON_INODE_FS_MAGIC);
        if is_bell { Ok(Self(Kept::new(fd))) } else { Err(fd) }
    }

    /// Rings it, unless it has been rung so often that it makes no difference.
    pub(super) fn ring(&self) {
        let mut fds = [PollFd::new(&self.0, PollFlags::OUT)];
        let has_room = poll(&mut fds, Some(&NOT_AT_ALL)).is_ok() && fds[0].revents().contains(PollFlags::OUT);
        if has_room {
            let _ = write(&self.0, &1u64.to_ne_bytes());
        }
    }

    /// Takes out what has been rung; false if nothing was.
    pub(super) fn clear(&self) -> bool {
        let mut count = [0; 8];
        let taken = match preadv2(&self.0, &mut [IoSliceMut::new(&mut count)], HERE, ReadWriteFlags::NOWAIT) {
            // Before Linux 5.8 there is no other way.
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => read(&self.0, &mut count),
            taken => taken,
        };
        taken.is_ok()
    }
}

impl AsFd for Eventfd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

const NOT_AT_ALL: Timespec = Timespec { tv_sec: 0, tv_nsec: 0 };

#[cfg(test)]
mod tests {
    use rustix::{
        fs::{OFlags, fcntl_setfl},
        pipe::pipe,
    };

    use super::*;

    #[test]
    fn a_bell_is_rung_and_cleared() {
        let bell = Eventfd::new().unwrap();
        assert!(!bell.clear());
        bell.ring();
        bell.ring();
        assert!(bell.clear());
        assert!(!bell.clear());
    }

    #[test]
    fn a_bell_that_would_block_is_left_alone() {
        let bell = Eventfd::new().unwrap();
        fcntl_setfl(&bell, OFlags::empty()).unwrap();
        assert!(!bell.clear());
        write(&bell, &(u64::MAX - 1).to_ne_bytes()).unwrap();
        bell.ring();
        assert!(bell.clear());
        assert!(!bell.clear());
    }

    #[test]
    fn other_descriptors_are_no_bells() {
        assert!(Eventfd::of(pipe().unwrap().1).is_err());
        assert!(Eventfd::of(eventfd(0, EventfdFlags::CLOEXEC).unwrap()).is_ok());
    }
}
