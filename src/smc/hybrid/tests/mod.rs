//! Random schedules on two ends whose steps are interleaved one by one, against a queue of bytes. TCP is simulated and
//! delivers at once; the rings are real. Each end may be several processes, which hold the same connection since a fork
//! and take turns.

mod demotion;
mod fork;
mod peers;
mod returning;
mod snapshots;

use std::{
    collections::VecDeque,
    io::{self, IoSlice},
    os::fd::BorrowedFd,
    sync::{Arc, Mutex, OnceLock},
    time::Duration,
};

use bytes::BufMut;
use proptest::prelude::*;

use super::{DemoteError, Hybrid, Ring, Tcp, lock, snapshot::Snapshot};
use crate::{
    Promotion, SmcConfig, Stack, Transport,
    smc::{
        connection::{Connection, Progress},
        established::Established,
        pair::{self, End},
        returning::Stand,
    },
    unix::starting::nobody_starts,
};

/// What fits into a direction of the simulated TCP connection.
const ROOM: usize = 3000;

/// A direction of a TCP connection.
#[derive(Default)]
struct Pipe {
    bytes: VecDeque<u8>,
    sent: u64,
    taken: u64,
    fin: bool,
}

/// A TCP connection: the direction that each side reads from, and whether it was reset.
#[derive(Default)]
struct Wire {
    into: [Pipe; 2],
    reset: [bool; 2],
    resets_on_close: [bool; 2],
}

impl Wire {
    /// The kernel closes one end, as it does for a process that has ended too.
    fn close(&mut self, side: usize) {
        if !self.into[side].bytes.is_empty() || self.resets_on_close[side] {
            self.reset[1 - side] = true;
        }
        self.into[1 - side].fin = true;
    }
}

struct SimTcp {
    wire: Arc<Mutex<Wire>>,
    side: usize,
    /// What others do just before it is asked how much it holds, just after, and just before it is read.
    meanwhile: [Mutex<Option<Meanwhile>>; 3],
}

type Meanwhile = Box<dyn FnOnce() + Send>;

impl SimTcp {
    fn happen(&self, at: usize) {
        let meanwhile = lock(&self.meanwhile[at]).take();
        meanwhile.into_iter().for_each(|meanwhile| meanwhile());
    }

