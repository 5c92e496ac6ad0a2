use std::{
    collections::VecDeque,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::atomic::AtomicU32,
    time::Duration,
};

use proptest::prelude::*;

use super::*;
use crate::{
    dibs::{
        Device,
        loopback::{DmbLimits, Loopback},
    },
    smc::pair::{End, connect, pair, stacks, unmapped_stacks},
};

const SMALL: [usize; 2] = [16384, 16384];

fn write(end: &End, data: &[u8]) -> Progress {
    end.connection.try_write(&[IoSlice::new(data)]).unwrap()
}

fn read(end: &End, len: usize) -> Result<(Progress, Vec<u8>), ConnectionError> {
    let mut buf = Vec::new();
    let progress = end.connection.try_read(&mut (&mut buf).limit(len))?;
    Ok((progress, buf))
}

#[test]
fn what_is_written_is_read_once() {
    let [a, b] = pair(SMALL);
    assert_eq!(read(&b, 10).unwrap().0, Progress::Blocked);
    assert_eq!(write(&a, b"hello"), Progress::Done(5));
    let mut peeked = Vec::new();
    b.connection.try_peek(&mut (&mut peeked).limit(3)).unwrap();
    assert_eq!(peeked, b"hel");
    assert_eq!(read(&b, 10).unwrap(), (Progress::Done(5), b"hello".to_vec()));
    assert_eq!(read(&b, 10).unwrap().0, Progress::Blocked);
}

#[test]
fn a_full_ring_blocks_until_it_is_read() {
    let [a, b] = pair(SMALL);
    assert_eq!(write(&a, &[1; 20_000]), Progress::Done(16352));
    assert_eq!(write(&a, &[1]), Progress::Blocked);
    assert!(!a.connection.is_writable());
    read(&b, 20_000).unwrap();
    assert!(a.connection.is_writable());
    assert_eq!(write(&a, &[1]), Progress::Done(1));
}

#[test]
fn the_end_comes_after_the_data() {
    let [a, b] = pair(SMALL);
    write(&a, b"last words");
    a.connection.shutdown_write().unwrap();
    assert!(matches!(a.connection.try_write(&[IoSlice::new(b"x")]), Err(ConnectionError::ShutDown)));
    assert_eq!(read(&b, 100).unwrap(), (Progress::Done(10), b"last words".to_vec()));
    assert_eq!(read(&b, 100).unwrap().0, Progress::Eof);
    assert_eq!(write(&b, b"the other way is open"), Progress::Done(21));
    assert_eq!(read(&a, 100).unwrap().0, Progress::Done(21));
}

#[test]
fn closing_with_unread_data_resets_the_peer() {
    let [a, b] = pair(SMALL);
    write(&a, b"unread");
    write(&b, b"readable");
    b.connection.close();
    assert!(matches!(a.connection.try_write(&[IoSlice::new(b"x")]), Err(ConnectionError::Aborted)));
    assert_eq!(read(&a, 100).unwrap().1, b"readable", "what was published can be read");
    assert!(matches!(read(&a, 100), Err(ConnectionError::Aborted)));
}

#[test]
fn a_closed_peer_takes_no_more() {
    let [a, b] = pair(SMALL);
    b.connection.close();
    assert!(matches!(a.connection.try_write(&[IoSlice::new(b"x")]), Err(ConnectionError::PeerClosed)));
    assert_eq!(read(&a, 100).unwrap().0, Progress::Eof);
}

#[test]
fn a_vanished_peer_leaves_what_it_published() {
    let [a, b] = pair(SMALL);
    write(&a, b"published");
    b.connection.peer_is_gone();
    assert_eq!(read(&b, 100).unwrap().1, b"published");
    assert!(matches!(read(&b, 100), Err(ConnectionError::PeerGone)));
    assert!(b.connection.is_readable());
    assert!(matches!(b.connection.try_write(&[IoSlice::new(b"x")]), Err(ConnectionError::PeerGone)));
}

