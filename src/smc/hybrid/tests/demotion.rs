//! Giving a connection back to TCP while both ends are at work, and peers that make it hard.

use std::{
    thread,
    time::{Duration, Instant},
};

use super::*;
use crate::{
    FallbackReason,
    smc::{ConnectionError, PeerMisbehaved, hybrid::demotion::DemoteError},
};

/// A generator of numbers that look random.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
        (self.0 >> 33) % limit
    }
}

/// What one end does: when it gives the connection back, if it does, and whether it then forgets about it.
struct Part {
    side: usize,
    seed: u64,
    demotes_after: Option<usize>,
    /// So many bytes may be left to be read here.
    most: usize,
    lets_go: bool,
}

/// Writes and reads as many bytes; each is the one that it should be.
fn play(hybrid: SimHybrid, tcp: &SimTcp, part: &Part, total: usize) {
    let (mut random, start) = (Random(part.seed), Instant::now());
    let (mut written, mut read, mut left) = (0, 0, VecDeque::new());
    let mut hybrid = Some(hybrid);
    let mut is_due = part.demotes_after;
    while written < total || read < total {
        assert!(start.elapsed() < Duration::from_secs(120), "side {}: {written} {read}", part.side);
        if is_due.is_some_and(|after| written + read >= after) {
            is_due = None;
            let hybrid_now = hybrid.as_ref().unwrap();
            let is_given_back = match hybrid_now.demote(part.most, Duration::from_secs(60)) {
                Ok(left) => left <= part.most,
                Err(DemoteError::Unread(left)) => left <= part.most,
                Err(error) => panic!("{error}"),
            };
            if part.lets_go && is_given_back {
                left.extend(take_left(hybrid_now));
                hybrid = None;
            }
        }
        let len = (random.below(3000) as usize).min(total - written);
        let data: Vec<u8> = (written..written + len).map(|at| byte(part.side, at)).collect();
        if len > 0 {
            let bufs = [IoSlice::new(&data)];
            let result = hybrid.as_ref().map_or_else(|| attempt(tcp.send(&bufs)), |h| h.try_write(&bufs));
            if let Progress::Done(n) = result.unwrap() {
                written += n;
            }
        }
        let mut buf = vec![0; random.below(4000) as usize + 1];
        let mut dst = &mut buf[..];
        let n = match &hybrid {
            _ if !left.is_empty() => {
                let n = dst.len().min(left.len());
                dst.put_slice(&left.make_contiguous()[..n]);
                left.drain(..n);
                n
            }
            Some(hybrid) => done(hybrid.try_read(&mut dst)),
            None => done(attempt(tcp.look(&mut dst, true))),
        };
        let expected = (read..read + n).map(|at| byte(1 - part.side, at));
        assert!(expected.eq(buf[..n].iter().copied()), "side {}: after {read}", part.side);
        read += n;
    }
    // Both are done before either closes: what happens then is for others to test.
    drop(hybrid);
}

fn done(result: io::Result<Progress>) -> usize {
    match result.unwrap() {
        Progress::Done(n) => n,
        Progress::Blocked => 0,
        Progress::Eof => panic!("nobody has closed"),
    }
}

/// Two hybrids with rings, which are in use or will be soon.
pub(super) fn hybrids(stacks: &[Arc<Stack>; 2]) -> ([SimHybrid; 2], [Arc<SimTcp>; 2]) {
    let mut model = Model::with(stacks);
    for side in [0, 1] {
        model.step((side, 0), Op::Agree);
    }
    let tcp = [0, 1].map(|side: usize| model.sides[side].tcp.clone());
    (model.sides.map(|side| side.processes.unwrap().into_one()), tcp)
}

#[test]
fn threads_lose_nothing_whenever_it_goes_back() {
    let stacks = pair::stacks();
    let mut random = Random(1);
    for round in 0..400 {
        let total = 3000 + random.below(60_000) as usize;
        let ([left, right], [left_tcp, right_tcp]) = hybrids(&stacks);
        let mut part = |side: usize, demotes: bool| Part {
            side,
            seed: random.below(u64::MAX),
            demotes_after: demotes.then(|| random.below(total as u64) as usize),
            most: if random.below(2) == 0 { 0 } else { usize::MAX },
            lets_go: random.below(2) == 0,
        };
        let parts = [part(0, round % 3 != 1), part(1, round % 3 != 0)];
        thread::scope(|scope| {
            scope.spawn(|| play(left, &left_tcp, &parts[0], total));
            scope.spawn(|| play(right, &right_tcp, &parts[1], total));
        });
    }
}

