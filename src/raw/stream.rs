//! `RawStream`: what goes beside a TCP socket of somebody else.

use std::{
    io::{self, IoSlice, IoSliceMut},
    net::{IpAddr, Shutdown, SocketAddr},
    os::fd::{AsFd, BorrowedFd},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicI64, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::BufMut;
use rustix::{
    event::{PollFd, PollFlags},
    time::{ClockId, clock_gettime},
};

use super::{
    Need, Shaken, Socket,
    handshake::{End, Handshake},
};
use crate::{
    FallbackReason, SmcConfig, Transport,
    blocking::{
        patience::Patience,
        poll, pollers,
        waits::{self, Waits},
    },
    dibs::Cause,
    smc::{
        ByteCounts,
        connection::{Connection, Progress},
        hybrid::{Baton, Counts, DemoteError, Hybrid, Ring as _, Snapshot, Tcp as _},
        in_band::{Client, TENDING},
    },
    tcp_fallback::{promotion::is_peer_here, syn_option},
    unix::Kept,
};

/// Words that a process leaves to the next ([`Baton`]).
pub const SNAPSHOT: usize = Snapshot::WORDS;

/// What goes beside a TCP socket that belongs to somebody else; see [the module](super).
///
/// Any number of threads may use it at a time.
#[derive(Debug)]
pub struct RawStream {
    waits: Waits<Socket>,
    /// When a read that found nothing last asked the TCP connection whether it has ended, by the coarse clock.
    asked: AtomicI64,
    /// The TCP connection may have something to say that nobody has looked at.
    has_tcp_news: AtomicBool,
    /// The first bytes are those of a handshake, which is not over.
    shaking: AtomicBool,
    /// Its lock comes before those of the hybrid.
    handshake: Mutex<Option<Handshake>>,
    config: Arc<SmcConfig>,
}

impl RawStream {
    /// Goes beside this socket.
    pub fn new(socket: Socket, config: Arc<SmcConfig>) -> Self {
        let is_wanted = config.promotes();
        let stream = Self::undecided(socket, config, None);
        if !is_wanted {
            stream.waits.hybrid.stay(FallbackReason::Disabled);
        }
        stream
    }

    /// Goes beside a socket that has [asked for the SMC option](super::ask_for_option) and is about to be connected to this
    /// address, which [`RawStream::begin_handshake`] has to follow: a handshake is due if the peer has the option too.
    ///
    /// # Errors
    /// If no descriptor is left.
    pub fn connecting(socket: Socket, config: Arc<SmcConfig>, peer: SocketAddr) -> io::Result<Self> {
        let handshake = Handshake::client(socket.socket(), &config, peer)?;
        Ok(Self::undecided(socket, config, Some(handshake)))
    }

    /// Goes beside a socket that was accepted from this peer and [has the SMC option](super::has_option): a handshake is
    /// due. Unless `may_agree`, the client is declined, as it is if the settings do not name it.
    ///
    /// # Errors
    /// If no descriptor is left.
    pub fn accepted(
        socket: Socket,
        config: Arc<SmcConfig>,
        peer: IpAddr,
        may_agree: bool,
    ) -> io::Result<Self> {
        let is_wanted = may_agree && config.asks_for_option(peer);
        let client = if is_wanted { Client::Wanted } else { Client::Unwanted };
        let handshake = Handshake::server(socket.socket(), &config, client)?;
        Ok(Self::undecided(socket, config, Some(handshake)))
    }

    fn undecided(socket: Socket, config: Arc<SmcConfig>, handshake: Option<Handshake>) -> Self {
        let tcp = Arc::new(socket);
        let hybrid = Hybrid::with_counts(tcp.clone(), config.busy_poll, config.clone(), Counts::default());
        Self {
            waits: Waits::new(hybrid, tcp),
            asked: AtomicI64::new(0),
            has_tcp_news: AtomicBool::new(true),
            shaking: AtomicBool::new(handshake.is_some()),
            handshake: Mutex::new(handshake),
            config,
        }
    }

    fn handshake(&self) -> MutexGuard<'_, Option<Handshake>> {
        // Nothing panics while it is held.
        self.handshake.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// True while the first bytes of the connection are those of a handshake, which is not over.
    #[inline]
    pub fn is_shaking(&self) -> bool {
        self.shaking.load(Ordering::Acquire)
    }

    /// The socket was connected, or is about to be without further ado.
    pub fn begin_handshake(&self) {
        if let Some(handshake) = &mut *self.handshake() {
            handshake.is_connecting();
        }
    }

    /// Goes on with the handshake, without waiting for anything. What has come of it, if it has just ended so: then the
    /// stream is as any other.
    pub fn shake(&self) -> Option<Shaken> {
        let mut handshake = self.handshake();
        let end = handshake.as_mut().filter(|under_way| under_way.is_due())?.step()?;
        self.finish(&mut handshake, end)
    }

    /// Ends the handshake however far it is: in TCP, if need be by connecting anew; or, if the peer may take the connection
    /// for SMC-D already, by a reset.
    pub fn give_up_handshake(&self) -> Option<Shaken> {
        let mut handshake = self.handshake();
        let end = handshake.as_ref()?.give_up();
        self.finish(&mut handshake, end)
    }

    /// Another process is about to have the socket, and no two of them can shake hands: if nothing has come of a client yet,
    /// it will be declined, by whoever gets its message. False if the handshake has to be over first.
    pub fn settle_for_fork(&self) -> bool {
        let mut handshake = self.handshake();
        handshake.as_mut().is_none_or(|under_way| !under_way.is_due() || under_way.declines(&self.config))
    }

    /// True if a message has come or gone, or a part of one.
    pub fn has_handshake_begun(&self) -> bool {
        self.handshake().as_ref().is_some_and(Handshake::has_begun)
    }

    /// The program is done with the connection, which may end in the middle of the handshake.
    pub fn drop_handshake(&self) -> Option<Shaken> {
        let mut handshake = self.handshake();
        self.finish(&mut handshake, End::Tcp(FallbackReason::SocketInUse))
    }

    fn finish(&self, handshake: &mut Option<Handshake>, end: End) -> Option<Shaken> {
        let over = handshake.take()?;
        let socket = over.socket().clone();
        let result = self.take_over(end, &socket);
        self.shaking.store(false, Ordering::Release);
        Some(Shaken::new(socket, result))
    }

    fn take_over(&self, end: End, socket: &Kept) -> io::Result<()> {
        let hybrid = &self.waits.hybrid;
        match end {
            End::Smcd(established) => {
                // The peer takes it for SMC-D already.
                let agreed = self.waits.tcp.take_share().is_ok() && hybrid.begin_on_rings(*established);
                if agreed { Ok(()) } else { self.break_off(socket, io::ErrorKind::ConnectionReset.into()) }
            }
            End::Tcp(reason) => {
                hybrid.stay(reason);
                Ok(())
            }
            End::Plain(reason) => {
                self.go_without(socket, reason);
                Ok(())
            }
            End::Again(result) => {
                self.go_without(socket, FallbackReason::OptionEchoed);
                result
            }
            End::Broken(error) => self.break_off(socket, error),
        }
    }

    /// Goes on as any connection does; a peer on this host may still be met.
    fn go_without(&self, socket: &Kept, reason: FallbackReason) {
        let may_meet = self.config.runtime_dir.is_some() || is_peer_here(socket).unwrap_or(false);
        if !self.config.promotes() || !may_meet {
            self.waits.hybrid.stay(reason);
        }
    }

    /// Resets the connection; the program learns of it from the socket.
    fn break_off(&self, socket: &Kept, error: io::Error) -> io::Result<()> {
        tracing::warn!(%error, "connection reset in its handshake");
        let _ = syn_option::disconnect(socket);
        self.waits.hybrid.stay(FallbackReason::PeerMisbehaved);
        Err(error)
    }

    /// What the handshake waits for.
    pub fn need(&self) -> Option<Need> {
        self.handshake().as_ref().map(Handshake::need)
    }

    /// Waits for that, or until it is time for a look. Then it is time to [`RawStream::shake`].
    ///
    /// # Errors
    /// `WouldBlock` if it takes too long, `Interrupted` by a signal.
    pub fn await_need(&self, patience: Patience) -> io::Result<()> {
        let waited_for =
            self.handshake().as_ref().map(|under_way| (under_way.need(), under_way.socket().clone()));
        let Some((need, socket)) = waited_for else { return Ok(()) };
        let left = need.until.map(|until| until.saturating_duration_since(Instant::now()));
        // Now and then other devices are taken in from, too.
        let left = left.unwrap_or(TENDING).min(TENDING);
        let left = patience.left()?.map_or(left, |patience| patience.min(left));
        let events = PollFlags::from_bits_truncate(need.events as _);
        let mut fds = [PollFd::new(&socket, events)];
        // It would report the end of a connection whatever it is asked.
        let waited_for = if events.is_empty() { 0 } else { 1 };
        poll::sleep(&mut fds[..waited_for], Some(left))
    }

    /// The socket by a descriptor of ours that is open as long as the handshake is under way, and one that becomes
    /// readable when it is time to go on with it, if one is left.
    pub fn shaking_on(&self) -> Option<(Arc<Kept>, Option<Arc<Kept>>)> {
        let mut handshake = self.handshake();
        let under_way = handshake.as_mut()?;
        Some((under_way.socket().clone(), under_way.timer().ok()))
    }

    /// The socket below.
    pub fn socket(&self) -> &Socket {
        &self.waits.tcp
    }

    /// True if it is certain that the connection stays TCP: nothing has to be told any more.
    #[inline]
    pub fn stays(&self) -> bool {
        self.waits.hybrid.stays()
    }

    /// The connection stays TCP, as far as it still is.
    ///
    /// # Errors
    /// `Unsupported` if bytes go by rings already.
    pub fn stay(&self, reason: FallbackReason) -> io::Result<()> {
        self.waits.hybrid.leave_to_application(true, true)?;
        self.waits.hybrid.stay(reason);
        Ok(())
    }

    /// Keeps the stream as it is, for a process that is about to fork. A handshake under way is broken off, and begins anew
    /// later.
    pub fn hold(&self) -> Held<'_> {
        let handshake = self.handshake();
        Held(self.waits.hold(), handshake)
    }

    /// Lets go of it in the child, in which none of the parent's threads exist but this one.
    pub fn in_child(&self, held: Held<'_>) {
        let Held(waits, mut handshake) = held;
        // Whatever thread of the parent connects it.
        if handshake.as_ref().is_some_and(|under_way| !under_way.is_due()) {
            *handshake = None;
            self.shaking.store(false, Ordering::Release);
        }
        self.waits.in_child(waits);
    }

    /// Other processes are about to have the stream, too. As long as they do, nothing more is moved to rings; where bytes
    /// go by rings already, all processes take turns, with this.
    pub fn share(&self, baton: Box<dyn Baton>) {
        self.waits.hybrid.share(baton);
    }

    /// True if other processes have the stream.
    #[inline]
    pub fn is_shared(&self) -> bool {
        self.waits.hybrid.is_shared()
    }

    /// No other process has the stream any more.
    ///
    /// # Errors
    /// `ConnectionReset` if one of them has died in the middle of something.
    pub fn unshare(&self) -> io::Result<()> {
        self.waits.hybrid.unshare()
    }

    /// The state at present, as the first thing that is left to another process.
    pub fn snapshot(&self) -> [u64; SNAPSHOT] {
        self.waits.hybrid.snapshot().to_words()
    }

    /// Gives the connection back to TCP, for good: from now on all that is written goes by the socket, at both ends. The
    /// peer's program need not do anything.
    ///
    /// What came by the ring before and was not read comes by the socket once more: the peer sends it, if it answers within
    /// `limit`. It does so in whatever call its program is in or makes next, and is woken if it sleeps in one. An urgent
    /// byte among them is then one as any other.
    ///
    /// If the peer does not answer, the bytes stay where they are, and are read here before what the socket brings: by
    /// this process, and by those that it shares the stream with. Says how many bytes that is; if there are none, the
    /// socket alone carries the connection ([`RawStream::stays`], [`RawStream::is_back`]), else with the first look after
    /// they were read. Who has only the socket never sees them: see [`RawStream::demote_wholly`].
    ///
    /// Threads that wait here for data wake up with the next that comes, those that wait for room within a tenth of a
    /// second. Who waits for the socket and the doorbell by itself is to look again.
    ///
    /// # Errors
    /// If that cannot be, after twice the time at most.
    pub fn demote(&self, limit: Duration) -> Result<usize, DemoteError> {
        self.waits.hybrid.demote(usize::MAX, limit)
    }

    /// As [`RawStream::demote`], but only if nothing is left to be read here: afterwards whoever has the socket has all.
    ///
    /// # Errors
    /// [`DemoteError::Unread`] if there is something; it goes on by rings then. The others as for [`RawStream::demote`].
    pub fn demote_wholly(&self, limit: Duration) -> Result<(), DemoteError> {
        self.waits.hybrid.demote(0, limit).map(drop)
    }

    /// Resets the connection, which goes where it cannot be followed and [cannot be given back](DemoteError::PeerStays).
    pub fn reset(&self) {
        self.waits.hybrid.break_off();
        let _ = syn_option::disconnect(self);
    }

    /// Does what the peer asks of the library, if it does ([`RawStream::demote`]). Reading, writing and asking whether that
    /// would wait do so too; this is for those who look for something else.
    #[inline]
    pub fn follow(&self) {
        // Whoever reads or writes next is told of what is wrong.
        let _ = self.waits.hybrid.follow();
    }

    /// True once both directions have gone back to TCP and nothing is left in the rings: the program may use the socket
    /// itself again, as before there were rings.
    #[inline]
    pub fn is_back(&self) -> bool {
        self.waits.hybrid.is_back()
    }

    /// True if bytes may come by TCP: they all do, or will once the ring is empty, or nothing is certain yet.
    #[inline]
    pub fn may_come_by_tcp(&self) -> bool {
        self.waits.hybrid.may_come_by_tcp()
    }

    /// Lets go of the stream, which another process goes on with: the peer is told nothing when this is dropped.
    pub fn abandon(&self) {
        self.waits.hybrid.abandon();
    }

    /// True once both ends have agreed on rings: from now on all calls have to be made here, but when the connection
    /// [has gone back](RawStream::is_back) to TCP.
    #[inline]
    pub fn has_rings(&self) -> bool {
        self.waits.hybrid.ring().is_some()
    }

    /// True while both directions go by the rings alone. May turn false again, as the two that follow.
    #[inline]
    pub fn is_on_rings(&self) -> bool {
        self.waits.hybrid.is_reading_ring() && self.waits.hybrid.is_writing_ring()
    }

    /// True while all that is written goes by the ring.
    #[inline]
    pub fn is_writing_ring(&self) -> bool {
        self.waits.hybrid.is_writing_ring()
    }

    /// True while all that is to be read next comes by the ring.
    #[inline]
    pub fn is_reading_ring(&self) -> bool {
        self.waits.hybrid.is_reading_ring()
    }

    /// Goes on with the promotion if it is time to. True if both ends have just agreed on rings.
    pub fn step(&self) -> bool {
        if self.is_shaking() || !self.waits.hybrid.step() {
            return false;
        }
        if let Err(error) = self.waits.tcp.take_share() {
            // Nothing was switched yet, and now nothing will be.
            let _ = self.stay(FallbackReason::SideChannel(error.kind()));
        }
        true
    }

    /// The program is about to read from the socket, or to wait until it can. False if that is to be done here.
    /// Otherwise [`RawStream::end_read`] has to follow.
    pub fn begin_read(&self) -> bool {
        self.waits.hybrid.begin_read()
    }

    /// The program has read so many bytes. True if it is time for a [`RawStream::step`].
    pub fn end_read(&self, bytes: usize) -> bool {
        self.waits.hybrid.end_read(bytes)
    }

    /// The program is about to write to the socket. False if that is to be done here. Otherwise
    /// [`RawStream::end_write`] has to follow.
    pub fn begin_write(&self) -> bool {
        self.waits.hybrid.begin_write()
    }

    /// The program has written so many bytes. It is time for a [`RawStream::step`].
    pub fn end_write(&self, bytes: usize) {
        self.waits.hybrid.end_write(bytes);
    }

    /// Reads into `dst`, and waits for something to read if need be. Zero is the end.
    ///
    /// # Errors
    /// As for TCP; `WouldBlock` if it takes too long, `Interrupted` by a signal.
    #[inline]
    pub fn read(&self, dst: &mut impl BufMut, patience: impl Fn() -> Patience) -> io::Result<usize> {
        if let Some(ring) = self.waits.hybrid.ring().filter(|_| self.waits.hybrid.reads_ring()) {
            match ring.connection().try_read(dst) {
                Ok(Progress::Done(n)) => return Ok(n),
                // What looks again and again need not ask the TCP connection each time whether it has ended.
                Ok(Progress::Blocked) if patience() == Patience::Never && !self.is_time_to_ask() => {
                    return Err(io::ErrorKind::WouldBlock.into());
                }
                _ => {}
            }
        }
        self.waits.read(dst, patience)
    }

    /// Reads into the buffers, one after the other.
    ///
    /// # Errors
    /// As [`RawStream::read`].
    pub fn read_vectored(
        &self,
        bufs: &mut [IoSliceMut<'_>],
        patience: impl FnOnce() -> Patience,
    ) -> io::Result<usize> {
        self.waits.read_vectored(bufs, patience)
    }

    /// As [`RawStream::read`], but leaves the bytes where they are.
    ///
    /// # Errors
    /// As [`RawStream::read`].
    pub fn peek(&self, dst: &mut impl BufMut, patience: impl FnOnce() -> Patience) -> io::Result<usize> {
        self.waits.peek(dst, patience)
    }

    /// Writes the buffers, and waits for room for at least something if need be.
    ///
    /// # Errors
    /// As for TCP; `WouldBlock` if it takes too long, `Interrupted` by a signal.
    #[inline]
    pub fn write(&self, bufs: &[IoSlice<'_>], patience: impl FnOnce() -> Patience) -> io::Result<usize> {
        self.waits.write(bufs, patience)
    }

    /// For how many bytes there is room, at least one; waits for it if need be. If the bytes go by TCP, one is certain.
    ///
    /// # Errors
    /// As [`RawStream::write`].
    pub fn room(&self, patience: impl FnOnce() -> Patience) -> io::Result<usize> {
        self.waits.wait_for_room(patience)?;
        Ok(self.waits.hybrid.room().unwrap_or(1).max(1))
    }

    /// Sends one urgent byte (`MSG_OOB`); `by_tcp` does so if the bytes go by TCP.
    ///
    /// # Errors
    /// As for TCP; `WouldBlock` if there is no room.
    pub fn write_urgent(&self, byte: u8, by_tcp: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        match self.waits.hybrid.try_write_urgent(byte, by_tcp)? {
            Progress::Done(_) => Ok(()),
            Progress::Blocked | Progress::Eof => Err(io::ErrorKind::WouldBlock.into()),
        }
    }

    /// Takes the peer's urgent byte, if it came by the ring.
    ///
    /// # Errors
    /// If the peer broke the rules of the ring.
    pub fn read_urgent(&self) -> io::Result<Option<u8>> {
        self.waits.hybrid.try_read_urgent()
    }

    /// True if the next byte to be read is the urgent one.
    pub fn is_at_mark(&self) -> bool {
        self.connection().is_some_and(Connection::is_at_mark)
    }

    /// Shuts down the TCP connection and what goes beside it.
    ///
    /// # Errors
    /// The system's.
    pub fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        if how != Shutdown::Read {
            self.waits.hybrid.shutdown_write()?;
        }
        Ok(rustix::net::shutdown(
            self.waits.tcp.socket(),
            match how {
                Shutdown::Read => rustix::net::Shutdown::Read,
                Shutdown::Write => rustix::net::Shutdown::Write,
                Shutdown::Both => rustix::net::Shutdown::Both,
            },
        )?)
    }

    /// Bytes that can be read at once.
    pub fn unread(&self) -> usize {
        self.waits.hybrid.unread()
    }

    /// True if a read would not wait: there are bytes, or the end, or an error.
    ///
    /// Takes no system call if the bytes come by the ring, unless the TCP connection has news
    /// ([`RawStream::look_at_tcp`]).
    pub fn is_readable(&self) -> bool {
        // A ring that is left for TCP says that there is something to be looked at.
        let is_alone = |connection: &&Connection| {
            !self.waits.hybrid.is_shared() && !connection.is_last() && !connection.is_asked()
        };
        let alone = self.connection().filter(is_alone);
        let Some(connection) = alone else { return self.waits.hybrid.is_readable() };
        let on_ring = self.waits.hybrid.reads_ring();
        // It may have been left in this moment, and that was all.
        if on_ring && connection.is_readable() && !connection.is_last() {
            return true;
        }
        // Taken before the look, so that what comes meanwhile is looked at again.
        let has_news = self.has_tcp_news.swap(false, Ordering::AcqRel);
        if !has_news
            && !connection.is_last()
            && (on_ring || connection.unread().is_ok_and(|unread| unread == 0))
        {
            return false;
        }
        let is_readable = self.waits.hybrid.is_readable();
        if is_readable {
            self.has_tcp_news.store(true, Ordering::Release);
        }
        is_readable
    }

    /// True if a write would not wait.
    pub fn is_writable(&self) -> bool {
        self.waits.hybrid.is_writable()
    }

    /// Asks for a ring of the doorbell with the next news of this kind. Look for news once more afterwards, then sleep.
    pub fn arm(&self, cause: Cause) {
        if let Some(connection) = self.connection() {
            connection.interrupt().arm(cause);
        }
    }

    /// To be called before a thread polls the doorbell, and then to be armed: takes back the rings that have come so
    /// far. The result goes when it has polled. Waits a moment for other threads that were rung.
    pub fn enter(&self) -> Option<Polling<'_>> {
        self.waits.hybrid.ring().map(|ring| Polling(ring.enter()))
    }

    /// Has somebody told when rings were taken back who waits for the doorbell by its edges, and may have missed them.
    pub fn on_clear(&self, told: impl Fn() + Send + Sync + 'static) {
        if let Some(ring) = self.waits.hybrid.ring() {
            ring.on_clear(told);
        }
    }

    /// The doorbell: a descriptor that becomes readable with each ring, once there are rings.
    pub fn doorbell(&self) -> Option<BorrowedFd<'_>> {
        self.connection().map(|connection| connection.interrupt().as_fd())
    }

    /// Whoever waits for the doorbell by its edges will tell of its end ([`RawStream::bell_is_gone`]); it need not be
    /// looked for now and then.
    pub fn is_watched(&self) {
        if let Some(ring) = self.waits.hybrid.ring() {
            ring.is_watched();
        }
    }

    /// The doorbell has hung up: the peer's process has gone, or let go of it.
    pub fn bell_is_gone(&self) {
        if let Some(ring) = self.waits.hybrid.ring() {
            ring.hangs_up();
        }
    }

    /// Two words that the peer changes with all that it does. Reading them costs nothing; they mean nothing by themselves.
    #[inline]
    pub fn news(&self) -> (u64, u64) {
        self.connection().map_or((0, 0), Connection::news)
    }

    /// True if the peer has said by the ring that it writes no more, or is gone. What it says there after the bytes have
    /// gone back to TCP means nothing.
    pub fn has_peer_ended(&self) -> bool {
        let has_ended = |connection: &Connection| connection.has_peer_ended() || connection.is_hopeless();
        self.connection().is_some_and(|connection| has_ended(connection) && !connection.is_last())
    }

    /// The TCP connection has news: the next look at the stream includes it.
    pub fn look_at_tcp(&self) {
        self.has_tcp_news.store(true, Ordering::Release);
    }

    /// True once in each tick of the coarse clock (some milliseconds): who never sleeps can be told by nobody that the
    /// TCP connection has news.
    pub fn is_time_to_ask(&self) -> bool {
        let now = clock_gettime(ClockId::MonotonicCoarse);
        let now = now.tv_sec.wrapping_mul(1_000_000_000).wrapping_add(now.tv_nsec);
        self.asked.swap(now, Ordering::Relaxed) != now
    }

    fn connection(&self) -> Option<&Connection> {
        self.waits.hybrid.ring().map(|ring| ring.connection())
    }

    /// How the bytes travel at present, and why if it is TCP.
    pub fn transport(&self) -> Transport {
        self.waits.hybrid.transport()
    }

    /// Payload bytes that went by rings.
    pub fn byte_counts(&self) -> ByteCounts {
        self.waits.hybrid.byte_counts()
    }
}

