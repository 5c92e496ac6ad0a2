//! The event queue (IEQ): a ring of entries in a page of ours, which the function writes.
//!
//! | byte | content, big-endian |
//! |---|---|
//! | 0 | number of the entry behind the last one written; zero before the first |
//! | 8, 16 | length of the queue, of an entry |
//! | 32 | entries of 32 bytes, [`ENTRIES`] of them |
//!
//! The number goes from 1 to 15 and then to 1 again, and nobody tells the function how far we have read: a reader that is
//! 15 events late has lost them, and does not know.

use crate::dibs::{DeviceError, Memory};

/// Bytes of memory, a page.
pub(super) const LEN: usize = 4096;

/// Bytes that the function is told of.
pub(super) const REGISTERED: u64 = 512;

/// Entries in that.
pub(super) const ENTRIES: u64 = 15;

const ENTRY: usize = 32;
const FIRST_ENTRY: usize = 32;

/// An entry, as it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Entry {
    pub(super) kind: u32,
    pub(super) code: u32,
    /// A token, or a GID.
    pub(super) subject: u64,
    /// The clock of the machine.
    pub(super) time: u64,
    pub(super) info: u64,
}

/// Kinds of entries.
pub(super) mod kind {
    pub(in super::super) const BUFFER: u32 = 0;
    pub(in super::super) const DEVICE: u32 = 1;
    pub(in super::super) const SOFTWARE: u32 = 2;
}

/// Codes of entries about a DMB.
pub(super) mod buffer {
    pub(in super::super) const USER_FAILED: u32 = 0x03;
    pub(in super::super) const USER_DISABLED: u32 = 0x08;
}

/// Codes of entries about another function.
pub(super) mod device {
    pub(in super::super) const FAILED: u32 = 0x01;
    pub(in super::super) const DISABLED: u32 = 0x07;
}

/// What an entry means to us.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Notice {
    /// The function that may write this DMB of ours is gone.
    UserGone { token: u64 },
    /// This function is gone.
    FunctionGone { gid: u64 },
    /// Another function has sent this.
    Software { from: u64, code: u32, info: u64 },
    /// Nothing that anybody here has to know.
    Other,
}

impl Entry {
    pub(super) fn emit(self) -> [u8; ENTRY] {
        let first = u64::from(self.kind) << 32 | u64::from(self.code);
        let mut bytes = [0; ENTRY];
        let words = [first, self.subject, self.time, self.info];
        bytes.iter_mut().zip(words.into_iter().flat_map(u64::to_be_bytes)).for_each(|(to, from)| *to = from);
        bytes
    }

    pub(super) fn parse(bytes: &[u8; ENTRY]) -> Self {
        let (words, _) = bytes.as_chunks::<8>();
        let mut words = words.iter().map(|word| u64::from_be_bytes(*word));
        let mut next = || words.next().unwrap_or(0);
        let first = next();
        Self { kind: (first >> 32) as u32, code: first as u32, subject: next(), time: next(), info: next() }
    }

    pub(super) fn notice(&self) -> Notice {
        match (self.kind, self.code) {
            (kind::BUFFER, buffer::USER_FAILED | buffer::USER_DISABLED) => {
                Notice::UserGone { token: self.subject }
            }
            (kind::DEVICE, device::FAILED | device::DISABLED) => Notice::FunctionGone { gid: self.subject },
            (kind::SOFTWARE, code) => Notice::Software { from: self.subject, code, info: self.info },
            _ => Notice::Other,
        }
    }
}

/// The function has written a number that no entry has.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{0} is the number of no event")]
pub(super) struct NoSuchEntry(pub(super) u64);

/// How far a queue has been read.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Reader {
    /// As the number in the page.
    at: u64,
}

impl Reader {
    /// The next entry, if there is one.
    pub(super) fn next(&mut self, page: &Memory) -> Result<Option<Entry>, NoSuchEntry> {
        let end = page.load(0).map_or(0, u64::from_be);
        if end > ENTRIES || end == 0 && self.at != 0 {
            return Err(NoSuchEntry(end));
        }
        if end == self.at {
            return Ok(None);
        }
        let entry = self.at % ENTRIES;
        self.at = entry + 1;
        let mut bytes = [0; ENTRY];
        // Within the page.
        page.read(FIRST_ENTRY + entry as usize * ENTRY, &mut bytes).map_err(|_| NoSuchEntry(end))?;
        Ok(Some(Entry::parse(&bytes)))
    }
}

