//! The memory that was mapped for a function.

use std::{collections::BTreeMap, ops::Range, sync::Arc};

use super::super::store::PAGE;
use crate::dibs::Memory;

/// Memory by where the function finds it; no two overlap.
#[derive(Debug, Default)]
pub(super) struct Dma(BTreeMap<u64, Arc<Memory>>);

/// A mapping that cannot be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Refused;

impl Dma {
    /// Maps memory within the window.
    pub(super) fn map(&mut self, window: &Range<u64>, iova: u64, memory: Arc<Memory>) -> Result<(), Refused> {
        let len = memory.len() as u64;
        let end = iova.checked_add(len).ok_or(Refused)?;
        let is_whole = iova.is_multiple_of(PAGE as u64) && len.is_multiple_of(PAGE as u64);
        let is_free =
            self.0.range(..end).next_back().is_none_or(|(at, before)| at + before.len() as u64 <= iova);
        if !is_whole || !is_free || iova < window.start || end > window.end {
            return Err(Refused);
        }
        self.0.insert(iova, memory);
        Ok(())
    }

    /// Takes away what was mapped, as a whole.
    pub(super) fn unmap(&mut self, iova: u64, len: usize) -> Result<(), Refused> {
        self.0.get(&iova).filter(|memory| memory.len() == len).ok_or(Refused)?;
        self.0.remove(&iova);
        Ok(())
    }

    /// The memory that holds these addresses, and where in it they begin.
    pub(super) fn find(&self, iova: u64, len: usize) -> Option<(&Arc<Memory>, usize)> {
        let (at, memory) = self.0.range(..=iova).next_back()?;
        let offset = usize::try_from(iova - at).ok()?;
        (offset.checked_add(len)? <= memory.len()).then_some((memory, offset))
    }

    /// A page of it, for itself.
    pub(super) fn page(&self, iova: u64) -> Option<Memory> {
        let (memory, offset) = self.find(iova, PAGE)?;
        memory.part(offset, PAGE).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_mapped_is_found() {
        let (mut dma, window) = (Dma::default(), 0x1000..0x10_0000);
        let memory = |pages| Arc::new(Memory::anonymous(pages * PAGE).unwrap());
        dma.map(&window, 0x2000, memory(2)).unwrap();
        for (iova, pages) in
            [(0x2000, 1), (0x3000, 1), (0x1000, 2), (0x1000, 9), (0, 1), (0xf_f000, 2), (0x4800, 1)]
        {
            assert_eq!(dma.map(&window, iova, memory(pages)), Err(Refused), "{iova:x}");
        }
        dma.map(&window, 0x4000, memory(1)).unwrap();
        assert_eq!(dma.find(0x3000, 4096).unwrap().1, 4096);
        assert!(dma.find(0x1fff, 1).is_none() && dma.find(0x3fff, 1).is_some());
        assert!(dma.find(0x3fff, 2).is_none(), "two mappings");
        assert!(dma.find(u64::MAX, 1).is_none() && dma.find(0x2000, usize::MAX).is_none());
        assert!(dma.page(0x3000).is_some() && dma.page(0x3800).is_none());
        assert_eq!(dma.unmap(0x2000, 4096), Err(Refused));
        dma.unmap(0x2000, 8192).unwrap();
        assert!(dma.find(0x2000, 1).is_none() && dma.find(0x4000, 1).is_some());
    }
}
