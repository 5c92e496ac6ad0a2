//! What was written and not read goes by TCP when the connection is given back: whatever the writer is at, however much
//! TCP takes, and whoever ends in the middle of it.

use super::*;
use crate::smc::hybrid::tests::demotion::{hybrids, read, switched, write};

/// Gives it back wholly; while it waits, the other end does this.
fn demote_wholly(hybrid: &SimHybrid, mut meanwhile: impl FnMut()) -> Result<usize, DemoteError> {
    let mut tries = 3;
    hybrid.demote_with(0, &mut |_, _| {
        meanwhile();
        tries -= 1;
        tries > 0
    })
}

/// What comes by the socket alone.
fn by_tcp(tcp: &SimTcp) -> Vec<u8> {
    let mut got = Vec::new();
    let _ = tcp.look(&mut (&mut got).limit(100_000), true);
    got
}

fn all(hybrid: &SimHybrid) -> Vec<u8> {
    let mut got = Vec::new();
    loop {
        let from = got.len();
        let _ = hybrid.try_read(&mut (&mut got).limit(1000));
        if got.len() == from {
            return got;
        }
    }
}

fn filled(len: usize) -> Vec<u8> {
    (0..len).map(|at| byte(1, at)).collect()
}

#[test]
fn whatever_the_writer_is_called_for_it_takes_back_what_is_unread() {
    type Call = (&'static str, fn(&SimHybrid));
    let calls: [Call; 8] = [
        ("read", |b| assert!(matches!(b.try_read(&mut &mut [0; 9][..]), Ok(Progress::Blocked)))),
        ("peek", |b| assert!(matches!(b.try_peek(&mut &mut [0; 9][..]), Ok(Progress::Blocked)))),
        ("is readable", |b| assert!(!b.is_readable())),
        ("is writable", |b| assert!(b.is_writable())),
        ("unread", |b| assert_eq!(b.unread(), 0)),
        ("write", |b| assert!(matches!(b.try_write(&[IoSlice::new(b"!")]), Ok(Progress::Done(1))))),
        ("shutdown", |b| b.shutdown_write().unwrap()),
        ("anything", |b| b.follow().unwrap()),
    ];
    let stacks = pair::stacks();
    for (name, call) in calls {
        let ([a, b], [tcp, _]) = switched(&stacks);
        write(&b, b"not read");
        write(&b, b" by you");
        let mut is_done = false;
        demote_wholly(&a, || {
            if !std::mem::replace(&mut is_done, true) {
                call(&b)
            }
        })
        .expect(name);
        drop(a);
        let expected: &[u8] = if name == "write" { b"not read by you!" } else { b"not read by you" };
        assert_eq!(by_tcp(&tcp), expected, "{name}");
        assert!(!b.writes_ring() && b.try_read(&mut &mut [0; 9][..]).is_ok());
    }
}

#[test]
fn a_writer_that_closes_takes_back_what_is_unread() {
    let ([a, b], [tcp, _]) = switched(&pair::stacks());
    write(&b, b"last words");
    let mut b = Some(b);
    demote_wholly(&a, || drop(b.take())).unwrap();
    lock(&tcp.wire).close(1);
    assert_eq!(by_tcp(&tcp), b"last words");
    assert_eq!(tcp.look(&mut &mut [0; 9][..], true).unwrap(), 0, "and no reset");
}

#[test]
fn what_was_looked_at_and_what_was_read_are_told_apart() {
    let ([a, b], [tcp, _]) = switched(&pair::stacks());
    write(&b, b"read, looked at, and neither");
    a.try_read(&mut &mut [0; 6][..]).unwrap();
    a.try_peek(&mut &mut [0; 9][..]).unwrap();
    demote_wholly(&a, || assert!(!b.is_readable())).unwrap();
    assert_eq!((a.unread(), a.is_readable()), (22, true));
    assert_eq!(read(&a), b"looked at, and neither");
    write(&b, b"more");
    assert_eq!(by_tcp(&tcp), b"more");
}

/// The switch is still to be found, or its offset to be reached.
#[test]
fn bytes_from_about_the_switch_come_in_order() {
    for has_looked in [false, true] {
        let (hybrids, [tcp, _]) = hybrids(&pair::stacks());
        let [a, b] = hybrids;
        write(&b, b"1");
        assert_eq!(read(&a), b"1", "and now it says that it reads");
        b.tcp.send(&[IoSlice::new(b"by tcp, ")]).unwrap();
        lock(&b.outbound).count(8);
        write(&b, b"by the ring, ");
        assert!(b.writes_ring());
        if has_looked {
            assert!(a.is_readable());
        }
        demote_wholly(&a, || assert!(!b.is_readable())).unwrap();
        write(&b, b"by tcp again");
        drop(a);
        assert_eq!(by_tcp(&tcp), b"by tcp, by the ring, by tcp again");
    }
}

/// It switches just before it sees that the other end leaves.
#[cfg(feature = "failpoints")]
#[test]
fn a_switch_in_the_meantime_is_taken_back_too() {
    super::fork::alone("returning::a_switch_in_the_meantime_is_taken_back_too", || {
        for answers in [true, false] {
            for len in [2, ROOM + 2] {
                let ([a, b], _) = hybrids(&pair::stacks());
                write(&b, b"1");
                assert_eq!(read(&a), b"1", "and now it says that it reads");
                let b = Arc::new(b);
                let peer = b.clone();
                let switch = move || {
                    if !peer.writes_ring() {
                        write(&peer, &filled(len));
                    }
                };
                fail::cfg_callback("leaving-wanted", switch).unwrap();
                let result = demote_wholly(&a, || assert!(!answers || !b.is_readable()));
                fail::remove("leaving-wanted");
                match result {
                    Ok(0) => assert!(answers && len == 2),
                    Err(DemoteError::Unread(left)) => assert_eq!(left, if answers { 2 } else { len }),
                    other => panic!("{other:?}"),
                }
                let mut got = vec![0; 2];
                assert_eq!(a.try_read(&mut &mut got[..]).unwrap(), Progress::Done(2));
                write(&b, b"!");
                got.extend(all(&a));
                assert_eq!(got, [&filled(len)[..], b"!"].concat());
            }
        }
    });
}

#[test]
fn what_tcp_does_not_take_stays_in_the_ring() {
    for has_looked in [false, true] {
        let (hybrids, _) = hybrids(&pair::stacks());
        let [a, b] = hybrids;
        write(&b, b"x");
        assert_eq!(read(&a), b"x", "and now it says that it reads");
        let data = filled(ROOM + 5000);
        write(&b, &data);
        if has_looked {
            assert!(a.is_readable());
        }
        let result = demote_wholly(&a, || assert!(!b.is_readable()));
        assert!(matches!(result, Err(DemoteError::Unread(5000))), "{result:?}");
        assert_eq!(a.unread(), ROOM + 5000);
        assert_eq!(b.try_write(&[IoSlice::new(b"no")]).unwrap(), Progress::Blocked);
        let mut got = vec![0; 100];
        a.try_read(&mut &mut got[..]).unwrap();
        write(&b, b"more");
        got.extend(all(&a));
        assert_eq!(got, [&data[..], b"more"].concat());
        // The other direction goes on.
        write(&a, b"answer");
        assert_eq!(read(&b), b"answer");
        demote_wholly(&a, || ()).unwrap();
        write(&b, b"by tcp");
        assert_eq!(read(&a), b"by tcp");
    }
}

#[test]
fn one_that_does_not_answer_is_not_waited_for_any_more() {
    let ([a, b], [tcp, _]) = switched(&pair::stacks());
    write(&b, b"unread");
    assert!(matches!(demote_wholly(&a, || ()), Err(DemoteError::Unread(6))));
    assert!(!b.is_readable() && b.writes_ring(), "it is not asked any more");
    write(&b, b", and more");
    assert_eq!(all(&a), b"unread, and more");
    write(&b, b"again");
    demote_wholly(&a, || assert!(!b.is_readable())).unwrap();
    assert_eq!(by_tcp(&tcp), b"again");
}

#[test]
fn one_that_answers_later_is_asked_again() {
    let ([a, b], [tcp, _]) = switched(&pair::stacks());
    write(&b, b"read, unread");
    assert_eq!(a.demote(usize::MAX, Duration::ZERO).unwrap(), 12);
    a.try_read(&mut &mut [0; 6][..]).unwrap();
    demote_wholly(&a, || assert!(!b.is_readable())).unwrap();
    write(&b, b", more");
    assert_eq!(by_tcp(&tcp), b"unread, more");
}

#[test]
fn who_has_ended_is_not_asked() {
    for end in [SimHybrid::shutdown_write, |b: &SimHybrid| {
        b.ring().unwrap().connection().close();
        Ok(())
    }] {
        let ([a, b], _) = switched(&pair::stacks());
        write(&b, b"unread");
        end(&b).unwrap();
        let result = demote_wholly(&a, || panic!("waits"));
        assert!(matches!(result, Err(DemoteError::Unread(6))), "{result:?}");
        assert_eq!(read(&a), b"unread");
    }
}

#[test]
fn an_urgent_byte_is_one_as_any_other() {
    let ([a, b], [tcp, _]) = switched(&pair::stacks());
    write(&b, b"urgen");
    b.try_write_urgent(b't', || Ok(())).unwrap();
    assert!(a.is_readable());
    demote_wholly(&a, || assert!(!b.is_readable())).unwrap();
    assert_eq!(a.ring().unwrap().connection().try_read_urgent().unwrap(), None);
    assert_eq!(by_tcp(&tcp), b"urgent");
}

#[test]
fn an_urgent_byte_that_was_read_does_not_come_again() {
    let ([a, b], _) = switched(&pair::stacks());
    write(&b, b"urgen");
    b.try_write_urgent(b't', || Ok(())).unwrap();
    assert_eq!(a.try_read_urgent().unwrap(), Some(b't'));
    let result = demote_wholly(&a, || b.follow().unwrap());
    assert!(matches!(result, Err(DemoteError::Unread(5))), "{result:?}");
    assert_eq!(all(&a), b"urgen");
}

#[test]
fn both_ends_may_give_it_back_at_once() {
    let stacks = pair::stacks();
    for _ in 0..200 {
        let ([a, b], [a_tcp, b_tcp]) = switched(&stacks);
        write(&a, b"to b");
        write(&b, b"to a");
        let limit = Duration::from_secs(10);
        std::thread::scope(|scope| {
            scope.spawn(|| a.demote(0, limit).unwrap());
            scope.spawn(|| {
                b.demote(0, limit).unwrap();
                // The other may have asked when this one was done.
                b.follow().unwrap();
            });
        });
        assert_eq!((by_tcp(&a_tcp), by_tcp(&b_tcp)), (b"to a".to_vec(), b"to b".to_vec()));
    }
}

/// It may begin to take something back just when there is found to be nothing.
#[test]
fn one_that_has_nothing_to_take_back_is_waited_for() {
    let stacks = pair::stacks();
    for _ in 0..500 {
        let ([a, b], _) = switched(&stacks);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while b.writes_ring() {
                    b.follow().unwrap();
                }
            });
            assert_eq!(a.demote(0, Duration::from_secs(10)).unwrap(), 0);
        });
    }
}

