//! What the two ends of a case's connections say to each other.

use std::{
    fmt,
    fs::File,
    net::SocketAddr,
    os::fd::{AsFd, OwnedFd},
    sync::Barrier,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use rustix::pipe::{PipeFlags, pipe_with};

use crate::{
    bench,
    case::Stack,
    machine,
    party::{Client, Party, Server},
    payload::{compare, expect, pattern, send},
    seen::Way,
};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Talk {
    /// Two connections, one after the other: where they are SMC-D, the second one has a link group.
    Greeting,
    /// Little and much, on one connection.
    Sizes,
    /// Very much.
    Much,
    /// Both at the same time.
    BothWays,
    /// One says that it has sent all, and reads on; on the second connection the other one.
    HalfClose,
    /// One closes with unread data; then the other one.
    Abort,
    /// Urgent bytes.
    Urgent,
    /// Rings of all sizes.
    Rings,
    /// Many connections at once.
    Crowd,
    /// While another endpoint of the region writes all the time what it likes, wherever it may.
    Intruded,
    /// One sends, closes and has gone from the region before the other one reads.
    LastWords,
    /// Connections that are made at the same time, before there is a link group.
    Rush,
    /// Linux' driver goes, and comes back.
    NoDriver,
    /// The process at the other end is killed, and another comes.
    NoPeer,
    /// The machine at the other end is killed, and is started again.
    NoMachine,
    /// The machine is killed.
    Killed,
    /// No case: it is measured.
    Bench,
}

/// Bytes that lie in a pipe while the driver is removed.
const SPLICED: usize = 20_000;

/// Bytes that go each way.
const PAYLOAD: usize = 200_000;

/// Around the sizes of rings, and what is far less and more.
const SIZES: [usize; 14] =
    [1, 2, 31, 32, 33, 1000, 4096, 16_351, 16_352, 16_353, 65_504, 65_505, 1_000_000, 10_000_000];

const MUCH: usize = 100_000_000;
const AT_THE_SAME_TIME: usize = 8_000_000;

/// More than a ring.
const AFTER_THE_END: usize = 300_000;

/// Less than a ring, so that it can be sent to who does not read.
const UNREAD: usize = 10_000;

/// Sizes of buffers; the ring is 32 bytes less.
pub(crate) const RINGS: [usize; 7] = [16 << 10, 32 << 10, 64 << 10, 128 << 10, 256 << 10, 512 << 10, 1 << 20];

const CROWD: usize = 50;
const IN_CROWD: usize = 20_000;

const RUSH: usize = 16;

/// In which an end sees that its peer has gone.
const SOON: Duration = Duration::from_secs(10);

/// In which what was sent has arrived, if anything has.
pub(crate) const ARRIVAL: Duration = Duration::from_millis(300);

impl Talk {
    pub(crate) const ALL: [Self; 16] = [
        Self::Greeting,
        Self::Sizes,
        Self::Much,
        Self::BothWays,
        Self::HalfClose,
        Self::Abort,
        Self::Urgent,
        Self::Rings,
        Self::Crowd,
        Self::Intruded,
        Self::LastWords,
        Self::Rush,
        Self::NoDriver,
        Self::NoPeer,
        Self::NoMachine,
        Self::Killed,
    ];

    /// Between which client and server alone it is played, since something ends that they have.
    pub(crate) fn ends_what(self) -> Option<(Stack, Stack)> {
        match self {
            Self::LastWords => Some((Stack::Endpoint, Stack::Linux)),
            Self::NoDriver | Self::NoPeer | Self::Killed => Some((Stack::Linux, Stack::Endpoint)),
            Self::NoMachine => Some((Stack::Linux, Stack::Guest)),
            _ => None,
        }
    }

    /// How many connections are made.
    pub(crate) fn connections(self) -> usize {
        match self {
            Self::Greeting
            | Self::HalfClose
            | Self::Abort
            | Self::Intruded
            | Self::NoPeer
            | Self::NoMachine => 2,
            Self::NoDriver => 3,
            Self::Rings => RINGS.len(),
            Self::Crowd => CROWD,
            Self::Rush => RUSH,
            Self::Sizes
            | Self::Much
            | Self::BothWays
            | Self::Urgent
            | Self::Killed
            | Self::LastWords
            | Self::Bench => 1,
        }
    }

    /// Longer than this it never takes.
    pub(crate) fn limit(self) -> Duration {
        Duration::from_secs(match self {
            Self::Much | Self::NoMachine | Self::Bench => 120,
            _ => 40,
        })
    }

    /// What is said, for the table.
    pub(crate) fn words(self) -> &'static str {
        match self {
            Self::Greeting => "200 KB each way, twice",
            Self::Sizes => "1 byte to 10 MB, each way",
            Self::Much => "100 MB to the server",
            Self::BothWays => "8 MB each way at the same time",
            Self::HalfClose => "half-close, by each end",
            Self::Abort => "closed with unread data, by each end",
            Self::Urgent => "an urgent byte each way",
            Self::Rings => "buffers of 16 KiB to 1 MiB, three times round",
            Self::Crowd => "50 connections at once",
            Self::Intruded => "as two of the above, beside a hostile endpoint",
            Self::LastWords => "the client's device goes with unread data",
            Self::Rush => "16 connections made at the same time, all of them first",
            Self::NoDriver => "Linux' driver is removed and comes back",
            Self::NoPeer => "the library's process is killed, another comes",
            Self::NoMachine => "the other machine's QEMU is killed, and started again",
            Self::Killed => "QEMU is killed",
            Self::Bench => "",
        }
    }
}

