//! Settings of endpoints.

use std::{net::IpAddr, time::Duration};

/// Whether the SYN of a connection is to carry the SMC option, or that of a listener's client to be answered with it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SynOption {
    /// It is: whoever gets both SYN and SYN-ACK with it has to speak CLC.
    Offer,
    /// It is not.
    Omit,
}

/// What an endpoint is called, and how much it holds.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct EndpointConfig {
    /// Hardware address on Ethernet; without meaning elsewhere. Chosen at random unless set.
    pub mac: Option<[u8; 6]>,
    /// Addresses, at most eight, each with the length of its subnet's prefix.
    pub addresses: Vec<(IpAddr, u8)>,
    /// Routers to the rest of the world, at most one for each version of IP.
    pub gateways: Vec<IpAddr>,
    /// Bytes of each connection's receive and send buffers.
    pub buffer: usize,
    /// How long to try to connect, and how long a client may leave its own handshake undone.
    pub connect_timeout: Duration,
    /// How long a peer may leave what it is sent unacknowledged, and say nothing at all: after that the connection is reset.
    /// Linux has about as much by default (`TCP_USER_TIMEOUT`).
    pub user_timeout: Duration,
    /// How long a closed connection is kept for what has to be sent or heard yet.
    pub linger: Duration,
    /// Where sequence numbers and ports come from: chosen at random unless set. For tests; whoever knows the seed can
    /// break into connections.
    pub seed: Option<u64>,
}

impl EndpointConfig {
    /// An endpoint of this address, in a subnet with a prefix of this length.
    pub fn new(address: IpAddr, prefix: u8) -> Self {
        Self {
            mac: None,
            addresses: vec![(address, prefix)],
            gateways: Vec::new(),
            buffer: 64 * 1024,
            connect_timeout: Duration::from_secs(30),
            user_timeout: Duration::from_secs(15 * 60),
            linger: Duration::from_secs(60),
            seed: None,
        }
    }

    /// Adds to [`EndpointConfig::addresses`].
    pub fn address(mut self, address: IpAddr, prefix: u8) -> Self {
        self.addresses.push((address, prefix));
        self
    }

    /// Adds to [`EndpointConfig::gateways`].
    pub fn gateway(mut self, router: IpAddr) -> Self {
        self.gateways.push(router);
        self
    }

    /// Sets [`EndpointConfig::mac`].
    pub fn mac(mut self, address: [u8; 6]) -> Self {
        self.mac = Some(address);
        self
    }

    /// Sets [`EndpointConfig::buffer`].
    pub fn buffer(mut self, bytes: usize) -> Self {
        self.buffer = bytes;
        self
    }

    /// Sets [`EndpointConfig::connect_timeout`].
    pub fn connect_timeout(mut self, limit: Duration) -> Self {
        self.connect_timeout = limit;
        self
    }

    /// Sets [`EndpointConfig::user_timeout`].
    pub fn user_timeout(mut self, limit: Duration) -> Self {
        self.user_timeout = limit;
        self
    }

    /// Sets [`EndpointConfig::seed`].
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = Some(seed);
        self
    }
}
