//! A connection that is given back to TCP under a peer that waits: asleep or awake, for data or for room, in a thread or
//! on tokio.

use std::{
    io::{Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    thread,
    time::{Duration, Instant},
};

use socket2::SockRef;

use super::*;
use crate::{BusyPoll, FallbackReason, blocking};

type TcpHybrid = Hybrid<SimRing, TcpStream>;

/// Much more than ring and TCP hold together.
const MUCH: usize = 12_000_000;

/// What TCP holds at either end.
const LITTLE: usize = 64 * 1024;

/// Who gives the connection back, and reads and writes by the socket then.
struct Demoter {
    hybrid: Option<TcpHybrid>,
    tcp: Arc<TcpStream>,
    left: VecDeque<u8>,
}

fn config(stack: &Arc<Stack>, how: BusyPoll) -> SmcConfig {
    SmcConfig::new().promotion(Promotion::Eager).stack(stack.clone()).busy_poll(how)
}

impl Demoter {
    /// And the other end, which is nothing but a socket so far. TCP holds little, or as much as it likes.
    fn new(stack: &Arc<Stack>, holds_little: bool) -> (Self, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let ours = Arc::new(TcpStream::connect(listener.local_addr().unwrap()).unwrap());
        let hybrid = TcpHybrid::new(ours.clone(), (), Arc::new(config(stack, BusyPoll::Off)));
        let theirs = listener.accept().unwrap().0;
        if holds_little {
            SockRef::from(&*ours).set_recv_buffer_size(LITTLE).unwrap();
            SockRef::from(&theirs).set_send_buffer_size(LITTLE).unwrap();
        }
        (Self { hybrid: Some(hybrid), tcp: ours, left: VecDeque::new() }, theirs)
    }

    /// Sends bytes that the peer sends back, the last one once both directions have been switched.
    fn promote(&mut self) {
        let is_switched = |hybrid: &TcpHybrid| hybrid.writes_ring() && hybrid.reads_ring();
        let mut last = false;
        for _ in 0..10_000 {
            self.write(&[u8::from(last)]);
            assert_eq!(self.read(1), [u8::from(last)]);
            if last {
                return;
            }
            last = self.hybrid.as_ref().is_some_and(is_switched);
        }
        panic!("not promoted");
    }

    /// The peer takes back what is unread: all of it, or as much as TCP holds.
    fn demote(&mut self, wholly: bool) {
        let hybrid = self.hybrid.take().unwrap();
        let most = if wholly { 0 } else { usize::MAX };
        hybrid.demote(most, Duration::from_secs(5)).unwrap();
        self.left.extend(take_left(&hybrid));
        assert!(self.left.is_empty() || !wholly);
    }

    fn write(&mut self, data: &[u8]) {
        let Some(hybrid) = &self.hybrid else { return (&*self.tcp).write_all(data).unwrap() };
        let (mut rest, start) = (data, Instant::now());
        while !rest.is_empty() {
            rest = &rest[done(hybrid.try_write(&[IoSlice::new(rest)]), start)..];
        }
    }

    fn read(&mut self, len: usize) -> Vec<u8> {
        let mut got: Vec<u8> = self.left.drain(..self.left.len().min(len)).collect();
        let start = Instant::now();
        while got.len() < len {
            let from = got.len();
            match &self.hybrid {
                Some(hybrid) => {
                    done(hybrid.try_read(&mut (&mut got).limit(len - from)), start);
                }
                None => {
                    got.resize(len.min(from + 100_000), 0);
                    let n = (&*self.tcp).read(&mut got[from..]).unwrap();
                    assert!(n > 0, "the end came after {from} of {len}");
                    got.truncate(from + n);
                }
            }
        }
        got
    }
}

fn done(result: io::Result<Progress>, start: Instant) -> usize {
    assert!(start.elapsed() < Duration::from_secs(20), "hangs");
    match result.unwrap() {
        Progress::Done(n) => n,
        _ => {
            thread::sleep(Duration::from_micros(20));
            0
        }
    }
}

fn bytes(from: usize, len: usize) -> Vec<u8> {
    (from..from + len).map(|at| byte(0, at)).collect()
}

/// The peer sends back what comes; then the connection goes back at some moment of its wait.
fn echoed(stack: &Arc<Stack>, pause: Duration, start_peer: impl FnOnce(TcpStream) -> thread::JoinHandle<()>) {
    let (mut demoter, theirs) = Demoter::new(stack, true);
    theirs.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    demoter.tcp.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let peer = start_peer(theirs);
    demoter.promote();
    demoter.write(&bytes(0, 20_000));
    thread::sleep(pause);
    demoter.demote(true);
    demoter.write(&bytes(20_000, 5000));
    assert_eq!(demoter.read(25_000), bytes(0, 25_000));
    thread::sleep(pause);
    demoter.write(b"more");
    assert_eq!(demoter.read(4), b"more");
    demoter.tcp.shutdown(Shutdown::Write).unwrap();
    peer.join().unwrap();
}

/// The peer writes more than there is room for, and waits; then the connection goes back, and it waits for TCP.
fn overfilled(
    stack: &Arc<Stack>,
    (pause, holds_little): (Duration, bool),
    start_peer: impl FnOnce(TcpStream) -> thread::JoinHandle<()>,
) {
    let (mut demoter, theirs) = Demoter::new(stack, holds_little);
    demoter.tcp.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let peer = start_peer(theirs);
    demoter.promote();
    demoter.write(b"!");
    thread::sleep(pause);
    demoter.demote(!holds_little);
    thread::sleep(pause * 10);
    let start = Instant::now();
    assert!(demoter.read(MUCH) == bytes(0, MUCH));
    assert!(
        start.elapsed() < Duration::from_secs(5),
        "nobody says that there is room: {:?}",
        start.elapsed()
    );
    demoter.tcp.shutdown(Shutdown::Write).unwrap();
    peer.join().unwrap();
}

/// A peer that sends back bytes until one is not zero, and then does the rest.
fn blocking_peer(
    stack: &Arc<Stack>,
    how: BusyPoll,
    rest: fn(&mut blocking::SmcStream),
) -> impl FnOnce(TcpStream) -> thread::JoinHandle<()> {
    let config = config(stack, how);
    move |tcp| {
        thread::spawn(move || {
            let mut stream = blocking::SmcStream::from_std_with(tcp, &config);
            let mut byte = [0];
            while byte == [0] {
                stream.read_exact(&mut byte).unwrap();
                stream.write_all(&byte).unwrap();
            }
            assert!(stream.transport().is_smcd());
            rest(&mut stream);
            assert_eq!(stream.transport().fallback_reason(), Some(FallbackReason::PeerWentBack));
        })
    }
}

const PAUSES: [Duration; 5] = [
    Duration::ZERO,
    Duration::from_micros(30),
    Duration::from_micros(300),
    Duration::from_millis(2),
    Duration::from_millis(20),
];

/// How long the peer has to fall asleep, and whether TCP holds little.
const WAITS: [(Duration, bool); 6] = [
    (PAUSES[1], true),
    (PAUSES[1], false),
    (PAUSES[3], true),
    (PAUSES[4], true),
    (PAUSES[3], false),
    (PAUSES[4], false),
];

#[test]
fn threads_that_wait_for_data() {
    let stacks = pair::stacks();
    for how in [BusyPoll::Adaptive, BusyPoll::Off, BusyPoll::For(Duration::from_millis(1))] {
        for pause in PAUSES {
            let rest = |stream: &mut blocking::SmcStream| {
                let mut buf = [0; 1000];
                loop {
                    match stream.read(&mut buf).unwrap() {
                        0 => break,
                        n => stream.write_all(&buf[..n]).unwrap(),
                    }
                }
            };
            echoed(&stacks[0], pause, blocking_peer(&stacks[1], how, rest));
        }
    }
}

#[test]
fn threads_that_wait_for_room() {
    let stacks = pair::stacks();
    for how in [BusyPoll::Adaptive, BusyPoll::Off] {
        for how_long in WAITS {
            let rest = |stream: &mut blocking::SmcStream| {
                stream.read_exact(&mut [0]).unwrap();
                stream.write_all(&bytes(0, MUCH)).unwrap();
                assert_eq!(stream.read(&mut [0]).unwrap(), 0);
            };
            overfilled(&stacks[0], how_long, blocking_peer(&stacks[1], how, rest));
        }
    }
}

#[cfg(feature = "tokio")]
mod on_tokio {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;
    use crate::SmcStream;

    fn peer<F: AsyncFnOnce(SmcStream) -> SmcStream + Send + 'static>(
        stack: &Arc<Stack>,
        how: BusyPoll,
        rest: F,
    ) -> impl FnOnce(TcpStream) -> thread::JoinHandle<()> + use<F> {
        let config = config(stack, how);
        let run = async move |tcp: TcpStream| {
            tcp.set_nonblocking(true).unwrap();
            let mut stream = SmcStream::from_std_with(tcp, &config).unwrap();
            let mut byte = 0;
            while byte == 0 {
                byte = stream.read_u8().await.unwrap();
                stream.write_u8(byte).await.unwrap();
            }
            assert!(stream.transport().is_smcd());
            let rest = tokio::time::timeout(Duration::from_secs(20), rest(stream));
            let stream = rest.await.expect("hangs");
            assert_eq!(stream.transport().fallback_reason(), Some(FallbackReason::PeerWentBack));
        };
        move |tcp| {
            thread::spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
                runtime.unwrap().block_on(run(tcp));
            })
        }
    }

    #[test]
    fn tasks_that_wait_for_data() {
        let stacks = pair::stacks();
        for how in [BusyPoll::Adaptive, BusyPoll::Off] {
            for pause in PAUSES {
                let rest = async |mut stream: SmcStream| {
                    let mut buf = [0; 1000];
                    loop {
                        match stream.read(&mut buf).await.unwrap() {
                            0 => return stream,
                            n => stream.write_all(&buf[..n]).await.unwrap(),
                        }
                    }
                };
                echoed(&stacks[0], pause, peer(&stacks[1], how, rest));
                // As those do who wait first and attempt then.
                let rest = async |stream: SmcStream| {
                    let mut buf = [0; 1000];
                    loop {
                        stream.readable().await.unwrap();
                        let n = match stream.try_read(&mut buf) {
                            Ok(0) => return stream,
                            Ok(n) => n,
                            Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
                            Err(error) => panic!("{error}"),
                        };
                        write_when_ready(&stream, &buf[..n]).await;
                    }
                };
                echoed(&stacks[0], pause, peer(&stacks[1], how, rest));
            }
        }
    }

    async fn write_when_ready(stream: &SmcStream, mut rest: &[u8]) {
        while !rest.is_empty() {
            stream.writable().await.unwrap();
            match stream.try_write(rest) {
                Ok(n) => rest = &rest[n..],
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => panic!("{error}"),
            }
        }
    }

    #[test]
    fn tasks_that_wait_for_room() {
        let stacks = pair::stacks();
        for how_long in WAITS {
            let rest = async |mut stream: SmcStream| {
                stream.read_u8().await.unwrap();
                stream.write_all(&bytes(0, MUCH)).await.unwrap();
                assert_eq!(stream.read(&mut [0]).await.unwrap(), 0);
                stream
            };
            overfilled(&stacks[0], how_long, peer(&stacks[1], BusyPoll::Adaptive, rest));
            let rest = async |mut stream: SmcStream| {
                stream.read_u8().await.unwrap();
                write_when_ready(&stream, &bytes(0, MUCH)).await;
                assert_eq!(stream.read(&mut [0]).await.unwrap(), 0);
                stream
            };
            overfilled(&stacks[0], how_long, peer(&stacks[1], BusyPoll::Off, rest));
        }
    }

    /// One task waits to be able to read, another to write; both have to notice.
    #[test]
    fn halves_that_wait_at_the_same_time() {
        let stacks = pair::stacks();
        let rest = async |mut stream: SmcStream| {
            stream.read_u8().await.unwrap();
            let data = bytes(0, MUCH);
            let (mut reader, mut writer) = stream.split();
            let mut one = [0];
            let (read, written) = tokio::join!(reader.read(&mut one), writer.write_all(&data));
            written.unwrap();
            assert_eq!(read.unwrap(), 0);
            stream
        };
        overfilled(&stacks[0], WAITS[3], peer(&stacks[1], BusyPoll::Adaptive, rest));
    }
}
