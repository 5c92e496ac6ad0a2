//! Which descriptors of the program we go beside, and what is there.
//!
//! For a descriptor that is none of ours the table costs one load and one branch.

use std::sync::{
    Arc,
    atomic::{AtomicU8, Ordering},
};

use arc_swap::{ArcSwapOption, Guard};
use libc::c_int;

use crate::{epoll::Epoll, stream::Stream, watchers::Watchers};

/// Descriptors beyond this number are left alone. Linux' default for the most that there can be.
pub(crate) const LEN: usize = 1 << 20;

/// What goes beside a descriptor.
#[derive(Debug)]
pub(crate) enum Entry {
    Stream(Arc<Stream>),
    Epoll(Arc<Epoll>),
    /// A socket that is not connected, and the instances that watch it already. Not found by [`entry`].
    Watched(Watchers),
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
    /// As [`Kind::Socket`], with [`Entry::Watched`].
    Watched = 3,
}

static KINDS: [AtomicU8; LEN] = [const { AtomicU8::new(0) }; LEN];
static ENTRIES: [ArcSwapOption<Entry>; LEN] = [const { ArcSwapOption::const_empty() }; LEN];

fn index(fd: c_int) -> Option<usize> {
    usize::try_from(fd).ok().filter(|fd| *fd < LEN)
}

/// False if the descriptor is beyond those that something can go beside.
pub(crate) fn has_room_for(fd: c_int) -> bool {
    index(fd).is_some()
}

/// What kind of descriptor this is.
#[inline]
pub(crate) fn kind(fd: c_int) -> Kind {
    match index(fd).map(|fd| KINDS[fd].load(Ordering::Relaxed)) {
        Some(1) => Kind::Socket,
        Some(2) => Kind::Entry,
        Some(3) => Kind::Watched,
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
        _ => None,
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
        _ => None,
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

/// Goes beside a TCP socket that is not connected, and that an instance of epoll watches.
pub(crate) fn watched(fd: c_int) -> Option<Arc<Entry>> {
    let at = index(fd)?;
    if kind(fd) == Kind::Socket {
        ENTRIES[at].store(Some(Arc::new(Entry::Watched(Watchers::default()))));
        KINDS[at].store(Kind::Watched as u8, Ordering::Release);
    }
    (kind(fd) == Kind::Watched).then(|| ENTRIES[at].load_full()).flatten()
}

/// Goes beside a TCP socket that is not connected after all.
pub(crate) fn is_socket_again(fd: c_int, watchers: Watchers) {
    if let Some(fd) = index(fd) {
        ENTRIES[fd].store(Some(Arc::new(Entry::Watched(watchers))));
        KINDS[fd].store(Kind::Watched as u8, Ordering::Release);
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
