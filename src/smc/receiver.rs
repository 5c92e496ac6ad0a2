//! The reading half of a connection: what lies in our own ring, and when to tell the peer that it was consumed.

use super::{
    PeerMisbehaved,
    cdc::ProducerFlags,
    cursor::{Cursor, RingLen, Span},
    words::{join, split, truth},
};

/// Least value of the update limit: `SOCK_MIN_SNDBUF / 2` of Linux on common machines.
const MIN_UPDATE_LIMIT: u32 = 2304;

/// Where the peer's urgent byte is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) enum Urgent {
    /// None was announced.
    #[default]
    None,
    /// The byte at `unread` bytes from the consumer cursor (0 is the next one) is urgent.
    At {
        /// Distance from the consumer cursor.
        unread: u32,
        /// It was read out of band already.
        taken: bool,
    },
    /// Normal reading has gone past it; this is what it was, unless it was read out of band before.
    Passed(Option<u8>),
}

impl Urgent {
    /// Kind, distance and byte.
    fn to_parts(self) -> (u8, u32, u8) {
        match self {
            Self::None => (0, 0, 0),
            Self::At { unread, taken: false } => (1, unread, 0),
            Self::At { unread, taken: true } => (2, unread, 0),
            Self::Passed(None) => (3, 0, 0),
            Self::Passed(Some(byte)) => (4, 0, byte),
        }
    }

    fn from_parts(parts: (u8, u32, u8)) -> Option<Self> {
        Some(match parts {
            (0, 0, 0) => Self::None,
            (1, unread, 0) => Self::At { unread, taken: false },
            (2, unread, 0) => Self::At { unread, taken: true },
            (3, 0, 0) => Self::Passed(None),
            (4, 0, byte) => Self::Passed(Some(byte)),
            _ => return None,
        })
    }
}

/// Consumer cursor, unread bytes, and what the peer knows of them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Receiver {
    ring: RingLen,
    /// The peer's producer cursor as last seen.
    prod: Cursor,
    cons: Cursor,
    unread: u32,
    /// Bytes consumed that the peer does not know of.
    unconfirmed: u32,
    update_limit: u32,
    peer: ProducerFlags,
    urgent: Urgent,
    /// Other bytes come before those that are here.
    barred: bool,
}

impl Receiver {
    /// At the start of a connection with a ring of our own of this length.
    pub(crate) fn new(ring: RingLen) -> Self {
        Self {
            ring,
            prod: Cursor::default(),
            cons: Cursor::default(),
            unread: 0,
            unconfirmed: 0,
            update_limit: (ring.get() / 10).max(MIN_UPDATE_LIMIT).min(ring.get() - 1),
            peer: ProducerFlags::empty(),
            urgent: Urgent::None,
            barred: false,
        }
    }

    /// All of it, for a snapshot.
    pub(crate) fn to_words(self) -> [u64; 4] {
        let (kind, at, byte) = self.urgent.to_parts();
        [
            self.prod.to_word([self.peer.bits(), kind]),
            self.cons.to_word([byte, u8::from(self.barred)]),
            join(self.unread, self.unconfirmed),
            join(self.ring.get(), at),
        ]
    }

    /// Reads a snapshot; `None` if no receiver can be so.
    pub(crate) fn from_words([prod, cons, counts, rest]: [u64; 4]) -> Option<Self> {
        let (prod, [peer, kind]) = Cursor::from_word(prod);
        let (cons, [byte, barred]) = Cursor::from_word(cons);
        let (unread, unconfirmed) = split(counts);
        let (ring, at) = split(rest);
        let ring = RingLen::new(ring)?;
        let peer = ProducerFlags::from_bits(peer)?;
        let urgent = Urgent::from_parts((kind, at, byte))?;
        let is_behind = matches!(urgent, Urgent::At { unread: at, .. } if at >= unread);
        let is_sound = cons.checked_distance(prod, ring) == Some(unread) && unconfirmed <= ring.get();
        let barred = truth(barred)?;
        let restored = Self { prod, cons, unread, unconfirmed, peer, urgent, barred, ..Self::new(ring) };
        (is_sound && !is_behind).then_some(restored)
    }

    /// The ring that it reads from.
    pub(crate) fn ring(&self) -> RingLen {
        self.ring
    }

    /// Bytes in the ring, an urgent one included.
    pub(crate) fn unread(&self) -> u32 {
        self.unread
    }

    /// Bytes that a normal read gets now, or that it gets before an urgent one.
    pub(crate) fn available(&self) -> u32 {
        if self.barred { 0 } else { self.pending() }
    }

    /// Bytes that normal reads get, or get before an urgent one, now or once it is their turn.
    pub(crate) fn pending(&self) -> u32 {
        match self.urgent {
            Urgent::At { unread, .. } => unread,
            _ => self.unread,
        }
    }

