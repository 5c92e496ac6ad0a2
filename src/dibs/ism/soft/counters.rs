//! What a function has done.

use std::collections::BTreeMap;

/// Counted since the function was made.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct Counters {
    /// Store blocks that were carried out, by their bytes.
    pub stores: BTreeMap<usize, u64>,
    /// How many of them signalled.
    pub signals: u64,
    /// Store blocks that were refused.
    pub refused_stores: u64,
    /// Commands that were carried out, by their codes.
    pub commands: BTreeMap<u32, u64>,
    /// Commands that were refused, by their codes.
    pub refused_commands: BTreeMap<u32, u64>,
    /// Interrupts that the function has raised.
    pub interrupts: u64,
    /// Events that were put into its queue.
    pub events: u64,
}

impl Counters {
    /// Store blocks that were carried out.
    pub fn store_count(&self) -> u64 {
        self.stores.values().sum()
    }

    /// Bytes in them.
    pub fn stored_bytes(&self) -> u64 {
        self.stores.iter().map(|(len, count)| *len as u64 * count).sum()
    }
}
