//! A stream over a TCP/IP endpoint in user space, which SMC-D is agreed on in band, after the SMC option.

use std::{
    io::{self, IoSlice},
    net::SocketAddr,
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{
    ByteCounts, EstablishError, Handshake, SmcConfig, Transport,
    connection::Progress,
    in_band::{self, Client, Outcome},
    local::nothing_to_propose,
    smcd::Smcd,
};
use crate::{
    dibs::Cause,
    tcp_fallback::{
        FallbackReason,
        detect::{judge, judge_late},
        stack::{Endpoint, StackStream, SynOption},
    },
};

/// A stream between two hosts of which at least this one is an [`Endpoint`]: through shared memory if both have put the
/// SMC option into their SYN segments, speak SMC-D and can reach common memory, else through TCP.
///
/// The option decides whether CLC is spoken; of the settings, [`Handshake::Off`] leaves it out. [`SmcConfig::promotion`]
/// and [`SmcConfig::option_peers`] have no meaning here: an endpoint has no kernel socket below, and asks everybody, if it has
/// a device that could serve the connection.
///
/// Dropping the stream closes it in both directions. If data is left unread, the peer sees a reset.
#[derive(Debug)]
pub struct SmcStackStream {
    /// First, so that the peer finds the connection closed when it sees the end of the TCP connection.
    path: Path,
    tcp: StackStream,
}

/// Which way the bytes take.
#[derive(Debug)]
enum Path {
    Smcd(Box<Smcd>),
    Tcp(FallbackReason),
    /// TCP to a client that signalled SMC and then said nothing. Its first bytes will tell what it is.
    Undecided,
}

impl SmcStackStream {
    /// Connects to a remote host.
    ///
    /// A host that only echoes options it does not know takes the Proposal for data. If it answers with anything but
    /// CLC, or not at all for [`SmcConfig::handshake_timeout`], the connection is given up and made again without the
    /// option. So such a host sees a connection that begins with a Proposal and ends, and then one that is as it should
    /// be; and the application only sees the second.
    ///
    /// # Errors
    /// Those of [`Endpoint::connect`]. If the peer breaks the rules of the handshake, or stops in the middle of a
    /// message, an error whose source says what it did. A refusal of SMC-D by either side is no error: the stream is TCP
    /// then.
    ///
    /// # Cancel safety
    /// Dropping the future closes the connection.
    pub async fn connect(endpoint: &Endpoint, remote: SocketAddr, config: &SmcConfig) -> io::Result<Self> {
        if config.handshake == Handshake::Off {
            let tcp = endpoint.connect(remote, SynOption::Omit).await?;
            return Ok(Self { path: Path::Tcp(FallbackReason::Disabled), tcp });
        }
        if let Some(reason) = nothing_to_propose(config, None) {
            let tcp = endpoint.connect(remote, SynOption::Omit).await?;
            return Ok(Self { path: Path::Tcp(reason), tcp });
        }
        let mut tcp = endpoint.connect(remote, SynOption::Offer).await?;
        if !tcp.smc_signalled() {
            return Ok(Self { path: Path::Tcp(FallbackReason::PeerNotSmc), tcp });
        }
        if let Some(outcome) = in_band::connect_by_option(&mut tcp, config).await? {
            return Self::of(tcp, outcome, config);
        }
        drop(tcp);
        let tcp = endpoint.connect(remote, SynOption::Omit).await?;
        Ok(Self { path: Path::Tcp(FallbackReason::OptionEchoed), tcp })
    }

    /// Makes a stream of a connection that a listener of an endpoint has accepted.
    ///
    /// If both SYN and SYN-ACK had the option, a Proposal is waited for. Other data, which comes if the option was lost
    /// on the way back, is that of a TCP client and stays what it is. A client that says nothing for
    /// [`SmcConfig::handshake_timeout`] is taken for a TCP client that wants the server to speak first; should it begin
    /// to speak CLC later, reading fails.
    ///
    /// # Errors
    /// If the connection is of no more use.
    pub async fn accept(mut tcp: StackStream, config: &SmcConfig) -> Result<Self, EstablishError> {
        if config.handshake == Handshake::Off {
            return Ok(Self { path: Path::Tcp(FallbackReason::Disabled), tcp });
        }
        if !tcp.smc_signalled() {
            return Ok(Self { path: Path::Tcp(FallbackReason::PeerNotSmc), tcp });
        }
        match in_band::accept(&mut tcp, config, Client::Wanted, config.handshake_timeout).await? {
            Some(outcome) => Ok(Self::of(tcp, outcome, config)?),
            None => Ok(Self { path: Path::Undecided, tcp }),
        }
    }

    /// What a handshake has made of a connection.
    fn of(tcp: StackStream, outcome: Outcome, config: &SmcConfig) -> io::Result<Self> {
        let path = match outcome {
            Outcome::Smcd(established) => {
                Path::Smcd(Box::new(Smcd::new(*established, config.busy_poll, false)?))
            }
            Outcome::Tcp(reason) => Path::Tcp(reason),
        };
        Ok(Self { path, tcp })
    }

    /// How the bytes travel, and why if it is TCP.
    pub fn transport(&self) -> Transport {
        match &self.path {
            Path::Smcd(smcd) => smcd.transport(),
            Path::Tcp(reason) => Transport::Tcp(*reason),
            Path::Undecided => Transport::Tcp(FallbackReason::PeerNotSmc),
        }
    }

    /// Payload bytes that went through shared memory so far.
    pub fn byte_counts(&self) -> ByteCounts {
        match &self.path {
            Path::Smcd(smcd) => smcd.connection().byte_counts(),
            Path::Tcp(_) | Path::Undecided => ByteCounts::default(),
        }
    }

    /// Sends an urgent byte, as `MSG_OOB` does on TCP.
    ///
    /// # Errors
    /// `WouldBlock` if there is no room, or an urgent byte is still under way; `Unsupported` on TCP, where an [`Endpoint`]
    /// has none; otherwise as for writing.
    pub fn try_send_urgent(&self, byte: u8) -> io::Result<()> {
        match self.smcd()?.connection().try_write_urgent(byte)? {
            Progress::Done(_) => Ok(()),
            Progress::Blocked | Progress::Eof => Err(io::ErrorKind::WouldBlock.into()),
        }
    }

    /// Reads the urgent byte that the peer sent, ahead of normal data, as `MSG_OOB` does on TCP. Normal reading skips it.
    ///
    /// # Errors
    /// `InvalidInput` if there is none, or it was read before; `Unsupported` on TCP; otherwise as for reading.
    pub fn try_recv_urgent(&self) -> io::Result<u8> {
        self.smcd()?.connection().try_read_urgent()?.ok_or_else(|| io::ErrorKind::InvalidInput.into())
    }

    fn smcd(&self) -> io::Result<&Smcd> {
        match &self.path {
            Path::Smcd(smcd) => Ok(smcd),
            Path::Tcp(_) | Path::Undecided => Err(io::ErrorKind::Unsupported.into()),
        }
    }

    /// The local address of the TCP connection.
    pub fn local_addr(&self) -> SocketAddr {
        self.tcp.local_addr()
    }

    /// The remote address of the TCP connection.
    pub fn peer_addr(&self) -> SocketAddr {
        self.tcp.peer_addr()
    }

    /// Makes sure, before the first byte of a late client is read as data, that it is data.
    fn poll_decided(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !matches!(self.path, Path::Undecided) {
            return Poll::Ready(Ok(()));
        }
        let late = |bytes: &[u8]| Some(judge_late(judge(bytes)));
        ready!(self.tcp.poll_peek_until(cx, &mut { late }))??;
        self.path = Path::Tcp(FallbackReason::PeerNotSmc);
        Poll::Ready(Ok(()))
    }
}

/// # Cancel safety
/// A read that was not polled to completion has taken nothing.
impl AsyncRead for SmcStackStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        ready!(self.poll_decided(cx))?;
        let Self { path, tcp } = &mut *self;
        match path {
            Path::Smcd(smcd) => {
                let attempt = &mut || Ok(smcd.connection().try_read(buf)?);
                let tcp_end = |cx: &mut Context<'_>| tcp.poll_peer_end(cx, Cause::Data);
                smcd.poll_progress(cx, Cause::Data, attempt, tcp_end).map_ok(drop)
            }
            Path::Tcp(_) | Path::Undecided => Pin::new(tcp).poll_read(cx, buf),
        }
    }
}

/// Flushing does nothing: written data is under way at once.
///
/// # Cancel safety
/// A write that was not polled to completion has written nothing.
impl AsyncWrite for SmcStackStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let Self { path, tcp } = &mut *self;
        match path {
            Path::Smcd(smcd) => {
                let attempt = &mut || Ok(smcd.connection().try_write(&[IoSlice::new(bytes)])?);
                let tcp_end = |cx: &mut Context<'_>| tcp.poll_peer_end(cx, Cause::Space);
                smcd.poll_progress(cx, Cause::Space, attempt, tcp_end)
            }
            Path::Tcp(_) | Path::Undecided => Pin::new(tcp).poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Self { path, tcp } = &mut *self;
        if let Path::Smcd(smcd) = path {
            smcd.connection().shutdown_write()?;
        }
        // Linux' SMC-D sends its FIN here too.
        Pin::new(tcp).poll_shutdown(cx)
    }
}
