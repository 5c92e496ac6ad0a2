//! What the tests share: pairs of streams, and other processes.
#![allow(dead_code, missing_docs, unreachable_pub)]

use std::{
    env, fs,
    future::Future,
    process::{Child, Command, Stdio},
    time::Duration,
};

use smcd::{Handshake, Promotion, SmcConfig, SmcListener, SmcStream, Stack, dibs::loopback::DmbLimits};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Settings for handshakes in band, with a stack of their own, as another process has.
pub fn config() -> SmcConfig {
    limited(DmbLimits::default())
}

/// Settings for handshakes in band, with the stack of the process.
pub fn in_band() -> SmcConfig {
    SmcConfig::new().handshake(Handshake::InBand)
}

/// As [`config`], with this much memory.
pub fn limited(limits: DmbLimits) -> SmcConfig {
    in_band().stack(Stack::with_loopback(limits).unwrap())
}

/// Settings for promotion by this policy, with a stack of their own.
pub fn promoting(when: Promotion) -> SmcConfig {
    config().handshake(Handshake::Promotion).promotion(when)
}

/// A connected pair that is promoted, in both directions.
pub async fn promoted_pair() -> (SmcStream, SmcStream) {
    let (mut client, mut server) =
        pair_with(&promoting(Promotion::Eager), &promoting(Promotion::Eager)).await;
    promote(&mut client, &mut server).await;
    (client, server)
}

/// Sends messages to and fro until both directions have been switched.
pub async fn promote(client: &mut SmcStream, server: &mut SmcStream) {
    let switched = |stream: &SmcStream| {
        let counts = stream.byte_counts();
        counts.received > 0 && counts.sent > 0
    };
    for i in 0..200u8 {
        if switched(client) && switched(server) {
            return;
        }
        exchange(client, server, i).await;
        exchange(server, client, i).await;
    }
    panic!("not promoted: {} and {}", client.transport(), server.transport());
}

/// Sends a byte one way.
pub async fn exchange(from: &mut SmcStream, to: &mut SmcStream, byte: u8) {
    let (sending, mut got) = ([byte], [0]);
    let (sent, received) = tokio::join!(from.write_all(&sending), to.read_exact(&mut got));
    sent.unwrap();
    received.unwrap();
    assert_eq!(got, [byte]);
}

/// A connected pair: the client with the first settings, the server with the second.
pub async fn pair_with(client: &SmcConfig, server: &SmcConfig) -> (SmcStream, SmcStream) {
    let listener = SmcListener::bind_with("127.0.0.1:0", server.clone()).await.unwrap();
    let addr = listener.local_addr().unwrap();
    let (client, server) = tokio::join!(SmcStream::connect_with(addr, client), listener.accept());
    (client.unwrap(), server.unwrap().0)
}

/// A connected pair by SMC-D.
pub async fn pair() -> (SmcStream, SmcStream) {
    let (client, server) = pair_with(&config(), &config()).await;
    assert!(client.transport().is_smcd() && server.transport().is_smcd());
    (client, server)
}

/// Fails a test that hangs.
pub async fn in_time<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(Duration::from_secs(20), future).await.expect("hangs")
}

/// Says what a test process is to be.
pub const ROLE: &str = "SMCD_TEST_ROLE";

/// Runs the test function `name` of this test binary in a process of its own, where [`role`] is `argument`.
pub fn spawn(name: &str, argument: &str) -> Child {
    Command::new(env::current_exe().unwrap())
        .args(["--exact", name, "--nocapture", "--test-threads=1"])
        .env(ROLE, argument)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap()
}

/// What the parent of a test process wants of it; `None` in the test run itself.
pub fn role() -> Option<String> {
    env::var(ROLE).ok()
}

/// A runtime with a single thread.
pub fn block_on<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

/// Descriptors of this process.
pub fn descriptors() -> usize {
    fs::read_dir("/proc/self/fd").unwrap().count()
}

/// Mappings of DMBs in this process.
pub fn mappings() -> usize {
    fs::read_to_string("/proc/self/maps").unwrap().lines().filter(|line| line.contains("smcd-dmb")).count()
}

/// Names of loopback devices in this network namespace that listen.
pub fn names() -> usize {
    fs::read_to_string("/proc/net/unix").unwrap().lines().filter(|line| line.contains("@smcd/dibs/")).count()
}

/// Processor time of this process.
pub fn cpu_time() -> Duration {
    // User and system time in clock ticks of 10 ms, after the command in parentheses.
    let stat = fs::read_to_string("/proc/self/stat").unwrap();
    let after = stat.rsplit_once(')').unwrap().1;
    let ticks: u64 =
        after.split_whitespace().skip(11).take(2).map(|field| field.parse::<u64>().unwrap()).sum();
    Duration::from_millis(ticks * 10)
}

/// Bytes without a short period: what is lost, doubled or moved shows.
pub fn pattern(from: u64, len: usize) -> Vec<u8> {
    (from..from + len as u64).map(|i| (i.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8).collect()
}
