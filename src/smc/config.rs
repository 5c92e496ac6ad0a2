//! Settings of streams and listeners.

mod env;

use std::{
    net::IpAddr,
    path::PathBuf,
    sync::{Arc, OnceLock},
    time::Duration,
};

pub use self::env::{DebugOutput, InvalidSetting};
pub(super) use self::env::{ism, region, runtime_dir};
use super::{BusyPoll, PnetInterface, Stack, local::nothing_to_propose};
use crate::{
    clc::wire::Ueid,
    tcp_fallback::{IpPrefix, Promotion},
    unix::interfaces::local_ip_to,
};

/// Bytes of a receive buffer unless set otherwise. Measured: a ring that fits in one processor's cache is slower, since
/// each line that is written must first be taken from the cache of the processor that has read it.
pub const DEFAULT_RECEIVE_BUFFER: usize = 1024 * 1024;

/// How a connection comes to be SMC-D.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub enum Handshake {
    /// While it runs: each connection is TCP at once, and is promoted if both ends are on this host and want it. Nothing
    /// is sent that a plain TCP peer would see.
    #[default]
    Promotion,
    /// With prior knowledge: the client knows that the server understands CLC and starts with a Proposal on the TCP
    /// connection. A listener looks at the first bytes of each connection without consuming them; those of a plain
    /// TCP client stay what they are.
    InBand,
    /// Never: every connection is TCP.
    Off,
}

/// Settings of streams and listeners. The default serves both ends of a connection between processes of one host.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct SmcConfig {
    /// Bytes of each connection's receive buffer (DMB), rounded up to a power of two from 16 KiB to 1 MiB.
    /// Memory is used only as data comes in. A smaller one is taken as the memory set aside for buffers becomes scarce.
    pub receive_buffer: usize,
    /// User-defined enterprise ids, at most four; two ends need one in common.
    pub ueids: Vec<Ueid>,
    /// How to wait.
    pub busy_poll: BusyPoll,
    /// How connections become SMC-D.
    pub handshake: Handshake,
    /// When connections are promoted, with [`Handshake::Promotion`].
    pub promotion: Promotion,
    /// A directory in which the ends of connections meet, for containers that have network namespaces of their own but
    /// share it; who may write to it is trusted not to keep them from meeting. By default that of the environment
    /// variable `SMCD_RUNTIME_DIR`. `None` is the abstract namespace: it reaches as far as TCP loopback.
    pub runtime_dir: Option<PathBuf>,
    /// Peers that are asked whether they speak SMC, by the SMC option of TCP
    /// ([`syn_option`](crate::tcp_fallback::syn_option)); none by default. With those that answer, the handshake is in
    /// band; all others are treated as [`SmcConfig::handshake`] says. A listener answers all who ask, and declines those
    /// who are not among these. Nobody is asked if no device could serve the connection.
    pub option_peers: Vec<IpPrefix>,
    /// On which physical networks the network interfaces are; none by default. Once there are any, a device that has a PNETID
    /// ([`Device::pnetid`](crate::dibs::Device::pnetid)) serves, in band, only connections by an interface that has the
    /// same, and these with version 1 of SMC-D too, unless its fabric is emulated.
    pub interfaces: Vec<PnetInterface>,
    /// How long each step of the handshake may take; Linux has 6 s.
    pub handshake_timeout: Duration,
    /// How long a listener waits for a client's first bytes before it takes the client for a plain TCP one that wants
    /// the server to speak first.
    pub detect_timeout: Duration,
    /// Whether each connection is counted by itself from its first byte, whatever becomes of it
    /// ([`observe`](crate::observe)). By default only those are that are worth to be promoted, so that short ones cost
    /// nothing.
    pub observe: bool,
    /// Devices and link groups; `None` for those that all of the process shares.
    pub stack: Option<Arc<Stack>>,
}