    fn look(&self, dst: &mut impl BufMut, take: bool) -> io::Result<usize> {
        let mut wire = lock(&self.wire);
        let pipe = &mut wire.into[self.side];
        let n = pipe.bytes.len().min(dst.remaining_mut());
        if n == 0 && !pipe.fin {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let bytes: Vec<u8> = pipe.bytes.iter().copied().take(n).collect();
        dst.put_slice(&bytes);
        if take {
            pipe.bytes.drain(..n);
            pipe.taken += n as u64;
        }
        if n == 0 && std::mem::take(&mut wire.reset[self.side]) {
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        Ok(n)
    }
}

impl Tcp for SimTcp {
    fn socket(&self) -> BorrowedFd<'_> {
        unreachable!("a simulated connection is not promoted by itself")
    }

    fn receive(&self, dst: &mut impl BufMut) -> io::Result<usize> {
        self.happen(2);
        self.look(dst, true)
    }

    fn peek(&self, dst: &mut impl BufMut) -> io::Result<usize> {
        self.look(dst, false)
    }

    fn send(&self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        let mut wire = lock(&self.wire);
        if wire.reset[self.side] {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        let pipe = &mut wire.into[1 - self.side];
        let bytes: Vec<u8> = bufs.iter().flat_map(|buf| buf.iter().copied()).collect();
        let n = bytes.len().min(ROOM - pipe.bytes.len());
        if n == 0 && !bytes.is_empty() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        pipe.bytes.extend(&bytes[..n]);
        pipe.sent += n as u64;
        Ok(n)
    }

    fn is_writable(&self) -> bool {
        lock(&self.wire).into[1 - self.side].bytes.len() < ROOM
    }

    fn unread(&self) -> usize {
        self.happen(0);
        let unread = lock(&self.wire).into[self.side].bytes.len();
        self.happen(1);
        unread
    }

    fn taken(&self) -> io::Result<u64> {
        Ok(lock(&self.wire).into[self.side].taken)
    }

    fn given(&self) -> io::Result<u64> {
        Ok(lock(&self.wire).into[1 - self.side].sent)
    }

    fn push(&self) {}

    fn reset_on_close(&self) {
        lock(&self.wire).resets_on_close[self.side] = true;
    }

    fn resets_on_close(&self) -> bool {
        lock(&self.wire).resets_on_close[self.side]
    }
}

/// Rings without anybody who waits at them.
struct SimRing {
    connection: Arc<Connection>,
    established: Established,
}

impl Ring for SimRing {
    type Home = ();

    fn new(established: Established, (): &()) -> io::Result<Self> {
        Ok(Self { connection: established.share().unwrap(), established })
    }

    fn connection(&self) -> &Connection {
        &self.connection
    }

    fn transport(&self) -> Transport {
        self.established.transport(&self.connection)
    }

    fn has_peer_left(&self) -> bool {
        false
    }
}

type SimHybrid = Hybrid<SimRing, SimTcp>;

/// The processes of one end that have the connection. What each knows of it is its own, as after a fork; who is next is
/// told what the last one has left.
struct Processes {
    all: Vec<SimHybrid>,
    last: usize,
    left: [u64; Snapshot::WORDS],
    /// A way to make another.
    end: Arc<End>,
    tcp: Arc<SimTcp>,
    peer: crate::dibs::Gid,
    has_rings: bool,
}

impl Processes {
    fn new(tcp: Arc<SimTcp>, end: End, peer: crate::dibs::Gid) -> Self {
        let (all, left) = (Vec::new(), [0; Snapshot::WORDS]);
        let mut new = Self { all, last: 0, left, end: Arc::new(end), tcp, peer, has_rings: false };
        new.all.push(new.hybrid());
        new.leave();
        new
    }

    fn hybrid(&self) -> SimHybrid {
        let config = SmcConfig::new().promotion(Promotion::Off);
        Hybrid::new(self.tcp.clone(), (), Arc::new(config))
    }

    /// Both ends have agreed; before a fork, since handshakes do not survive it.
    fn agree(&mut self) {
        if self.all.len() == 1 && !self.has_rings {
            self.has_rings = true;
            let established = self.established();
            self.run(0, |hybrid| hybrid.agree(established));
        }
    }

    fn established(&self) -> Established {
        let End { stack, group, connection } = &*self.end;
        Established::new(connection.again(), group.clone(), stack.clone(), self.peer)
    }

    fn fork(&mut self) {
        if self.all.len() < 3 {
            let child = self.hybrid();
            if self.has_rings {
                child.agree(self.established());
            }
            self.all.push(child);
        }
    }

    /// Runs something in one of the processes.
    fn run<T>(&mut self, which: usize, run: impl FnOnce(&SimHybrid) -> T) -> T {
        let which = which % self.all.len();
        if which != self.last {
            let left = Snapshot::from_words(&self.left).unwrap();
            self.all[which].restore(&left).unwrap();
            assert_eq!(self.all[which].snapshot(), left);
        }
        let result = run(&self.all[which]);
        self.last = which;
        self.leave();
        result
    }

    /// The only process.
    fn into_one(mut self) -> SimHybrid {
        assert_eq!(self.all.len(), 1);
        self.all.remove(0)
    }

    fn leave(&mut self) {
        self.left = self.all[self.last].snapshot().to_words();
    }

    /// One of several processes closes its copy.
    fn abandon(&mut self, which: usize) {
        if self.all.len() > 1 {
            let which = which % self.all.len();
            self.all.swap_remove(which).abandon();
            // None has the state now but who is told.
            self.last = usize::MAX;
        }
    }
}

/// All close it; the last one has to know what has become of it.
impl Drop for Processes {
    fn drop(&mut self) {
        while self.all.len() > 1 {
            self.abandon(0);
        }
        if !self.all.is_empty() {
            self.run(0, |_| ());
        }
    }
}

/// A step of one side.
#[derive(Clone, Copy, Debug)]
enum Op {
    /// The process forks: one more has the connection.
    Fork,
    /// One of several processes closes it.
    Abandon,
    Write(usize),
    Read(usize),
    Peek(usize),
    /// This side learns that both have agreed. The other may never.
    Agree,
    Shutdown,
    Close,
    /// The process ends without a word; the kernel closes the socket.
    Kill,
    /// From now on the application wants to write, or read, the socket itself.
    Leave {
        reading: bool,
    },
    /// The connection is given back to TCP, if no more than so many bytes are left in the ring. Meanwhile the other end
    /// does this.
    Demote(usize, Meantime),
    /// Once it was, it need not be known here any more.
    LetGo,
}

/// What one end does while the other waits for it.
#[derive(Clone, Copy, Debug)]
enum Meantime {
    Nothing,
    Look,
    Peek,
    Write(usize),
    Close,
    Kill,
}

/// One side: what it has written and read, and what has become of it.
struct Side {
    processes: Option<Processes>,
    tcp: Arc<SimTcp>,
    /// It was given back to TCP. Once it was let go of, these bytes come before what TCP brings.
    left: Option<VecDeque<u8>>,
    /// Kept, so that nothing of it happens.
    killed: Option<Processes>,
    written: usize,
    read: usize,
    shut: bool,
    gone: bool,
    /// Closed with unread data, so that the other side sees a reset.
    rude: bool,
    /// Has seen the end of what it reads.
    ended: bool,
}

struct Model {
    wire: Arc<Mutex<Wire>>,
    sides: [Side; 2],
}

/// The byte at this place of what a side writes.
fn byte(side: usize, at: usize) -> u8 {
    ((at * 2 + side).wrapping_mul(0x9e37_79b9) >> 23) as u8
}

/// Bytes of the stream in the ring of one that reads there, or will.
fn in_ring<R: Ring, T: Tcp>(hybrid: &Hybrid<R, T>) -> usize {
    let ring = hybrid.ring().filter(|_| hybrid.watches_ring());
    ring.map_or(0, |ring| ring.connection().unread().unwrap() as usize)
}

/// Takes what is to be read before all that comes by TCP from now on.
fn take_left<R: Ring, T: Tcp>(hybrid: &Hybrid<R, T>) -> Vec<u8> {
    let mut left = Vec::new();
    while in_ring(hybrid) > 0 {
        hybrid.try_read(&mut (&mut left).limit(10_000)).unwrap();
    }
    left
}

/// Gives the connection back to TCP, without waiting for the other end, and takes what was left.
fn demote<R: Ring, T: Tcp>(hybrid: &Hybrid<R, T>) -> Vec<u8> {
    let in_ring = hybrid.demote(usize::MAX, Duration::ZERO).unwrap();
    let left = take_left(hybrid);
    assert!(left.len() >= in_ring);
    left
}

/// For one test: what the others leave there is found by whoever is next.
fn stacks() -> &'static [Arc<Stack>; 2] {
    static STACKS: OnceLock<[Arc<Stack>; 2]> = OnceLock::new();
    STACKS.get_or_init(pair::stacks)
}

impl Side {
    fn side(&self) -> usize {
        self.tcp.side
    }

