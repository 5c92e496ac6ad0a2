//! Taking back what was written to a ring and not read: the writer sends it by TCP. See [`returning`].

use std::{
    io,
    sync::{MutexGuard, atomic::Ordering},
};

use super::{Connection, ConnectionError, Receiver, Span, lock};
use crate::{
    fault::fault,
    smc::{
        cdc::RETURNED,
        returning::{self, Stand},
        sender::Sender,
    },
};

/// So many bytes are copied out of the ring at a time.
const PIECE: u32 = 64 * 1024;

/// Whoever leaves its ring, and may have asked the peer to take back what is in it. Nobody reads as long as this lives.
#[derive(Debug)]
pub(crate) struct Asked<'a> {
    connection: &'a Connection,
    rx: MutexGuard<'a, Receiver>,
    /// Bytes at the beginning of the ring that are none of the stream.
    skip: u32,
    has_asked: bool,
}

impl Connection {
    /// True if the peer asks to go back to TCP, and we have not yet.
    #[inline]
    pub(crate) fn is_asked(&self) -> bool {
        self.is_peer_leaving() && !self.is_back()
    }

    /// True if writing has gone back to TCP here.
    #[inline]
    pub(crate) fn is_back(&self) -> bool {
        self.back.load(Ordering::Acquire)
    }

    /// True if the peer can take back what it has written: it is there, and has not yet written to TCP what comes after
    /// that, or ended it.
    pub(crate) fn may_be_returned(&self) -> bool {
        self.outlet.is_mapped()
            && !self.has_peer_ended()
            && !self.is_peer_back()
            && !self.interrupt().is_hung_up()
    }

    /// Stops reading, and prepares to ask the peer for what is unread; without the first `skip` bytes, should those be
    /// unread. [`Asked::announce`] does it.
    ///
    /// # Errors
    /// If the peer broke the protocol.
    pub(crate) fn ask_back(&self, skip: u32) -> Result<Asked<'_>, ConnectionError> {
        let may_be_returned = self.may_be_returned();
        let mut rx = lock(&self.rx);
        self.refresh_rx(&mut rx)?;
        // A byte that was read out of band would be read once more, among the others.
        let asks = may_be_returned && !rx.is_urgent_taken();
        if asks {
            let mut out = lock(&self.out);
            out.cdc.cons = rx.cons();
            self.publish_cons(&out.cdc, &[])?;
            rx.confirmed();
            returning::ask(self.dmb.memory().word64(RETURNED)?, skip);
        }
        Ok(Asked { connection: self, rx, skip, has_asked: asks })
    }

    /// How far the peer is with what it was asked for.
    pub(crate) fn returned(&self) -> Stand {
        self.dmb.memory().word64(RETURNED).map_or(Stand::Unknown, returning::look)
    }

    /// Consumes bytes that have come by another way. False, and nothing done, if there are not so many. For what is
    /// [barred](Asked::bar).
    ///
    /// # Errors
    /// If the peer broke the protocol.
    pub(crate) fn pass_over(&self, bytes: u32) -> Result<bool, ConnectionError> {
        let mut rx = lock(&self.rx);
        self.refresh_rx(&mut rx)?;
        rx.forget_urgent();
        let are_there = bytes <= rx.unread();
        if are_there {
            rx.consume(bytes);
        }
        Ok(are_there)
    }

    /// From now on nothing is read here, until [`Connection::unbar`].
    pub(crate) fn bar(&self) {
        lock(&self.rx).bar();
    }

    /// What is in the ring is next.
    pub(crate) fn unbar(&self) {
        lock(&self.rx).unbar();
    }

    /// Takes back what the peer has not read, if it asks for that: `send` gets it piece by piece, and may take less. What
    /// it does not take stays in the peer's ring. Says how many bytes it has taken; from now on nothing may be written to
    /// the ring, and nothing was since the peer said that it leaves.
    ///
    /// # Errors
    /// If the peer broke the protocol, or the device fails.
    pub(crate) fn take_back(
        &self,
        send: &mut dyn FnMut(&[u8]) -> io::Result<usize>,
    ) -> Result<u32, ConnectionError> {
        let mut tx = lock(&self.tx);
        if tx.ended {
            return Ok(0);
        }
        let Some(skip) = self.outlet.take_request() else { return Ok(0) };
        fault!("return-taken");
        // What the peer says of its ring from now on does not matter.
        tx.ended = true;
        self.back.store(true, Ordering::Release);
        let mut sent = 0;
        let result = self.send_unread(&mut tx.sender, skip, send, &mut sent);
        fault!("return-sent");
        // Whatever has become of it: the peer has to know what it gets by TCP.
        self.outlet.finish_request(sent)?;
        fault!("return-said");
        result.map(|()| sent)
    }

    fn send_unread(
        &self,
        sender: &mut Sender,
        skip: u32,
        send: &mut dyn FnMut(&[u8]) -> io::Result<usize>,
        sent: &mut u32,
    ) -> Result<(), ConnectionError> {
        // The peer has published its cursor before it asked, and keeps it so.
        self.refresh_tx(sender)?;
        let Some(mut left) = sender.unconfirmed().checked_sub(skip) else { return Ok(()) };
        let mut at = sender.cons().add(self.peer_ring, skip);
        let mut piece = vec![0; left.min(PIECE) as usize];
        while left > 0 {
            let span = Span::new(at, left.min(PIECE), self.peer_ring);
            let len = (span.first.1 + span.second.1) as usize;
            let (first, second) = piece[..len].split_at_mut(span.first.1 as usize);
            self.outlet.read_back(span.first.0, first)?;
            self.outlet.read_back(span.second.0, second)?;
            let taken = match send(&piece[..len]) {
                Ok(taken) => taken.min(len) as u32,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(_) => 0,
            };
            if taken == 0 {
                break;
            }
            at = at.add(self.peer_ring, taken);
            left -= taken;
            *sent += taken;
        }
        Ok(())
    }
}

impl Asked<'_> {
    /// Tells the peer that we leave our ring, and wakes it.
    ///
    /// # Errors
    /// If the device fails.
    pub(crate) fn announce(&self) -> Result<(), ConnectionError> {
        // After the request: who sees this finds that.
        self.connection.announce_leaving()
    }

    /// How far the peer is.
    pub(crate) fn look(&self) -> Stand {
        if self.has_asked { self.connection.returned() } else { Stand::Nothing }
    }

    /// Withdraws the request. If it is too late for that, says how far the peer is.
    pub(crate) fn withdraw(&self) -> Stand {
        match self.connection.dmb.memory().word64(RETURNED) {
            Ok(word) if self.has_asked => returning::withdraw(word, self.skip),
            _ => Stand::Nothing,
        }
    }

    /// Bytes of the stream that are unread, as far as the ring goes.
    ///
    /// # Errors
    /// If the peer broke the protocol.
    pub(crate) fn unread(&mut self) -> Result<u32, ConnectionError> {
        self.connection.refresh_rx(&mut self.rx)?;
        Ok(self.rx.unread().saturating_sub(self.skip))
    }

    /// All that is unread has come by another way, or there is nothing.
    pub(crate) fn forget_all(&mut self) {
        self.rx.forget_urgent();
        let unread = self.rx.unread();
        self.rx.consume(unread);
    }

    /// Ends it, with other bytes to be read before those in the ring.
    pub(crate) fn bar(mut self) {
        self.rx.bar();
    }
}
