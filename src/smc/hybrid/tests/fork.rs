//! A real fork: parent and child take turns on one connection, whose other end a third process has.
#![allow(unsafe_code)]

#[cfg(feature = "failpoints")]
use std::io::Read;
use std::{
    io::IoSlice,
    net::{TcpListener, TcpStream},
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use rustix::fs::{MemfdFlags, ftruncate, memfd_create};

use super::{Hybrid, SimRing, byte};
use crate::{
    Promotion, SmcConfig, Stack,
    dibs::{
        Device, DeviceError, Gid, Memory,
        loopback::DmbLimits,
        region::{Geometry, Liveness, REGION_FABRIC, Region},
    },
    smc::{
        connection::Progress,
        established::Established,
        hybrid::snapshot::Snapshot,
        pair::{self, End},
    },
    unix::starting::start,
};

type ForkHybrid = Hybrid<SimRing, TcpStream>;

/// Bytes that go each way.
const TOTAL: u64 = 300_000;

/// Runs this test of this binary in a process of its own, which has no other threads that tests run in.
pub(super) fn alone(name: &str, run: impl FnOnce()) {
    const ROLE: &str = "SMCD_TEST_ROLE";
    if std::env::var_os(ROLE).is_some() {
        return run();
    }
    let name = format!("smc::hybrid::tests::{name}");
    let mut alone = Command::new(std::env::current_exe().unwrap());
    let mut process = start(alone.args(["--exact", &name, "--test-threads=1"]).env(ROLE, "")).unwrap();
    assert!(process.wait().unwrap().success());
}

/// A process that was started here.
struct Child(libc::pid_t);

/// `None` in the child.
fn fork() -> Option<Child> {
    // SAFETY: no other thread of this process is doing anything (see `alone`), so that the child may do what it likes.
    let pid = unsafe { libc::fork() };
    assert!(pid >= 0);
    (pid > 0).then_some(Child(pid))
}

/// All that the child does: it ends well if this returns, badly if it panics.
fn in_child(run: impl FnOnce()) -> ! {
    let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(run));
    // SAFETY: ends the process at once; nothing is left to be done.
    unsafe { libc::_exit(i32::from(result.is_err())) };
}

impl Child {
    fn ends_well(self) {
        assert_eq!(self.status(), 0, "a child has failed");
    }

    /// Is killed, or ends well.
    #[cfg(feature = "failpoints")]
    fn dies(self, is_killed: bool) {
        assert_eq!(self.status(), if is_killed { libc::SIGKILL } else { 0 });
    }

    fn status(self) -> i32 {
        let mut status = 0;
        // SAFETY: the pointer is valid for the time of the call.
        assert_eq!(unsafe { libc::waitpid(self.0, &raw mut status, 0) }, self.0);
        status
    }
}

fn within_time() -> impl Fn() {
    let start = Instant::now();
    move || {
        assert!(start.elapsed() < Duration::from_secs(20), "hangs");
        thread::sleep(Duration::from_micros(20));
    }
}

/// What parent and child share: a lock, who acted last, how far they are, and the snapshot.
struct Shared(Memory);

impl Shared {
    fn new() -> Self {
        let fd = memfd_create("smcd-test", MemfdFlags::CLOEXEC).unwrap();
        ftruncate(&fd, 4096).unwrap();
        Self(Memory::map(&fd, 4096).unwrap())
    }

    fn word(&self, at: usize) -> &AtomicU64 {
        self.0.word64(at * 8).unwrap()
    }

    fn words(&self) -> [u64; Snapshot::WORDS] {
        std::array::from_fn(|at| self.word(8 + at).load(Ordering::Relaxed))
    }

    /// A turn of this process.
    fn turn<T>(&self, me: u64, hybrid: &ForkHybrid, act: impl FnOnce(&AtomicU64, &AtomicU64) -> T) -> T {
        let wait = within_time();
        while self.word(0).compare_exchange(0, me, Ordering::Acquire, Ordering::Relaxed).is_err() {
            wait();
        }
        let last = self.word(1).swap(me, Ordering::Relaxed);
        if last != me && last != 0 {
            hybrid.restore(&Snapshot::from_words(&self.words()).unwrap()).unwrap();
        }
        let result = act(self.word(2), self.word(3));
        for (at, word) in hybrid.snapshot().to_words().into_iter().enumerate() {
            self.word(8 + at).store(word, Ordering::Relaxed);
        }
        self.word(0).store(0, Ordering::Release);
        result
    }
}

