//! The registry of another process, as a file that may hold anything.
//!
//! It is read, never mapped: what it is made of, and how long it stays what it was, is up to somebody else.

use std::{fs::File, io, os::unix::fs::FileExt};

use rustix::fs::{SealFlags, fcntl_get_seals};
use zerocopy::IntoBytes;

use super::layout::{LAYOUT, LAYOUT_VALUE, LEN, MAGIC, MAGIC_VALUE, PID};

/// Why something is not a registry that can be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BadRegistry {
    /// It is no memfd.
    #[error("the descriptor is not shared memory")]
    NotMemory,
    /// It may become shorter while it is read.
    #[error("the memory is not sealed against shrinking")]
    NotSealed,
    /// It is too short.
    #[error("{0} bytes are too few for a registry")]
    TooSmall(u64),
    /// It is that of another version of this library, or none.
    #[error("the registry is of another version of the library, or none")]
    Layout,
    /// It is that of another process, which has handed it down.
    #[error("the registry is that of process {0}")]
    Inherited(u64),
    /// It is being traced already.
    #[error("the process is being traced already")]
    Traced,
    /// A system call failed.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// A checked descriptor of a registry.
#[derive(Debug)]
pub(super) struct Source(File);

impl Source {
    /// Takes a descriptor of whatever it is.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(super) fn new(file: File) -> Result<Self, BadRegistry> {
        // First: only shared memory has seals, and it asks no file system, which might never answer.
        let seals = fcntl_get_seals(&file).map_err(|_| BadRegistry::NotMemory)?;
        if !seals.contains(SealFlags::SHRINK) {
            return Err(BadRegistry::NotSealed);
        }
        let len = file.metadata()?.len();
        if len < (LEN * 8) as u64 {
            return Err(BadRegistry::TooSmall(len));
        }
        let source = Self(file);
        if source.word(MAGIC)? != MAGIC_VALUE || source.word(LAYOUT)? != LAYOUT_VALUE {
            return Err(BadRegistry::Layout);
        }
        Ok(source)
    }

    /// The process that it belongs to, by what that process takes for its number.
    pub(super) fn pid(&self) -> io::Result<u64> {
        self.word(PID)
    }

    /// Reads words from `at` on. Each is one that was written there; how they fit together is another question.
    pub(super) fn read(&self, at: usize, words: &mut [u64]) -> io::Result<()> {
        self.0.read_exact_at(words.as_mut_bytes(), at as u64 * 8)
    }

    pub(super) fn word(&self, at: usize) -> io::Result<u64> {
        let mut word = [0];
        self.read(at, &mut word)?;
        Ok(word[0])
    }

    /// Writes a word. The descriptor has to allow it.
    pub(super) fn set_word(&self, at: usize, value: u64) -> io::Result<()> {
        self.0.write_all_at(value.as_bytes(), at as u64 * 8)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use rustix::fs::{MemfdFlags, fcntl_add_seals, ftruncate, memfd_create};

    /// A sealed memfd of so many bytes, with these words at its start.
    pub(in super::super) fn memory(len: usize, words: &[u64]) -> File {
        let fd = memfd_create("smcd-test", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).unwrap();
        ftruncate(&fd, len as u64).unwrap();
        fcntl_add_seals(&fd, SealFlags::SHRINK).unwrap();
        let file = File::from(fd);
        file.write_all_at(words.as_bytes(), 0).unwrap();
        file
    }

    #[test]
    fn what_is_no_registry_is_refused() {
        let good = [MAGIC_VALUE, LAYOUT_VALUE, 7];
        assert_eq!(Source::new(memory(LEN * 8, &good)).unwrap().pid().unwrap(), 7);
        let refused = |file| Source::new(file).unwrap_err();
        assert!(matches!(refused(memory(LEN * 8 - 1, &good)), BadRegistry::TooSmall(_)));
        assert!(matches!(refused(memory(LEN * 8, &[MAGIC_VALUE, 0])), BadRegistry::Layout));
        assert!(matches!(refused(memory(LEN * 8, &[])), BadRegistry::Layout));
        let null = File::open("/dev/null").unwrap();
        assert!(matches!(refused(null), BadRegistry::NotMemory));
        let unsealed = memfd_create("smcd-test", MemfdFlags::ALLOW_SEALING).unwrap();
        assert!(matches!(refused(File::from(unsealed)), BadRegistry::NotSealed));
    }
}