impl fmt::Display for Talk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Greeting => "greeting",
            Self::Sizes => "sizes",
            Self::Much => "much",
            Self::BothWays => "both-ways",
            Self::HalfClose => "half-close",
            Self::Abort => "abort",
            Self::Urgent => "urgent",
            Self::Rings => "rings",
            Self::Crowd => "crowd",
            Self::Intruded => "intruded",
            Self::LastWords => "last-words",
            Self::Rush => "rush",
            Self::NoDriver => "driver-removed",
            Self::NoPeer => "process-killed",
            Self::NoMachine => "other-machine-killed",
            Self::Killed => "machine-killed",
            Self::Bench => "bench",
        })
    }
}

type Stream = Box<dyn Party>;

/// The client's part.
pub(crate) fn ask_all(talk: Talk, client: &Client, server: SocketAddr) -> anyhow::Result<Vec<Way>> {
    let connect = || client.connect(server, None).context("connecting");
    match talk {
        Talk::Greeting => Ok(vec![ask_once(connect()?)?, ask_once(connect()?)?]),
        Talk::Sizes => one(ask_sizes(connect()?)),
        Talk::Much => one(ask_much(connect()?)),
        Talk::BothWays => one(both_ways(connect()?, [1, 2])),
        Talk::HalfClose => Ok(vec![end_first(connect()?)?, end_last(connect()?)?]),
        Talk::Abort => Ok(vec![be_aborted(connect()?)?, abort(connect()?)?]),
        Talk::Urgent => one(ask_urgently(connect()?)),
        Talk::LastWords => one(say_last_words(connect()?)),
        Talk::Intruded => Ok(vec![ask_sizes(connect()?)?, both_ways(connect()?, [1, 2])?]),
        Talk::Rings => {
            RINGS.into_iter().map(|ring| go_round(client.connect(server, Some(ring))?, ring)).collect()
        }
        Talk::Crowd => all_at_once((0..CROWD).map(|_| connect()).collect::<Result<_, _>>()?, ask_in_crowd),
        Talk::Rush => {
            let start = Barrier::new(RUSH);
            all_at_once(vec![(); RUSH], |()| {
                start.wait();
                ask_in_crowd(connect()?)
            })
        }
        Talk::NoDriver => {
            let mut first = connect()?;
            let way = ask(&mut first)?;
            let spliced = splice_in(&mut first)?;
            let mut removal = machine::begin_removal()?;
            see_end(first)?;
            removal.has_to_wait()?;
            expect(&mut File::from(spliced), 3, SPLICED)?;
            removal.end()?;
            let without = ask_once(connect()?)?;
            machine::insert_driver()?;
            Ok(vec![way, without, ask_once(connect()?)?])
        }
        // With what is to end in between, or is measured, see `guest`.
        Talk::NoPeer | Talk::NoMachine | Talk::Killed | Talk::Bench => one(ask_once(connect()?)),
    }
}

