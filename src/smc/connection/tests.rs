use std::collections::VecDeque;

use proptest::prelude::*;

use super::*;
use crate::smc::pair::{End, connect, pair, stacks, unmapped_stacks};

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
