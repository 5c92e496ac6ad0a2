//! An epoll instance of the program that watches connections of ours.
//!
//! As long as a connection is TCP, the kernel watches it. When it gets rings, it is taken out of the program's instance;
//! its doorbell and its TCP socket go into a second instance, the *shadow*, and the shadow into the program's. So a
//! program that sleeps in the kernel is woken by both, a program that asks finds connections that are ready without a
//! system call, and an instance within another works as ever.
//!
//! A connection that has lately had news is *hot*: it is looked at each time the program asks. One that has had none for
//! a while, and each one before the program sleeps, is armed, looked at once more, and left to its doorbell.

use std::{
    fs,
    os::fd::{AsFd, AsRawFd, BorrowedFd},
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use libc::{c_int, epoll_event};
use rustix::{
    event::{
        EventfdFlags, Timespec,
        epoll::{self, CreateFlags, EventData, EventFlags},
        eventfd,
    },
    io::{Errno, fcntl_dupfd_cloexec, read, write},
};
use smcd::raw::{Awake, Kept, Shaken};

use crate::{
    settings,
    stream::Stream,
    watch::{Interest, Watches},
    watchers::HeldWatchers,
};

/// What the shadow is known by in the program's instance. The program has numbers of its own; that one of them is this
/// one is as good as impossible.
const SHADOW: u64 = 0x9d3c_57f1_e8a2_46bb;

/// What the bell is known by in the shadow. Streams are known by their address, with [`OF_TCP`] for their TCP socket.
const BELL: u64 = 0;
const OF_TCP: u64 = 1;

/// At least one of so many calls asks the kernel, even if there are always connections that are ready.
const KERNEL_EVERY: u32 = 16;

/// How long those sleep whom nobody can wake.
const BLIND: Duration = Duration::from_millis(1);

/// Most events that are taken from the shadow at a time.
const BATCH: usize = 64;

/// An instance was inherited by a fork that has the shadow of the parent in it.
static INHERITED: AtomicBool = AtomicBool::new(false);

/// Takes the events of an inherited shadow out of what the kernel has reported; says how many are left.
pub(crate) fn without_inherited(out: &mut [epoll_event]) -> usize {
    let mut kept = out.len();
    if INHERITED.load(Ordering::Relaxed) {
        while let Some(at) = out.iter().take(kept).position(|event| event.u64 == SHADOW) {
            kept -= 1;
            out.swap(at, kept);
        }
    }
    kept
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Epoll {
    /// A descriptor of the program's instance that is ours, if there was one left.
    own: Option<Kept>,
    shadow: OnceLock<Shadow>,
    state: Mutex<State>,
    /// Threads that are asleep in the kernel, or about to be.
    sleepers: AtomicUsize,
    awake: Awake,
    /// There are instances within this one.
    has_nested: AtomicBool,
    /// There is no shadow although there should be one.
    is_blind: AtomicBool,
}

/// What wakes a program that sleeps.
#[derive(Debug)]
struct Shadow {
    instance: Kept,
    bell: Kept,
    is_rung: AtomicBool,
}

#[derive(Debug, Default)]
struct State {
    /// The connections that we watch.
    watches: Watches,
    /// Instances within this one.
    nested: Vec<(c_int, Weak<Epoll>)>,
    calls: u32,
}

/// What came of a change.
enum Controlled {
    /// There is one more connection to watch.
    Added,
    /// It was known before.
    Known,
}

/// Who watches a connection.
pub(crate) enum By {
    Us,
    /// For this.
    Kernel(Interest),
    Nobody,
}

/// How long to ask the kernel for.
pub(crate) type Limit = Option<Duration>;

impl Epoll {
    /// What goes beside this instance.
    pub(crate) fn new(instance: BorrowedFd<'_>) -> Arc<Self> {
        let own = fcntl_dupfd_cloexec(instance, 0);
        Arc::new(Self {
            own: own.ok().map(Kept::new),
            shadow: OnceLock::new(),
            state: Mutex::default(),
            sleepers: AtomicUsize::new(0),
            awake: Awake::new(settings::config().busy_poll),
            has_nested: AtomicBool::new(false),
            is_blind: AtomicBool::new(false),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it is held.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does what the program asks to be done with a connection of ours. `kernel` has the kernel do it.
    pub(crate) fn control(
        self: &Arc<Self>,
        op: c_int,
        fd: c_int,
        event: Option<epoll_event>,
        stream: &Arc<Stream>,
        kernel: impl FnOnce() -> c_int,
    ) -> Result<c_int, Errno> {
        let interest = event.map(|event| Interest { events: event.events, data: event.u64 });
        // Held while the kernel does it: who takes the connection over finds what the kernel watches it for.
        let mut watchers = stream.watchers.hold();
        if stream.raw.has_rings() || stream.raw.is_shaking() {
            let mut state = self.state();
            if let Some(done) = self.control_own(&mut state, op, fd, interest, stream, &mut watchers) {
                let is_new = matches!(done, Ok(Controlled::Added));
                drop((state, watchers));
                if is_new {
                    // What the kernel tells of a new member is nothing new.
                    self.take_in();
                }
                return done.map(|_| 0);
            }
        }
        let result = kernel();
        if result == 0 {
            watchers.controlled(self, op, fd, interest);
        }
        Ok(result)
    }

    /// Does it where the kernel does not watch the connection; `None` if it does, or is to.
    fn control_own(
        self: &Arc<Self>,
        state: &mut State,
        op: c_int,
        fd: c_int,
        interest: Option<Interest>,
        stream: &Arc<Stream>,
        watchers: &mut HeldWatchers<'_>,
    ) -> Option<Result<Controlled, Errno>> {
        let (is_known, is_in) = (state.watches.knows(fd), state.watches.has(fd));
        Some(match (op, interest) {
            (libc::EPOLL_CTL_ADD, Some(interest)) if is_known || !stream.is_with_kernel() => {
                if !interest.is_allowed() {
                    return Some(Err(Errno::INVAL));
                }
                if is_in || watchers.has_kernel(self, fd) {
                    return Some(Err(Errno::EXIST));
                }
                if is_known {
                    state.watches.modify(fd, Some(interest));
                    self.wake();
                    return Some(Ok(Controlled::Known));
                }
                self.watch(state, fd, stream, interest).map(|()| {
                    watchers.add(self, fd, None);
                    Controlled::Added
                })
            }
            (libc::EPOLL_CTL_MOD | libc::EPOLL_CTL_DEL, _) if is_known && !is_in => Err(Errno::NOENT),
            (libc::EPOLL_CTL_MOD, Some(interest)) if is_in => {
                if interest.is_exclusive() || state.watches.is_exclusive(fd) {
                    return Some(Err(Errno::INVAL));
                }
                state.watches.modify(fd, Some(interest));
                self.wake();
                Ok(Controlled::Known)
            }
            (libc::EPOLL_CTL_DEL, _) if is_in => {
                state.watches.modify(fd, None);
                Ok(Controlled::Known)
            }
            _ => return None,
        })
    }

    /// Another instance was put into this one, or taken out.
    pub(crate) fn nest(&self, op: c_int, fd: c_int, other: &Arc<Self>) {
        let mut state = self.state();
        state.nested.retain(|(number, nested)| *number != fd && nested.strong_count() > 0);
        if op != libc::EPOLL_CTL_DEL {
            state.nested.push((fd, Arc::downgrade(other)));
            self.has_nested.store(true, Ordering::Relaxed);
        }
    }

    /// A connection that the kernel has watched has got rings.
    /// [`Epoll::take_in`] is to follow.
    pub(crate) fn take_over(&self, fd: c_int, stream: &Arc<Stream>, mut interest: Interest) {
        let mut state = self.state();
        if interest.is_once() && self.has_fired(fd) {
            interest.fire();
        }
        // SAFETY: the number is that of the stream, which the caller is using.
        let socket = unsafe { BorrowedFd::borrow_raw(fd) };
        let left = self.own.as_ref().is_some_and(|own| epoll::delete(own, socket).is_ok());
        if !left || self.watch(&mut state, fd, stream, interest).is_err() {
            settings::say(|| format!("epoll: fd {fd} could not be taken over"));
        }
    }

    /// True if a one-shot interest has fired, by what the kernel says of the instance.
    fn has_fired(&self, fd: c_int) -> bool {
        let Some(own) = &self.own else { return false };
        let info = fs::read_to_string(format!("/proc/self/fdinfo/{}", own.as_raw_fd()));
        let events = info.ok().and_then(|info| {
            let line = info.lines().find(|line| {
                let mut words = line.split_whitespace();
                words.next() == Some("tfd:") && words.next().and_then(|n| n.parse().ok()) == Some(fd)
            })?;
            let after = line.split("events:").nth(1)?;
            u32::from_str_radix(after.split_whitespace().next()?, 16).ok()
        });
        events.is_some_and(|events| Interest { events, data: 0 }.has_fired())
    }

    fn watch(
        &self,
        state: &mut State,
        fd: c_int,
        stream: &Arc<Stream>,
        interest: Interest,
    ) -> Result<(), Errno> {
        state.watches.insert(fd, stream.clone(), interest);
        self.wake();
        self.enter(stream)
    }

    /// Has the shadow watch what brings news of a connection.
    fn enter(&self, stream: &Arc<Stream>) -> Result<(), Errno> {
        stream.raw.is_watched();
        let Ok(shadow) = self.shadow() else {
            // No descriptor is left. So nobody wakes those who sleep: they wake up by themselves.
            self.is_blind.store(true, Ordering::Relaxed);
            return Ok(());
        };
        let address = Arc::as_ptr(stream).addr() as u64;
        let edges = EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::PRI | EventFlags::ET;
        let enter = |fd: BorrowedFd<'_>, data, events| match epoll::add(
            &shadow.instance,
            fd,
            EventData::new_u64(data),
            events,
        ) {
            // By another descriptor of the program's, which is the same socket.
            Err(Errno::EXIST) => Ok(()),
            result => result,
        };
        if let Some((socket, timer)) = stream.raw.shaking_on() {
            enter(socket.as_fd(), address | OF_TCP, edges)?;
            match timer {
                Some(timer) => enter(timer.as_fd(), address | OF_TCP, EventFlags::IN | EventFlags::ET)?,
                None => self.is_blind.store(true, Ordering::Relaxed),
            }
            return Ok(());
        }
        enter(stream.raw.as_fd(), address | OF_TCP, edges)?;
        if let Some(doorbell) = stream.raw.doorbell() {
            enter(doorbell, address, EventFlags::IN | EventFlags::ET)?;
        }
        Ok(())
    }

    fn unwatch(&self, state: &mut State, fd: c_int) {
        if let Some(stream) = state.watches.remove(fd)
            && let Some(shadow) = self.shadow.get()
        {
            // Others may hold the same sockets; so they do not leave the shadow by being closed.
            let _ = epoll::delete(&shadow.instance, stream.raw.as_fd());
            if let Some((socket, timer)) = stream.raw.shaking_on() {
                let _ = epoll::delete(&shadow.instance, &*socket);
                let _ = timer.map(|timer| epoll::delete(&shadow.instance, &*timer));
            }
            if let Some(doorbell) = stream.raw.doorbell() {
                let _ = epoll::delete(&shadow.instance, doorbell);
            }
        }
    }

    /// The handshake of a connection that we watch is over: the kernel goes on, unless there are rings.
    pub(crate) fn has_shaken(&self, fd: c_int, stream: &Arc<Stream>, shaken: &Shaken) -> By {
        let mut state = self.state();
        if let Some(shadow) = self.shadow.get() {
            // Another descriptor of the program's may have done so for it.
            let _ = epoll::delete(&shadow.instance, shaken);
        }
        let Some(own) = self.own.as_ref().filter(|_| !stream.raw.has_rings()) else {
            if self.enter(stream).is_err() {
                settings::say(|| format!("epoll: fd {fd} could not be watched"));
            }
            state.watches.heat(fd);
            self.wake();
            return By::Us;
        };
        let interest = state.watches.interest(fd);
        self.unwatch(&mut state, fd);
        let Some(interest) = interest else { return By::Nobody };
        // SAFETY: the number is that of the stream, which the program has not closed: then nobody would watch it.
        let socket = unsafe { BorrowedFd::borrow_raw(fd) };
        let events = EventFlags::from_bits_retain(interest.events);
        match epoll::add(own, socket, EventData::new_u64(interest.data), events) {
            Ok(()) => By::Kernel(interest),
            Err(errno) => {
                settings::say(|| format!("epoll: fd {fd} could not be given back: {errno}"));
                By::Nobody
            }
        }
    }

    /// The program has closed a connection.
    pub(crate) fn forget(&self, fd: c_int) {
        let mut state = self.state();
        self.unwatch(&mut state, fd);
    }

    /// In the child of a fork: lets go of everything, and does nothing to the instance.
    pub(crate) fn dissolve(&self) {
        if self.shadow.get().is_some() {
            INHERITED.store(true, Ordering::Relaxed);
        }
        // If another thread of the parent was in it, it stays as it is.
        if let Ok(mut state) = self.state.try_lock() {
            drop(std::mem::take(&mut *state));
        }
    }

    /// Looks at a connection at the next call, and has those who sleep do so now.
    pub(crate) fn look_at(&self, fd: c_int) {
        self.state().watches.heat(fd);
        self.wake();
    }

    /// The shadow, made at first use.
    fn shadow(&self) -> Result<&Shadow, Errno> {
        if let Some(shadow) = self.shadow.get() {
            return Ok(shadow);
        }
        let own = self.own.as_ref().ok_or(Errno::MFILE)?;
        let instance = Kept::new(epoll::create(CreateFlags::CLOEXEC)?);
        let bell = Kept::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
        epoll::add(&instance, &bell, EventData::new_u64(BELL), EventFlags::IN)?;
        epoll::add(own, &instance, EventData::new_u64(SHADOW), EventFlags::IN)?;
        Ok(self.shadow.get_or_init(|| Shadow { instance, bell, is_rung: AtomicBool::new(false) }))
    }

    /// Wakes those who sleep in the kernel.
    fn wake(&self) {
        if self.sleepers.load(Ordering::SeqCst) > 0 {
            self.ring();
        }
    }

    fn ring(&self) {
        if let Some(shadow) = self.shadow.get()
            && !shadow.is_rung.swap(true, Ordering::SeqCst)
        {
            // It cannot be full.
            let _ = write(&shadow.bell, &1u64.to_ne_bytes());
        }
    }

    /// True if there may be anything that the kernel does not know.
    pub(crate) fn is_involved(&self) -> bool {
        self.shadow.get().is_some()
            || self.has_nested.load(Ordering::Relaxed)
            || self.is_blind.load(Ordering::Relaxed)
    }

    /// Waits as `epoll_wait` does. `ask` asks the kernel: into which memory, and for how long.
    pub(crate) fn wait(
        &self,
        out: &mut [epoll_event],
        limit: Limit,
        mut ask: impl FnMut(&mut [epoll_event], Limit) -> c_int,
    ) -> c_int {
        let deadline = limit.and_then(|limit| Instant::now().checked_add(limit));
        let is_look = limit == Some(Duration::ZERO);
        loop {
            let (found, anything_hot) = self.look(out);
            if found > 0 {
                return count(found);
            }
            if anything_hot || is_look {
                let asked = self.ask(out, Some(Duration::ZERO), &mut ask);
                if asked != 0 || is_look {
                    return asked;
                }
                if self.awake.wait(|| self.state().watches.is_any_ready()) {
                    continue;
                }
            }
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            let slept = self.sleep(out, left, &mut ask);
            self.awake.done();
            match slept {
                Some(0) if left != Some(Duration::ZERO) => {}
                Some(asked) => return asked,
                None => {}
            }
        }
    }

    /// Takes what is ready without asking the kernel, unless it is the kernel's turn. Also says if there are connections
    /// worth staying awake for.
    fn look(&self, out: &mut [epoll_event]) -> (usize, bool) {
        let mut state = self.state();
        state.calls = state.calls.wrapping_add(1);
        let is_turn = state.calls.is_multiple_of(KERNEL_EVERY);
        let found = if is_turn { 0 } else { state.watches.collect(out) };
        (found, is_turn || state.watches.is_any_hot())
    }

    /// Sleeps in the kernel; `None` if something is ready.
    fn sleep(
        &self,
        out: &mut [epoll_event],
        limit: Limit,
        ask: &mut impl FnMut(&mut [epoll_event], Limit) -> c_int,
    ) -> Option<c_int> {
        // Before the last look: who brings news after it wakes the sleeper.
        self.sleepers.fetch_add(1, Ordering::SeqCst);
        let is_blind = self.is_blind.load(Ordering::Relaxed);
        let limit = if is_blind { Some(limit.unwrap_or(BLIND).min(BLIND)) } else { limit };
        let asked = if self.settle() { None } else { Some(self.ask(out, limit, ask)) };
        self.sleepers.fetch_sub(1, Ordering::SeqCst);
        if is_blind {
            let shaking = self.state().watches.shaking();
            shaking.iter().for_each(Stream::has_news);
            self.state().watches.heat_all();
        }
        asked
    }

    /// Arms all connections, so that the kernel learns of their news. True if one is ready now.
    fn settle(&self) -> bool {
        self.state().watches.cool()
    }

    /// Has the instances within this one tell the kernel how they stand.
    fn tell_of_nested(&self) {
        if self.has_nested.load(Ordering::Relaxed) {
            let nested: Vec<_> =
                self.state().nested.iter().filter_map(|(_, nested)| nested.upgrade()).collect();
            nested.iter().for_each(|nested| nested.tell_kernel());
        }
    }

    /// For those who ask the kernel about this instance as about any descriptor: if a connection is ready, it says so.
    pub(crate) fn tell_kernel(&self) {
        if self.is_involved() {
            // What is still in there would be news to the kernel.
            self.take_in();
            self.tell_of_nested();
            if self.settle() {
                self.ring();
            }
        }
    }

    /// Asks the kernel, and takes in what it has to say of connections of ours.
    fn ask(
        &self,
        out: &mut [epoll_event],
        limit: Limit,
        ask: &mut impl FnMut(&mut [epoll_event], Limit) -> c_int,
    ) -> c_int {
        self.tell_of_nested();
        let asked = ask(out, limit);
        let Ok(mut found) = usize::try_from(asked) else { return asked };
        if let Some(at) = out.iter().take(found).position(|event| event.u64 == SHADOW) {
            found -= 1;
            out.swap(at, found);
            self.take_in();
        }
        let (kernels, rest) = out.split_at_mut(found);
        let mut state = self.state();
        let ours = state.watches.collect(rest);
        if state.watches.is_any_hot() && ours == rest.len() {
            // More than this call can report: others may.
            self.wake();
        }
        count(kernels.len() + ours)
    }

    /// Takes in the news that the shadow has.
    pub(crate) fn take_in(&self) {
        let Some(shadow) = self.shadow.get() else { return };
        loop {
            let mut events: Vec<epoll::Event> = Vec::with_capacity(BATCH);
            let taken = epoll::wait(
                &shadow.instance,
                rustix::buffer::spare_capacity(&mut events),
                Some(&Timespec::default()),
            );
            let mut tcp = Vec::new();
            {
                let mut state = self.state();
                for event in &events {
                    match event.data.u64() {
                        BELL => {
                            shadow.is_rung.store(false, Ordering::SeqCst);
                            let _ = read(&shadow.bell, &mut [0; 8]);
                        }
                        data => {
                            let of_tcp = data & OF_TCP != 0;
                            let flags = event.flags;
                            let is_over = flags.intersects(EventFlags::HUP | EventFlags::ERR);
                            state.watches.has_news(data & !OF_TCP, |stream| {
                                if !of_tcp && is_over {
                                    stream.bell_is_gone();
                                }
                                if of_tcp || is_over {
                                    tcp.push(stream.clone());
                                }
                            });
                        }
                    }
                }
            }
            tcp.iter().for_each(Stream::has_news);
            if !matches!(taken, Ok(BATCH)) {
                return;
            }
        }
    }
}

fn count(n: usize) -> c_int {
    c_int::try_from(n).unwrap_or(c_int::MAX)
}
