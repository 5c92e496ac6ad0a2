//! `poll` over descriptors of which some are connections of ours.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use libc::{c_int, pollfd};
use smallvec::SmallVec;
use smcd::raw::{self, Awake, Cause};

use crate::{
    epoll::Epoll,
    settings,
    stream::{Stream, Way},
    table::{self, Entry},
};

thread_local! {
    /// What this thread has learned about waiting.
    static AWAKE: Awake = Awake::new(settings::config().busy_poll);
}

/// What the caller waits for, of ours.
#[derive(Debug, Default)]
struct Ours {
    /// Connections with rings, and their places.
    rings: SmallVec<[(usize, Arc<Stream>); 8]>,
    /// Connections that the kernel waits for.
    kernel: SmallVec<[Arc<Stream>; 8]>,
    /// Epoll instances.
    epolls: SmallVec<[Arc<Epoll>; 2]>,
}

impl Ours {
    fn of(fds: &[pollfd]) -> Self {
        let mut ours = Self::default();
        for (at, fd) in fds.iter().enumerate() {
            let Some(entry) = table::entry(fd.fd) else { continue };
            match entry.as_deref() {
                Some(Entry::Stream(stream)) => match stream.way_in() {
                    // With a handshake, what is asked for is what it waits for ([`shaking`]).
                    Way::Kernel | Way::Unsettled => {}
                    Way::Counted => ours.kernel.push(stream.clone()),
                    Way::Rings => ours.rings.push((at, stream.clone())),
                },
                Some(Entry::Epoll(epoll)) => ours.epolls.push(epoll.clone()),
                Some(Entry::Watched(_)) | None => {}
            }
        }
        ours
    }

    /// Writes down what is ready of the connections with rings; says how many are.
    fn look(&self, fds: &mut [pollfd]) -> usize {
        let mut ready = 0;
        for (at, stream) in &self.rings {
            if let Some(fd) = fds.get_mut(*at) {
                fd.revents = stream.events(fd.events);
                ready += usize::from(fd.revents != 0);
            }
        }
        ready
    }

    fn is_any_ready(&self, fds: &[pollfd]) -> bool {
        self.rings.iter().any(|(at, stream)| fds.get(*at).is_some_and(|fd| stream.events(fd.events) != 0))
    }
}

impl Drop for Ours {
    fn drop(&mut self) {
        for stream in &self.kernel {
            stream.was_read(0);
        }
    }
}

/// Connections whose handshake is not over, and their places. Goes on with them.
fn shaking(fds: &[pollfd]) -> SmallVec<[(usize, Arc<Stream>); 4]> {
    let streams = fds.iter().enumerate().filter_map(|(at, fd)| Some((at, table::stream(fd.fd)?)));
    streams.filter(|(_, stream)| stream.raw.is_shaking() && stream.shake().is_none()).collect()
}

/// Waits as `poll` does. `ask` asks the kernel: about what, and for how long.
pub(crate) fn poll(
    fds: &mut [pollfd],
    limit: Option<Duration>,
    mut ask: impl FnMut(&mut [pollfd], Option<Duration>) -> c_int,
) -> c_int {
    if !raw::is_any_shaking() {
        return poll_settled(fds, limit, &mut ask);
    }
    let deadline = limit.and_then(|limit| Instant::now().checked_add(limit));
    loop {
        let shaking = shaking(fds);
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        if shaking.is_empty() {
            return poll_settled(fds, left, &mut ask);
        }
        // Nothing is known of these, and the program waits for what they wait for.
        let mut asked: SmallVec<[pollfd; 16]> = SmallVec::from_slice(fds);
        let mut pause = left;
        for (at, stream) in &shaking {
            let Some(need) = stream.raw.need() else { continue };
            let Some(place) = asked.get_mut(*at) else { continue };
            place.events = need.events;
            if need.events == 0 {
                place.fd = -1;
            }
            if let Some(until) = need.until {
                let time = until.saturating_duration_since(Instant::now());
                pause = Some(pause.map_or(time, |pause| pause.min(time)));
            }
        }
        let result = poll_settled(&mut asked, pause, &mut ask);
        if result < 0 {
            return result;
        }
        for (fd, asked) in fds.iter_mut().zip(&asked) {
            fd.revents = asked.revents;
        }
        for (at, _) in &shaking {
            if let Some(fd) = fds.get_mut(*at) {
                fd.revents = 0;
            }
        }
        let ready = count(fds);
        if ready > 0 {
            return ready;
        }
        if result == 0 && pause == left && left.is_some() {
            // One more step may have been the last; then the time is over.
            let all_wait = self::shaking(fds).len() == shaking.len();
            if all_wait {
                return 0;
            }
        }
    }
}

