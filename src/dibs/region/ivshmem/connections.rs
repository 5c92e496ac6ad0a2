//! The connections page of a region: who is connected to the server.

use crate::dibs::{
    Memory,
    region::layout::{MAX_SLOTS, connection},
};

/// Set while somebody is connected.
const CONNECTED: u64 = 1;

/// What the server knows, and has written into the region. It never reads it there.
#[derive(Debug)]
pub(super) struct Connections([u64; MAX_SLOTS]);

impl Connections {
    pub(super) fn new() -> Self {
        Self([0; MAX_SLOTS])
    }

    /// The client of this slot has come, or gone.
    pub(super) fn set(&mut self, memory: &Memory, slot: usize, is_connected: bool) {
        let Some(word) = self.0.get_mut(slot).filter(|word| is_set(**word) != is_connected) else { return };
        let changes = (*word >> 32).wrapping_add(1) << 32;
        *word = changes | if is_connected { CONNECTED } else { 0 };
        // The page is in every region.
        let _ = memory.store(connection(slot), *word);
    }
}

/// Who is connected as the client of this slot, as the region says: another number for each.
pub(in super::super) fn look(memory: &Memory, slot: usize) -> Option<u64> {
    if slot >= MAX_SLOTS {
        return None;
    }
    memory.load(connection(slot)).ok().filter(|word| is_set(*word))
}

fn is_set(word: u64) -> bool {
    word & CONNECTED != 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::unix::sized_memory;

    #[test]
    fn each_connection_has_a_number_of_its_own() {
        let memory = Memory::map(sized_memory("smcd-test", 8192).unwrap(), 8192).unwrap();
        let mut connections = Connections::new();
        assert_eq!(look(&memory, 2), None);
        connections.set(&memory, 2, true);
        let first = look(&memory, 2).unwrap();
        assert_eq!((first & 1, first >> 32), (1, 1));
        connections.set(&memory, 2, true);
        assert_eq!(look(&memory, 2), Some(first));
        connections.set(&memory, 2, false);
        assert_eq!((look(&memory, 2), memory.load(4096 + 64 + 16).unwrap()), (None, 2 << 32));
        connections.set(&memory, 2, true);
        assert_ne!(look(&memory, 2), Some(first));
        assert_eq!((look(&memory, 63), look(&memory, 64), look(&memory, usize::MAX)), (None, None, None));
    }

    #[test]
    fn what_stands_in_the_page_makes_no_difference_to_the_server() {
        let memory = Memory::map(sized_memory("smcd-test", 8192).unwrap(), 8192).unwrap();
        let mut connections = Connections::new();
        memory.store(connection(0), u64::MAX).unwrap();
        connections.set(&memory, 0, true);
        assert_eq!(memory.load(connection(0)).unwrap(), 1 << 32 | 1);
    }
}
