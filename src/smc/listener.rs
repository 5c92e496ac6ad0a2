//! `SmcListener`: a TCP listener whose connections are SMC-D where the client wants and can.

use std::{
    future::{Future, poll_fn},
    io,
    net::SocketAddr,
    pin::pin,
    sync::{Arc, Weak},
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    net::{TcpListener, TcpSocket, TcpStream, ToSocketAddrs, lookup_host},
    sync::{Mutex, mpsc},
    task::{JoinHandle, JoinSet},
};

use super::{Handshake, SmcConfig, SmcStream, establish};
use crate::tcp_fallback::syn_option;

/// Connections that are established and not yet accepted by the application. More wait in the kernel's queue.
const READY: usize = 1024;

/// Handshakes under way at once, so that clients that begin one and fall silent cannot use up all memory.
const UNDER_WAY: usize = 4096;

/// Pause after the system refused a connection for want of descriptors or memory.
const EXHAUSTED_PAUSE: Duration = Duration::from_millis(10);

/// A listener, like [`tokio::net::TcpListener`], that serves SMC-D and plain TCP clients on one port.
///
/// With [`Handshake::InBand`] handshakes run by themselves, at the same time: a slow or silent client delays no other.
/// Connections come out in the order in which they are ready.
///
/// # Examples
///
/// ```no_run
/// use smcd::SmcListener;
///
/// # #[tokio::main]
/// # async fn main() -> std::io::Result<()> {
/// let listener = SmcListener::bind("127.0.0.1:8080").await?;
/// loop {
///     let (stream, peer) = listener.accept().await?;
///     println!("{peer} is connected by {}", stream.transport());
/// }
/// # }
/// ```
#[derive(Debug)]
pub struct SmcListener {
    pub(super) tcp: Arc<TcpListener>,
    config: Arc<SmcConfig>,
    /// Only with handshakes in band; other connections are TCP at first, and handed on as they come.
    handshakes: Option<Handshakes>,
}

/// Handshakes in band, by a task of their own.
#[derive(Debug)]
struct Handshakes {
    ready: Mutex<mpsc::Receiver<io::Result<(SmcStream, SocketAddr)>>>,
    driver: JoinHandle<()>,
}

impl SmcListener {
    /// Listens on this address, with the default settings.
    ///
    /// # Errors
    /// Those of [`TcpListener::bind`].
    pub async fn bind<A: ToSocketAddrs>(addr: A) -> io::Result<Self> {
        Self::bind_with(addr, SmcConfig::default()).await
    }

    /// Listens on this address, with these settings.
    ///
    /// # Errors
    /// Those of [`TcpListener::bind`].
    pub async fn bind_with<A: ToSocketAddrs>(addr: A, config: SmcConfig) -> io::Result<Self> {
        let tcp = if config.listens_for_option() {
            bind_asking(addr).await?
        } else {
            TcpListener::bind(addr).await?
        };
        Ok(Self::from_tcp(tcp, config))
    }

    /// Listens on a TCP listener that is there already. It is too late to have it answer the SMC option
    /// ([`SmcConfig::option_peers`]); by [`SmcSocket::listen`](super::SmcSocket::listen) it is not.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn from_tcp(tcp: TcpListener, config: SmcConfig) -> Self {
        let (tcp, config) = (Arc::new(tcp), Arc::new(config));
        let is_in_band = config.handshake == Handshake::InBand || config.listens_for_option();
        let handshakes = is_in_band.then(|| {
            let (to_application, ready) = mpsc::channel(READY);
            let driver = tokio::spawn(drive(Arc::downgrade(&tcp), config.clone(), to_application));
            Handshakes { ready: Mutex::new(ready), driver }
        });
        Self { tcp, config, handshakes }
    }

    /// Accepts a connection: one whose handshake is over, or that is plain TCP.
    ///
    /// # Errors
    /// The system's errors on accepting. A client that breaks the protocol is dropped and logged, as in Linux; it
    /// causes no error here.
    ///
    /// # Cancel safety
    /// If the future is dropped, no connection is lost. Any number of tasks may wait.
    pub async fn accept(&self) -> io::Result<(SmcStream, SocketAddr)> {
        match &self.handshakes {
            Some(handshakes) => received(handshakes.ready.lock().await.recv().await),
            None => self.tcp.accept().await.map(|(tcp, peer)| (self.at_once(tcp), peer)),
        }
    }

    /// Polls for a connection. Only the waker of the last call is woken, and only while nobody waits in
    /// [`SmcListener::accept`].
    ///
    /// # Errors
    /// As [`SmcListener::accept`].
    pub fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<io::Result<(SmcStream, SocketAddr)>> {
        match &self.handshakes {
            Some(handshakes) => {
                let mut ready = ready!(pin!(handshakes.ready.lock()).poll(cx));
                ready.poll_recv(cx).map(received)
            }
            None => self.tcp.poll_accept(cx).map_ok(|(tcp, peer)| (self.at_once(tcp), peer)),
        }
    }

    /// A connection that is TCP at first.
    fn at_once(&self, tcp: TcpStream) -> SmcStream {
        establish::tcp_first(tcp, &self.config)
    }

    /// The address that is listened on.
    ///
    /// # Errors
    /// The system's.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.tcp.local_addr()
    }

    /// The time-to-live of packets sent.
    ///
    /// # Errors
    /// The system's.
    pub fn ttl(&self) -> io::Result<u32> {
        self.tcp.ttl()
    }

    /// Sets the time-to-live of packets sent.
    ///
    /// # Errors
    /// The system's.
    pub fn set_ttl(&self, ttl: u32) -> io::Result<()> {
        self.tcp.set_ttl(ttl)
    }
}

