//! A region in a file, or in a DAX device. Nobody has a doorbell there: each looks by itself.

use std::{
    fs::{File, OpenOptions},
    io,
    ops::Range,
    os::unix::fs::{FileTypeExt, MetadataExt},
    path::Path,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use super::{
    Region, RegionError,
    attachment::Attachment,
    device::Manner,
    heartbeats::{BEAT, Heartbeats},
    layout::{Geometry, HEADER_LEN, Liveness, MAX_SLOTS, PAGE},
};
use crate::{
    dibs::Memory,
    unix::range_lock::{is_locked, try_lock, unlock},
};

/// How often the locks are looked at.
const LOOK_AT_LOCKS: Duration = Duration::from_millis(20);

impl Region {
    /// Makes a region of a file, which is created if it is not there, or of a DAX device. What was there is lost.
    ///
    /// Who may write to the file may take part, and is trusted by all others (see `LAYOUT.md`); who cuts it short kills them.
    ///
    /// # Errors
    /// If the file cannot be made so large, or the device is too small; [`RegionError::InUse`] if an endpoint of this machine
    /// is in it; [`RegionError::OfServer`] for regions that only a server can make.
    pub fn create(path: impl AsRef<Path>, geometry: &Geometry) -> Result<(), RegionError> {
        if geometry.liveness() == Liveness::Server {
            return Err(RegionError::OfServer);
        }
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
        // Until it is made, nobody can join.
        let all = lock_of(0).start..lock_of(MAX_SLOTS).start;
        if !try_lock(&file, all.clone())? {
            return Err(RegionError::InUse);
        }
        let made = make(&file, geometry);
        unlock(&file, all)?;
        made
    }

    /// Joins the region of a file or DAX device, at the first free slot.
    ///
    /// Nobody rings there: as long as it has DMBs the device looks for signals, every millisecond if there were none for a
    /// while. An end of another is noticed within 20 ms, by heartbeats after 5 seconds.
    ///
    /// # Errors
    /// If it is no region, or no slot is free; [`RegionError::SlotNeeded`] if its machines have nobody who gives out slots.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, RegionError> {
        open(path.as_ref(), None, Manner::Mapping)
    }

    /// As [`Region::open`], at this slot.
    ///
    /// # Errors
    /// As [`Region::open`]; [`RegionError::NoFreeSlot`] if another endpoint of this machine has it.
    pub fn open_slot(path: impl AsRef<Path>, slot: usize) -> Result<Self, RegionError> {
        open(path.as_ref(), Some(slot), Manner::Mapping)
    }

    /// As [`Region::open`], as an endpoint that maps nothing and has to be signalled each time, as Linux is. For tests.
    ///
    /// # Errors
    /// As [`Region::open`].
    #[doc(hidden)]
    pub fn open_signalled(path: impl AsRef<Path>) -> Result<Self, RegionError> {
        open(path.as_ref(), None, Manner::Signalled)
    }
}

fn make(file: &File, geometry: &Geometry) -> Result<(), RegionError> {
    if !file.metadata()?.file_type().is_char_device() {
        // All zero.
        file.set_len(0)?;
        file.set_len(geometry.bytes() as u64)?;
    }
    let memory = Memory::map(file, size_of(file)?)?;
    format(&memory, geometry)
}

/// Writes the header, and clears what is not to be left from before.
pub(super) fn format(memory: &Memory, geometry: &Geometry) -> Result<(), RegionError> {
    if geometry.bytes() > memory.len() {
        let (bytes, memory) = (geometry.bytes() as u64, memory.len());
        return Err(super::LayoutError::Size { bytes, memory }.into());
    }
    memory.zero(0, geometry.slice(0).start)?;
    let header = geometry.header();
    // What makes a region of it comes last.
    let (magic, rest) = header.split_at(8);
    memory.write(8, rest)?;
    let magic = magic.try_into().map_or(0, u64::from_ne_bytes);
    Ok(memory.store(0, magic)?)
}

/// What the header says of the region in this memory.
pub(super) fn geometry_of(memory: &Memory) -> Result<Geometry, RegionError> {
    let mut header = [0; HEADER_LEN];
    memory.read(0, &mut header)?;
    Ok(Geometry::parse(&header, memory.len())?)
}

