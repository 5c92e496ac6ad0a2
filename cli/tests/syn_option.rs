//! The SMC option of TCP, by the programs that `smcdctl syn-option` attaches. Needs root, a cgroup v2 file system, a kernel
//! that takes the programs, and the programs `ip`, `mount`, `nsenter` and `unshare`.
#![allow(missing_docs)]

mod enabled;
#[path = "../../tests/common/namespace.rs"]
mod namespace;
#[path = "../../tests/common/process.rs"]
mod process;

use std::{
    fs,
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    os::fd::{AsRawFd, OwnedFd},
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::{Duration, Instant},
};

use enabled::Enabled;
use namespace::SERVER;
use process::{pattern, role};
use rustix::net::{AddressFamily, SocketType};
use smcd::{
    FallbackReason, Promotion, SmcConfig, SmcListener, SmcStream, Stack, Transport, blocking,
    clc::DeclineCode, dibs::loopback::DmbLimits,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Bytes that go each way.
const PAYLOAD: usize = 300_000;

/// Runs the test function in a process that is served, and to its end.
fn run(enabled: &Enabled, test: &str, argument: &str) {
    let mut child = process::spawn(test, argument);
    enabled.serve(child.id());
    child.stdin.take().unwrap().write_all(b"\n").unwrap();
    assert!(child.wait().unwrap().success());
}

/// In a process that [`run`] has started.
fn wait_to_be_served() {
    std::io::stdin().lines().next();
}

/// Settings by which everybody is asked, with a stack of their own.
fn asking(dir: Option<&Path>) -> SmcConfig {
    let stack = Stack::with_loopback_in(DmbLimits::default(), dir.map(Path::to_owned)).unwrap();
    let everybody = ["0.0.0.0/0", "::/0"].map(|prefix| prefix.parse().unwrap());
    SmcConfig::new().option_peers(everybody).stack(stack).handshake_timeout(Duration::from_secs(2))
}

#[test]
fn enabled_and_disabled() {
    let Some(enabled) = Enabled::new("switch") else { return };
    assert!(enabled.smcdctl("status").status.success());
    assert!(enabled.smcdctl("enable").status.success(), "twice is once");
    assert!(enabled.smcdctl("disable").status.success());
    assert_eq!(enabled.smcdctl("status").status.code(), Some(1));
    assert!(enabled.smcdctl("disable").status.success(), "not to be is what was asked for");
}

#[test]
fn what_is_missing_is_named() {
    let Some(enabled) = Enabled::new("missing") else { return };
    let fails = |cgroup: &Path, bpffs: &Path| {
        let output = Command::new(env!("CARGO_BIN_EXE_smcdctl"))
            .args(["syn-option", "enable", "--cgroup"])
            .arg(cgroup)
            .arg("--bpffs")
            .arg(bpffs)
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(1));
        String::from_utf8(output.stderr).unwrap()
    };
    assert!(fails(&enabled.cgroup, Path::new("/tmp")).contains("try: mount -t bpf bpf /tmp"));
    assert!(fails(Path::new("/tmp"), enabled.bpffs.path()).contains("/tmp is not a cgroup"));
}

/// Two processes as in two containers: they reach each other by TCP, and shared memory by a directory.
#[test]
fn smcd_across_namespaces() {
    const TEST: &str = "smcd_across_namespaces";
    if let Some(role) = role() {
        return container(&role);
    }
    let Some(enabled) = Enabled::new("namespaces") else { return };
    let dir = tempfile::tempdir().unwrap();
    for (server, client) in [("tokio", "tokio"), ("tokio", "blocking"), ("blocking", "tokio")] {
        let mut server = namespace::start(TEST, &format!("server {server}"), dir.path());
        let mut client = namespace::start(TEST, &format!("client {client}"), dir.path());
        enabled.serve(server.id());
        enabled.serve(client.id());
        namespace::join(&mut server, &mut client);
        for said in namespace::said(&mut server, &mut client) {
            assert_eq!(said.matches("by SMC-D").count(), 4, "{said}");
        }
    }
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0, "a name is left");
}

