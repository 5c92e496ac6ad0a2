//! A thousand connections that do nothing take no processor time, of the server or of the client.

use std::{
    io::{BufRead, BufReader},
    process::Stdio,
    thread,
    time::Duration,
};

use crate::{
    command::{are_here, command},
    mode::{End, Mode},
    redis::Redis,
    ticks::ticks,
};

const PYTHON: &str = "/usr/bin/python3";

/// So long nothing is done.
const REST: Duration = Duration::from_secs(10);

/// Ticks of 10 ms in that time. Redis looks after its clients ten times a second, whichever way they come.
const MOST: u64 = 25;

#[test]
fn redis_on_tcp() {
    idle(Mode::Tcp);
}

#[test]
fn redis_promoted() {
    idle(Mode::Eager);
}

fn idle(mode: Mode) {
    if !are_here(&[PYTHON]) {
        return;
    }
    let Some(redis) = Redis::start("redis-idle", mode) else { return };
    let server: u32 = redis.info("process_id").parse().expect("a number");
    let source = redis.scratch.write("idle.py", include_str!("python/redis_idle.py"));
    let mut client = command(PYTHON, &redis.scratch, mode, End::Client);
    client.arg(source).arg(&redis.port).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut client = client.spawn().expect("started");
    let mut says = BufReader::new(client.stdout.take().expect("piped")).lines();
    let mut next = || says.next().expect("it says something").expect("text");
    assert_eq!(next(), "idle");
    redis.scratch.check_promotions(mode, 2000);

    let before = [ticks(server), ticks(client.id())];
    thread::sleep(REST);
    let used = [ticks(server) - before[0], ticks(client.id()) - before[1]];
    assert!(used[0] <= MOST && used[1] <= 2, "ticks of the server and the client: {used:?}");

    drop(client.stdin.take());
    assert_eq!(next(), "awake");
    assert!(client.wait().expect("own child").success());
    redis.shut_down();
}