    /// From now on nothing of what is here can be read: other bytes come first. An urgent one is no longer urgent.
    pub(crate) fn bar(&mut self) {
        self.barred = true;
        self.forget_urgent();
    }

    /// What is here is next again.
    pub(crate) fn unbar(&mut self) {
        self.barred = false;
    }

    /// A byte that is urgent, and still here, is one as any other.
    pub(crate) fn forget_urgent(&mut self) {
        if matches!(self.urgent, Urgent::At { .. }) {
            self.urgent = Urgent::None;
        }
    }

    /// True if a byte that is still here was read out of band.
    pub(crate) fn is_urgent_taken(&self) -> bool {
        matches!(self.urgent, Urgent::At { taken: true, .. })
    }

    /// How far we have consumed.
    pub(crate) fn cons(&self) -> Cursor {
        self.cons
    }

    /// Where in the ring the urgent byte lies, if it is there and was not read out of band.
    pub(crate) fn urgent_offset(&self) -> Option<u32> {
        match self.urgent {
            Urgent::At { unread, taken: false } => Some(self.cons.add(self.ring, unread).count),
            _ => None,
        }
    }

    /// The urgent byte was read out of band; normal reading will skip it.
    pub(crate) fn take_urgent(&mut self) {
        if let Urgent::At { taken, .. } = &mut self.urgent {
            *taken = true;
        }
    }

    /// The urgent byte that normal reading has passed, once.
    pub(crate) fn take_passed(&mut self) -> Option<u8> {
        match &mut self.urgent {
            Urgent::Passed(byte) => byte.take(),
            _ => None,
        }
    }

    /// True if the urgent byte is the next one (`SIOCATMARK`): normal reading has to skip it.
    pub(crate) fn at_urgent(&self) -> bool {
        matches!(self.urgent, Urgent::At { unread: 0, .. }) && !self.barred
    }

    /// Skips the urgent byte, which is this one; it can still be read out of band. The peer has to be told, it waits.
    pub(crate) fn skip_urgent(&mut self, byte: u8) {
        if let Urgent::At { unread: 0, taken } = self.urgent {
            self.consume(1);
            self.urgent = Urgent::Passed((!taken).then_some(byte));
        }
    }

    /// Takes in the peer's producer cursor; says how many bytes are new.
    ///
    /// # Errors
    /// A cursor beyond the room there is, or one that takes bytes back.
    pub(crate) fn on_prod(&mut self, prod: Cursor) -> Result<u32, PeerMisbehaved> {
        if prod == self.prod {
            return Ok(0);
        }
        let unread = self.cons.distance(prod, self.ring)?;
        let new = unread
            .checked_sub(self.unread)
            .ok_or(PeerMisbehaved::TakenBack { now: unread, before: self.unread })?;
        // The peer knows of less room than there is, but writing into room that it does not know of is no harm.
        self.prod = prod;
        self.unread = unread;
        Ok(new)
    }

    /// Takes in the peer's producer flags. To be called whenever the producer cursor has moved: "urgent present" means
    /// the last byte that it covers, and a peer moves it no further until everything was consumed.
    pub(crate) fn on_flags(&mut self, flags: ProducerFlags) {
        self.peer = flags;
        // "Pending" alone says that one will come, not where.
        if flags.contains(ProducerFlags::URGENT_PRESENT) && self.unread > 0 {
            self.urgent = Urgent::At { unread: self.unread - 1, taken: false };
        }
    }

    /// True if these flags mark the last byte that the cursor covers as urgent, and did not when the cursor came.
    pub(crate) fn is_mark_late(&self, flags: ProducerFlags) -> bool {
        flags.contains(ProducerFlags::URGENT_PRESENT) && !self.peer.contains(ProducerFlags::URGENT_PRESENT)
    }

    /// Where the next at most `wanted` bytes lie. Stops before an urgent byte.
    pub(crate) fn plan(&self, wanted: usize) -> Span {
        let len = u32::try_from(wanted).unwrap_or(u32::MAX).min(self.available());
        Span::new(self.cons, len, self.ring)
    }

    /// The first `n` bytes of the plan have been copied out. Says whether the peer has to be told now.
    ///
    /// Linux' rule: if the peer asked; else once more than the update limit (a tenth of
    /// the ring) is unconfirmed and either half the ring is full as far as the peer knows, or the peer waits.
    pub(crate) fn consume(&mut self, n: u32) -> bool {
        let n = n.min(self.unread);
        // What the peer has sent less what it knows to be consumed: the fill that it sees.
        let seen_by_peer = self.unread.saturating_add(self.unconfirmed);
        self.cons = self.cons.add(self.ring, n);
        self.unread -= n;
        self.unconfirmed = (self.unconfirmed + n).min(self.ring.get());
        if let Urgent::At { unread, .. } = &mut self.urgent {
            *unread = unread.saturating_sub(n);
        }
        self.peer.contains(ProducerFlags::CONS_UPDATE_REQUEST)
            || (self.unconfirmed > self.update_limit
                && (seen_by_peer >= self.ring.get() / 2 || self.peer.contains(ProducerFlags::WRITE_BLOCKED)))
    }

