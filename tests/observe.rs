//! What processes tell of their connections, and that it goes when they go.

#[path = "common/process.rs"]
mod process;

use std::{
    io::{Read, Write},
    net::SocketAddr,
    process::{Child, Command, Stdio},
    time::Duration,
};

use process::{ROLE, role, spawn};
use smcd::{
    Promotion, SmcConfig,
    blocking::{SmcListener, SmcStream},
    observe::{self, Collector, Mode, Process, Snapshot, State},
};
use socket2::{Domain, Socket, Type};

const MESSAGES: u64 = 100;

/// A connected pair with these settings.
fn pair(config: &SmcConfig) -> (SmcStream, SmcStream) {
    let listener = SmcListener::bind_with("127.0.0.1:0", config.clone()).unwrap();
    let client = SmcStream::connect_with(listener.local_addr().unwrap(), config).unwrap();
    (client, listener.accept().unwrap().0)
}

/// Sends messages of 1000 bytes there and 10 bytes back.
fn talk(client: &mut SmcStream, server: &mut SmcStream) {
    let (mut there, mut back) = ([0; 1000], [0; 10]);
    for _ in 0..MESSAGES {
        client.write_all(&there).unwrap();
        server.read_exact(&mut there).unwrap();
        server.write_all(&back).unwrap();
        client.read_exact(&mut back).unwrap();
    }
}

fn eager() -> SmcConfig {
    SmcConfig::new().promotion(Promotion::Eager)
}

fn snapshot(pid: u32) -> Option<Snapshot> {
    Process::of(pid).map(|process| process.snapshot().unwrap())
}

fn own() -> Snapshot {
    snapshot(std::process::id()).unwrap()
}

fn find(snapshot: &Snapshot, stream: &SmcStream) -> Option<observe::Connection> {
    let (local, peer) = (stream.local_addr().unwrap(), stream.peer_addr().unwrap());
    snapshot.connections.iter().copied().find(|c| (c.local, c.peer) == (local, peer))
}

#[test]
fn a_promoted_connection_is_counted_by_way_and_size() {
    let (mut client, mut server) = pair(&eager());
    talk(&mut client, &mut server);
    let snapshot = own();
    let (there, back) = (find(&snapshot, &client).unwrap(), find(&snapshot, &server).unwrap());
    for end in [&there, &back] {
        assert_eq!((end.state, end.mode, end.eligible), (State::Agreed, Mode::Smcd, Some(true)));
        assert_eq!(end.receive_buffer, (1 << 20) - 32);
    }
    assert_eq!((there.gid, there.receive_buffer), (back.peer_gid, back.send_buffer));
    for (flow, bytes) in [(there.sent, 1000), (back.received, 1000), (back.sent, 10), (there.received, 10)] {
        assert_eq!(flow.bytes(), MESSAGES * bytes, "{flow:?}");
        assert!(flow.ring.bytes > flow.tcp.bytes);
        assert!(flow.calls() >= MESSAGES);
        assert_eq!(flow.sizes.iter().sum::<u64>(), flow.calls());
        assert_eq!(flow.ring.bytes % bytes, 0, "the offset of the switch is not the application's");
    }
    assert_eq!(there.sent.sizes[2], MESSAGES, "each of them between 256 and 1024 bytes");
}

#[test]
fn what_a_connection_counted_is_added_up_when_it_ends() {
    let Some(_) = role() else {
        let mut child = spawn("what_a_connection_counted_is_added_up_when_it_ends", "alone");
        assert!(child.wait().unwrap().success());
        return;
    };
    let (mut client, mut server) = pair(&eager());
    talk(&mut client, &mut server);
    let before = own();
    drop((client, server));
    let after = own();
    assert_eq!((after.totals.seen, after.totals.promoted, after.totals.closed), (2, 2, 2));
    assert_eq!(before.totals.sent.bytes(), MESSAGES * 1010);
    assert_eq!(after.totals.sent, before.totals.sent);
    assert_eq!(after.totals.received, before.totals.received);
    assert_eq!(after.totals.eligible, before.totals.eligible);
    assert_eq!(after.totals.well_suited.sent, after.totals.sent);
    assert!(after.connections.is_empty(), "{:?}", after.connections);
    // One that is over before it is due is counted, and no more than that.
    let (mut client, mut server) = pair(&SmcConfig::new());
    client.write_all(&[0; 5]).unwrap();
    server.read_exact(&mut [0; 5]).unwrap();
    assert!(find(&own(), &client).is_none());
    drop((client, server));
    let short = own().totals;
    assert_eq!((short.seen, short.promoted, short.closed), (4, 2, 4));
    assert_eq!(short.sent.tcp.bytes - after.totals.sent.tcp.bytes, 5);
}

#[test]
fn an_observed_connection_stays_tcp_and_is_known() {
    let config = SmcConfig::new().promotion(Promotion::Off).observe(true);
    let (mut client, mut server) = pair(&config);
    talk(&mut client, &mut server);
    let end = find(&own(), &client).unwrap();
    assert_eq!((end.mode, end.eligible, end.reason.name), (Mode::Tcp, Some(true), "disabled"));
    assert_eq!((end.sent.tcp.bytes, end.sent.sizes[2]), (MESSAGES * 1000, MESSAGES));
    assert_eq!(end.sent.ring.calls, 0);
    assert_eq!(end.bytes_by_kernel(), Some((MESSAGES * 10, MESSAGES * 1000)));
}

