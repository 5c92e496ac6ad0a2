//! A process is killed at each named step of promotion and of the switch: the other loses no byte that was written, and
//! nothing is left behind.
#![allow(missing_docs)]
#![cfg(feature = "failpoints")]

mod common;

use std::{
    io::{BufRead, BufReader, Write},
    os::unix::process::ExitStatusExt,
    process::{Child, Command, Stdio},
    time::Duration,
};

use common::{block_on, descriptors, in_time, pattern, promoting, role};
use rustix::process::{Signal, getpid, kill_process};
use smcd::{Promotion, SmcListener, SmcStream};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// All points, as they are named in the code.
const POINTS: [&str; 13] = [
    "promotion-listening",
    "promotion-connected",
    "promotion-proposed",
    "promotion-met",
    "promotion-accepted",
    "promotion-confirmed",
    "promotion-attached",
    "promotion-agreed",
    "reading-said",
    "switch-wanted",
    "switch-said",
    "switch-found",
    "switch-reached",
];

const ROUNDS: u64 = 60;

/// For so long the one that is to come second does nothing.
const PAUSE: Duration = Duration::from_millis(10);

/// Length of a message: small ones and some that do not fit into a packet.
fn len(round: u64) -> usize {
    if round % 7 == 6 { 40_000 } else { 100 + usize::try_from(round).unwrap() }
}

/// Bytes of all messages before this one.
fn before(round: u64) -> u64 {
    (0..round).map(|round| len(round) as u64).sum()
}

/// What one side sends in this round.
fn message(side: u64, round: u64) -> Vec<u8> {
    pattern(side * 1_000_000_007 + before(round), len(round))
}

#[test]
fn a_process_may_be_killed_at_any_step() {
    if let Some(argument) = role() {
        return block_on(victim(&argument));
    }
    for point in POINTS {
        let mut reached = 0;
        for round in 0..20 {
            // Which of the two comes first to the rendezvous decides who comes to which points. They take turns.
            let pause = [PAUSE, Duration::ZERO][round % 2];
            for (connects, speaks_first) in [(true, true), (true, false), (false, true), (false, false)] {
                reached += usize::from(block_on(in_time(survivor(point, connects, speaks_first, pause))));
            }
            if reached > 0 && round > 0 {
                break;
            }
        }
        assert!(reached > 0, "no process came to {point}");
    }
}

/// Talks to a process that is killed at `point`. True if it came there.
async fn survivor(point: &str, victim_connects: bool, victim_speaks_first: bool, pause: Duration) -> bool {
    let of_victim = (PAUSE - pause).as_millis();
    let before = descriptors();
    let killed = {
        let config = promoting(Promotion::Eager);
        let listener = SmcListener::bind_with("127.0.0.1:0", config.clone()).await.unwrap();
        let addr = listener.local_addr().unwrap();
        let mut child;
        let stream = if victim_connects {
            child = start(&format!("{point} {victim_speaks_first} {of_victim} connect {addr}"));
            listener.accept().await.unwrap().0
        } else {
            child = start(&format!("{point} {victim_speaks_first} {of_victim} listen"));
            let addr = said(&mut child).next().unwrap();
            SmcStream::connect_with(addr, &config).await.unwrap()
        };
        tokio::time::sleep(pause).await;
        let received = talk_to(stream, victim_speaks_first).await;
        let status = child.wait().unwrap();
        let written: u64 = said(&mut child).last().map_or(0, |line| line.parse().unwrap_or(0));
        assert!(received >= written, "{point}: {written} bytes written, {received} received");
        assert!(status.success() || status.signal() == Some(Signal::KILL.as_raw()), "{point}: {status}");
        !status.success()
    };
    // Other tests of this network namespace may have some for a moment.
    let mut patience = 500;
    while names() > 0 {
        patience -= 1;
        assert!(patience > 0, "{point}: a name is left");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    // Those that nobody took are closed by a thread.
    for _ in 0..100 {
        if descriptors() == before {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(descriptors(), before, "{point}: descriptors are left");
    killed
}

fn names() -> usize {
    let names = std::fs::read_to_string("/proc/net/unix").unwrap();
    names.lines().filter(|line| line.contains("@smcd/tcp/")).count()
}

/// Says how many bytes came; each of them is the one that it should be.
async fn talk_to(mut stream: SmcStream, peer_speaks_first: bool) -> u64 {
    let mut received = Vec::new();
    'talk: for round in 0..ROUNDS {
        for to_read in [peer_speaks_first, !peer_speaks_first] {
            if !to_read {
                // The other may be dead by now; what it wrote is still to be read.
                let _ = stream.write_all(&message(0, round)).await;
                continue;
            }
            let until = usize::try_from(before(round + 1)).unwrap();
            while received.len() < until {
                if !matches!(stream.read_buf(&mut received).await, Ok(n) if n > 0) {
                    break 'talk;
                }
            }
        }
    }
    let _ = stream.read_to_end(&mut received).await;
    let expected: Vec<u8> = (0..ROUNDS).flat_map(|round| message(1, round)).collect();
    assert!(expected.starts_with(&received), "{} bytes, but not those that were sent", received.len());
    received.len() as u64
}

fn start(argument: &str) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "a_process_may_be_killed_at_any_step", "--nocapture", "--test-threads=1", "-q"])
        .env(common::ROLE, argument)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

/// The process that is killed when it comes to its point.
async fn victim(argument: &str) {
    let words: Vec<&str> = argument.split(' ').collect();
    fail::cfg_callback(words[0], || kill_process(getpid(), Signal::KILL).unwrap()).unwrap();
    let speaks_first: bool = words[1].parse().unwrap();
    let config = promoting(Promotion::Eager);
    let pause: u64 = words[2].parse().unwrap();
    let mut stream = if words[3] == "connect" {
        SmcStream::connect_with(words[4], &config).await.unwrap()
    } else {
        let listener = SmcListener::bind_with("127.0.0.1:0", config).await.unwrap();
        say(&listener.local_addr().unwrap().to_string());
        listener.accept().await.unwrap().0
    };
    tokio::time::sleep(Duration::from_millis(pause)).await;
    let mut got = Vec::new();
    for round in 0..ROUNDS {
        for to_write in [speaks_first, !speaks_first] {
            if to_write {
                let message = message(1, round);
                let mut done = 0;
                while done < message.len() {
                    done += stream.write(&message[done..]).await.unwrap();
                    say(&(before(round) + done as u64).to_string());
                }
            } else {
                got.resize(len(round), 0);
                stream.read_exact(&mut got).await.unwrap();
                assert!(got == message(0, round));
            }
        }
    }
}

/// What a process has said so far, or says until it ends.
fn said(child: &mut Child) -> impl Iterator<Item = String> {
    // Without a buffer: what is not taken from here stays for the next time.
    let mut output = BufReader::with_capacity(1, child.stdout.as_mut().unwrap());
    std::iter::from_fn(move || {
        let mut line = String::new();
        (output.read_line(&mut line).unwrap() > 0).then_some(line)
    })
    .filter_map(|line| Some(line.strip_prefix('>')?.trim().to_owned()))
}

/// A line that is out when this returns.
fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    out.write_all(format!("\n>{line}\n").as_bytes()).unwrap();
    out.flush().unwrap();
}
