//! A TCP socket of the program, and what goes beside it.

use std::{
    io::{self, IoSlice},
    net::{IpAddr, SocketAddr},
    os::fd::{AsFd, AsRawFd as _, BorrowedFd},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU16, AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::BufMut;
use libc::{c_int, c_short, pollfd};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fs::{OFlags, fcntl_getfl},
    io::Errno,
    net::{
        RecvFlags, SendAncillaryBuffer, SendFlags,
        sockopt::{Timeout, socket_timeout},
    },
};
use smcd::{
    FallbackReason,
    raw::{DemoteError, Patience, RawStream, Shaken, Socket},
};

use crate::{
    family::{self, Member, Slot, SlotBaton},
    fork,
    iov::Room,
    settings, signals,
    watchers::{HeldWatchers, Watchers},
};

/// Bytes that are read at a time when they are only to be thrown away.
const SCRATCH: usize = 64 * 1024;

/// How long the peers of the connections that leave us at the same time have, in all, to send once more what was not read.
/// Those that wait for something answer at once.
const GRACE: Duration = Duration::from_secs(1);

/// Each of them has so long, however many there are.
const LEAST_GRACE: Duration = Duration::from_millis(10);

/// What is left of that.
#[derive(Debug)]
pub(crate) struct Grace(Instant);

impl Grace {
    /// All of it.
    pub(crate) fn begin() -> Self {
        Self(Instant::now())
    }

    fn left(&self) -> Duration {
        GRACE.saturating_sub(self.0.elapsed()).max(LEAST_GRACE)
    }
}

/// Which way a call goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Way {
    /// To the kernel; nobody has to know.
    Kernel,
    /// To the kernel, and then [`Stream::was_read`] or [`Stream::was_written`].
    Counted,
    /// To the rings.
    Rings,
    /// Nowhere yet: a handshake comes first ([`Stream::settle`]).
    Unsettled,
}

