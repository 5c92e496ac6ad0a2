//! The registry of this process.

use std::{
    env,
    ffi::OsStr,
    io,
    os::fd::{AsFd, AsRawFd, RawFd},
    process,
    sync::{
        Mutex, OnceLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{SystemTime, UNIX_EPOCH},
};

use rustix::fs::fstat;

use super::{
    collector,
    free_list::FreeList,
    layout::{
        FOLDS_BEGUN, FOLDS_ENDED, FRESH, LAYOUT, LAYOUT_VALUE, LEN, MAGIC, MAGIC_VALUE, NAME, PID,
        RECORD_WORDS, RECORDS, RECORDS_AT, STARTED, TOTALS, TOTALS_LEN,
    },
};
use crate::{
    dibs::{DeviceError, Memory},
    unix::{Kept, PerProcess, sized_memory},
};

/// The words of a record.
pub(super) type Words = [AtomicU64; RECORD_WORDS];

/// What this process counts.
pub(super) struct Book {
    /// Totals while there is no registry.
    early: [AtomicU64; TOTALS_LEN],
    registry: OnceLock<Registry>,
    /// None could be made.
    is_without: AtomicBool,
}

static BOOK: PerProcess<Book> = PerProcess::new();

impl Book {
    const fn new() -> Self {
        Self {
            early: [const { AtomicU64::new(0) }; TOTALS_LEN],
            registry: OnceLock::new(),
            is_without: AtomicBool::new(false),
        }
    }

    /// That of this process.
    #[inline]
    pub(super) fn own() -> &'static Self {
        BOOK.get_or_make(Self::new)
    }

    /// In a child after `fork`: leaves the registry of its parent to that.
    pub(super) fn forget_inherited() {
        if let Some(registry) = BOOK.inherited().and_then(|book| book.registry.get()) {
            registry.forget();
        }
    }

    /// The registry, if there is one already.
    #[inline]
    pub(super) fn registry(&self) -> Option<&Registry> {
        self.registry.get()
    }

    /// The registry, made now if it has to be. `None` if that fails.
    pub(super) fn make_registry(&self) -> Option<&Registry> {
        if self.registry.get().is_none() && !self.is_without.load(Ordering::Relaxed) {
            match Registry::new() {
                // Of several that were made at the same time, one counts, and is told of.
                Ok(new) => _ = self.registry.set(new).is_ok() && self.hand_over(),
                Err(error) => {
                    tracing::warn!(%error, "no registry; smcdctl does not see this process");
                    self.is_without.store(true, Ordering::Relaxed);
                }
            }
        }
        let registry = self.registry.get()?;
        self.drain(registry);
        Some(registry)
    }

    /// Hands the registry to whoever collects them. True if somebody does.
    fn hand_over(&self) -> bool {
        let collector = env::var_os(collector::VARIABLE).filter(|name| !name.is_empty());
        match (collector, self.registry()) {
            (Some(name), Some(registry)) => registry.hand_over(&name),
            _ => false,
        }
    }

    /// Adds to a word of the totals.
    pub(super) fn add(&self, total: usize, n: u64) {
        if let Some(registry) = self.registry() {
            return registry.add(total, n);
        }
        if let Some(early) = self.early.get(total) {
            // Whoever makes a registry meanwhile either finds this, or is found here.
            early.fetch_add(n, Ordering::AcqRel);
            if let Some(registry) = self.registry() {
                self.drain(registry);
            }
        }
    }

    /// Moves what was counted without a registry into it.
    fn drain(&self, registry: &Registry) {
        for (total, early) in self.early.iter().enumerate() {
            match early.swap(0, Ordering::AcqRel) {
                0 => {}
                n => registry.add(total, n),
            }
        }
    }
}

/// The registry of this process: shared memory that others read.
pub(super) struct Registry {
    memory: Memory,
    free: FreeList,
    /// Locked only to ask for it, and in a child.
    held: Mutex<Option<Held>>,
}

/// The descriptor by which others find the memory, and what it is a descriptor of.
struct Held {
    fd: Kept,
    identity: (u64, u64),
}

fn identity(fd: impl AsFd) -> io::Result<(u64, u64)> {
    let stat = fstat(fd)?;
    Ok((stat.st_dev, stat.st_ino))
}

impl Registry {
    fn new() -> Result<Self, DeviceError> {
        let fd = sized_memory(NAME, LEN * 8)?;
        let memory = Memory::map(&fd, LEN * 8)?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        memory.store(PID * 8, process::id().into())?;
        memory.store(STARTED * 8, u64::try_from(now.as_nanos()).unwrap_or(u64::MAX))?;
        memory.store(LAYOUT * 8, LAYOUT_VALUE)?;
        memory.store(MAGIC * 8, MAGIC_VALUE)?;
        let identity = identity(&fd)?;
        let held = Mutex::new(Some(Held { fd: Kept::new(fd), identity }));
        let free = FreeList::new(RECORDS).ok_or_else(|| io::Error::from(io::ErrorKind::OutOfMemory))?;
        Ok(Self { memory, free, held })
    }

    /// A word that lies in the registry.
    #[inline]
    pub(super) fn word(&self, at: usize) -> Option<&AtomicU64> {
        self.memory.word64(at * 8).ok()
    }

    /// Words that lie in the registry.
    pub(super) fn words<const N: usize>(&self, at: usize) -> Option<&[AtomicU64; N]> {
        self.memory.words64(at * 8, N).ok()?.try_into().ok()
    }

    fn bump(&self, at: usize, n: u64) {
        if let Some(word) = self.word(at) {
            word.fetch_add(n, Ordering::AcqRel);
        }
    }

    /// Adds to a word of the totals.
    pub(super) fn add(&self, total: usize, n: u64) {
        self.bump(TOTALS + total, n);
    }

    /// Does what readers must not see half of: moves counters from a record to the totals.
    pub(super) fn fold(&self, what: impl FnOnce()) {
        self.bump(FOLDS_BEGUN, 1);
        what();
        self.bump(FOLDS_ENDED, 1);
    }

    /// A record that nobody uses, and its number.
    pub(super) fn take_record(&self) -> Option<(u32, &Words)> {
        let number = self.free.take()?;
        let words = self.words(RECORDS_AT + number as usize * RECORD_WORDS)?;
        if let Some(fresh) = self.word(FRESH) {
            fresh.fetch_max(u64::from(number) + 1, Ordering::AcqRel);
        }
        Some((number, words))
    }

    /// Gives a record back.
    pub(super) fn give_back(&self, number: u32) {
        self.free.give_back(number);
    }

    fn hand_over(&self, to: &OsStr) -> bool {
        let held = self.held.lock();
        held.is_ok_and(|held| held.as_ref().is_some_and(|held| collector::push(to, &held.fd)))
    }

    pub(super) fn descriptor(&self) -> Option<RawFd> {
        self.held.lock().ok()?.as_ref().map(|held| held.fd.as_raw_fd())
    }

    /// In a child: leaves the registry to the parent. What still writes to it writes into memory of its own.
    fn forget(&self) {
        if let Err(error) = self.memory.detach() {
            tracing::warn!(%error, "the child counts in its parent's registry");
        }
        // A thread that the child does not have may hold it; then the descriptor stays until the next exec.
        let Some(held) = self.held.try_lock().ok().and_then(|mut held| held.take()) else { return };
        if identity(&held.fd).ok() != Some(held.identity) {
            // The program has closed it, and opened something of its own in its place.
            std::mem::forget(held.fd);
        }
    }
}