fn container(role: &str) {
    namespace::wait();
    let dir = PathBuf::from(std::env::var_os("SMCD_RUNTIME_DIR").unwrap());
    let config = asking(Some(&dir));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    for (i, address) in SERVER.into_iter().enumerate() {
        let address: SocketAddr = (address.parse::<std::net::IpAddr>().unwrap(), 7780).into();
        match role {
            "server tokio" => runtime.block_on(async {
                let listener = SmcListener::bind_with(address, config.clone()).await.unwrap();
                namespace::is_listening();
                for _ in 0..2 {
                    serve_tokio(listener.accept().await.unwrap().0).await;
                }
            }),
            "server blocking" => {
                let listener = blocking::SmcListener::bind_with(address, config.clone()).unwrap();
                namespace::is_listening();
                for _ in 0..2 {
                    serve_blocking(listener.accept().unwrap().0);
                }
            }
            // First contact, then the link group again.
            "client tokio" => runtime.block_on(async {
                for _ in 0..2 {
                    patiently(i, || SmcStream::connect_with(address, &config)).await;
                }
            }),
            _ => {
                for _ in 0..2 {
                    let connected = || blocking::SmcStream::connect_with(address, &config);
                    let mut stream = until_it_listens(i, connected);
                    said_and_heard(&mut stream);
                    println!("\nconnected by {}", stream.transport());
                }
            }
        }
    }
}

/// The server listens on its second address only once it is done with the first.
fn until_it_listens<T>(i: usize, connect: impl Fn() -> std::io::Result<T>) -> T {
    let until = Instant::now() + Duration::from_secs(5);
    loop {
        match connect() {
            Err(error) if i > 0 && Instant::now() < until => drop(error),
            connected => return connected.unwrap(),
        }
        thread::sleep(Duration::from_millis(20));
    }
}

async fn patiently<F: Future<Output = std::io::Result<SmcStream>>>(i: usize, connect: impl Fn() -> F) {
    let until = Instant::now() + Duration::from_secs(5);
    let mut stream = loop {
        match connect().await {
            Err(error) if i > 0 && Instant::now() < until => drop(error),
            connected => break connected.unwrap(),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    let sent = pattern(0, PAYLOAD);
    stream.write_all(&sent).await.unwrap();
    let mut got = vec![0; PAYLOAD];
    stream.read_exact(&mut got).await.unwrap();
    assert!(got == sent);
    println!("\nconnected by {}", stream.transport());
}

async fn serve_tokio(mut stream: SmcStream) {
    let mut got = vec![0; PAYLOAD];
    stream.read_exact(&mut got).await.unwrap();
    stream.write_all(&got).await.unwrap();
    println!("\nconnected by {}", stream.transport());
    assert_eq!(stream.read(&mut [0]).await.unwrap(), 0);
}

fn serve_blocking(mut stream: blocking::SmcStream) {
    echo(&mut stream);
    println!("\nconnected by {}", stream.transport());
    assert_eq!(stream.byte_counts().received, PAYLOAD as u64);
    assert_eq!(stream.read(&mut [0]).unwrap(), 0);
}

fn echo(stream: &mut (impl Read + Write)) {
    let mut got = vec![0; PAYLOAD];
    stream.read_exact(&mut got).unwrap();
    stream.write_all(&got).unwrap();
}

fn said_and_heard(stream: &mut (impl Read + Write)) {
    let sent = pattern(0, PAYLOAD);
    stream.write_all(&sent).unwrap();
    let mut got = vec![0; PAYLOAD];
    stream.read_exact(&mut got).unwrap();
    assert!(got == sent);
}

/// Runs a server in a thread: what it makes of the one connection that it gets.
fn server(config: &SmcConfig) -> (SocketAddr, thread::JoinHandle<Transport>) {
    let listener = blocking::SmcListener::bind_with("127.0.0.1:0", config.clone()).unwrap();
    let address = listener.local_addr().unwrap();
    let served = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        echo(&mut stream);
        stream.transport()
    });
    (address, served)
}

/// Connects by both front ends, one after the other, and has bytes echoed; gives how they went.
fn clients(config: &SmcConfig, mut address: impl FnMut() -> SocketAddr) -> [Transport; 2] {
    let mut blocking = blocking::SmcStream::connect_with(address(), config).unwrap();
    said_and_heard(&mut blocking);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let address = address();
    let tokio = runtime.block_on(async {
        let mut stream = SmcStream::connect_with(address, config).await.unwrap();
        let sent = pattern(0, PAYLOAD);
        let mut got = vec![0; PAYLOAD];
        let (mut reading, mut writing) = stream.split();
        let (written, read) = tokio::join!(writing.write_all(&sent), reading.read_exact(&mut got));
        written.unwrap();
        read.unwrap();
        assert!(got == sent);
        stream.transport()
    });
    [blocking.transport(), tokio]
}

fn tcp(reason: FallbackReason) -> Transport {
    Transport::Tcp(reason)
}

/// Runs the body in a process for which the option is enabled.
fn served(test: &str, name: &str, body: impl FnOnce()) {
    if role().is_some() {
        wait_to_be_served();
        return body();
    }
    if let Some(enabled) = Enabled::new(name) {
        run(&enabled, test, "served");
    }
}

