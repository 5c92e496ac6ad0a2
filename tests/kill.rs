//! A peer that is killed at any moment: the survivor reads what was published, then the end, and nothing stays behind.

mod common;

use std::time::Duration;

use common::{
    block_on, descriptors, in_time, mappings, names, pattern,
    region::{Fabric, over},
    role, spawn,
};
use smcd::{
    SmcConfig, SmcListener, SmcStream,
    dibs::{
        Device,
        region::{Liveness, Region},
    },
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const ROUNDS: usize = 1000;

/// What the killed process does: writes for ever, or reads very slowly.
#[test]
fn victim() {
    let Some(role) = role() else { return };
    let mut words = role.split(' ');
    let (what, addr) = (words.next().unwrap(), words.next().unwrap());
    // By a region or an ISM function, if one is named; else by loopback.
    let config = match (words.next(), words.next()) {
        (None, _) => common::in_band(),
        (Some(path), None) => over(Region::open(path).unwrap()),
        (Some(path), Some(version)) => over_function(path, version),
    };
    block_on(async {
        let mut stream = SmcStream::connect_with(addr, &config).await.unwrap();
        assert!(stream.transport().is_smcd());
        let mut at = 0;
        loop {
            if what == "writes" {
                let data = pattern(at, 10_000);
                if stream.write_all(&data).await.is_err() {
                    return;
                }
                at += 10_000;
            } else {
                let mut byte = [0; 100];
                if stream.read(&mut byte).await.is_err() {
                    return;
                }
                tokio::time::sleep(Duration::from_micros(200)).await;
            }
        }
    });
}

#[cfg(feature = "vfio-user")]
fn over_function(path: &str, version: &str) -> SmcConfig {
    let function = smcd::dibs::ism::Ism::connect(path).unwrap();
    common::soft_ism::over_ism(function, version.parse().unwrap())
}

#[cfg(not(feature = "vfio-user"))]
fn over_function(_path: &str, _version: &str) -> SmcConfig {
    unreachable!("no test names a function")
}

/// Reads until the end; returns how much came.
async fn read_to_the_end(stream: &mut SmcStream) -> u64 {
    let mut buf = vec![0; 30_000];
    let mut at = 0;
    loop {
        match in_time(stream.read(&mut buf)).await {
            Ok(0) => return at,
            Err(error) => {
                assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "{error}");
                return at;
            }
            Ok(n) => {
                assert!(buf[..n] == pattern(at, n), "wrong bytes at {at}");
                at += n as u64;
            }
        }
    }
}

/// The region that the victim is to be in, if any, comes last; or its function, and the version of SMC-D.
async fn round(listener: &SmcListener, number: usize, region: &str) -> bool {
    let writes = number.is_multiple_of(2);
    let addr = listener.local_addr().unwrap();
    let mut victim = spawn("victim", &format!("{} {addr}{region}", if writes { "writes" } else { "reads" }));
    let (connected, start) = tokio::sync::oneshot::channel();
    // Every tenth round aims at the start, the handshake included; the others at the running connection.
    let early = number % 10 == 9;
    let spread = Duration::from_micros((number as u64 * 7919) % if early { 12_000 } else { 1500 });
    let kill = tokio::spawn(async move {
        if !early {
            start.await.unwrap();
        }
        tokio::time::sleep(spread).await;
        victim.kill().unwrap();
        victim.wait().unwrap();
    });
    let accepted = tokio::time::timeout(
        if early { Duration::from_millis(40) } else { Duration::from_secs(20) },
        listener.accept(),
    );
    let Ok(Ok((mut stream, _))) = accepted.await else {
        assert!(early, "no connection");
        kill.await.unwrap();
        return false;
    };
    // Nobody waits for it in an early round.
    let _ = connected.send(());
    if !early {
        if writes {
            read_to_the_end(&mut stream).await;
        } else {
            let data = pattern(0, 50_000);
            while in_time(stream.write_all(&data)).await.is_ok() {}
        }
    }
    kill.await.unwrap();
    // Whatever it was before, now it is over.
    read_to_the_end(&mut stream).await;
    assert!(in_time(stream.write_all(&[0; 1 << 20])).await.is_err());
    true
}

#[test]
fn nothing_is_lost_and_nothing_stays_behind() {
    if role().is_some() {
        return;
    }
    block_on(async {
        let listener = SmcListener::bind_with("127.0.0.1:0", common::in_band()).await.unwrap();
        for number in 0..20 {
            round(&listener, number, "").await;
        }
        let before = (descriptors(), mappings(), names());
        let mut connected = 0;
        for number in 20..ROUNDS {
            connected += usize::from(round(&listener, number, "").await);
        }
        assert!(connected > ROUNDS / 2, "{connected} rounds reached a connection");
        let after = (descriptors(), mappings(), names());
        // One dead peer's link and buffers may wait for the next peer to be swept out; not a thousand's.
        assert!(after.0 <= before.0 + 8, "descriptors: {before:?}, then {after:?}");
        assert!(after.1 <= before.1 + 8, "mappings: {before:?}, then {after:?}");
        assert!(after.2 <= before.2 + 1, "names: {before:?}, then {after:?}");
    });
}

#[test]
fn a_region_is_as_it_was() {
    if role().is_some() {
        return;
    }
    let fabric = Fabric::new(Liveness::Locks);
    let region = fabric.join();
    let all = region.memory_left(region.gid(), None);
    let name = format!(" {}", fabric.path().display());
    block_on(async {
        let listener = SmcListener::bind_with("127.0.0.1:0", over(region.clone())).await.unwrap();
        let mut connected = 0;
        for number in 0..100 {
            connected += usize::from(round(&listener, number, &name).await);
        }
        assert!(connected > 50, "{connected} rounds reached a connection");
    });
    // Of the last peers something may wait for the next; their slots are free at once.
    assert!(
        region.memory_left(region.gid(), None) >= all / 2,
        "{} of {all}",
        region.memory_left(region.gid(), None)
    );
    let others: Vec<_> = (0..3).map(|_| fabric.join()).collect();
    assert_eq!(others.len(), 3);
}

#[cfg(feature = "vfio-user")]
#[test]
fn a_function_is_free_again() {
    if role().is_some() {
        return;
    }
    for version in [1, 2] {
        let functions = common::ism::Functions::with(&common::soft_ism::settings(2));
        let name = format!(" {} {version}", functions.socket(1).display());
        let function = functions.open(0);
        let all = function.memory_left(function.gid(), None);
        block_on(async {
            let config = common::soft_ism::over_ism(function.clone(), version);
            let listener = SmcListener::bind_with("127.0.0.1:0", config).await.unwrap();
            let mut connected = 0;
            for number in 0..40 {
                connected += usize::from(round(&listener, number, &name).await);
            }
            assert!(connected > 20, "{connected} rounds reached a connection");
        });
        assert!(function.memory_left(function.gid(), None) >= all / 2);
        assert!(!function.is_lost());
        functions.open(1);
    }
}