/// The function's side of a queue.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Writer {
    at: u64,
}

impl Writer {
    /// Prepares a queue that was registered.
    pub(super) fn begin(page: &Memory, len: u64) -> Result<Self, DeviceError> {
        for (at, word) in [(0, 0), (8, len), (16, ENTRY as u64)] {
            page.store(at, u64::to_be(word))?;
        }
        Ok(Self::default())
    }

    pub(super) fn push(&mut self, page: &Memory, entry: Entry) -> Result<(), DeviceError> {
        let place = self.at % ENTRIES;
        page.write(FIRST_ENTRY + place as usize * ENTRY, &entry.emit())?;
        self.at = place + 1;
        page.store(0, self.at.to_be())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn software(info: u64) -> Entry {
        Entry { kind: kind::SOFTWARE, code: 0x80, subject: 0x0102_0304_0506_0708, time: 9, info }
    }

    #[test]
    fn entries_have_these_bytes() {
        let page = Memory::anonymous(LEN).unwrap();
        let mut writer = Writer::begin(&page, REGISTERED).unwrap();
        writer.push(&page, software(0x1122)).unwrap();
        let mut bytes = [0; 64];
        page.read(0, &mut bytes).unwrap();
        let mut words = bytes.as_chunks().0.iter().map(|word| u64::from_be_bytes(*word));
        let expected = [1, 512, 32, 0, 2 << 32 | 0x80, 0x0102_0304_0506_0708, 9, 0x1122];
        assert!(words.by_ref().eq(expected));
    }

    #[test]
    fn notices() {
        let notice = |kind, code| Entry { kind, code, ..software(5) }.notice();
        let subject = software(5).subject;
        for code in [3, 8] {
            assert_eq!(notice(0, code), Notice::UserGone { token: subject });
        }
        for code in [1, 7] {
            assert_eq!(notice(1, code), Notice::FunctionGone { gid: subject });
        }
        assert_eq!(notice(2, 7), Notice::Software { from: subject, code: 7, info: 5 });
        for (kind, code) in [(0, 2), (0, 4), (0, 5), (0, 6), (0, 7), (1, 8), (3, 7), (u32::MAX, 0)] {
            assert_eq!(notice(kind, code), Notice::Other);
        }
    }

    #[test]
    fn numbers_of_no_entry() {
        let page = Memory::anonymous(LEN).unwrap();
        let mut reader = Reader::default();
        for wrong in [16, 1 << 32, u64::MAX] {
            page.store(0, wrong.to_be()).unwrap();
            assert_eq!(reader.next(&page), Err(NoSuchEntry(wrong)));
        }
        Writer::begin(&page, REGISTERED).unwrap().push(&page, software(1)).unwrap();
        assert_eq!(reader.next(&page), Ok(Some(software(1))));
        page.store(0, 0).unwrap();
        assert_eq!(reader.next(&page), Err(NoSuchEntry(0)), "nothing was ever written, and then");
    }

    proptest! {
        #[test]
        fn events_come_in_order(bursts in proptest::collection::vec(0u64..15, 0..40)) {
            let page = Memory::anonymous(LEN).unwrap();
            let (mut reader, mut writer) = (Reader::default(), Writer::begin(&page, REGISTERED).unwrap());
            let (mut sent, mut seen) = (0, 0);
            for burst in bursts {
                for _ in 0..burst {
                    writer.push(&page, software(sent)).unwrap();
                    sent += 1;
                }
                while let Some(entry) = reader.next(&page).unwrap() {
                    prop_assert_eq!(entry, software(seen));
                    seen += 1;
                }
                prop_assert_eq!(seen, sent);
            }
        }

        #[test]
        fn whatever_stands_there(pages in proptest::collection::vec((any::<[u8; 512]>(), 0u64..20), 1..20)) {
            let (page, mut reader) = (Memory::anonymous(LEN).unwrap(), Reader::default());
            for (bytes, end) in pages {
                page.write(0, &bytes).unwrap();
                // Mostly a number that could be.
                page.store(0, end.to_be()).unwrap();
                let mut seen = 0;
                while let Ok(Some(entry)) = reader.next(&page) {
                    entry.notice();
                    seen += 1;
                    prop_assert!(seen <= ENTRIES, "for ever");
                }
            }
        }

        #[test]
        fn every_entry_is_parsed(bytes: [u8; 32]) {
            prop_assert_eq!(Entry::parse(&bytes).emit(), bytes);
        }
    }
}
