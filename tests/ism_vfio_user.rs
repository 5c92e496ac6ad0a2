//! ISM functions of another process, by vfio-user.

mod common;
mod conformance;

use std::{
    io::{ErrorKind, Read, Write},
    os::{
        fd::AsFd,
        unix::net::{UnixListener, UnixStream},
    },
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use common::{
    block_on, in_time,
    ism::{Functions, Server, Sockets, until},
    pattern, role,
    soft_ism::{over_ism, relay, speak_v2},
    spawn_with,
};
use conformance::Remote;
use rustix::{
    fs::{MemfdFlags, ftruncate, memfd_create},
    net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg},
    process::{Pid, Signal, kill_process},
};
use smcd::{
    Handshake, SmcConfig, SmcListener, SmcStream, Transport,
    dibs::{
        Chid, Device, DeviceError,
        ism::{
            Ism, IsmError,
            soft::{End, Fault},
        },
    },
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const LEN: usize = 65536;

/// A test process that has functions.
#[test]
fn serve_functions() {
    common::ism::serve_functions();
}

#[test]
fn conforms_over_functions_of_another_process() {
    if role().is_some() {
        return;
    }
    let server = Server::new();
    conformance::check(|| [0, 1, 2].map(|function| Arc::new(server.open(function)) as Arc<dyn Device>));
}

/// Four processes: that of the functions, and one for each device.
#[test]
fn conforms_between_processes() {
    if role().is_some() {
        return;
    }
    let server = Server::new();
    let other = |function| {
        let socket = server.sockets.of(function);
        let socket = socket.to_str().unwrap();
        Remote::start(|stdin| spawn_with("be_a_device", socket, |command| _ = command.stdin(stdin)))
    };
    conformance::check(|| (Arc::new(server.open(0)) as Arc<dyn Device>, [1, 2].map(other)));
}

#[test]
fn be_a_device() {
    if let Some(socket) = role() {
        conformance::serve(Arc::new(Ism::connect(socket).unwrap()));
    }
}

#[test]
fn a_function_that_ends_is_lost_to_both_sides() {
    for end in [End::Failure, End::Disabled, End::Lost] {
        let functions = Functions::new(2);
        let [device, peer] = [0, 1].map(|number| functions.open(number));
        let dmb = device.register_dmb(peer.gid(), LEN, None).unwrap();
        let theirs = peer.register_dmb(device.gid(), LEN, None).unwrap();
        functions.fabric.inject(0, Fault::End(end));
        until("nobody was told", || device.is_lost() && dmb.interrupt().is_hung_up());
        assert!(matches!(device.query_remote_gid(peer.gid(), None), Err(DeviceError::Lost)));
        // Of one that is merely gone the others hear when its process lets go of it.
        drop((device, dmb));
        until("the peer was not told", || theirs.interrupt().is_hung_up());
        assert!(!peer.is_lost());
        // The next one finds it as after a reset.
        let again = functions.open(0);
        peer.query_remote_gid(again.gid(), None).unwrap();
    }
}

#[test]
fn commands_that_are_refused_over_the_socket() {
    let functions = Functions::new(2);
    let [device, peer] = [0, 1].map(|number| functions.open(number));
    functions.fabric.inject(0, Fault::Answer { command: 0x0a, code: 0x77 });
    let refused = device.register_dmb(peer.gid(), LEN, None);
    assert!(matches!(refused, Err(DeviceError::Refused { command: 0x0a, code: 0x77 })), "{refused:?}");
    let dmb = device.register_dmb(peer.gid(), LEN, None).unwrap();
    let token = dmb.token();
    let over = peer.move_data(token, 0, true, LEN, &[1]);
    assert!(matches!(over, Err(DeviceError::StoreRefused { .. })), "{over:?}");
    peer.move_data(token, 0, true, LEN - 1, &[1]).unwrap();
    assert!(!device.is_lost() && !peer.is_lost());
}

#[test]
fn a_server_that_is_killed() {
    if role().is_some() {
        return;
    }
    let mut server = Server::new();
    let [device, peer] = [0, 1].map(|number| server.open(number));
    let dmb = device.register_dmb(peer.gid(), LEN, None).unwrap();
    server.child.kill().unwrap();
    until("nobody was told", || dmb.interrupt().is_hung_up());
    assert!(device.is_lost());
    assert!(matches!(peer.move_data(dmb.token(), 0, true, 0, &[1]), Err(DeviceError::Lost)));
}

#[test]
fn a_server_that_does_not_answer_any_more() {
    if role().is_some() {
        return;
    }
    let server = Server::new();
    let [device, peer] = [0, 1].map(|number| server.open(number));
    let dmb = device.register_dmb(peer.gid(), LEN, None).unwrap();
    kill_process(Pid::from_child(&server.child), Signal::STOP).unwrap();
    let before = Instant::now();
    assert!(matches!(device.query_remote_gid(peer.gid(), None), Err(DeviceError::Lost)));
    assert!(before.elapsed() < Duration::from_secs(10), "{:?}", before.elapsed());
    until("nobody was told", || dmb.interrupt().is_hung_up());
    // And nothing is asked again.
    let before = Instant::now();
    drop((dmb, device));
    assert!(before.elapsed() < Duration::from_secs(1));
}

#[test]
fn a_client_that_is_gone() {
    let functions = Functions::new(2);
    let [device, peer] = [0, 1].map(|number| functions.open(number));
    let dmb = device.register_dmb(peer.gid(), LEN, None).unwrap();
    let before = Instant::now();
    let second = Ism::connect(functions.socket(1));
    assert!(second.is_err(), "somebody has it");
    assert!(before.elapsed() < Duration::from_secs(10));
    drop(peer);
    until("the owner was not told", || dmb.interrupt().is_hung_up());
    // The second has left too.
    functions.open(1);
}

/// Connects to a server that sends this to whoever comes, whatever it is told.
fn connect_to(says: Vec<u8>) -> IsmError {
    let sockets = Sockets::new();
    let listener = UnixListener::bind(sockets.of(0)).unwrap();
    let server = thread::spawn(move || {
        let (mut client, _) = listener.accept().unwrap();
        let _ = client.write_all(&says);
        let _ = client.shutdown(std::net::Shutdown::Write);
        let _ = client.read_to_end(&mut Vec::new());
    });
    let error = Ism::connect(sockets.of(0)).unwrap_err();
    server.join().unwrap();
    error
}

/// Each byte comes within the time that a server may take.
#[test]
fn a_server_that_dribbles() {
    let sockets = Sockets::new();
    let listener = UnixListener::bind(sockets.of(0)).unwrap();
    let server = thread::spawn(move || {
        let (mut client, _) = listener.accept().unwrap();
        let version = [answer(20, 1, 0), vec![0, 0, 1, 0]].concat();
        for byte in version {
            thread::sleep(Duration::from_millis(500));
            if client.write_all(&[byte]).is_err() {
                return;
            }
        }
    });
    let before = Instant::now();
    let error = Ism::connect(sockets.of(0)).unwrap_err();
    let took = before.elapsed();
    assert!(matches!(&error, IsmError::Io(error) if error.kind() == ErrorKind::TimedOut), "{error:?}");
    assert!(Duration::from_secs(4) < took && took < Duration::from_secs(8), "{took:?}");
    server.join().unwrap();
}

/// A server, told to whom, with a function that says it has written only a part of what it was given.
#[test]
fn a_server_that_writes_less() {
    let functions = Functions::new(1);
    let sockets = Sockets::new();
    let listener = UnixListener::bind(sockets.of(0)).unwrap();
    let real = functions.socket(0);
    let server = thread::spawn(move || {
        let (client, _) = listener.accept().unwrap();
        let server = UnixStream::connect(real).unwrap();
        relay_short_writes(client, server);
    });
    let error = Ism::connect(sockets.of(0)).unwrap_err();
    assert!(matches!(&error, IsmError::Io(error) if error.kind() == ErrorKind::InvalidData), "{error:?}");
    server.join().unwrap();
}

/// Sends on what both sides say, until one has said enough; but of each write one byte less has been written.
fn relay_short_writes(mut client: UnixStream, mut server: UnixStream) {
    while let Some(command) = read_message(&mut client) {
        server.write_all(&command).unwrap();
        let Some(mut answer) = read_message(&mut server) else { return };
        const WRITE: u8 = 10;
        if command[2] == WRITE {
            answer[28] -= 1;
        }
        client.write_all(&answer).unwrap();
    }
}

/// A message of vfio-user.
fn read_message(from: &mut UnixStream) -> Option<Vec<u8>> {
    let mut message = vec![0; 16];
    from.read_exact(&mut message).ok()?;
    let len = u32::from_ne_bytes([message[4], message[5], message[6], message[7]]) as usize;
    message.resize(len, 0);
    from.read_exact(&mut message[16..]).ok()?;
    Some(message)
}

/// The head of an answer to the first command.
fn answer(len: u32, flags: u32, error: u32) -> Vec<u8> {
    let mut bytes = [1u16, 1].map(u16::to_ne_bytes).concat();
    [len, flags, error].into_iter().for_each(|word| bytes.extend(word.to_ne_bytes()));
    bytes
}

#[test]
fn servers_of_something_else() {
    let nobody = Ism::connect("/nonexistent/socket");
    assert!(matches!(nobody, Err(IsmError::Connect(_))), "{nobody:?}");
    for says in [
        Vec::new(),
        b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec(),
        answer(8, 1, 0),
        answer(u32::MAX, 1, 0),
        answer(20, 0, 0),
        answer(100, 1, 0),
    ] {
        let error = connect_to(says.clone());
        assert!(matches!(error, IsmError::Io(_)), "{says:?}: {error:?}");
    }
    assert!(
        matches!(connect_to(answer(16, 0x21, 22)), IsmError::Io(error) if error.raw_os_error() == Some(22))
    );
    assert!(matches!(connect_to(answer(16, 1, 0)), IsmError::Server(_)), "no version");
    let version_9 = [answer(20, 1, 0), vec![9, 9, 0, 0]].concat();
    assert!(matches!(connect_to(version_9), IsmError::Server(_)));
}

/// Sends this, with a descriptor, and waits for an answer or the end; what the error is.
fn tell(socket: &mut UnixStream, code: u16, body: &[u8], fd: Option<&dyn AsFd>) -> Option<u32> {
    let mut message = [7u16, code].map(u16::to_ne_bytes).concat();
    [16 + body.len() as u32, 0, 0].into_iter().for_each(|word| message.extend(word.to_ne_bytes()));
    message.extend(body);
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    let fds = fd.map(|fd| [fd.as_fd()]);
    fds.as_ref().map(|fds| ancillary.push(SendAncillaryMessage::ScmRights(fds)));
    let iov = [std::io::IoSlice::new(&message)];
    sendmsg(&*socket, &iov, &mut ancillary, SendFlags::NOSIGNAL).unwrap();
    let mut head = [0; 16];
    socket.read_exact(&mut head).ok()?;
    Some(u32::from_ne_bytes([head[8], head[9], head[10], head[11]]) & 0x20)
}

#[test]
fn clients_that_break_the_rules_lose_only_their_connection() {
    let functions = Functions::new(1);
    let map = |len: u64| {
        let mut body = [32u32, 3].map(u32::to_ne_bytes).concat();
        [0, 1 << 32, len].into_iter().for_each(|word| body.extend(u64::to_ne_bytes(word)));
        body
    };
    // Memory that could be cut away.
    let unsealed = memfd_create("test", MemfdFlags::ALLOW_SEALING).unwrap();
    ftruncate(&unsealed, 4096).unwrap();
    let mut socket = UnixStream::connect(functions.socket(0)).unwrap();
    assert_eq!(tell(&mut socket, 2, &map(4096), Some(&unsealed)), Some(0x20));
    assert_eq!(
        tell(&mut socket, 2, &map(4096), Some(&std::fs::File::open("/dev/null").unwrap())),
        Some(0x20)
    );
    assert_eq!(tell(&mut socket, 2, &map(4096), None), Some(0x20), "no memory at all");
    drop(socket);
    // A version without an end, at which the crate panics.
    let mut socket = UnixStream::connect(functions.socket(0)).unwrap();
    assert_eq!(tell(&mut socket, 1, &[0, 0, 1, 0, b'{'], None), None);
    drop(socket);
    let device = functions.open(0);
    device.query_remote_gid(device.gid(), None).unwrap();
}

/// A process that knows of a function, and of the network, by its settings alone.
#[test]
fn settings_of_the_environment() {
    let Some(addr) = role() else { return };
    block_on(async {
        let config = SmcConfig::from_env().unwrap().handshake(Handshake::InBand);
        let mut stream = SmcStream::connect_with(addr, &config).await.unwrap();
        let Transport::Smcd { chid, .. } = stream.transport() else { panic!("{}", stream.transport()) };
        assert_eq!(chid, Chid(0x07c0));
        stream.write_all(&pattern(1, 300_000)).await.unwrap();
        stream.shutdown().await.unwrap();
        let mut got = Vec::new();
        stream.read_to_end(&mut got).await.unwrap();
        assert!(got == pattern(2, 300_000));
    });
}

#[test]
fn streams_between_processes_that_have_functions_of_a_third() {
    if role().is_some() {
        return;
    }
    let server = Server::new();
    for version in [1, 2] {
        block_on(async {
            let config = over_ism(server.open(0), version);
            let listener = SmcListener::bind_with("127.0.0.1:0", config).await.unwrap();
            let (addr, relaying) = relay(listener.local_addr().unwrap()).await;
            let child = spawn_with("settings_of_the_environment", &addr.to_string(), |child| {
                child.env("SMCD_ISM", server.sockets.of(1)).env("SMCD_PNETIDS", "lo=net1");
            });
            let (stream, _) = in_time(listener.accept()).await.unwrap();
            assert!(stream.transport().is_smcd(), "{}", stream.transport());
            assert_eq!(speak_v2(&relaying.await.unwrap()), [version == 2; 2]);
            let (mut read, mut write) = stream.into_split();
            let send = async {
                write.write_all(&pattern(2, 300_000)).await.unwrap();
                write.shutdown().await.unwrap();
            };
            let mut got = Vec::new();
            let (_, received) = in_time(async { tokio::join!(send, read.read_to_end(&mut got)) }).await;
            assert!(received.unwrap() == 300_000 && got == pattern(1, 300_000));
            assert!(child.wait_with_output().unwrap().status.success());
        });
    }
}