/// A stream in which nothing is under way.
#[derive(Debug)]
#[must_use]
pub struct Held<'a>(waits::Held<'a>, MutexGuard<'a, Option<Handshake>>);

/// A thread among those that poll a doorbell, until dropped.
#[derive(Debug)]
pub struct Polling<'a>(#[allow(dead_code)] pollers::Polling<'a>);

/// The TCP socket.
impl AsFd for RawStream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.waits.tcp.socket()
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read, Write},
        net::{TcpListener, TcpStream},
        thread,
        time::{Duration, Instant},
    };

    use super::*;
    use crate::{
        Promotion, Stack,
        dibs::{
            ism::soft::{End, Fault},
            loopback::DmbLimits,
        },
        smc::{established::Established, pair},
    };

    fn patience() -> Patience {
        Patience::of(Some(Duration::from_secs(20)))
    }

    /// Two streams on rings, and their sockets.
    fn on_rings() -> ([RawStream; 2], [TcpStream; 2]) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let sockets = [client, listener.accept().unwrap().0];
        let streams = sockets.each_ref().map(|socket| {
            let stack = Stack::with_loopback(DmbLimits::default()).unwrap();
            let config = SmcConfig::new().promotion(Promotion::Eager).stack(stack);
            RawStream::new(Socket::of(socket), Arc::new(config))
        });
        while !streams.iter().all(RawStream::is_on_rings) {
            for (from, to) in [(0, 1), (1, 0)] {
                streams[from].write(&[IoSlice::new(b"x")], patience).unwrap();
                assert_eq!(streams[to].read(&mut &mut [0; 9][..], patience).unwrap(), 1);
            }
        }
        (streams, sockets)
    }

    /// Two streams of which so many begin with rings, the other ends being SMC-D alone; and their sockets.
    fn begun_on_rings(
        stacks: &[Arc<Stack>; 2],
        count: usize,
    ) -> (Vec<RawStream>, [pair::End; 2], [TcpStream; 2]) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let sockets = [client, listener.accept().unwrap().0];
        let ends = pair::connect(stacks, [16_384; 2]);
        let stream = |side: usize| {
            let pair::End { stack, group, connection } = &ends[side];
            let peer = stacks[1 - side].devices()[0].gid();
            let config = SmcConfig::new().promotion(Promotion::Off).stack(stack.clone());
            let stream = RawStream::new(Socket::of(&sockets[side]), Arc::new(config));
            let established = Established::new(connection.again(), group.clone(), stack.clone(), peer);
            assert!(stream.waits.hybrid.begin_on_rings(established));
            stream
        };
        ((0..count).map(stream).collect(), ends, sockets)
    }

    /// For those who answer.
    const LIMIT: Duration = Duration::from_secs(10);

    fn read(stream: &RawStream) -> Vec<u8> {
        let mut buf = Vec::new();
        stream.read(&mut (&mut buf).limit(100), patience).unwrap();
        buf
    }

    #[test]
    fn rings_from_the_first_byte_are_given_back_as_any() {
        let (streams, _ends, _sockets) = begun_on_rings(&pair::stacks(), 2);
        let [a, b] = streams.as_slice() else { unreachable!() };
        a.write(&[IoSlice::new(b"by ring")], patience).unwrap();
        assert_eq!(read(b), b"by ring");
        assert_eq!(a.demote(LIMIT).unwrap(), 0);
        a.write(&[IoSlice::new(b"by tcp")], patience).unwrap();
        assert_eq!(read(b), b"by tcp");
        b.write(&[IoSlice::new(b"and back")], patience).unwrap();
        assert_eq!(read(a), b"and back");
        assert!(a.stays() && b.is_back());
    }

    #[test]
    fn what_a_peer_on_rings_alone_cannot_follow_goes_on_or_is_reset() {
        for stacks in [pair::stacks(), pair::unmapped_stacks()] {
            let (streams, [_own, peer], [_socket, mut socket]) = begun_on_rings(&stacks, 1);
            let (a, b) = (&streams[0], &peer.connection);
            let limit = Duration::from_millis(5);
            assert!(matches!(a.demote(limit), Err(DemoteError::PeerStays)));
            assert!(matches!(a.demote_wholly(limit), Err(DemoteError::PeerStays)));
            // Nothing has changed.
            a.write(&[IoSlice::new(b"by ring")], patience).unwrap();
            let mut got = [0; 9];
            assert_eq!(b.try_read(&mut &mut got[..]).unwrap(), Progress::Done(7));
            b.try_write(&[IoSlice::new(b"unread")]).unwrap();
            a.reset();
            // What has come can still be read.
            assert_eq!(a.read(&mut &mut got[..], patience).unwrap(), 6);
            let error = a.read(&mut &mut got[..], patience).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
            assert!(a.write(&[IoSlice::new(b"x")], patience).is_err());
            // By its flags and by TCP.
            assert!(b.try_read(&mut &mut got[..]).is_err());
            assert_eq!(socket.read(&mut got).unwrap_err().kind(), io::ErrorKind::ConnectionReset);
        }
    }

    /// TCP says nothing of it, and nothing comes by the ring.
    #[test]
    fn a_function_that_ends_is_a_reset_for_those_who_wait() {
        for end in [End::Failure, End::Disabled, End::Lost] {
            for waits in [true, false] {
                let (stacks, fabric) = pair::ism_stacks();
                let (streams, _ends, _sockets) = begun_on_rings(&stacks, 1);
                let stream = &streams[0];
                let read = || stream.read(&mut &mut [0; 9][..], || Patience::of(Some(LIMIT)));
                let error = thread::scope(|scope| {
                    let reading = scope.spawn(|| {
                        if waits {
                            return read();
                        }
                        let began = Instant::now();
                        loop {
                            match stream.read(&mut &mut [0; 9][..], || Patience::Never) {
                                Err(error)
                                    if error.kind() == io::ErrorKind::WouldBlock
                                        && began.elapsed() < LIMIT => {}
                                other => return other,
                            }
                        }
                    });
                    thread::sleep(Duration::from_millis(20));
                    fabric.inject(0, Fault::End(end));
                    reading.join().unwrap().unwrap_err()
                });
                assert_eq!(error.kind(), io::ErrorKind::ConnectionReset, "{end:?}");
                assert!(stream.has_peer_ended());
            }
        }
    }

    #[test]
    fn what_is_given_back_is_plain_tcp_at_both_ends() {
        let ([a, b], [mut socket, _other]) = on_rings();
        b.write(&[IoSlice::new(b"unread")], patience).unwrap();
        // Nobody is in a call at the other end.
        let limit = Duration::from_millis(5);
        assert!(matches!(a.demote_wholly(limit), Err(DemoteError::Unread(6))));
        assert_eq!(a.demote(limit).unwrap(), 6);
        assert!(!a.stays(), "there is something to be read here");
        assert_eq!(a.unread(), 6);
        assert_eq!(read(&a), b"unread");
        assert!(!a.is_readable());
        assert!(a.stays() && !b.stays());
        drop(a);
        assert!(!b.is_readable(), "nothing has come");
        socket.write_all(b"by tcp").unwrap();
        assert!(b.is_readable() && b.is_writable());
        assert_eq!(b.unread(), 6);
        assert_eq!(read(&b), b"by tcp");
        assert!(!b.is_readable());
        b.write(&[IoSlice::new(b"answer")], patience).unwrap();
        assert!(b.stays(), "both directions have gone back");
        let mut answer = [0; 6];
        socket.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"answer");
    }

    #[test]
    fn what_was_not_read_comes_by_the_socket() {
        for pause in [0, 1, 5] {
            let ([a, b], [mut socket, _other]) = on_rings();
            b.write(&[IoSlice::new(b"sent before, ")], patience).unwrap();
            thread::scope(|scope| {
                // Awake, asleep in two ways, and about to be asked whether there is something.
                let reader = scope.spawn(|| match pause {
                    0 => {
                        while !b.is_readable() {}
                        read(&b)
                    }
                    _ => read(&b),
                });
                thread::sleep(Duration::from_millis(pause));
                a.demote_wholly(LIMIT).unwrap();
                assert!(a.stays());
                drop(a);
                socket.write_all(b"question").unwrap();
                assert_eq!(reader.join().unwrap(), b"question");
            });
            b.write(&[IoSlice::new(b"and after")], patience).unwrap();
            assert!(b.stays());
            let mut got = [0; 22];
            socket.read_exact(&mut got).unwrap();
            assert_eq!(&got, b"sent before, and after");
        }
    }

    #[test]
    fn who_waits_goes_on() {
        let ([a, b], [mut socket, _other]) = on_rings();
        let much = vec![1; 20_000_000];
        thread::scope(|scope| {
            let reader = scope.spawn(|| read(&b));
            let writer = scope.spawn(|| {
                let mut rest = &much[..];
                while !rest.is_empty() {
                    rest = &rest[b.write(&[IoSlice::new(rest)], patience).unwrap()..];
                }
            });
            thread::sleep(Duration::from_millis(20));
            let mut got = Vec::new();
            a.demote(LIMIT).unwrap();
            while a.may_come_by_tcp() && !a.stays() {
                got.extend(read(&a));
            }
            socket.write_all(b"by tcp").unwrap();
            assert_eq!(reader.join().unwrap(), b"by tcp");
            let from = got.len();
            got.resize(much.len(), 0);
            socket.read_exact(&mut got[from..]).unwrap();
            assert!(got == much);
            writer.join().unwrap();
        });
        assert!(b.stays());
    }
}