impl Drop for Handshakes {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

/// Accepts TCP connections, runs their handshakes at the same time, and hands on what comes of them.
async fn drive(
    tcp: Weak<TcpListener>,
    config: Arc<SmcConfig>,
    to_application: mpsc::Sender<io::Result<(SmcStream, SocketAddr)>>,
) {
    let mut under_way = JoinSet::new();
    while let Ok(place) = to_application.reserve().await {
        let accepted = loop {
            tokio::select! {
                accepted = accept(&tcp), if under_way.len() < UNDER_WAY => break accepted,
                Some(_) = under_way.join_next() => {}
            }
        };
        match accepted {
            Ok((tcp, peer)) => {
                under_way.spawn(establish(tcp, peer, config.clone(), to_application.clone()));
                drop(place);
            }
            Err(error) => {
                let exhausted = !is_of_one_client(&error);
                place.send(Err(error));
                if exhausted {
                    tokio::time::sleep(EXHAUSTED_PAUSE).await;
                }
            }
        }
    }
}

/// Accepts without holding on to the listener, so that its port is free as soon as it is dropped.
async fn accept(tcp: &Weak<TcpListener>) -> io::Result<(TcpStream, SocketAddr)> {
    poll_fn(|cx| match tcp.upgrade() {
        Some(tcp) => tcp.poll_accept(cx),
        // Nobody is left to accept for; the driver is about to be aborted.
        None => Poll::Pending,
    })
    .await
}

/// What came from the driver, which ends only with its runtime.
fn received(next: Option<io::Result<(SmcStream, SocketAddr)>>) -> io::Result<(SmcStream, SocketAddr)> {
    next.unwrap_or_else(|| Err(io::Error::other("the runtime of the listener has ended")))
}

/// One connection, from its first byte to the application.
async fn establish(
    tcp: TcpStream,
    peer: SocketAddr,
    config: Arc<SmcConfig>,
    to_application: mpsc::Sender<io::Result<(SmcStream, SocketAddr)>>,
) {
    match establish::server(tcp, peer, &config).await {
        Ok(stream) => {
            // The receiver has gone with the listener; then so has everybody who would want the stream.
            let _ = to_application.send(Ok((stream, peer))).await;
        }
        Err(error) => {
            let cause = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
            tracing::warn!(%peer, %error, cause, "connection dropped in its handshake");
        }
    }
}

/// As [`TcpListener::bind`], and has the listener answer the SMC option.
async fn bind_asking(addr: impl ToSocketAddrs) -> io::Result<TcpListener> {
    /// Connections that wait in the kernel, as by [`TcpListener::bind`].
    const BACKLOG: u32 = 1024;
    let bind = |addr: SocketAddr| {
        let socket = if addr.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        socket.set_reuseaddr(true)?;
        syn_option::ask(&socket);
        socket.bind(addr)?;
        socket.listen(BACKLOG)
    };
    let mut last = None;
    for addr in lookup_host(addr).await? {
        match bind(addr) {
            Ok(listener) => return Ok(listener),
            Err(error) => last = Some(error),
        }
    }
    Err(last.unwrap_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "no address to listen on")))
}

/// True for errors that concern a single connection that has ended while it waited.
fn is_of_one_client(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset)
}
