//! Which way the bytes of a connection take that began as TCP: by the ring, or by TCP again.
//!
//! Each direction moves to the ring once, and may move back once. The reader asks for either (`READING`, `LEAVING`), the
//! writer does it; its last word in the ring is `BACK`, and TCP goes on from there. A connection that is on its rings from
//! the first byte begins with `READING`, by which the ends know that they can go back.

use std::sync::atomic::Ordering;

use super::{CONS, Connection, ConnectionError, ProducerFlags, StateFlags, flags_of, load, lock};
use crate::dibs::Cause;

impl Connection {
    /// Tells the peer that we read what it writes to our ring.
    ///
    /// # Errors
    /// If the device fails.
    pub(crate) fn announce_reading(&self) -> Result<(), ConnectionError> {
        self.tell(ProducerFlags::LEAVING, ProducerFlags::READING, &[])
    }

    /// Tells the peer that we shall read no more from our ring than what is there: it goes on by TCP with its next write.
    ///
    /// # Errors
    /// If the device fails.
    pub(crate) fn announce_leaving(&self) -> Result<(), ConnectionError> {
        // It may wait for room in our ring.
        self.tell(ProducerFlags::READING, ProducerFlags::LEAVING, &Cause::ALL)
    }

    /// Ends writing here; it goes on by TCP.
    ///
    /// # Errors
    /// If the device fails.
    pub(crate) fn go_back(&self) -> Result<(), ConnectionError> {
        let mut tx = lock(&self.tx);
        tx.ended = true;
        self.back.store(true, Ordering::Release);
        // All that was written is published, since nobody writes. The peer looks at this flag first and then at the
        // cursor.
        self.tell(ProducerFlags::empty(), ProducerFlags::BACK, &[Cause::Data])
    }

    fn tell(&self, not: ProducerFlags, but: ProducerFlags, causes: &[Cause]) -> Result<(), ConnectionError> {
        let mut out = lock(&self.out);
        if !out.ended {
            out.cdc.way = (out.cdc.way - not) | but;
            self.publish_cons(&out.cdc, causes)?;
        }
        Ok(())
    }

    /// True if the peer reads what we write to its ring, and has not closed.
    #[inline]
    pub(crate) fn is_peer_reading(&self) -> bool {
        let (way, state) = self.seen_way();
        way.contains(ProducerFlags::READING) && !way.contains(ProducerFlags::LEAVING) && !state.any_close()
    }

    /// True if both ends map the other's DMB. Linux and a hardware move data instead, and know of one way only.
    pub(crate) fn is_mapped(&self) -> bool {
        self.outlet.is_mapped() && !self.is_moved
    }

    /// True if the peer has said which way bytes take to it, or is done: it can take another. One whose end is SMC-D
    /// alone, as that of Linux, says nothing of it.
    pub(crate) fn is_peer_on_two_ways(&self) -> bool {
        let (way, state) = self.seen_way();
        !way.is_empty() || state.any_close()
    }

    /// True if the peer reads no more than what is in its ring.
    pub(crate) fn is_peer_leaving(&self) -> bool {
        self.seen_way().0.contains(ProducerFlags::LEAVING)
    }

    /// True if the peer writes nothing more to our ring. Look at the ring once more afterwards.
    pub(crate) fn is_peer_back(&self) -> bool {
        self.seen_way().0.contains(ProducerFlags::BACK)
    }

    fn seen_way(&self) -> (ProducerFlags, StateFlags) {
        self.dmb.memory().word64(CONS).map_or_else(|_| Default::default(), |word| flags_of(load(word).1))
    }

    /// Makes sure that a write of the peer that began before it could see that we leave is seen
    /// ([`Connection::is_written`]) until it is over.
    ///
    /// # Errors
    /// If the peer cannot be waited for: device or system have no way to.
    pub(crate) fn catch_writer(&self) -> Result<(), ConnectionError> {
        Ok(self.dmb.catch_writer()?)
    }

    /// True while a write of the peer may be under way. Once it is not, after [`Connection::catch_writer`], our ring has
    /// all that will ever be in it.
    pub(crate) fn is_written(&self) -> bool {
        // One whose process is gone writes no more.
        self.dmb.is_written() && !self.interrupt().is_hung_up()
    }

    /// What is in our ring is the last that ever will be: to be called when no write of the peer is under way any
    /// more. Once it is read, the ring says that the bytes come by TCP.
    pub(crate) fn leave(&self) {
        self.left.store(true, Ordering::Release);
    }

    /// True if what is in our ring is the last that ever will be, because we have left it.
    pub(crate) fn has_left(&self) -> bool {
        self.left.load(Ordering::Acquire)
    }

    /// True if what is in our ring is the last that ever will be, and the rest comes by TCP: one of the two ends has gone
    /// back. Look at the ring once more afterwards.
    #[inline]
    pub(crate) fn is_last(&self) -> bool {
        self.has_left() || self.is_peer_back()
    }
}