fn open(path: &Path, slot: Option<usize>, manner: Manner) -> Result<Region, RegionError> {
    let file = OpenOptions::new().read(true).write(true).open(path)?;
    let memory = Memory::map(&file, size_of(&file)?)?;
    let geometry = geometry_of(&memory)?;
    let heartbeats = match geometry.liveness() {
        Liveness::Server => return Err(RegionError::OfServer),
        Liveness::Locks => None,
        Liveness::Heartbeats if slot.is_none() => return Err(RegionError::SlotNeeded),
        Liveness::Heartbeats => Some(Heartbeats::new(geometry)),
    };
    let slot = claim(&file, &geometry, slot)?;
    let links = Mutex::new(Links { locked: vec![false; geometry.slots()], looked: None, heartbeats });
    let attachment = FileAttachment {
        file,
        memory: Arc::new(memory),
        slot,
        links,
        woken: Mutex::new(false),
        waker: Condvar::new(),
    };
    let needs_time = geometry.liveness() == Liveness::Heartbeats;
    let region = Region::join(Arc::new(attachment), geometry, manner)?;
    if needs_time {
        // Then the others have seen our heart beat, and we theirs.
        thread::sleep(BEAT * 3);
    }
    Ok(region)
}

/// Locks a slot: this one, or the first that is free.
fn claim(file: &File, geometry: &Geometry, slot: Option<usize>) -> Result<usize, RegionError> {
    let slots = match slot {
        Some(slot) if slot >= geometry.slots() => return Err(RegionError::NoSuchSlot(slot)),
        Some(slot) => slot..slot + 1,
        None => 0..geometry.slots(),
    };
    for slot in slots {
        if try_lock(file, lock_of(slot))? {
            return Ok(slot);
        }
    }
    Err(RegionError::NoFreeSlot)
}

/// What who has a slot locks.
fn lock_of(slot: usize) -> Range<u64> {
    let byte = (PAGE + slot) as u64;
    byte..byte + 1
}

/// Bytes that can be mapped.
fn size_of(file: &File) -> io::Result<usize> {
    let metadata = file.metadata()?;
    let bytes = if metadata.file_type().is_char_device() {
        let device = metadata.rdev();
        let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
        let text = std::fs::read_to_string(format!("/sys/dev/char/{major}:{minor}/size"))?;
        text.trim().parse().map_err(|_| io::ErrorKind::InvalidData)?
    } else {
        metadata.len()
    };
    // A region has at least a header; less cannot be mapped.
    let bytes = usize::try_from(bytes).map_err(|_| io::ErrorKind::InvalidData)?;
    if bytes < PAGE { Err(io::ErrorKind::InvalidData.into()) } else { Ok(bytes) }
}

#[derive(Debug)]
struct FileAttachment {
    file: File,
    memory: Arc<Memory>,
    slot: usize,
    links: Mutex<Links>,
    woken: Mutex<bool>,
    waker: Condvar,
}

/// Who is there, as last seen.
#[derive(Debug)]
struct Links {
    locked: Vec<bool>,
    looked: Option<Instant>,
    heartbeats: Option<Heartbeats>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing panics while one of these is held.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl FileAttachment {
    /// Looks who has a lock. An end is noticed by the next look, a beginning when somebody asks.
    fn look_at_locks(&self, links: &mut Links, now: Instant) {
        if links.looked.is_some_and(|looked| now.duration_since(looked) < LOOK_AT_LOCKS) {
            return;
        }
        links.looked = Some(now);
        for (slot, locked) in links.locked.iter_mut().enumerate() {
            *locked = is_locked(&self.file, lock_of(slot)).unwrap_or(false);
        }
    }
}

impl Attachment for FileAttachment {
    fn memory(&self) -> &Arc<Memory> {
        &self.memory
    }

    fn slot(&self) -> usize {
        self.slot
    }

    fn is_belled(&self) -> bool {
        false
    }

    fn ring(&self, _slot: usize) {}

    fn wait(&self, timeout: Duration) {
        {
            let woken = lock(&self.woken);
            let waited = self.waker.wait_timeout_while(woken, timeout, |woken| !*woken);
            *waited.unwrap_or_else(PoisonError::into_inner).0 = false;
        }
        let (mut links, now) = (lock(&self.links), Instant::now());
        match &mut links.heartbeats {
            Some(heartbeats) => heartbeats.beat(&self.memory, self.slot, now),
            None => self.look_at_locks(&mut links, now),
        }
    }

    fn wake(&self) {
        *lock(&self.woken) = true;
        self.waker.notify_all();
    }

    fn connection(&self, slot: usize) -> Option<u64> {
        let mut links = lock(&self.links);
        let is_there = slot == self.slot
            || match &links.heartbeats {
                Some(heartbeats) => heartbeats.is_alive(slot),
                None => {
                    let locked = links.locked.get_mut(slot)?;
                    *locked = *locked || is_locked(&self.file, lock_of(slot)).unwrap_or(false);
                    *locked
                }
            };
        // Who comes after another has another incarnation.
        is_there.then_some(0)
    }
}