#[test]
fn outcomes_on_one_host() {
    served("outcomes_on_one_host", "outcomes", || {
        let config = asking(None);
        let mut servers = Vec::new();
        let mut listen = |config: &SmcConfig| {
            let (address, served) = server(config);
            servers.push(served);
            address
        };
        let smcd = clients(&asking(None), || listen(&config));
        assert!(smcd.iter().all(Transport::is_smcd), "{smcd:?}");
        let disjoint = asking(None).ueids(["OTHER".parse().unwrap()]);
        let declined = FallbackReason::PeerDeclined(DeclineCode::NO_SMCD_DEVICE);
        assert_eq!(clients(&disjoint, || listen(&config)), [tcp(declined); 2]);
        // Not among those whom the server serves, but owed an answer.
        let choosy = config.clone().option_peers(["192.0.2.0/24".parse().unwrap()]);
        let declined = FallbackReason::PeerDeclined(DeclineCode::CONFIG);
        assert_eq!(clients(&asking(None), || listen(&choosy)), [tcp(declined); 2]);
        for served in servers {
            served.join().unwrap();
        }
    });
}

/// Some hosts and middleboxes send options back that they do not know.
#[test]
fn an_echo_costs_time_and_nothing_else() {
    served("an_echo_costs_time_and_nothing_else", "echo", || {
        let limit = Duration::from_millis(300);
        let config = asking(None).handshake_timeout(limit).promotion(Promotion::Off);
        for talks in [false, true] {
            let listener =
                blocking::SmcListener::bind_with("127.0.0.1:0", config.clone()).unwrap().into_std();
            let address = listener.local_addr().unwrap();
            let server = thread::spawn(move || plain_server(&listener, talks));
            let began = Instant::now();
            assert_eq!(clients(&config, || address), [tcp(FallbackReason::OptionEchoed); 2]);
            assert!(began.elapsed() < 2 * limit + Duration::from_secs(1), "{:?}", began.elapsed());
            server.join().unwrap();
        }
    });
}

/// A server that knows nothing of SMC: of each two connections the first brings something that it cannot make sense of.
fn plain_server(listener: &TcpListener, talks: bool) {
    for _ in 0..2 {
        let mut strange: TcpStream = listener.accept().unwrap().0;
        if talks {
            let _ = strange.write_all(b"400 what do you mean?\n");
        }
        let _ = strange.read(&mut [0; 1000]);
        let mut stream = listener.accept().unwrap().0;
        echo(&mut stream);
    }
}

#[test]
fn a_peer_without_the_option_gets_no_proposal() {
    served("a_peer_without_the_option_gets_no_proposal", "without", || {
        // Far away, as for all that is known: nobody is met by promotion.
        let config = asking(None).promotion(Promotion::Off);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let server = thread::spawn(move || {
            for _ in 0..2 {
                echo(&mut listener.accept().unwrap().0);
            }
        });
        assert_eq!(clients(&config, || address), [tcp(FallbackReason::PeerNotSmc); 2]);
        server.join().unwrap();
    });
}

/// A client that has sent the option and then speaks first by itself, as if the option were not its own.
#[test]
fn data_in_place_of_a_proposal_is_data() {
    served("data_in_place_of_a_proposal_is_data", "data", || {
        let (address, served) = server(&asking(None));
        let socket = asking_socket();
        rustix::net::connect(&socket, &address).unwrap();
        said_and_heard(&mut TcpStream::from(socket));
        assert_eq!(served.join().unwrap(), tcp(FallbackReason::PeerNotSmc));
    });
}

/// A socket that sends the option, without anything behind it.
fn asking_socket() -> OwnedFd {
    let socket = rustix::net::socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
    let one = 1i32;
    // SAFETY: the kernel reads the four bytes of `one`.
    let asked = unsafe { libc::setsockopt(socket.as_raw_fd(), 286, 100, (&raw const one).cast(), 4) };
    assert_eq!(asked, 0);
    socket
}

#[test]
fn without_the_programs_it_is_tcp() {
    if role().is_some() {
        return;
    }
    if smcd::tcp_fallback::syn_option::can_ask() {
        eprintln!("SKIPPED: the option is enabled for this very process");
        return;
    }
    let config = asking(None).promotion(Promotion::Off);
    let mut servers = Vec::new();
    let went = clients(&config, || {
        let (address, served) = server(&config);
        servers.push(served);
        address
    });
    assert_eq!(went, [tcp(FallbackReason::OptionUnavailable); 2]);
    for served in servers {
        assert_eq!(served.join().unwrap(), tcp(FallbackReason::OptionUnavailable));
    }
}
