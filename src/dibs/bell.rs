//! Signals of a DMB within a host: a word for each cause in memory that both sides map, and a socket pair.
//!
//! The loopback device signals so across processes. Where signals come from elsewhere, a thread of this process takes them
//! in and hands them on by a pair of its own ([`local`]).

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::{Errno, ioctl_fionread},
    net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socketpair},
    thread::futex,
};

use super::{
    Cause, DeviceError, Doorbell, Interrupt, Memory,
    parking::{self, Sleeper},
};
use crate::unix::Kept;

/// Bytes of the two words, which have a cache line each.
const WORDS: usize = 128;

/// So often, counted in armings, the socket is looked at: each brings one ring at most, and its buffer holds more than
/// two hundred.
const DRAIN_EVERY: u32 = 16;

/// So many rings always stay in the socket. It has to remain readable: an event loop that was rung but has not yet
/// looked would otherwise find the socket empty, and a task that waits for the other cause would sleep on.
const KEEP: usize = 4;

/// A pair whose both ends are in this process.
///
/// # Errors
/// If there is no memory, or no descriptors.
pub(super) fn local() -> Result<(BellInterrupt, Bell), DeviceError> {
    let words = Arc::new(Memory::anonymous(WORDS)?);
    let (ours, theirs) = socket_pair()?;
    Ok((BellInterrupt::new(words.clone(), 0, ours)?, Bell::new(words, 0, theirs)?))
}

/// The sockets of a pair.
pub(super) fn socket_pair() -> Result<(OwnedFd, OwnedFd), DeviceError> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    Ok(socketpair(AddressFamily::UNIX, SocketType::STREAM, flags, None)?)
}

/// Where the parking words lie.
#[derive(Debug)]
struct Words {
    memory: Arc<Memory>,
    data: usize,
    space: usize,
}

impl Words {
    fn new(memory: Arc<Memory>, data: usize) -> Result<Self, DeviceError> {
        let space = data + WORDS / 2;
        memory.word32(data)?;
        memory.word32(space)?;
        Ok(Self { memory, data, space })
    }

    /// The word of this cause. That it lies in the mapping was made sure in `new`.
    #[inline]
    fn get(&self, cause: Cause) -> Option<&AtomicU32> {
        let offset = match cause {
            Cause::Data => self.data,
            Cause::Space => self.space,
        };
        self.memory.word32(offset).ok()
    }
}

/// The owner's end.
#[derive(Debug)]
pub(super) struct BellInterrupt {
    words: Words,
    socket: Kept,
    armings: AtomicU32,
    /// Held while rings are taken out, so that two tasks do not take what has to stay.
    draining: Mutex<()>,
}

impl BellInterrupt {
    /// With the words at `words`, a multiple of 4, of the memory.
    pub(super) fn new(memory: Arc<Memory>, words: usize, socket: OwnedFd) -> Result<Self, DeviceError> {
        let words = Words::new(memory, words)?;
        Ok(Self { words, socket: Kept::new(socket), armings: AtomicU32::new(0), draining: Mutex::new(()) })
    }

    fn draining(&self) -> MutexGuard<'_, ()> {
        // Nothing panics while it is held.
        self.draining.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[cold]
    fn drain(&self) {
        let Ok(_guard) = self.draining.try_lock() else { return };
        let there = ioctl_fionread(&self.socket).map_or(0, |n| usize::try_from(n).unwrap_or(usize::MAX));
        let mut rings = [0u8; 1024];
        // What a peer that rings all the time adds meanwhile is for the next time.
        if let Some(n) = there.checked_sub(KEEP).filter(|n| *n > 0)
            && let Some(room) = rings.get_mut(..n.min(1024))
        {
            let _ = recv(&self.socket, room, RecvFlags::DONTWAIT);
        }
    }
}

impl Interrupt for BellInterrupt {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    fn is_hung_up(&self) -> bool {
        has_hung_up(&self.socket)
    }

    fn arm(&self, cause: Cause) {
        if self.armings.fetch_add(1, Ordering::Relaxed) % DRAIN_EVERY == DRAIN_EVERY - 1 {
            self.drain();
        }
        if let Some(word) = self.words.get(cause) {
            parking::arm(word, Sleeper::EventLoop);
        }
    }

    fn clear(&self) {
        let _guard = self.draining();
        // More than there are, unless the peer rings without being asked to; that ends the next wait early.
        let _ = recv(&self.socket, &mut [0u8; 1024], RecvFlags::DONTWAIT);
    }

    fn hold(&self) -> Option<MutexGuard<'_, ()>> {
        Some(self.draining())
    }

    fn wait(
        &self,
        cause: Cause,
        timeout: Option<Duration>,
        news: &mut dyn FnMut() -> bool,
    ) -> io::Result<bool> {
        let Some(word) = self.words.get(cause) else { return Ok(true) };
        parking::arm(word, Sleeper::Thread);
        if news() {
            parking::disarm(word);
            return Ok(true);
        }
        let timeout = timeout.map(|t| Timespec {
            tv_sec: i64::try_from(t.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: t.subsec_nanos().into(),
        });
        // Not a private futex: the waker is another process.
        let slept = futex::wait(word, futex::Flags::empty(), Sleeper::Thread.code(), timeout.as_ref());
        parking::disarm(word);
        match slept {
            Ok(()) | Err(Errno::AGAIN) => Ok(true),
            Err(Errno::TIMEDOUT) => Ok(false),
            Err(errno) => Err(errno.into()),
        }
    }
}

/// The user's end.
#[derive(Debug)]
pub(super) struct Bell {
    words: Words,
    socket: Kept,
}

impl Bell {
    /// As [`BellInterrupt::new`].
    pub(super) fn new(memory: Arc<Memory>, words: usize, socket: OwnedFd) -> Result<Self, DeviceError> {
        Ok(Self { words: Words::new(memory, words)?, socket: Kept::new(socket) })
    }
}

impl Doorbell for Bell {
    #[inline]
    fn ring(&self, cause: Cause) -> bool {
        let Some(word) = self.words.get(cause) else { return false };
        match parking::take(word) {
            None => return false,
            Some(Sleeper::Thread) => {
                // A word that is no futex any more has nobody waiting on it.
                let _ = futex::wake(word, futex::Flags::empty(), u32::MAX >> 1);
            }
            Some(Sleeper::EventLoop) => {
                // A full buffer holds more rings than an owner that is alive leaves there; a closed one needs none.
                let _ = send(&self.socket, &[1], SendFlags::DONTWAIT | SendFlags::NOSIGNAL);
            }
        }
        true
    }

    fn is_hung_up(&self) -> bool {
        has_hung_up(&self.socket)
    }
}

/// True if the other end of the socket is closed.
pub(super) fn has_hung_up(socket: impl AsFd) -> bool {
    let mut fds = [PollFd::new(&socket, PollFlags::empty())];
    let gone = PollFlags::HUP | PollFlags::ERR | PollFlags::NVAL;
    poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).is_ok_and(|_| fds[0].revents().intersects(gone))
}
