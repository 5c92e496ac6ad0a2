//! A TCP/IP endpoint in user space.

use std::{fmt, future::poll_fn, io, net::SocketAddr};

use smoltcp::iface::SocketHandle;
use tokio::time::timeout;

use super::{
    EndpointConfig, Link, StackListener, StackStream, SynOption,
    clock::Clock,
    core::Core,
    driver::{Held, Shared, drive},
    signalling::{SharedSignals, Signalling},
};

/// A host of its own, as far as the network can tell: it has addresses, connects and listens. Copies are the same host.
///
/// Its frames are moved by a task on the runtime in which it was made. The task ends once the endpoint, its streams and
/// its listeners have all been dropped and what they wrote was sent.
///
/// # Examples
///
/// ```
/// use smcd::tcp_fallback::stack::{Endpoint, EndpointConfig, SynOption, memory};
/// use tokio::io::{AsyncReadExt, AsyncWriteExt};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> std::io::Result<()> {
/// let (one, other) = memory::pair(memory::Direct);
/// let client = Endpoint::new(one, &EndpointConfig::new([10, 0, 0, 1].into(), 24))?;
/// let server = Endpoint::new(other, &EndpointConfig::new([10, 0, 0, 2].into(), 24))?;
///
/// let listener = server.listen("10.0.0.2:80".parse().unwrap(), 8, SynOption::Offer)?;
/// let remote = listener.local_addr();
/// let (mut ours, theirs) = tokio::try_join!(client.connect(remote, SynOption::Offer), listener.accept())?;
/// assert!(ours.smc_signalled() && theirs.smc_signalled());
///
/// ours.write_all(b"hello").await?;
/// drop(ours);
/// let mut text = String::new();
/// let mut theirs = theirs;
/// theirs.read_to_string(&mut text).await?;
/// assert_eq!(text, "hello");
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Endpoint {
    held: Held,
    config: std::sync::Arc<EndpointConfig>,
}

impl Endpoint {
    /// Makes a host at the end of this link.
    ///
    /// # Errors
    /// `InvalidInput` if an address cannot be that of a host, or there are more than eight; the system's if there is no
    /// randomness to be had.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn new<L: Link>(link: L, config: &EndpointConfig) -> io::Result<Self> {
        let (clock, signals) = (Clock::start(), SharedSignals::default());
        let mut device = Signalling::new(link, signals.clone());
        let core = Core::new(config, signals, &mut device, clock.now())?;
        let shared = Shared::new(core);
        tokio::spawn(drive(device, shared.clone(), clock));
        Ok(Self { held: Held::new(shared), config: std::sync::Arc::new(config.clone()) })
    }

    /// Connects to a remote host.
    ///
    /// # Errors
    /// `TimedOut` after [`EndpointConfig::connect_timeout`]; `ConnectionRefused`; `AddrNotAvailable` if no address of
    /// this host is of the same version of IP; `InvalidInput` if nobody can have the remote address; the error of a
    /// link that has failed.
    ///
    /// # Cancel safety
    /// Dropping the future closes the connection.
    pub async fn connect(&self, remote: SocketAddr, option: SynOption) -> io::Result<StackStream> {
        let pending = Pending {
            handle: Some(self.held.with(|core| core.connect(remote, option))?),
            held: self.held.clone(),
        };
        timeout(self.config.connect_timeout, pending.connected()).await?
    }

    /// Listens on an address, or on all if it is unspecified; on any free port if that is zero. Up to `backlog`
    /// connections, established or about to be, may wait to be accepted; others are refused.
    ///
    /// # Errors
    /// `AddrInUse` if something else listens on the port; the error of a link that has failed.
    pub fn listen(&self, local: SocketAddr, backlog: usize, option: SynOption) -> io::Result<StackListener> {
        let port = self.held.with(|core| core.listen(local, backlog, option))?;
        Ok(StackListener::new(self.held.clone(), SocketAddr::new(local.ip(), port)))
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Endpoint").field("config", &self.config).finish_non_exhaustive()
    }
}

/// A connection that was begun; given up on drop.
struct Pending {
    handle: Option<SocketHandle>,
    held: Held,
}

impl Pending {
    async fn connected(mut self) -> io::Result<StackStream> {
        let Some(handle) = self.handle else { return Err(io::ErrorKind::NotConnected.into()) };
        let connected = poll_fn(|cx| self.held.look(|core| core.poll_connected(handle, cx))).await?;
        self.handle = None;
        Ok(StackStream::new(self.held.clone(), &connected))
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        if let Some(handle) = self.handle {
            self.held.with(|core| core.release(handle));
        }
    }
}