    /// The peer has been told of the consumer cursor as it is now.
    pub(crate) fn confirmed(&mut self) {
        self.unconfirmed = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn receiver(len: usize) -> Receiver {
        Receiver::new(RingLen::of_dmb(len + 32).unwrap())
    }

    fn at(wrap: u16, count: u32) -> Cursor {
        Cursor { wrap, count }
    }

    #[test]
    fn sees_what_the_peer_wrote() {
        let mut r = receiver(100_000);
        assert_eq!(r.on_prod(at(0, 70)).unwrap(), 70);
        assert_eq!(r.on_prod(at(0, 70)).unwrap(), 0);
        assert_eq!(r.plan(1000).first, (0, 70));
        r.consume(50);
        assert_eq!(r.unread(), 20);
        assert_eq!(r.plan(1000).first, (50, 20));
    }

    #[test]
    fn a_peer_cannot_overrun_the_ring_or_take_bytes_back() {
        let mut r = receiver(100);
        r.on_prod(at(0, 70)).unwrap();
        r.consume(30);
        for prod in [(1, 31), (0, 100), (0, 29), (9, 9), (0, 60)] {
            assert!(r.on_prod(at(prod.0, prod.1)).is_err(), "{prod:?}");
        }
        assert_eq!(r.unread(), 40, "a refused cursor changes nothing");
        assert_eq!(r.on_prod(at(1, 30)).unwrap(), 60);
    }

    #[test]
    fn small_reads_are_not_confirmed() {
        let mut r = receiver(65504);
        r.on_prod(at(0, 6000)).unwrap();
        assert!(!r.consume(6000));
    }

    #[test]
    fn reads_of_a_full_ring_are_confirmed_past_the_limit() {
        let mut r = receiver(65504);
        r.on_prod(at(1, 0)).unwrap();
        assert!(!r.consume(6550), "the limit itself is not past it");
        assert!(r.consume(1));
        r.confirmed();
        assert!(!r.consume(6550));
    }

    #[test]
    fn an_emptied_full_ring_is_always_confirmed() {
        for dmb in [16384, 32768, 65536, 1 << 20] {
            let mut r = receiver(dmb - 32);
            r.on_prod(at(1, 0)).unwrap();
            let mut confirmed = false;
            while r.unread() > 0 {
                if r.consume(1000) {
                    confirmed = true;
                    r.confirmed();
                }
            }
            assert!(confirmed);
        }
    }

    #[test]
    fn a_blocked_or_asking_peer_is_told() {
        let mut r = receiver(65504);
        r.on_prod(at(0, 10_000)).unwrap();
        r.on_flags(ProducerFlags::WRITE_BLOCKED);
        assert!(r.consume(7000));
        r.confirmed();
        assert!(!r.consume(1));
        r.on_flags(ProducerFlags::CONS_UPDATE_REQUEST);
        assert!(r.consume(1));
    }

    fn urgent(len: u32) -> Receiver {
        let mut r = receiver(65504);
        r.on_prod(at(0, len)).unwrap();
        r.on_flags(ProducerFlags::URGENT_PENDING | ProducerFlags::URGENT_PRESENT);
        r
    }

    #[test]
    fn reading_stops_at_an_urgent_byte_and_skips_it() {
        let mut r = urgent(10);
        assert_eq!((r.available(), r.unread()), (9, 10));
        assert_eq!(r.plan(100).first, (0, 9));
        r.consume(9);
        assert!(r.at_urgent());
        assert_eq!(r.available(), 0);
        r.skip_urgent(7);
        assert_eq!((r.unread(), r.cons().count), (0, 10));
        assert_eq!(r.take_passed(), Some(7), "it is not lost");
        assert_eq!(r.take_passed(), None);
    }

    #[test]
    fn an_urgent_byte_is_read_ahead_of_the_others() {
        let mut r = urgent(10);
        assert_eq!(r.urgent_offset(), Some(9));
        r.take_urgent();
        assert_eq!(r.urgent_offset(), None);
        r.consume(9);
        r.skip_urgent(7);
        assert_eq!(r.take_passed(), None, "nor is it there twice");
    }

    #[test]
    fn a_pending_urgent_byte_has_no_place_yet() {
        let mut r = receiver(65504);
        r.on_prod(at(0, 10)).unwrap();
        r.on_flags(ProducerFlags::URGENT_PENDING);
        assert_eq!(r.urgent_offset(), None);
        assert_eq!(r.plan(100).first, (0, 10));
    }
}
