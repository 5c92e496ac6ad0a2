//! The epoll instances that watch a connection.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use libc::c_int;
use smallvec::SmallVec;

use smcd::raw::Shaken;

use crate::{
    epoll::{By, Epoll},
    stream::Stream,
    watch::Interest,
};

#[derive(Debug)]
struct Watcher {
    epoll: Weak<Epoll>,
    /// The descriptor that it knows the connection by.
    fd: c_int,
    /// What the kernel watches it for; `None` if the instance does so by itself.
    kernel: Option<Interest>,
}

impl Watcher {
    fn is(&self, epoll: &Arc<Epoll>, fd: c_int) -> bool {
        self.fd == fd && std::ptr::eq(self.epoll.as_ptr(), Arc::as_ptr(epoll))
    }
}

/// See the module. Its lock is taken before that of an instance.
#[derive(Debug, Default)]
pub(crate) struct Watchers(Mutex<SmallVec<[Watcher; 1]>>);

impl Watchers {
    /// Nobody else changes them meanwhile, nor what the kernel watches the connection for.
    pub(crate) fn hold(&self) -> HeldWatchers<'_> {
        // Nothing panics while it is held.
        HeldWatchers(self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Those of the socket from before it was connected, or after it could not be.
    pub(crate) fn take_from(&self, others: &Self) {
        let others = std::mem::take(&mut *others.hold().0);
        self.hold().0.extend(others);
    }

    /// The program has closed this descriptor of the connection.
    pub(crate) fn forget(&self, fd: c_int) {
        self.hold().0.retain(|watcher| {
            let is_it = watcher.fd == fd;
            if is_it && let Some(epoll) = watcher.epoll.upgrade() {
                epoll.forget(fd);
            }
            !is_it
        });
    }

    /// The connection has got rings: the instances watch it by themselves from now on.
    pub(crate) fn take_over(&self, stream: &Arc<Stream>) {
        let mut involved = SmallVec::<[Arc<Epoll>; 1]>::new();
        for watcher in self.hold().0.iter_mut() {
            if let Some(epoll) = watcher.epoll.upgrade()
                && let Some(interest) = watcher.kernel.take()
            {
                epoll.take_over(watcher.fd, stream, interest);
                involved.push(epoll);
            }
        }
        involved.iter().for_each(|epoll| epoll.take_in());
    }

    /// Has them look for themselves.
    pub(crate) fn wake(&self) {
        for watcher in self.hold().0.iter() {
            if let Some(epoll) = watcher.epoll.upgrade() {
                epoll.look_at(watcher.fd);
            }
        }
    }
}

/// See [`Watchers::hold`].
pub(crate) struct HeldWatchers<'a>(MutexGuard<'a, SmallVec<[Watcher; 1]>>);

impl HeldWatchers<'_> {
    /// The kernel has done this for an instance.
    pub(crate) fn controlled(
        &mut self,
        epoll: &Arc<Epoll>,
        op: c_int,
        fd: c_int,
        interest: Option<Interest>,
    ) {
        match interest {
            Some(interest) if op != libc::EPOLL_CTL_DEL => self.add(epoll, fd, Some(interest)),
            _ => self.remove(epoll, fd),
        }
    }

    /// True if this instance has the kernel watch the connection, by this descriptor.
    pub(crate) fn has_kernel(&self, epoll: &Arc<Epoll>, fd: c_int) -> bool {
        self.0.iter().any(|watcher| watcher.is(epoll, fd) && watcher.kernel.is_some())
    }

    /// The instance watches the connection, by this descriptor; or has the kernel do so, for that.
    pub(crate) fn add(&mut self, epoll: &Arc<Epoll>, fd: c_int, kernel: Option<Interest>) {
        match self.0.iter_mut().find(|watcher| watcher.is(epoll, fd)) {
            Some(known) => known.kernel = kernel,
            None => {
                self.0.retain(|watcher| watcher.epoll.strong_count() > 0);
                self.0.push(Watcher { epoll: Arc::downgrade(epoll), fd, kernel });
            }
        }
    }

    /// A handshake is over, during which the instances have watched the connection by themselves.
    pub(crate) fn have_shaken(&mut self, stream: &Arc<Stream>, shaken: &Shaken) {
        self.0.retain(|watcher| {
            let Some(epoll) = watcher.epoll.upgrade() else { return false };
            if watcher.kernel.is_some() {
                return true;
            }
            match epoll.has_shaken(watcher.fd, stream, shaken) {
                By::Us => true,
                By::Kernel(interest) => {
                    watcher.kernel = Some(interest);
                    true
                }
                By::Nobody => false,
            }
        });
    }

    /// It does no longer.
    pub(crate) fn remove(&mut self, epoll: &Arc<Epoll>, fd: c_int) {
        self.0.retain(|watcher| !watcher.is(epoll, fd));
    }
}
