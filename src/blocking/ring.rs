//! The rings of a connection in the hands of threads, and how a thread waits for them.

use std::{
    io,
    os::fd::BorrowedFd,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicI64, Ordering},
    },
    time::Duration,
};

use rustix::{
    event::{PollFd, PollFlags},
    time::{ClockId, Timespec, clock_gettime},
};

use super::{
    patience::Patience,
    poll::{self, GONE},
    pollers::{Pollers, Polling},
};
use crate::{
    BusyPoll, Transport,
    dibs::{Cause, Interrupt},
    smc::{
        awake::{Spinners, finished},
        connection::{Connection, Progress},
        established::Established,
        hybrid,
    },
};

/// How long a thread sleeps on the futex at first. While it does, its peer wakes it most cheaply; but nobody tells it
/// that the peer has died.
const BRIEF: Duration = Duration::from_millis(2);

/// How often a thread that waits for space looks whether this end has shut down writing meanwhile: no descriptor tells
/// it so. One that waits for data is told by the TCP connection.
const LOOK: Duration = Duration::from_millis(100);

/// What an attempt looks at.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Look<'a> {
    /// The ring, which takes no system call, but does not tell that the TCP connection has ended.
    Ring(&'a Connection),
    /// All that there is.
    All,
}

/// Which way the bytes of a direction take.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Way {
    /// By the ring, which nobody else has.
    Ring,
    /// By TCP and perhaps by the ring, or by a ring that other processes have too.
    Either,
    /// By TCP.
    Tcp,
}

/// Says which way it is now.
pub(super) type WayNow<'a> = dyn Fn() -> Way + 'a;

/// Something to be tried until it gets on.
pub(crate) type Attempt<'a> = dyn FnMut(Look<'_>) -> io::Result<Progress> + 'a;

/// Somebody to be told.
struct Told(Box<dyn Fn() + Send + Sync>);

impl std::fmt::Debug for Told {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Told")
    }
}

/// A pair of rings. Closed on drop.
#[derive(Debug)]
pub(crate) struct Ring {
    /// Before what gives the buffers back, which has to find nobody else holding the connection.
    connection: Arc<Connection>,
    established: Established,
    spinners: Spinners,
    pollers: Pollers,
    /// The peer's end of the doorbell has gone: nobody will ring any more, and `poll` would say so for ever.
    hung_up: AtomicBool,
    /// Somebody else will say when the doorbell hangs up.
    watched: AtomicBool,
    /// Told when rings were taken out of the doorbell that others may wait for.
    cleared: OnceLock<Told>,
    /// When a writer last looked for that, in nanoseconds of the coarse clock.
    looked: AtomicI64,
}

impl hybrid::Ring for Ring {
    type Home = BusyPoll;

    fn new(established: Established, how: &BusyPoll) -> io::Result<Self> {
        let connection = established.share().ok_or(io::ErrorKind::NotConnected)?;
        Ok(Self {
            connection,
            established,
            spinners: Spinners::new(*how),
            pollers: Pollers::default(),
            hung_up: AtomicBool::new(false),
            watched: AtomicBool::new(false),
            cleared: OnceLock::new(),
            looked: AtomicI64::new(0),
        })
    }

    fn connection(&self) -> &Connection {
        &self.connection
    }

    fn transport(&self) -> Transport {
        self.established.transport(&self.connection)
    }

    /// Looking costs a system call, reading the coarse clock next to nothing: one look in each of its ticks (some
    /// milliseconds).
    fn has_peer_left(&self) -> bool {
        if self.watched.load(Ordering::Relaxed) {
            return self.has_hung_up();
        }
        let Timespec { tv_sec, tv_nsec } = clock_gettime(ClockId::MonotonicCoarse);
        let now = tv_sec.wrapping_mul(1_000_000_000).wrapping_add(tv_nsec);
        if self.looked.load(Ordering::Relaxed) != now {
            self.looked.store(now, Ordering::Relaxed);
            if self.interrupt().is_hung_up() {
                self.hangs_up();
            }
        }
        self.has_hung_up()
    }
}

impl Ring {
    /// Somebody else watches the doorbell, and will say when it hangs up.
    pub(crate) fn is_watched(&self) {
        self.watched.store(true, Ordering::Relaxed);
    }

    /// The doorbell has hung up.
    pub(crate) fn hangs_up(&self) {
        self.connection.doorbell_has_ended();
        self.hung_up.store(true, Ordering::Release);
    }

    /// Has somebody told whenever rings are taken out of the doorbell by those who wait here.
    pub(crate) fn on_clear(&self, told: impl Fn() + Send + Sync + 'static) {
        let _ = self.cleared.set(Told(Box::new(told)));
    }