#[test]
fn an_urgent_byte_overtakes_and_is_skipped() {
    for stacks in [stacks(), unmapped_stacks()] {
        let [a, b] = connect(&stacks, SMALL);
        write(&a, b"normal");
        assert_eq!(a.connection.try_write_urgent(b'!').unwrap(), Progress::Done(1));
        assert_eq!(write(&a, b"more"), Progress::Blocked, "nothing overtakes the urgent byte");
        assert_eq!(b.connection.try_read_urgent().unwrap(), Some(b'!'));
        assert_eq!(b.connection.try_read_urgent().unwrap(), None);
        assert_eq!(read(&b, 100).unwrap().1, b"normal");
        assert_eq!(read(&b, 100).unwrap().0, Progress::Blocked);
        assert_eq!(write(&a, b"more"), Progress::Done(4));
        assert_eq!(read(&b, 100).unwrap().1, b"more");
        assert_eq!(a.connection.try_write_urgent(b'?').unwrap(), Progress::Done(1));
        assert_eq!(read(&b, 100).unwrap().0, Progress::Blocked, "passed");
        assert_eq!(b.connection.try_read_urgent().unwrap(), Some(b'?'), "and still there");
    }
}

/// The interrupt of a DMB whose user says when it writes. Nobody waits for it.
#[derive(Debug)]
struct Numbered {
    fd: OwnedFd,
    moves: Arc<AtomicU32>,
}

impl Interrupt for Numbered {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    fn is_hung_up(&self) -> bool {
        false
    }

    fn arm(&self, _: Cause) {}

    fn clear(&self) {}

    fn moves(&self) -> Option<u32> {
        Some(self.moves.load(Ordering::Acquire))
    }

    fn wait(&self, _: Cause, _: Option<Duration>, _: &mut dyn FnMut() -> bool) -> std::io::Result<bool> {
        Ok(false)
    }
}

/// A connection whose peer moves data, word by word as the test has it.
struct Moved {
    connection: Connection,
    own: Arc<Dmb>,
    peer: Arc<Dmb>,
    moves: Arc<AtomicU32>,
}

impl Moved {
    fn new() -> Self {
        let devices = [(); 2].map(|()| Loopback::new(DmbLimits::default()).unwrap());
        let [mut own, peer] =
            [0, 1].map(|i: usize| devices[i].register_dmb(devices[1 - i].gid(), 16384, None).unwrap());
        let moves = Arc::new(AtomicU32::new(0));
        let fd = rustix::event::eventfd(0, rustix::event::EventfdFlags::CLOEXEC).unwrap();
        own.interrupt = Box::new(Numbered { fd, moves: moves.clone() });
        let [device, _] = devices;
        let outlet = Outlet::moved(Arc::new(device), peer.token(), 0, 16384);
        let (own, peer) = (Arc::new(own), Arc::new(peer));
        let ring = RingLen::of_dmb(16384).unwrap();
        Self { connection: Connection::new(own.clone(), ring, outlet, ring), own, peer, moves }
    }

    /// The peer's producer cursor, as Linux writes it: without a mark.
    fn prod(&self, count: u32) {
        self.store(PROD, Cursor { wrap: 0, count }.to_word([0, 0]));
    }

    fn flags(&self, producer: ProducerFlags, state: StateFlags) {
        self.store(CONS, Cursor::default().to_word([producer.bits(), state.bits()]));
    }

    fn store(&self, at: usize, word: u64) {
        self.own.memory().word64(at).unwrap().store(word, Ordering::Release);
    }

    fn read(&self) -> Result<(Progress, usize), ConnectionError> {
        let mut buf = Vec::new();
        let progress = self.connection.try_read(&mut (&mut buf).limit(1000))?;
        Ok((progress, buf.len()))
    }

    /// How far we have read, as the peer knows it.
    fn confirmed(&self) -> u32 {
        load(self.peer.memory().word64(CONS).unwrap()).0.count
    }
}

#[test]
fn flags_of_a_message_that_is_being_written_are_not_the_end() {
    for dies in [false, true] {
        let peer = Moved::new();
        peer.moves.store(1, Ordering::Release);
        peer.prod(50);
        peer.flags(ProducerFlags::empty(), StateFlags::DONE_WRITING | StateFlags::CLOSED);
        assert_eq!(peer.read().unwrap(), (Progress::Blocked, 0));
        if dies {
            peer.connection.peer_is_gone();
        } else {
            peer.moves.store(2, Ordering::Release);
        }
        assert_eq!(peer.read().unwrap(), (Progress::Done(50), 50));
        assert_eq!(peer.read().unwrap(), (Progress::Eof, 0));
    }
}

