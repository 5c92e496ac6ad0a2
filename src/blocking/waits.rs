//! A connection whose calls wait, in the thread that makes them.

use std::{
    io::{self, IoSlice, IoSliceMut},
    sync::Arc,
};

use bytes::BufMut;
use rustix::event::{PollFd, PollFlags};

use super::{
    patience::Patience,
    poll,
    ring::{Attempt, Look, Ring, Way},
    turn::{self, Turn},
};
use crate::{
    dibs::Cause,
    smc::{
        awake::finished,
        connection::Progress,
        hybrid::{self, Hybrid, Ring as _, Tcp},
        scatter::scatter,
    },
};

/// A connection, and whose turn it is to wait for it.
#[derive(Debug)]
pub(crate) struct Waits<T: Tcp> {
    /// First, so that the peer finds the rings closed when it sees the end of the TCP connection.
    pub(crate) hybrid: Hybrid<Ring, T>,
    pub(crate) tcp: Arc<T>,
    reading: Turn,
    writing: Turn,
}

/// A connection in which nothing is under way, and nobody's turn changes.
#[derive(Debug)]
#[must_use]
pub(crate) struct Held<'a> {
    turns: [turn::Held<'a>; 2],
    _hybrid: hybrid::Held<'a>,
}

impl<T: Tcp> Waits<T> {
    pub(crate) fn new(hybrid: Hybrid<Ring, T>, tcp: Arc<T>) -> Self {
        Self { hybrid, tcp, reading: Turn::default(), writing: Turn::default() }
    }