/// As [`poll`], where no handshake comes first.
fn poll_settled(
    fds: &mut [pollfd],
    limit: Option<Duration>,
    mut ask: impl FnMut(&mut [pollfd], Option<Duration>) -> c_int,
) -> c_int {
    let ours = Ours::of(fds);
    if ours.rings.is_empty() {
        ours.epolls.iter().for_each(|epoll| epoll.tell_kernel());
        return ask(fds, limit);
    }
    let deadline = limit.and_then(|limit| Instant::now().checked_add(limit));
    // Those that are not ours, for the kernel, which skips what is negative.
    let mut others: SmallVec<[pollfd; 16]> = SmallVec::from_slice(fds);
    for (at, _) in &ours.rings {
        others[*at].fd = -1;
    }
    let are_others = others.iter().any(|fd| fd.fd >= 0);
    loop {
        let ready = ours.look(fds);
        if ready > 0 || limit == Some(Duration::ZERO) {
            if !are_others && limit != Some(Duration::ZERO) {
                return count(fds);
            }
            return now(fds, &mut others, &ours, &mut ask);
        }
        let is_awake = AWAKE.try_with(|awake| awake.wait(|| ours.is_any_ready(fds))).unwrap_or(false);
        if is_awake {
            continue;
        }
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        let slept = sleep(fds, &others, &ours, left, &mut ask);
        let _ = AWAKE.try_with(Awake::done);
        match slept {
            Some(asked) if asked < 0 => return asked,
            Some(asked) => {
                let ready = now(fds, &mut others, &ours, &mut ask);
                // Only time is a reason to come back with nothing.
                if ready != 0 || asked == 0 {
                    return ready;
                }
            }
            None => {}
        }
    }
}

/// What is ready now, without waiting.
fn now(
    fds: &mut [pollfd],
    others: &mut [pollfd],
    ours: &Ours,
    ask: &mut impl FnMut(&mut [pollfd], Option<Duration>) -> c_int,
) -> c_int {
    ours.epolls.iter().for_each(|epoll| epoll.tell_kernel());
    for (_, stream) in &ours.rings {
        // Whoever never sleeps is told by nobody that a connection has ended.
        stream.tcp_may_have_news();
    }
    if others.iter().any(|fd| fd.fd >= 0) {
        let asked = ask(others, Some(Duration::ZERO));
        if asked < 0 {
            return asked;
        }
    }
    for (fd, other) in fds.iter_mut().zip(&*others) {
        fd.revents = other.revents;
    }
    ours.look(fds);
    count(fds)
}

fn count(fds: &[pollfd]) -> c_int {
    c_int::try_from(fds.iter().filter(|fd| fd.revents != 0).count()).unwrap_or(c_int::MAX)
}

/// Sleeps in the kernel until something happens, which is to be looked at. `None` if it is known that something has, but
/// the time is not over.
fn sleep(
    fds: &[pollfd],
    others: &[pollfd],
    ours: &Ours,
    left: Option<Duration>,
    ask: &mut impl FnMut(&mut [pollfd], Option<Duration>) -> c_int,
) -> Option<c_int> {
    let _polling: SmallVec<[_; 8]> = ours.rings.iter().map(|(_, stream)| stream.raw.enter()).collect();
    for (at, stream) in &ours.rings {
        stream.raw.arm(Cause::Data);
        if fds.get(*at).is_some_and(|fd| fd.events & (libc::POLLOUT | libc::POLLWRNORM) != 0) {
            stream.raw.arm(Cause::Space);
        }
    }
    ours.epolls.iter().for_each(|epoll| epoll.tell_kernel());
    if ours.is_any_ready(fds) {
        return None;
    }
    let mut all: SmallVec<[pollfd; 32]> = SmallVec::from_slice(others);
    for (at, stream) in &ours.rings {
        all.extend(stream.to_poll(fds.get(*at).map_or(0, |fd| fd.events)));
    }
    let asked = ask(&mut all, left);
    if asked > 0 {
        let polled = all.get(others.len()..).unwrap_or(&[]).chunks_exact(2);
        for ((_, stream), polled) in ours.rings.iter().zip(polled) {
            stream.was_polled(polled);
        }
        // It may have been a ring for something else.
        let is_other = all.iter().take(others.len()).any(|fd| fd.revents != 0);
        return if is_other || ours.is_any_ready(fds) { Some(asked) } else { None };
    }
    Some(asked)
}