#[test]
fn an_urgent_mark_that_comes_after_its_cursor_counts() {
    let peer = Moved::new();
    peer.prod(5);
    assert!(peer.connection.is_readable());
    peer.flags(ProducerFlags::URGENT_PRESENT, StateFlags::empty());
    assert!(!peer.connection.is_at_mark());
    assert_eq!(peer.read().unwrap(), (Progress::Done(4), 4));
    assert_eq!(peer.confirmed(), 5, "nothing more is sent until it is");
    assert_eq!(peer.connection.try_read_urgent().unwrap(), Some(0));
    // Read as any other before the mark came.
    peer.prod(9);
    peer.flags(ProducerFlags::empty(), StateFlags::empty());
    assert_eq!(peer.read().unwrap(), (Progress::Done(4), 4));
    assert_eq!(peer.confirmed(), 5);
    peer.flags(ProducerFlags::URGENT_PRESENT, StateFlags::empty());
    assert_eq!(peer.read().unwrap(), (Progress::Blocked, 0));
    assert_eq!(peer.confirmed(), 9);
}

#[test]
fn buffers_are_used_again() {
    let stacks = stacks();
    let mut seen = std::collections::HashSet::new();
    for round in 0..20u8 {
        let [a, b] = connect(&stacks, SMALL);
        seen.insert(a.connection.dmb().token());
        write(&a, &[round; 100]);
        assert_eq!(read(&b, 200).unwrap().1, [round; 100], "no trace of the connection before");
        assert_eq!(read(&b, 200).unwrap().0, Progress::Blocked);
        for end in [a, b] {
            end.stack.release(end.group, end.connection);
        }
    }
    assert_eq!(seen.len(), 1, "one buffer is enough for connections one after another");
}

#[test]
fn a_buffer_is_not_used_again_before_the_peer_has_closed() {
    let stacks = stacks();
    let [a, b] = connect(&stacks, SMALL);
    let token = a.connection.dmb().token();
    a.stack.release(a.group, a.connection);
    let [c, d] = connect(&stacks, SMALL);
    assert_ne!(c.connection.dmb().token(), token);
    b.stack.release(b.group, b.connection);
    let [e, _f] = connect(&stacks, SMALL);
    assert_eq!(e.connection.dmb().token(), token);
    drop((c, d));
}

/// Writes a word of the CDC slot of `end`, as its peer could.
fn scribble(end: &End, at: usize, word: u64) {
    end.connection.dmb().memory().store(at, word).unwrap();
}

#[test]
fn impossible_cursors_end_the_connection_with_a_reason() {
    for prod in [(0, 16352), (0, u32::MAX), (2, 0), (1, 1), (u16::MAX, 5)] {
        let [_a, b] = pair(SMALL);
        let word = crate::smc::cursor::Cursor { wrap: prod.0, count: prod.1 }.to_word([0, 0]);
        scribble(&b, PROD, word);
        assert!(matches!(read(&b, 1), Err(ConnectionError::PeerMisbehaved(_))), "{prod:?}");
        scribble(&b, PROD, 0);
        assert!(matches!(read(&b, 1), Err(ConnectionError::PeerMisbehaved(_))), "it stays so");
        assert!(matches!(
            b.connection.try_write(&[IoSlice::new(b"x")]),
            Err(ConnectionError::PeerMisbehaved(_))
        ));
    }
}

#[test]
fn state_flags_stick_whatever_the_peer_does_later() {
    let [a, b] = pair(SMALL);
    a.connection.shutdown_write().unwrap();
    assert_eq!(read(&b, 1).unwrap().0, Progress::Eof);
    scribble(&b, CONS, 0);
    assert_eq!(read(&b, 1).unwrap().0, Progress::Eof);
}

/// One step of a random run; `side` is 0 or 1.
#[derive(Clone, Debug)]
enum Step {
    Write { side: usize, parts: Vec<usize> },
    Read { side: usize, len: usize },
    Peek { side: usize, len: usize },
    ShutDown { side: usize },
}

