//! A listener of an endpoint.

use std::{
    fmt,
    future::poll_fn,
    io,
    net::SocketAddr,
    task::{Context, Poll},
};

use super::{StackStream, driver::Held};

/// Takes the connections that others make to an [`Endpoint`](super::Endpoint). On drop, those not accepted are reset.
pub struct StackListener {
    held: Held,
    local: SocketAddr,
}

impl StackListener {
    pub(super) fn new(held: Held, local: SocketAddr) -> Self {
        Self { held, local }
    }

    /// The address that is listened on.
    pub fn local_addr(&self) -> SocketAddr {
        self.local
    }

    /// Accepts a connection.
    ///
    /// # Errors
    /// That of a link that has failed.
    ///
    /// # Cancel safety
    /// No connection is lost.
    pub async fn accept(&self) -> io::Result<StackStream> {
        poll_fn(|cx| self.poll_accept(cx)).await
    }

    /// Polls for a connection. Only the waker of the last call is woken.
    ///
    /// # Errors
    /// As [`StackListener::accept`].
    pub fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<io::Result<StackStream>> {
        let connected = self.held.look(|core| core.poll_accept(self.local.port(), cx));
        connected.map_ok(|connected| StackStream::new(self.held.clone(), &connected))
    }
}

impl Drop for StackListener {
    fn drop(&mut self) {
        self.held.with(|core| core.stop_listening(self.local.port()));
    }
}

impl fmt::Debug for StackListener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StackListener").field("local", &self.local).finish_non_exhaustive()
    }
}