/// A connection of the program.
#[derive(Debug)]
pub(crate) struct Stream {
    pub(crate) raw: Arc<RawStream>,
    /// What processes have in common that have this connection.
    slot: Mutex<Option<&'static Slot>>,
    /// Descriptors of the program that are this socket.
    numbers: Mutex<Vec<c_int>>,
    /// Epoll instances that watch it.
    pub(crate) watchers: Watchers,
    /// It is known here that there are rings.
    has_adopted: AtomicBool,
    /// Copies of options of the socket, once there are rings.
    nonblocking: AtomicBool,
    receive_limit: AtomicU64,
    send_limit: AtomicU64,
    low_water: AtomicUsize,
    /// The events of the TCP connection that mean its end, as last seen.
    ends: AtomicU16,
    /// The peer's end of the doorbell has gone.
    is_bell_gone: AtomicBool,
    /// The end that the ring has told of was waited for.
    has_awaited_end: AtomicBool,
    /// A write found no room, and nobody has looked since.
    full: AtomicBool,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing panics while one of these is held.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Stream {
    /// A socket that has just been connected, or accepted, or is about to be.
    pub(crate) fn new(fd: c_int) -> Arc<Self> {
        fork::watch();
        // SAFETY: the number is one of those in `numbers`, which is told when the program closes one.
        let socket = unsafe { Socket::new(fd) };
        Arc::new(Self::beside(RawStream::new(socket, settings::config()).into(), vec![fd], None))
    }

    /// A socket that has asked for the SMC option and is about to connect to this address. `None` if there are no
    /// descriptors.
    pub(crate) fn connecting(fd: c_int, peer: SocketAddr) -> Option<Arc<Self>> {
        Self::shaking(fd, |socket| RawStream::connecting(socket, settings::config(), peer))
    }

    /// A socket that has just been accepted, and has the SMC option. `None` as above.
    pub(crate) fn accepted(fd: c_int, peer: IpAddr, may_agree: bool) -> Option<Arc<Self>> {
        Self::shaking(fd, |socket| RawStream::accepted(socket, settings::config(), peer, may_agree))
    }

    fn shaking(fd: c_int, raw: impl FnOnce(Socket) -> io::Result<RawStream>) -> Option<Arc<Self>> {
        fork::watch();
        // SAFETY: as in `new`.
        let raw = raw(unsafe { Socket::new(fd) }).ok()?;
        let stream = Self::beside(raw.into(), vec![fd], None);
        stream.load_options();
        Some(Arc::new(stream))
    }

    fn beside(raw: Arc<RawStream>, numbers: Vec<c_int>, slot: Option<&'static Slot>) -> Self {
        Self {
            raw,
            slot: Mutex::new(slot),
            numbers: Mutex::new(numbers),
            watchers: Watchers::default(),
            has_adopted: AtomicBool::new(false),
            nonblocking: AtomicBool::new(false),
            receive_limit: AtomicU64::new(0),
            send_limit: AtomicU64::new(0),
            low_water: AtomicUsize::new(1),
            ends: AtomicU16::new(0),
            is_bell_gone: AtomicBool::new(false),
            has_awaited_end: AtomicBool::new(false),
            full: AtomicBool::new(false),
        }
    }

    /// A child is about to be made, and will have the socket too. Without a child that could take turns, bytes that are
    /// on rings are not for it.
    pub(crate) fn share_with(&self, child: Option<Member>) {
        if self.raw.stays() {
            return;
        }
        let mut slot = lock(&self.slot);
        let Some(known) = slot.or_else(family::new_slot) else { return };
        *slot = Some(known);
        if let Some(child) = child {
            known.add_holder(child);
        }
        if !self.raw.is_shared() {
            // Whoever comes from now on takes turns; whoever is at it is waited for.
            self.raw.share(Box::new(SlotBaton(known)));
            drop(self.raw.hold());
            known.begin(&self.raw.snapshot());
        }
    }

    /// In a child: the same connection, of which nothing is used that a thread of the parent may have locked.
    pub(crate) fn inherited(&self, numbers: &[c_int]) -> Arc<Self> {
        // No thread of the parent had it for longer than to read it, and it was not written to since.
        let slot = self.slot.try_lock().ok().and_then(|slot| *slot);
        let own = Self::beside(self.raw.clone(), numbers.to_vec(), slot);
        if own.raw.has_rings() {
            own.has_adopted.store(true, Ordering::Relaxed);
            own.load_options();
        }
        Arc::new(own)
    }

    /// Looks whether other processes still have the connection. If not, it is as any other again.
    fn look_for_others(&self) {
        let slot = *lock(&self.slot);
        if slot.is_some_and(Slot::is_ours_alone) {
            let _ = self.raw.unshare();
        }
    }

    /// True if other processes have the connection too.
    pub(crate) fn is_shared(&self) -> bool {
        self.look_for_others();
        self.raw.is_shared()
    }

    /// A descriptor of the program that is this socket.
    fn number(&self) -> c_int {
        lock(&self.numbers).first().copied().unwrap_or(-1)
    }

    /// Another descriptor of the program is this socket.
    pub(crate) fn add_number(&self, fd: c_int) {
        lock(&self.numbers).push(fd);
    }

    /// A descriptor of the program is this socket no longer. True if it was the last.
    pub(crate) fn remove_number(&self, fd: c_int) -> bool {
        let mut numbers = lock(&self.numbers);
        numbers.retain(|number| *number != fd);
        self.watchers.forget(fd);
        match numbers.first() {
            Some(first) => {
                // SAFETY: as in `new`.
                unsafe { self.raw.socket().renumber(*first) };
                false
            }
            None => {
                self.close();
                true
            }
        }
    }

    /// The program has closed the connection.
    fn close(&self) {
        drop(self.raw.drop_handshake());
        let slot = lock(&self.slot).take();
        let Some(slot) = slot.filter(|_| self.raw.is_shared()) else { return };
        if slot.is_ours_alone() {
            let _ = self.raw.unshare();
        } else {
            self.raw.abandon();
        }
        slot.leave();
    }

    /// The connection stays TCP, if it still is.
    pub(crate) fn stay(&self) {
        let _ = self.raw.stay(FallbackReason::SocketInUse);
    }

    /// The socket will be used in a way that passes us by, for this reason: it is given back to TCP. What has come by the
    /// ring and was not read is sent once more by the peer. Should it not answer, that is still read here first, by those
    /// that have the stream; others never see it. If the peer cannot do without the ring, the connection is reset.
    pub(crate) fn leaves_us(self: &Arc<Self>, why: &str) {
        self.leaves_us_within(why, &Grace::begin());
    }

    /// As [`Stream::leaves_us`], as one of several that leave.
    pub(crate) fn leaves_us_within(self: &Arc<Self>, why: &str, grace: &Grace) {
        self.leave(why, grace, |raw| {
            let result = raw.demote(grace.left());
            if matches!(result, Err(DemoteError::PeerStays)) {
                // It would hang, at both ends.
                raw.reset();
            }
            result
        });
    }

    /// As [`Stream::leaves_us_within`], where most likely nobody else will use it: with a peer that cannot do without the
    /// ring it goes on as before.
    pub(crate) fn may_leave_us(self: &Arc<Self>, why: &str, grace: &Grace) {
        self.leave(why, grace, |raw| raw.demote(grace.left()));
    }

    /// As [`Stream::leaves_us_within`], but only if there is nothing that others would never see. False if there is: then
    /// it goes on as before.
    pub(crate) fn leaves_us_wholly(self: &Arc<Self>, why: &str, grace: &Grace) -> bool {
        self.leave(why, grace, |raw| raw.demote_wholly(grace.left()).map(|()| 0))
    }

    fn leave(
        self: &Arc<Self>,
        why: &str,
        grace: &Grace,
        demote: impl FnOnce(&RawStream) -> Result<usize, DemoteError>,
    ) -> bool {
        self.settle_within(grace);
        if self.raw.stays() || (!self.raw.has_rings() && self.raw.stay(FallbackReason::SocketInUse).is_ok()) {
            return true;
        }
        let left = demote(&self.raw);
        // What they wait for may come elsewhere now.
        self.watchers.wake();
        settings::say(|| match &left {
            Ok(0) => format!("{} tcp again: {why}", self.number()),
            Ok(left) => format!("{} tcp again, after {left} bytes: {why}", self.number()),
            Err(error) => format!("{} ring, although {why}: {error}", self.number()),
        });
        left.is_ok()
    }

    /// The kernel connects the socket.
    pub(crate) fn begins_to_shake(self: &Arc<Self>) {
        self.raw.begin_handshake();
        self.shake();
    }

    /// Goes on with the handshake, without waiting. What a call would say that has waited for it, if it is over.
    pub(crate) fn shake(self: &Arc<Self>) -> Option<io::Result<()>> {
        // Held until those who watch the connection do so as it is then.
        let watchers = self.watchers.hold();
        let shaken = self.raw.shake()?;
        Some(self.has_shaken(watchers, shaken))
    }

    /// The handshake is over.
    fn has_shaken(self: &Arc<Self>, mut watchers: HeldWatchers<'_>, shaken: Shaken) -> io::Result<()> {
        watchers.have_shaken(self, &shaken);
        drop(watchers);
        if self.raw.has_rings() {
            self.adopt_rings();
        } else {
            settings::say(|| format!("{} tcp: {}", self.number(), self.raw.transport()));
        }
        shaken.result
    }

    /// Waits until the handshake is over, as a call waits for data. Says what has come of it, if that was found here.
    ///
    /// # Errors
    /// `WouldBlock` if it takes too long, `Interrupted` by a signal whose handler wants that.
    pub(crate) fn settle(self: &Arc<Self>, patience: Patience) -> io::Result<io::Result<()>> {
        while self.raw.is_shaking() {
            if let Some(result) = self.shake() {
                return Ok(result);
            }
            again(|| self.raw.await_need(patience).map(|()| 0))?;
        }
        Ok(Ok(()))
    }

    /// Ends the handshake, if there is one: by then at the latest.
    pub(crate) fn settle_within(self: &Arc<Self>, grace: &Grace) {
        if !self.raw.is_shaking() {
            return;
        }
        let patience = Patience::of(Some(grace.left()));
        while matches!(self.settle(patience), Err(error) if error.kind() == io::ErrorKind::Interrupted) {}
        self.gives_up();
    }

    /// The program ends the connection, whatever the handshake would have come to.
    pub(crate) fn is_ended(self: &Arc<Self>) {
        let watchers = self.watchers.hold();
        if let Some(shaken) = self.raw.drop_handshake() {
            let _ = self.has_shaken(watchers, shaken);
        }
    }

    /// A child is about to be made, and no two processes can go on with a handshake: it is ended by then, or will be by a
    /// Decline. One for which the kernel is still connecting is not waited for.
    pub(crate) fn settles_for_fork(self: &Arc<Self>, grace: &Grace) {
        if !self.raw.is_shaking() || self.shake().is_some() || self.raw.settle_for_fork() {
            return;
        }
        if self.raw.has_handshake_begun() {
            self.settle_within(grace);
        } else {
            self.gives_up();
        }
    }

    fn gives_up(self: &Arc<Self>) {
        let watchers = self.watchers.hold();
        if let Some(shaken) = self.raw.give_up_handshake() {
            // The program asks the socket what has come of it.
            let _ = self.has_shaken(watchers, shaken);
        }
    }

    /// How long a connecting call may wait, or one that writes with these flags.
    pub(crate) fn patience_out(&self, flags: c_int) -> Patience {
        self.patience(flags, &self.send_limit)
    }

    /// As [`Stream::patience_out`], for one that reads.
    pub(crate) fn patience_in(&self, flags: c_int) -> Patience {
        self.patience(flags, &self.receive_limit)
    }

    /// Goes on with the promotion if it is time to.
    pub(crate) fn step(self: &Arc<Self>) {
        if settings::may_promote() {
            self.raw.step();
            self.adopt_rings();
        }
    }

    /// Does what is to be done here once there are rings. They may have come by a step of the promotion that was none of
    /// ours: before a fork.
    pub(crate) fn adopt_rings(self: &Arc<Self>) {
        if self.raw.has_rings() && !self.has_adopted.swap(true, Ordering::AcqRel) {
            self.load_options();
            let this = Arc::downgrade(self);
            self.raw.on_clear(move || {
                if let Some(stream) = this.upgrade() {
                    stream.watchers.wake();
                }
            });
            self.watchers.take_over(self);
            settings::say(|| format!("{} promoted", self.number()));
        }
    }

    /// Takes over the options of the socket; to be called when they have changed.
    pub(crate) fn load_options(&self) {
        let socket = self.raw.as_fd();
        let limit = |which| match socket_timeout(socket, which) {
            Ok(Some(limit)) => u64::try_from(limit.as_nanos()).unwrap_or(0),
            _ => 0,
        };
        let is_nonblocking = fcntl_getfl(socket).is_ok_and(|flags| flags.contains(OFlags::NONBLOCK));
        self.nonblocking.store(is_nonblocking, Ordering::Relaxed);
        self.receive_limit.store(limit(Timeout::Recv), Ordering::Relaxed);
        self.send_limit.store(limit(Timeout::Send), Ordering::Relaxed);
        self.low_water.store(low_water(socket), Ordering::Relaxed);
    }

    fn patience(&self, flags: c_int, limit: &AtomicU64) -> Patience {
        if flags & libc::MSG_DONTWAIT != 0 || self.nonblocking.load(Ordering::Relaxed) {
            return Patience::Never;
        }
        match limit.load(Ordering::Relaxed) {
            0 => Patience::Forever,
            nanos => Patience::of(Some(Duration::from_nanos(nanos))),
        }
    }

    /// Which way a read goes, or a wait for something to read.
    #[inline]
    pub(crate) fn way_in(self: &Arc<Self>) -> Way {
        if self.raw.stays() {
            return Way::Kernel;
        }
        if self.raw.is_shared() {
            self.look_for_others();
        }
        if !self.has_adopted.load(Ordering::Relaxed) {
            if self.raw.is_shaking() {
                return if self.shake().is_some() { self.way_in() } else { Way::Unsettled };
            }
            self.step();
        }
        if self.is_with_kernel() && self.raw.begin_read() { Way::Counted } else { Way::Rings }
    }

    /// After [`Way::Counted`]: so many bytes were read.
    pub(crate) fn was_read(self: &Arc<Self>, bytes: usize) {
        if self.raw.end_read(bytes) {
            self.step();
        }
    }

    /// Which way a write goes.
    #[inline]
    pub(crate) fn way_out(self: &Arc<Self>) -> Way {
        if self.raw.stays() {
            return Way::Kernel;
        }
        if self.raw.is_shared() {
            self.look_for_others();
        }
        if !self.has_adopted.load(Ordering::Relaxed) && self.raw.is_shaking() {
            return if self.shake().is_some() { self.way_out() } else { Way::Unsettled };
        }
        if self.is_with_kernel() && self.raw.begin_write() { Way::Counted } else { Way::Rings }
    }

    /// True if the connection never was anything but TCP, and never will be.
    #[inline]
    pub(crate) fn stays_tcp(&self) -> bool {
        self.raw.stays() && !self.raw.has_rings()
    }

    /// True if the kernel can be asked for all that has to do with the connection: there are no rings, or none any more.
    #[inline]
    pub(crate) fn is_with_kernel(&self) -> bool {
        if self.raw.has_rings() { self.raw.is_back() } else { !self.raw.is_shaking() }
    }

    /// True if calls that wait may do so here, and have to know how long.
    #[inline]
    pub(crate) fn waits_here(&self) -> bool {
        self.raw.has_rings() || self.raw.is_shaking()
    }

    /// After [`Way::Counted`]: so many bytes were written.
    pub(crate) fn was_written(self: &Arc<Self>, bytes: usize) {
        self.raw.end_write(bytes);
        if bytes > 0 {
            self.step();
        }
    }

    /// Reads as `recv` does, by the rings.
    pub(crate) fn receive(&self, room: &mut Room, flags: c_int) -> io::Result<usize> {
        if flags & libc::MSG_OOB != 0 {
            return self.receive_urgent(room, flags);
        }
        let mut patience = self.patience(flags, &self.receive_limit);
        let wanted = room.remaining_mut();
        if flags & libc::MSG_TRUNC != 0 {
            return self.discard(wanted, patience);
        }
        room.check()?;
        if flags & libc::MSG_PEEK != 0 {
            return again(|| self.raw.peek(room, || patience));
        }
        if wanted == 0 {
            return match patience == Patience::Never && !self.raw.is_readable() {
                true => Err(io::ErrorKind::WouldBlock.into()),
                false => Ok(0),
            };
        }
        let enough = match flags & libc::MSG_WAITALL {
            0 => self.low_water.load(Ordering::Relaxed).min(wanted),
            _ => wanted,
        };
        let mut done = 0;
        loop {
            match again(|| self.raw.read(room, || patience)) {
                Ok(0) => return Ok(done),
                Ok(n) => done += n,
                Err(_) if done > 0 => return Ok(done),
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return self.ask_tcp(error),
                Err(error) => return Err(error),
            }
            if done >= enough && (!self.raw.may_come_by_tcp() || !room.has_remaining_mut()) {
                return Ok(done);
            }
            if done >= enough {
                // By TCP, one piece of memory was filled at a time; and what the ring had may go on there. Who gets less
                // than it wanted takes it for all that there is.
                patience = Patience::Never;
            }
        }
    }

    /// The peer has broken off. The TCP connection knows in which words to say so, and how often; if it has not heard of
    /// it yet, it will at once.
    fn ask_tcp(&self, error: io::Error) -> io::Result<usize> {
        self.await_end(PollFlags::empty());
        match rustix::net::recv(self.raw.as_fd(), &mut [0; 1][..], RecvFlags::DONTWAIT) {
            Ok((_, 0)) => Ok(0),
            Err(errno) if errno != Errno::AGAIN => Err(errno.into()),
            _ => Err(error),
        }
    }

    fn receive_urgent(&self, room: &mut Room, flags: c_int) -> io::Result<usize> {
        match self.raw.read_urgent()? {
            Some(byte) if flags & libc::MSG_PEEK == 0 => {
                room.put_slice(std::slice::from_ref(&byte).get(..room.remaining_mut().min(1)).unwrap_or(&[]));
                Ok(1)
            }
            Some(_) => Err(io::Error::from_raw_os_error(libc::EINVAL)),
            // One that was sent by TCP.
            None => {
                let mut byte = [0; 1];
                let flags = RecvFlags::from_bits_retain(flags.cast_unsigned());
                let (n, _) = rustix::net::recv(self.raw.as_fd(), &mut byte[..], flags)?;
                room.put_slice(byte.get(..n.min(room.remaining_mut())).unwrap_or(&[]));
                Ok(n)
            }
        }
    }

    fn discard(&self, wanted: usize, patience: Patience) -> io::Result<usize> {
        let mut scratch = vec![0; wanted.min(SCRATCH)];
        let n = again(|| self.raw.read(&mut &mut scratch[..], || patience))?;
        Ok(n)
    }

    /// Writes as `send` does, by the rings: all of it, if it may wait.
    pub(crate) fn send(&self, data: &mut [IoSlice<'_>], flags: c_int) -> io::Result<usize> {
        if flags & libc::MSG_OOB != 0 {
            return self.send_urgent(data, flags);
        }
        let patience = self.patience(flags, &self.send_limit);
        let mut left = data;
        let mut done = 0;
        while !left.is_empty() {
            match again(|| self.raw.write(left, || patience)) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.full.store(true, Ordering::Release);
                    return if done > 0 { Ok(done) } else { Err(error) };
                }
                Ok(n) => {
                    done += n;
                    IoSlice::advance_slices(&mut left, n);
                }
                Err(error) if done == 0 && is_over(&error) => return self.send_into_the_void(left, flags),
                Err(error) if done == 0 => return Err(error),
                Err(_) => break,
            }
        }
        Ok(done)
    }