    fn write(&mut self, which: usize, len: usize, peer_gone: bool) {
        if self.shut || self.gone {
            return;
        }
        let data: Vec<u8> = (self.written..self.written + len).map(|at| byte(self.side(), at)).collect();
        let (first, second) = data.split_at(len / 3);
        let bufs = [IoSlice::new(first), IoSlice::new(second)];
        let result = match &mut self.processes {
            Some(processes) => processes.run(which, |hybrid| hybrid.try_write(&bufs)),
            None => attempt(self.tcp.send(&bufs)),
        };
        match result {
            Ok(Progress::Done(n)) => {
                assert!(n <= len && (n > 0 || len == 0));
                self.written += n;
            }
            Ok(Progress::Blocked) => assert!(len > 0),
            Ok(Progress::Eof) => panic!("a write has no end"),
            Err(error) => assert!(peer_gone, "{error}"),
        }
    }

    /// Closes, with something unread or not, as the stream goes.
    fn close(&mut self, which: usize, unread: bool) {
        if self.gone {
            return;
        }
        // Bytes that TCP knows nothing of are no matter of its.
        let in_tcp = !lock(&self.tcp.wire).into[self.side()].bytes.is_empty();
        let in_ring = |all: &mut Processes| all.run(which, |one| in_ring(one) > 0);
        let is_left = self.processes.as_mut().is_some_and(in_ring);
        self.rude = if self.left.is_some() { in_tcp || is_left } else { unread };
        self.processes = None;
        self.gone = true;
        lock(&self.tcp.wire).close(self.side());
    }

    fn kill(&mut self) {
        if !self.gone {
            self.killed = self.processes.take();
            self.gone = true;
            lock(&self.tcp.wire).close(self.side());
        }
    }

    /// Does something while the other end waits.
    fn pass_time(&mut self, which: usize, meantime: Meantime, unread: bool) {
        match meantime {
            Meantime::Write(len) => self.write(which, len, false),
            Meantime::Close => self.close(which, unread),
            Meantime::Kill => self.kill(),
            _ => {}
        }
        let side = self.side();
        let Some(processes) = &mut self.processes else { return };
        let has_looked = processes.run(which, |hybrid| match meantime {
            Meantime::Look => hybrid.is_readable(),
            Meantime::Peek => hybrid.try_peek(&mut &mut [0; 9][..]).is_ok(),
            _ => false,
        });
        // An end that was seen stays one, whatever comes after it.
        self.ended |= has_looked && lock(&self.tcp.wire).into[side].fin;
    }
}

impl Model {
    fn new() -> Self {
        Self::with(stacks())
    }

