//! smoltcp's interface and the sockets of an endpoint. No waiting here: wakers are left with the sockets.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    task::{Context, Poll},
    time::Duration,
};

use smoltcp::{
    iface::{Config, Interface, PollIngressSingleResult, PollResult, SocketHandle, SocketSet},
    phy::{Device, Medium},
    socket::{
        AnySocket,
        tcp::{CongestionControl, RecvError, Socket, SocketBuffer, State},
    },
    time::Instant,
    wire::{EthernetAddress, HardwareAddress, IpAddress, IpCidr, IpEndpoint, IpListenEndpoint},
};

use super::{
    EndpointConfig, SynOption,
    clock::smoltcp_span,
    signalling::SharedSignals,
    signals::{Flow, PRUNE},
};
use crate::dibs::Cause;

/// Ports that connections are made from.
const EPHEMERAL: std::ops::RangeInclusive<u16> = 49152..=65535;

/// Frames taken in, and rounds of sending, before others get a turn.
const BUDGET: usize = 64;

/// A socket that its owner has let go of.
#[derive(Debug)]
struct Closing {
    handle: SocketHandle,
    until: Instant,
}

/// See the module.
pub(super) struct Core {
    iface: Interface,
    sockets: SocketSet<'static>,
    pub(super) signals: SharedSignals,
    /// Sockets that listen, or whose connection nobody has accepted yet.
    backlog: Vec<(SocketHandle, IpListenEndpoint)>,
    closing: Vec<Closing>,
    next_port: u16,
    buffer: usize,
    connect_timeout: Duration,
    user_timeout: Duration,
    linger: Duration,
    now: Instant,
    /// Nobody has the endpoint, or a stream of it, any more.
    pub(super) is_abandoned: bool,
    /// The link has failed.
    failed: Option<io::ErrorKind>,
}

impl Core {
    /// Sets up the interface.
    ///
    /// # Errors
    /// `InvalidInput` if there are too many addresses, or one is not valid; the system's if there is no randomness.
    pub(super) fn new(
        config: &EndpointConfig,
        signals: SharedSignals,
        device: &mut impl Device,
        now: Instant,
    ) -> io::Result<Self> {
        let seed = match config.seed {
            Some(seed) => seed,
            None => getrandom::u64()?,
        };
        let [a, b, c, d, e, f, ..] = seed.to_le_bytes();
        // Locally administered, and not a group.
        let mac = config.mac.unwrap_or([a & 0xfc | 2, b, c, d, e, f]);
        let mac = EthernetAddress(mac);
        let hardware = if device.capabilities().medium == Medium::Ethernet {
            HardwareAddress::Ethernet(mac)
        } else {
            HardwareAddress::Ip
        };
        if !mac.is_unicast() {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let mut interface = Config::new(hardware);
        interface.random_seed = seed;
        let mut iface = Interface::new(interface, device, now);
        set_addresses(&mut iface, config)?;
        let ports = EPHEMERAL.end() - EPHEMERAL.start();
        Ok(Self {
            iface,
            sockets: SocketSet::new(Vec::new()),
            signals,
            backlog: Vec::new(),
            closing: Vec::new(),
            next_port: EPHEMERAL.start() + u16::from_le_bytes([a, b]) % ports,
            buffer: config.buffer.max(1),
            connect_timeout: config.connect_timeout,
            user_timeout: config.user_timeout,
            linger: config.linger,
            now,
            is_abandoned: false,
            failed: None,
        })
    }

    /// Moves frames. Says when to come again if nothing happens; `None` if nothing is left to be done.
    pub(super) fn turn(&mut self, now: Instant, device: &mut impl Device) -> Option<Instant> {
        self.now = now;
        self.iface.poll_maintenance(now);
        let take = |_| match self.iface.poll_ingress_single(now, device, &mut self.sockets) {
            PollIngressSingleResult::None => None,
            _ => Some(()),
        };
        let taken = (0..BUDGET).map_while(take).count();
        self.set_timeouts();
        for _ in 0..BUDGET {
            if self.iface.poll_egress(now, device, &mut self.sockets) == PollResult::None {
                break;
            }
        }
        self.tend_backlog();
        self.reap();
        self.prune_signals();
        if self.is_abandoned && self.closing.is_empty() {
            return None;
        }
        let next =
            self.iface.poll_at(now, &self.sockets).unwrap_or(now + smoltcp::time::Duration::from_secs(60));
        let next = self.closing.iter().map(|closing| closing.until).fold(next, Instant::min);
        Some(if taken == BUDGET { now } else { next })
    }

    /// Ends all connections: no frame will come again.
    pub(super) fn fail(&mut self, kind: io::ErrorKind) {
        self.failed = Some(kind);
        for (_, socket) in self.sockets.iter_mut() {
            if let Some(socket) = <Socket<'_> as AnySocket>::downcast_mut(socket) {
                socket.abort();
            }
        }
    }

