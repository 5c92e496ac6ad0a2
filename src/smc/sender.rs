//! The writing half of a connection: where the next bytes go in the peer's ring.

use super::{
    PeerMisbehaved,
    cursor::{Cursor, RingLen, Span},
    words::{join, split, truth},
};

/// Producer cursor and room in the peer's ring.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Sender {
    ring: RingLen,
    prod: Cursor,
    /// The peer's consumer cursor as last seen.
    cons: Cursor,
    space: u32,
    /// An urgent byte is under way.
    urgent: bool,
}

impl Sender {
    /// At the start of a connection whose peer has a ring of this length.
    pub(crate) fn new(ring: RingLen) -> Self {
        Self { ring, prod: Cursor::default(), cons: Cursor::default(), space: ring.get(), urgent: false }
    }

    /// All of it, for a snapshot.
    pub(crate) fn to_words(self) -> [u64; 3] {
        let prod = self.prod.to_word([u8::from(self.urgent), 0]);
        [prod, self.cons.to_word([0, 0]), join(self.ring.get(), self.space)]
    }

    /// Reads a snapshot; `None` if no sender can be so.
    pub(crate) fn from_words([prod, cons, lengths]: [u64; 3]) -> Option<Self> {
        let (prod, [urgent, 0]) = Cursor::from_word(prod) else { return None };
        let (cons, [0, 0]) = Cursor::from_word(cons) else { return None };
        let (ring, space) = split(lengths);
        let ring = RingLen::new(ring)?;
        let unconfirmed = cons.checked_distance(prod, ring)?;
        let is_sound = unconfirmed.checked_add(space) == Some(ring.get());
        is_sound.then_some(Self { ring, prod, cons, space, urgent: truth(urgent)? })
    }

    /// The ring that it writes to.
    pub(crate) fn ring(&self) -> RingLen {
        self.ring
    }

    /// Bytes that can be written now.
    pub(crate) fn space(&self) -> u32 {
        if self.urgent { 0 } else { self.space }
    }

    /// How far we have written.
    pub(crate) fn prod(&self) -> Cursor {
        self.prod
    }

    /// How far the peer has read, as last seen.
    pub(crate) fn cons(&self) -> Cursor {
        self.cons
    }

    /// True if the peer's ring is full as far as we know: it has to be told that we wait for it.
    pub(crate) fn is_blocked(&self) -> bool {
        self.space == 0
    }

    /// Bytes written that the peer has not confirmed (`SIOCOUTQ` where remote memory is mapped).
    pub(crate) fn unconfirmed(&self) -> u32 {
        self.ring.get() - self.space
    }

    /// Takes in the peer's consumer cursor; says how many bytes it has confirmed since.
    ///
    /// # Errors
    /// A cursor that confirms bytes that were never written, or takes confirmations back.
    pub(crate) fn on_cons(&mut self, cons: Cursor) -> Result<u32, PeerMisbehaved> {
        if cons == self.cons {
            return Ok(0);
        }
        let freed = self.cons.distance(cons, self.ring)?;
        if freed > self.unconfirmed() {
            return Err(PeerMisbehaved::Confirmed { confirmed: freed, outstanding: self.unconfirmed() });
        }
        self.cons = cons;
        self.space += freed;
        if self.space == self.ring.get() {
            // The urgent byte is consumed once everything is.
            self.urgent = false;
        }
        Ok(freed)
    }

    /// Where the next at most `wanted` bytes go. Empty if there is no room.
    pub(crate) fn plan(&self, wanted: usize) -> Span {
        let len = u32::try_from(wanted).unwrap_or(u32::MAX).min(self.space());
        Span::new(self.prod, len, self.ring)
    }

    /// The first `n` bytes of the plan have been written; the producer cursor is to be published.
    pub(crate) fn advance(&mut self, n: u32) {
        let n = n.min(self.space);
        self.space -= n;
        self.prod = self.prod.add(self.ring, n);
    }

    /// True if the last byte written is urgent and not yet consumed.
    pub(crate) fn is_urgent(&self) -> bool {
        self.urgent
    }

    /// Marks the last byte written as urgent. Until the peer has consumed everything nothing more can be written, so
    /// that the mark cannot be overtaken: there is only one CDC slot.
    pub(crate) fn mark_urgent(&mut self) {
        self.urgent = true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sender(len: usize) -> Sender {
        Sender::new(RingLen::of_dmb(len + 32).unwrap())
    }

    #[test]
    fn fills_the_whole_ring_and_no_more() {
        let mut s = sender(100);
        assert_eq!(s.plan(1000).first, (0, 100));
        s.advance(100);
        assert_eq!(s.prod(), Cursor { wrap: 1, count: 0 });
        assert_eq!(s.space(), 0);
        assert_eq!(s.plan(1), Span { first: (0, 0), second: (0, 0) });
    }

    #[test]
    fn confirmed_bytes_are_room_again() {
        let mut s = sender(100);
        s.advance(80);
        assert_eq!(s.on_cons(Cursor { wrap: 0, count: 30 }).unwrap(), 30);
        assert_eq!(s.space(), 50);
        assert_eq!(s.plan(50), Span { first: (80, 20), second: (0, 30) });
    }

    #[test]
    fn a_peer_cannot_confirm_what_was_not_sent() {
        let mut s = sender(100);
        s.advance(10);
        for cons in [(0, 11), (1, 0), (0, 100), (7, 3), (0, u32::MAX)] {
            assert!(s.on_cons(Cursor { wrap: cons.0, count: cons.1 }).is_err());
        }
        assert_eq!(s.space(), 90);
        s.on_cons(Cursor { wrap: 0, count: 10 }).unwrap();
        assert!(s.on_cons(Cursor { wrap: 0, count: 9 }).is_err(), "nor take it back");
    }

    #[test]
    fn nothing_overtakes_an_urgent_byte() {
        let mut s = sender(100);
        s.advance(10);
        s.mark_urgent();
        assert_eq!(s.space(), 0);
        s.on_cons(Cursor { wrap: 0, count: 9 }).unwrap();
        assert_eq!(s.space(), 0);
        s.on_cons(Cursor { wrap: 0, count: 10 }).unwrap();
        assert_eq!(s.space(), 100);
    }
}