/// The server's part.
pub(crate) fn serve_all(talk: Talk, server: &mut Server) -> anyhow::Result<Vec<Way>> {
    if talk == Talk::Rings {
        return serve_rings(server);
    }
    let accept = || server.accept().context("accepting");
    match talk {
        Talk::Greeting => Ok(vec![serve(accept()?)?, serve(accept()?)?]),
        Talk::Sizes => one(serve_sizes(accept()?)),
        Talk::Much => one(serve_much(accept()?)),
        Talk::BothWays => one(both_ways(accept()?, [2, 1])),
        Talk::HalfClose => Ok(vec![end_last(accept()?)?, end_first(accept()?)?]),
        Talk::Abort => Ok(vec![abort(accept()?)?, be_aborted(accept()?)?]),
        Talk::Urgent => one(serve_urgently(accept()?)),
        Talk::LastWords => one(hear_last_words(accept()?)),
        Talk::Intruded => Ok(vec![serve_sizes(accept()?)?, both_ways(accept()?, [2, 1])?]),
        Talk::Crowd => all_at_once((0..CROWD).map(|_| accept()).collect::<Result<_, _>>()?, serve_in_crowd),
        Talk::Rush => all_at_once(vec![(); RUSH], |()| serve_in_crowd(accept()?)),
        Talk::NoDriver => {
            let mut first = accept()?;
            let way = answer(&mut first)?;
            send(&mut first, 3, SPLICED)?;
            let began = Instant::now();
            first.see_reset()?;
            ensure!(began.elapsed() < SOON, "the reset comes after {:?}", began.elapsed());
            Ok(vec![way, serve(accept()?)?, serve(accept()?)?])
        }
        Talk::Bench => one(bench::serve(accept()?)),
        Talk::Rings | Talk::NoPeer | Talk::NoMachine | Talk::Killed => one(serve(accept()?)),
    }
}

fn one(way: anyhow::Result<Way>) -> anyhow::Result<Vec<Way>> {
    Ok(vec![way?])
}

/// Sends, and gets other bytes back.
pub(crate) fn ask(stream: &mut Stream) -> anyhow::Result<Way> {
    send(stream, 1, PAYLOAD)?;
    expect(stream, 2, PAYLOAD)?;
    Ok(stream.way())
}

/// And closes.
pub(crate) fn ask_once(mut stream: Stream) -> anyhow::Result<Way> {
    ask(&mut stream)
}

pub(crate) fn answer(stream: &mut Stream) -> anyhow::Result<Way> {
    expect(stream, 1, PAYLOAD)?;
    send(stream, 2, PAYLOAD)?;
    Ok(stream.way())
}

/// Answers, till the end.
fn serve(mut stream: Stream) -> anyhow::Result<Way> {
    let way = answer(&mut stream)?;
    at_end(&mut stream)?;
    Ok(way)
}

fn at_end(stream: &mut Stream) -> anyhow::Result<()> {
    ensure!(stream.read(&mut [0])? == 0, "bytes behind the last one");
    Ok(())
}

/// Takes as many bytes into a pipe, which outlives the stream.
fn splice_in(stream: &mut Stream) -> anyhow::Result<OwnedFd> {
    let (out, into) = pipe_with(PipeFlags::CLOEXEC)?;
    let mut left = SPLICED;
    while left > 0 {
        let moved = stream.splice(into.as_fd(), left).context("splicing")?;
        ensure!(moved > 0, "an end, and {left} bytes left to be spliced");
        left -= moved;
    }
    Ok(out)
}

fn ask_sizes(mut stream: Stream) -> anyhow::Result<Way> {
    for (seed, size) in (1..).zip(SIZES) {
        send(&mut stream, seed, size)?;
        expect(&mut stream, seed + 100, size).with_context(|| format!("{size} bytes back"))?;
    }
    Ok(stream.way())
}

fn serve_sizes(mut stream: Stream) -> anyhow::Result<Way> {
    for (seed, size) in (1..).zip(SIZES) {
        expect(&mut stream, seed, size).with_context(|| format!("{size} bytes"))?;
        send(&mut stream, seed + 100, size)?;
    }
    at_end(&mut stream)?;
    Ok(stream.way())
}

fn ask_much(mut stream: Stream) -> anyhow::Result<Way> {
    send(&mut stream, 1, MUCH)?;
    expect(&mut stream, 2, 1)?;
    Ok(stream.way())
}

fn serve_much(mut stream: Stream) -> anyhow::Result<Way> {
    expect(&mut stream, 1, MUCH)?;
    send(&mut stream, 2, 1)?;
    at_end(&mut stream)?;
    Ok(stream.way())
}

fn both_ways(mut stream: Stream, [own, others]: [u64; 2]) -> anyhow::Result<Way> {
    let mut got = vec![0; AT_THE_SAME_TIME];
    stream.both_ways(&pattern(own, AT_THE_SAME_TIME), &mut got)?;
    compare(&got, &pattern(others, AT_THE_SAME_TIME), 0)?;
    Ok(stream.way())
}

fn end_first(mut stream: Stream) -> anyhow::Result<Way> {
    send(&mut stream, 1, PAYLOAD)?;
    stream.finish_writing()?;
    ensure!(stream.write(&[0]).is_err(), "something can be written after the end");
    expect(&mut stream, 2, AFTER_THE_END).context("after the end of our own")?;
    at_end(&mut stream)?;
    Ok(stream.way())
}

fn end_last(mut stream: Stream) -> anyhow::Result<Way> {
    expect(&mut stream, 1, PAYLOAD)?;
    at_end(&mut stream)?;
    send(&mut stream, 2, AFTER_THE_END).context("after the peer's end")?;
    Ok(stream.way())
}

