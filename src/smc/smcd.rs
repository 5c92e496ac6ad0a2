//! A connection in the hands of tokio: what waits, and what gives the buffers back in the end.

use std::{
    io,
    os::fd::BorrowedFd,
    sync::{
        OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, ready},
};

use tokio::io::{Interest, unix::AsyncFd};

use super::{
    BusyPoll, Transport,
    awake::{Spinners, finished},
    connection::{Connection, Progress},
    established::Established,
    watched::{Watched, watch},
};
use crate::{dibs::Cause, observe::Tally};

/// An SMC-D connection on a tokio runtime. Closed on drop.
#[derive(Debug)]
pub(crate) struct Smcd {
    /// Before what gives the buffers back: the event loop must have let go of the descriptor before another connection
    /// can get it.
    watched: AsyncFd<Watched>,
    established: Established,
    spinners: Spinners,
    /// The end of the doorbell is no more than a hint: the TCP connection below says what has become of the peer.
    tcp_decides: bool,
    /// The peer's end of the doorbell has gone.
    hung_up: AtomicBool,
    /// Of a connection that was SMC-D before its first byte; others have one already.
    tally: OnceLock<Tally>,
}

impl Smcd {
    /// Hands a connection to the current runtime.
    ///
    /// # Errors
    /// If the runtime cannot watch another descriptor.
    pub(crate) fn new(established: Established, busy_poll: BusyPoll, tcp_decides: bool) -> io::Result<Self> {
        let connection = established.share().ok_or(io::ErrorKind::NotConnected)?;
        Ok(Self {
            watched: watch(connection)?,
            established,
            spinners: Spinners::new(busy_poll),
            tcp_decides,
            hung_up: AtomicBool::new(false),
            tally: OnceLock::new(),
        })
    }

    /// Makes known that the connection over this socket is SMC-D before its first byte.
    pub(crate) fn announce(&self, socket: BorrowedFd<'_>) {
        let tally = self.tally.get_or_init(Tally::new);
        tally.make_record(socket);
        self.transport().announce(tally, self.connection(), true);
    }

    pub(crate) fn connection(&self) -> &Connection {
        self.watched.get_ref().connection()
    }

    pub(crate) fn transport(&self) -> Transport {
        self.established.transport(self.connection())
    }

    /// Makes progress, or arranges to be woken when it can be made, or when the TCP connection below ends, which
    /// `poll_tcp_end` waits for: then it never can.
    pub(crate) fn poll_progress(
        &self,
        cx: &mut Context<'_>,
        cause: Cause,
        attempt: &mut dyn FnMut() -> io::Result<Progress>,
        poll_tcp_end: impl FnOnce(&mut Context<'_>) -> Poll<()>,
    ) -> Poll<io::Result<usize>> {
        match self.poll_ring(cx, cause, attempt) {
            // One that has said by the ring that it is done ends the TCP connection too, and may still read.
            Poll::Pending if !self.connection().has_peer_ended() && poll_tcp_end(cx).is_ready() => {
                self.tcp_has_ended();
                self.poll_ring(cx, cause, attempt)
            }
            other => other,
        }
    }

    fn poll_ring(
        &self,
        cx: &mut Context<'_>,
        cause: Cause,
        attempt: &mut dyn FnMut() -> io::Result<Progress>,
    ) -> Poll<io::Result<usize>> {
        // A connection that is always ready must give way to other tasks now and then.
        let coop = ready!(tokio::task::coop::poll_proceed(cx));
        let result = loop {
            match self.attempt(cause, true, attempt) {
                Some(result) => break result,
                None => match self.poll_signal(cx, cause) {
                    Poll::Pending => return Poll::Pending,
                    Poll::Ready(Ok(())) => {}
                    Poll::Ready(Err(error)) => break Err(error),
                },
            }
        };
        coop.made_progress();
        Poll::Ready(result)
    }

    /// Attempts until it is time to wait for a signal; then one is asked for. `None` if nothing can be done now.
    pub(crate) fn attempt(
        &self,
        cause: Cause,
        awake: bool,
        attempt: &mut dyn FnMut() -> io::Result<Progress>,
    ) -> Option<io::Result<usize>> {
        let mut result = finished(attempt());
        if result.is_none() && awake {
            result = self.spinners.look(self.connection(), cause, attempt);
        }
        if result.is_none() {
            self.connection().interrupt().arm(cause);
            // If there is something now, it stays armed: another task may wait for the same and rely on it. It costs
            // one ring at most.
            result = finished(attempt());
        }
        if result.is_some() {
            self.spinners.awake(cause);
        }
        result
    }

    /// Waits for a signal; the caller looks for itself afterwards. Once the peer has hung up, none will come.
    pub(crate) fn poll_signal(&self, cx: &mut Context<'_>, cause: Cause) -> Poll<io::Result<()>> {
        if self.tcp_decides && self.has_hung_up() {
            return Poll::Pending;
        }
        let mut guard = ready!(match cause {
            Cause::Data => self.watched.poll_read_ready(cx),
            Cause::Space => self.watched.poll_write_ready(cx),
        })?;
        let ready = guard.ready();
        guard.clear_ready();
        self.signalled(ready);
        Poll::Ready(Ok(()))
    }

    /// As [`Smcd::poll_signal`], for any number of tasks.
    pub(crate) async fn signal(&self, cause: Cause) -> io::Result<()> {
        if self.tcp_decides && self.has_hung_up() {
            return std::future::pending().await;
        }
        let mut guard = match cause {
            Cause::Data => self.watched.readable().await?,
            Cause::Space => self.watched.writable().await?,
        };
        let ready = guard.ready();
        guard.clear_ready();
        self.signalled(ready);
        Ok(())
    }

    /// The TCP connection below has ended, or carries what it should not. A peer that closes says so in the ring before
    /// that; one that has said nothing has given up, perhaps without ever having taken our doorbell.
    pub(crate) fn tcp_has_ended(&self) {
        self.connection().peer_is_gone_unless_closing();
    }

    fn signalled(&self, ready: tokio::io::Ready) {
        if ready.is_read_closed() || ready.is_write_closed() {
            // The peer's end of the doorbell has gone, and with it the peer, unless it has closed in order: then its
            // flags are there and count first.
            self.hung_up.store(true, Ordering::Release);
            if !self.tcp_decides {
                self.connection().peer_is_gone();
            }
        }
    }

    /// True if the peer's end of the doorbell has gone, as far as the runtime knows.
    pub(crate) fn notice_hang_up(&self) -> bool {
        if !self.has_hung_up() {
            // A load, unless there was a signal since the last time. Those who wait were woken by it, and look for
            // themselves; so it may be forgotten here.
            let _ = self.watched.try_io(Interest::WRITABLE, |watched| {
                if watched.connection().interrupt().is_hung_up() {
                    self.hung_up.store(true, Ordering::Release);
                }
                Err::<(), _>(io::ErrorKind::WouldBlock.into())
            });
        }
        self.has_hung_up()
    }

    /// True if the peer's end of the doorbell has gone.
    pub(crate) fn has_hung_up(&self) -> bool {
        self.hung_up.load(Ordering::Acquire)
    }

    /// Waits until an attempt would not block. Any number of tasks may wait.
    pub(crate) async fn ready(&self, cause: Cause) -> io::Result<()> {
        let is_ready = || match cause {
            Cause::Data => self.connection().is_readable(),
            Cause::Space => self.connection().is_writable(),
        };
        loop {
            if is_ready() {
                return Ok(());
            }
            self.connection().interrupt().arm(cause);
            if is_ready() {
                return Ok(());
            }
            self.signal(cause).await?;
        }
    }
}