    /// Nobody reads what is written. The TCP connection knows how to say so, and when: there, a first write after the end
    /// may be taken.
    fn send_into_the_void(&self, data: &[IoSlice<'_>], flags: c_int) -> io::Result<usize> {
        let flags = SendFlags::from_bits_retain(flags.cast_unsigned());
        Ok(rustix::net::sendmsg(self.raw.as_fd(), data, &mut SendAncillaryBuffer::default(), flags)?)
    }

    /// Writes all of it, whether the socket may wait or not.
    pub(crate) fn send_all(&self, data: &[u8]) -> io::Result<()> {
        let mut left = data;
        while !left.is_empty() {
            let n = again(|| self.raw.write(&[IoSlice::new(left)], || Patience::Forever))?;
            left = left.get(n..).unwrap_or(&[]);
        }
        Ok(())
    }

    /// For how many bytes there is room, at least one; waits for it if the socket may wait.
    pub(crate) fn room(&self, flags: c_int) -> io::Result<usize> {
        let patience = self.patience(flags, &self.send_limit);
        self.raw.room(|| patience)
    }

    /// The last byte is the urgent one.
    fn send_urgent(&self, data: &mut [IoSlice<'_>], flags: c_int) -> io::Result<usize> {
        let mut all: Vec<u8> = data.iter().flat_map(|piece| piece.iter().copied()).collect();
        let Some(urgent) = all.pop() else { return Ok(0) };
        let flags = flags & !libc::MSG_OOB;
        let done = if all.is_empty() { 0 } else { self.send(&mut [IoSlice::new(&all)], flags)? };
        if done < all.len() {
            return Ok(done);
        }
        let by_tcp = || {
            rustix::net::send(self.raw.as_fd(), &[urgent], rustix::net::SendFlags::OOB)?;
            Ok(())
        };
        match self.raw.write_urgent(urgent, by_tcp) {
            Err(_) if done > 0 => Ok(done),
            result => result.map(|()| done + 1),
        }
    }

    /// What `poll` would say of the socket, of these and of what it says unasked. Takes no system call unless the end of
    /// the connection has been announced.
    pub(crate) fn events(&self, wanted: c_short) -> c_short {
        if !self.has_adopted.load(Ordering::Relaxed) && self.raw.is_shaking() {
            return 0;
        }
        self.raw.follow();
        let mut events = self.ends() & (wanted | libc::POLLERR | libc::POLLHUP);
        if wanted & (libc::POLLIN | libc::POLLRDNORM) != 0 && self.is_readable() {
            events |= wanted & (libc::POLLIN | libc::POLLRDNORM);
        }
        let out = libc::POLLOUT | libc::POLLWRNORM;
        if wanted & out != 0 && (events & (libc::POLLERR | libc::POLLHUP) != 0 || self.raw.is_writable()) {
            events |= wanted & out;
        }
        events
    }

    fn is_readable(&self) -> bool {
        let enough = self.low_water.load(Ordering::Relaxed);
        self.raw.is_readable() && (enough <= 1 || self.raw.unread() >= enough || self.has_ended())
    }

    fn has_ended(&self) -> bool {
        self.raw.has_peer_ended() || self.ends() != 0
    }

    /// True if a write has found no room; asking takes that back.
    pub(crate) fn was_full(&self) -> bool {
        self.full.load(Ordering::Relaxed) && self.full.swap(false, Ordering::AcqRel)
    }

    /// True if a write has found no room.
    pub(crate) fn is_full(&self) -> bool {
        self.full.load(Ordering::Acquire)
    }

    /// The TCP connection has said something, or it is time to go on with the handshake.
    pub(crate) fn has_news(self: &Arc<Self>) {
        if self.raw.is_shaking() {
            self.shake();
        } else {
            self.tcp_has_news();
        }
    }

    /// The TCP connection has said something.
    pub(crate) fn tcp_has_news(&self) {
        self.raw.look_at_tcp();
        let mut fds = [PollFd::from_borrowed_fd(self.raw.as_fd(), PollFlags::RDHUP | PollFlags::PRI)];
        if poll(&mut fds, Some(&Timespec::default())).is_ok() {
            self.ends.store(fds[0].revents().bits(), Ordering::Relaxed);
        }
    }

    /// As [`Stream::tcp_has_news`], but seldom.
    pub(crate) fn tcp_may_have_news(&self) {
        if self.raw.is_time_to_ask() {
            self.tcp_has_news();
        }
    }

    /// What to poll for those who wait for these events: the TCP socket and the doorbell. What is known already is left
    /// out, since it would be reported for ever.
    pub(crate) fn to_poll(&self, wanted: c_short) -> [pollfd; 2] {
        let ends = self.ends.load(Ordering::Relaxed).cast_signed();
        let mut events = 0;
        if wanted & (libc::POLLIN | libc::POLLRDNORM | libc::POLLRDHUP) != 0 && ends & libc::POLLRDHUP == 0 {
            events = libc::POLLIN | libc::POLLRDHUP;
        }
        if wanted & (libc::POLLOUT | libc::POLLWRNORM) != 0 && !self.raw.is_writing_ring() {
            events |= libc::POLLOUT;
        }
        let number = |fd: BorrowedFd<'_>| fd.as_raw_fd();
        let is_over = ends & (libc::POLLHUP | libc::POLLERR) != 0;
        let tcp = if is_over { -1 } else { number(self.raw.as_fd()) };
        let is_gone = self.is_bell_gone.load(Ordering::Relaxed);
        let bell = self.raw.doorbell().filter(|_| !is_gone).map_or(-1, number);
        [pollfd { fd: tcp, events, revents: 0 }, pollfd { fd: bell, events: libc::POLLIN, revents: 0 }]
    }

    /// Takes in what became of [`Stream::to_poll`].
    pub(crate) fn was_polled(&self, polled: &[pollfd]) {
        if let [tcp, bell] = polled {
            if tcp.revents != 0 {
                self.tcp_has_news();
            }
            if bell.revents & (libc::POLLHUP | libc::POLLERR | libc::POLLNVAL) != 0 {
                self.bell_is_gone();
                self.tcp_has_news();
            }
        }
    }

    /// The peer's end of the doorbell has gone.
    pub(crate) fn bell_is_gone(&self) {
        self.is_bell_gone.store(true, Ordering::Relaxed);
        self.raw.bell_is_gone();
    }

    /// The events that mean the end of the connection, which the TCP connection tells.
    fn ends(&self) -> c_short {
        // As long as bytes go by TCP, it alone knows.
        if !self.raw.is_on_rings() || (self.raw.has_peer_ended() && !self.has_hung_up()) {
            self.tcp_has_news();
        }
        let ends = self.ends.load(Ordering::Relaxed).cast_signed();
        if ends != 0 || !self.raw.has_peer_ended() {
            return ends;
        }
        // The word in the ring comes before the FIN, or the reset, that goes with it; by TCP, the end of the data and
        // that are one.
        if !self.has_awaited_end.swap(true, Ordering::Relaxed) {
            self.await_end(PollFlags::RDHUP);
            self.tcp_has_news();
        }
        self.ends.load(Ordering::Relaxed).cast_signed() | libc::POLLRDHUP
    }

    /// Waits until the TCP connection has heard of the end too: of a reset, or of these. That takes microseconds, unless
    /// the peer is stopped.
    fn await_end(&self, events: PollFlags) {
        let limit = Timespec { tv_sec: 0, tv_nsec: 50_000_000 };
        let _ = poll(&mut [PollFd::from_borrowed_fd(self.raw.as_fd(), events)], Some(&limit));
    }

    fn has_hung_up(&self) -> bool {
        self.ends.load(Ordering::Relaxed) & PollFlags::HUP.bits() != 0
    }
}

/// Tries again if a signal interrupts that no handler wants to end the call.
fn again(mut call: impl FnMut() -> io::Result<usize>) -> io::Result<usize> {
    loop {
        match call() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted && signals::restart() => {}
            result => return result,
        }
    }
}

/// True if the peer has closed the connection, or is gone.
fn is_over(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset)
}

fn low_water(socket: impl AsFd) -> usize {
    let mut value: c_int = 1;
    let mut len = size_of::<c_int>() as libc::socklen_t;
    let fd = socket.as_fd().as_raw_fd();
    // SAFETY: `value` has room for `len` bytes.
    let result = unsafe {
        libc::getsockopt(fd, libc::SOL_SOCKET, libc::SO_RCVLOWAT, (&raw mut value).cast(), &raw mut len)
    };
    if result == 0 { usize::try_from(value).unwrap_or(1) } else { 1 }
}