    fn with(stacks: &[Arc<Stack>; 2]) -> Self {
        let wire = Arc::new(Mutex::new(Wire::default()));
        let gids = [0, 1].map(|i: usize| stacks[i].devices()[0].gid());
        let mut ends = pair::connect(stacks, [16 * 1024; 2]).map(Some);
        let sides = [0, 1].map(|side: usize| {
            let tcp = Arc::new(SimTcp { wire: wire.clone(), side, meanwhile: Default::default() });
            Side {
                processes: ends[side].take().map(|end| Processes::new(tcp.clone(), end, gids[1 - side])),
                tcp,
                left: None,
                killed: None,
                written: 0,
                read: 0,
                shut: false,
                gone: false,
                rude: false,
                ended: false,
            }
        });
        Self { wire, sides }
    }

    fn step(&mut self, (side, which): (usize, usize), op: Op) {
        let unread = self.sides[1 - side].written > self.sides[side].read;
        let this = &mut self.sides[side];
        if this.gone {
            return;
        }
        match op {
            Op::Write(len) => return self.write((side, which), len),
            Op::Read(len) | Op::Peek(len) => {
                self.read((side, which), len, matches!(op, Op::Read(_)));
                return;
            }
            Op::Shutdown => {
                this.processes.iter_mut().for_each(|all| all.run(which, |one| one.shutdown_write().unwrap()));
                this.shut = true;
                lock(&self.wire).into[1 - side].fin = true;
            }
            Op::Close => this.close(which, unread),
            Op::Kill => this.kill(),
            Op::LetGo => {
                if let (Some(left), Some(processes)) = (&mut this.left, &mut this.processes) {
                    left.extend(processes.run(which, take_left));
                    this.processes = None;
                }
            }
            _ => {}
        }
        let Some(processes) = &mut this.processes else { return };
        match op {
            Op::Agree => processes.agree(),
            Op::Fork => processes.fork(),
            Op::Abandon => processes.abandon(which),
            Op::Leave { reading } => {
                _ = processes.run(which, |hybrid| hybrid.leave_to_application(reading, !reading));
            }
            Op::Demote(most, meantime) => self.demote((side, which), most, meantime),
            _ => {}
        }
    }

    fn demote(&mut self, (side, which): (usize, usize), most: usize, meantime: Meantime) {
        let [left, right] = &mut self.sides;
        let (this, peer) = if side == 0 { (left, right) } else { (right, left) };
        let Some(processes) = &mut this.processes else { return };
        let mut tries = 2;
        let mut pause = |_: Duration, _: Stand| {
            tries -= 1;
            peer.pass_time(which, meantime, this.written > peer.read);
            tries > 0
        };
        let result = processes.run(which, |hybrid| hybrid.demote_with(most, &mut pause));
        match result {
            Ok(left) => {
                assert!(left <= most);
                processes.run(which, |hybrid| assert_eq!(in_ring(hybrid), left));
                this.left.get_or_insert_default();
            }
            Err(error) => assert!(matches!(error, DemoteError::Unread(left) if left > most), "{error}"),
        }
    }

    fn write(&mut self, (side, which): (usize, usize), len: usize) {
        let peer_gone = self.sides[1 - side].gone;
        self.sides[side].write(which, len, peer_gone);
    }

    /// Reads, or looks, and checks what came. False once the stream has ended.
    fn read(&mut self, (side, which): (usize, usize), len: usize, take: bool) -> bool {
        let [left, right] = &mut self.sides;
        let (this, peer) = if side == 0 { (left, right) } else { (right, left) };
        if this.gone {
            return false;
        }
        let mut buf = vec![0; len];
        let mut dst = &mut buf[..];
        let result =
            match (this.left.as_mut().filter(|left| !left.is_empty()), &mut this.processes) {
                (Some(left), _) => {
                    let n = len.min(left.len());
                    dst.put_slice(&left.make_contiguous()[..n]);
                    left.drain(..if take { n } else { 0 });
                    Ok(Progress::Done(n))
                }
                (None, Some(processes)) => processes.run(which, |hybrid| {
                    if take { hybrid.try_read(&mut dst) } else { hybrid.try_peek(&mut dst) }
                }),
                (None, None) if len == 0 => Ok(Progress::Done(0)),
                (None, None) => ended(attempt(this.tcp.look(&mut dst, take))),
            };
        let unread = peer.written - this.read;
        match result {
            Ok(Progress::Done(n)) => {
                assert!(n <= unread && (n > 0 || len == 0), "{n} of {unread}");
                let expected = (this.read..this.read + n).map(|at| byte(1 - side, at));
                assert!(expected.eq(buf[..n].iter().copied()));
                if take {
                    this.read += n;
                }
                return true;
            }
            Ok(Progress::Blocked) => {
                assert_eq!(unread, 0, "there was something to read");
                assert!(!peer.shut && !peer.gone, "there was an end to read");
                return true;
            }
            Ok(Progress::Eof) => {
                assert_eq!(unread, 0, "the end came before the data");
                assert!(peer.shut || peer.gone);
                assert!(!peer.rude || this.ended, "a reset looked like an end");
            }
            Err(error) => {
                assert_eq!(error.kind(), io::ErrorKind::ConnectionReset, "{error}");
                assert_eq!(unread, 0, "the reset came before the data");
                assert!(peer.gone);
            }
        }
        this.ended = true;
        false
    }

