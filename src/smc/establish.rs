//! From a TCP connection of tokio to a stream: by the handshake in band, where the two ends want that, or at once.
//!
//! How the handshake waits on tokio is here, for any byte stream.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    pin::pin,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpSocket, TcpStream, ToSocketAddrs, lookup_host},
    time::timeout,
};

use super::{
    Handshake, SmcConfig, SmcStream,
    in_band::{self, Client, EstablishError, Outcome, TENDING, Wire},
    smcd::Smcd,
};
use crate::{
    clc::{
        exchange::{ExchangeError, read_message, write_message},
        wire::Message,
    },
    tcp_fallback::{
        FallbackReason,
        detect::{First, Peek, first_bytes},
        promotion::is_peer_here,
        syn_option::{self, Answer},
    },
};

impl<T: AsyncRead + AsyncWrite + Peek + Unpin + Send + Sync> Wire for T {
    fn now(&self) -> Instant {
        tokio::time::Instant::now().into_std()
    }

    fn local_ip(&self) -> Option<IpAddr> {
        Peek::local_ip(self)
    }

    async fn first_bytes(&mut self, patience: Duration, deadline: Instant) -> io::Result<First> {
        first_bytes(&*self, patience, deadline).await
    }

    async fn send(&mut self, message: &Message, deadline: Instant) -> Result<(), ExchangeError> {
        write_message(self, message, deadline).await
    }

    async fn receive(
        &mut self,
        deadline: Instant,
        tend: &(dyn Fn() + Sync),
    ) -> Result<Message, ExchangeError> {
        let mut reading = pin!(read_message(self, deadline));
        loop {
            match timeout(TENDING, &mut reading).await {
                Ok(message) => return message,
                Err(_) => tend(),
            }
        }
    }

    async fn pause(&mut self, time: Duration) {
        tokio::time::sleep(time).await;
    }
}

/// Makes a stream of a TCP connection, without any handshake before its first byte.
pub(crate) fn tcp_first(tcp: TcpStream, config: &Arc<SmcConfig>) -> SmcStream {
    if config.promotes() {
        SmcStream::promoted(tcp, config.clone())
    } else {
        SmcStream::tcp_with(tcp, FallbackReason::Disabled, config.clone())
    }
}

/// Connects to the first of these addresses that answers.
///
/// # Errors
/// The system's of the last address; or as for [`client`].
pub(crate) async fn connect(addr: impl ToSocketAddrs, config: &SmcConfig) -> io::Result<SmcStream> {
    if config.option_peers.is_empty() {
        return client(TcpStream::connect(addr).await?, config).await;
    }
    let mut last = None;
    for addr in lookup_host(addr).await? {
        let socket = if addr.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        match connect_socket(socket, addr, config).await {
            Ok(stream) => return Ok(stream),
            Err(error) => last = Some(error),
        }
    }
    Err(last.unwrap_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "no address to connect to")))
}

/// Connects a socket, and asks for the SMC option if the settings say so.
///
/// # Errors
/// As [`client`].
pub(crate) async fn connect_socket(
    socket: TcpSocket,
    addr: SocketAddr,
    config: &SmcConfig,
) -> io::Result<SmcStream> {
    if !config.asks_for_option(addr.ip()) {
        return client(socket.connect(addr).await?, config).await;
    }
    syn_option::ask(&socket);
    let tcp = socket.connect(addr).await?;
    if config.handshake == Handshake::InBand {
        // Known beforehand, whatever came of the option.
        return client(tcp, config).await;
    }
    match Answer::on(&tcp) {
        Answer::Agreed => by_option(tcp, addr, config).await,
        Answer::None(reason) => Ok(without_option(tcp, config, reason)),
    }
}

/// The handshake after both ends have sent the option.
async fn by_option(mut tcp: TcpStream, addr: SocketAddr, config: &SmcConfig) -> io::Result<SmcStream> {
    if let Some(outcome) = in_band::connect_by_option(&mut tcp, config).await? {
        return stream_of(tcp, outcome, config);
    }
    let tcp = tcp.into_std()?;
    syn_option::disconnect(&tcp)?;
    let tcp = TcpSocket::from_std_stream(tcp).connect(addr).await?;
    Ok(without_option(tcp, config, FallbackReason::OptionEchoed))
}

/// Goes on without the option: a peer on this host may still be met.
fn without_option(tcp: TcpStream, config: &SmcConfig, reason: FallbackReason) -> SmcStream {
    let may_meet = config.runtime_dir.is_some() || is_peer_here(&tcp).unwrap_or(false);
    if config.promotes() && may_meet {
        return tcp_first(tcp, &Arc::new(config.clone()));
    }
    SmcStream::tcp(tcp, reason)
}

/// Makes a stream of a TCP connection that we opened.
///
/// # Errors
/// If the connection is of no more use. That one side does not want SMC-D is no error.
pub(crate) async fn client(mut tcp: TcpStream, config: &SmcConfig) -> io::Result<SmcStream> {
    if config.handshake != Handshake::InBand {
        return Ok(tcp_first(tcp, &Arc::new(config.clone())));
    }
    let outcome = in_band::connect(&mut tcp, config).await?;
    stream_of(tcp, outcome, config)
}

/// Makes a stream of a TCP connection that we accepted from `peer`: by the handshake in band, if the client has sent the
/// SMC option, or is to be looked at without.
///
/// # Errors
/// If the connection is of no more use.
pub(crate) async fn server(
    mut tcp: TcpStream,
    peer: SocketAddr,
    config: &Arc<SmcConfig>,
) -> Result<SmcStream, EstablishError> {
    let answer = config.listens_for_option().then(|| Answer::on(&tcp));
    match answer {
        _ if config.handshake == Handshake::InBand => {}
        Some(Answer::Agreed) => {}
        Some(Answer::None(reason)) if !config.promotes() => return Ok(SmcStream::tcp(tcp, reason)),
        _ => return Ok(tcp_first(tcp, config)),
    }
    // Who has sent the option owes a message.
    let by_option = answer == Some(Answer::Agreed);
    let patience = if by_option { config.handshake_timeout } else { config.detect_timeout };
    let is_wanted = config.handshake == Handshake::InBand || config.asks_for_option(peer.ip());
    let client = if is_wanted { Client::Wanted } else { Client::Unwanted };
    match in_band::accept(&mut tcp, config, client, patience).await? {
        Some(outcome) => Ok(stream_of(tcp, outcome, config)?),
        None => Ok(SmcStream::tcp_undecided(tcp)),
    }
}

/// What a handshake has made of a connection.
fn stream_of(tcp: TcpStream, outcome: Outcome, config: &SmcConfig) -> io::Result<SmcStream> {
    let stream = match outcome {
        Outcome::Smcd(established) => SmcStream::smcd(tcp, Smcd::new(*established, config.busy_poll, false)?),
        Outcome::Tcp(reason) => SmcStream::tcp(tcp, reason),
    };
    tracing::debug!(transport = %stream.transport(), "handshake in band is over");
    Ok(stream)
}
