//! The server with real clients, and with others.

mod qemu;

use std::{
    fs,
    io::{Read, Write},
    os::unix::net::{UnixListener, UnixStream},
    path::PathBuf,
    sync::atomic::{AtomicU32, Ordering},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use rustix::fs::{SealFlags, fcntl_get_seals, fstat};

use super::*;
use crate::dibs::region::{
    attachment::Attachment,
    ivshmem::{
        ConnectError,
        client::{IvshmemClient, Woken},
        connections,
    },
};

const SOON: Duration = Duration::from_secs(10);

/// A path of its own for each socket.
fn path() -> PathBuf {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    std::env::temp_dir().join(format!("smcd-fabric-{}-{number}", std::process::id()))
}

fn settings(slots: usize) -> FabricSettings {
    FabricSettings { bytes: 2 << 20, slots, entries: 16, ..FabricSettings::default() }
}

/// A server at work.
struct Running {
    path: PathBuf,
    stop: FabricStop,
    thread: Option<JoinHandle<()>>,
    memory: Memory,
}

impl Running {
    fn new(slots: usize) -> Self {
        let path = path();
        let mut server = FabricServer::bind(&path, &settings(slots)).unwrap();
        let stop = server.stop_handle();
        let memory = Memory::map(&*server.file, server.memory.len()).unwrap();
        let thread = thread::spawn(move || server.run().unwrap());
        Self { path, stop, thread: Some(thread), memory }
    }

    fn client(&self) -> IvshmemClient {
        IvshmemClient::connect(&self.path).unwrap()
    }

    fn stop(&mut self) {
        self.stop.stop();
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }

    /// Waits until as many clients are connected as are said to be.
    fn wait_for(&self, count: usize) {
        eventually(|| {
            (0..64).filter(|slot| connections::look(&self.memory, *slot).is_some()).count() == count
        });
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop();
    }
}

fn eventually(mut is_so: impl FnMut() -> bool) {
    let until = Instant::now() + SOON;
    while !is_so() {
        assert!(Instant::now() < until, "does not happen");
        thread::sleep(Duration::from_millis(2));
    }
}

/// Lets the client take in what there is until this holds.
fn served(client: &IvshmemClient, mut is_so: impl FnMut() -> bool) {
    eventually(|| {
        client.wait_for(Duration::from_millis(5));
        is_so()
    });
}

/// Takes in all that there is now.
fn settle(client: &IvshmemClient) {
    while client.wait_for(Duration::from_millis(100)) != Woken::TimedOut {}
}

/// True once the other end has closed the connection.
fn is_closed(stream: &mut UnixStream) -> bool {
    stream.set_read_timeout(Some(SOON)).unwrap();
    let mut bytes = [0; 64];
    loop {
        match stream.read(&mut bytes) {
            Ok(0) => return true,
            Ok(_) => {}
            Err(error) => return error.kind() == io::ErrorKind::ConnectionReset,
        }
    }
}

#[test]
fn clients_share_memory_and_ring_each_other() {
    let server = Running::new(8);
    let clients: Vec<_> = (0..3).map(|_| server.client()).collect();
    assert_eq!(clients.iter().map(Attachment::slot).collect::<Vec<_>>(), [0, 1, 2]);
    for client in &clients {
        settle(client);
    }
    for (from, to) in [(0, 2), (2, 0), (1, 2), (1, 0), (2, 1)] {
        clients[from].memory().store(65536, 7 + from as u64).unwrap();
        clients[from].ring(to);
        assert_eq!(clients[to].wait_for(SOON), Woken::Rung);
        assert_eq!(clients[to].memory().load(65536).unwrap(), 7 + from as u64);
        assert_eq!(clients[to].wait_for(Duration::ZERO), Woken::TimedOut);
    }
    for client in &clients {
        assert!((0..3).all(|slot| client.connection(slot).is_some()));
        assert!((3..65).all(|slot| client.connection(slot).is_none()));
        client.ring(7);
        client.ring(1000);
    }
}

#[test]
fn who_is_in_the_region_can_be_read_there() {
    let server = Running::new(8);
    let [first, second] = [server.client(), server.client()];
    settle(&first);
    let was = first.connection(1).unwrap();
    drop(second);
    assert_eq!(first.wait_for(SOON), Woken::Rung);
    served(&first, || first.connection(1).is_none());
    let again = server.client();
    assert_eq!(again.slot(), 1);
    served(&first, || first.connection(1).is_some_and(|now| now != was));
    settle(&first);
    first.ring(1);
    served(&again, || true);
    settle(&again);
    first.ring(1);
    assert_eq!(again.wait_for(SOON), Woken::Rung);
}

#[test]
fn a_wait_is_ended_from_elsewhere() {
    let server = Running::new(2);
    let client = server.client();
    settle(&client);
    client.wake();
    assert_eq!(client.wait_for(SOON), Woken::Called);
    assert_eq!(client.wait_for(Duration::from_millis(1)), Woken::TimedOut);
    thread::scope(|scope| {
        scope.spawn(|| {
            thread::sleep(Duration::from_millis(20));
            client.wake();
        });
        assert_eq!(client.wait_for(SOON), Woken::Called);
    });
}

#[test]
fn no_more_clients_than_slots() {
    let server = Running::new(3);
    let clients: Vec<_> = (0..3).map(|_| server.client()).collect();
    for _ in 0..10 {
        assert!(matches!(IvshmemClient::connect(&server.path), Err(ConnectError::Refused)));
    }
    drop(clients);
    server.wait_for(0);
    assert_eq!(server.client().slot(), 0);
}

#[test]
fn the_memory_keeps_its_size() {
    let server = FabricServer::bind(path(), &settings(2)).unwrap();
    let seals = fcntl_get_seals(&*server.file).unwrap();
    assert!(seals.contains(SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL));
    assert_eq!(fstat(&*server.file).unwrap().st_size, 2 << 20);
    assert_eq!(&server.memory.load(0).unwrap().to_le_bytes(), b"smcdreg1");
}

#[test]
fn a_client_that_says_anything_is_sent_away() {
    let server = Running::new(4);
    let bystander = server.client();
    for words in [&[0u8][..], &[0xff; 8], &[7; 100_000]] {
        let mut stranger = UnixStream::connect(&server.path).unwrap();
        let _ = stranger.write_all(words);
        assert!(is_closed(&mut stranger));
    }
    server.wait_for(1);
    assert!(bystander.connection(0).is_some());
    assert_eq!(server.client().slot(), 1);
}

/// QEMU (7.2) uses memory that it has freed when an id that it was told is gone comes back.
#[test]
fn nobody_is_told_who_comes_and_goes() {
    const SLOTS: usize = 4;
    let server = Running::new(SLOTS);
    let mut client = UnixStream::connect(&server.path).unwrap();
    client.set_read_timeout(Some(SOON)).unwrap();
    // The version, its own number, the memory, and the doorbells of all slots.
    let mut said = [0; size_of::<i64>()];
    for _ in 0..3 + SLOTS * settings(SLOTS).vectors {
        client.read_exact(&mut said).unwrap();
    }
    for _ in 0..3 {
        server.wait_for(1);
        let other = server.client();
        server.wait_for(2);
        drop(other);
    }
    server.wait_for(1);
    client.set_nonblocking(true).unwrap();
    assert_eq!(client.read(&mut said).unwrap_err().kind(), io::ErrorKind::WouldBlock);
}

#[test]
fn a_client_that_does_not_read_is_sent_away_and_holds_nobody_up() {
    let server = Running::new(16);
    let bystander = server.client();
    let mut strangers: Vec<_> = (0..6).map(|_| UnixStream::connect(&server.path).unwrap()).collect();
    server.wait_for(7);
    let began = Instant::now();
    for _ in 0..20 {
        let client = server.client();
        served(&bystander, || bystander.connection(client.slot()).is_some());
    }
    assert!(began.elapsed() < SOON);
    server.wait_for(1);
    assert!(strangers.iter_mut().all(is_closed));
}

#[test]
fn clients_that_read_may_stay_and_say_nothing() {
    let server = Running::new(4);
    let client = server.client();
    thread::sleep(Duration::from_millis(900));
    let _other = server.client();
    served(&client, || client.connection(1).is_some());
    assert!(client.connection(0).is_some());
}

#[test]
fn a_client_that_stops_reading_later_keeps_its_slot() {
    let server = Running::new(4);
    let client = server.client();
    // It could still write to the memory.
    for _ in 0..200 {
        drop(server.client());
    }
    thread::sleep(Duration::from_millis(900));
    settle(&client);
    assert!(client.connection(0).is_some());
    let other = server.client();
    settle(&client);
    settle(&other);
    client.ring(1);
    assert_eq!(other.wait_for(SOON), Woken::Rung);
}

#[test]
fn many_connections_at_once() {
    let server = Running::new(64);
    let bystander = server.client();
    for _ in 0..5 {
        let flood: Vec<_> = (0..150).filter_map(|_| UnixStream::connect(&server.path).ok()).collect();
        drop(flood);
    }
    server.wait_for(1);
    settle(&bystander);
    let rest: Vec<_> = (1..64).map(|_| server.client()).collect();
    for client in &rest {
        settle(client);
    }
    rest[62].ring(1);
    assert_eq!(rest[0].wait_for(SOON), Woken::Rung);
    assert!(matches!(IvshmemClient::connect(&server.path), Err(ConnectError::Refused)));
}

#[test]
fn bells_that_are_full_hold_nobody_up() {
    let server = Running::new(4);
    let [client, other] = [server.client(), server.client()];
    rustix::fs::fcntl_setfl(client.own_bell(), rustix::fs::OFlags::empty()).unwrap();
    settle(&client);
    rustix::io::write(client.own_bell(), &(u64::MAX - 1).to_ne_bytes()).unwrap();
    settle(&other);
    other.ring(0);
    for _ in 0..10 {
        server.client();
    }
    assert_eq!(client.wait_for(SOON), Woken::Rung);
}

#[test]
fn nobody_is_there_without_a_server() {
    let mut server = Running::new(4);
    let [client, other] = [server.client(), server.client()];
    settle(&client);
    server.stop();
    assert!(!server.path.exists());
    served(&client, || client.connection(0).is_none() && client.connection(1).is_none());
    assert_eq!(server.memory.load(4096 + 64).unwrap(), 2 << 32);
    // What was there before still is.
    settle(&other);
    client.ring(1);
    assert_eq!(other.wait_for(SOON), Woken::Rung);
    assert_eq!(other.wait_for(Duration::from_millis(1)), Woken::TimedOut);
}

#[test]
fn sockets_that_nobody_answers_on_are_replaced() {
    let path = path();
    drop(UnixListener::bind(&path).unwrap());
    assert!(path.exists());
    let server = FabricServer::bind(&path, &settings(2)).unwrap();
    assert!(matches!(FabricServer::bind(&path, &settings(2)), Err(FabricError::InUse(_))));
    // Another has its place.
    fs::remove_file(&path).unwrap();
    fs::write(&path, "something else").unwrap();
    drop(server);
    assert!(matches!(FabricServer::bind(&path, &settings(2)), Err(FabricError::NoSocket(_))));
    assert_eq!(fs::read(&path).unwrap(), b"something else");
    fs::remove_file(&path).unwrap();
}

#[test]
fn settings_that_mean_nothing_are_refused() {
    for wrong in [
        FabricSettings { bytes: 3 << 20, ..settings(2) },
        FabricSettings { bytes: 0, ..settings(2) },
        FabricSettings { bytes: 4096, ..settings(2) },
        FabricSettings { slots: 1, ..settings(2) },
        FabricSettings { slots: 65, ..settings(2) },
        FabricSettings { entries: 17, ..settings(2) },
        FabricSettings { vectors: 0, ..settings(2) },
        FabricSettings { vectors: 17, ..settings(2) },
        FabricSettings { fabric: crate::dibs::Chid(0xffff), ..settings(2) },
    ] {
        let path = path();
        assert!(FabricServer::bind(&path, &wrong).is_err(), "{wrong:?}");
        assert!(!path.exists());
    }
}
