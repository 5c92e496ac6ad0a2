//! What a process has taken of the system, as that tells in `/proc`.

use std::fs;

use super::Result;

/// Bytes of a page of memory.
pub(crate) const PAGE: u64 = 4096;

/// What the mappings of SMC-D buffers are called.
const DMB: &str = "smcd-dmb";

/// This process, or another one of the same user.
pub(crate) struct Process {
    dir: String,
}

/// Bytes of memory that a process has in use.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Memory {
    /// Resident in mappings of SMC-D buffers, own ones and the peer's.
    pub(crate) dmb: u64,
    /// So many mappings of SMC-D buffers.
    pub(crate) dmbs: u64,
    /// Resident elsewhere: heap, stacks, code.
    pub(crate) rest: u64,
    /// Page tables.
    pub(crate) tables: u64,
}

impl Process {
    pub(crate) fn own() -> Self {
        Self { dir: "/proc/self".to_owned() }
    }

    pub(crate) fn of(pid: u32) -> Self {
        Self { dir: format!("/proc/{pid}") }
    }

    /// Descriptors that are open.
    pub(crate) fn descriptors(&self) -> Result<usize> {
        Ok(fs::read_dir(format!("{}/fd", self.dir))?.count())
    }

    /// Memory in use.
    pub(crate) fn memory(&self) -> Result<Memory> {
        let status = fs::read_to_string(format!("{}/status", self.dir))?;
        let mut memory = Memory {
            tables: status.lines().find_map(|line| kib(line, "VmPTE:")).ok_or("no VmPTE")?,
            ..Memory::default()
        };
        let mut is_dmb = false;
        for line in fs::read_to_string(format!("{}/smaps", self.dir))?.lines() {
            // A mapping begins with its address, and without a colon behind the first word.
            if line.split_whitespace().next().is_some_and(|first| !first.ends_with(':')) {
                is_dmb = line.contains(DMB);
                memory.dmbs += u64::from(is_dmb);
            } else if let Some(resident) = kib(line, "Rss:") {
                *(if is_dmb { &mut memory.dmb } else { &mut memory.rest }) += resident;
            }
        }
        Ok(memory)
    }
}

/// The bytes of a line as `Rss:  4 kB`.
fn kib(line: &str, name: &str) -> Option<u64> {
    let kib: u64 = line.strip_prefix(name)?.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kib << 10)
}
