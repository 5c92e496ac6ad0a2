//! The raw ring: one processor copies in, the other copies out, and nothing else happens.
//!
//! No wake-ups (both ends busy-wait), no checks of what the peer writes (both ends are ours), no state. The ring is
//! as large as SMC-D's by default and is published in the same steps, so what is left is the price of the rest.
#![allow(unsafe_code)]

use std::{
    os::fd::{AsFd, OwnedFd},
    ptr::{self, NonNull},
    sync::atomic::{AtomicU64, Ordering},
};

use rustix::{
    fs::{MemfdFlags, ftruncate, memfd_create},
    mm::{MapFlags, ProtFlags, mmap, munmap},
};

use super::Result;

/// Bytes of each direction's ring: as SMC-D has by default.
const RING: usize = smcd::smc::DEFAULT_RECEIVE_BUFFER;

/// Longer copies are published in steps, so that the two copies overlap.
const STEP: usize = 16 * 1024;

/// Where the ring begins, behind a page with its two cursors.
const DATA: usize = 4096;

/// Where the consumer's cursor lies; the producer's is at 0. Lines are fetched in pairs, so two of them apart.
const CONS: usize = 128;

const DIRECTION: usize = DATA + RING;

/// One end: a ring to write to, one to read from.
pub(crate) struct RingEnd {
    base: NonNull<u8>,
    tx: Cursors,
    rx: Cursors,
    /// There is one processor: the peer cannot move while we look.
    alone: bool,
}

/// Bytes written or read since the beginning: ours, and the peer's as last seen.
struct Cursors {
    /// Where this direction begins in the mapping.
    at: usize,
    own: u64,
    seen: u64,
}

// SAFETY: the mapping belongs to the process, not to a thread; one thread at a time has the end.
unsafe impl Send for RingEnd {}

impl RingEnd {
    /// Both directions in fresh memory; the other end joins through the descriptor.
    pub(crate) fn create(alone: bool) -> Result<(Self, OwnedFd)> {
        let memory = memfd_create("raw-ring", MemfdFlags::CLOEXEC)?;
        ftruncate(&memory, 2 * DIRECTION as u64)?;
        Ok((Self::map(&memory, 0, DIRECTION, alone)?, memory))
    }

    /// The other end of [`RingEnd::create`].
    pub(crate) fn join(memory: impl AsFd, alone: bool) -> Result<Self> {
        Self::map(memory, DIRECTION, 0, alone)
    }

    fn map(memory: impl AsFd, tx: usize, rx: usize, alone: bool) -> Result<Self> {
        // SAFETY: no address is asked for, so no existing mapping is replaced.
        let base = unsafe {
            mmap(
                ptr::null_mut(),
                2 * DIRECTION,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::SHARED,
                memory,
                0,
            )
        }?;
        let base = NonNull::new(base.cast()).ok_or("mapped at address zero")?;
        let cursors = |at| Cursors { at, own: 0, seen: 0 };
        Ok(Self { base, tx: cursors(tx), rx: cursors(rx), alone })
    }

    /// Writes all of `data`.
    #[inline]
    pub(crate) fn send(&mut self, mut data: &[u8]) {
        while !data.is_empty() {
            let room = RING - (self.tx.own - self.tx.seen) as usize;
            if room == 0 {
                self.tx.seen = self.word(self.tx.at + CONS).load(Ordering::Acquire);
                self.relax(RING - (self.tx.own - self.tx.seen) as usize);
                continue;
            }
            let from = self.tx.own as usize % RING;
            let n = data.len().min(room).min(STEP).min(RING - from);
            let (now, later) = data.split_at(n);
            // SAFETY: `from + n` is at most `RING`, and the direction has that many bytes behind `DATA`. The peer
            // reads none of them before the cursor says so.
            unsafe { self.base.add(self.tx.at + DATA + from).copy_from_nonoverlapping(slice_start(now), n) };
            data = later;
            self.tx.own += n as u64;
            self.word(self.tx.at).store(self.tx.own, Ordering::Release);
        }
    }

    /// Waits for bytes, and reads those that are there.
    #[inline]
    pub(crate) fn recv(&mut self, buf: &mut [u8]) -> usize {
        let mut done = 0;
        while done < buf.len() {
            let ready = (self.rx.seen - self.rx.own) as usize;
            if ready == 0 {
                self.rx.seen = self.word(self.rx.at).load(Ordering::Acquire);
                if self.rx.seen == self.rx.own && done > 0 {
                    break;
                }
                self.relax((self.rx.seen - self.rx.own) as usize);
                continue;
            }
            let from = self.rx.own as usize % RING;
            let rest = &mut buf[done..];
            let n = rest.len().min(ready).min(STEP).min(RING - from);
            // SAFETY: as in `send`; the peer writes none of these bytes before our cursor says so.
            unsafe {
                self.base.add(self.rx.at + DATA + from).copy_to_nonoverlapping(slice_start_mut(rest), n);
            }
            done += n;
            self.rx.own += n as u64;
            self.word(self.rx.at + CONS).store(self.rx.own, Ordering::Release);
        }
        done
    }

    /// Between two looks, unless the last one was a success.
    #[inline]
    fn relax(&self, found: usize) {
        if found > 0 {
        } else if self.alone {
            std::thread::yield_now();
        } else {
            std::hint::spin_loop();
        }
    }

    #[inline]
    fn word(&self, at: usize) -> &AtomicU64 {
        // SAFETY: all words lie in the mapping, aligned, and are only ever reached as atomics.
        unsafe { AtomicU64::from_ptr(self.base.add(at).cast().as_ptr()) }
    }
}

fn slice_start(slice: &[u8]) -> NonNull<u8> {
    NonNull::from(slice).cast()
}

fn slice_start_mut(slice: &mut [u8]) -> NonNull<u8> {
    NonNull::from(slice).cast()
}

impl Drop for RingEnd {
    fn drop(&mut self) {
        // SAFETY: the mapping of `map`; nothing borrows from it any more.
        let unmapped = unsafe { munmap(self.base.as_ptr().cast(), 2 * DIRECTION) };
        debug_assert!(unmapped.is_ok());
    }
}
