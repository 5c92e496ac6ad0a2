//! Snapshots: what is written can be read, and what is not one does no harm.

use super::*;
use crate::smc::hybrid::snapshot::SnapshotError;

/// A connection with rings, on which some steps were taken. Nobody else gets its buffers, whatever becomes of them.
fn after(steps: &[((usize, usize), Op)]) -> Model {
    let mut model = Model::with(&pair::stacks());
    for side in [0, 1] {
        model.step((side, 0), Op::Agree);
    }
    for (who, op) in steps {
        model.step(*who, *op);
    }
    model
}

fn words(model: &Model) -> [u64; Snapshot::WORDS] {
    model.sides[0].processes.as_ref().unwrap().left
}

#[test]
fn memory_without_a_snapshot_is_none() {
    assert_eq!(Snapshot::from_words(&[0; Snapshot::WORDS]), Err(SnapshotError::Garbage));
    assert_eq!(Snapshot::from_words(&[u64::MAX; Snapshot::WORDS]), Err(SnapshotError::Garbage));
}

#[test]
fn a_snapshot_with_rings_is_not_for_one_without() {
    let with = Snapshot::from_words(&words(&after(&[]))).unwrap();
    let mut without = Model::with(&pair::stacks());
    let hybrid = &without.sides[0].processes.as_mut().unwrap().all[0];
    assert_eq!(hybrid.restore(&with), Err(SnapshotError::Foreign));
}

#[test]
fn an_error_of_tcp_is_still_to_be_reported() {
    let mut model = after(&[((0, 0), Op::Fork)]);
    lock(&model.wire).into[0].fin = true;
    lock(&model.wire).reset[0] = true;
    let processes = model.sides[0].processes.as_mut().unwrap();
    assert!(processes.run(0, SimHybrid::is_readable));
    let error = processes.run(1, |hybrid| hybrid.try_read(&mut &mut [0; 9][..])).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    let end = processes.run(0, |hybrid| hybrid.try_read(&mut &mut [0; 9][..])).unwrap();
    assert_eq!(end, Progress::Eof, "but once");
}

#[test]
fn what_is_shared_takes_no_step_to_shared_memory() {
    let mut model = after(&[]);
    for side in &mut model.sides {
        side.processes.as_mut().unwrap().run(0, |hybrid| hybrid.set_shared(true));
    }
    for _ in 0..3 {
        for side in [0, 1] {
            model.step((side, 0), Op::Read(10));
            model.step((side, 0), Op::Write(10));
        }
    }
    let all_tcp = |model: &Model| {
        let hybrids = model.sides.iter().map(|side| &side.processes.as_ref().unwrap().all[0]);
        hybrids.into_iter().all(|hybrid| !hybrid.writes_ring() && !hybrid.watches_ring())
    };
    assert!(all_tcp(&model));
    for side in &mut model.sides {
        side.processes.as_mut().unwrap().run(0, |hybrid| hybrid.set_shared(false));
    }
    model.step((0, 0), Op::Read(100));
    model.step((1, 0), Op::Write(10));
    assert!(!all_tcp(&model));
    model.finish();
}

#[test]
fn who_abandons_says_nothing() {
    let mut model = after(&[((0, 0), Op::Fork)]);
    for _ in 0..2 {
        for side in [0, 1] {
            model.step((side, 0), Op::Read(10));
            model.step((side, 0), Op::Write(10));
        }
    }
    // With unread data, which closing would make a reset.
    model.step((1, 0), Op::Write(10));
    model.step((0, 0), Op::Abandon);
    assert!(!lock(&model.wire).resets_on_close[0]);
    model.step((0, 0), Op::Write(100));
    model.step((1, 0), Op::Write(100));
    model.finish();
}

#[test]
fn nobody_holds_a_lock_after_a_fork() {
    let model = after(&[]);
    let hybrid = &model.sides[0].processes.as_ref().unwrap().all[0];
    let held = hybrid.hold();
    assert!(hybrid.inbound.try_lock().is_err() && hybrid.outbound.try_lock().is_err());
    assert!(hybrid.negotiation.try_lock().is_err() && hybrid.reason.try_lock().is_err());
    drop(held);
    assert!(hybrid.try_write(&[IoSlice::new(b"x")]).is_ok());
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn words_are_what_they_stand_for(
        steps in prop::collection::vec(((0..2usize, 0..6usize), op()), 0..60),
    ) {
        let model = after(&steps);
        for side in &model.sides {
            if let Some(processes) = &side.processes {
                let snapshot = Snapshot::from_words(&processes.left).unwrap();
                prop_assert_eq!(snapshot.to_words(), processes.left);
            }
        }
    }

    /// A snapshot that was spoilt is refused, or is the state of some connection: nothing panics or hangs.
    #[test]
    fn a_spoilt_snapshot_does_no_harm(
        steps in prop::collection::vec(((0..2usize, 0..6usize), op()), 0..60),
        which in 0..Snapshot::WORDS,
        word: u64,
        small in 0..300u64,
        how in 0..4,
    ) {
        let mut model = after(&steps);
        let Some(processes) = &mut model.sides[0].processes else { return Ok(()) };
        let mut spoilt = processes.left;
        spoilt[which] = match how {
            0 => word,
            1 => spoilt[which] ^ small,
            2 => spoilt[which] ^ (small << 32),
            _ => spoilt[which] ^ (small << 48),
        };
        let hybrid = &processes.all[0];
        if Snapshot::from_words(&spoilt).is_ok_and(|spoilt| hybrid.restore(&spoilt).is_ok()) {
            let _ = hybrid.try_write(&[IoSlice::new(&[0; 100])]);
            let _ = hybrid.try_read(&mut &mut [0; 100][..]);
            let _ = hybrid.is_readable();
            let _ = hybrid.is_writable();
            let _ = hybrid.shutdown_write();
        }
        // The others know a state that was not spoilt.
        processes.all.clear();
    }

    #[test]
    fn any_words_are_read(words: [u64; Snapshot::WORDS]) {
        let mut words = words;
        let _ = Snapshot::from_words(&words);
        words[0] = u64::from_be_bytes(*b"SMCSNAP1");
        let _ = Snapshot::from_words(&words);
    }
}