/// One step of either: writes something, reads something. True once all has gone both ways.
fn step(hybrid: &ForkHybrid, written: &AtomicU64, read: &AtomicU64, len: u64) -> bool {
    let from = written.load(Ordering::Relaxed);
    let data: Vec<u8> = (from..(from + len).min(TOTAL)).map(|at| byte(0, at as usize)).collect();
    if !data.is_empty()
        && let Progress::Done(n) = hybrid.try_write(&[IoSlice::new(&data)]).unwrap()
    {
        written.fetch_add(n as u64, Ordering::Relaxed);
    }
    let mut buf = [0; 5000];
    if let Progress::Done(n) = hybrid.try_read(&mut &mut buf[..]).unwrap() {
        let at = read.fetch_add(n as u64, Ordering::Relaxed);
        assert!((at..).zip(&buf[..n]).all(|(at, got)| *got == byte(0, at as usize)), "not what was sent");
    }
    written.load(Ordering::Relaxed) == TOTAL && read.load(Ordering::Relaxed) == TOTAL
}

/// The other end: sends back what comes, until the end comes.
fn echo(hybrid: &ForkHybrid) {
    let (wait, mut total) = (within_time(), 0);
    loop {
        let mut buf = [0; 3000];
        match hybrid.try_read(&mut &mut buf[..]).unwrap() {
            Progress::Done(n) => {
                total += n;
                let mut rest = &buf[..n];
                while !rest.is_empty() {
                    match hybrid.try_write(&[IoSlice::new(rest)]).unwrap() {
                        Progress::Done(n) => rest = &rest[n..],
                        _ => wait(),
                    }
                }
            }
            Progress::Blocked => wait(),
            Progress::Eof => break,
        }
    }
    assert_eq!(total as u64, TOTAL);
}

fn tcp_pair() -> [TcpStream; 2] {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    [client, listener.accept().unwrap().0]
}

/// The two ends of a connection that both have agreed on.
fn ends(stacks: &[Arc<Stack>; 2]) -> [ForkHybrid; 2] {
    let tcp = tcp_pair();
    let gids = [1, 0].map(|other: usize| stacks[other].devices()[0].gid());
    let mut ends =
        tcp.into_iter().zip(pair::connect(stacks, [16 * 1024; 2])).zip(gids).map(|((tcp, end), peer)| {
            let config = Arc::new(SmcConfig::new().promotion(Promotion::Off).stack(end.stack.clone()));
            let hybrid = ForkHybrid::new(Arc::new(tcp), (), config);
            let End { stack, group, connection } = end;
            hybrid.agree(Established::new(connection, group, stack, peer));
            hybrid
        });
    [ends.next().unwrap(), ends.next().unwrap()]
}

/// Parent and child take turns until everything is there; the other end is in a third process. Whoever is not the last
/// abandons the connection.
fn take_turns(child_is_last: bool) {
    let stacks = pair::stacks();
    let of_parent = Stack::shared().devices()[0].gid();
    let [ours, theirs] = ends(&stacks);
    let Some(peer) = fork() else {
        in_child(|| {
            ours.abandon();
            drop((ours, stacks));
            echo(&theirs);
            drop(theirs);
        })
    };
    theirs.abandon();
    drop(theirs);
    let shared = Shared::new();
    let held = ours.hold();
    let child = fork();
    drop(held);
    let Some(child) = child else {
        in_child(|| {
            inherits_nothing_for_new_connections(&stacks[0], of_parent);
            drop(stacks);
            go_on(2, ours, &shared, 700, child_is_last);
        })
    };
    go_on(1, ours, &shared, 1100, !child_is_last);
    child.ends_well();
    peer.ends_well();
    let stranger = Stack::with_loopback(DmbLimits::default()).unwrap();
    let reached = stranger.devices()[0].query_remote_gid(stacks[0].devices()[0].gid(), None);
    assert!(reached.is_ok(), "the children have spoilt our device: {reached:?}");
}

fn go_on(me: u64, ours: ForkHybrid, shared: &Shared, len: u64, is_last: bool) {
    let wait = within_time();
    while !shared.turn(me, &ours, |written, read| step(&ours, written, read, len)) {
        wait();
    }
    if is_last {
        while shared.word(4).load(Ordering::Acquire) == 0 {
            wait();
        }
        shared.turn(me, &ours, |_, _| assert!(ours.reads_ring() && ours.writes_ring()));
    } else {
        ours.abandon();
    }
    drop(ours);
    shared.word(4).fetch_add(1, Ordering::Release);
}

fn inherits_nothing_for_new_connections(stack: &Stack, of_parent: Gid) {
    assert!(stack.is_inherited());
    let device = &stack.devices()[0];
    let registered = device.register_handover(of_parent, 0, 16 * 1024);
    assert!(matches!(registered, Err(DeviceError::Inherited)));
    let own = Stack::shared();
    assert!(!own.is_inherited() && own.devices()[0].gid() != of_parent);
    assert!(Arc::ptr_eq(&own, &Stack::shared()));
}

