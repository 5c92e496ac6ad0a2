//! The endpoint and the kernel as two hosts, joined by a TAP device in a network namespace of their own. Needs root.

use std::process::{Command, Stdio};

use smcd::tcp_fallback::stack::{Endpoint, EndpointConfig, SynOption, Tap};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpSocket, TcpStream},
};

use crate::{
    harness::exchange,
    process::{ROLE, role},
};

const TEST: &str = "tap::kernel_and_endpoint_meet";
const KERNEL: &str = "10.77.232.1";
const OURS: &str = "10.77.232.2";

#[test]
fn kernel_and_endpoint_meet() {
    if role().is_some() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        return runtime.block_on(async {
            let limit = std::time::Duration::from_secs(30);
            tokio::time::timeout(limit, in_namespace()).await.expect("hangs");
        });
    }
    let has = |program: &str| Command::new(program).arg("--help").stdout(Stdio::null()).status().is_ok();
    if !rustix::process::geteuid().is_root()
        || !has("unshare")
        || !std::path::Path::new("/dev/net/tun").exists()
    {
        eprintln!("SKIPPED: needs root, `unshare` and /dev/net/tun");
        return;
    }
    let status = Command::new("unshare")
        .arg("--net")
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", TEST, "--nocapture", "--test-threads=1"])
        .env(ROLE, "namespace")
        .status()
        .unwrap();
    assert!(status.success());
}

fn ip(words: &str) {
    let status = Command::new("ip").args(words.split(' ')).status().unwrap();
    assert!(status.success(), "ip {words}");
}

async fn in_namespace() {
    let tap = Tap::open("smcdtap0", 1500).unwrap();
    ip(&format!("addr add {KERNEL}/24 dev smcdtap0"));
    ip("-6 addr add fd77:232::1/64 dev smcdtap0 nodad");
    ip("link set smcdtap0 up");
    let config = EndpointConfig::new(OURS.parse().unwrap(), 24).address("fd77:232::2".parse().unwrap(), 64);
    let endpoint = Endpoint::new(tap, &config).unwrap();
    for kernel in [KERNEL, "fd77:232::1"] {
        kernel_serves(&endpoint, kernel).await;
    }
    for ours in [OURS, "fd77:232::2"] {
        kernel_connects(&endpoint, ours).await;
    }
}

/// A listener of the kernel, which keeps SYNs.
fn listener(kernel: &str) -> TcpListener {
    let addr = std::net::SocketAddr::new(kernel.parse().unwrap(), 0);
    let socket = if addr.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }.unwrap();
    set_option(&socket, libc::TCP_SAVE_SYN, 1);
    socket.bind(addr).unwrap();
    socket.listen(8).unwrap()
}

/// The kernel takes the SYN for what it is, does not know the option, and is plain TCP.
async fn kernel_serves(endpoint: &Endpoint, kernel: &str) {
    let listener = listener(kernel);
    let addr = listener.local_addr().unwrap();
    for (option, marks) in [(SynOption::Offer, 1), (SynOption::Omit, 0)] {
        let (ours, accepted) = tokio::join!(endpoint.connect(addr, option), listener.accept());
        let (ours, (theirs, peer)) = (ours.unwrap(), accepted.unwrap());
        assert_eq!(peer, ours.local_addr());
        let syn = saved_syn(&theirs);
        let found = syn.windows(6).filter(|six| *six == [0xfe, 6, 0xe2, 0xd4, 0xc3, 0xd9]).count();
        assert_eq!(found, marks, "{syn:02x?}");
        assert!(!ours.smc_signalled());
        exchange(ours, theirs, 300_000).await;
    }
}

async fn kernel_connects(endpoint: &Endpoint, ours: &str) {
    let addr = std::net::SocketAddr::new(ours.parse().unwrap(), 8080);
    let listener = endpoint.listen(addr, 4, SynOption::Offer).unwrap();
    let (theirs, accepted) = tokio::join!(TcpStream::connect(addr), listener.accept());
    let (mut theirs, mut accepted) = (theirs.unwrap(), accepted.unwrap());
    assert!(!accepted.smc_signalled());
    theirs.write_all(b"hello").await.unwrap();
    let mut text = [0; 5];
    accepted.read_exact(&mut text).await.unwrap();
    assert_eq!(&text, b"hello");
    exchange(theirs, accepted, 300_000).await;
}

fn set_option(socket: &impl std::os::fd::AsRawFd, name: libc::c_int, value: libc::c_int) {
    let len = size_of_val(&value) as libc::socklen_t;
    // SAFETY: the pointer and length are those of an integer that lives until the call returns.
    let done = unsafe {
        libc::setsockopt(socket.as_raw_fd(), libc::IPPROTO_TCP, name, (&raw const value).cast(), len)
    };
    assert_eq!(done, 0);
}

/// The headers of the SYN with which a connection began.
fn saved_syn(socket: &TcpStream) -> Vec<u8> {
    use std::os::fd::AsRawFd;
    let mut syn = vec![0_u8; 512];
    let mut len = syn.len() as libc::socklen_t;
    // SAFETY: the pointer and length are those of the vector, which lives until the call returns.
    let done = unsafe {
        let at = syn.as_mut_ptr().cast();
        libc::getsockopt(socket.as_raw_fd(), libc::IPPROTO_TCP, libc::TCP_SAVED_SYN, at, &raw mut len)
    };
    assert_eq!(done, 0);
    syn.truncate(len as usize);
    assert!(!syn.is_empty());
    syn
}
