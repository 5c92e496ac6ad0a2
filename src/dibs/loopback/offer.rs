//! A DMB as it travels to its user: two descriptors, to be checked before anything of them is used.

use std::{os::fd::OwnedFd, sync::Arc};

use rustix::{
    fs::{SealFlags, fcntl_get_seals},
    net::{
        AddressFamily, SocketType,
        sockopt::{socket_domain, socket_type},
    },
};

use crate::{
    dibs::{
        BadDmb, DeviceError, Memory,
        bell::{has_hung_up, socket_pair},
        sealed::check_memory,
    },
    unix::sized_memory,
};

/// Bytes behind the DMB for the words of its signals: one page, so that DMBs stay page-aligned.
pub(super) const SIGNAL_AREA: usize = 4096;

/// Where the user of a DMB of `dmb_len` bytes marks its writes: in a cache line that it need not share with anybody. In the
/// two before it are the words of the signals.
pub(super) const fn mark_of(dmb_len: usize) -> usize {
    dmb_len + 128
}

/// Memory and doorbell of a DMB, on the way from owner to user.
#[derive(Debug)]
pub(super) struct Offer {
    /// Memory and doorbell.
    pub(super) fds: [OwnedFd; 2],
    /// Bytes of the DMB, as the owner says.
    pub(super) len: usize,
}

impl Offer {
    /// An offer of these descriptors, or the descriptors back if they are not two.
    pub(super) fn from_fds(fds: Vec<OwnedFd>, len: usize) -> Result<Self, Vec<OwnedFd>> {
        Ok(Self { fds: fds.try_into()?, len })
    }

    /// Makes the memory of a DMB of `dmb_len` bytes and a pair of sockets: what the user gets, our mapping, and our
    /// end of the pair.
    pub(super) fn make(dmb_len: usize) -> Result<(Self, Arc<Memory>, OwnedFd), DeviceError> {
        let len = dmb_len + SIGNAL_AREA;
        let memory = sized_memory("smcd-dmb", len)?;
        let mapping = Arc::new(Memory::map(&memory, len)?);
        let (ours, doorbell) = socket_pair()?;
        Ok((Self { fds: [memory, doorbell], len: dmb_len }, mapping, ours))
    }

    /// Makes sure that the descriptors are what they should be, without doing anything with them that could block.
    /// Otherwise gives them back, to be closed where that may block.
    pub(super) fn check(self) -> Result<Self, Vec<OwnedFd>> {
        if self.flaw().is_none() { Ok(self) } else { Err(self.into_fds()) }
    }

    /// What is wrong with the descriptors, as far as can be told without doing anything that could block.
    pub(super) fn flaw(&self) -> Option<BadDmb> {
        let [memory, doorbell] = &self.fds;
        match fcntl_get_seals(memory) {
            Ok(seals) if seals.contains(SealFlags::SHRINK) => {
                (!is_doorbell(doorbell)).then_some(BadDmb::NotDoorbell)
            }
            Ok(_) => Some(BadDmb::NotSealed),
            Err(_) => Some(BadDmb::NotMemory),
        }
    }

    pub(super) fn into_fds(self) -> Vec<OwnedFd> {
        self.fds.into()
    }

    /// True if the owner has given the DMB back, or is gone.
    pub(super) fn is_withdrawn(&self) -> bool {
        has_hung_up(&self.fds[1])
    }

    /// Maps a DMB that a remote device shared, after checking that it is what it should be.
    pub(super) fn map(self) -> Result<(Arc<Memory>, OwnedFd), DeviceError> {
        let too_long = DeviceError::OutOfRange { offset: 0, len: self.len, size: usize::MAX };
        let len = self.len.checked_add(SIGNAL_AREA).filter(|_| self.len > 0).ok_or(too_long)?;
        let [memory, doorbell] = self.fds;
        check_memory(&memory, len as u64)?;
        if !is_doorbell(&doorbell) {
            return Err(BadDmb::NotDoorbell.into());
        }
        Ok((Arc::new(Memory::map(&memory, len)?), doorbell))
    }
}

fn is_doorbell(fd: &OwnedFd) -> bool {
    socket_domain(fd) == Ok(AddressFamily::UNIX) && socket_type(fd) == Ok(SocketType::STREAM)
}

#[cfg(test)]
mod tests {
    use rustix::fs::{MemfdFlags, fcntl_add_seals, ftruncate, memfd_create};

    use super::*;
    use rustix::pipe::pipe;

    const LEN: usize = 16384;

    fn refused(offer: Offer) -> BadDmb {
        match offer.map() {
            Err(DeviceError::BadDmb(bad)) => bad,
            other => panic!("expected a refusal, got {other:?}"),
        }
    }

    fn good() -> Offer {
        Offer::make(LEN).unwrap().0
    }

    fn with_memory(memory: OwnedFd) -> Offer {
        let [_, doorbell] = good().fds;
        Offer { fds: [memory, doorbell], len: LEN }
    }

    #[test]
    fn what_we_make_is_accepted() {
        assert!(good().map().is_ok());
    }

    #[test]
    fn a_pipe_is_refused() {
        assert_eq!(refused(with_memory(pipe().unwrap().0)), BadDmb::NotMemory);
    }

    #[test]
    fn a_regular_file_is_refused() {
        let file = std::fs::File::open("Cargo.toml").unwrap();
        assert_eq!(refused(with_memory(file.into())), BadDmb::NotMemory);
    }

    #[test]
    fn an_unsealed_memfd_is_refused() {
        let memory = memfd_create("x", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).unwrap();
        ftruncate(&memory, 1 << 20).unwrap();
        assert_eq!(refused(with_memory(memory)), BadDmb::NotSealed);
    }

    #[test]
    fn a_short_memfd_is_refused() {
        let memory = memfd_create("x", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).unwrap();
        ftruncate(&memory, LEN as u64).unwrap();
        fcntl_add_seals(&memory, SealFlags::SHRINK).unwrap();
        let want = (LEN + SIGNAL_AREA) as u64;
        assert_eq!(refused(with_memory(memory)), BadDmb::TooSmall { have: LEN as u64, want });
    }

    #[test]
    fn a_doorbell_that_is_no_socket_is_refused() {
        let [memory, _] = good().fds;
        let fds = [memory, pipe().unwrap().1];
        assert_eq!(refused(Offer { fds, len: LEN }), BadDmb::NotDoorbell);
    }
}
