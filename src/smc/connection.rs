//! An established SMC-D connection: the pure halves joined to the memory they describe.
//!
//! Nothing here waits. [`Connection::try_read`] and [`Connection::try_write`] do what can be done now; front ends
//! arm the interrupt, look again, and sleep.

mod end;
mod returning;
mod state;
mod way;

use std::{
    io::IoSlice,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicU8, Ordering, fence},
    },
};

use bytes::BufMut;

pub(crate) use returning::Asked;
pub(crate) use state::{ConnectionState, Held};

use super::{
    ConnectionError, PeerMisbehaved,
    cdc::{CONS, Cdc, PROD, ProducerFlags, StateFlags, flags_of},
    close::CloseState,
    cursor::{CDC_LEN, Cursor, RingLen, Span, load},
    outlet::Outlet,
    receiver::Receiver,
    sender::Sender,
};
use crate::{
    dibs::{Cause, Dmb, Interrupt},
    observe::{CdcWord, Direction, Meter},
};

/// A large write is published in pieces of this many bytes, so that the peer copies out while we copy in. Not where each
/// costs a signal: then it is published as a whole.
const PUBLISH: u32 = 16 * 1024;

/// What an attempt to read or write came to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Progress {
    /// So many bytes; at least one unless none were wanted.
    Done(usize),
    /// Nothing can be done now.
    Blocked,
    /// The peer will write nothing more, and everything was read.
    Eof,
}

/// Payload bytes that went each way.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ByteCounts {
    /// Bytes read from our ring.
    pub received: u64,
    /// Bytes written to the peer's ring.
    pub sent: u64,
}

/// The sending half and what may no longer be done with it.
#[derive(Debug)]
struct Tx {
    sender: Sender,
    /// Writing was shut down, or the last flags are out and the peer's DMB must not be touched again.
    ended: bool,
}

/// What the consumer word in the peer's DMB says, and the close state that it reflects.
#[derive(Debug)]
struct Out {
    cdc: Cdc,
    close: CloseState,
    /// The last flags are out; the peer's DMB must not be touched again.
    ended: bool,
}

/// One end of an SMC-D connection. Locks are taken in the order rx, tx, out.
#[derive(Debug)]
pub(crate) struct Connection {
    dmb: Arc<Dmb>,
    outlet: Outlet,
    own_ring: RingLen,
    peer_ring: RingLen,
    rx: Mutex<Receiver>,
    tx: Mutex<Tx>,
    out: Mutex<Out>,
    /// State flags of the peer as last taken in, so that the locks are needed only when they change.
    peer_state: AtomicU8,
    peer_gone: AtomicBool,
    /// The producer flags as last published.
    producer_flags: AtomicU8,
    fault: OnceLock<PeerMisbehaved>,
    /// Whether to close as after unread data, if that is not for the ring to say.
    close_as_abort: OnceLock<bool>,
    meter: Meter,
    abandoned: AtomicBool,
    /// What is in our ring is the last that ever will be; see [`Connection::leave`].
    left: AtomicBool,
    /// Writing has gone back to TCP. Then it has ended here, too.
    back: AtomicBool,
    /// The peer's messages come whole, and are numbered.
    is_moved: bool,
}