    /// Keeps the connection as it is, for a process that is about to fork.
    pub(crate) fn hold(&self) -> Held<'_> {
        Held { turns: [self.reading.hold(), self.writing.hold()], _hybrid: self.hybrid.hold() }
    }

    /// In the child of a fork, while it is held there.
    pub(crate) fn in_child(&self, held: Held<'_>) {
        self.hybrid.forget_calls();
        held.turns.into_iter().for_each(turn::Held::free);
    }

    pub(crate) fn read(
        &self,
        dst: &mut impl BufMut,
        patience: impl FnOnce() -> Patience,
    ) -> io::Result<usize> {
        if !dst.has_remaining_mut() {
            return Ok(0);
        }
        self.wait_for_data(patience, &mut |look| match look {
            // What an error means is for the hybrid to say; the ring will say it again.
            Look::Ring(connection) => connection.try_read(dst).or_else(|_| self.hybrid.try_read(dst)),
            Look::All => self.hybrid.try_read(dst),
        })
    }

    pub(crate) fn peek(
        &self,
        dst: &mut impl BufMut,
        patience: impl FnOnce() -> Patience,
    ) -> io::Result<usize> {
        if !dst.has_remaining_mut() {
            return Ok(0);
        }
        self.wait_for_data(patience, &mut |look| match look {
            // What is looked at may go on by TCP.
            Look::Ring(connection) if !connection.is_last() => {
                connection.try_peek(dst).or_else(|_| self.hybrid.try_peek(dst))
            }
            _ => self.hybrid.try_peek(dst),
        })
    }

    pub(crate) fn read_vectored(
        &self,
        bufs: &mut [IoSliceMut<'_>],
        patience: impl FnOnce() -> Patience,
    ) -> io::Result<usize> {
        if bufs.iter().all(|buf| buf.is_empty()) {
            return Ok(0);
        }
        self.wait_for_data(patience, &mut |look| match look {
            Look::Ring(connection) => scatter(bufs, &mut |dst| Ok(connection.try_read(dst)?), drop)
                .or_else(|_| self.hybrid.try_read_vectored(bufs)),
            Look::All => self.hybrid.try_read_vectored(bufs),
        })
    }

    fn wait_for_data(
        &self,
        patience: impl FnOnce() -> Patience,
        attempt: &mut Attempt<'_>,
    ) -> io::Result<usize> {
        if let Some(ring) = self.hybrid.ring().filter(|_| self.hybrid.reads_ring())
            && let Some(result) = finished(attempt(Look::Ring(ring.connection())))
        {
            return result;
        }
        let patience = patience();
        // Also for an attempt, while the bytes come by TCP: it may tell the peer that the ring is read, and then nobody
        // must be asleep who looks at the TCP connection alone.
        let _turn = self.reading.take(patience)?;
        loop {
            // Armed, if the ring may bring something: the peer switches only after an attempt of ours, so that who
            // sleeps on the TCP connection alone is not left there.
            if let Some(ring) = self.hybrid.ring().filter(|_| self.hybrid.watches_ring()) {
                let way = || self.way_in();
                if let Some(result) = ring.wait(self.tcp.socket(), Cause::Data, &way, patience, attempt) {
                    return result;
                }
            }
            if let Some(result) = finished(attempt(Look::All)) {
                return result;
            }
            if self.hybrid.begin_read() {
                let slept = self.wait_for_tcp(PollFlags::IN | PollFlags::RDHUP, patience);
                self.hybrid.end_read(0);
                slept?;
            }
        }
    }

    pub(crate) fn write(
        &self,
        bufs: &[IoSlice<'_>],
        patience: impl FnOnce() -> Patience,
    ) -> io::Result<usize> {
        self.wait_for_space(patience, &mut || self.hybrid.try_write(bufs))
    }

    /// Waits until something can be written, or an attempt would fail.
    pub(crate) fn wait_for_room(&self, patience: impl FnOnce() -> Patience) -> io::Result<()> {
        let mut attempt = || {
            let is_there = self.hybrid.is_writable();
            Ok(if is_there { Progress::Done(0) } else { Progress::Blocked })
        };
        self.wait_for_space(patience, &mut attempt).map(drop)
    }

    fn wait_for_space(
        &self,
        patience: impl FnOnce() -> Patience,
        attempt: &mut dyn FnMut() -> io::Result<Progress>,
    ) -> io::Result<usize> {
        if let Some(result) = finished(attempt()) {
            return result;
        }
        let patience = patience();
        loop {
            if let Some(ring) = self.hybrid.ring().filter(|_| self.hybrid.is_writing_ring()) {
                let _turn = self.writing.take(patience)?;
                let way = || self.way_out();
                let attempt = &mut |_: Look<'_>| attempt();
                if let Some(result) = ring.wait(self.tcp.socket(), Cause::Space, &way, patience, attempt) {
                    return result;
                }
            }
            self.wait_for_tcp(PollFlags::OUT, patience)?;
            if let Some(result) = finished(attempt()) {
                return result;
            }
        }
    }

    fn way_in(&self) -> Way {
        match (self.hybrid.reads_ring(), self.hybrid.watches_ring()) {
            (true, _) => Way::Ring,
            (false, true) => Way::Either,
            (false, false) => Way::Tcp,
        }
    }

    fn way_out(&self) -> Way {
        match (self.hybrid.writes_ring(), self.hybrid.is_writing_ring()) {
            (true, _) => Way::Ring,
            (false, true) => Way::Either,
            (false, false) => Way::Tcp,
        }
    }

    fn wait_for_tcp(&self, events: PollFlags, patience: Patience) -> io::Result<()> {
        poll::sleep(&mut [PollFd::from_borrowed_fd(self.tcp.socket(), events)], patience.left()?)
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::Write,
        net::{Shutdown, TcpListener, TcpStream},
        thread,
        time::{Duration, Instant},
    };

    use super::*;
    use crate::{
        SmcConfig,
        smc::{established::Established, pair},
    };

    /// A client that is on rings from its first byte, both ends of the rings, and the server's socket.
    fn client() -> (Waits<TcpStream>, [pair::End; 2], TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let tcp = Arc::new(TcpStream::connect(listener.local_addr().unwrap()).unwrap());
        let stacks = pair::stacks();
        let ends = pair::connect(&stacks, [16_384; 2]);
        let pair::End { stack, group, connection } = &ends[0];
        let peer = stacks[1].devices()[0].gid();
        let config = Arc::new(SmcConfig::new().stack(stack.clone()));
        let hybrid = Hybrid::new(tcp.clone(), config.busy_poll, config);
        let established = Established::new(connection.again(), group.clone(), stack.clone(), peer);
        assert!(hybrid.begin_on_rings(established));
        (Waits::new(hybrid, tcp), ends, listener.accept().unwrap().0)
    }

    fn write(client: &Waits<TcpStream>, bytes: &[u8]) -> io::Result<usize> {
        client.write(&[IoSlice::new(bytes)], || Patience::of(Some(Duration::from_secs(20))))
    }

    /// Looks again and again.
    fn write_restlessly(client: &Waits<TcpStream>, bytes: &[u8]) -> io::Result<usize> {
        let until = Instant::now() + Duration::from_secs(20);
        loop {
            match client.write(&[IoSlice::new(bytes)], || Patience::Never) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock && Instant::now() < until => {}
                other => return other,
            }
        }
    }

    /// By how the server does it that has given up; while the writer is awake, on the futex, or in `poll`.
    #[test]
    fn who_waits_for_room_sees_that_the_server_has_given_up() {
        let fin = |socket: &mut TcpStream| socket.shutdown(Shutdown::Write).unwrap();
        let decline = |socket: &mut TcpStream| socket.write_all(&[0xe2, 0xd4, 0xc3, 0xc4, 4]).unwrap();
        let ways: [fn(&mut TcpStream); 2] = [fin, decline];
        for (way, pause) in ways.into_iter().flat_map(|way| [0, 1, 30, 3].map(|pause| (way, pause))) {
            let write = if pause == 3 { write_restlessly } else { write };
            let (client, _ends, mut socket) = client();
            thread::scope(|scope| {
                let writer = scope.spawn(|| {
                    loop {
                        if let Err(error) = write(&client, &[1; 50_000]) {
                            break error;
                        }
                    }
                });
                thread::sleep(Duration::from_millis(pause));
                way(&mut socket);
                assert_eq!(writer.join().unwrap().kind(), io::ErrorKind::ConnectionReset);
            });
        }
    }

    #[test]
    fn who_waits_for_room_of_a_server_that_writes_no_more_gets_it() {
        let (client, [_, server], socket) = client();
        server.connection.shutdown_write().unwrap();
        socket.shutdown(Shutdown::Write).unwrap();
        while client.hybrid.is_writable() {
            write(&client, &[1; 50_000]).unwrap();
        }
        thread::scope(|scope| {
            let writer = scope.spawn(|| write(&client, &[1]));
            thread::sleep(Duration::from_millis(150));
            assert!(!writer.is_finished());
            let mut got = [0; 50_000];
            assert!(matches!(server.connection.try_read(&mut &mut got[..]), Ok(Progress::Done(1..))));
            assert_eq!(writer.join().unwrap().unwrap(), 1);
        });
    }
}
