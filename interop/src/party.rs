//! One end of a connection, whosever sockets it uses.

use std::{
    future::Future,
    io::{self, ErrorKind, Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    os::fd::BorrowedFd,
    sync::Arc,
    thread,
};

use anyhow::{Context, bail, ensure};
use rustix::{
    net::{RecvFlags, SendFlags},
    pipe::{SpliceFlags, splice},
};
use smcd::{
    FallbackReason, Promotion, SmcConfig, SmcStackStream, Stack as SmcdStack, Transport, blocking,
    dibs::loopback::DmbLimits,
    tcp_fallback::stack::{StackListener, SynOption},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    runtime::{Builder, Runtime},
};

use crate::{
    case::{Case, Stack},
    endpoints::Endpoints,
    linux, machine,
    seen::Way,
    talk::{ARRIVAL, RINGS, Talk},
};

/// A stream, and how its bytes travel. What is not there is asked for in no case.
pub(crate) trait Party: Read + Write + Send {
    fn way(&self) -> Way {
        Way::Plain
    }

    /// Says that nothing more comes.
    fn finish_writing(&mut self) -> io::Result<()> {
        Err(ErrorKind::Unsupported.into())
    }

    /// Writes and reads at the same time, until both are full.
    fn both_ways(&mut self, _out: &[u8], _into: &mut [u8]) -> io::Result<()> {
        Err(ErrorKind::Unsupported.into())
    }

    fn send_urgent(&mut self, _byte: u8) -> io::Result<()> {
        Err(ErrorKind::Unsupported.into())
    }

    /// The peer's urgent byte, if it has come.
    fn receive_urgent(&mut self) -> io::Result<u8> {
        Err(ErrorKind::Unsupported.into())
    }

    /// Moves what has come into a pipe, at most so much.
    fn splice(&mut self, _pipe: BorrowedFd<'_>, _len: usize) -> io::Result<usize> {
        Err(ErrorKind::Unsupported.into())
    }

    /// Reads until the peer's reset, which has to come.
    fn see_reset(&mut self) -> anyhow::Result<()> {
        loop {
            match self.read(&mut [0; 4096]) {
                Ok(0) => bail!("an end, and no reset"),
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::ConnectionReset => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// Of Linux, by SMC or TCP. What it has become is for the statistics to say.
impl Party for TcpStream {
    fn finish_writing(&mut self) -> io::Result<()> {
        self.shutdown(Shutdown::Write)
    }

    fn both_ways(&mut self, out: &[u8], into: &mut [u8]) -> io::Result<()> {
        let mut writer = self.try_clone()?;
        thread::scope(|scope| {
            let writing = scope.spawn(move || writer.write_all(out));
            self.read_exact(into)?;
            writing.join().unwrap_or_else(|_| Err(ErrorKind::Other.into()))
        })
    }

    /// Linux says "pending" beside "present", and where its own reader sees that twice, the second time with nothing new, it
    /// forgets the byte. Two signals that come together make it look so. Apart they do not.
    fn send_urgent(&mut self, byte: u8) -> io::Result<()> {
        thread::sleep(ARRIVAL);
        Ok(rustix::net::send(self, &[byte], SendFlags::OOB | SendFlags::NOSIGNAL).map(drop)?)
    }

    fn receive_urgent(&mut self) -> io::Result<u8> {
        let mut byte = [0];
        match rustix::net::recv(self, &mut byte, RecvFlags::OOB | RecvFlags::DONTWAIT)? {
            (1, _) => Ok(byte[0]),
            _ => Err(ErrorKind::UnexpectedEof.into()),
        }
    }

    /// Of Linux' SMC sockets, the pipe gets pages of the DMB.
    fn splice(&mut self, pipe: BorrowedFd<'_>, len: usize) -> io::Result<usize> {
        Ok(splice(self, None, pipe, None, len, SpliceFlags::empty())?)
    }

    /// Linux' SMC sockets read an end, and have the error for who asks.
    fn see_reset(&mut self) -> anyhow::Result<()> {
        let mut buf = [0; 4096];
        let error = loop {
            match self.read(&mut buf) {
                Ok(0) => break self.take_error()?.context("an end, and no reset")?,
                Ok(_) => {}
                Err(error) => break error,
            }
        };
        // The latter if the peer's endpoint has gone by then, too.
        let is_reset = [ErrorKind::ConnectionReset, ErrorKind::ConnectionAborted].contains(&error.kind());
        ensure!(is_reset, "no reset, but: {error}");
        Ok(())
    }
}

impl Party for blocking::SmcStream {
    fn way(&self) -> Way {
        way_of(self.transport())
    }
}

/// A stream of tokio, whose calls wait.
pub(crate) struct OnTokio<S> {
    stream: S,
    runtime: Arc<Runtime>,
}

impl<S> OnTokio<S> {
    pub(crate) fn of(
        runtime: &Arc<Runtime>,
        stream: impl Future<Output = io::Result<S>>,
    ) -> io::Result<Self> {
        Ok(Self { stream: runtime.block_on(stream)?, runtime: runtime.clone() })
    }
}

impl<S: AsyncRead + Unpin> Read for OnTokio<S> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.runtime.block_on(self.stream.read(buf))
    }
}

impl<S: AsyncWrite + Unpin> Write for OnTokio<S> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.runtime.block_on(self.stream.write(buf))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What the library's streams of tokio have in common, and is in no trait of tokio.
pub(crate) trait Ours: AsyncRead + AsyncWrite + Unpin + Send {
    fn transport(&self) -> Transport;
    fn try_send_urgent(&self, byte: u8) -> io::Result<()>;
    fn try_recv_urgent(&self) -> io::Result<u8>;
}

macro_rules! ours {
    ($stream:ty) => {
        impl Ours for $stream {
            fn transport(&self) -> Transport {
                self.transport()
            }

            fn try_send_urgent(&self, byte: u8) -> io::Result<()> {
                self.try_send_urgent(byte)
            }

            fn try_recv_urgent(&self) -> io::Result<u8> {
                self.try_recv_urgent()
            }
        }
    };
}

ours!(smcd::SmcStream);
ours!(SmcStackStream);

impl<S: Ours> Party for OnTokio<S> {
    fn way(&self) -> Way {
        way_of(self.stream.transport())
    }

    fn finish_writing(&mut self) -> io::Result<()> {
        self.runtime.block_on(self.stream.shutdown())
    }

    fn both_ways(&mut self, out: &[u8], into: &mut [u8]) -> io::Result<()> {
        let (mut reader, mut writer) = tokio::io::split(&mut self.stream);
        let both = async { tokio::try_join!(writer.write_all(out), reader.read_exact(into)) };
        self.runtime.block_on(both).map(drop)
    }

    fn send_urgent(&mut self, byte: u8) -> io::Result<()> {
        self.stream.try_send_urgent(byte)
    }

    fn receive_urgent(&mut self) -> io::Result<u8> {
        self.stream.try_recv_urgent()
    }
}

fn way_of(transport: Transport) -> Way {
    let Some(reason) = transport.fallback_reason() else { return Way::Smcd };
    Way::Tcp {
        code: reason.code().0,
        peer: FallbackReason::peer_diagnosis(reason).map(|code| code.0),
        words: reason.to_string(),
    }
}

/// Settings of one end: everybody is asked by the option, nobody is met in another way. Its devices are its own, so that
/// there are no link groups of other cases.
fn config(case: &Case, endpoints: Option<&Endpoints>) -> anyhow::Result<SmcConfig> {
    let everybody = ["0.0.0.0/0", "::/0"].into_iter().map(str::parse).collect::<Result<Vec<_>, _>>()?;
    let ueids = case.ueids.of_smcd().iter().map(|ueid| ueid.parse()).collect::<Result<Vec<_>, _>>()?;
    let stack = match endpoints {
        Some(endpoints) if case.has_region => SmcdStack::new(vec![Arc::new(endpoints.join_region()?)]),
        None if case.has_region => SmcdStack::new(vec![Arc::new(machine::open_vfio()?)]),
        _ => SmcdStack::with_loopback(DmbLimits::default())?,
    };
    Ok(SmcConfig::new().option_peers(everybody).ueids(ueids).promotion(Promotion::Off).stack(stack))
}

fn with_ring(config: SmcConfig, ring: Option<usize>) -> SmcConfig {
    match ring {
        Some(ring) => config.receive_buffer(ring),
        None => config,
    }
}

fn runtime() -> io::Result<Arc<Runtime>> {
    Ok(Arc::new(Builder::new_current_thread().enable_all().build()?))
}

fn on_host(endpoints: Option<&Endpoints>) -> anyhow::Result<Endpoints> {
    endpoints.cloned().context("an endpoint in the machine")
}

/// Makes the connections of a case. The library has two front ends on TCP of the kernel: IPv4 has that of tokio, IPv6 the
/// other.
pub(crate) enum Client {
    Tokio(Arc<Runtime>, SmcConfig),
    Blocking(SmcConfig),
    Endpoint(Endpoints, SmcConfig),
    Linux,
    Tcp,
}

impl Client {
    /// Endpoints are on the host alone.
    pub(crate) fn new(case: &Case, endpoints: Option<&Endpoints>) -> anyhow::Result<Self> {
        Ok(match (case.client, case.is_ipv6) {
            (Stack::Smcd, false) => Self::Tokio(runtime()?, config(case, None)?),
            (Stack::Smcd, true) => Self::Blocking(config(case, None)?),
            (Stack::Endpoint, _) => Self::Endpoint(on_host(endpoints)?, config(case, endpoints)?),
            (Stack::Linux | Stack::Guest, _) => Self::Linux,
            (Stack::Tcp, _) => Self::Tcp,
        })
    }

    /// Connects; with a receive buffer of this size.
    pub(crate) fn connect(&self, address: SocketAddr, ring: Option<usize>) -> anyhow::Result<Box<dyn Party>> {
        Ok(match self {
            Self::Tokio(runtime, config) => {
                let config = with_ring(config.clone(), ring);
                Box::new(OnTokio::of(runtime, smcd::SmcStream::connect_with(address, &config))?)
            }
            Self::Blocking(config) => Box::new(blocking::SmcStream::connect_with(address, config)?),
            Self::Endpoint(endpoints, config) => {
                Box::new(endpoints.connect(address, &with_ring(config.clone(), ring))?)
            }
            Self::Linux => Box::new(linux::connect(address, ring)?),
            Self::Tcp => Box::new(TcpStream::connect(address)?),
        })
    }
}

/// Takes them.
pub(crate) enum Server {
    Tokio(Arc<Runtime>, SmcConfig, Option<smcd::SmcListener>, SocketAddr),
    Blocking(blocking::SmcListener),
    Endpoint(Endpoints, StackListener, SmcConfig),
    Linux(Option<TcpListener>, SocketAddr),
    Tcp(TcpListener),
}

impl Server {
    /// Endpoints are on the host alone.
    pub(crate) fn new(
        case: &Case,
        address: SocketAddr,
        endpoints: Option<&Endpoints>,
    ) -> anyhow::Result<Self> {
        // Where they are not as always, the first connection has the first of them.
        let ring = RINGS.first().copied().filter(|_| case.talk == Talk::Rings);
        Ok(match (case.server, case.is_ipv6) {
            (Stack::Smcd, false) => {
                let (runtime, config) = (runtime()?, config(case, None)?);
                let mut server = Self::Tokio(runtime, config, None, address);
                server.listen_with(ring)?;
                return Ok(server);
            }
            (Stack::Smcd, true) => {
                Self::Blocking(blocking::SmcListener::bind_with(address, config(case, None)?)?)
            }
            (Stack::Endpoint, _) => {
                let (of_case, config) = (on_host(endpoints)?, config(case, endpoints)?);
                let listener = of_case.listen(address, SynOption::Offer)?;
                Self::Endpoint(of_case, listener, with_ring(config, ring))
            }
            (Stack::Linux | Stack::Guest, _) => Self::Linux(Some(linux::listen(address, ring)?), address),
            (Stack::Tcp, _) => Self::Tcp(TcpListener::bind(address)?),
        })
    }

    /// Connections that come from now on have a receive buffer of this size.
    pub(crate) fn set_ring(&mut self, ring: usize) -> anyhow::Result<()> {
        self.listen_with(Some(ring))
    }

    /// Listens, or listens anew: what is set of a listener later counts for nothing.
    fn listen_with(&mut self, ring: Option<usize>) -> anyhow::Result<()> {
        match self {
            Self::Endpoint(_, _, config) => *config = with_ring(config.clone(), ring),
            Self::Tokio(runtime, config, listener, address) => {
                listener.take();
                let config = with_ring(config.clone(), ring);
                *listener = Some(runtime.block_on(smcd::SmcListener::bind_with(*address, config))?);
            }
            Self::Linux(listener, address) => {
                listener.take();
                *listener = Some(linux::listen(*address, ring)?);
            }
            Self::Tcp(_) | Self::Blocking(_) => bail!("has no such setting"),
        }
        Ok(())
    }

    pub(crate) fn accept(&self) -> anyhow::Result<Box<dyn Party>> {
        Ok(match self {
            Self::Tokio(runtime, _, listener, _) => {
                let listener = listener.as_ref().context("no listener")?;
                let accepted = async { listener.accept().await.map(|(stream, _)| stream) };
                Box::new(OnTokio::of(runtime, accepted)?)
            }
            Self::Blocking(listener) => Box::new(listener.accept()?.0),
            Self::Endpoint(endpoints, listener, config) => Box::new(endpoints.accept(listener, config)?),
            Self::Linux(listener, _) => Box::new(listener.as_ref().context("no listener")?.accept()?.0),
            Self::Tcp(listener) => Box::new(listener.accept()?.0),
        })
    }
}
