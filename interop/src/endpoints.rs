//! The library's endpoints on the host, at the other ends of the machine's networks. They need no privilege.

use std::{
    io,
    net::SocketAddr,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Context;
use smcd::{
    SmcConfig, SmcStackStream,
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

/// In which QEMU has started.
const PATIENCE: Duration = Duration::from_secs(30);

/// Connections that may wait for a listener.
const BACKLOG: usize = 4;

/// See the module. Copies are the same.
#[derive(Clone)]
pub(crate) struct Endpoints {
    ipv4: Endpoint,
    ipv6: Endpoint,
    /// A thread of its own moves the frames: nobody need be in a call for what was written to be sent.
    runtime: Arc<Runtime>,
}

impl Endpoints {
    /// Links to the machine by the sockets in this folder.
    pub(crate) fn link(sockets: &Path) -> anyhow::Result<Self> {
        let runtime = Arc::new(Builder::new_multi_thread().worker_threads(1).enable_all().build()?);
        let _inside = runtime.enter();
        let stream = once_there(|| runtime.block_on(QemuStream::connect(sockets.join(STREAM))));
        let dgram = once_there(|| {
            let ours = sockets.join(DGRAM_OF_HOST);
            // Of an attempt before this one.
            let _ = std::fs::remove_file(&ours);
            QemuDgram::connect(ours, sockets.join(DGRAM))
        });
        Ok(Self {
            ipv4: Endpoint::new(stream.context("QEMU's stream")?, &settings(&network::IPV4))?,
            ipv6: Endpoint::new(dgram.context("QEMU's datagrams")?, &settings(&network::IPV6))?,
            runtime: runtime.clone(),
        })
    }

    fn of(&self, address: SocketAddr) -> &Endpoint {
        if address.is_ipv6() { &self.ipv6 } else { &self.ipv4 }
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
        let accepted = async { Ok(SmcStackStream::accept(listener.accept().await?, config).await?) };
        OnTokio::of(&self.runtime, accepted)
    }

    /// Accepts a connection that stays plain TCP.
    pub(crate) fn accept_plain(&self, listener: &StackListener) -> io::Result<OnTokio<StackStream>> {
        OnTokio::of(&self.runtime, listener.accept())
    }
}

fn settings(network: &Network) -> EndpointConfig {
    EndpointConfig::new(network.host, network.prefix)
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
