//! `select`, as a `poll`.

use std::{ptr::NonNull, time::Duration};

use libc::{c_int, c_short, fd_set, pollfd};

use crate::{
    errno,
    table::{self, Kind},
};

/// What makes a descriptor readable, writable and exceptional; the last is what `poll` is asked for.
const IN: [c_short; 2] = [libc::POLLIN | libc::POLLHUP | libc::POLLERR, libc::POLLIN];
const OUT: [c_short; 2] = [libc::POLLOUT | libc::POLLERR, libc::POLLOUT];
const EXCEPTION: [c_short; 2] = [libc::POLLPRI, libc::POLLPRI];

/// Sets of descriptors, for reading, writing and exceptions.
#[derive(Debug)]
pub(crate) struct Sets {
    count: c_int,
    sets: [Option<NonNull<fd_set>>; 3],
}

impl Sets {
    /// # Safety
    /// Each is null, or may be read and written as far as `count` says, as long as this lives.
    pub(crate) unsafe fn new(count: c_int, sets: [*mut fd_set; 3]) -> Self {
        Self { count: count.max(0), sets: sets.map(NonNull::new) }
    }

    /// The word that has the bit of a descriptor, and the bit. Sets may be longer than the C library's type: some
    /// programs have more descriptors.
    fn word(set: NonNull<fd_set>, fd: c_int) -> (NonNull<u64>, u64) {
        let at = fd.cast_unsigned() as usize;
        // SAFETY: the caller of `new` has promised that the set reaches as far as `count`, and `fd` is less than that.
        (unsafe { set.cast::<u64>().add(at / 64) }, 1 << (at % 64))
    }

    fn has(&self, which: usize, fd: c_int) -> bool {
        self.sets[which].is_some_and(|set| {
            let (word, bit) = Self::word(set, fd);
            // SAFETY: see `word`.
            unsafe { word.read_unaligned() & bit != 0 }
        })
    }

    fn put(&self, which: usize, fd: c_int, is_in: bool) {
        if let Some(set) = self.sets[which] {
            let (word, bit) = Self::word(set, fd);
            // SAFETY: see `word`.
            unsafe {
                let old = word.read_unaligned();
                word.write_unaligned(if is_in { old | bit } else { old & !bit });
            }
        }
    }

    /// True if a descriptor of ours is in one of the sets.
    pub(crate) fn has_ours(&self) -> bool {
        (0..self.count).any(|fd| table::kind(fd) == Kind::Entry && (0..3).any(|which| self.has(which, fd)))
    }

    fn to_poll(&self) -> Vec<pollfd> {
        let wanted = |fd| {
            [IN, OUT, EXCEPTION]
                .iter()
                .enumerate()
                .filter(|(which, _)| self.has(*which, fd))
                .fold(0, |events, (_, kind)| events | kind[1])
        };
        (0..self.count)
            .map(|fd| pollfd { fd, events: wanted(fd), revents: 0 })
            .filter(|fd| fd.events != 0)
            .collect()
    }

    /// Waits as `select` does, by `poll`.
    pub(crate) fn wait(
        &self,
        limit: Option<Duration>,
        poll: impl FnOnce(&mut [pollfd], Option<Duration>) -> c_int,
    ) -> c_int {
        let mut fds = self.to_poll();
        let result = poll(&mut fds, limit);
        if result < 0 {
            return result;
        }
        if fds.iter().any(|fd| fd.revents & libc::POLLNVAL != 0) {
            return errno::fail(libc::EBADF);
        }
        let mut ready = 0;
        for fd in &fds {
            for (which, kind) in [IN, OUT, EXCEPTION].iter().enumerate() {
                let is_ready = self.has(which, fd.fd) && fd.revents & kind[0] != 0;
                self.put(which, fd.fd, is_ready);
                ready += c_int::from(is_ready);
            }
        }
        ready
    }
}
