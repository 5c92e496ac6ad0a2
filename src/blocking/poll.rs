//! Sleeping until a descriptor is ready.

use std::{io, os::fd::BorrowedFd, time::Duration};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// That the other end is gone, which `poll` reports whether or not it was asked to.
pub(super) const GONE: PollFlags = PollFlags::HUP.union(PollFlags::ERR).union(PollFlags::NVAL);

/// Sleeps until one of these is ready, or the time is over.
///
/// # Errors
/// `Interrupted` by a signal, or another error of the system.
pub(crate) fn sleep(fds: &mut [PollFd<'_>], limit: Option<Duration>) -> io::Result<()> {
    // A time that the kernel cannot count is none.
    let limit = limit.and_then(|limit| Timespec::try_from(limit).ok());
    poll(fds, limit.as_ref())?;
    Ok(())
}

/// What this descriptor is ready for now, of these.
pub(super) fn now(fd: BorrowedFd<'_>, events: PollFlags) -> PollFlags {
    let mut fds = [PollFd::from_borrowed_fd(fd, events)];
    match sleep(&mut fds, Some(Duration::ZERO)) {
        Ok(()) => fds[0].revents(),
        Err(_) => PollFlags::empty(),
    }
}