/// Both directions of both ends go by the rings, which are empty.
pub(super) fn switched(stacks: &[Arc<Stack>; 2]) -> ([SimHybrid; 2], [Arc<SimTcp>; 2]) {
    let (hybrids, tcp) = hybrids(stacks);
    for _ in 0..3 {
        for side in [0, 1] {
            hybrids[side].try_write(&[IoSlice::new(b"x")]).unwrap();
            assert_eq!(read(&hybrids[1 - side]), b"x");
        }
    }
    assert!(hybrids.iter().all(|hybrid| hybrid.reads_ring() && hybrid.writes_ring()));
    (hybrids, tcp)
}

pub(super) fn read(hybrid: &SimHybrid) -> Vec<u8> {
    let mut buf = Vec::new();
    hybrid.try_read(&mut (&mut buf).limit(10_000)).unwrap();
    buf
}

pub(super) fn write(hybrid: &SimHybrid, data: &[u8]) {
    assert_eq!(hybrid.try_write(&[IoSlice::new(data)]).unwrap(), Progress::Done(data.len()));
}

#[test]
fn both_ends_say_why() {
    let ([a, b], _) = switched(&pair::stacks());
    write(&b, b"unread");
    write(&a, b"in the ring");
    assert_eq!(a.demote(usize::MAX, Duration::ZERO).unwrap(), b"unread".len());
    assert!(a.transport().is_smcd(), "there is something to be read yet");
    assert_eq!(read(&a), b"unread");
    assert!(!a.is_readable(), "and now it knows");
    assert_eq!(a.transport(), Transport::Tcp(FallbackReason::LeftToSystem));
    assert!(b.transport().is_smcd(), "it does not know yet");
    write(&a, b"by tcp");
    assert_eq!(read(&b), b"in the ring");
    assert_eq!(read(&b), b"by tcp");
    write(&b, b"answer");
    assert_eq!(b.transport(), Transport::Tcp(FallbackReason::PeerWentBack));
    assert_eq!(read(&a), b"answer");
    assert!(!b.watches_ring() && !a.watches_ring());
    assert_eq!(demote(&a), b"", "once more does nothing");
}

#[test]
fn it_is_not_given_back_if_too_much_is_left() {
    let ([a, b], _) = switched(&pair::stacks());
    write(&b, b"unread");
    assert!(matches!(a.demote(5, Duration::ZERO), Err(DemoteError::Unread(6))));
    write(&b, b", and more");
    write(&a, b"by the ring");
    assert!(a.writes_ring() && b.writes_ring(), "as it was");
    assert_eq!(read(&b), b"by the ring");
    assert_eq!(read(&a), b"unread, and more");
    assert_eq!(a.demote(0, Duration::ZERO).unwrap(), 0);
    assert_eq!(a.transport(), Transport::Tcp(FallbackReason::LeftToSystem));
}

/// Who looks for so many bytes before it reads any gets to see them.
#[test]
fn a_look_goes_beyond_the_ring_that_was_left() {
    let ([a, b], [tcp, _]) = switched(&pair::stacks());
    write(&b, b"ring, ");
    a.demote(usize::MAX, Duration::ZERO).unwrap();
    write(&b, b"tcp");
    let mut buf = Vec::new();
    a.try_peek(&mut (&mut buf).limit(8)).unwrap();
    assert_eq!(buf, b"ring, tc");
    assert_eq!(a.unread(), 9);
    drop(b);
    lock(&tcp.wire).close(1);
    assert_eq!([read(&a), read(&a)].concat(), b"ring, tcp");
    assert_eq!(a.try_read(&mut &mut [0; 9][..]).unwrap(), Progress::Eof);
}

#[test]
fn a_plain_tcp_connection_stays_one() {
    let stacks = pair::stacks();
    let mut model = Model::with(&stacks);
    let hybrid = &model.sides[0].processes.as_ref().unwrap().all[0];
    assert_eq!(demote(hybrid), b"");
    assert_eq!(hybrid.transport(), Transport::Tcp(FallbackReason::LeftToSystem));
    for side in [0, 1] {
        model.step((side, 0), Op::Agree);
        model.step((side, 0), Op::Read(10));
        model.step((side, 0), Op::Write(10));
    }
    assert!(!model.sides[0].processes.as_ref().unwrap().all[0].writes_ring());
    model.finish();
}

