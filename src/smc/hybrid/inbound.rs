//! The direction in which a hybrid reads.

use std::{
    io::{self, IoSliceMut},
    sync::atomic::Ordering,
};

use bytes::BufMut;

use super::{Hybrid, PREAMBLE, Ring, Tcp, lock};
use crate::{
    fault::fault,
    observe::Direction,
    smc::{
        ConnectionError,
        connection::{Connection, Progress},
        scatter::scatter,
        words::{join, split, truth},
    },
    tcp_fallback::FallbackReason,
    unix::errno::errno_of,
};

/// After so many messages by TCP one more look is taken at the side channel, even if there is always more to read.
const LOOK_EVERY: u32 = 4;

/// Where the next byte comes from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum From {
    /// From TCP.
    Tcp,
    /// From TCP; but we have said that we read the ring, and the peer may have switched.
    Either,
    /// From TCP until so many bytes were read, then from the ring.
    TcpUntil(u64),
    /// From the ring.
    Ring,
    /// From TCP. What it brings after so many bytes is what the peer takes back out of the ring; how much that will be, it
    /// has not said yet. The rest of the ring comes after it.
    Undecided(u64),
}

/// How the TCP connection has ended.
#[derive(Debug)]
enum End {
    Fin,
    /// The error is reported once, as by TCP.
    Reset(Option<io::Error>),
}

/// As [`End`], with numbers for errors.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum EndState {
    None,
    Fin,
    Reset(Option<i32>),
}

/// As [`Inbound`], with numbers for errors.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct InboundState {
    from: From,
    taken: u64,
    end: EndState,
    stays: bool,
}

impl InboundState {
    pub(super) fn watches_ring(&self) -> bool {
        self.from != From::Tcp
    }

    pub(super) fn to_words(self) -> [u64; 3] {
        let (from, offset) = match self.from {
            From::Tcp => (0, 0),
            From::Either => (1, 0),
            From::TcpUntil(offset) => (2, offset),
            From::Ring => (3, 0),
            From::Undecided(offset) => (4, offset),
        };
        let (end, errno) = match self.end {
            EndState::None => (0, 0),
            EndState::Fin => (1, 0),
            EndState::Reset(None) => (2, 0),
            EndState::Reset(Some(errno)) => (3, errno.cast_unsigned()),
        };
        let flags = u32::from_le_bytes([from, end, u8::from(self.stays), 0]);
        [join(flags, errno), self.taken, offset]
    }

    /// `None` if no connection can be so.
    pub(super) fn from_words([numbers, taken, offset]: [u64; 3]) -> Option<Self> {
        let (flags, errno) = split(numbers);
        let [from, end, stays, 0] = flags.to_le_bytes() else { return None };
        let from = match (from, offset) {
            (0, 0) => From::Tcp,
            (1, 0) => From::Either,
            (2, offset) if offset >= taken => From::TcpUntil(offset),
            (3, 0) => From::Ring,
            (4, offset) => From::Undecided(offset),
            _ => return None,
        };
        let end = match (end, errno) {
            (0, 0) => EndState::None,
            (1, 0) => EndState::Fin,
            (2, 0) => EndState::Reset(None),
            (3, errno) => EndState::Reset(Some(errno.cast_signed())),
            _ => return None,
        };
        Some(Self { from, taken, end, stays: truth(stays)? })
    }
}

/// What was read from the TCP connection.
enum Got {
    Bytes(usize),
    Nothing,
    Ended,
}

#[derive(Debug)]
pub(super) struct Inbound {
    from: From,
    /// Bytes that the application has got by TCP.
    taken: u64,
    end: Option<End>,
    /// Never to be switched.
    stays: bool,
}

impl Inbound {
    pub(super) fn new(taken: u64) -> Self {
        Self { from: From::Tcp, taken, end: None, stays: false }
    }

    pub(super) fn watches_ring(&self) -> bool {
        self.from != From::Tcp
    }

    pub(super) fn is_on_ring(&self) -> bool {
        self.from == From::Ring
    }

    pub(super) fn recount(&mut self, taken: u64) {
        self.taken = taken;
    }

