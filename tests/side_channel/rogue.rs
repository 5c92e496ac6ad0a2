//! A process at the side channel that is not what it should be.

use std::{
    io::{IoSlice, IoSliceMut},
    mem::MaybeUninit,
    net::{IpAddr, SocketAddr},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::Arc,
    time::Instant,
};

use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType, accept_with, bind, connect,
    listen, recvmsg, sendmsg, socket_with, sockopt::socket_cookie,
};
use smcd::{
    clc::{
        handshake::{
            Local, LocalDevice, OwnDmb,
            server::{ExpectConfirm, ExpectProposal},
        },
        wire::{DmbeSize, LinkId, Message, UpTo},
    },
    dibs::{
        Device, Dmb, DmbToken, RemoteDmb,
        loopback::{DmbLimits, Loopback},
    },
};
use tokio::net::TcpStream;

const FLAGS: SocketFlags = SocketFlags::CLOEXEC.union(SocketFlags::NONBLOCK);

/// Bytes of a DMB.
pub const LEN: usize = 16 * 1024;

/// The name under which the ends of a connection meet.
pub fn name(a: SocketAddr, b: SocketAddr) -> SocketAddrUnix {
    let hex = |addr: SocketAddr| {
        let IpAddr::V4(ip) = addr.ip() else { panic!("the tests use IPv4") };
        format!("{:08x}.{:04x}", u32::from(ip), addr.port())
    };
    let (low, high) = if (a.ip(), a.port()) <= (b.ip(), b.port()) { (a, b) } else { (b, a) };
    let name = format!("smcd/tcp/{}-{}", hex(low), hex(high));
    SocketAddrUnix::new_abstract_name(name.as_bytes()).unwrap()
}

fn socket() -> OwnedFd {
    socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, FLAGS, None).unwrap()
}

/// Waits under a name.
pub fn wait_at(name: &SocketAddrUnix) -> OwnedFd {
    let socket = socket();
    bind(&socket, name).unwrap();
    listen(&socket, 16).unwrap();
    socket
}

/// Whoever has come.
pub fn next(listener: &OwnedFd) -> Option<OwnedFd> {
    accept_with(listener, FLAGS).ok()
}

/// Goes to whoever waits.
pub fn go_to(name: &SocketAddrUnix) -> Option<OwnedFd> {
    let socket = socket();
    connect(&socket, name).ok().map(|()| socket)
}

/// The header of a packet that comes from an end of a TCP connection.
pub fn header(end: u32, cookie: u64) -> Vec<u8> {
    [b"SMP1".as_slice(), &end.to_ne_bytes(), &cookie.to_ne_bytes()].concat()
}

/// Which end of its connection this is.
pub fn end(tcp: &TcpStream) -> u32 {
    u32::from(tcp.local_addr().unwrap() > tcp.peer_addr().unwrap())
}

/// The kernel's number for an end of a TCP connection.
pub fn cookie(tcp: impl AsFd) -> u64 {
    socket_cookie(tcp).unwrap()
}

pub fn send(socket: &OwnedFd, bytes: &[u8], fds: &[OwnedFd]) {
    let fds: Vec<BorrowedFd<'_>> = fds.iter().map(AsFd::as_fd).collect();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(200))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() {
        assert!(control.push(SendAncillaryMessage::ScmRights(&fds)));
    }
    // The other side may have hung up; that is for it to decide.
    let _ = sendmsg(socket, &[IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL);
}

/// What has come: its message, and the descriptors with it.
pub fn receive(socket: &OwnedFd) -> Option<(Message, Vec<OwnedFd>)> {
    let mut bytes = [0; 8192];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(10))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let n =
        recvmsg(socket, &mut [IoSliceMut::new(&mut bytes)], &mut control, RecvFlags::DONTWAIT).ok()?.bytes;
    let mut fds = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            fds.extend(rights);
        }
    }
    (n > 0).then(|| (Message::parse(&bytes[16..n]).unwrap(), fds))
}

/// One that knows the protocol.
pub struct Rogue {
    pub device: Arc<Loopback>,
    local: Local,
}

impl Rogue {
    pub fn new() -> Self {
        let device = Arc::new(Loopback::new(DmbLimits::default()).unwrap());
        let mut local = Local::new(vec![LocalDevice { gid: device.gid(), chid: device.fabric_id() }]);
        local.ueids = UpTo::first_of(["SMCD.USERSPACE".parse().unwrap()]);
        Self { device, local }
    }

    /// Answers a Proposal with an Accept of the DMB `token`, and these descriptors for it.
    pub fn accept(
        &self,
        channel: &OwnedFd,
        tcp: &TcpStream,
        proposal: Message,
        token: impl FnOnce(smcd::dibs::Gid) -> (DmbToken, Vec<OwnedFd>),
    ) -> ExpectConfirm {
        let offered = ExpectProposal::new(self.local.clone(), Instant::now()).on_message(proposal).unwrap();
        let candidates = offered.candidates(|_, _, _| true).unwrap();
        let candidate = *candidates.iter().next().unwrap();
        let (token, fds) = token(candidate.peer_gid());
        let dmb = OwnDmb { token, size: DmbeSize::holding(LEN), index: 0 };
        let (accept, expect) = offered.accept(&candidate, dmb, true, LinkId([1; 4]), Instant::now());
        let message = [header(end(tcp), cookie(tcp)), Message::from(accept).to_bytes()].concat();
        send(channel, &message, &fds);
        expect
    }

    /// A DMB as it should be.
    pub fn dmb(&self, user: smcd::dibs::Gid) -> (Dmb, Vec<OwnedFd>) {
        let uid = rustix::process::geteuid().as_raw();
        self.device.register_handover(user, uid, LEN).unwrap()
    }

    /// Takes a Confirm, and the DMB of the other side with it.
    pub fn attach(&self, expect: ExpectConfirm, confirm: Message, fds: Vec<OwnedFd>) -> RemoteDmb {
        let agreed = expect.on_message(confirm).unwrap();
        let (gid, dmb) = (agreed.terms().peer_gid(), agreed.terms().peer_dmb());
        self.device.attach_handover(gid, dmb.token(), dmb.size().bytes(), fds).unwrap()
    }
}