/// A child has no part in the DMBs of a region that its parent has mapped, and does not unmap them.
#[test]
fn a_child_lets_go_of_nothing_in_a_region() {
    alone("fork::a_child_lets_go_of_nothing_in_a_region", || {
        let path = std::env::temp_dir().join(format!("smcd-fork-{}", std::process::id()));
        let geometry = Geometry::new(1 << 20, 2, 16, REGION_FABRIC, Liveness::Locks).unwrap();
        Region::create(&path, &geometry).unwrap();
        let [owner, user] = [(); 2].map(|()| Region::open(&path).unwrap());
        let all = owner.memory_left(user.gid(), None);
        let dmb = owner.register_dmb(user.gid(), 65536, None).unwrap();
        let remote = user.attach_dmb(owner.gid(), dmb.token(), 65536).unwrap();
        let Some(child) = fork() else { in_child(move || drop((remote, dmb, user, owner))) };
        child.ends_well();
        thread::sleep(Duration::from_millis(100));
        assert!(!dmb.interrupt().is_hung_up() && !remote.doorbell().is_hung_up());
        drop(dmb);
        assert_eq!(owner.memory_left(user.gid(), None), all - 65536);
        drop(remote);
        let wait = within_time();
        while owner.memory_left(user.gid(), None) < all {
            wait();
        }
        std::fs::remove_file(path).unwrap();
    });
}

#[test]
fn the_child_goes_on() {
    alone("fork::the_child_goes_on", || take_turns(true));
}

#[test]
fn the_parent_goes_on() {
    alone("fork::the_parent_goes_on", || take_turns(false));
}

/// A message each way.
fn exchange(ends: &[ForkHybrid; 2]) {
    for (from, to) in [(0, 1), (1, 0)] {
        let wait = within_time();
        while ends[from].try_write(&[IoSlice::new(b"x")]).unwrap() == Progress::Blocked {
            wait();
        }
        while ends[to].try_read(&mut &mut [0; 9][..]).unwrap() == Progress::Blocked {
            wait();
        }
    }
}

/// Whatever stage the handshake is at, it is made after the fork; unless only the other end takes it for finished.
#[test]
fn a_handshake_that_was_broken_off_begins_anew() {
    let stacks = pair::stacks();
    let mut begun = 0;
    for before in 0..8 {
        for side in [0, 1] {
            let mut stacks = stacks.iter();
            let ends = tcp_pair().map(|tcp| {
                let config =
                    SmcConfig::new().promotion(Promotion::Eager).stack(stacks.next().unwrap().clone());
                ForkHybrid::new(Arc::new(tcp), (), Arc::new(config))
            });
            // Half a round shows the stages between.
            (0..before / 2).for_each(|_| exchange(&ends));
            if before % 2 == 1 {
                let _ = ends[side].try_write(&[IoSlice::new(b"y")]).unwrap();
            }
            begun += usize::from(ends[side].negotiation.try_lock().unwrap().is_some());
            drop(ends[side].hold());
            assert!(ends[side].negotiation.try_lock().unwrap().is_none());
            if ends[side].ring().is_none() && ends[1 - side].ring().is_some() {
                continue;
            }
            (0..100).for_each(|_| exchange(&ends));
            let promoted = ends.iter().all(|end| end.reads_ring() && end.writes_ring());
            assert!(promoted, "not after {before} of side {side}");
        }
    }
    assert!(begun > 3);
}

/// This process is killed when it comes to this point.
#[cfg(feature = "failpoints")]
fn be_killed_at(point: &str) {
    use rustix::process::{Signal, getpid, kill_process};

    fail::cfg_callback(point, || kill_process(getpid(), Signal::KILL).unwrap()).unwrap();
}

/// So many ones were written before the point at which a process was killed, and, if it was not, 1000 twos after it.
#[cfg(feature = "failpoints")]
fn check_got(point: &str, got: &[u8], before: usize) {
    let all = [vec![1; before], vec![2; if point == "none" { 1000 } else { 0 }]].concat();
    assert!(got == all, "{point}: {} bytes", got.len());
}

