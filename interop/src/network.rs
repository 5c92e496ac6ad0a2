//! The networks between the machine and the host: who has which address.
//!
//! In the machine they are cards of virtio-net. On the host each is a unix socket of QEMU, and an endpoint of the library.
//! One goes to the other machine.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    process::Command,
};

use anyhow::{Context, ensure};

use crate::{
    case::{Case, Stack},
    talk::Talk,
};

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

/// By `stream` too, to a process that is killed.
pub(crate) const CHILD: Network = Network {
    interface: "eth2",
    guest: IpAddr::V4(Ipv4Addr::new(10, 99, 1, 2)),
    host: IpAddr::V4(Ipv4Addr::new(10, 99, 1, 1)),
    prefix: 24,
};

/// To the other machine, by `dgram`.
const OTHER: Network = Network {
    interface: "eth3",
    guest: IpAddr::V4(Ipv4Addr::new(10, 99, 2, 2)),
    host: IpAddr::V4(Ipv4Addr::new(10, 99, 2, 1)),
    prefix: 24,
};

/// The same there.
const OF_OTHER: Network = Network { interface: "eth0", guest: OTHER.host, ..OTHER };

/// Where the host listens to what the machine has to tell it, and the other machine.
pub(crate) const CONTROL: SocketAddr = SocketAddr::new(IPV4.host, 1999);
pub(crate) const CONTROL_OF_OTHER: SocketAddr = SocketAddr::new(OTHER.host, 1999);

impl Network {
    fn of(case: &Case) -> &'static Self {
        match case {
            _ if case.talk == Talk::NoPeer => &CHILD,
            _ if case.has(Stack::Guest) => &OTHER,
            _ if case.is_ipv6 => &IPV6,
            _ => &IPV4,
        }
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
    [IPV4, IPV6, CHILD, OTHER].iter().try_for_each(Network::set_up)
}

/// Gives the other machine its address.
pub(crate) fn set_up_other() -> anyhow::Result<()> {
    OF_OTHER.set_up()
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
        (server, _) if server.is_elsewhere() => network.host,
        (_, client) if client.is_elsewhere() => network.guest,
        _ if case.is_ipv6 => Ipv6Addr::LOCALHOST.into(),
        _ => Ipv4Addr::LOCALHOST.into(),
    };
    SocketAddr::new(ip, port)
}

/// The interface of the machine by which it is connected to.
pub(crate) fn interface_of(case: &Case) -> &'static str {
    let leaves = case.client.is_elsewhere() || case.server.is_elsewhere();
    if leaves { Network::of(case).interface } else { "lo" }
}
