//! Processes: those that a test starts, and what it finds out about itself. Without tokio.
#![allow(dead_code, missing_docs, unreachable_pub)]

use std::{
    env, fs,
    process::{Child, Command, Stdio},
    time::Duration,
};

/// Says what a test process is to be.
pub const ROLE: &str = "SMCD_TEST_ROLE";

/// Runs the test function `name` of this test binary in a process of its own, where [`role`] is `argument`.
pub fn spawn(name: &str, argument: &str) -> Child {
    spawn_with(name, argument, |_| {})
}

/// As [`spawn`], with other settings.
pub fn spawn_with(name: &str, argument: &str, settings: impl FnOnce(&mut Command)) -> Child {
    let mut command = Command::new(env::current_exe().unwrap());
    command.args(["--exact", name, "--nocapture", "--test-threads=1"]).env(ROLE, argument);
    command.stdin(Stdio::piped()).stdout(Stdio::null());
    settings(&mut command);
    command.spawn().unwrap()
}

/// What the parent of a test process wants of it; `None` in the test run itself.
pub fn role() -> Option<String> {
    env::var(ROLE).ok()
}

/// Descriptors of this process, but for that of its registry: there is one from the first connection on.
pub fn descriptors() -> usize {
    let is_registry = |entry: &fs::DirEntry| {
        fs::read_link(entry.path()).is_ok_and(|target| target.to_string_lossy().contains("smcd-registry"))
    };
    fs::read_dir("/proc/self/fd").unwrap().flatten().filter(|entry| !is_registry(entry)).count()
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