    /// To be called before a thread polls the doorbell; the result goes when it has.
    pub(crate) fn enter(&self) -> Polling<'_> {
        let polling = self.pollers.enter(self.interrupt());
        if let Some(Told(told)) = self.cleared.get() {
            told();
        }
        polling
    }

    fn has_hung_up(&self) -> bool {
        self.hung_up.load(Ordering::Acquire)
    }

    fn interrupt(&self) -> &dyn Interrupt {
        self.connection.interrupt()
    }

    /// Attempts until something comes of it; `None` if that is not to be waited for here any more, since `way` says
    /// that the bytes go by TCP. One thread at a time may wait so for each cause.
    ///
    /// # Errors
    /// `WouldBlock` if it takes too long, `Interrupted` by a signal, or those of the attempt.
    pub(super) fn wait(
        &self,
        tcp: BorrowedFd<'_>,
        cause: Cause,
        way: &WayNow<'_>,
        patience: Patience,
        attempt: &mut Attempt<'_>,
    ) -> Option<io::Result<usize>> {
        if patience == Patience::Never {
            return self.at_once(tcp, cause, way, attempt);
        }
        let mut result = None;
        if way() == Way::Ring && !self.has_hung_up() {
            result = self.wait_briefly(cause, way, patience, attempt);
        }
        let result = result.or_else(|| self.wait_long(tcp, cause, way, patience, attempt).transpose());
        self.spinners.awake(cause);
        result
    }

    fn at_once(
        &self,
        tcp: BorrowedFd<'_>,
        cause: Cause,
        way: &WayNow<'_>,
        attempt: &mut Attempt<'_>,
    ) -> Option<io::Result<usize>> {
        let mut result = finished(attempt(Look::All));
        if result.is_none()
            && cause == Cause::Data
            && self.connection.ends_with_device()
            && hybrid::Ring::has_peer_left(self)
        {
            // TCP does not tell.
            result = finished(attempt(Look::All));
        }
        if result.is_none()
            && cause == Cause::Space
            && (self.interrupt().is_hung_up() || self.has_given_up(tcp))
        {
            // What the peer said before it went counts first.
            result = finished(attempt(Look::All));
            if result.is_none() && way() != Way::Tcp {
                return Some(Err(gone()));
            }
        }
        result.or_else(|| (way() != Way::Tcp).then(|| Err(io::ErrorKind::WouldBlock.into())))
    }

    /// Waits awake, then on the futex; `None` if that was not enough.
    fn wait_briefly(
        &self,
        cause: Cause,
        way: &WayNow<'_>,
        patience: Patience,
        attempt: &mut Attempt<'_>,
    ) -> Option<io::Result<usize>> {
        let mut attempt = || attempt(Look::Ring(&self.connection));
        let mut result = self.spinners.look(&self.connection, cause, &mut attempt);
        let patience = patience.at_most(BRIEF);
        while result.is_none() {
            if way() != Way::Ring {
                return None;
            }
            let left = patience.left().ok()?;
            let mut news = || {
                result = finished(attempt());
                result.is_some()
            };
            match self.interrupt().wait(cause, left, &mut news) {
                Ok(true) if result.is_none() => result = finished(attempt()),
                Ok(_) => {}
                Err(error) => return Some(Err(error)),
            }
        }
        result
    }

    /// Waits in `poll`, where the end of the peer is seen as well as its signals.
    fn wait_long(
        &self,
        tcp: BorrowedFd<'_>,
        cause: Cause,
        way: &WayNow<'_>,
        patience: Patience,
        attempt: &mut Attempt<'_>,
    ) -> io::Result<Option<usize>> {
        let mut has_tcp_ended = false;
        loop {
            // Before the attempt: what the peer said before it went counts first.
            let has_hung_up = self.has_hung_up();
            let polling = (!has_hung_up).then(|| self.enter());
            self.interrupt().arm(cause);
            if let Some(result) = finished(attempt(Look::All)) {
                return result.map(Some);
            }
            if way() == Way::Tcp {
                return Ok(None);
            }
            if cause == Cause::Space && (has_hung_up || has_tcp_ended) {
                return Err(gone());
            }
            has_tcp_ended = self.sleep(tcp, cause, polling.is_some(), patience.left()?)?;
        }
    }

    /// Sleeps until a signal or the time is over. True if the TCP connection has ended, so that nothing comes any more of
    /// what is waited for.
    fn sleep(
        &self,
        tcp: BorrowedFd<'_>,
        cause: Cause,
        is_polling: bool,
        left: Option<Duration>,
    ) -> io::Result<bool> {
        let (events, left) = match cause {
            Cause::Data => (PollFlags::IN | PollFlags::RDHUP, left),
            Cause::Space => (self.last_words(), Some(left.map_or(LOOK, |left| left.min(LOOK)))),
        };
        let mut fds = [
            PollFd::from_borrowed_fd(tcp, events),
            PollFd::from_borrowed_fd(self.interrupt().as_fd(), PollFlags::IN),
        ];
        // Once the doorbell has hung up, the TCP connection alone says what has become of the peer.
        let watched = if is_polling { 2 } else { 1 };
        poll::sleep(&mut fds[..watched], left)?;
        if fds[1].revents().intersects(GONE) {
            self.hangs_up();
        }
        // It may have said something by the ring meanwhile; what it has to say comes there first.
        let last_words = if cause == Cause::Space { self.last_words() } else { PollFlags::empty() };
        Ok(fds[0].revents().intersects(GONE | last_words))
    }

    /// What there is to be heard by TCP of a server that has given up after its Accept, and perhaps never taken our
    /// doorbell: it has not said anything by the ring. Of others it does not matter what they write, and that they will
    /// write no more.
    fn last_words(&self) -> PollFlags {
        let has_spoken = self.connection.is_peer_on_two_ways() || self.connection.has_peer_ended();
        if has_spoken { PollFlags::empty() } else { PollFlags::IN | PollFlags::RDHUP }
    }

    /// True if such a server has been heard.
    fn has_given_up(&self, tcp: BorrowedFd<'_>) -> bool {
        let last_words = self.last_words();
        !last_words.is_empty() && poll::now(tcp, last_words).intersects(GONE | last_words)
    }
}

/// The peer's process is gone, so that room will never come.
fn gone() -> io::Error {
    io::ErrorKind::ConnectionReset.into()
}
