//! Signals of a loopback DMB: two words behind the DMB, and a socket pair.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::Duration,
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
    net::{RecvFlags, SendFlags, recv, send},
    thread::futex,
};

use crate::dibs::{
    Cause, DeviceError, Doorbell, Interrupt, Memory,
    parking::{self, Sleeper},
};

/// Bytes behind the DMB for the words of its signals: one page, so that DMBs stay page-aligned.
pub(super) const SIGNAL_AREA: usize = 4096;

/// After so many rings some are taken out of the socket, long before its buffer (more than 200 rings) is full.
const DRAIN_AT: u32 = 16;

/// So many rings always stay in the socket. It has to remain readable: an event loop that was rung but has not yet
/// looked would otherwise find the socket empty, and a task that waits for the other cause would sleep on.
const KEEP: u32 = 4;

/// Where the parking words lie, `SIGNAL_AREA` bytes behind the DMB of `dmb_len` bytes; a cache line each.
#[derive(Debug)]
struct Words {
    memory: Arc<Memory>,
    data: usize,
    space: usize,
}

impl Words {
    fn new(memory: Arc<Memory>, dmb_len: usize) -> Result<Self, DeviceError> {
        let (data, space) = (dmb_len, dmb_len + 64);
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
pub(super) struct LoopbackInterrupt {
    words: Words,
    socket: OwnedFd,
    /// Whether the word of each cause was last armed for an event loop; if it was then taken, a ring came.
    armed: [AtomicBool; 2],
    /// Rings in the socket that we know of.
    rings: AtomicU32,
}

impl LoopbackInterrupt {
    pub(super) fn new(memory: Arc<Memory>, dmb_len: usize, socket: OwnedFd) -> Result<Self, DeviceError> {
        let words = Words::new(memory, dmb_len)?;
        Ok(Self { words, socket, armed: Default::default(), rings: AtomicU32::new(0) })
    }

    /// Ends an arming, if there is one, and counts the ring that it brought.
    fn end_arming(&self, cause: Cause, word: &AtomicU32) {
        let armed = self.armed[cause as usize].swap(false, Ordering::Relaxed);
        if !parking::disarm(word) && armed && self.rings.fetch_add(1, Ordering::Relaxed) >= DRAIN_AT {
            self.drain();
        }
    }

    #[cold]
    fn drain(&self) {
        let mut rings = [0u8; (DRAIN_AT - KEEP) as usize];
        if let Ok((n, _)) = recv(&self.socket, &mut rings, RecvFlags::DONTWAIT) {
            self.rings.fetch_sub(n as u32, Ordering::Relaxed);
        }
    }
}

impl Interrupt for LoopbackInterrupt {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    fn arm(&self, cause: Cause) {
        if let Some(word) = self.words.get(cause) {
            self.end_arming(cause, word);
            self.armed[cause as usize].store(true, Ordering::Relaxed);
            parking::arm(word, Sleeper::EventLoop);
        }
    }

    fn disarm(&self, cause: Cause) {
        if let Some(word) = self.words.get(cause) {
            self.end_arming(cause, word);
        }
    }

    fn wait(
        &self,
        cause: Cause,
        timeout: Option<Duration>,
        news: &mut dyn FnMut() -> bool,
    ) -> io::Result<bool> {
        let Some(word) = self.words.get(cause) else { return Ok(true) };
        self.end_arming(cause, word);
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
pub(super) struct LoopbackDoorbell {
    words: Words,
    socket: OwnedFd,
}

impl LoopbackDoorbell {
    pub(super) fn new(memory: Arc<Memory>, dmb_len: usize, socket: OwnedFd) -> Result<Self, DeviceError> {
        Ok(Self { words: Words::new(memory, dmb_len)?, socket })
    }
}

impl Doorbell for LoopbackDoorbell {
    #[inline]
    fn ring(&self, cause: Cause) {
        let Some(word) = self.words.get(cause) else { return };
        match parking::take(word) {
            None => {}
            Some(Sleeper::Thread) => {
                // A word that is no futex any more has nobody waiting on it.
                let _ = futex::wake(word, futex::Flags::empty(), u32::MAX >> 1);
            }
            Some(Sleeper::EventLoop) => {
                // A full buffer holds more rings than an owner that is alive leaves there; a closed one needs none.
                let _ = send(&self.socket, &[1], SendFlags::DONTWAIT | SendFlags::NOSIGNAL);
            }
        }
    }

    fn is_hung_up(&self) -> bool {
        let mut fds = [PollFd::new(&self.socket, PollFlags::empty())];
        match poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })) {
            Ok(_) => fds[0].revents().intersects(PollFlags::HUP | PollFlags::ERR | PollFlags::NVAL),
            Err(_) => false,
        }
    }
}
