//! Sockets before they are connected, options of the TCP connection, and what the standard library has of both.

mod common;

use std::{
    io::{self, IoSlice, IoSliceMut},
    net::SocketAddr,
    os::fd::{AsFd, AsRawFd, IntoRawFd, OwnedFd},
    time::Duration,
};

use common::{block_on, config, in_time, pair, pair_with};
use smcd::{Handshake, SmcConfig, SmcListener, SmcSocket, SmcStream};
use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};

fn any_port() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

#[tokio::test]
async fn sockets_become_listeners_and_streams_with_their_settings() {
    let to_listen = SmcSocket::new_v4().unwrap().with_config(config());
    to_listen.set_reuseaddr(true).unwrap();
    to_listen.bind(any_port()).unwrap();
    let listener = to_listen.listen(16).unwrap();
    let to_connect = SmcSocket::new_v4().unwrap().with_config(config());
    to_connect.bind(any_port()).unwrap();
    let local = to_connect.local_addr().unwrap();
    let (client, server) = in_time(async {
        tokio::join!(to_connect.connect(listener.local_addr().unwrap()), listener.accept())
    })
    .await;
    let (mut client, (mut server, peer)) = (client.unwrap(), server.unwrap());
    assert!(client.transport().is_smcd() && server.transport().is_smcd());
    assert_eq!((peer, client.local_addr().unwrap()), (local, local));
    client.write_all(b"hello").await.unwrap();
    let mut buf = [0; 5];
    server.read_exact(&mut buf).await.unwrap();
    assert_eq!(&buf, b"hello");
}

#[tokio::test]
async fn connecting_tries_each_address() {
    let listener = SmcListener::bind(any_port()).await.unwrap();
    let closed = SmcListener::bind(any_port()).await.unwrap().local_addr().unwrap();
    let addresses = [closed, listener.local_addr().unwrap()];
    let (client, server) =
        in_time(async { tokio::join!(SmcStream::connect(&addresses[..]), listener.accept()) }).await;
    assert_eq!(client.unwrap().local_addr().unwrap(), server.unwrap().1);
    let error = in_time(SmcStream::connect(&[closed, closed][..])).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
}

#[test]
fn options_of_a_socket_stay_as_set() {
    let socket = SmcSocket::new_v4().unwrap();
    socket.set_keepalive(true).unwrap();
    socket.set_reuseaddr(true).unwrap();
    socket.set_reuseport(true).unwrap();
    socket.set_nodelay(true).unwrap();
    socket.set_zero_linger().unwrap();
    socket.set_tos_v4(0x10).unwrap();
    socket.set_send_buffer_size(65536).unwrap();
    socket.set_recv_buffer_size(32768).unwrap();
    assert!(socket.keepalive().unwrap() && socket.reuseaddr().unwrap() && socket.reuseport().unwrap());
    assert!(socket.nodelay().unwrap());
    assert_eq!(socket.linger().unwrap(), Some(Duration::ZERO));
    assert_eq!(socket.tos_v4().unwrap(), 0x10);
    // Linux doubles what it is asked for.
    assert_eq!(socket.send_buffer_size().unwrap(), 2 * 65536);
    assert_eq!(socket.recv_buffer_size().unwrap(), 2 * 32768);
    assert_eq!(socket.device().unwrap(), None);
    assert!(socket.take_error().unwrap().is_none());
    let v6 = SmcSocket::new_v6().unwrap();
    v6.set_tclass_v6(0x20).unwrap();
    assert_eq!(v6.tclass_v6().unwrap(), 0x20);
}

#[test]
fn a_socket_goes_through_its_descriptor() {
    let socket = SmcSocket::new_v4().unwrap();
    socket.bind(any_port()).unwrap();
    let bound = socket.local_addr().unwrap();
    let descriptor = socket.as_raw_fd();
    let owned = OwnedFd::from(std::net::TcpStream::from(socket.as_fd().try_clone_to_owned().unwrap()));
    assert_ne!(owned.as_raw_fd(), descriptor);
    let copy = SmcSocket::from(owned);
    assert_eq!(copy.local_addr().unwrap(), bound);
    assert!(copy.into_raw_fd() > 0);
}