    pub(super) fn keep_on_tcp(&mut self) {
        self.stays = true;
    }

    /// Nothing goes by TCP.
    pub(super) fn begin_on_ring(&mut self) {
        self.from = From::Ring;
    }

    /// True if the peer has switched, and what it wrote to the ring is still to be read from there.
    pub(super) fn has_switched(&self) -> bool {
        matches!(self.from, From::TcpUntil(_) | From::Ring | From::Undecided(_))
    }

    /// True if the peer takes back what is in the ring, and has not said yet how much of it.
    pub(super) fn is_undecided(&self) -> bool {
        matches!(self.from, From::Undecided(_))
    }

    /// The peer takes back what is in the ring. False if that cannot be.
    pub(super) fn await_return(&mut self) -> bool {
        self.from = match self.from {
            From::TcpUntil(offset) => From::Undecided(offset),
            From::Ring => From::Undecided(self.taken),
            _ => return false,
        };
        true
    }

    /// The peer has sent so many bytes by TCP. False if that cannot be.
    pub(super) fn resolve_return(&mut self, sent: u32) -> bool {
        let From::Undecided(base) = self.from else { return false };
        let until = base.checked_add(sent.into()).filter(|until| *until >= self.taken);
        self.from = until.map_or(self.from, From::TcpUntil);
        until.is_some()
    }

    /// How many of the bytes that the peer takes back have come so far; `None` if others are still to come before.
    pub(super) fn returned_so_far(&self) -> Option<u32> {
        match self.from {
            From::Undecided(base) => u32::try_from(self.taken.checked_sub(base)?).ok(),
            _ => None,
        }
    }

    /// TCP is all that there is to read from now on.
    pub(super) fn go_back(&mut self) {
        self.from = From::Tcp;
        self.stays = true;
    }

    /// The end, as far as this end is concerned.
    pub(super) fn fail(&mut self, error: io::Error) {
        self.end.get_or_insert(End::Reset(Some(error)));
    }

    pub(super) fn state(&self) -> InboundState {
        let end = match &self.end {
            None => EndState::None,
            Some(End::Fin) => EndState::Fin,
            Some(End::Reset(error)) => EndState::Reset(error.as_ref().map(errno_of)),
        };
        InboundState { from: self.from, taken: self.taken, end, stays: self.stays }
    }

    pub(super) fn from_state(state: InboundState) -> Self {
        let InboundState { from, taken, end, stays } = state;
        let end = match end {
            EndState::None => None,
            EndState::Fin => Some(End::Fin),
            EndState::Reset(errno) => Some(End::Reset(errno.map(io::Error::from_raw_os_error))),
        };
        Self { from, taken, end, stays }
    }

    /// True if there is data that nobody has read.
    pub(super) fn has_unread(&self, connection: &Connection, tcp: &impl Tcp) -> bool {
        let in_ring = connection.unread().unwrap_or(0) as usize;
        match self.from {
            From::Tcp => tcp.has_unread(),
            From::Either => in_ring > PREAMBLE || tcp.has_unread(),
            From::TcpUntil(offset) => self.taken < offset || in_ring > 0,
            From::Ring => in_ring > 0,
            From::Undecided(_) => true,
        }
    }

    fn receive(&mut self, tcp: &impl Tcp, dst: &mut impl BufMut) -> Got {
        if self.end.is_some() {
            return Got::Ended;
        }
        let got = self.judge(tcp.receive(dst));
        if let Got::Bytes(n) = got {
            self.taken += n as u64;
        }
        got
    }

    fn judge(&mut self, received: io::Result<usize>) -> Got {
        match received {
            Ok(0) => self.end = Some(End::Fin),
            Ok(n) => return Got::Bytes(n),
            Err(error) if is_for_later(&error) => return Got::Nothing,
            Err(error) => self.end = Some(End::Reset(Some(error))),
        }
        Got::Ended
    }