    /// True after [`Core::fail`].
    pub(super) fn has_failed(&self) -> bool {
        self.failed.is_some()
    }

    fn check_link(&self) -> io::Result<()> {
        self.failed.map_or(Ok(()), |kind| Err(kind.into()))
    }

    pub(super) fn socket(&mut self, handle: SocketHandle) -> &mut Socket<'static> {
        self.sockets.get_mut(handle)
    }

    fn new_socket(&mut self) -> SocketHandle {
        let buffer = || SocketBuffer::new(vec![0; self.buffer]);
        let mut socket = Socket::new(buffer(), buffer());
        socket.set_congestion_control(CongestionControl::Cubic);
        // Whoever writes small pieces and waits for the answer should not wait for a timer too.
        socket.set_nagle_enabled(false);
        self.sockets.add(socket)
    }

    /// Begins a connection.
    ///
    /// # Errors
    /// If there is no address to connect from, or no port.
    pub(super) fn connect(&mut self, remote: SocketAddr, option: SynOption) -> io::Result<SocketHandle> {
        self.check_link()?;
        let source = self.iface.get_source_address(&remote.ip().into());
        // An address of another version is what smoltcp falls back to.
        let source = source.filter(|source| IpAddr::from(*source).is_ipv4() == remote.is_ipv4());
        let source = source.ok_or(io::ErrorKind::AddrNotAvailable)?;
        let local = SocketAddr::new(source.into(), self.free_port()?);
        let handle = self.new_socket();
        // Of a connection that never came to be.
        self.signals.lock().take_agreed(Flow { local, remote });
        if option == SynOption::Offer {
            self.signals.lock().offer(Flow { local, remote });
        }
        let socket = self.sockets.get_mut::<Socket<'_>>(handle);
        if let Err(error) = socket.connect(self.iface.context(), remote, local) {
            tracing::debug!(%error, %remote, "no connection");
            self.signals.lock().take_agreed(Flow { local, remote });
            self.sockets.remove(handle);
            return Err(io::ErrorKind::InvalidInput.into());
        }
        Ok(handle)
    }

    /// A port that no socket uses.
    fn free_port(&mut self) -> io::Result<u16> {
        for _ in EPHEMERAL {
            let port = self.next_port;
            self.next_port = if port == *EPHEMERAL.end() { *EPHEMERAL.start() } else { port + 1 };
            if !self.ports_in_use().any(|used| used == port) {
                return Ok(port);
            }
        }
        Err(io::ErrorKind::AddrInUse.into())
    }

    fn tcp_sockets(&self) -> impl Iterator<Item = &Socket<'static>> {
        self.sockets.iter().filter_map(|(_, socket)| AnySocket::downcast(socket))
    }

    fn ports_in_use(&self) -> impl Iterator<Item = u16> {
        let connected = self.tcp_sockets().filter_map(Socket::local_endpoint).map(|local| local.port);
        connected.chain(self.tcp_sockets().map(|socket| socket.listen_endpoint().port))
    }

    /// Whether a connection that was begun is there: its two ends, and whether both SYN segments had the option.
    pub(super) fn poll_connected(
        &mut self,
        handle: SocketHandle,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<Connected>> {
        self.check_link()?;
        let socket = self.sockets.get_mut::<Socket<'_>>(handle);
        match socket.state() {
            State::SynSent | State::SynReceived => {
                socket.register_send_waker(cx.waker());
                Poll::Pending
            }
            State::Closed => Poll::Ready(Err(io::ErrorKind::ConnectionRefused.into())),
            _ => Poll::Ready(self.connected(handle).ok_or(io::ErrorKind::ConnectionReset.into())),
        }
    }

    /// What there is to know of a connection that has just been made. `None` if it has gone already.
    fn connected(&mut self, handle: SocketHandle) -> Option<Connected> {
        let socket = self.sockets.get_mut::<Socket<'_>>(handle);
        let (local, remote) = socket.local_endpoint().zip(socket.remote_endpoint())?;
        let flow = Flow { local: to_std(local), remote: to_std(remote) };
        let smc_signalled = self.signals.lock().take_agreed(flow);
        Some(Connected { handle, local: flow.local, remote: flow.remote, smc_signalled })
    }

    /// Adds a socket to those that listen here.
    ///
    /// # Errors
    /// `AddrInUse` if another listener has the port.
    pub(super) fn listen(&mut self, local: SocketAddr, backlog: usize, option: SynOption) -> io::Result<u16> {
        self.check_link()?;
        let port = if local.port() == 0 { self.free_port()? } else { local.port() };
        if self.backlog.iter().any(|(_, listening)| listening.port == port) {
            return Err(io::ErrorKind::AddrInUse.into());
        }
        let addr = (!local.ip().is_unspecified()).then(|| IpAddress::from(local.ip()));
        for _ in 0..backlog.max(1) {
            let handle = self.new_socket();
            self.backlog.push((handle, IpListenEndpoint { addr, port }));
        }
        self.tend_backlog();
        if option == SynOption::Offer {
            self.signals.lock().serve(port);
        }
        Ok(port)
    }

    /// Sees to it that the sockets of the listeners listen.
    fn tend_backlog(&mut self) {
        for (handle, listening) in &self.backlog {
            let socket = self.sockets.get_mut::<Socket<'_>>(*handle);
            if socket.state() == State::Closed && self.failed.is_none() {
                // It fails for port 0 alone, which no listener has.
                let _ = socket.listen(*listening);
            }
        }
    }

    /// How long each peer may say nothing. One that leaves its handshake undone is given up, and one that does not
    /// acknowledge what is sent; but not one that is not asked for anything, which the same limit would end too.
    fn set_timeouts(&mut self) {
        let [opening, sending] = [self.connect_timeout, self.user_timeout].map(smoltcp_span);
        for (_, socket) in self.sockets.iter_mut() {
            let Some(socket) = <Socket<'_> as AnySocket>::downcast_mut(socket) else { continue };
            socket.set_timeout(match socket.state() {
                State::Listen | State::SynSent | State::SynReceived => Some(opening),
                _ => (socket.send_queue() > 0).then_some(sending),
            });
        }
    }

    /// Takes a connection out of the backlog, and puts a new socket in its place.
    pub(super) fn poll_accept(&mut self, port: u16, cx: &mut Context<'_>) -> Poll<io::Result<Connected>> {
        self.check_link()?;
        for at in 0..self.backlog.len() {
            let Some(&(handle, listening)) = self.backlog.get(at).filter(|entry| entry.1.port == port) else {
                continue;
            };
            let socket = self.sockets.get_mut::<Socket<'_>>(handle);
            if matches!(socket.state(), State::Listen | State::SynReceived | State::Closed) {
                socket.register_recv_waker(cx.waker());
                continue;
            }
            let Some(connected) = self.connected(handle) else { continue };
            let next = self.new_socket();
            if let Some(entry) = self.backlog.get_mut(at) {
                *entry = (next, listening);
            }
            self.tend_backlog();
            return Poll::Ready(Ok(connected));
        }
        Poll::Pending
    }

    /// Ends a listener, and resets the connections that nobody accepted.
    pub(super) fn stop_listening(&mut self, port: u16) {
        self.signals.lock().stop_serving(port);
        let (gone, stay) = self.backlog.drain(..).partition(|(_, listening)| listening.port == port);
        self.backlog = stay;
        for (handle, _) in gone {
            self.socket(handle).abort();
            self.closing.push(Closing { handle, until: self.linger_until() });
        }
    }

    fn linger_until(&self) -> Instant {
        self.now + smoltcp_span(self.linger)
    }

    /// Reads what is there.
    pub(super) fn poll_recv(
        &mut self,
        handle: SocketHandle,
        cx: &mut Context<'_>,
        read: impl FnOnce(&mut Socket<'_>) -> Result<usize, RecvError>,
    ) -> Poll<io::Result<usize>> {
        let failed = self.failed;
        let socket = self.socket(handle);
        match read(socket) {
            Ok(0) => {
                socket.register_recv_waker(cx.waker());
                Poll::Pending
            }
            Ok(n) => Poll::Ready(Ok(n)),
            Err(RecvError::Finished) => Poll::Ready(Ok(0)),
            Err(RecvError::InvalidState) => {
                Poll::Ready(Err(failed.unwrap_or(io::ErrorKind::ConnectionReset).into()))
            }
        }
    }

    /// Waits until the peer has sent something or its end, or the connection was reset.
    pub(super) fn poll_peer_end(
        &mut self,
        handle: SocketHandle,
        cx: &mut Context<'_>,
        waits_for: Cause,
    ) -> Poll<()> {
        let socket = self.socket(handle);
        if socket.recv_queue() > 0 || !socket.may_recv() {
            return Poll::Ready(());
        }
        // Both are woken when the peer's end comes.
        match waits_for {
            Cause::Data => socket.register_recv_waker(cx.waker()),
            Cause::Space => socket.register_send_waker(cx.waker()),
        }
        Poll::Pending
    }

    /// Takes bytes to be sent, as many as there is room for.
    pub(super) fn poll_send(
        &mut self,
        handle: SocketHandle,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let failed = self.failed;
        let socket = self.socket(handle);
        match socket.send_slice(bytes) {
            Ok(0) if !bytes.is_empty() => {
                socket.register_send_waker(cx.waker());
                Poll::Pending
            }
            Ok(n) => Poll::Ready(Ok(n)),
            Err(_) => {
                let reset = socket.state() == State::Closed;
                let kind = if reset { io::ErrorKind::ConnectionReset } else { io::ErrorKind::BrokenPipe };
                Poll::Ready(Err(failed.unwrap_or(kind).into()))
            }
        }
    }

    /// Closes a socket whose owner has gone: with a reset if something is unread, as kernels do.
    pub(super) fn release(&mut self, handle: SocketHandle) {
        let socket = self.socket(handle);
        if socket.recv_queue() > 0 {
            socket.abort();
        } else {
            socket.close();
        }
        self.closing.push(Closing { handle, until: self.linger_until() });
    }

    /// Removes sockets that are done, and resets those that take too long or get what nobody will read.
    fn reap(&mut self) {
        let (now, is_abandoned, has_failed) = (self.now, self.is_abandoned, self.failed.is_some());
        let sockets = &mut self.sockets;
        self.closing.retain(|closing| {
            let socket = sockets.get_mut::<Socket<'_>>(closing.handle);
            // After an abort, the remote end is known until the reset was sent.
            let said_all = socket.state() == State::Closed && socket.remote_endpoint().is_none();
            let is_done = said_all || (is_abandoned && socket.state() == State::TimeWait);
            if is_done || has_failed || now >= closing.until {
                sockets.remove(closing.handle);
                return false;
            }
            if socket.recv_queue() > 0 {
                socket.abort();
            }
            true
        });
    }

    fn prune_signals(&mut self) {
        if self.signals.lock().len() < PRUNE {
            return;
        }
        let to_flow = |socket: &Socket<'_>| {
            let (local, remote) = socket.local_endpoint().zip(socket.remote_endpoint())?;
            Some(Flow { local: to_std(local), remote: to_std(remote) })
        };
        let live: std::collections::HashSet<Flow> = self.tcp_sockets().filter_map(to_flow).collect();
        self.signals.lock().retain(|flow| live.contains(flow));
    }
}