#[test]
fn one_that_begins_at_the_last_moment_is_waited_for() {
    let ([a, b], [tcp, _]) = switched(&pair::stacks());
    write(&b, b"unread");
    let connection = b.ring().unwrap().connection();
    let result = a.demote_with(0, &mut |_, stand| {
        let is_taken = stand == Stand::Taken;
        if is_taken {
            b.tcp.send(&[IoSlice::new(b"unread")]).unwrap();
            connection.outlet().finish_request(6).unwrap();
            connection.go_back().unwrap();
        } else {
            assert_eq!(connection.outlet().take_request(), Some(0));
        }
        is_taken
    });
    assert_eq!(result.unwrap(), 0);
    assert_eq!(by_tcp(&tcp), b"unread");
}

/// Readers of this end, which take the short way to the ring, are in nobody's way.
#[test]
fn threads_that_read_meanwhile_get_their_part() {
    let stacks = pair::stacks();
    let data = filled(8000);
    for round in 0..300 {
        let ([a, b], _) = switched(&stacks);
        write(&b, &data);
        let (got, is_over) = (Mutex::new(Vec::new()), std::sync::atomic::AtomicBool::new(false));
        let is_over = || is_over.fetch_or(false, std::sync::atomic::Ordering::SeqCst);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !is_over() && lock(&got).len() < data.len() {
                    let mut piece = [0; 70];
                    let mut dst = &mut piece[..];
                    let ring = a.ring().filter(|_| a.reads_ring()).map(Ring::connection);
                    let read = match ring.map(|ring| ring.try_read(&mut dst)) {
                        Some(Ok(read)) => read,
                        _ => a.try_read(&mut dst).unwrap(),
                    };
                    if let Progress::Done(n) = read {
                        lock(&got).extend_from_slice(&piece[..n]);
                    }
                }
            });
            scope.spawn(|| {
                while lock(&got).len() < data.len() {
                    assert!(b.follow().is_ok());
                }
            });
            while lock(&got).len() < round * 20 {}
            match a.demote(0, Duration::from_secs(10)) {
                Ok(0) | Err(DemoteError::Unread(_)) => {}
                other => panic!("{other:?}"),
            }
        });
        assert!(*lock(&got) == data);
    }
}

