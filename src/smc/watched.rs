//! The interrupt of a connection as a descriptor that tokio watches.
#![allow(unsafe_code)]

use std::{
    io,
    os::fd::{AsRawFd, RawFd},
    sync::Arc,
};

use tokio::io::{Interest, unix::AsyncFd};

use super::connection::Connection;

/// Owns a share of the connection, and so its interrupt.
#[derive(Debug)]
pub(crate) struct Watched(Arc<Connection>);

impl Watched {
    pub(crate) fn connection(&self) -> &Connection {
        &self.0
    }
}

impl AsRawFd for Watched {
    fn as_raw_fd(&self) -> RawFd {
        self.0.interrupt().as_fd().as_raw_fd()
    }
}

/// Has the current runtime watch the connection's interrupt.
pub(crate) fn watch(connection: Arc<Connection>) -> io::Result<AsyncFd<Watched>> {
    // Both: a signal is an edge of readability, and the event loop then reports writability with it. So the two
    // directions have a waker each, on one descriptor.
    let interest = Interest::READABLE | Interest::WRITABLE;
    // SAFETY: the descriptor belongs to the connection's DMB, which lives as long as the connection, of which
    // `Watched` owns a share; it is the same descriptor at every call. What the peer does to the other end of the
    // socket does not touch it.
    Ok(unsafe { AsyncFd::register_with_interest(Watched(connection), interest) }?)
}