/// A process is killed while it gives its connection back. The other reads all that it wrote, and then the end.
#[cfg(feature = "failpoints")]
#[test]
fn one_may_die_on_the_way_back() {
    alone("fork::one_may_die_on_the_way_back", || {
        for point in ["leaving-said", "ring-left", "back-said", "none"] {
            let stacks = pair::stacks();
            let ends = ends(&stacks);
            (0..5).for_each(|_| exchange(&ends));
            assert!(ends.iter().all(|end| end.reads_ring() && end.writes_ring()));
            let [ours, theirs] = ends;
            // On the way to the one that dies.
            theirs.try_write(&[IoSlice::new(&[0; 100])]).unwrap();
            let Some(child) = fork() else {
                in_child(|| {
                    theirs.abandon();
                    drop(theirs);
                    ours.try_write(&[IoSlice::new(&[1; 1000])]).unwrap();
                    be_killed_at(point);
                    assert_eq!(super::demote(&ours), [0; 100]);
                    assert_eq!(point, "none", "does not come by");
                    ours.try_write(&[IoSlice::new(&[2; 1000])]).unwrap();
                })
            };
            ours.abandon();
            drop(ours);
            child.dies(point != "none");
            let mut got = Vec::new();
            while matches!(theirs.try_read(&mut got), Ok(Progress::Done(n)) if n > 0) {}
            check_got(point, &got, 1000);
            assert_eq!(theirs.try_read(&mut got).unwrap(), Progress::Eof, "{point}");
        }
    });
}

/// As before, but it is the other end that is killed, while it takes back what was not read.
#[cfg(feature = "failpoints")]
#[test]
fn one_may_die_as_it_takes_back_what_was_not_read() {
    alone("fork::one_may_die_as_it_takes_back_what_was_not_read", || {
        for point in ["return-taken", "return-sent", "return-said", "back-said", "none"] {
            let stacks = pair::stacks();
            let ends = ends(&stacks);
            (0..5).for_each(|_| exchange(&ends));
            let [ours, theirs] = ends;
            let Some(child) = fork() else {
                in_child(|| {
                    ours.abandon();
                    drop(ours);
                    theirs.try_write(&[IoSlice::new(&[1; 10_000])]).unwrap();
                    be_killed_at(point);
                    let wait = within_time();
                    while theirs.writes_ring() {
                        assert!(!theirs.is_readable());
                        wait();
                    }
                    assert_eq!(point, "none", "does not come by");
                    theirs.try_write(&[IoSlice::new(&[2; 1000])]).unwrap();
                })
            };
            theirs.abandon();
            drop(theirs);
            let (wait, mut got) = (within_time(), vec![0; 10]);
            while ours.unread() < 10_000 {
                wait();
            }
            ours.try_read(&mut &mut got[..]).unwrap();
            let result = ours.demote(0, Duration::from_secs(10));
            let is_whole = result.is_ok();
            assert_eq!(
                is_whole,
                ["return-said", "back-said", "none"].contains(&point),
                "{point}: {result:?}"
            );
            child.dies(point != "none");
            while matches!(ours.try_read(&mut got), Ok(Progress::Done(n)) if n > 0) {}
            check_got(point, &got, 10_000);
            assert_eq!(ours.try_read(&mut got).unwrap(), Progress::Eof, "{point}");
        }
    });
}

/// Who asks for what it has not read is killed, while the other end takes it back. That one reads all that it wrote.
#[cfg(feature = "failpoints")]
#[test]
fn one_may_die_as_it_asks_for_what_it_has_not_read() {
    alone("fork::one_may_die_as_it_asks_for_what_it_has_not_read", || {
        for point in ["leaving-wanted", "leaving-said", "ring-left", "back-said", "none"] {
            let stacks = pair::stacks();
            let ends = ends(&stacks);
            (0..5).for_each(|_| exchange(&ends));
            let [ours, theirs] = ends;
            theirs.try_write(&[IoSlice::new(&[0; 100])]).unwrap();
            let Some(child) = fork() else {
                in_child(|| {
                    theirs.abandon();
                    drop(theirs);
                    ours.try_write(&[IoSlice::new(&[1; 1000])]).unwrap();
                    be_killed_at(point);
                    ours.demote(0, Duration::from_secs(10)).unwrap();
                    assert_eq!(point, "none", "does not come by");
                    let mut got = [9; 100];
                    (&*ours.tcp).read_exact(&mut got).unwrap();
                    assert_eq!(got, [0; 100]);
                    ours.try_write(&[IoSlice::new(&[2; 1000])]).unwrap();
                })
            };
            ours.abandon();
            drop(ours);
            let (wait, mut got) = (within_time(), Vec::new());
            let end = loop {
                match theirs.try_read(&mut got) {
                    Ok(Progress::Done(_)) => {}
                    Ok(Progress::Blocked) => wait(),
                    end => break end,
                }
            };
            child.dies(point != "none");
            check_got(point, &got, 1000);
            // What TCP has brought and nobody has read makes it a reset.
            let is_reset = matches!(&end, Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset);
            assert!(is_reset || matches!(end, Ok(Progress::Eof)), "{point}: {end:?}");
        }
    });
}
