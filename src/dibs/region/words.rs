//! The words of a region: little-endian, loaded once, in their place.
//!
//! Places come from the region's `Geometry`, so they lie in the memory. If one did not, it would read as zero, and
//! writing would do nothing.

use std::sync::atomic::{AtomicU32, Ordering};

use crate::dibs::{Gid, Memory};

/// Loads a word of 32 bits. What was written before it is visible afterwards.
pub(super) fn get32(memory: &Memory, at: usize) -> u32 {
    memory.word32(at).map_or(0, |word| u32::from_le(word.load(Ordering::Acquire)))
}

/// Stores a word of 32 bits, after all that was written before.
pub(super) fn put32(memory: &Memory, at: usize, value: u32) {
    if let Ok(word) = memory.word32(at) {
        word.store(value.to_le(), Ordering::Release);
    }
}

/// Puts `new` where `old` stands. False if that does not stand there any more.
pub(super) fn swap32(memory: &Memory, at: usize, old: u32, new: u32) -> bool {
    let swap = |word: &AtomicU32| {
        word.compare_exchange(old.to_le(), new.to_le(), Ordering::SeqCst, Ordering::SeqCst).is_ok()
    };
    memory.word32(at).is_ok_and(swap)
}

/// As [`get32`], for 64 bits.
pub(super) fn get64(memory: &Memory, at: usize) -> u64 {
    memory.load(at).map_or(0, u64::from_le)
}

/// As [`put32`], for 64 bits.
pub(super) fn put64(memory: &Memory, at: usize, value: u64) {
    let _ = memory.store(at, value.to_le());
}

/// Copies a GID out.
pub(super) fn get_gid(memory: &Memory, at: usize) -> Gid {
    let mut bytes = [0; 16];
    let _ = memory.read(at, &mut bytes);
    Gid::from_bytes(bytes)
}

/// Copies a GID in.
pub(super) fn put_gid(memory: &Memory, at: usize, gid: Gid) {
    let _ = memory.write(at, &gid.to_bytes());
}
