//! The library's endpoints on the host, at the other ends of the machine's networks. They need no privilege.

use std::{
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use anyhow::Context;
use smcd::{
    SmcConfig, SmcStackStream,
    dibs::region::Region,
    tcp_fallback::stack::{
        Endpoint, EndpointConfig, QemuDgram, QemuStream, StackListener, StackStream, SynOption,
    },
};
use tokio::runtime::{Builder, Runtime};

use crate::{
    network::{self, Network},
    party::OnTokio,
};

/// The sockets of QEMU's backends, and that of ours which one of them sends to.
const STREAM: &str = "stream";
const DGRAM: &str = "dgram";
const DGRAM_OF_HOST: &str = "dgram-host";
/// That of the process that is killed.
const OF_CHILD: &str = "child";

/// The socket of the server of the region.
pub(crate) const FABRIC: &str = "fabric";

/// In which QEMU has started.
const PATIENCE: Duration = Duration::from_secs(30);

/// Of each of ours: who comes in the place of another is at once found there.
const MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];

/// Connections that may wait for a listener.
const BACKLOG: usize = 64;

/// See the module. Copies are the same.
#[derive(Clone)]
pub(crate) struct Endpoints {
    ipv4: Endpoint,
    /// By the other backend.
    ipv6: Option<Endpoint>,
    fabric: PathBuf,
    /// Of who accepts: a listener wakes one of those who wait.
    turn: Arc<Mutex<()>>,
    /// A thread of its own moves the frames: nobody need be in a call for what was written to be sent.
    runtime: Arc<Runtime>,
}

impl Endpoints {
    /// Links to the machine by the sockets in this folder.
    pub(crate) fn link(sockets: &Path) -> anyhow::Result<Self> {
        let ipv4 = Self::link_stream(sockets, STREAM, &network::IPV4)?;
        let _inside = ipv4.runtime.enter();
        let dgram = once_there(|| {
            let ours = sockets.join(DGRAM_OF_HOST);
            // Of an attempt before this one.
            let _ = std::fs::remove_file(&ours);
            QemuDgram::connect(ours, sockets.join(DGRAM))
        });
        let dgram = dgram.context("QEMU's datagrams")?;
        Ok(Self { ipv6: Some(Endpoint::new(dgram, &settings(&network::IPV6))?), ..ipv4 })
    }

    /// The link of a process that is killed later.
    pub(crate) fn link_child(sockets: &Path) -> anyhow::Result<Self> {
        Self::link_stream(sockets, OF_CHILD, &network::CHILD)
    }

    fn link_stream(sockets: &Path, socket: &str, network: &Network) -> anyhow::Result<Self> {
        let runtime = Arc::new(Builder::new_multi_thread().worker_threads(1).enable_all().build()?);
        let _inside = runtime.enter();
        let stream = once_there(|| runtime.block_on(QemuStream::connect(sockets.join(socket))));
        let ipv4 = Endpoint::new(stream.context("QEMU's stream")?, &settings(network))?;
        Ok(Self {
            ipv4,
            ipv6: None,
            fabric: sockets.join(FABRIC),
            turn: Arc::default(),
            runtime: runtime.clone(),
        })
    }

    /// A new endpoint in the region.
    pub(crate) fn join_region(&self) -> anyhow::Result<Region> {
        Region::connect(&self.fabric).context("the region")
    }

    fn of(&self, address: SocketAddr) -> &Endpoint {
        self.ipv6.as_ref().filter(|_| address.is_ipv6()).unwrap_or(&self.ipv4)
    }

    /// Connects, with the SMC option.
    pub(crate) fn connect(
        &self,
        address: SocketAddr,
        config: &SmcConfig,
    ) -> io::Result<OnTokio<SmcStackStream>> {
        OnTokio::of(&self.runtime, SmcStackStream::connect(self.of(address), address, config))
    }

    pub(crate) fn listen(&self, address: SocketAddr, option: SynOption) -> io::Result<StackListener> {
        self.of(address).listen(address, BACKLOG, option)
    }

    /// Accepts a connection of a listener that answers the SMC option.
    pub(crate) fn accept(
        &self,
        listener: &StackListener,
        config: &SmcConfig,
    ) -> io::Result<OnTokio<SmcStackStream>> {
        let stream = {
            let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
            self.runtime.block_on(listener.accept())?
        };
        OnTokio::of(&self.runtime, async { Ok(SmcStackStream::accept(stream, config).await?) })
    }

    /// Accepts a connection that stays plain TCP.
    pub(crate) fn accept_plain(&self, listener: &StackListener) -> io::Result<OnTokio<StackStream>> {
        OnTokio::of(&self.runtime, listener.accept())
    }
}

fn settings(network: &Network) -> EndpointConfig {
    EndpointConfig::new(network.host, network.prefix).mac(MAC)
}

/// Tries until QEMU is there.
fn once_there<T>(mut connect: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    let until = Instant::now() + PATIENCE;
    loop {
        match connect() {
            Err(error) if Instant::now() > until => return Err(error),
            Err(_) => std::thread::sleep(Duration::from_millis(20)),
            linked => return linked,
        }
    }
}