/// What the peer has to know of the sender besides its cursor.
fn producer_flags(sender: &Sender) -> ProducerFlags {
    let mut flags = ProducerFlags::empty();
    flags.set(ProducerFlags::WRITE_BLOCKED, sender.is_blocked());
    // Not "pending" beside it, as Linux says: it forgets an urgent byte that it has when it sees that a second time.
    flags.set(ProducerFlags::URGENT_PRESENT, sender.is_urgent());
    flags
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing panics while one of these is held; if it did, every value is a state that a peer could cause.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Connection {
    /// Joins our DMB and the way into the peer's. Both CDC slots are zero.
    ///
    /// `peer_ring` is the ring of the peer's DMB.
    pub(crate) fn new(dmb: Arc<Dmb>, own_ring: RingLen, outlet: Outlet, peer_ring: RingLen) -> Self {
        let is_moved = dmb.interrupt().moves().is_some();
        Self {
            is_moved,
            dmb,
            outlet,
            own_ring,
            peer_ring,
            rx: Mutex::new(Receiver::new(own_ring)),
            tx: Mutex::new(Tx { sender: Sender::new(peer_ring), ended: false }),
            out: Mutex::new(Out { cdc: Cdc::default(), close: CloseState::new(), ended: false }),
            peer_state: AtomicU8::new(0),
            peer_gone: AtomicBool::new(false),
            producer_flags: AtomicU8::new(0),
            fault: OnceLock::new(),
            close_as_abort: OnceLock::new(),
            meter: Meter::default(),
            abandoned: AtomicBool::new(false),
            left: AtomicBool::new(false),
            back: AtomicBool::new(false),
        }
    }

    /// Where the peer's signals arrive.
    pub(crate) fn interrupt(&self) -> &dyn Interrupt {
        self.dmb.interrupt()
    }

    /// The two words that the peer writes, unchecked: if they change, there is news.
    #[inline]
    pub(crate) fn news(&self) -> (u64, u64) {
        let word = |at| self.dmb.memory().word64(at).map_or(0, |word| word.load(Ordering::Relaxed));
        (word(PROD), word(CONS))
    }

    /// Our DMB.
    pub(crate) fn dmb(&self) -> &Arc<Dmb> {
        &self.dmb
    }

    /// The way into the peer's DMB.
    pub(crate) fn outlet(&self) -> &Outlet {
        &self.outlet
    }

    /// Bytes of the ring that we read from.
    pub(crate) fn receive_buffer(&self) -> usize {
        self.own_ring.get() as usize
    }

    /// Bytes of the ring that we write to.
    pub(crate) fn send_buffer(&self) -> usize {
        self.peer_ring.get() as usize
    }

    /// Payload bytes so far.
    pub(crate) fn byte_counts(&self) -> ByteCounts {
        ByteCounts { received: self.meter.bytes(Direction::In), sent: self.meter.bytes(Direction::Out) }
    }

    /// What counts the bytes.
    pub(crate) fn meter(&self) -> &Meter {
        &self.meter
    }

    /// Reads what is there, as much as `dst` takes.
    ///
    /// # Errors
    /// Once everything that the peer published was read: that it aborted, is gone, or broke the protocol.
    pub(crate) fn try_read(&self, dst: &mut impl BufMut) -> Result<Progress, ConnectionError> {
        let mut rx = lock(&self.rx);
        let mut done = 0;
        while dst.has_remaining_mut() {
            self.pass_urgent(&mut rx)?;
            if rx.available() == 0 && self.refresh_rx(&mut rx)? == 0 {
                if done > 0 {
                    break;
                }
                match self.ran_dry(&mut rx)? {
                    // Data that came just before the end.
                    Progress::Done(_) => {}
                    other => return Ok(other),
                }
            }
            let span = rx.plan(dst.remaining_mut().min(PUBLISH as usize));
            self.copy_out(span, dst)?;
            let n = span.first.1 + span.second.1;
            done += n as usize;
            if rx.consume(n) {
                self.confirm(&mut rx)?;
            }
        }
        self.pass_urgent(&mut rx)?;
        self.meter.count(Direction::In, done);
        Ok(Progress::Done(done))
    }

    /// Copies what is there, as much as `dst` takes, and leaves it there.
    ///
    /// # Errors
    /// As [`Connection::try_read`].
    pub(crate) fn try_peek(&self, dst: &mut impl BufMut) -> Result<Progress, ConnectionError> {
        let mut rx = lock(&self.rx);
        if !dst.has_remaining_mut() {
            return Ok(Progress::Done(0));
        }
        loop {
            self.pass_urgent(&mut rx)?;
            if rx.available() > 0 {
                let span = rx.plan(dst.remaining_mut());
                self.copy_out(span, dst)?;
                return Ok(Progress::Done((span.first.1 + span.second.1) as usize));
            }
            if self.refresh_rx(&mut rx)? == 0 {
                match self.ran_dry(&mut rx)? {
                    Progress::Done(_) => {}
                    other => return Ok(other),
                }
            }
        }
    }

    /// Skips an urgent byte that normal reading has come to; it stays readable out of band.
    #[inline]
    fn pass_urgent(&self, rx: &mut Receiver) -> Result<(), ConnectionError> {
        if rx.at_urgent() {
            let mut byte = [0];
            self.dmb.memory().read(CDC_LEN + rx.plan(0).first.0 as usize, &mut byte)?;
            rx.skip_urgent(byte[0]);
            // The peer sends nothing more until it knows.
            self.confirm(rx)?;
        }
        Ok(())
    }

    /// Reads the peer's urgent byte, ahead of what was sent before it. `None` if there is none, or not again.
    ///
    /// # Errors
    /// If the peer broke the protocol.
    pub(crate) fn try_read_urgent(&self) -> Result<Option<u8>, ConnectionError> {
        let mut rx = lock(&self.rx);
        // Before looking for more: a newer urgent byte takes the place of this one, as with TCP.
        if let Some(passed) = rx.take_passed() {
            return Ok(Some(passed));
        }
        self.refresh_rx(&mut rx)?;
        if let Some(offset) = rx.urgent_offset() {
            let mut byte = [0];
            self.dmb.memory().read(CDC_LEN + offset as usize, &mut byte)?;
            rx.take_urgent();
            self.pass_urgent(&mut rx)?;
            return Ok(Some(byte[0]));
        }
        Ok(None)
    }

    fn copy_out(&self, span: Span, dst: &mut impl BufMut) -> Result<(), ConnectionError> {
        for (offset, len) in [span.first, span.second] {
            self.dmb.memory().read_to(CDC_LEN + offset as usize, len as usize, dst)?;
        }
        Ok(())
    }

    /// True if there is something to read, the end included.
    pub(crate) fn is_readable(&self) -> bool {
        let mut rx = lock(&self.rx);
        // An urgent byte that is next is not for normal reading, and the peer waits for it to be gone.
        self.pass_urgent(&mut rx).is_err()
            || rx.available() > 0
            || !matches!(self.refresh_rx(&mut rx), Ok(0))
            // What the peer asks for is nothing to be read, and done by those who look next.
            || !matches!(self.ran_dry(&mut rx), Ok(Progress::Blocked) | Err(ConnectionError::AsksForTcp))
    }

    /// Nothing is left in the ring: says whether more can come. Looks at the peer's flags first and at its producer
    /// cursor after that: the peer publishes data before the flags that follow it.
    fn ran_dry(&self, rx: &mut Receiver) -> Result<Progress, ConnectionError> {
        let gone = self.peer_gone.load(Ordering::Acquire);
        let (way, state) = self.look_at_flags()?;
        if way.contains(ProducerFlags::LEAVING) && !self.is_back() {
            return Err(ConnectionError::AsksForTcp);
        }
        let is_back = way.contains(ProducerFlags::BACK) || self.has_left();
        if state.is_empty() && !is_back && !gone && !self.is_over() {
            return Ok(Progress::Blocked);
        }
        let new = match self.look_for_data(rx)? {
            // The flags may be those of a message that is being written, and its cursor not there yet. If it never will be,
            // for want of a peer, that of the message before counts.
            None if !gone && !self.is_over() => return Ok(Progress::Blocked),
            None => self.take_prod(rx, load(self.dmb.memory().word64(PROD)?).0, ProducerFlags::empty())?,
            Some(new) => new,
        };
        if new > 0 {
            // Data that came before the flags; the caller comes again.
            return Ok(Progress::Done(0));
        }
        if let Some(fault) = self.fault.get() {
            return Err(ConnectionError::PeerMisbehaved(*fault));
        }
        if is_back {
            // However the ring was left, the stream goes on.
            Err(ConnectionError::BackOnTcp)
        } else if state.contains(StateFlags::ABORT) {
            Err(ConnectionError::Aborted)
        } else if !state.is_empty() {
            Ok(Progress::Eof)
        } else {
            Err(ConnectionError::PeerGone)
        }
    }

    /// Writes as much as there is room for.
    ///
    /// # Errors
    /// If this side shut down writing, or the peer closed, aborted, is gone, or broke the protocol.
    pub(crate) fn try_write(&self, bufs: &[IoSlice<'_>]) -> Result<Progress, ConnectionError> {
        let mut tx = lock(&self.tx);
        let _writing = self.outlet.begin();
        self.check_writable(&tx)?;
        let written = self.write_all(&mut tx, bufs);
        written.map_err(|error| self.explain(&tx, error))
    }

    fn write_all(&self, tx: &mut Tx, bufs: &[IoSlice<'_>]) -> Result<Progress, ConnectionError> {
        let piece = if self.outlet.is_mapped() { PUBLISH } else { u32::MAX };
        let gathered = self.gather(bufs);
        let gathered = gathered.as_deref().map(IoSlice::new);
        let bufs = gathered.as_ref().map_or(bufs, std::slice::from_ref);
        let mut done = 0;
        let mut unpublished = 0;
        for buf in bufs {
            let mut rest = &buf[..];
            while !rest.is_empty() {
                if tx.sender.space() == 0 {
                    self.flush(&tx.sender, &mut unpublished)?;
                    self.refresh_tx(&mut tx.sender)?;
                    if tx.sender.space() == 0 {
                        return Ok(self.wrote(done));
                    }
                }
                let n = self.copy_in(&mut tx.sender, rest, piece - unpublished)?;
                rest = rest.get(n as usize..).unwrap_or_default();
                done += n as usize;
                unpublished += n;
                if unpublished == piece {
                    self.flush(&tx.sender, &mut unpublished)?;
                }
            }
        }
        self.flush(&tx.sender, &mut unpublished)?;
        self.meter.count(Direction::Out, done);
        Ok(Progress::Done(done))
    }

    /// Several pieces as one, where each that is placed by itself costs a call of the device: as much as a ring can hold.
    fn gather(&self, bufs: &[IoSlice<'_>]) -> Option<Vec<u8>> {
        if self.outlet.is_mapped() || bufs.iter().filter(|buf| !buf.is_empty()).nth(1).is_none() {
            return None;
        }
        let all = bufs.iter().flat_map(|buf| buf.iter().copied());
        Some(all.take(self.peer_ring.get() as usize).collect())
    }

    /// Writes one urgent byte. Nothing more can be written until the peer has consumed it and all before it.
    ///
    /// # Errors
    /// As [`Connection::try_write`].
    pub(crate) fn try_write_urgent(&self, byte: u8) -> Result<Progress, ConnectionError> {
        let mut tx = lock(&self.tx);
        let _writing = self.outlet.begin();
        self.check_writable(&tx)?;
        let written = self.write_urgent(&mut tx, byte);
        written.map_err(|error| self.explain(&tx, error))
    }

    fn write_urgent(&self, tx: &mut Tx, byte: u8) -> Result<Progress, ConnectionError> {
        if tx.sender.space() == 0 {
            self.refresh_tx(&mut tx.sender)?;
        }
        if tx.sender.space() == 0 {
            return Ok(Progress::Blocked);
        }
        let mut unpublished = self.copy_in(&mut tx.sender, &[byte], 1)?;
        tx.sender.mark_urgent();
        self.flush(&tx.sender, &mut unpublished)?;
        Ok(self.wrote(1))
    }

    /// Ends a write that stopped for want of room.
    fn wrote(&self, done: usize) -> Progress {
        self.meter.count(Direction::Out, done);
        if done == 0 { Progress::Blocked } else { Progress::Done(done) }
    }

    /// For how many bytes there is room.
    pub(crate) fn room(&self) -> usize {
        let mut tx = lock(&self.tx);
        let _ = self.refresh_tx(&mut tx.sender);
        tx.sender.space() as usize
    }

    /// True if the next byte to be read is the peer's urgent one.
    pub(crate) fn is_at_mark(&self) -> bool {
        let mut rx = lock(&self.rx);
        let _ = self.refresh_rx(&mut rx);
        rx.at_urgent()
    }

    /// True if something can be written, or an attempt would fail.
    pub(crate) fn is_writable(&self) -> bool {
        let mut tx = lock(&self.tx);
        tx.sender.space() > 0
            || self.check_writable(&tx).is_err()
            || self.refresh_tx(&mut tx.sender).is_err()
            || tx.sender.space() > 0
    }

    /// Whether writing makes sense at all.
    #[inline]
    fn check_writable(&self, tx: &Tx) -> Result<(), ConnectionError> {
        let gone = self.peer_gone.load(Ordering::Acquire);
        let (way, state) = self.look_at_flags()?;
        let is_left = way.contains(ProducerFlags::LEAVING);
        if state.any_close() || is_left || gone || tx.ended || self.is_over() {
            return Err(self.why_not_writable(tx, is_left, state));
        }
        Ok(())
    }

    #[cold]
    fn why_not_writable(&self, tx: &Tx, is_left: bool, state: StateFlags) -> ConnectionError {
        if let Some(fault) = self.fault.get() {
            ConnectionError::PeerMisbehaved(*fault)
        } else if self.is_back() {
            ConnectionError::BackOnTcp
        } else if tx.ended {
            ConnectionError::ShutDown
        } else if is_left {
            // However the peer has left its ring, it goes on reading.
            ConnectionError::BackOnTcp
        } else if state.contains(StateFlags::ABORT) {
            ConnectionError::Aborted
        } else if state.any_close() {
            ConnectionError::PeerClosed
        } else {
            ConnectionError::PeerGone
        }
    }

    /// Copies the first bytes of `data` into the peer's ring, at most `limit`.
    fn copy_in(&self, sender: &mut Sender, data: &[u8], limit: u32) -> Result<u32, ConnectionError> {
        let span = sender.plan(data.len().min(limit as usize));
        let n = span.first.1 + span.second.1;
        let (first, second) = data[..n as usize].split_at(span.first.1 as usize);
        self.outlet.place(span.first.0, first)?;
        if !second.is_empty() {
            self.outlet.place(span.second.0, second)?;
        }
        sender.advance(n);
        Ok(n)
    }

    /// Publishes what was copied in since the last time.
    #[inline]
    fn flush(&self, sender: &Sender, unpublished: &mut u32) -> Result<(), ConnectionError> {
        if std::mem::take(unpublished) == 0 {
            return Ok(());
        }
        let flags = producer_flags(sender);
        if self.outlet.is_mapped() {
            if flags.bits() != self.producer_flags.load(Ordering::Relaxed) {
                // Before the cursor, so that a peer that sees the cursor sees the flags.
                self.publish_producer_flags(flags)?;
            }
            return self.publish_prod(&Cdc { prod: sender.prod(), producer: flags, ..Cdc::default() });
        }
        let mut out = lock(&self.out);
        out.cdc.prod = sender.prod();
        out.cdc.producer = flags;
        self.publish_prod(&out.cdc)
    }

    #[inline]
    fn publish_prod(&self, cdc: &Cdc) -> Result<(), ConnectionError> {
        let woken = self.outlet.publish_prod(cdc)?;
        self.meter.woken(Direction::Out, woken);
        let which = if self.outlet.is_mapped() { CdcWord::Prod } else { CdcWord::Both };
        self.meter.trace(which, || (cdc.prod_word(), cdc.cons_word()));
        Ok(())
    }

    fn publish_cons(&self, cdc: &Cdc, causes: &[Cause]) -> Result<(), ConnectionError> {
        let woken = self.outlet.publish_cons(cdc, causes)?;
        self.meter.woken(Direction::In, woken);
        let which = if self.outlet.is_mapped() { CdcWord::Cons } else { CdcWord::Both };
        self.meter.trace(which, || (cdc.prod_word(), cdc.cons_word()));
        Ok(())
    }

    #[cold]
    fn publish_producer_flags(&self, flags: ProducerFlags) -> Result<(), ConnectionError> {
        let mut out = lock(&self.out);
        self.producer_flags.store(flags.bits(), Ordering::Relaxed);
        out.cdc.producer = flags;
        self.publish_cons(&out.cdc, &[])
    }

    /// Tells the peer how far we have read. If it has let go of its buffer, it need not know: what it sent before is still to
    /// be read, and how the stream ends then is for its flags to say, and the device.
    fn confirm(&self, rx: &mut Receiver) -> Result<(), ConnectionError> {
        let mut out = lock(&self.out);
        if out.ended {
            return Ok(());
        }
        out.cdc.cons = rx.cons();
        let published = self.publish_cons(&out.cdc, &[Cause::Space]);
        drop(out);
        self.unless_let_go(published)?;
        rx.confirmed();
        Ok(())
    }

    /// Takes in how far the peer has read.
    fn refresh_tx(&self, sender: &mut Sender) -> Result<(), ConnectionError> {
        let (cons, _) = load(self.dmb.memory().word64(CONS)?);
        let freed = sender.on_cons(cons);
        self.judge(freed).map(drop)
    }

    /// Takes in how far the peer has written; says how many bytes are new.
    #[inline]
    fn refresh_rx(&self, rx: &mut Receiver) -> Result<u32, ConnectionError> {
        if self.is_moved {
            return Ok(self.refresh_rx_moved(rx)?.unwrap_or(0));
        }
        let (prod, mark) = load(self.dmb.memory().word64(PROD)?);
        let new = rx.on_prod(prod);
        let new = self.judge(new)?;
        if new > 0 {
            let (_, flags) = load(self.dmb.memory().word64(CONS)?);
            // The urgent mark belongs to this very cursor, so it counts only in the word that holds both.
            let urgent = flags_of(mark).0 & ProducerFlags::URGENT_PRESENT;
            rx.on_flags((flags_of(flags).0 - ProducerFlags::URGENT_PRESENT) | urgent);
        }
        Ok(new)
    }

    /// As [`Connection::refresh_rx`]; `None` while a message is being written, so that flags and cursor may not belong
    /// together. A signal follows that.
    fn look_for_data(&self, rx: &mut Receiver) -> Result<Option<u32>, ConnectionError> {
        if self.is_moved { self.refresh_rx_moved(rx) } else { self.refresh_rx(rx).map(Some) }
    }

    /// As [`Connection::look_for_data`], of a peer that writes its messages whole, and marks urgent bytes as Linux does: in
    /// the other word of the same message.
    fn refresh_rx_moved(&self, rx: &mut Receiver) -> Result<Option<u32>, ConnectionError> {
        let Some((prod, flags)) = self.whole_message()? else { return Ok(None) };
        let new = self.take_prod(rx, prod, flags)?;
        if new == 0 && rx.is_mark_late(flags) {
            // The words of a message may come one by one where only a signal says that it is whole.
            rx.on_flags(flags);
            if rx.unread() == 0 {
                // Read as any other by now; the peer sends nothing more until it knows.
                self.confirm(rx)?;
            }
        }
        Ok(Some(new))
    }

    fn take_prod(
        &self,
        rx: &mut Receiver,
        prod: Cursor,
        flags: ProducerFlags,
    ) -> Result<u32, ConnectionError> {
        let new = rx.on_prod(prod);
        let new = self.judge(new)?;
        if new > 0 {
            rx.on_flags(flags);
        }
        Ok(new)
    }

    /// Producer cursor and flags of one message. `None` while one is being written; a signal follows that.
    fn whole_message(&self) -> Result<Option<(Cursor, ProducerFlags)>, ConnectionError> {
        // More than one can hardly come between; and whoever writes all the time signals all the time.
        const TRIES: u32 = 4;
        let moves = || self.dmb.interrupt().moves();
        for _ in 0..TRIES {
            let before = moves();
            let prod = self.dmb.memory().word64(PROD)?;
            let (cursor, mark) = load(prod);
            let (_, flags) = load(self.dmb.memory().word64(CONS)?);
            // These loads come before the second look at the number and the cursor.
            fence(Ordering::Acquire);
            let is_same = moves() == before && load(prod).0 == cursor;
            if before.is_none_or(|before| before & 1 == 0) && is_same {
                // Our own kind has the mark in both words.
                let urgent = flags_of(mark).0 & ProducerFlags::URGENT_PRESENT;
                return Ok(Some((cursor, flags_of(flags).0 | urgent)));
            }
        }
        Ok(None)
    }

    /// The peer's state flags; takes in those that are new.
    #[inline]
    fn look_at_peer(&self) -> Result<StateFlags, ConnectionError> {
        Ok(self.look_at_flags()?.1)
    }

    /// The peer's flags; takes in the state flags that are new.
    #[inline]
    fn look_at_flags(&self) -> Result<(ProducerFlags, StateFlags), ConnectionError> {
        let (_, flags) = load(self.dmb.memory().word64(CONS)?);
        let (producer, now) = flags_of(flags);
        let known = StateFlags::from_bits_truncate(self.peer_state.load(Ordering::Acquire));
        // Sticky: what was once seen stays, whatever the peer does to the word later.
        let state = known | now;
        if state != known {
            lock(&self.out).close.on_flags(state);
            self.peer_state.fetch_or(state.bits(), Ordering::AcqRel);
        }
        Ok((producer, state))
    }

    /// True once nothing more can come, whatever the peer does.
    #[inline]
    fn is_over(&self) -> bool {
        self.fault.get().is_some()
    }

    /// True if the peer said that it is done: has shut down writing, closed, or aborted.
    pub(crate) fn has_peer_ended(&self) -> bool {
        !matches!(self.look_at_peer(), Ok(state) if state.is_empty())
    }

    /// Ends the connection if the peer broke the protocol.
    #[inline]
    fn judge<T>(&self, result: Result<T, PeerMisbehaved>) -> Result<T, ConnectionError> {
        result.map_err(|fault| {
            tracing::warn!(error = %fault, "SMC-D peer misbehaved; connection aborted");
            let _ = self.fault.set(fault);
            self.send_abort();
            ConnectionError::PeerMisbehaved(fault)
        })
    }

    /// Shuts down writing: the peer reads what was written, then end of file.
    ///
    /// # Errors
    /// If the device fails. Shutting down twice, or after the peer has let go of the connection, is no error.
    pub(crate) fn shutdown_write(&self) -> Result<(), ConnectionError> {
        let _ = self.look_at_peer();
        let mut tx = lock(&self.tx);
        tx.ended = true;
        let mut out = lock(&self.out);
        let flags = out.close.shutdown_write();
        let sent = self.send_flags(&mut out, flags);
        drop(out);
        self.unless_let_go(sent)
    }

    /// Closes both directions. If there is unread data, the peer sees a reset, as with TCP.
    ///
    /// Nothing is written to the peer's DMB afterwards.
    pub(crate) fn close(&self) {
        let _ = self.look_at_peer();
        let mut rx = lock(&self.rx);
        let _ = self.refresh_rx(&mut rx);
        let mut tx = lock(&self.tx);
        tx.ended = true;
        let mut out = lock(&self.out);
        let abort = *self.close_as_abort.get_or_init(|| rx.pending() > 0);
        let flags = out.close.close(abort);
        let _ = self.send_flags(&mut out, flags);
        out.ended = true;
    }

    /// Says beforehand whether [`Connection::close`] is to be an abort.
    pub(crate) fn will_close(&self, as_abort: bool) {
        let _ = self.close_as_abort.set(as_abort);
    }

    /// Bytes that can be read now, or once it is their turn.
    ///
    /// # Errors
    /// If the peer broke the protocol.
    pub(crate) fn unread(&self) -> Result<u32, ConnectionError> {
        let mut rx = lock(&self.rx);
        self.refresh_rx(&mut rx)?;
        Ok(rx.pending())
    }

    fn send_abort(&self) {
        let mut out = lock(&self.out);
        let flags = out.close.abort();
        let _ = self.send_flags(&mut out, flags);
        out.ended = true;
    }

    fn send_flags(&self, out: &mut Out, flags: Option<StateFlags>) -> Result<(), ConnectionError> {
        match flags {
            Some(flags) if !out.ended => {
                out.cdc.state = flags;
                self.publish_cons(&out.cdc, &Cause::ALL)
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests;
