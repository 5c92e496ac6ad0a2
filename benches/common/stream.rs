//! One face for all transports.

use std::{io, os::linux::net::SocketAddrExt};

use smcd::{SmcListener, SmcStream};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, UnixListener, UnixStream},
};

use super::{Contender, Mode, Result, Transport, ring::RingEnd};

pub(crate) enum Stream {
    Smcd(SmcStream),
    Tcp(TcpStream),
    Unix(UnixStream),
    Ring(RingEnd),
}

impl Stream {
    /// Connects to a [`Listener`]'s address.
    pub(crate) async fn connect(contender: Contender, address: &str) -> Result<Self> {
        Ok(match contender.transport {
            Transport::Smcd if contender.mode == Mode::Default => {
                Self::Smcd(SmcStream::connect(address).await?)
            }
            Transport::Smcd => Self::Smcd(SmcStream::connect_with(address, &contender.smc_config()).await?),
            Transport::Tcp => Self::Tcp(TcpStream::connect(address).await?),
            Transport::Unix => {
                let stream = std::os::unix::net::UnixStream::connect_addr(&abstract_name(address)?)?;
                stream.set_nonblocking(true)?;
                Self::Unix(UnixStream::from_std(stream)?)
            }
            Transport::Ring => return Err("a ring is not connected but joined".into()),
        })
    }

    /// Writes all of `data`.
    #[inline]
    pub(crate) async fn send(&mut self, data: &[u8]) -> io::Result<()> {
        match self {
            Self::Smcd(stream) => stream.write_all(data).await,
            Self::Tcp(stream) => stream.write_all(data).await,
            Self::Unix(stream) => stream.write_all(data).await,
            Self::Ring(ring) => {
                ring.send(data);
                Ok(())
            }
        }
    }

    /// Reads what comes; zero is the end.
    #[inline]
    pub(crate) async fn recv(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Smcd(stream) => stream.read(buf).await,
            Self::Tcp(stream) => stream.read(buf).await,
            Self::Unix(stream) => stream.read(buf).await,
            Self::Ring(ring) => Ok(ring.recv(buf)),
        }
    }

    /// Fills `buf`.
    #[inline]
    pub(crate) async fn recv_exact(&mut self, buf: &mut [u8]) -> io::Result<()> {
        let mut done = 0;
        while done < buf.len() {
            match self.recv(&mut buf[done..]).await? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                n => done += n,
            }
        }
        Ok(())
    }

    /// Whether small messages are sent at once. Only TCP has to be told, and what is TCP at first.
    pub(crate) fn set_nodelay(&self, nodelay: bool) -> io::Result<()> {
        match self {
            Self::Smcd(stream) => stream.set_nodelay(nodelay),
            Self::Tcp(stream) => stream.set_nodelay(nodelay),
            Self::Unix(_) | Self::Ring(_) => Ok(()),
        }
    }

    /// True unless this is an SMC-D stream of which a direction has not been promoted yet.
    pub(crate) fn is_promoted(&self) -> bool {
        match self {
            Self::Smcd(stream) => {
                let counts = stream.byte_counts();
                counts.sent > 0 && counts.received > 0
            }
            _ => true,
        }
    }

    /// True if a part of what was exchanged went by shared memory, after it had begun as TCP.
    pub(crate) fn has_moved(&self) -> bool {
        matches!(self, Self::Smcd(stream) if stream.transport().is_smcd())
    }

    /// An error if this is an SMC-D stream that is TCP: its figures would be worth nothing.
    pub(crate) fn check(&self) -> io::Result<()> {
        match self {
            Self::Smcd(stream) if !self.is_promoted() => Err(io::Error::other(format!(
                "the connection is not SMC-D in both directions ({}); there is nothing to measure",
                stream.transport()
            ))),
            _ => Ok(()),
        }
    }
}

/// The server's side of all transports that are connected.
pub(crate) enum Listener {
    Smcd(SmcListener),
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Listener {
    /// Listens, and says where.
    pub(crate) async fn bind(contender: Contender) -> Result<(Self, String)> {
        const ANY_PORT: &str = "127.0.0.1:0";
        match contender.transport {
            Transport::Smcd => {
                let listener = SmcListener::bind_with(ANY_PORT, contender.smc_config()).await?;
                let address = listener.local_addr()?.to_string();
                Ok((Self::Smcd(listener), address))
            }
            Transport::Tcp => {
                let listener = TcpListener::bind(ANY_PORT).await?;
                let address = listener.local_addr()?.to_string();
                Ok((Self::Tcp(listener), address))
            }
            Transport::Unix => {
                let name = format!("smcd-bench-{}", std::process::id());
                let listener = std::os::unix::net::UnixListener::bind_addr(&abstract_name(&name)?)?;
                listener.set_nonblocking(true)?;
                Ok((Self::Unix(UnixListener::from_std(listener)?), name))
            }
            Transport::Ring => Err("nobody listens for a ring".into()),
        }
    }

    pub(crate) async fn accept(&self) -> io::Result<Stream> {
        Ok(match self {
            Self::Smcd(listener) => Stream::Smcd(listener.accept().await?.0),
            Self::Tcp(listener) => Stream::Tcp(listener.accept().await?.0),
            Self::Unix(listener) => Stream::Unix(listener.accept().await?.0),
        })
    }
}

/// Of a socket that leaves no file behind.
fn abstract_name(name: &str) -> io::Result<std::os::unix::net::SocketAddr> {
    std::os::unix::net::SocketAddr::from_abstract_name(name)
}
