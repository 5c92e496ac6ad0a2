//! A client, and servers that are none.

use std::{
    io::IoSlice,
    os::fd::{AsFd, OwnedFd},
};

use rustix::{
    fs::{MemfdFlags, ftruncate, memfd_create},
    net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, bind, listen, sendmsg},
    pipe::pipe,
};

use super::*;
use crate::unix::sized_memory;

/// A message with these descriptors.
type Said = (i64, Vec<OwnedFd>);

fn plain(value: i64) -> Said {
    (value, Vec::new())
}

fn memory() -> Said {
    (-1, vec![sized_memory("smcd-test", 8192).unwrap()])
}

fn bell(id: i64) -> Said {
    (id, vec![Eventfd::new().unwrap().as_fd().try_clone_to_owned().unwrap()])
}

fn say(socket: &UnixStream, (value, fds): Said) {
    let fds: Vec<_> = fds.iter().map(AsFd::as_fd).collect();
    let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(4))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    assert!(fds.is_empty() || control.push(SendAncillaryMessage::ScmRights(&fds)));
    sendmsg(socket, &[IoSlice::new(&value.to_le_bytes())], &mut control, SendFlags::NOSIGNAL).unwrap();
}

/// What a client makes of a server that says this; the server's end too.
fn told(said: Vec<Said>) -> (Result<IvshmemClient, ConnectError>, UnixStream) {
    let (server, client) = UnixStream::pair().unwrap();
    for message in said {
        say(&server, message);
    }
    (IvshmemClient::over(client, Instant::now() + Duration::from_millis(50)), server)
}

fn introduction() -> Vec<Said> {
    vec![plain(0), plain(3), memory(), bell(1), bell(3)]
}

#[test]
fn who_does_not_accept_is_not_waited_for_longer_than_that() {
    let path = std::env::temp_dir().join(format!("smcd-deaf-{}", std::process::id()));
    let deaf = socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None).unwrap();
    bind(&deaf, &SocketAddrUnix::new(&path).unwrap()).unwrap();
    listen(&deaf, 0).unwrap();
    let patience = Duration::from_millis(50);
    let mut queued = Vec::new();
    let error = loop {
        assert!(queued.len() < 10, "all are taken");
        match connected(&path, patience) {
            Ok(socket) => queued.push(socket),
            Err(error) => break error,
        }
    };
    assert!(matches!(error, ConnectError::NoAnswer), "{error}");
    std::fs::remove_file(path).unwrap();
}

#[test]
fn a_client_has_what_it_was_told() {
    let (client, server) = told(introduction());
    let client = client.unwrap();
    assert_eq!((client.slot(), client.memory().len()), (3, 8192));
    assert!(client.is_belled());
    client.ring(1);
    let (value, fds) = bell(2);
    let theirs = Eventfd::of(fds[0].try_clone().unwrap()).unwrap();
    say(&server, (value, fds));
    assert_eq!(client.wait_for(Duration::from_secs(5)), Woken::Rung);
    client.ring(2);
    assert!(theirs.clear());
    say(&server, plain(2));
    assert_eq!(client.wait_for(Duration::from_secs(5)), Woken::Rung);
    client.ring(2);
    assert!(!theirs.clear());
}

#[test]
fn whoever_is_rung_before_its_bell_is_there_is_rung_then() {
    let (client, server) = told(introduction());
    let client = client.unwrap();
    client.ring(2);
    let (value, fds) = bell(2);
    let theirs = Eventfd::of(fds[0].try_clone().unwrap()).unwrap();
    say(&server, (value, fds));
    assert_eq!(client.wait_for(Duration::from_secs(5)), Woken::Rung);
    assert!(theirs.clear());
    for nobody in [64, usize::MAX] {
        client.ring(nobody);
    }
}

#[test]
fn servers_that_stop_half_way_are_not_waited_for() {
    for len in 0..introduction().len() {
        let said: Vec<_> = introduction().into_iter().take(len).collect();
        assert!(matches!(told(said).0, Err(ConnectError::NoAnswer)));
        let (server, client) = UnixStream::pair().unwrap();
        for message in introduction().into_iter().take(len) {
            say(&server, message);
        }
        drop(server);
        let end = IvshmemClient::over(client, Instant::now() + Duration::from_secs(5));
        assert!(matches!(end, Err(ConnectError::Refused)), "{end:?}");
    }
}

#[test]
fn servers_that_say_something_else_are_refused() {
    assert!(matches!(told(vec![plain(1)]).0, Err(ConnectError::Protocol(ProtocolError::Version(1)))));
    let two = (-1, vec![sized_memory("smcd-test", 4096).unwrap(), sized_memory("smcd-test", 4096).unwrap()]);
    let error = told(vec![plain(0), plain(0), two]).0.unwrap_err();
    assert!(matches!(error, ConnectError::Protocol(ProtocolError::Descriptors)));
    let error = told(vec![plain(0), plain(0), plain(-1)]).0.unwrap_err();
    assert!(matches!(error, ConnectError::Protocol(ProtocolError::NoDescriptor(-1))));
}

#[test]
fn memory_that_could_be_cut_short_is_refused() {
    let unsealed = memfd_create("smcd-test", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).unwrap();
    ftruncate(&unsealed, 8192).unwrap();
    for bad in [unsealed, pipe().unwrap().0, sized_memory("smcd-test", 0).unwrap()] {
        let said = vec![plain(0), plain(0), (-1, vec![bad]), bell(0)];
        assert!(matches!(told(said).0, Err(ConnectError::Memory)));
    }
}

#[test]
fn what_is_no_bell_is_refused() {
    let said = vec![plain(0), plain(0), memory(), (0, vec![pipe().unwrap().1])];
    assert!(matches!(told(said).0, Err(ConnectError::Bell)));
}

#[test]
fn a_server_that_begins_to_talk_nonsense_has_gone() {
    for nonsense in [plain(1000), plain(3), (2, vec![pipe().unwrap().1]), plain(i64::MIN)] {
        let (client, server) = told(introduction());
        let client = client.unwrap();
        connections::Connections::new().set(client.memory(), 1, true);
        assert!(client.connection(1).is_some());
        say(&server, nonsense);
        assert_eq!(client.wait_for(Duration::from_secs(5)), Woken::Rung);
        assert!(client.connection(1).is_none());
        // And is not asked again.
        assert_eq!(client.wait_for(Duration::from_millis(1)), Woken::TimedOut);
    }
}
