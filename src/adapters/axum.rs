//! A listener that `axum::serve` takes.

use std::{io, net::SocketAddr, time::Duration};

use axum::serve::Listener;

use crate::{SmcListener, SmcStream};

/// How long to wait after an error that is likely to come back. The listener itself pauses as long for each.
const PAUSE: Duration = Duration::from_millis(10);

/// For `axum::serve`. Handlers learn the address of a client as from a TCP listener if the listener goes through
/// [`ListenerExt::tap_io`](axum::serve::ListenerExt::tap_io), as `listener.tap_io(|_| {})`.
///
/// # Cancel safety
/// If the future of `accept` is dropped, no connection is lost.
impl Listener for SmcListener {
    type Io = SmcStream;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (SmcStream, SocketAddr) {
        loop {
            match Self::accept(self).await {
                Ok(accepted) => return accepted,
                Err(error) => {
                    tracing::warn!(%error, "cannot accept");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Self::local_addr(self)
    }
}