impl Default for SmcConfig {
    fn default() -> Self {
        Self {
            receive_buffer: DEFAULT_RECEIVE_BUFFER,
            ueids: "SMCD.USERSPACE".parse().into_iter().collect(),
            busy_poll: BusyPoll::Adaptive,
            handshake: Handshake::default(),
            promotion: Promotion::default(),
            runtime_dir: env::runtime_dir(),
            option_peers: Vec::new(),
            interfaces: Vec::new(),
            handshake_timeout: Duration::from_secs(6),
            detect_timeout: Duration::from_millis(200),
            observe: false,
            stack: None,
        }
    }
}

impl SmcConfig {
    /// The default settings.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets [`SmcConfig::receive_buffer`].
    pub fn receive_buffer(mut self, bytes: usize) -> Self {
        self.receive_buffer = bytes;
        self
    }

    /// Sets [`SmcConfig::ueids`].
    pub fn ueids(mut self, ueids: impl IntoIterator<Item = Ueid>) -> Self {
        self.ueids = ueids.into_iter().collect();
        self
    }

    /// Sets [`SmcConfig::busy_poll`].
    pub fn busy_poll(mut self, how: BusyPoll) -> Self {
        self.busy_poll = how;
        self
    }

    /// Sets [`SmcConfig::handshake`].
    pub fn handshake(mut self, how: Handshake) -> Self {
        self.handshake = how;
        self
    }

    /// Sets [`SmcConfig::promotion`].
    pub fn promotion(mut self, when: Promotion) -> Self {
        self.promotion = when;
        self
    }

    /// Sets [`SmcConfig::runtime_dir`].
    pub fn runtime_dir(mut self, dir: impl Into<PathBuf>) -> Self {
        self.runtime_dir = Some(dir.into());
        self
    }

    /// Sets [`SmcConfig::option_peers`].
    pub fn option_peers(mut self, peers: impl IntoIterator<Item = IpPrefix>) -> Self {
        self.option_peers = peers.into_iter().collect();
        self
    }

    /// Sets [`SmcConfig::interfaces`].
    pub fn interfaces(mut self, interfaces: impl IntoIterator<Item = PnetInterface>) -> Self {
        self.interfaces = interfaces.into_iter().collect();
        self
    }

    /// Sets [`SmcConfig::handshake_timeout`].
    pub fn handshake_timeout(mut self, limit: Duration) -> Self {
        self.handshake_timeout = limit;
        self
    }

    /// Sets [`SmcConfig::detect_timeout`].
    pub fn detect_timeout(mut self, limit: Duration) -> Self {
        self.detect_timeout = limit;
        self
    }

    /// Sets [`SmcConfig::observe`].
    pub fn observe(mut self, observe: bool) -> Self {
        self.observe = observe;
        self
    }

    /// Sets [`SmcConfig::stack`].
    pub fn stack(mut self, stack: Arc<Stack>) -> Self {
        self.stack = Some(stack);
        self
    }

    /// True if connections begin as TCP and are promoted.
    pub(crate) fn promotes(&self) -> bool {
        self.handshake == Handshake::Promotion && self.promotion != Promotion::Off
    }

    /// True if this peer is asked by the SMC option, and served if it asks: there is something to propose to it.
    pub(crate) fn asks_for_option(&self, peer: IpAddr) -> bool {
        self.handshake != Handshake::Off
            && self.option_peers.iter().any(|prefix| prefix.contains(peer))
            && nothing_to_propose(self, self.local_ip_to(peer)).is_none()
    }

    /// The address from which this peer is reached, if that matters.
    fn local_ip_to(&self, peer: IpAddr) -> Option<IpAddr> {
        if self.interfaces.is_empty() { None } else { local_ip_to(peer) }
    }

    /// True if listeners answer the SMC option.
    pub(crate) fn listens_for_option(&self) -> bool {
        self.handshake != Handshake::Off && !self.option_peers.is_empty()
    }

    /// The default settings, shared by all that have no others.
    pub(crate) fn shared() -> &'static Arc<Self> {
        static SHARED: OnceLock<Arc<SmcConfig>> = OnceLock::new();
        SHARED.get_or_init(Arc::default)
    }

    /// The stack to use.
    pub(crate) fn the_stack(&self) -> Arc<Stack> {
        self.stack.clone().unwrap_or_else(Stack::shared)
    }
}
