//! Connections for a tonic server. For a channel there is [`SmcConnector`](super::hyper::SmcConnector), which
//! `Endpoint::connect_with_connector` takes.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use futures_core::Stream;
use tonic::transport::server::{Connected, TcpConnectInfo};

use crate::{SmcListener, SmcStream};

/// The connections of a listener, for `serve_with_incoming`; as tonic's `TcpIncoming`.
///
/// # Examples
///
/// ```no_run
/// use smcd::{SmcListener, adapters::tonic::SmcIncoming};
/// use tonic::transport::Server;
///
/// # #[tokio::main]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let incoming = SmcIncoming::from(SmcListener::bind("127.0.0.1:50051").await?);
/// let (_, health) = tonic_health::server::health_reporter();
/// Server::builder().add_service(health).serve_with_incoming(incoming).await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct SmcIncoming {
    listener: SmcListener,
    nodelay: Option<bool>,
}

impl SmcIncoming {
    /// Sets `TCP_NODELAY` on the TCP connections. Shared memory never delays.
    pub fn with_nodelay(self, enabled: Option<bool>) -> Self {
        Self { nodelay: enabled, ..self }
    }

    /// The address that is listened on.
    ///
    /// # Errors
    /// The system's.
    pub fn local_addr(&self) -> io::Result<std::net::SocketAddr> {
        self.listener.local_addr()
    }
}

impl From<SmcListener> for SmcIncoming {
    fn from(listener: SmcListener) -> Self {
        Self { listener, nodelay: None }
    }
}

impl Stream for SmcIncoming {
    type Item = io::Result<SmcStream>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let (stream, _) = ready!(self.listener.poll_accept(cx))?;
        if let Some(nodelay) = self.nodelay
            && let Err(error) = stream.set_nodelay(nodelay)
        {
            tracing::warn!(%error, "cannot set TCP_NODELAY");
        }
        Poll::Ready(Some(Ok(stream)))
    }
}

/// As of a TCP connection, so that `Request::remote_addr` knows the client.
impl Connected for SmcStream {
    type ConnectInfo = TcpConnectInfo;

    fn connect_info(&self) -> TcpConnectInfo {
        TcpConnectInfo { local_addr: self.local_addr().ok(), remote_addr: self.peer_addr().ok() }
    }
}