#[test]
fn bytes_from_before_the_switch_come_first() {
    let (hybrids, _) = hybrids(&pair::stacks());
    let [a, b] = &hybrids;
    write(b, b"by tcp, ");
    assert_eq!(read(a), b"by tcp, ", "and now it says that it reads");
    write(a, b"x");
    read(b);
    // Written to TCP by one who has not seen that.
    let raw = |data: &[u8]| {
        b.tcp.send(&[IoSlice::new(data)]).unwrap();
        lock(&b.outbound).count(data.len() as u32);
    };
    raw(b"still by tcp, ");
    write(b, b"by the ring");
    assert!(b.writes_ring());
    let mut seen = Vec::new();
    a.try_peek(&mut (&mut seen).limit(20)).unwrap();
    assert_eq!(seen, b"still by tcp, by the", "whichever way they came");
    assert_eq!(demote(a), b"still by tcp, by the ring");
    write(b, b", by tcp again");
    assert_eq!(read(a), b", by tcp again");
}

/// The peer switches, writes, goes back, and writes again, in the middle of our read.
#[test]
fn all_may_happen_between_two_looks() {
    for at in 0..3 {
        let (hybrids, tcp) = hybrids(&pair::stacks());
        let [a, b] = hybrids.map(Arc::new);
        write(&b, b"1");
        assert_eq!(read(&a), b"1", "and now it says that it reads");
        b.tcp.send(&[IoSlice::new(b"2")]).unwrap();
        lock(&b.outbound).count(1);
        let peer = b.clone();
        *lock(&tcp[0].meanwhile[at]) = Some(Box::new(move || {
            write(&peer, b"3");
            assert!(peer.writes_ring());
            demote(&peer);
            write(&peer, b"4");
        }));
        let mut got = Vec::new();
        for _ in 0..6 {
            got.extend(read(&a));
        }
        assert_eq!(got, b"234");
    }
}

#[test]
fn a_direction_that_was_shut_down_stays_so() {
    let ([a, b], [tcp, _]) = switched(&pair::stacks());
    write(&a, b"last words");
    a.shutdown_write().unwrap();
    lock(&tcp.wire).into[1].fin = true;
    assert_eq!(demote(&a), b"");
    drop(a);
    assert_eq!(read(&b), b"last words");
    assert_eq!(b.try_read(&mut &mut [0; 9][..]).unwrap(), Progress::Eof);
    write(&b, b"the other way");
    let mut buf = [0; 99];
    assert_eq!(tcp.look(&mut &mut buf[..], true).unwrap(), 13);
}

#[test]
fn a_peer_that_has_closed_is_an_end() {
    let ([a, b], [_, tcp]) = switched(&pair::stacks());
    write(&b, b"last words");
    drop(b);
    lock(&tcp.wire).close(1);
    assert_eq!(demote(&a), b"last words");
    assert_eq!(a.try_read(&mut &mut [0; 9][..]).unwrap(), Progress::Eof);
}

#[test]
fn the_buffers_go_back_to_the_groups() {
    let stacks = pair::stacks();
    let tokens = |hybrids: &[SimHybrid; 2]| {
        hybrids.each_ref().map(|hybrid| hybrid.ring().unwrap().connection().dmb().token())
    };
    let mut seen = std::collections::HashSet::new();
    for _ in 0..5 {
        let (hybrids, _) = switched(&stacks);
        let ours = tokens(&hybrids);
        demote(&hybrids[0]);
        let [a, b] = hybrids;
        drop(a);
        // The other end still has them.
        let (others, _) = switched(&stacks);
        assert!(tokens(&others).iter().all(|other| !ours.contains(other)));
        seen.extend(ours.into_iter().chain(tokens(&others)));
        drop(b);
    }
    assert_eq!(seen.len(), 4, "two connections at a time");
}

/// The word in which the peer of this end marks its writes.
fn mark(hybrid: &SimHybrid) -> &std::sync::atomic::AtomicU32 {
    let dmb = hybrid.ring().unwrap().connection().dmb();
    dmb.memory().word32(dmb.mark.unwrap()).unwrap()
}