    /// Nothing is left to read before the end of the TCP connection.
    fn ended(&mut self) -> io::Result<Progress> {
        match &mut self.end {
            Some(End::Reset(error)) => error.take().map_or(Ok(Progress::Eof), Err),
            _ => Ok(Progress::Eof),
        }
    }

    /// The connection has ended before all bytes came that the peer has given to TCP.
    fn cut_off(&mut self) -> io::Result<Progress> {
        match self.ended()? {
            Progress::Eof => Err(io::ErrorKind::ConnectionReset.into()),
            other => Ok(other),
        }
    }
}

fn is_for_later(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}

/// What an attempt does with the bytes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum How {
    Take,
    Peek,
}

impl<R: Ring, T: Tcp> Hybrid<R, T> {
    /// Reads what is there, as much as `dst` takes.
    ///
    /// # Errors
    /// As for TCP. That the peer broke the protocol of the ring is `InvalidData`.
    pub(crate) fn try_read(&self, dst: &mut impl BufMut) -> io::Result<Progress> {
        self.read(How::Take, dst)
    }

    /// Reads what is there into the buffers, one after the other.
    ///
    /// # Errors
    /// As [`Hybrid::try_read`].
    pub(crate) fn try_read_vectored(&self, bufs: &mut [IoSliceMut<'_>]) -> io::Result<Progress> {
        scatter(bufs, &mut |dst| self.try_read(dst), |error| self.put_back(error))
    }

    /// Copies what is there, as much as `dst` takes, and leaves it there.
    ///
    /// # Errors
    /// As [`Hybrid::try_read`].
    pub(crate) fn try_peek(&self, dst: &mut impl BufMut) -> io::Result<Progress> {
        self.read(How::Peek, dst)
    }

    /// The application is about to read from the TCP socket itself, or to wait for it alone. As long as it does, the
    /// direction is not switched. False if what is to be read may come by the ring: then nobody must do so.
    ///
    /// To be followed by [`Hybrid::end_read`].
    pub(crate) fn begin_read(&self) -> bool {
        if self.is_reading_ring() {
            return false;
        }
        // Held until it is counted: who switches looks at the count.
        let inbound = lock(&self.inbound);
        let is_allowed = !inbound.watches_ring();
        if is_allowed {
            self.reads_in_flight.fetch_add(1, Ordering::Relaxed);
        }
        is_allowed
    }

    /// The application has read so many bytes from the TCP socket itself. True if it is time to look at the promotion.
    pub(crate) fn end_read(&self, bytes: usize) -> bool {
        let mut inbound = lock(&self.inbound);
        self.reads_in_flight.fetch_sub(1, Ordering::Relaxed);
        inbound.taken += bytes as u64;
        // Under the lock: others may be at it too.
        bytes > 0 && self.note(Direction::In, bytes).is_multiple_of(LOOK_EVERY)
    }

    /// True if there is something to read, the end included. An error remains to be reported.
    pub(crate) fn is_readable(&self) -> bool {
        match self.try_peek(&mut &mut [0; 1][..]) {
            Ok(Progress::Blocked) => false,
            Ok(_) => true,
            Err(error) => {
                self.put_back(error);
                true
            }
        }
    }

    /// Bytes that can be read now.
    pub(crate) fn unread(&self) -> usize {
        let in_tcp = || self.tcp.unread();
        let Some(connection) = self.ring.get().map(R::connection) else { return in_tcp() };
        let Ok(_turn) = self.turn() else { return 0 };
        let _ = self.follow_in_turn();
        let in_ring = connection.unread().unwrap_or(0) as usize;
        match lock(&self.inbound).from {
            From::Tcp | From::Either | From::Undecided(_) => in_tcp(),
            From::TcpUntil(_) => in_tcp() + in_ring,
            From::Ring if connection.is_last() => in_tcp() + in_ring,
            From::Ring => in_ring,
        }
    }

    /// The peer's urgent byte, if there is one in the ring.
    ///
    /// # Errors
    /// If the peer broke the protocol.
    pub(crate) fn try_read_urgent(&self) -> io::Result<Option<u8>> {
        let _turn = self.turn()?;
        match self.ring.get().filter(|_| self.is_reading_ring()) {
            Some(ring) => Ok(ring.connection().try_read_urgent()?),
            None => Ok(None),
        }
    }

    /// Has the next attempt report an error again. Others stay by themselves.
    fn put_back(&self, error: io::Error) {
        if let Some(End::Reset(reported)) = &mut lock(&self.inbound).end {
            reported.get_or_insert(error);
        }
    }

    fn read(&self, how: How, dst: &mut impl BufMut) -> io::Result<Progress> {
        if !dst.has_remaining_mut() {
            return Ok(Progress::Done(0));
        }
        let _turn = self.turn()?;
        if !self.is_reading_ring() {
            // The ring says so itself when there is nothing to read; as long as there is, a look would cost too much.
            self.follow_in_turn()?;
        }
        self.read_in_turn(how, dst)
    }

    fn read_in_turn(&self, how: How, dst: &mut impl BufMut) -> io::Result<Progress> {
        if self.is_reading_ring() {
            return self.read_ring(how, dst);
        }
        let mut inbound = lock(&self.inbound);
        loop {
            self.advance(&mut inbound)?;
            let got = match inbound.from {
                From::Ring => {
                    drop(inbound);
                    return self.read_ring(how, dst);
                }
                From::Tcp => self.read_tcp(&mut inbound, how, dst, usize::MAX),
                From::Either | From::Undecided(_) => {
                    match self.read_tcp_beside_ring(&mut inbound, how, dst)? {
                        Some(got) => got,
                        None => continue,
                    }
                }
                From::TcpUntil(offset) => {
                    let limit = usize::try_from(offset - inbound.taken).unwrap_or(usize::MAX);
                    self.read_tcp(&mut inbound, how, dst, limit)
                }
            };
            match (got, inbound.from) {
                (Got::Bytes(n), from) if how == How::Peek => {
                    // Who looks for more than TCP has left would never see it otherwise.
                    let is_all = from == From::TcpUntil(inbound.taken + n as u64) && dst.has_remaining_mut();
                    let ring = self.ring.get().filter(|_| is_all);
                    let more = match ring.map(|ring| ring.connection().try_peek(dst)) {
                        Some(Ok(Progress::Done(more))) => more,
                        _ => 0,
                    };
                    return Ok(Progress::Done(n + more));
                }
                (Got::Bytes(n), _) => {
                    if self.note(Direction::In, n).is_multiple_of(LOOK_EVERY) {
                        drop(inbound);
                        self.step();
                    }
                    return Ok(Progress::Done(n));
                }
                (Got::Nothing, From::Tcp) => {
                    if !self.step() {
                        return Ok(Progress::Blocked);
                    }
                }
                (Got::Nothing, _) => return Ok(Progress::Blocked),
                (Got::Ended, From::TcpUntil(_)) => return inbound.cut_off(),
                // The peer may have switched before it ended the connection.
                (Got::Ended, From::Either) => {
                    self.advance(&mut inbound)?;
                    if inbound.from == From::Either {
                        return inbound.ended();
                    }
                }
                (Got::Ended, From::Undecided(_)) => {
                    if let Some(ring) = self.ring.get() {
                        self.end_return(&mut inbound, ring.connection())?;
                    }
                    if inbound.is_undecided() {
                        return inbound.cut_off();
                    }
                }
                (Got::Ended, _) => return inbound.ended(),
            }
        }
    }

    fn read_tcp(&self, inbound: &mut Inbound, how: How, dst: &mut impl BufMut, limit: usize) -> Got {
        let mut room = dst.limit(limit);
        match how {
            How::Take => inbound.receive(&*self.tcp, &mut room),
            How::Peek if inbound.end.is_some() => Got::Ended,
            How::Peek => inbound.judge(self.tcp.peek(&mut room)),
        }
    }

    /// Reads from TCP what surely comes before any bytes in the ring; `None` if there is something in the ring to be
    /// looked at first. The peer may have switched just now, and gone back since, or have sent all that it takes back; but
    /// then it said so before it gave TCP what comes after the ring.
    fn read_tcp_beside_ring(
        &self,
        inbound: &mut Inbound,
        how: How,
        dst: &mut impl BufMut,
    ) -> io::Result<Option<Got>> {
        if inbound.end.is_some() {
            return Ok(Some(Got::Ended));
        }
        let there = match self.tcp.unread() {
            // Perhaps one that is not counted, behind an urgent one.
            0 => match inbound.judge(self.tcp.peek(&mut &mut [0; 1][..])) {
                // Or one of several that have come just now: what was written at once is not torn.
                Got::Bytes(n) => self.tcp.unread().max(n),
                nothing => return Ok(Some(nothing)),
            },
            n => n,
        };
        match self.ring.get().map(R::connection) {
            Some(connection) if inbound.is_undecided() => {
                self.look_for_return(inbound, connection)?;
                if !inbound.is_undecided() {
                    return Ok(None);
                }
            }
            Some(connection) if connection.is_peer_back() => {
                self.find_switch(inbound, connection, true)?;
                return Ok(None);
            }
            _ => {}
        }
        Ok(Some(self.read_tcp(inbound, how, dst, there)))
    }

    /// Looks whether the peer has switched. If not, and it writes nothing more to the ring, it never will.
    pub(super) fn find_switch(
        &self,
        inbound: &mut Inbound,
        connection: &Connection,
        is_back: bool,
    ) -> io::Result<()> {
        match switch_offset(connection) {
            Some(offset) if offset < inbound.taken => {
                return Err(io::Error::new(io::ErrorKind::InvalidData, SwitchedBefore));
            }
            Some(offset) => {
                fault!("switch-found");
                connection.meter().discount(Direction::In, PREAMBLE);
                inbound.from = From::TcpUntil(offset);
            }
            None if is_back => {
                inbound.go_back();
                self.stay_back(inbound, FallbackReason::PeerWentBack);
            }
            None => {}
        }
        Ok(())
    }

    /// Moves on as far as can be told now.
    pub(super) fn advance(&self, inbound: &mut Inbound) -> io::Result<()> {
        let Some(connection) = self.ring.get().map(R::connection) else { return Ok(()) };
        if inbound.from == From::Tcp
            && !inbound.stays
            && inbound.end.is_none()
            && !self.is_shared()
            && self.reads_in_flight.load(Ordering::Relaxed) == 0
        {
            if connection.is_peer_back() {
                inbound.go_back();
                self.stay_back(inbound, FallbackReason::PeerWentBack);
                return Ok(());
            }
            match self.tcp.taken() {
                Ok(taken) if taken == inbound.taken => {
                    connection.announce_reading()?;
                    fault!("reading-said");
                    inbound.from = From::Either;
                    R::comes_into_play(&self.home);
                }
                Err(error) if is_for_later(&error) => {}
                other => {
                    tracing::warn!(kernel = ?other, ours = inbound.taken, "the TCP connection is read by others");
                    inbound.stays = true;
                }
            }
        }
        if inbound.from == From::Either {
            // Before the look at the ring: then nothing can come there any more.
            let is_back = connection.is_peer_back();
            self.find_switch(inbound, connection, is_back)?;
        }
        self.look_for_return(inbound, connection)?;
        if inbound.from == From::TcpUntil(inbound.taken) {
            fault!("switch-reached");
            connection.unbar();
            inbound.from = From::Ring;
            self.reads_ring.store(true, Ordering::Release);
        }
        Ok(())
    }

    fn read_ring(&self, how: How, dst: &mut impl BufMut) -> io::Result<Progress> {
        let Some(connection) = self.ring.get().map(R::connection) else { return Ok(Progress::Eof) };
        let attempt = |dst: &mut _| match how {
            How::Take => connection.try_read(dst),
            How::Peek => connection.try_peek(dst),
        };
        let aborted = match attempt(dst) {
            Ok(Progress::Blocked) => None,
            Err(ConnectionError::BackOnTcp) => return self.read_back(how, dst),
            Err(ConnectionError::AsksForTcp) => return self.read_as_asked(how, dst),
            Err(error @ (ConnectionError::Aborted | ConnectionError::PeerGone)) => Some(error),
            Ok(Progress::Done(n)) if how == How::Peek && connection.is_last() => {
                return Ok(Progress::Done(self.peek_further(connection, n, dst)));
            }
            other => return Ok(other?),
        };
        let mut inbound = lock(&self.inbound);
        if inbound.from != From::Ring {
            // Somebody else has found meanwhile that it goes on by TCP.
            drop(inbound);
            return self.read_in_turn(how, dst);
        }
        if let Some(error) = aborted {
            // Reported once, as TCP does it.
            inbound.end.get_or_insert_with(|| End::Reset(Some(error.into())));
            return inbound.ended();
        }
        let mut has_bytes = false;
        if inbound.end.is_none() {
            match inbound.judge(self.tcp.peek(&mut &mut [0; 1][..])) {
                Got::Nothing => return Ok(Progress::Blocked),
                Got::Bytes(_) => has_bytes = true,
                Got::Ended => {}
            }
        }
        // What the peer published before counts first; it may be that the bytes go by TCP again.
        match attempt(dst) {
            Err(ConnectionError::BackOnTcp) => {
                drop(inbound);
                self.read_back(how, dst)
            }
            Err(ConnectionError::AsksForTcp) => {
                drop(inbound);
                self.read_as_asked(how, dst)
            }
            Ok(Progress::Blocked) if has_bytes => {
                Err(io::Error::new(io::ErrorKind::InvalidData, AfterSwitch))
            }
            Ok(Progress::Blocked) => inbound.ended(),
            other => Ok(other?),
        }
    }

    /// The peer asks for something while there is nothing to read.
    #[cold]
    fn read_as_asked(&self, how: How, dst: &mut impl BufMut) -> io::Result<Progress> {
        self.write_back()?;
        self.read_in_turn(how, dst)
    }

    /// So many bytes of the ring were looked at; if these are the last, TCP brings what follows. Who looks for more than
    /// the ring has would never see it otherwise.
    #[cold]
    fn peek_further(&self, connection: &Connection, seen: usize, dst: &mut impl BufMut) -> usize {
        let mut inbound = lock(&self.inbound);
        let is_all = inbound.from == From::Ring && connection.unread().is_ok_and(|n| n as usize == seen);
        if !is_all || inbound.end.is_some() || !dst.has_remaining_mut() {
            return seen;
        }
        match inbound.judge(self.tcp.peek(dst)) {
            Got::Bytes(n) => seen + n,
            Got::Nothing | Got::Ended => seen,
        }
    }

    /// The ring is empty for good, and the bytes come by TCP again.
    #[cold]
    fn read_back(&self, how: How, dst: &mut impl BufMut) -> io::Result<Progress> {
        let mut inbound = lock(&self.inbound);
        if inbound.from == From::Ring {
            self.read_tcp_again(&mut inbound);
            let by_us = self.ring.get().is_some_and(|ring| ring.connection().has_left());
            let reason = if by_us { FallbackReason::LeftToSystem } else { FallbackReason::PeerWentBack };
            self.stay_back(&mut inbound, reason);
        }
        drop(inbound);
        self.read_in_turn(how, dst)
    }
}

/// The offset at which the peer has switched, if it has.
fn switch_offset(connection: &Connection) -> Option<u64> {
    let mut offset = [0; PREAMBLE];
    // A peer that spoils its ring before it has switched has not switched.
    if (connection.unread().ok()? as usize) < PREAMBLE {
        return None;
    }
    match connection.try_read(&mut &mut offset[..]) {
        Ok(Progress::Done(PREAMBLE)) => Some(u64::from_ne_bytes(offset)),
        _ => None,
    }
}

/// The peer says that it has switched at an offset that lies behind.
#[derive(Debug, thiserror::Error)]
#[error("the peer has switched to shared memory at an offset that was read already")]
struct SwitchedBefore;

/// The peer has sent data by TCP after it had switched, and has not gone back.
#[derive(Debug, thiserror::Error)]
#[error("the peer has sent data by TCP after it had switched to shared memory")]
struct AfterSwitch;
