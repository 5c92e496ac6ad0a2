//! The connections that an epoll instance watches by itself.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use libc::{c_int, c_short, epoll_event};
use slab::Slab;
use smallvec::SmallVec;
use smcd::raw::Cause;

use crate::stream::Stream;

/// So many looks in a row without news make a connection cold.
const IDLE_LOOKS: u32 = 64;

/// Parts of an interest that are not events.
const MODES: u32 = libc::EPOLLET.cast_unsigned()
    | libc::EPOLLONESHOT.cast_unsigned()
    | libc::EPOLLEXCLUSIVE.cast_unsigned()
    | libc::EPOLLWAKEUP.cast_unsigned();

const READABLE: u32 = (libc::EPOLLIN | libc::EPOLLRDNORM).cast_unsigned();
const WRITABLE: u32 = (libc::EPOLLOUT | libc::EPOLLWRNORM).cast_unsigned();

/// What the program wants to know of a descriptor.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Interest {
    /// Events and modes.
    pub(crate) events: u32,
    /// The program's name for it.
    pub(crate) data: u64,
}

impl Interest {
    pub(crate) fn is_once(self) -> bool {
        self.events & libc::EPOLLONESHOT.cast_unsigned() != 0
    }

    pub(crate) fn is_exclusive(self) -> bool {
        self.events & libc::EPOLLEXCLUSIVE.cast_unsigned() != 0
    }

    fn is_edge(self) -> bool {
        self.events & libc::EPOLLET.cast_unsigned() != 0
    }

    /// A one-shot interest is used up: nothing is reported until it is renewed.
    pub(crate) fn fire(&mut self) {
        self.events &= MODES;
    }

    pub(crate) fn has_fired(self) -> bool {
        self.is_once() && self.events & !MODES == 0
    }
}

/// A connection with rings, as an instance sees it.
#[derive(Debug)]
struct Watch {
    stream: Arc<Stream>,
    interest: Interest,
    is_hot: bool,
    idle: u32,
    /// Of an edge-triggered interest: what was reported and still is so.
    reported: u32,
    /// The peer's word that changes with data, and whether the peer had ended, when it was.
    seen: (u64, bool),
}

impl Watch {
    /// What there is to report now.
    fn look(&mut self) -> u32 {
        if self.interest.has_fired() {
            return 0;
        }
        // Before the look: what comes during it is news the next time.
        let seen = (self.stream.raw.news().0, self.stream.raw.has_peer_ended());
        let wanted = self.interest.events & !MODES;
        let events = u32::from(self.stream.events(wanted as c_short).cast_unsigned());
        if !self.interest.is_edge() {
            return events;
        }
        if seen != self.seen {
            self.reported &= !READABLE;
        }
        if self.stream.was_full() {
            self.reported &= !WRITABLE;
        }
        self.seen = seen;
        let is_new = events & !self.reported != 0;
        self.reported = events;
        if is_new { events } else { 0 }
    }

    /// As [`Watch::look`], but nothing is reported by it.
    fn is_ready(&self) -> bool {
        if self.interest.has_fired() {
            return false;
        }
        let seen = (self.stream.raw.news().0, self.stream.raw.has_peer_ended());
        let events =
            u32::from(self.stream.events((self.interest.events & !MODES) as c_short).cast_unsigned());
        if !self.interest.is_edge() || seen != self.seen || self.stream.is_full() {
            return events != 0;
        }
        events & !self.reported != 0
    }

    /// Asks for a ring with the next news; true if there are some now.
    fn arm(&self) -> bool {
        self.stream.raw.arm(Cause::Data);
        if self.interest.events & WRITABLE != 0 {
            self.stream.raw.arm(Cause::Space);
        }
        self.is_ready()
    }
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Watches {
    all: Slab<Watch>,
    by_fd: HashMap<c_int, usize>,
    by_stream: HashMap<u64, SmallVec<[usize; 1]>>,
    /// Those that are looked at each time, in turns.
    hot: VecDeque<usize>,
}

impl Watches {
    pub(crate) fn knows(&self, fd: c_int) -> bool {
        self.by_fd.contains_key(&fd)
    }