/// The writer has begun, and sent so many bytes of those that are unread; then it is stopped, or dies.
fn stopped_after(sent: usize, has_looked: bool) -> ([SimHybrid; 2], [Arc<SimTcp>; 2]) {
    let (hybrids, tcp) = hybrids(&pair::stacks());
    let [a, b] = &hybrids;
    write(b, b"x");
    assert_eq!(read(a), b"x", "and now it says that it reads");
    b.tcp.send(&[IoSlice::new(b"before, ")]).unwrap();
    lock(&b.outbound).count(8);
    write(b, b"unread bytes");
    if has_looked {
        assert!(a.is_readable());
    }
    let outlet = b.ring().unwrap().connection().outlet();
    let mut is_done = false;
    let result = demote_wholly(a, || {
        if !std::mem::replace(&mut is_done, true) {
            assert!(outlet.take_request().is_some());
            b.tcp.send(&[IoSlice::new(&b"unread bytes"[..sent])]).unwrap();
        }
    });
    assert!(matches!(result, Err(DemoteError::PeerBusy)), "{result:?}");
    assert!(matches!(demote_wholly(a, || ()), Err(DemoteError::PeerBusy)), "nor later");
    (hybrids, tcp)
}

/// As another process goes on that has the connection too.
fn pass_on(hybrid: &SimHybrid) {
    let words = hybrid.snapshot().to_words();
    hybrid.restore(&Snapshot::from_words(&words).unwrap()).unwrap();
    assert_eq!(hybrid.snapshot().to_words(), words);
}

