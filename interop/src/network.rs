//! The networks between the machine and the host: who has which address.
//!
//! In the machine they are cards of virtio-net. On the host each is a unix socket of QEMU, and an endpoint of the library.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    process::Command,
};

use anyhow::{Context, ensure};

use crate::case::{Case, Stack};

pub(crate) struct Network {
    /// Of the machine.
    interface: &'static str,
    guest: IpAddr,
    pub(crate) host: IpAddr,
    pub(crate) prefix: u8,
}

/// By QEMU's backend `stream`.
pub(crate) const IPV4: Network = Network {
    interface: "eth0",
    guest: IpAddr::V4(Ipv4Addr::new(10, 99, 0, 2)),
    host: IpAddr::V4(Ipv4Addr::new(10, 99, 0, 1)),
    prefix: 24,
};

/// By QEMU's backend `dgram`.
pub(crate) const IPV6: Network = Network {
    interface: "eth1",
    guest: IpAddr::V6(Ipv6Addr::new(0xfd00, 0x99, 0, 0, 0, 0, 0, 2)),
    host: IpAddr::V6(Ipv6Addr::new(0xfd00, 0x99, 0, 0, 0, 0, 0, 1)),
    prefix: 64,
};

/// Where the host listens to what the machine has to tell it.
pub(crate) const CONTROL: SocketAddr = SocketAddr::new(IPV4.host, 1999);

impl Network {
    fn of(case: &Case) -> &'static Self {
        if case.is_ipv6 { &IPV6 } else { &IPV4 }
    }

    fn set_up(&self) -> anyhow::Result<()> {
        let Self { interface, guest, prefix, .. } = self;
        // Nobody else can have the address, so that there is no need to ask and to wait for an answer.
        fs::write(format!("/proc/sys/net/ipv6/conf/{interface}/accept_dad"), "0").context(*interface)?;
        ip(&["link", "set", interface, "up"])?;
        ip(&["addr", "add", &format!("{guest}/{prefix}"), "dev", interface])
    }
}

/// Gives the machine its addresses.
pub(crate) fn set_up() -> anyhow::Result<()> {
    IPV4.set_up()?;
    IPV6.set_up()
}

fn ip(arguments: &[&str]) -> anyhow::Result<()> {
    let status = Command::new("ip").args(arguments).status().context("ip")?;
    ensure!(status.success(), "ip {} fails", arguments.join(" "));
    Ok(())
}

/// Where the server of this case listens.
pub(crate) fn server_of(case: &Case, port: u16) -> SocketAddr {
    let network = Network::of(case);
    let ip = match (case.server, case.client) {
        (Stack::Endpoint, _) => network.host,
        (_, Stack::Endpoint) => network.guest,
        _ if case.is_ipv6 => Ipv6Addr::LOCALHOST.into(),
        _ => Ipv4Addr::LOCALHOST.into(),
    };
    SocketAddr::new(ip, port)
}

/// The interface of the machine by which it is connected to.
pub(crate) fn interface_of(case: &Case) -> &'static str {
    if case.has(Stack::Endpoint) { Network::of(case).interface } else { "lo" }
}
