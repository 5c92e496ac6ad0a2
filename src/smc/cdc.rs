//! Connection Data Control: the message in the first 32 bytes of a DMB, written by the peer alone, but for the last word.
//!
//! ```text
//!  0  type 0xFE, zeros
//!  8  prod.wrap u16, prod.count u32, "urgent present" or zero, zero
//! 16  cons.wrap u16, cons.count u32, producer flags, connection state flags
//! 24  zeros; how far the return of unread bytes is, of a connection that goes back to TCP (`returning`)
//! ```
//!
//! Byte 14 is zero in Linux, which reads the message after a signal and so finds cursor and flags together. Here the
//! words are read at any time. So "urgent present" stands in the word of the cursor too: two words are never seen at
//! the same moment.
//!
//! Numbers are in the byte order of the host (SMC-D never swaps them). Of what the peer says, a receiver looks at the
//! words at 8 and 16 only.

use super::cursor::{CDC_LEN, Cursor};

/// First byte of a CDC message.
const CDC_TYPE: u8 = 0xfe;

/// Offset of the producer word in a DMB.
pub(crate) const PROD: usize = 8;

/// Offset of the consumer word, which carries the flags too, in a DMB.
pub(crate) const CONS: usize = 16;

/// Offset of the word that says how far the return of unread bytes is, in the DMB that they are in.
pub(crate) const RETURNED: usize = 24;

bitflags::bitflags! {
    /// Producer flags: byte 22 of the message.
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
    pub(crate) struct ProducerFlags: u8 {
        /// The writer has more data than there is room; confirm what you consume.
        const WRITE_BLOCKED = 0x80;
        /// An urgent byte is on its way.
        const URGENT_PENDING = 0x40;
        /// The byte just before the producer cursor is urgent.
        const URGENT_PRESENT = 0x20;
        /// The writer asks for a consumer update.
        const CONS_UPDATE_REQUEST = 0x10;
        /// The sender of the flag reads what is written to its ring. Only from those that can also take TCP, to those
        /// that map DMBs, as the two that follow; Linux leaves the three bits zero.
        const READING = 0x01;
        /// The sender of the flag writes nothing more to the ring: what follows goes by TCP again.
        const BACK = 0x02;
        /// The sender of the flag reads no more than what is in its ring: the rest is to go by TCP.
        const LEAVING = 0x04;
    }
}

bitflags::bitflags! {
    /// Connection state flags: byte 23 of the message. Once set they are in every later message.
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
    pub(crate) struct StateFlags: u8 {
        /// The writer will send no more data.
        const DONE_WRITING = 0x80;
        /// The writer has closed the connection.
        const CLOSED = 0x40;
        /// The writer has aborted the connection.
        const ABORT = 0x20;
    }
}

impl ProducerFlags {
    /// Which way the bytes take, where they may take two.
    pub(crate) const WAY: Self = Self::READING.union(Self::BACK).union(Self::LEAVING);
}

impl StateFlags {
    /// True once the sender of the flags has closed or aborted: it writes nothing more, not even flags.
    pub(crate) fn any_close(self) -> bool {
        self.intersects(Self::CLOSED | Self::ABORT)
    }
}

/// All that a CDC message says.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Cdc {
    /// How far the sender has written into the receiver's ring.
    pub(crate) prod: Cursor,
    /// How far the sender has consumed its own ring.
    pub(crate) cons: Cursor,
    pub(crate) producer: ProducerFlags,
    pub(crate) state: StateFlags,
    /// Of a connection that began as TCP: [`ProducerFlags::WAY`].
    pub(crate) way: ProducerFlags,
}

impl Cdc {
    /// The word at [`PROD`].
    pub(crate) fn prod_word(&self) -> u64 {
        self.prod.to_word([(self.producer & ProducerFlags::URGENT_PRESENT).bits(), 0])
    }

    /// The word at [`CONS`].
    pub(crate) fn cons_word(&self) -> u64 {
        self.cons.to_word([(self.producer | self.way).bits(), self.state.bits()])
    }

    /// All of it, for a snapshot.
    pub(crate) fn to_words(self) -> [u64; 2] {
        let prod = self.prod.to_word([self.producer.bits(), 0]);
        [prod, self.cons.to_word([self.state.bits(), self.way.bits()])]
    }

    /// Reads a snapshot; `None` if it is none.
    pub(crate) fn from_words([prod, cons]: [u64; 2]) -> Option<Self> {
        let (prod, [producer, 0]) = Cursor::from_word(prod) else { return None };
        let (cons, [state, way]) = Cursor::from_word(cons);
        let (producer, state) = (ProducerFlags::from_bits(producer)?, StateFlags::from_bits(state)?);
        let way = ProducerFlags::from_bits(way).filter(|way| ProducerFlags::WAY.contains(*way))?;
        Some(Self { prod, cons, producer, state, way })
    }

    /// The whole message, as it is moved where remote memory cannot be mapped.
    pub(crate) fn to_bytes(self) -> [u8; CDC_LEN] {
        let mut bytes = [0; CDC_LEN];
        bytes[0] = CDC_TYPE;
        bytes[PROD..PROD + 8].copy_from_slice(&self.prod_word().to_ne_bytes());
        bytes[CONS..CONS + 8].copy_from_slice(&self.cons_word().to_ne_bytes());
        bytes
    }
}

/// Reads the flags of a consumer word. Bits without a meaning are dropped.
pub(crate) fn flags_of(bytes: [u8; 2]) -> (ProducerFlags, StateFlags) {
    (ProducerFlags::from_bits_truncate(bytes[0]), StateFlags::from_bits_truncate(bytes[1]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_endian = "little")]
    fn a_close_as_linux_writes_it() {
        let cdc = Cdc {
            prod: Cursor { wrap: 1, count: 100 },
            cons: Cursor { wrap: 0, count: 65000 },
            producer: ProducerFlags::empty(),
            state: StateFlags::CLOSED,
            ..Cdc::default()
        };
        let mut want = [0; 32];
        want[0] = 0xfe;
        want[8..16].copy_from_slice(&[1, 0, 0x64, 0, 0, 0, 0, 0]);
        want[16..24].copy_from_slice(&[0, 0, 0xe8, 0xfd, 0, 0, 0, 0x40]);
        assert_eq!(cdc.to_bytes(), want);
    }

    #[test]
    fn flags_survive_the_word() {
        let producer = ProducerFlags::WRITE_BLOCKED | ProducerFlags::URGENT_PENDING;
        let state = StateFlags::DONE_WRITING | StateFlags::CLOSED;
        let cdc = Cdc { producer, state, ..Cdc::default() };
        assert_eq!(flags_of(Cursor::from_word(cdc.cons_word()).1), (producer, state));
        assert_eq!(Cursor::from_word(cdc.prod_word()).1, [0, 0]);
        let urgent = Cdc { producer: ProducerFlags::all(), ..cdc };
        assert_eq!(Cursor::from_word(urgent.prod_word()).1, [0x20, 0]);
    }

    #[test]
    fn unknown_flags_are_dropped() {
        assert_eq!(flags_of([0x08, 0x1f]), (ProducerFlags::empty(), StateFlags::empty()));
    }
}
