//! Two thousand connections at once between two processes, under a descriptor limit of 16,384.

mod common;

use std::time::Duration;

use common::{block_on, cpu_time, descriptors, in_time, role, spawn};
use rustix::process::{Resource, Rlimit, setrlimit};
use smcd::{SmcListener, SmcStream};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    task::JoinSet,
};

const CONNECTIONS: usize = 2000;

fn limit_descriptors() {
    setrlimit(Resource::Nofile, Rlimit { current: Some(16_384), maximum: Some(16_384) }).unwrap();
}

/// The client process: opens all connections at once, says hello on each, then waits.
#[test]
fn crowd() {
    let Some(addr) = role() else { return };
    limit_descriptors();
    block_on(async {
        let mut all = JoinSet::new();
        for number in 0..CONNECTIONS as u32 {
            let addr = addr.clone();
            all.spawn(async move {
                let mut stream = SmcStream::connect_with(addr, &common::in_band()).await.unwrap();
                assert!(stream.transport().is_smcd(), "{}", stream.transport());
                stream.write_all(&number.to_be_bytes()).await.unwrap();
                let mut back = [0; 4];
                stream.read_exact(&mut back).await.unwrap();
                assert_eq!(u32::from_be_bytes(back), !number);
                stream
            });
        }
        let mut streams = all.join_all().await;
        let mut rest = Vec::new();
        // Until the server says that it is done; none of it takes processor time.
        let before = cpu_time();
        streams[0].read_to_end(&mut rest).await.unwrap();
        let used = cpu_time() - before;
        assert!(used <= Duration::from_millis(50), "{used:?} of processor time while idle");
    });
}

#[test]
fn two_thousand_connections_work_and_idle_without_processor_time() {
    if role().is_some() {
        return;
    }
    limit_descriptors();
    block_on(async {
        let listener = SmcListener::bind_with("127.0.0.1:0", common::in_band()).await.unwrap();
        let mut crowd = spawn("crowd", &listener.local_addr().unwrap().to_string());
        let mut all = JoinSet::new();
        for _ in 0..CONNECTIONS {
            let (mut stream, _) = in_time(listener.accept()).await.unwrap();
            all.spawn(async move {
                assert!(stream.transport().is_smcd(), "{}", stream.transport());
                let number = stream.read_u32().await.unwrap();
                stream.write_u32(!number).await.unwrap();
                // From here on each end is asleep in a read.
                tokio::select! {
                    read = stream.read_u8() => panic!("read {read:?}"),
                    () = tokio::time::sleep(Duration::from_secs(8)) => stream,
                }
            });
        }
        tokio::time::sleep(Duration::from_secs(3)).await;
        println!("{} descriptors for {CONNECTIONS} connections", descriptors());
        let before = cpu_time();
        tokio::time::sleep(Duration::from_secs(2)).await;
        let used = cpu_time() - before;
        assert!(used <= Duration::from_millis(50), "{used:?} of processor time while idle");
        let mut streams = in_time(all.join_all()).await;
        for stream in &mut streams {
            stream.shutdown().await.unwrap();
        }
        assert!(tokio::task::spawn_blocking(move || crowd.wait()).await.unwrap().unwrap().success());
    });
}