#[test]
fn a_reason_is_given_for_a_connection_that_stays_tcp() {
    // To itself: the peer is no other process.
    let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&any.into()).unwrap();
    socket.connect(&socket.local_addr().unwrap()).unwrap();
    let mut stream = SmcStream::from_std_with(socket.into(), &eager());
    stream.write_all(b"x").unwrap();
    let end = find(&own(), &stream).unwrap();
    assert_eq!((end.state, end.reason.name, end.eligible), (State::Staying, "peer-not-local", Some(false)));
}

/// What a child does that is killed: talks, says so, and waits.
#[test]
fn victim() {
    if role().as_deref() != Some("victim") {
        return;
    }
    let (mut client, mut server) = pair(&eager());
    talk(&mut client, &mut server);
    eprintln!("ready");
    std::thread::sleep(Duration::from_secs(60));
}

fn victim_with(variable: &str, value: &str) -> Child {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "victim", "--nocapture", "--test-threads=1"])
        .env(ROLE, "victim")
        .env(variable, value)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut ready = [0; 6];
    child.stderr.as_mut().unwrap().read_exact(&mut ready).unwrap();
    child
}

#[test]
fn nothing_is_left_of_a_process_that_is_killed() {
    let mut child = victim_with("SMCD_NOTHING", "");
    let listed = observe::processes().unwrap();
    let process = listed.iter().find(|process| process.pid() == child.id()).unwrap();
    assert_eq!(process.snapshot().unwrap().connections.len(), 2);
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(Process::of(child.id()).is_none());
    // Who had it open before can still read it.
    assert_eq!(process.snapshot().unwrap().totals.promoted, 2);
}

#[test]
fn a_collector_has_the_counters_of_a_process_that_was_killed() {
    let collector = Collector::new().unwrap();
    let mut child = victim_with(Collector::VARIABLE, collector.name());
    child.kill().unwrap();
    child.wait().unwrap();
    let processes = collector.take_in();
    assert_eq!(processes.len(), 1);
    assert_eq!(processes[0].pid(), child.id());
    let totals = processes[0].snapshot().unwrap().totals;
    assert_eq!((totals.promoted, totals.sent.bytes()), (2, MESSAGES * 1010));
    assert!(collector.take_in().is_empty());
}

#[test]
fn a_child_counts_for_itself() {
    let Some(_) = role() else {
        let mut child = spawn("a_child_counts_for_itself", "alone");
        assert!(child.wait().unwrap().success());
        return;
    };
    let (mut client, mut server) = pair(&eager());
    talk(&mut client, &mut server);
    let before = own();
    // SAFETY: what the child does after it is what this test is about; it ends by `_exit`.
    match unsafe { libc::fork() } {
        0 => {
            observe::after_fork();
            let is_hidden = observe::descriptor().is_none() && Process::of(std::process::id()).is_none();
            let (mut one, mut other) = pair(&SmcConfig::new().promotion(Promotion::Off).observe(true));
            talk(&mut one, &mut other);
            // What it still has of its parent writes into memory of its own.
            drop((client, server));
            let own = own();
            let is_its_own = own.connections.len() == 2 && own.totals.sent.bytes() == MESSAGES * 1010;
            // SAFETY: ends the process at once.
            unsafe { libc::_exit(i32::from(!(is_hidden && is_its_own))) }
        }
        child => {
            let mut status = 0;
            // SAFETY: waits for our own child; the status is ours.
            assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
            assert_eq!(status, 0);
        }
    }
    let after = own();
    assert_eq!(after.totals.sent, before.totals.sent);
    assert_eq!(after.connections.len(), before.connections.len());
}

#[test]
fn messages_are_traced_while_somebody_looks() {
    let (mut client, mut server) = pair(&eager());
    talk(&mut client, &mut server);
    let port = server.local_addr().unwrap().port();
    let process = Process::of(std::process::id()).unwrap();
    let mut tracer = process.trace(Some(port)).unwrap();
    assert!(matches!(process.trace(None), Err(observe::BadRegistry::Traced)));
    assert!(tracer.poll().unwrap().is_empty());
    talk(&mut client, &mut server);
    let events = tracer.poll().unwrap();
    let from = |stream: &SmcStream| {
        let local = stream.local_addr().unwrap();
        events.iter().filter(|event| event.local == local && event.has_prod).count() as u64
    };
    assert_eq!((from(&client), from(&server)), (MESSAGES, MESSAGES));
    assert!(events.iter().all(|event| event.cdc[0] == 0xfe && event.local.port().min(event.peer.port()) > 0));
    drop(tracer);
    talk(&mut client, &mut server);
    let mut again = process.trace(Some(port)).unwrap();
    assert!(again.poll().unwrap().is_empty());
    for _ in 0..200 {
        talk(&mut client, &mut server);
    }
    let events = again.poll().unwrap().len() as u64;
    assert!(again.lost() > 0, "more than there is room for");
    assert!(events + again.lost() >= 200 * 2 * MESSAGES);
}
