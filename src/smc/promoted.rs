//! A hybrid connection in the hands of tokio.

use std::{
    io::{self, IoSlice},
    os::fd::{AsFd, BorrowedFd},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker, ready},
};

use bytes::BufMut;
use rustix::net::RecvFlags;
use tokio::{
    io::{Interest, Ready},
    net::TcpStream,
    runtime::Handle,
    sync::Notify,
};

use super::{
    BusyPoll, SmcConfig, Transport,
    awake::finished,
    connection::{Connection, Progress},
    established::Established,
    hybrid::{Hybrid, Ring, Tcp, is_writable, receive, send},
    smcd::Smcd,
};
use crate::dibs::Cause;

/// A TCP connection of tokio that may become SMC-D.
pub(crate) type Promoted = Hybrid<Smcd, TcpStream>;

/// Where the rings of a connection are watched, and how.
#[derive(Debug)]
pub(crate) struct Home {
    runtime: Option<Handle>,
    busy_poll: BusyPoll,
    /// Tasks that wait for TCP alone. One of several that read may bring the ring into play.
    waiting: Notify,
    /// The one of them that polls.
    polling: Mutex<Option<Waker>>,
}

impl Home {
    /// The runtime that the caller runs in, which is also that of its TCP connection.
    pub(crate) fn here(config: &SmcConfig) -> Self {
        Self {
            runtime: Handle::try_current().ok(),
            busy_poll: config.busy_poll,
            waiting: Notify::new(),
            polling: Mutex::new(None),
        }
    }

    fn polling(&self) -> MutexGuard<'_, Option<Waker>> {
        // Nothing panics while it is held.
        self.polling.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Ring for Smcd {
    type Home = Home;

    fn new(established: Established, home: &Home) -> io::Result<Self> {
        let runtime = home.runtime.as_ref().ok_or(io::ErrorKind::Unsupported)?;
        let _entered = runtime.enter();
        Self::new(established, home.busy_poll, true)
    }

    fn connection(&self) -> &Connection {
        self.connection()
    }

    fn transport(&self) -> Transport {
        self.transport()
    }

    fn has_peer_left(&self) -> bool {
        self.notice_hang_up()
    }

    fn comes_into_play(home: &Home) {
        home.waiting.notify_waiters();
        if let Some(polling) = home.polling().take() {
            polling.wake();
        }
    }
}

impl Tcp for TcpStream {
    fn socket(&self) -> BorrowedFd<'_> {
        self.as_fd()
    }

    fn receive(&self, dst: &mut impl BufMut) -> io::Result<usize> {
        let mut partly = None;
        let result = self.try_io(Interest::READABLE, || {
            let room = dst.chunk_mut().len();
            let n = receive(self, dst, RecvFlags::empty())?;
            if n > 0 && n < room {
                // Nothing is left: the runtime need not be told by one more call of the system.
                partly = Some(n);
                return Err(io::ErrorKind::WouldBlock.into());
            }
            Ok(n)
        });
        partly.map_or(result, Ok)
    }

    fn peek(&self, dst: &mut impl BufMut) -> io::Result<usize> {
        self.try_io(Interest::READABLE, || receive(self, dst, RecvFlags::PEEK))
    }

    fn send(&self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        self.try_io(Interest::WRITABLE, || send(self, bufs))
    }

    /// Past the runtime, which may not know yet that there is room.
    fn send_now(&self, bytes: &[u8]) -> io::Result<usize> {
        send(self, &[IoSlice::new(bytes)])
    }

    /// By way of the runtime, which thereby learns if it has to wait.
    fn is_writable(&self) -> bool {
        let look = || if is_writable(self.as_fd()) { Ok(()) } else { Err(io::ErrorKind::WouldBlock.into()) };
        self.try_io(Interest::WRITABLE, look).is_ok()
    }
}

/// A connection on which nothing was read or written yet.
pub(crate) fn promoted(tcp: Arc<TcpStream>, config: Arc<SmcConfig>) -> Promoted {
    Hybrid::new(tcp, Home::here(&config), config)
}

impl Promoted {
    pub(crate) fn poll_read(&self, cx: &mut Context<'_>, dst: &mut impl BufMut) -> Poll<io::Result<usize>> {
        self.poll_data(cx, &mut || self.try_read(dst))
    }

    pub(crate) fn poll_peek(&self, cx: &mut Context<'_>, dst: &mut impl BufMut) -> Poll<io::Result<usize>> {
        self.poll_data(cx, &mut || self.try_peek(dst))
    }

