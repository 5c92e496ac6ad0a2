//! A connection in the hands of tokio: what waits, and what gives the buffers back in the end.

use std::{
    io::{self, IoSlice},
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::BufMut;
use tokio::io::unix::AsyncFd;

use super::{
    BusyPoll, ConnectionError, Stack,
    connection::{Connection, Progress},
    link_group::LinkGroup,
    spin::Spinner,
    watched::{Watched, watch},
};
use crate::dibs::{Cause, Chid, Gid};

/// An SMC-D connection on a tokio runtime. Closed on drop; its buffers return to the link group.
#[derive(Debug)]
pub(crate) struct Smcd {
    /// Before the lease: the event loop must have let go of the descriptor before another connection can get it.
    watched: AsyncFd<Watched>,
    lease: Lease,
    read_spinner: Spinner,
    write_spinner: Spinner,
    peer: Gid,
}

/// Closes the connection and gives its buffers back to the link group.
#[derive(Debug)]
struct Lease {
    /// Taken by the drop, so that the group finds nobody holding it any more.
    connection: Option<Arc<Connection>>,
    group: Arc<LinkGroup>,
    stack: Arc<Stack>,
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Some(connection) = self.connection.take() {
            self.stack.release(&self.group, connection);
        }
    }
}

impl Smcd {
    /// Hands a connection to the current runtime.
    ///
    /// # Errors
    /// If the runtime cannot watch another descriptor.
    pub(crate) fn new(
        connection: Arc<Connection>,
        group: Arc<LinkGroup>,
        stack: Arc<Stack>,
        peer: Gid,
        busy_poll: BusyPoll,
    ) -> io::Result<Self> {
        group.join(&connection);
        let lease = Lease { connection: Some(connection.clone()), group, stack };
        Ok(Self {
            watched: watch(connection)?,
            lease,
            read_spinner: Spinner::new(busy_poll),
            write_spinner: Spinner::new(busy_poll),
            peer,
        })
    }

    pub(crate) fn connection(&self) -> &Connection {
        self.watched.get_ref().connection()
    }

    pub(crate) fn peer(&self) -> Gid {
        self.peer
    }

    pub(crate) fn gid(&self) -> Gid {
        self.lease.group.device().gid()
    }

    pub(crate) fn chid(&self) -> Chid {
        self.lease.group.device().fabric_id()
    }

    pub(crate) fn poll_read(&self, cx: &mut Context<'_>, dst: &mut impl BufMut) -> Poll<io::Result<usize>> {
        self.poll_progress(cx, Cause::Data, &mut || self.connection().try_read(dst))
    }

    pub(crate) fn poll_peek(&self, cx: &mut Context<'_>, dst: &mut impl BufMut) -> Poll<io::Result<usize>> {
        self.poll_progress(cx, Cause::Data, &mut || self.connection().try_peek(dst))
    }

    pub(crate) fn poll_write(&self, cx: &mut Context<'_>, bufs: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        self.poll_progress(cx, Cause::Space, &mut || self.connection().try_write(bufs))
    }

    /// Makes progress or arranges to be woken when it can be made.
    pub(super) fn poll_progress(
        &self,
        cx: &mut Context<'_>,
        cause: Cause,
        attempt: &mut dyn FnMut() -> Result<Progress, ConnectionError>,
    ) -> Poll<io::Result<usize>> {
        // A connection that is always ready must give way to other tasks now and then.
        let coop = ready!(tokio::task::coop::poll_proceed(cx));
        let mut result = finished(attempt());
        if result.is_none() {
            result = self.look_awake(cause, attempt);
        }
        while result.is_none() {
            self.connection().interrupt().arm(cause);
            result = finished(attempt());
            if result.is_some() {
                // Still armed: another task may wait for the same and rely on it. It costs one ring at most.
                break;
            }
            match self.poll_signal(cx, cause) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(error)) => result = Some(Err(error)),
            }
        }
        self.spinner(cause).awake();
        coop.made_progress();
        Poll::Ready(result.unwrap_or(Ok(0)))
    }

    fn spinner(&self, cause: Cause) -> &Spinner {
        match cause {
            Cause::Data => &self.read_spinner,
            Cause::Space => &self.write_spinner,
        }
    }

    /// Stays awake for a while if that promises something.
    fn look_awake(
        &self,
        cause: Cause,
        attempt: &mut dyn FnMut() -> Result<Progress, ConnectionError>,
    ) -> Option<io::Result<usize>> {
        let connection = self.connection();
        // Before the attempt, so that nothing falls between the two.
        let mut seen = connection.news();
        let mut result = finished(attempt());
        if result.is_some() {
            return result;
        }
        let who = std::ptr::from_ref(connection).addr();
        self.spinner(cause).wait(who, || {
            let now = connection.news();
            // News may be for the other direction; then it was not what this one waits for.
            if now != seen {
                seen = now;
                result = finished(attempt());
            }
            result.is_some()
        });
        result
    }

    /// Waits for a signal; the caller looks for itself afterwards.
    fn poll_signal(&self, cx: &mut Context<'_>, cause: Cause) -> Poll<io::Result<()>> {
        let mut guard = ready!(match cause {
            Cause::Data => self.watched.poll_read_ready(cx),
            Cause::Space => self.watched.poll_write_ready(cx),
        })?;
        let ready = guard.ready();
        guard.clear_ready();
        self.signalled(ready);
        Poll::Ready(Ok(()))
    }

    fn signalled(&self, ready: tokio::io::Ready) {
        if ready.is_read_closed() || ready.is_write_closed() {
            // The peer's end of the doorbell has gone, and with it the peer, unless it has closed in order: then its
            // flags are there and count first.
            self.connection().peer_is_gone();
        }
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
            let mut guard = match cause {
                Cause::Data => self.watched.readable().await?,
                Cause::Space => self.watched.writable().await?,
            };
            let ready = guard.ready();
            guard.clear_ready();
            self.signalled(ready);
        }
    }
}

/// The result of an attempt, `None` if it has to wait.
#[inline]
fn finished(progress: Result<Progress, ConnectionError>) -> Option<io::Result<usize>> {
    match progress {
        Ok(Progress::Done(n)) => Some(Ok(n)),
        Ok(Progress::Eof) => Some(Ok(0)),
        Ok(Progress::Blocked) => None,
        Err(error) => Some(Err(error.into())),
    }
}
