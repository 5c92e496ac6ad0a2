//! Who owns the other end of a TCP connection, by the kernel's word.

use std::{
    io,
    net::{IpAddr, SocketAddr},
};

use netlink_packet_core::{NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload};
use netlink_packet_sock_diag::{
    SockDiagMessage,
    constants::{AF_INET, AF_INET6, IPPROTO_TCP},
    inet::{ExtensionFlags, InetRequest, InetResponse, SocketId, StateFlags, nlas::Nla},
};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType,
    netlink::{SOCK_DIAG, SocketAddrNetlink},
    recv, sendto, socket_with,
};

use super::four_tuple::FourTuple;
use crate::unix::sockopt::{TcpCounts, counts_of};

/// The owner of a socket.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Owner {
    /// User id of the process that made the socket.
    pub(super) uid: u32,
    /// The kernel's number for the socket, never used twice.
    pub(super) cookie: u64,
    /// False while nobody has accepted the connection, and after it was closed. The user id means nothing then.
    pub(super) is_open: bool,
}

/// Asks for the socket that has these addresses (its own first) in this network namespace. `None` if there is no such
/// socket.
///
/// # Errors
/// If the kernel cannot be asked.
pub(super) fn owner_of(tuple: FourTuple) -> io::Result<Option<Owner>> {
    Ok(find(tuple, ExtensionFlags::empty())?.map(|found| Owner {
        uid: found.header.uid,
        cookie: u64::from_ne_bytes(found.header.socket_id.cookie),
        is_open: found.header.inode != 0,
    }))
}

/// What the kernel has counted on the socket that has these addresses (its own first) and this cookie. `None` if there
/// is no such socket in this network namespace.
///
/// # Errors
/// If the kernel cannot be asked.
pub(crate) fn counts_by_address(
    local: SocketAddr,
    peer: SocketAddr,
    cookie: u64,
) -> io::Result<Option<TcpCounts>> {
    let Some(found) = find(FourTuple::new(local, peer), ExtensionFlags::INFO)? else { return Ok(None) };
    if u64::from_ne_bytes(found.header.socket_id.cookie) != cookie {
        return Ok(None);
    }
    Ok(found.nlas.iter().find_map(|nla| match nla {
        Nla::TcpInfo(info) => counts_of(info),
        _ => None,
    }))
}

/// Asks for the socket that has these addresses (its own first), and for more about it.
fn find(tuple: FourTuple, extensions: ExtensionFlags) -> io::Result<Option<InetResponse>> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, Some(SOCK_DIAG))?;
    sendto(&socket, &request(tuple, extensions), SendFlags::DONTWAIT, &SocketAddrNetlink::new(0, 0))?;
    // The kernel answers while the request is sent.
    let mut answer = [0; 2048];
    let (n, _) = recv(&socket, &mut answer, RecvFlags::DONTWAIT)?;
    let message = NetlinkMessage::<SockDiagMessage>::deserialize(answer.get(..n).unwrap_or(&answer));
    match message.map_err(|_| io::Error::from(io::ErrorKind::InvalidData))?.payload {
        NetlinkPayload::InnerMessage(SockDiagMessage::InetResponse(found)) => {
            Ok(Some(*found).filter(|found| is_it(tuple, found)))
        }
        NetlinkPayload::Error(error) => match error.to_io() {
            error if error.kind() == io::ErrorKind::NotFound => Ok(None),
            error => Err(error),
        },
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}

fn request(tuple: FourTuple, extensions: ExtensionFlags) -> Vec<u8> {
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST;
    let request = InetRequest {
        family: if tuple.local.0.is_ipv4() { AF_INET } else { AF_INET6 },
        protocol: IPPROTO_TCP,
        extensions,
        states: StateFlags::all(),
        socket_id: SocketId {
            source_port: tuple.local.1,
            destination_port: tuple.peer.1,
            source_address: tuple.local.0,
            destination_address: tuple.peer.0,
            interface_id: 0,
            cookie: [0xff; 8],
        },
    };
    let mut message = NetlinkMessage::new(header, SockDiagMessage::InetRequest(request).into());
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    bytes
}

/// True if the socket found is the one that was asked for. Where there is none, the kernel gives a listener.
fn is_it(asked: FourTuple, found: &InetResponse) -> bool {
    let id = &found.header.socket_id;
    let ip = |ip: IpAddr| ip.to_canonical();
    (ip(id.source_address), id.source_port) == asked.local
        && (ip(id.destination_address), id.destination_port) == asked.peer
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        io::{Read, Write},
        net::{TcpListener, TcpStream},
    };

    fn check(listen: &str, connect: &str) {
        let listener = TcpListener::bind(listen).unwrap();
        let port = listener.local_addr().unwrap().port();
        let client = TcpStream::connect((connect, port)).unwrap();
        let tuple = FourTuple::new(client.local_addr().unwrap(), client.peer_addr().unwrap());
        assert!(!owner_of(tuple.reversed()).unwrap().unwrap().is_open, "not accepted yet");
        let server = listener.accept().unwrap().0;
        let cookie = |socket: &TcpStream| rustix::net::sockopt::socket_cookie(socket).unwrap();
        let uid = rustix::process::geteuid().as_raw();
        assert_eq!(owner_of(tuple).unwrap(), Some(Owner { uid, cookie: cookie(&client), is_open: true }));
        assert_eq!(
            owner_of(tuple.reversed()).unwrap(),
            Some(Owner { uid, cookie: cookie(&server), is_open: true })
        );
        drop(server);
        assert!(owner_of(tuple.reversed()).unwrap().is_none_or(|owner| !owner.is_open), "closed");
    }

    #[test]
    fn both_ends_of_a_connection_are_found() {
        check("127.0.0.1:0", "127.0.0.1");
        check("[::1]:0", "::1");
        check("[::]:0", "127.0.0.1");
    }

    #[test]
    fn the_kernel_counts_for_everybody() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let mut server = listener.accept().unwrap().0;
        client.write_all(&[7; 1000]).unwrap();
        server.read_exact(&mut [0; 1000]).unwrap();
        let cookie = rustix::net::sockopt::socket_cookie(&server).unwrap();
        let (local, peer) = (server.local_addr().unwrap(), server.peer_addr().unwrap());
        let counts = TcpCounts { received: 1000, sent: 0 };
        assert_eq!(counts_by_address(local, peer, cookie).unwrap(), Some(counts));
        assert_eq!(counts_by_address(local, peer, cookie + 1).unwrap(), None);
    }

    #[test]
    fn a_listener_is_nobodys_other_end() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let tuple = FourTuple::new(listener.local_addr().unwrap(), "127.0.0.1:1".parse().unwrap());
        assert_eq!(owner_of(tuple).unwrap(), None);
    }
}
