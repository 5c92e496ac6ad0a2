//! One end of a connection, whosever sockets it uses.

use std::{
    future::Future,
    io::{self, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::Arc,
};

use anyhow::Context;
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
    linux,
    seen::Way,
};

/// A stream, and how its bytes travel.
pub(crate) trait Party: Read + Write {
    fn way(&self) -> Way {
        Way::Plain
    }
}

/// Of Linux, by SMC or TCP. What it has become is for the statistics to say.
impl Party for TcpStream {}

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

impl Party for OnTokio<smcd::SmcStream> {
    fn way(&self) -> Way {
        way_of(self.stream.transport())
    }
}

impl Party for OnTokio<SmcStackStream> {
    fn way(&self) -> Way {
        way_of(self.stream.transport())
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

/// Settings of one end: everybody is asked by the option, nobody is met in another way.
fn config(case: &Case) -> anyhow::Result<SmcConfig> {
    let everybody = ["0.0.0.0/0", "::/0"].into_iter().map(str::parse).collect::<Result<Vec<_>, _>>()?;
    let ueids = case.ueids.of_smcd().iter().map(|ueid| ueid.parse()).collect::<Result<Vec<_>, _>>()?;
    Ok(SmcConfig::new()
        .option_peers(everybody)
        .ueids(ueids)
        .promotion(Promotion::Off)
        .stack(SmcdStack::with_loopback(DmbLimits::default())?))
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
            (Stack::Smcd, false) => Self::Tokio(runtime()?, config(case)?),
            (Stack::Smcd, true) => Self::Blocking(config(case)?),
            (Stack::Endpoint, _) => Self::Endpoint(on_host(endpoints)?, config(case)?),
            (Stack::Linux, _) => Self::Linux,
            (Stack::Tcp, _) => Self::Tcp,
        })
    }

    pub(crate) fn connect(&self, address: SocketAddr) -> anyhow::Result<Box<dyn Party>> {
        Ok(match self {
            Self::Tokio(runtime, config) => {
                Box::new(OnTokio::of(runtime, smcd::SmcStream::connect_with(address, config))?)
            }
            Self::Blocking(config) => Box::new(blocking::SmcStream::connect_with(address, config)?),
            Self::Endpoint(endpoints, config) => Box::new(endpoints.connect(address, config)?),
            Self::Linux => Box::new(linux::connect(address)?),
            Self::Tcp => Box::new(TcpStream::connect(address)?),
        })
    }
}

/// Takes them.
pub(crate) enum Server {
    Tokio(Arc<Runtime>, smcd::SmcListener),
    Blocking(blocking::SmcListener),
    Endpoint(Endpoints, StackListener, SmcConfig),
    Other(TcpListener),
}

impl Server {
    /// Endpoints are on the host alone.
    pub(crate) fn new(
        case: &Case,
        address: SocketAddr,
        endpoints: Option<&Endpoints>,
    ) -> anyhow::Result<Self> {
        Ok(match (case.server, case.is_ipv6) {
            (Stack::Smcd, false) => {
                let (runtime, config) = (runtime()?, config(case)?);
                let listener = runtime.block_on(smcd::SmcListener::bind_with(address, config))?;
                Self::Tokio(runtime, listener)
            }
            (Stack::Smcd, true) => Self::Blocking(blocking::SmcListener::bind_with(address, config(case)?)?),
            (Stack::Endpoint, _) => {
                let endpoints = on_host(endpoints)?;
                let listener = endpoints.listen(address, SynOption::Offer)?;
                Self::Endpoint(endpoints, listener, config(case)?)
            }
            (Stack::Linux, _) => Self::Other(linux::listen(address)?),
            (Stack::Tcp, _) => Self::Other(TcpListener::bind(address)?),
        })
    }

    pub(crate) fn accept(&self) -> anyhow::Result<Box<dyn Party>> {
        Ok(match self {
            Self::Tokio(runtime, listener) => {
                let accepted = async { listener.accept().await.map(|(stream, _)| stream) };
                Box::new(OnTokio::of(runtime, accepted)?)
            }
            Self::Blocking(listener) => Box::new(listener.accept()?.0),
            Self::Endpoint(endpoints, listener, config) => Box::new(endpoints.accept(listener, config)?),
            Self::Other(listener) => Box::new(listener.accept()?.0),
        })
    }
}
