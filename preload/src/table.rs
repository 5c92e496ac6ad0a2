//! Which descriptors of the program we go beside, and what is there.
//!
//! For a descriptor that is none of ours the table costs one load and one branch.

use std::sync::{
    Arc,
    atomic::{AtomicU8, Ordering},
};

use arc_swap::{ArcSwapOption, Guard};
use libc::c_int;

use crate::{epoll::Epoll, stream::Stream};

/// Descriptors beyond this number are left alone. Linux' default for the most that there can be.
pub(crate) const LEN: usize = 1 << 20;

/// What goes beside a descriptor.
#[derive(Debug)]
pub(crate) enum Entry {
    Stream(Arc<Stream>),
    Epoll(Arc<Epoll>),
}

/// What kind of descriptor it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(crate) enum Kind {
    /// None of ours.
    Other = 0,
    /// A TCP socket that is not connected, as far as we know.
    Socket = 1,
    /// There is an [`Entry`].
    Entry = 2,
}

static KINDS: [AtomicU8; LEN] = [const { AtomicU8::new(0) }; LEN];
static ENTRIES: [ArcSwapOption<Entry>; LEN] = [const { ArcSwapOption::const_empty() }; LEN];

fn index(fd: c_int) -> Option<usize> {
    usize::try_from(fd).ok().filter(|fd| *fd < LEN)
}

/// What kind of descriptor this is.
#[inline]
pub(crate) fn kind(fd: c_int) -> Kind {
    match index(fd).map(|fd| KINDS[fd].load(Ordering::Relaxed)) {
        Some(1) => Kind::Socket,
        Some(2) => Kind::Entry,
        _ => Kind::Other,
    }
}

/// What goes beside this descriptor.
#[inline]
pub(crate) fn entry(fd: c_int) -> Option<Guard<Option<Arc<Entry>>>> {
    match index(fd) {
        Some(fd) if KINDS[fd].load(Ordering::Relaxed) == Kind::Entry as u8 => Some(ENTRIES[fd].load()),
        _ => None,
    }
}

/// The stream, if this is one. Where calls are short and many: without a reference of their own.
#[inline]
pub(crate) fn stream_of(entry: Option<&Guard<Option<Arc<Entry>>>>) -> Option<&Arc<Stream>> {
    match entry?.as_deref()? {
        Entry::Stream(stream) => Some(stream),
        Entry::Epoll(_) => None,
    }
}

/// The stream beside this descriptor.
#[inline]
pub(crate) fn stream(fd: c_int) -> Option<Arc<Stream>> {
    stream_of(entry(fd).as_ref()).cloned()
}

/// As [`stream_of`], for instances of epoll.
#[inline]
pub(crate) fn epoll_of(entry: Option<&Guard<Option<Arc<Entry>>>>) -> Option<&Arc<Epoll>> {
    match entry?.as_deref()? {
        Entry::Epoll(epoll) => Some(epoll),
        Entry::Stream(_) => None,
    }
}

/// The epoll instance beside this descriptor.
#[inline]
pub(crate) fn epoll(fd: c_int) -> Option<Arc<Epoll>> {
    epoll_of(entry(fd).as_ref()).cloned()
}

/// Remembers that the descriptor is a TCP socket that is not connected.
pub(crate) fn is_socket(fd: c_int) {
    if let Some(fd) = index(fd) {
        KINDS[fd].store(Kind::Socket as u8, Ordering::Release);
    }
}

/// Puts something beside a descriptor; gives back what was there.
pub(crate) fn put(fd: c_int, entry: Entry) -> Option<Arc<Entry>> {
    let fd = index(fd)?;
    let old = ENTRIES[fd].swap(Some(Arc::new(entry)));
    KINDS[fd].store(Kind::Entry as u8, Ordering::Release);
    old
}

/// Forgets a descriptor; gives back what was there.
pub(crate) fn take(fd: c_int) -> Option<Arc<Entry>> {
    let fd = index(fd)?;
    if KINDS[fd].load(Ordering::Relaxed) == 0 {
        return None;
    }
    KINDS[fd].store(0, Ordering::Release);
    ENTRIES[fd].swap(None)
}

/// The descriptors in a range that are ours.
pub(crate) fn within(first: usize, last: usize) -> impl Iterator<Item = c_int> {
    (first..=last.min(LEN - 1))
        .filter(|fd| KINDS[*fd].load(Ordering::Relaxed) != 0)
        .filter_map(|fd| c_int::try_from(fd).ok())
}