#[test]
fn a_writer_may_die_before_it_says_how_much_it_has_sent() {
    for (sent, at, has_looked) in [(0, 9, true), (5, 9, true), (5, 30, false), (12, 1, true), (12, 30, false)]
    {
        let ([a, _killed], [tcp, _]) = stopped_after(sent, has_looked);
        let mut got = vec![0; at.min(8 + sent)];
        a.try_read(&mut &mut got[..]).unwrap();
        pass_on(&a);
        lock(&tcp.wire).close(1);
        got.extend(all(&a));
        assert_eq!(String::from_utf8(got).unwrap(), "before, unread bytes");
        assert_eq!(a.try_read(&mut &mut [0; 9][..]).unwrap(), Progress::Eof);
    }
}

#[test]
fn a_writer_that_goes_on_is_followed() {
    for (sent, more, has_looked) in [(0, 0, true), (0, 12, false), (5, 7, true), (5, 3, false), (12, 0, true)]
    {
        let ([a, b], _) = stopped_after(sent, has_looked);
        let mut got = read(&a);
        assert_eq!(got.len(), 8 + sent, "what has come is next");
        assert!(!a.is_readable());
        pass_on(&a);
        b.tcp.send(&[IoSlice::new(&b"unread bytes"[sent..sent + more])]).unwrap();
        if more > 1 {
            got.push(0);
            assert_eq!(a.try_read(&mut &mut got[8 + sent..]).unwrap(), Progress::Done(1));
        }
        let connection = b.ring().unwrap().connection();
        connection.outlet().finish_request((sent + more) as u32).unwrap();
        connection.go_back().unwrap();
        write(&b, b", and more");
        assert!(!b.writes_ring());
        pass_on(&a);
        got.extend(all(&a));
        assert_eq!(String::from_utf8(got).unwrap(), "before, unread bytes, and more");
        write(&a, b"answer");
        assert_eq!(read(&b), b"answer");
        demote_wholly(&a, || ()).unwrap();
    }
}