    /// Makes progress with reading, or arranges to be woken by whichever of TCP and ring has something first.
    pub(crate) fn poll_data(
        &self,
        cx: &mut Context<'_>,
        attempt: &mut dyn FnMut() -> io::Result<Progress>,
    ) -> Poll<io::Result<usize>> {
        let coop = ready!(tokio::task::coop::poll_proceed(cx));
        loop {
            let ring = self.ring().filter(|_| self.watches_ring());
            let result = match ring {
                Some(ring) => ring.attempt(Cause::Data, self.reads_ring(), attempt),
                None => finished(attempt()),
            };
            if let Some(result) = result {
                coop.made_progress();
                return Poll::Ready(result);
            }
            if ring.is_none() && self.watches_ring() {
                // The attempt has brought the ring into play, but asked for no signal.
                continue;
            }
            let signal = ring.map_or(Poll::Pending, |ring| ring.poll_signal(cx, Cause::Data));
            match (signal, self.poll_tcp(cx)) {
                (Poll::Pending, Poll::Pending) => return Poll::Pending,
                (Poll::Ready(Err(error)), _) | (_, Poll::Ready(Err(error))) => {
                    return Poll::Ready(Err(error));
                }
                _ => {}
            }
        }
    }

    /// Waits until TCP can be read from, or the ring comes into play.
    pub(crate) fn poll_tcp(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let watched = self.watches_ring();
        if !watched {
            self.home().polling().get_or_insert_with(|| cx.waker().clone()).clone_from(cx.waker());
        }
        match self.tcp().poll_read_ready(cx) {
            Poll::Pending if watched != self.watches_ring() => Poll::Ready(Ok(())),
            other => other,
        }
    }

    pub(crate) fn poll_write(&self, cx: &mut Context<'_>, bufs: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        self.poll_space(cx, &mut || self.try_write(bufs))
    }

    /// Makes progress with writing, or arranges to be woken.
    pub(crate) fn poll_space(
        &self,
        cx: &mut Context<'_>,
        attempt: &mut dyn FnMut() -> io::Result<Progress>,
    ) -> Poll<io::Result<usize>> {
        let coop = ready!(tokio::task::coop::poll_proceed(cx));
        loop {
            let ring = self.ring().filter(|_| self.writes_ring());
            let result = match ring {
                Some(ring) => ring.attempt(Cause::Space, true, attempt),
                None => finished(attempt()),
            };
            if let Some(result) = result {
                coop.made_progress();
                return Poll::Ready(result);
            }
            if ring.is_some() && !self.writes_ring() {
                // It goes by TCP again, which has to be waited for.
                continue;
            }
            match ring {
                Some(ring) if ring.has_hung_up() => return Poll::Ready(Err(gone())),
                Some(ring) => ready!(ring.poll_signal(cx, Cause::Space))?,
                None if self.writes_ring() => {}
                None => ready!(self.tcp().poll_write_ready(cx))?,
            }
        }
    }

    /// Waits until TCP is ready; `None` if the ring comes into play before. Any number of tasks may wait.
    pub(crate) async fn tcp_ready(&self, interest: Interest) -> io::Result<Option<Ready>> {
        let comes_into_play = self.home().waiting.notified();
        if self.watches_ring() {
            return Ok(None);
        }
        tokio::select! {
            ready = self.tcp().ready(interest) => ready.map(Some),
            () = comes_into_play => Ok(None),
        }
    }

    /// Waits until there is something to read. Any number of tasks may wait.
    pub(crate) async fn readable(&self) -> io::Result<()> {
        loop {
            let Some(ring) = self.ring().filter(|_| self.watches_ring()) else {
                match self.tcp_ready(Interest::READABLE).await? {
                    Some(_) => return Ok(()),
                    None => continue,
                }
            };
            if self.is_readable() {
                return Ok(());
            }
            ring.connection().interrupt().arm(Cause::Data);
            if self.is_readable() {
                return Ok(());
            }
            tokio::select! {
                signal = ring.signal(Cause::Data) => signal?,
                ready = self.tcp().readable() => ready?,
            }
        }
    }

    /// Waits until something can be written, or writing would fail. Any number of tasks may wait.
    pub(crate) async fn writable(&self) -> io::Result<()> {
        loop {
            let Some(ring) = self.ring().filter(|_| self.writes_ring()) else {
                return self.tcp().writable().await;
            };
            if self.is_writable() || ring.has_hung_up() {
                return Ok(());
            }
            ring.connection().interrupt().arm(Cause::Space);
            if self.is_writable() {
                return Ok(());
            }
            if !self.writes_ring() {
                continue;
            }
            ring.signal(Cause::Space).await?;
        }
    }
}

/// The peer's process is gone, so that room will never come.
fn gone() -> io::Error {
    io::ErrorKind::ConnectionReset.into()
}
