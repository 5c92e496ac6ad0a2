//! The connections that an epoll instance watches by itself.

use std::{collections::VecDeque, sync::Arc};

use libc::{c_int, c_short, epoll_event};
use rustc_hash::FxHashMap;
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

    /// False if the kernel refuses it: an exclusive interest is for few events.
    pub(crate) fn is_allowed(self) -> bool {
        let with_exclusive = (libc::EPOLLIN | libc::EPOLLOUT | libc::EPOLLERR | libc::EPOLLHUP)
            .cast_unsigned()
            | (MODES & !libc::EPOLLONESHOT.cast_unsigned());
        !self.is_exclusive() || self.events & !with_exclusive == 0
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
    /// Nothing, between taking it out and putting it in again: some programs do so for each message.
    interest: Option<Interest>,
    is_hot: bool,
    idle: u32,
    /// Of an edge-triggered interest: what was reported and still is so.
    reported: u32,
    /// The peer's word that changes with data, and whether the peer had ended, when it was.
    seen: (u64, bool),
    /// The peer's words at the last look that found nothing.
    news: Option<(u64, u64)>,
}

impl Watch {
    /// What the program wants to know, if that is anything.
    fn wanted(&self) -> Option<Interest> {
        self.interest.filter(|interest| !interest.has_fired())
    }

    /// What there is to report now.
    fn look(&mut self) -> u32 {
        // Before the look: what comes during it is news the next time.
        let news = self.stream.raw.news();
        let events = self.look_closely(news.0);
        self.news = (events == 0).then_some(news);
        events
    }

    fn look_closely(&mut self, data: u64) -> u32 {
        let Some(interest) = self.wanted() else { return 0 };
        let seen = (data, self.stream.raw.has_peer_ended());
        let events = self.events(interest);
        if !interest.is_edge() {
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

    fn events(&self, interest: Interest) -> u32 {
        u32::from(self.stream.events((interest.events & !MODES) as c_short).cast_unsigned())
    }

    /// True if there is something to report now; nothing is reported by it.
    fn is_ready(&self) -> bool {
        let Some(interest) = self.wanted() else { return false };
        let seen = (self.stream.raw.news().0, self.stream.raw.has_peer_ended());
        let events = self.events(interest);
        if !interest.is_edge() || seen != self.seen || self.stream.is_full() {
            return events != 0;
        }
        events & !self.reported != 0
    }

    /// As [`Watch::is_ready`], but if the peer has done nothing since the last look, that is enough.
    fn may_be_ready(&self) -> bool {
        self.news != Some(self.stream.raw.news()) && self.is_ready()
    }

    /// Asks for a ring with the next news; true if there are some now.
    fn arm(&self) -> bool {
        let Some(interest) = self.wanted() else { return false };
        self.stream.raw.arm(Cause::Data);
        if interest.events & WRITABLE != 0 {
            self.stream.raw.arm(Cause::Space);
        }
        self.is_ready()
    }
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Watches {
    all: Slab<Watch>,
    // Numbers and addresses are not for others to choose: no need for a hash that withstands that.
    by_fd: FxHashMap<c_int, usize>,
    by_stream: FxHashMap<u64, SmallVec<[usize; 1]>>,
    /// Those that are looked at each time, in turns.
    hot: VecDeque<usize>,
}

impl Watches {
    /// True if the program has put it in.
    pub(crate) fn has(&self, fd: c_int) -> bool {
        self.by_fd.get(&fd).and_then(|id| self.all.get(*id)).is_some_and(|watch| watch.interest.is_some())
    }

    /// What the program wants to know, if it has put it in.
    pub(crate) fn interest(&self, fd: c_int) -> Option<Interest> {
        self.by_fd.get(&fd).and_then(|id| self.all.get(*id)).and_then(|watch| watch.interest)
    }

    /// Those whose handshake is not over.
    pub(crate) fn shaking(&self) -> Vec<Arc<Stream>> {
        let all = self.all.iter().map(|(_, watch)| &watch.stream);
        all.filter(|stream| stream.raw.is_shaking()).cloned().collect()
    }

    /// True if the program has put it in for itself alone.
    pub(crate) fn is_exclusive(&self, fd: c_int) -> bool {
        let watch = self.by_fd.get(&fd).and_then(|id| self.all.get(*id));
        watch.and_then(|watch| watch.interest).is_some_and(Interest::is_exclusive)
    }

    /// True if it was put in, now or before.
    pub(crate) fn knows(&self, fd: c_int) -> bool {
        self.by_fd.contains_key(&fd)
    }

    /// Begins to watch, unless it does.
    pub(crate) fn insert(&mut self, fd: c_int, stream: Arc<Stream>, interest: Interest) {
        let address = Arc::as_ptr(&stream).addr() as u64;
        let watch = Watch {
            stream,
            interest: Some(interest),
            is_hot: true,
            idle: 0,
            reported: 0,
            seen: (0, false),
            news: None,
        };
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

    /// The program wants to know something else, or nothing.
    pub(crate) fn modify(&mut self, fd: c_int, interest: Option<Interest>) {
        let Some(id) = self.by_fd.get(&fd).copied() else { return };
        if let Some(watch) = self.all.get_mut(id) {
            watch.interest = interest;
            watch.reported = 0;
            watch.news = None;
        }
        if interest.is_some() {
            self.heat_id(id);
        }
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
            watch.news = None;
            if !watch.is_hot {
                watch.is_hot = true;
                self.hot.push_back(id);
            }
        }
    }

    /// The stream of this address has news, and is to be told.
    pub(crate) fn has_news(&mut self, address: u64, mut tell: impl FnMut(&Arc<Stream>)) {
        let ids = self.by_stream.get(&address).cloned().unwrap_or_default();
        for id in &ids {
            self.heat_id(*id);
            if let Some(watch) = self.all.get_mut(*id) {
                // An edge of the kernel's is one of ours, as far as the bytes go by TCP. Perhaps nobody has noticed yet that
                // they do so again.
                if watch.stream.raw.may_come_by_tcp() {
                    watch.reported &= !READABLE;
                }
                if !watch.stream.raw.is_writing_ring() {
                    watch.reported &= !WRITABLE;
                }
                tell(&watch.stream);
            }
        }
    }

    /// Looks at all of them.
    pub(crate) fn heat_all(&mut self) {
        let ids: Vec<usize> = self.by_fd.values().copied().collect();
        for id in ids {
            let of_tcp = self.all.get(id).map(|watch| watch.stream.clone());
            of_tcp.filter(|stream| !stream.raw.is_shaking()).inspect(|stream| stream.tcp_has_news());
            self.heat_id(id);
        }
    }

    pub(crate) fn is_any_hot(&self) -> bool {
        !self.hot.is_empty()
    }

    /// True if one of those that are hot is ready.
    pub(crate) fn is_any_ready(&self) -> bool {
        self.hot.iter().any(|id| self.all.get(*id).is_some_and(Watch::may_be_ready))
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
                let Some(interest) = &mut watch.interest else { continue };
                *place = epoll_event { events, u64: interest.data };
                found += 1;
                watch.idle = 0;
                if interest.is_once() {
                    interest.fire();
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
