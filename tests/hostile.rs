//! A peer that writes garbage over everything it can write, while data flows.

mod common;

use std::{fs, time::Duration};

use common::{block_on, in_time, random::Random, role, spawn};
use smcd::{SmcListener, SmcStream};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Scribbles over every DMB that this process maps: its own and those of its peer, rings, CDC slots and signal words.
fn scribble(random: &mut Random, slots_only: bool) {
    for line in fs::read_to_string("/proc/self/maps").unwrap().lines().filter(|l| l.contains("smcd-dmb")) {
        let (start, end) = line.split_whitespace().next().unwrap().split_once('-').unwrap();
        let start = usize::from_str_radix(start, 16).unwrap();
        let len = usize::from_str_radix(end, 16).unwrap() - start;
        for _ in 0..50 {
            // The CDC slot, the signal words behind the DMB, or anywhere.
            let at = match random.next() % 3 {
                0 => (random.next() % 4) as usize * 8,
                1 => len - 4096 + (random.next() % 16) as usize * 8,
                _ if slots_only => 8,
                _ => (random.next() as usize % len) & !7,
            };
            let value = match random.next() % 4 {
                0 => 0,
                1 => u64::MAX,
                2 => (random.next() % 70_000) << 16,
                _ => random.next(),
            };
            // SAFETY: the mapping is this process' own and stays; whatever it holds is only data to us.
            unsafe { std::ptr::with_exposed_provenance_mut::<u64>(start + at).write_volatile(value) };
        }
    }
}

#[test]
fn vandal() {
    let Some(role) = role() else { return };
    let (seed, addr) = role.split_once(' ').unwrap();
    let mut random = Random::new(seed.parse().unwrap());
    block_on(async {
        let mut stream = SmcStream::connect_with(addr, &common::in_band()).await.unwrap();
        assert!(stream.transport().is_smcd());
        for round in 0..200 {
            // Our own end may find the connection broken at any time.
            let _ = stream.try_write(&[7; 5000]);
            let _ = stream.try_read(&mut [0; 5000]);
            scribble(&mut random, round % 2 == 0);
            if round % 50 == 0 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
        let _ = tokio::time::timeout(Duration::from_millis(10), stream.shutdown()).await;
    });
    // Not in an orderly way: destructors would run on what we have scribbled over.
    std::process::exit(0);
}

#[test]
fn a_scribbling_peer_ends_in_data_or_an_error() {
    if role().is_some() {
        return;
    }
    block_on(async {
        let listener = SmcListener::bind_with("127.0.0.1:0", common::in_band()).await.unwrap();
        let addr = listener.local_addr().unwrap();
        for seed in 0..60 {
            let mut vandal = spawn("vandal", &format!("{seed} {addr}"));
            let (stream, _) = in_time(listener.accept()).await.unwrap();
            let (mut read, mut write) = stream.into_split();
            let reader = tokio::spawn(async move {
                let mut buf = vec![0; 20_000];
                while let Ok(n @ 1..) = read.read(&mut buf).await {
                    assert!(n <= buf.len());
                }
                read
            });
            let writer = tokio::spawn(async move {
                while write.write_all(&[1; 20_000]).await.is_ok() {}
                write
            });
            // Both come to an end: at the latest when the vandal's process does.
            in_time(reader).await.unwrap();
            in_time(writer).await.unwrap();
            assert!(vandal.wait().unwrap().success());
        }
        // And the listener is as good as new.
        let mut good = spawn("honest", &addr.to_string());
        let (mut stream, _) = in_time(listener.accept()).await.unwrap();
        assert!(stream.transport().is_smcd());
        let mut text = String::new();
        in_time(stream.read_to_string(&mut text)).await.unwrap();
        assert_eq!(text, "honest");
        drop(stream);
        assert!(good.wait().unwrap().success());
    });
}

#[test]
fn honest() {
    let Some(addr) = role() else { return };
    block_on(async {
        let mut stream = SmcStream::connect_with(addr, &common::in_band()).await.unwrap();
        stream.write_all(b"honest").await.unwrap();
        stream.shutdown().await.unwrap();
        assert_eq!(stream.read(&mut [0]).await.unwrap(), 0);
    });
}
