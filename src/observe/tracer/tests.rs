//! A tracer comes to no harm, whatever the process that it follows writes.

use std::{fs::File, os::unix::fs::FileExt};

use proptest::prelude::*;
use zerocopy::IntoBytes;

use super::*;
use crate::observe::{
    layout::{LAYOUT_VALUE, LEN, MAGIC_VALUE},
    source::tests::memory,
};

/// A registry, and a tracer that is at this event.
fn tracer(next: u64) -> (File, Tracer) {
    let file = memory(LEN * 8, &[MAGIC_VALUE, LAYOUT_VALUE]);
    let source = Source::new(file.try_clone().unwrap()).unwrap();
    (file, Tracer { source, port: 0, next, lost: 0, incomplete: None, known: HashMap::new() })
}

fn set(file: &File, at: usize, words: &[u64]) {
    file.write_all_at(words.as_bytes(), at as u64 * 8).unwrap();
}

/// Publishes an event as a process does.
fn publish(file: &File, index: u64, which: u64, prod: u64) {
    let mut words = [0; EVENT_WORDS];
    (words[event::SEQ], words[event::WHICH]) = (index + 1, which);
    (words[event::PROD], words[event::CONS]) = (prod, 7);
    set(file, TRACE_AT + (index % EVENTS as u64) as usize * EVENT_WORDS, &words);
    set(file, TRACE_HEAD, &[index + 1]);
}

#[test]
fn what_was_published_before_is_known() {
    let (file, mut tracer) = tracer(0);
    publish(&file, 0, 1, 5);
    publish(&file, 1, 2, 6);
    let events = tracer.poll().unwrap();
    assert_eq!(events.len(), 2);
    assert!(events[0].has_prod && !events[0].has_cons && !events[0].knows_cons);
    assert!(!events[1].has_prod && events[1].knows_prod && events[1].knows_cons);
    assert_eq!(
        (events[1].cdc[8], events[1].cdc[16]),
        if cfg!(target_endian = "little") { (5, 7) } else { (0, 0) }
    );
    assert!(tracer.poll().unwrap().is_empty());
}

#[test]
fn an_event_that_is_never_finished_is_left_out() {
    let (file, mut tracer) = tracer(0);
    publish(&file, 0, 1, 5);
    publish(&file, 2, 1, 5);
    assert_eq!(tracer.poll().unwrap().len(), 1);
    assert_eq!((tracer.poll().unwrap().len(), tracer.lost()), (1, 1));
}

#[test]
fn what_was_overwritten_is_lost() {
    let (file, mut tracer) = tracer(0);
    let last = EVENTS as u64 + 9;
    for index in 0..=last {
        publish(&file, index, 1, index);
    }
    assert_eq!((tracer.poll().unwrap().len(), tracer.lost()), (EVENTS, 10));
}

#[test]
fn the_ring_goes_round() {
    let (file, mut tracer) = tracer(EVENTS as u64 - 1);
    for index in EVENTS as u64 - 1..EVENTS as u64 + 2 {
        publish(&file, index, 3, index);
    }
    assert_eq!((tracer.poll().unwrap().len(), tracer.lost()), (3, 0));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(30))]

    #[test]
    fn nonsense_is_polled_without_harm(
        heads in proptest::collection::vec(prop_oneof![any::<u64>(), 0u64..40_000], 1..6),
        next: u64,
        words in proptest::collection::vec(prop_oneof![any::<u64>(), 0u64..100], 64 * EVENT_WORDS),
    ) {
        let (file, mut tracer) = tracer(next);
        set(&file, TRACE_AT, &words);
        set(&file, TRACE_AT + (EVENTS - 64) * EVENT_WORDS, &words);
        for head in heads {
            set(&file, TRACE_HEAD, &[head]);
            prop_assert!(tracer.poll().unwrap().len() <= EVENTS);
        }
    }
}
