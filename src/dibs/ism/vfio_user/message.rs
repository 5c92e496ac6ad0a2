//! Messages of vfio-user: a head, and what belongs to it, in the order of bytes of the host.

use super::super::transport::region;

/// Bytes of the head.
pub(super) const HEAD: usize = 16;

/// Longer answers are not asked for.
pub(super) const MAX_ANSWER: usize = 8192;

/// Codes of commands.
pub(super) mod code {
    pub(in super::super) const VERSION: u16 = 1;
    pub(in super::super) const MAP: u16 = 2;
    pub(in super::super) const UNMAP: u16 = 3;
    pub(in super::super) const INFO: u16 = 4;
    pub(in super::super) const REGION_INFO: u16 = 5;
    pub(in super::super) const SET_IRQS: u16 = 8;
    pub(in super::super) const READ: u16 = 9;
    pub(in super::super) const WRITE: u16 = 10;
}

/// Bytes of a read, and of what comes before the data of a write.
const ACCESS: usize = 16;

/// In the flags of the head.
const KIND: u32 = 0xf;
const ANSWER: u32 = 1;
const FAILED: u32 = 1 << 5;

/// Flags of mappings: the function reads and writes.
const READ_WRITE: u32 = 3;

/// Flags for interrupts: an eventfd is rung, or nothing is.
const EVENTFD_TRIGGER: u32 = 0x24;
const NONE_TRIGGER: u32 = 0x21;

/// What a server has to say of itself.
const IS_PCI: u32 = 2;
const READABLE_WRITABLE: u32 = 3;

/// What every message begins with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Head {
    pub(super) id: u16,
    pub(super) code: u16,
    /// Of the whole message.
    pub(super) len: u32,
    pub(super) flags: u32,
    pub(super) error: u32,
}

impl Head {
    pub(super) fn emit(self) -> [u8; HEAD] {
        let [i0, i1] = self.id.to_ne_bytes();
        let [c0, c1] = self.code.to_ne_bytes();
        let words =
            [[i0, i1, c0, c1], self.len.to_ne_bytes(), self.flags.to_ne_bytes(), self.error.to_ne_bytes()];
        let mut bytes = [0; HEAD];
        bytes.iter_mut().zip(words.into_iter().flatten()).for_each(|(to, from)| *to = from);
        bytes
    }

    pub(super) fn parse(bytes: [u8; HEAD]) -> Self {
        let [i0, i1, c0, c1, ..] = bytes;
        Self {
            id: u16::from_ne_bytes([i0, i1]),
            code: u16::from_ne_bytes([c0, c1]),
            len: short(&bytes, 4),
            flags: short(&bytes, 8),
            error: short(&bytes, 12),
        }
    }

    /// How much follows; `None` if it is no answer to this.
    pub(super) fn rest(&self, id: u16, code: u16) -> Option<usize> {
        let is_answer = (self.id, self.code, self.flags & KIND) == (id, code, ANSWER);
        let rest = usize::try_from(self.len).ok()?.checked_sub(HEAD)?;
        (is_answer && rest <= MAX_ANSWER).then_some(rest)
    }

    /// The system's error, if the command was refused; zero if the server does not say which.
    pub(super) fn failure(&self) -> Option<i32> {
        (self.flags & FAILED != 0).then(|| i32::try_from(self.error).unwrap_or(0))
    }
}

/// What of the regions has to be there.
pub(super) const REGIONS: [u32; 3] = [region::DATA, region::MAILBOX, region::CONFIG];

/// Version 0.1, and what a client can do.
pub(super) fn version() -> Vec<u8> {
    let mut bytes = [0u16, 1].map(u16::to_ne_bytes).concat();
    bytes.extend(b"{\"capabilities\":{\"max_msg_fds\":1,\"max_data_xfer_size\":1048576}}\0");
    bytes
}

/// True if a server speaks this version. In what it can do is nothing that matters here.
pub(super) fn is_version(body: &[u8]) -> bool {
    body.starts_with(&[0, 0]) && body.len() >= 4
}

pub(super) fn info() -> Vec<u8> {
    words(&[16, 0, 0, 0])
}

/// True if the device is a PCI function that has the regions.
pub(super) fn is_function(body: &[u8]) -> bool {
    body.len() >= 16 && short(body, 4) & IS_PCI != 0 && short(body, 8) > region::CONFIG
}

pub(super) fn region_info(region: u32) -> Vec<u8> {
    words(&[32, 0, region, 0, 0, 0, 0, 0])
}