fn abort(mut stream: Stream) -> anyhow::Result<Way> {
    expect(&mut stream, 1, 1)?;
    thread::sleep(ARRIVAL);
    Ok(stream.way())
}

fn be_aborted(mut stream: Stream) -> anyhow::Result<Way> {
    send(&mut stream, 1, UNREAD)?;
    stream.see_reset()?;
    Ok(stream.way())
}

fn say_last_words(mut stream: Stream) -> anyhow::Result<Way> {
    send(&mut stream, 1, UNREAD)?;
    Ok(stream.way())
}

fn hear_last_words(mut stream: Stream) -> anyhow::Result<Way> {
    thread::sleep(ARRIVAL);
    expect(&mut stream, 1, UNREAD)?;
    at_end(&mut stream)?;
    Ok(stream.way())
}

/// Ours is no more.
pub(crate) fn see_end(mut stream: Stream) -> anyhow::Result<()> {
    let began = Instant::now();
    if let Ok(bytes) = stream.read(&mut [0]) {
        ensure!(bytes == 0, "bytes from nowhere");
    }
    ensure!(began.elapsed() < SOON, "the end comes after {:?}", began.elapsed());
    ensure!(stream.write(&[0]).is_err(), "something can be written to nobody");
    Ok(())
}

/// The urgent byte comes before those that were sent before it, and the stream goes on after it.
fn ask_urgently(mut stream: Stream) -> anyhow::Result<Way> {
    say_urgently(&mut stream, b'!', 1)?;
    hear_urgently(&mut stream, b'?', 2)?;
    ask_once(stream)
}

fn serve_urgently(mut stream: Stream) -> anyhow::Result<Way> {
    hear_urgently(&mut stream, b'!', 1)?;
    say_urgently(&mut stream, b'?', 2)?;
    serve(stream)
}

fn say_urgently(stream: &mut Stream, byte: u8, seed: u64) -> anyhow::Result<()> {
    send(stream, seed, 3)?;
    stream.send_urgent(byte).context("sending an urgent byte")
}

fn hear_urgently(stream: &mut Stream, byte: u8, seed: u64) -> anyhow::Result<()> {
    let until = Instant::now() + SOON;
    let got = loop {
        match stream.receive_urgent() {
            Ok(got) => break got,
            Err(error) if Instant::now() > until => return Err(error).context("no urgent byte comes"),
            Err(_) => thread::sleep(Duration::from_millis(5)),
        }
    };
    ensure!(got == byte, "the urgent byte is {got}");
    expect(stream, seed, 3).context("before an urgent byte")
}

/// Three times round each ring, and not to its end.
fn bytes_of(ring: usize) -> usize {
    3 * ring + 7
}

fn go_round(mut stream: Stream, ring: usize) -> anyhow::Result<Way> {
    send(&mut stream, 1, bytes_of(ring))?;
    expect(&mut stream, 2, bytes_of(ring)).with_context(|| format!("a buffer of {ring}"))?;
    Ok(stream.way())
}

fn serve_rings(server: &mut Server) -> anyhow::Result<Vec<Way>> {
    let mut ways = Vec::new();
    for (ring, next) in RINGS.into_iter().zip(RINGS.into_iter().skip(1).chain([RINGS[0]])) {
        let mut stream = server.accept()?;
        expect(&mut stream, 1, bytes_of(ring)).with_context(|| format!("a buffer of {ring}"))?;
        // Before the client can come again.
        server.set_ring(next)?;
        send(&mut stream, 2, bytes_of(ring))?;
        at_end(&mut stream)?;
        ways.push(stream.way());
    }
    Ok(ways)
}

/// A thread for each.
fn all_at_once<T: Send>(
    all: Vec<T>,
    each: impl Fn(T) -> anyhow::Result<Way> + Sync,
) -> anyhow::Result<Vec<Way>> {
    let each = &each;
    thread::scope(|scope| {
        let threads: Vec<_> = all.into_iter().map(|one| scope.spawn(move || each(one))).collect();
        threads.into_iter().map(|thread| thread.join().ok().context("a panic")?).collect()
    })
}

fn ask_in_crowd(mut stream: Stream) -> anyhow::Result<Way> {
    send(&mut stream, 1, IN_CROWD)?;
    expect(&mut stream, 2, IN_CROWD)?;
    Ok(stream.way())
}

fn serve_in_crowd(mut stream: Stream) -> anyhow::Result<Way> {
    expect(&mut stream, 1, IN_CROWD)?;
    send(&mut stream, 2, IN_CROWD)?;
    at_end(&mut stream)?;
    Ok(stream.way())
}