#[test]
fn one_that_says_what_cannot_be_ends_its_own_connection() {
    for said in [13, 3, u32::MAX] {
        let ([a, b], [tcp, _]) = stopped_after(5, true);
        assert_eq!(read(&a), b"before, unrea");
        b.ring().unwrap().connection().outlet().finish_request(said).unwrap();
        assert_eq!(a.try_read(&mut &mut [0; 9][..]).unwrap_err().kind(), io::ErrorKind::InvalidData);
        drop(a);
        assert!(lock(&tcp.wire).resets_on_close[0]);
    }
}

/// Two processes have the end that reads; who has it last is the one whose knowledge is old.
#[test]
fn who_closes_last_knows_what_others_have_read() {
    #[derive(Debug)]
    struct Turns(usize, Arc<Mutex<(usize, [u64; Snapshot::WORDS])>>);

    impl crate::smc::hybrid::Baton for Turns {
        fn take(&self) -> Option<crate::smc::hybrid::Left> {
            let (last, words) = *lock(&self.1);
            Some(if last == self.0 {
                crate::smc::hybrid::Left::ByUs
            } else {
                crate::smc::hybrid::Left::ByOther(words)
            })
        }

        fn give(&self, words: &[u64; Snapshot::WORDS]) {
            *lock(&self.1) = (self.0, *words);
        }
    }

    let mut model = Model::with(&pair::stacks());
    for _ in 0..3 {
        for side in [0, 1] {
            model.step((side, 0), Op::Agree);
            model.step((side, 0), Op::Read(10));
            model.step((side, 0), Op::Write(10));
        }
    }
    model.step((0, 0), Op::Read(100));
    model.step((1, 0), Op::Write(10));
    let processes = model.sides[0].processes.as_mut().unwrap();
    let child = processes.hybrid();
    child.agree(processes.established());
    let parent = processes.all.remove(0);
    let turns = Arc::new(Mutex::new((0, parent.snapshot().to_words())));
    parent.share(Box::new(Turns(0, turns.clone())));
    child.share(Box::new(Turns(1, turns)));
    assert_eq!(parent.unread(), 10);
    assert_eq!(child.try_read(&mut &mut [0; 99][..]).unwrap(), Progress::Done(10));
    child.abandon();
    drop((child, parent));
    assert!(!lock(&model.wire).resets_on_close[0], "all was read");
}
