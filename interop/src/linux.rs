//! Linux' SMC sockets, by the calls that TCP sockets take.

use std::{
    net::{SocketAddr, TcpListener, TcpStream},
    os::fd::{AsFd, OwnedFd},
};

use rustix::net::{
    AddressFamily, Protocol, SocketFlags, SocketType, bind, connect as connect_to, listen as listen_on,
    socket_with,
    sockopt::{set_socket_recv_buffer_size_force, set_socket_reuseaddr},
};

/// Address family of SMC; the protocol says which addresses it has.
const AF_SMC: AddressFamily = AddressFamily::from_raw(43);
const SMCPROTO_SMC6: u32 = 1;

/// Connections that may wait for a listener.
const BACKLOG: i32 = 64;

fn smc_socket(address: SocketAddr) -> anyhow::Result<OwnedFd> {
    let ipv6 = rustix::net::RawProtocol::new(SMCPROTO_SMC6).map(Protocol::from_raw);
    let protocol = ipv6.filter(|_| address.is_ipv6());
    // Not for rmmod, which would wait for the end of what it has itself.
    Ok(socket_with(AF_SMC, SocketType::STREAM, SocketFlags::CLOEXEC, protocol)?)
}

/// Listens; the standard library's calls work on such a socket, too. `ring` is the size of the receive buffers.
pub(crate) fn listen(address: SocketAddr, ring: Option<usize>) -> anyhow::Result<TcpListener> {
    let socket = smc_socket(address)?;
    set_ring(&socket, ring)?;
    set_socket_reuseaddr(&socket, true)?;
    bind(&socket, &address)?;
    listen_on(&socket, BACKLOG)?;
    Ok(socket.into())
}

/// Connects; see [`listen`].
pub(crate) fn connect(address: SocketAddr, ring: Option<usize>) -> anyhow::Result<TcpStream> {
    let socket = smc_socket(address)?;
    set_ring(&socket, ring)?;
    connect_to(&socket, &address)?;
    Ok(socket.into())
}

/// Sets the size of the receive buffer that the next connection has.
fn set_ring(socket: impl AsFd, ring: Option<usize>) -> anyhow::Result<()> {
    Ok(ring.map_or(Ok(()), |ring| set_socket_recv_buffer_size_force(&socket, ring))?)
}