/// A connection that has just been made.
#[derive(Debug)]
pub(super) struct Connected {
    pub(super) handle: SocketHandle,
    pub(super) local: SocketAddr,
    pub(super) remote: SocketAddr,
    pub(super) smc_signalled: bool,
}

fn set_addresses(iface: &mut Interface, config: &EndpointConfig) -> io::Result<()> {
    let invalid = || io::Error::from(io::ErrorKind::InvalidInput);
    let mut addresses = Vec::new();
    for &(address, prefix) in &config.addresses {
        let is_unicast = !(address.is_multicast() || address.is_unspecified());
        let fits = prefix <= if address.is_ipv4() { 32 } else { 128 };
        addresses
            .push((is_unicast && fits).then(|| IpCidr::new(address.into(), prefix)).ok_or_else(invalid)?);
    }
    let mut all_fit = true;
    iface.update_ip_addrs(|own| all_fit = addresses.iter().all(|&address| own.push(address).is_ok()));
    if !all_fit {
        return Err(invalid());
    }
    let routes = iface.routes_mut();
    for gateway in &config.gateways {
        let added = match gateway {
            IpAddr::V4(router) => routes.add_default_ipv4_route(*router),
            IpAddr::V6(router) => routes.add_default_ipv6_route(*router),
        };
        added.map_err(|_| invalid())?;
    }
    Ok(())
}

fn to_std(endpoint: IpEndpoint) -> SocketAddr {
    SocketAddr::new(endpoint.addr.into(), endpoint.port)
}