    /// Everything that was written can be read.
    fn finish(mut self) {
        for side in [0, 1] {
            loop {
                let before = self.sides[side].read;
                if !self.read((side, 0), 4096, true) || self.sides[side].read == before {
                    break;
                }
            }
            assert!(self.sides[side].gone || self.sides[side].read == self.sides[1 - side].written);
        }
    }
}

/// What TCP says of an attempt.
fn attempt(result: io::Result<usize>) -> io::Result<Progress> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(Progress::Blocked),
        other => other.map(Progress::Done),
    }
}

/// Nothing read is the end.
fn ended(result: io::Result<Progress>) -> io::Result<Progress> {
    result.map(|progress| if progress == Progress::Done(0) { Progress::Eof } else { progress })
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        12 => (0..6000usize).prop_map(Op::Write),
        12 => (0..6000usize).prop_map(Op::Read),
        3 => (1..3000usize).prop_map(Op::Peek),
        4 => Just(Op::Agree),
        1 => Just(Op::Fork),
        1 => Just(Op::Abandon),
        1 => Just(Op::Shutdown),
        1 => Just(Op::Close),
        1 => Just(Op::Kill),
        1 => any::<bool>().prop_map(|reading| Op::Leave { reading }),
        2 => (prop_oneof![Just(0), Just(usize::MAX)], meantime()).prop_map(|(most, peer)| Op::Demote(most, peer)),
        1 => Just(Op::LetGo),
    ]
}

fn meantime() -> impl Strategy<Value = Meantime> {
    prop_oneof![
        2 => Just(Meantime::Nothing),
        4 => Just(Meantime::Look),
        2 => Just(Meantime::Peek),
        4 => (0..6000usize).prop_map(Meantime::Write),
        1 => Just(Meantime::Close),
        1 => Just(Meantime::Kill),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_schedule_reads_what_was_written(steps in prop::collection::vec(((0..2usize, 0..6usize), op()), 0..150)) {
        let _nobody_starts = nobody_starts();
        let mut model = Model::new();
        for (who, op) in steps {
            model.step(who, op);
        }
        model.finish();
    }
}

/// While something may come by TCP as well as by the ring.
#[test]
fn what_has_come_just_now_is_read_whole() {
    let mut model = Model::with(&pair::stacks());
    model.step((0, 0), Op::Agree);
    let wire = model.wire.clone();
    *lock(&model.sides[0].tcp.meanwhile[1]) = Some(Box::new(move || {
        let pipe = &mut lock(&wire).into[0];
        pipe.bytes.extend(b"together");
        pipe.sent += 8;
    }));
    let mut got = [0; 100];
    let reader = &model.sides[0].processes.as_ref().unwrap().all[0];
    assert_eq!(reader.try_read(&mut &mut got[..]).unwrap(), Progress::Done(8));
    assert!(reader.watches_ring());
}

#[test]
fn a_rude_end_on_the_ring_is_a_reset() {
    let mut model = Model::with(&pair::stacks());
    for side in [0, 1] {
        model.step((side, 0), Op::Agree);
    }
    // Both say that they read, then both write by the ring.
    for _ in 0..2 {
        for side in [0, 1] {
            model.step((side, 0), Op::Read(10));
            model.step((side, 0), Op::Write(10));
        }
    }
    assert!(model.sides.iter().all(|side| side.processes.as_ref().unwrap().all[0].writes_ring()));
    model.step((0, 0), Op::Read(100));
    model.step((0, 0), Op::Write(5));
    model.step((1, 0), Op::Write(7));
    model.step((1, 0), Op::Read(100));
    model.step((0, 0), Op::Close);
    let error = model.sides[1].processes.as_ref().unwrap().all[0].try_read(&mut &mut [0; 9][..]).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
}