/// The size of a region that can be read and written.
pub(super) fn size_of(body: &[u8]) -> Option<u64> {
    (body.len() >= 32 && short(body, 4) & READABLE_WRITABLE == READABLE_WRITABLE).then(|| long(body, 16))
}

pub(super) fn map(iova: u64, len: u64) -> Vec<u8> {
    let mut bytes = words(&[32, READ_WRITE]);
    [0, iova, len].into_iter().for_each(|word| bytes.extend(word.to_ne_bytes()));
    bytes
}

pub(super) fn unmap(iova: u64, len: u64) -> Vec<u8> {
    let mut bytes = words(&[24, 0]);
    [iova, len].into_iter().for_each(|word| bytes.extend(word.to_ne_bytes()));
    bytes
}

/// Has the first interrupt of a kind ring the eventfd that goes along, or nothing.
pub(super) fn set_irqs(index: u32, has_eventfd: bool) -> Vec<u8> {
    let (flags, count) = if has_eventfd { (EVENTFD_TRIGGER, 1) } else { (NONE_TRIGGER, 0) };
    words(&[20, flags, index, 0, count])
}

/// A read, or what comes before the data of a write. Such a head also comes before the data that was read.
pub(super) fn access(region: u32, offset: u64, len: u32) -> Vec<u8> {
    let mut bytes = offset.to_ne_bytes().to_vec();
    bytes.extend(words(&[region, len]));
    bytes
}

/// How many bytes a write has written, by the head that is its answer.
pub(super) fn written(body: &[u8]) -> Option<u32> {
    (body.len() >= ACCESS).then(|| short(body, 12))
}

fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_ne_bytes()).collect()
}

/// The number at `at`; zero past the end, which callers have ruled out.
fn short(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..).and_then(|rest| rest.first_chunk()).map_or(0, |chunk| u32::from_ne_bytes(*chunk))
}

/// As [`short`].
fn long(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..).and_then(|rest| rest.first_chunk()).map_or(0, |chunk| u64::from_ne_bytes(*chunk))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_are_what_was_emitted() {
        let head = Head { id: 7, code: code::READ, len: 40, flags: ANSWER, error: 0 };
        assert_eq!(Head::parse(head.emit()), head);
        assert_eq!(head.rest(7, code::READ), Some(24));
        for wrong in [
            Head { id: 8, ..head },
            Head { code: code::WRITE, ..head },
            Head { flags: 0, ..head },
            Head { len: 15, ..head },
            Head { len: u32::MAX, ..head },
        ] {
            assert_eq!(wrong.rest(7, code::READ), None);
        }
        assert_eq!(head.failure(), None);
        assert_eq!(Head { flags: ANSWER | FAILED, error: 22, ..head }.failure(), Some(22));
    }

    #[cfg(target_endian = "little")]
    #[test]
    fn commands_have_these_bytes() {
        let head = Head { id: 0x0102, code: code::WRITE, len: 36, flags: 0, error: 0 };
        assert_eq!(head.emit(), [2, 1, 10, 0, 36, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(access(2, 8, 4), [8, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 4, 0, 0, 0]);
        assert_eq!(version()[..5], [0, 0, 1, 0, b'{']);
        assert_eq!(set_irqs(1, true), [20, 0, 0, 0, 0x24, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0]);
        assert_eq!(set_irqs(1, false)[4..8], [0x21, 0, 0, 0]);
        assert_eq!(unmap(1 << 32, 4096)[8..], [0, 0, 0, 0, 1, 0, 0, 0, 0, 16, 0, 0, 0, 0, 0, 0]);
        assert_eq!(
            (map(1, 2).len(), unmap(1, 2).len(), info().len(), region_info(7).len()),
            (32, 24, 16, 32)
        );
    }

    #[test]
    fn what_servers_are_not() {
        assert!(
            is_version(&version())
                && !is_version(&[0, 0])
                && !is_version(&[1u16, 0].map(u16::to_ne_bytes).concat())
        );
        let device = |flags, regions| is_function(&words(&[16, flags, regions, 5]));
        assert_eq!((written(&access(2, 8, 4)), written(&access(2, 8, 4)[..15])), (Some(4), None));
        assert!(device(3, 9) && !device(1, 9) && !device(3, 7) && !is_function(&[0xff; 12]));
        let region = |flags| {
            let size = 256u64.to_ne_bytes();
            [words(&[32, flags, 2, 0]), size.to_vec(), vec![0; 8]].concat()
        };
        assert_eq!((size_of(&region(3)), size_of(&region(3)[..31])), (Some(256), None));
        assert_eq!(size_of(&region(1)), None, "not to be written");
    }
}