#[tokio::test]
async fn options_of_a_stream_stay_as_set() {
    let (client, _server) = pair().await;
    client.set_nodelay(true).unwrap();
    client.set_ttl(77).unwrap();
    client.set_quickack(true).unwrap();
    client.set_zero_linger().unwrap();
    // What tokio has no method for either.
    socket2::SockRef::from(&client).set_keepalive(true).unwrap();
    assert!(socket2::SockRef::from(&client).keepalive().unwrap());
    assert!(client.nodelay().unwrap() && client.quickack().unwrap());
    assert_eq!(client.ttl().unwrap(), 77);
    assert_eq!(client.linger().unwrap(), Some(Duration::ZERO));
    assert!(client.take_error().unwrap().is_none());
    assert_eq!(rustix::net::getsockname(client.as_fd()).unwrap(), client.local_addr().unwrap().into());
}

/// A listener of the standard library in non-blocking mode.
fn std_listener() -> std::net::TcpListener {
    let listener = std::net::TcpListener::bind(any_port()).unwrap();
    listener.set_nonblocking(true).unwrap();
    listener
}

#[tokio::test]
async fn a_listener_comes_from_the_standard_library_and_goes_back() {
    let std_listener = std_listener();
    let addr = std_listener.local_addr().unwrap();
    let listener = SmcListener::try_from(std_listener).unwrap();
    let (client, server) = in_time(async { tokio::join!(SmcStream::connect(addr), listener.accept()) }).await;
    drop((client.unwrap(), server.unwrap()));
    let back = listener.into_std().unwrap();
    assert_eq!(back.local_addr().unwrap(), addr);
    let late = std::net::TcpStream::connect(addr).unwrap();
    back.set_nonblocking(false).unwrap();
    assert_eq!(back.accept().unwrap().1, late.local_addr().unwrap());
}

#[test]
fn a_listener_outlives_its_runtime_in_the_standard_library() {
    let back =
        block_on(async { SmcListener::bind_with(any_port(), config()).await.unwrap().into_std().unwrap() });
    let addr = back.local_addr().unwrap();
    let listener = std::thread::spawn(move || {
        back.set_nonblocking(false).unwrap();
        back.accept().unwrap().1
    });
    let client = std::net::TcpStream::connect(addr).unwrap();
    assert_eq!(listener.join().unwrap(), client.local_addr().unwrap());
}

#[tokio::test]
async fn halves_do_what_the_stream_does() {
    for settings in [config(), SmcConfig::new(), SmcConfig::new().handshake(Handshake::Off)] {
        let (mut client, server) = pair_with(&settings, &settings).await;
        let (client_read, client_write) = client.split();
        let (mut server_read, server_write) = server.into_split();
        assert_eq!(client_read.local_addr().unwrap(), server_write.peer_addr().unwrap());
        assert_eq!(server_read.local_addr().unwrap(), client_write.peer_addr().unwrap());
        assert_eq!(server_read.try_read(&mut [0]).unwrap_err().kind(), io::ErrorKind::WouldBlock);

        in_time(client_write.writable()).await.unwrap();
        assert!(in_time(client_write.ready(Interest::WRITABLE)).await.unwrap().is_writable());
        assert_eq!(client_write.try_write(b"he").unwrap(), 2);
        let parts = [IoSlice::new(b"l"), IoSlice::new(b"lo")];
        assert_eq!(client_write.try_write_vectored(&parts).unwrap(), 3);

        in_time(server_read.readable()).await.unwrap();
        assert!(in_time(server_read.ready(Interest::READABLE)).await.unwrap().is_readable());
        let mut peeked = [0; 2];
        assert_eq!(in_time(server_read.peek(&mut peeked)).await.unwrap(), 2);
        assert_eq!(&peeked, b"he");
        let (mut head, mut tail) = ([0; 1], [0; 2]);
        let mut parts = [IoSliceMut::new(&mut head), IoSliceMut::new(&mut tail)];
        assert_eq!(server_read.try_read_vectored(&mut parts).unwrap(), 3);
        assert_eq!((&head, &tail), (b"h", b"el"));
        let mut rest = Vec::with_capacity(8);
        assert_eq!(server_read.try_read_buf(&mut rest).unwrap(), 2);
        assert_eq!(rest, b"lo");
    }
}
