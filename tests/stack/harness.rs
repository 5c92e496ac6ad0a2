//! Two hosts with a path between them, and what is asked of their streams.

use std::{future::Future, io, net::SocketAddr, time::Duration};

use smcd::{
    FallbackReason, SmcConfig, SmcStackStream, Transport,
    tcp_fallback::stack::{
        Endpoint, EndpointConfig, StackListener, SynOption,
        memory::{self, Path},
    },
};
use smoltcp::phy::Medium;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::process::pattern;

pub(crate) const PORT: u16 = 80;

/// Runs a test with a clock that moves on only when nobody has anything to do.
pub(crate) fn simulated<F: Future>(test: F) -> F::Output {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    runtime.block_on(async {
        // An hour in the simulation takes no time.
        tokio::time::timeout(Duration::from_secs(3600), test).await.expect("hangs")
    })
}

/// The settings of a host with this last byte in its addresses.
pub(crate) fn host(number: u8) -> EndpointConfig {
    EndpointConfig::new([10, 0, 0, number].into(), 24)
        .address([0xfd00, 0, 0, 0, 0, 0, 0, u16::from(number)].into(), 64)
        .mac([2, 0, 0, 0, 0, number])
        .seed(u64::from(number))
}

/// Two hosts, numbers 1 and 2.
pub(crate) struct Net {
    pub(crate) client: Endpoint,
    pub(crate) server: Endpoint,
}

impl Net {
    pub(crate) fn new(path: impl Path) -> Self {
        Self::of(Medium::Ip, path)
    }

    pub(crate) fn of(medium: Medium, path: impl Path) -> Self {
        let (one, two) = memory::pair_of(medium, path);
        Self { client: Endpoint::new(one, &host(1)).unwrap(), server: Endpoint::new(two, &host(2)).unwrap() }
    }

    /// A listener of the server for SMC clients.
    pub(crate) fn listen(&self) -> StackListener {
        Self::listen_on(&self.server)
    }

    /// A listener of this host for SMC clients.
    pub(crate) fn listen_on(server: &Endpoint) -> StackListener {
        server.listen(SocketAddr::new([0, 0, 0, 0].into(), PORT), 4, SynOption::Offer).unwrap()
    }

    pub(crate) fn listen_with(&self, option: SynOption) -> StackListener {
        self.server.listen(SocketAddr::new([0, 0, 0, 0].into(), PORT), 4, option).unwrap()
    }

    /// Connects by the whole stack, one connection only.
    pub(crate) async fn connect(
        &self,
        client: &SmcConfig,
        server: &SmcConfig,
    ) -> (io::Result<SmcStackStream>, io::Result<SmcStackStream>) {
        let listener = self.listen();
        let accepted = async {
            let tcp = listener.accept().await?;
            SmcStackStream::accept(tcp, server).await.map_err(io::Error::from)
        };
        tokio::join!(SmcStackStream::connect(&self.client, v4(2), client), accepted)
    }
}

pub(crate) fn v4(number: u8) -> SocketAddr {
    SocketAddr::new([10, 0, 0, number].into(), PORT)
}

pub(crate) fn v6(number: u8) -> SocketAddr {
    SocketAddr::new([0xfd00, 0, 0, 0, 0, 0, 0, u16::from(number)].into(), PORT)
}

/// Writes `len` bytes and the end on both sides, and checks that each side gets what the other wrote.
pub(crate) async fn exchange<S, T>(one: S, other: T, len: usize)
where
    S: AsyncRead + AsyncWrite + Unpin,
    T: AsyncRead + AsyncWrite + Unpin,
{
    tokio::join!(talk(one, 1, 1_000_003, len), talk(other, 1_000_003, 1, len));
}

/// One side of [`exchange`]: writes the pattern from one number on, and reads that from another.
pub(crate) async fn talk<S: AsyncRead + AsyncWrite + Unpin>(stream: S, ours: u64, theirs: u64, len: usize) {
    let (mut read, mut write) = tokio::io::split(stream);
    let send = async {
        write.write_all(&pattern(ours, len)).await.unwrap();
        write.shutdown().await.unwrap();
    };
    let receive = async {
        let mut got = Vec::new();
        read.read_to_end(&mut got).await.unwrap();
        assert!(got == pattern(theirs, len), "{} of {len} bytes, or others", got.len());
    };
    tokio::join!(send, receive);
}

/// Both sides have become SMC-D, and bytes go to and fro.
pub(crate) async fn is_smcd(pair: (io::Result<SmcStackStream>, io::Result<SmcStackStream>)) {
    let (client, server) = (pair.0.unwrap(), pair.1.unwrap());
    assert!(client.transport().is_smcd(), "{}", client.transport());
    assert!(server.transport().is_smcd(), "{}", server.transport());
    exchange(client, server, 300_000).await;
}

/// Both sides are TCP for these reasons, and bytes go to and fro.
pub(crate) async fn is_tcp(
    pair: (io::Result<SmcStackStream>, io::Result<SmcStackStream>),
    client_reason: FallbackReason,
    server_reason: FallbackReason,
) {
    let (client, server) = (pair.0.unwrap(), pair.1.unwrap());
    assert_eq!(reason(&client), Some(client_reason));
    assert_eq!(reason(&server), Some(server_reason));
    exchange(client, server, 100_000).await;
}

pub(crate) fn reason(stream: &SmcStackStream) -> Option<FallbackReason> {
    match stream.transport() {
        Transport::Tcp(reason) => Some(reason),
        _ => None,
    }
}