    /// Begins to watch, unless it does.
    pub(crate) fn insert(&mut self, fd: c_int, stream: Arc<Stream>, interest: Interest) {
        let address = Arc::as_ptr(&stream).addr() as u64;
        let watch = Watch { stream, interest, is_hot: true, idle: 0, reported: 0, seen: (0, false) };
        let id = self.all.insert(watch);
        self.by_fd.insert(fd, id);
        self.by_stream.entry(address).or_default().push(id);
        self.hot.push_back(id);
    }

    /// Watches no longer. The stream, if no other descriptor of it is watched.
    pub(crate) fn remove(&mut self, fd: c_int) -> Option<Arc<Stream>> {
        let id = self.by_fd.remove(&fd)?;
        let watch = self.all.try_remove(id)?;
        if watch.is_hot {
            self.hot.retain(|hot| *hot != id);
        }
        let address = Arc::as_ptr(&watch.stream).addr() as u64;
        let others = self.by_stream.get_mut(&address)?;
        others.retain(|other| *other != id);
        if !others.is_empty() {
            return None;
        }
        self.by_stream.remove(&address);
        Some(watch.stream)
    }

    /// The program wants to know something else.
    pub(crate) fn modify(&mut self, fd: c_int, interest: Interest) {
        let Some(id) = self.by_fd.get(&fd).copied() else { return };
        if let Some(watch) = self.all.get_mut(id) {
            watch.interest = interest;
            watch.reported = 0;
        }
        self.heat_id(id);
    }

    /// Looks at this one each time.
    pub(crate) fn heat(&mut self, fd: c_int) {
        if let Some(id) = self.by_fd.get(&fd) {
            self.heat_id(*id);
        }
    }

    fn heat_id(&mut self, id: usize) {
        if let Some(watch) = self.all.get_mut(id) {
            watch.idle = 0;
            if !watch.is_hot {
                watch.is_hot = true;
                self.hot.push_back(id);
            }
        }
    }

    /// The stream of this address has news. If they are of its TCP connection, it is added to `tcp`, to be told.
    pub(crate) fn has_news(&mut self, address: u64, of_tcp: bool, tcp: &mut Vec<Arc<Stream>>) {
        let ids = self.by_stream.get(&address).cloned().unwrap_or_default();
        for id in &ids {
            self.heat_id(*id);
            if let Some(watch) = self.all.get_mut(*id).filter(|_| of_tcp) {
                watch.reported = 0;
                tcp.push(watch.stream.clone());
            }
        }
    }

    pub(crate) fn is_any_hot(&self) -> bool {
        !self.hot.is_empty()
    }

    /// True if one of those that are hot is ready.
    pub(crate) fn is_any_ready(&self) -> bool {
        self.hot.iter().any(|id| self.all.get(*id).is_some_and(Watch::is_ready))
    }

    /// Reports what is ready, each in its turn; says how many.
    pub(crate) fn collect(&mut self, out: &mut [epoll_event]) -> usize {
        let mut found = 0;
        for _ in 0..self.hot.len() {
            let Some(place) = out.get_mut(found) else { break };
            let Some(id) = self.hot.pop_front() else { break };
            let Some(watch) = self.all.get_mut(id) else { continue };
            let events = watch.look();
            if events != 0 {
                *place = epoll_event { events, u64: watch.interest.data };
                found += 1;
                watch.idle = 0;
                if watch.interest.is_once() {
                    watch.interest.fire();
                }
            } else {
                watch.idle += 1;
                if watch.idle > IDLE_LOOKS && !watch.arm() {
                    watch.is_hot = false;
                    continue;
                }
            }
            self.hot.push_back(id);
        }
        found
    }

    /// Arms all that are hot, and lets those go that have no news. True if one has.
    pub(crate) fn cool(&mut self) -> bool {
        let all = &mut self.all;
        self.hot.retain(|id| {
            let Some(watch) = all.get_mut(*id) else { return false };
            watch.is_hot = watch.arm();
            watch.is_hot
        });
        !self.hot.is_empty()
    }
}