fn step() -> impl Strategy<Value = Step> {
    let len = prop_oneof![0usize..200, 0usize..40_000, 0usize..1_200_000];
    let side = 0usize..2;
    prop_oneof![
        8 => (side.clone(), prop::collection::vec(len.clone(), 1..4))
            .prop_map(|(side, parts)| Step::Write { side, parts }),
        8 => (side.clone(), len.clone()).prop_map(|(side, len)| Step::Read { side, len }),
        1 => (side.clone(), len).prop_map(|(side, len)| Step::Peek { side, len }),
        1 => side.prop_map(|side| Step::ShutDown { side }),
    ]
}

/// What one direction must look like: the bytes under way, and whether more may come.
#[derive(Default)]
struct Direction {
    queue: VecDeque<u8>,
    next: u32,
    done: bool,
}

impl Direction {
    fn make(&self, len: usize) -> Vec<u8> {
        // No short period, so that lost, doubled and moved bytes show.
        (0..len as u32).map(|i| (self.next.wrapping_add(i).wrapping_mul(2_654_435_761) >> 24) as u8).collect()
    }

    fn written(&mut self, data: &[u8]) {
        self.queue.extend(data);
        self.next = self.next.wrapping_add(data.len() as u32);
    }
}

fn run(ends: &[End; 2], steps: Vec<Step>) -> Result<(), TestCaseError> {
    let mut to: [Direction; 2] = Default::default();
    for step in steps {
        match step {
            Step::Write { side, parts } => {
                let direction = &mut to[1 - side];
                let data = direction.make(parts.iter().sum());
                let mut rest = &data[..];
                let slices: Vec<_> = parts
                    .iter()
                    .map(|n| {
                        let (part, tail) = rest.split_at(*n);
                        rest = tail;
                        IoSlice::new(part)
                    })
                    .collect();
                match ends[side].connection.try_write(&slices) {
                    Ok(Progress::Done(n)) => {
                        prop_assert!(n > 0 || data.is_empty());
                        direction.written(&data[..n]);
                    }
                    Ok(Progress::Blocked) => prop_assert!(!direction.queue.is_empty(), "stuck"),
                    Ok(Progress::Eof) => prop_assert!(false),
                    Err(error) => prop_assert!(direction.done, "{error}"),
                }
            }
            Step::Read { side, len } | Step::Peek { side, len } => {
                let peek = matches!(step, Step::Peek { .. });
                let direction = &mut to[side];
                let mut got = Vec::new();
                let mut room = (&mut got).limit(len);
                let connection = &ends[side].connection;
                let progress =
                    if peek { connection.try_peek(&mut room) } else { connection.try_read(&mut room) };
                match progress.unwrap() {
                    Progress::Done(n) => {
                        prop_assert_eq!(n, got.len());
                        prop_assert!(n > 0 || len == 0);
                        prop_assert!(direction.queue.iter().take(n).eq(got.iter()));
                        if !peek {
                            direction.queue.drain(..n);
                        }
                    }
                    Progress::Blocked => prop_assert!(direction.queue.is_empty() && !direction.done),
                    Progress::Eof => prop_assert!(direction.queue.is_empty() && direction.done),
                }
            }
            Step::ShutDown { side } => {
                ends[side].connection.shutdown_write().unwrap();
                to[1 - side].done = true;
            }
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn any_run_is_a_byte_queue(
        mapped: bool,
        sizes in [14u32..21, 14u32..21],
        steps in prop::collection::vec(step(), 1..60),
    ) {
        let stacks = if mapped { stacks() } else { unmapped_stacks() };
        run(&connect(&stacks, sizes.map(|code| 1 << code)), steps)?;
    }

    #[test]
    fn any_scribbling_ends_in_data_or_an_error(
        words in prop::collection::vec((any::<bool>(), any::<u64>()), 1..30),
        small in prop::collection::vec((any::<bool>(), 0u64..0x1_0000_0000), 1..30),
    ) {
        let [_a, b] = pair(SMALL);
        for (prod, word) in words.into_iter().chain(small) {
            scribble(&b, if prod { PROD } else { CONS }, word);
            // No panic, and never more bytes than the ring has.
            if let Ok((Progress::Done(n), _)) = read(&b, 100_000) {
                prop_assert!(n <= 16352);
            }
            let _ = b.connection.try_write(&[IoSlice::new(&[7; 5000])]);
            let _ = b.connection.try_read_urgent();
        }
        b.connection.close();
    }
}