#[test]
fn a_peer_that_writes_for_ever_is_not_waited_for() {
    let ([a, b], _) = switched(&pair::stacks());
    write(&b, b"before");
    let before = mark(&a).fetch_or(1, std::sync::atomic::Ordering::SeqCst);
    assert!(matches!(a.demote(usize::MAX, Duration::ZERO), Err(DemoteError::PeerBusy)));
    assert!(a.reads_ring() && a.writes_ring(), "as it was");
    assert_eq!(read(&a), b"before");
    write(&a, b"on the ring");
    assert_eq!(read(&b), b"on the ring");
    write(&b, b"on");
    assert_eq!(read(&a), b"on");
    // It goes on at last.
    mark(&a).store(before, std::sync::atomic::Ordering::SeqCst);
    assert_eq!(demote(&a), b"");
    write(&b, b"by tcp");
    assert_eq!(read(&a), b"by tcp");
}

#[test]
fn one_that_goes_back_after_all_is_followed() {
    let ([a, b], _) = switched(&pair::stacks());
    mark(&a).fetch_or(1, std::sync::atomic::Ordering::SeqCst);
    thread::scope(|scope| {
        let (a, limit) = (&a, Duration::from_secs(1));
        scope.spawn(move || assert!(matches!(a.demote(usize::MAX, limit), Err(DemoteError::PeerBusy))));
        while !b.ring().unwrap().connection().is_peer_leaving() {
            thread::yield_now();
        }
        // It looks while it is asked to, however it marks its writes.
        b.ring().unwrap().connection().go_back().unwrap();
    });
    write(&b, b"by tcp");
    assert_eq!(read(&a), b"by tcp");
    write(&a, b"by the ring");
    assert!(a.writes_ring());
    assert_eq!(read(&b), b"by the ring");
}

#[test]
fn a_peer_that_breaks_the_protocol_ends_its_own_connection() {
    let ([a, b], _) = switched(&pair::stacks());
    // A cursor that cannot be.
    let word = b.ring().unwrap().connection().outlet().clone_mapped().unwrap();
    word.memory().store(8, u64::MAX).unwrap();
    let error = a.demote(usize::MAX, Duration::ZERO).unwrap_err();
    assert!(
        matches!(
            error,
            DemoteError::Connection(ConnectionError::PeerMisbehaved(PeerMisbehaved::Cursor { .. }))
        ),
        "{error}"
    );
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever the peer writes to the words that it may write to: no panic and no hang.
    #[test]
    fn any_flags_and_cursors(
        words in prop::collection::vec((prop::bool::ANY, any::<u64>(), 0..8u8), 0..12),
        answers in prop::collection::vec((0..4u64, 0..20u64).prop_map(|(stand, n)| stand << 32 | n), 0..4),
        unread in 0..20usize,
        most in prop_oneof![Just(0), Just(usize::MAX)],
    ) {
        let ([a, b], _) = switched(&pair::stacks());
        write(&b, &vec![0; unread]);
        let a_dmb = a.ring().unwrap().connection().dmb().clone();
        let dmb = b.ring().unwrap().connection().outlet().clone_mapped().unwrap();
        for (is_cons, word, way) in words {
            let offset = if is_cons { 16 } else { 8 };
            let old = dmb.memory().load(offset).unwrap();
            // Only flags, or all of it.
            let mut bytes = if way < 6 { old } else { word }.to_ne_bytes();
            if is_cons {
                bytes[6] = word as u8;
                bytes[7] = if way % 2 == 0 { 0 } else { (word >> 8) as u8 };
            }
            dmb.memory().store(offset, u64::from_ne_bytes(bytes)).unwrap();
            let _ = a.try_write(&[IoSlice::new(b"data")]);
            let _ = a.try_read(&mut &mut [0; 100][..]);
            let _ = a.is_readable();
            let _ = a.is_writable();
        }
        let mut answers = answers.into_iter();
        let mut pause = |_, _| {
            answers.next().is_some_and(|answer| a_dmb.memory().store(24, answer).is_ok())
        };
        let _ = a.demote_with(most, &mut pause);
        let _ = a.try_write(&[IoSlice::new(b"data")]);
        let _ = a.try_read(&mut &mut [0; 100][..]);
    }
}
