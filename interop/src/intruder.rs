//! An endpoint of the region that writes what it likes, wherever it may: into its own control page, directory and slice, all
//! the time. It has the protocols of ivshmem and of the layout of its own, for the library does no such thing.

use std::{
    fs::File,
    io::{IoSliceMut, Write},
    mem::MaybeUninit,
    ops::Range,
    os::{
        fd::OwnedFd,
        unix::{fs::FileExt, net::UnixStream},
    },
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::{Context, ensure};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};

/// Places of the layout (`src/dibs/region/LAYOUT.md`).
const PAGE: u64 = 4096;
const SLOTS_AT: u64 = 24;
const BYTES_AT: u64 = 16;
const AREAS: u64 = 2 * PAGE;
const ENTRY: u64 = 256;
const WORDS_TO: u64 = 2048;

/// What the server says first, of the protocol of ivshmem.
const VERSION: i64 = 0;
const MEMORY: i64 = -1;

/// So much is written between two rounds of rings.
const WRITES: u64 = 2000;
const PAUSE: Duration = Duration::from_millis(2);

/// Writes until it leaves, or is dropped.
pub(crate) struct Intruder {
    until: Until,
    thread: JoinHandle<anyhow::Result<u64>>,
}

/// Ends with this.
struct Until(Arc<AtomicBool>);

impl Drop for Until {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Intruder {
    /// Becomes a client of the server at this socket, and begins.
    pub(crate) fn enter(fabric: &Path) -> anyhow::Result<Self> {
        Ok(Self::begin(Region::join(fabric)?))
    }

    fn begin(mut region: Region) -> Self {
        let is_over = Arc::new(AtomicBool::new(false));
        let until = Until(is_over.clone());
        let thread = thread::spawn(move || {
            let mut count = 0;
            while !is_over.load(Ordering::Relaxed) {
                count += region.scribble()?;
                thread::sleep(PAUSE);
            }
            Ok(count)
        });
        Self { until, thread }
    }

    /// Ends; so many words it has written, at least one.
    pub(crate) fn leave(self) -> anyhow::Result<u64> {
        let Self { until, thread } = self;
        drop(until);
        let count = thread.join().ok().context("the intruder panicked")??;
        ensure!(count > 0, "the intruder has written nothing");
        Ok(count)
    }
}

/// The region, as one of its endpoints has it.
struct Region {
    memory: File,
    /// Doorbells, of all slots.
    bells: Vec<File>,
    /// Of our own slot.
    area: Range<u64>,
    slice: Range<u64>,
    /// All areas.
    areas: Range<u64>,
    slots: u64,
    random: u64,
    // The slot is ours as long as this is open.
    _server: UnixStream,
}

impl Region {
    fn join(fabric: &Path) -> anyhow::Result<Self> {
        let server = UnixStream::connect(fabric).context("the server of the region")?;
        ensure!(message(&server)?.0 == VERSION, "another version of ivshmem");
        let slot = u64::try_from(message(&server)?.0)?;
        let (MEMORY, Some(memory)) = message(&server)? else { anyhow::bail!("the memory does not come") };
        let memory = File::from(memory);
        let [bytes, slots_and_entries] = [word(&memory, BYTES_AT)?, word(&memory, SLOTS_AT)?];
        let (slots, entries) = (slots_and_entries & 0xffff_ffff, slots_and_entries >> 32);
        let area = PAGE + entries * ENTRY;
        let slices = AREAS + slots * area;
        let slice = (bytes - slices) / slots / PAGE * PAGE;
        let mut bells = Vec::new();
        for _ in 0..slots {
            bells.push(File::from(message(&server)?.1.context("a doorbell is missing")?));
        }
        Ok(Self {
            memory,
            bells,
            area: AREAS + slot * area..AREAS + (slot + 1) * area,
            slice: slices + slot * slice..slices + (slot + 1) * slice,
            areas: AREAS..slices,
            slots,
            random: 0x9e37_79b9_7f4a_7c15,
            _server: server,
        })
    }

    /// Writes, rings all, and says how often it has written.
    fn scribble(&mut self) -> anyhow::Result<u64> {
        for _ in 0..WRITES {
            let (at, value) = (self.place(), self.value()?);
            self.memory.write_all_at(&value.to_le_bytes(), at)?;
        }
        for bell in &self.bells {
            // It is full if the other one does not look; that is no matter.
            let _ = (&*bell).write(&1_u64.to_ne_bytes());
        }
        Ok(WRITES)
    }

    /// Where others look most: the state and the GID, the words to another, an entry; or anywhere that is ours.
    fn place(&mut self) -> u64 {
        let start = self.area.start;
        let (range, rest) = match self.next() % 8 {
            0 => (start..start + 32, 0),
            1 | 2 => {
                let words = start + WORDS_TO + self.next() % self.slots * 32;
                (words..words + 32, 0)
            }
            3 | 4 => (start + PAGE..self.area.end, self.next() % 2),
            5 => (self.area.clone(), 0),
            _ => (self.slice.clone(), 0),
        };
        // Of an entry, the owner's first words more often than the user's.
        let at = range.start + self.next() % (range.end - range.start);
        (if rest == 1 { at / ENTRY * ENTRY + at % 64 } else { at }) & !7
    }

    /// A value with a bias to those that mean something.
    fn value(&mut self) -> anyhow::Result<u64> {
        Ok(match self.next() % 6 {
            0 => 0,
            1 => u64::MAX,
            2 => 1 << (self.next() % 64),
            // Present, with another incarnation.
            3 => self.next() << 32 | 1,
            // What stands elsewhere: GIDs and tokens of others, what they say.
            4 => {
                let at = self.areas.start + self.next() % (self.areas.end - self.areas.start);
                word(&self.memory, at & !7)?
            }
            _ => self.next(),
        })
    }

    fn next(&mut self) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random
    }
}

fn word(memory: &File, at: u64) -> anyhow::Result<u64> {
    let mut bytes = [0; 8];
    memory.read_exact_at(&mut bytes, at)?;
    Ok(u64::from_le_bytes(bytes))
}

/// A message of the server.
fn message(server: &UnixStream) -> anyhow::Result<(i64, Option<OwnedFd>)> {
    let mut bytes = [0; 8];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let got = recvmsg(
        server,
        &mut [IoSliceMut::new(&mut bytes)],
        &mut control,
        RecvFlags::CMSG_CLOEXEC | RecvFlags::WAITALL,
    )?;
    ensure!(got.bytes == bytes.len(), "the server has gone");
    let fd = control.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
        _ => None,
    });
    Ok((i64::from_le_bytes(bytes), fd))
}

#[cfg(test)]
mod tests {
    use std::{env, fs, process};

    use smcd::dibs::region::{FabricServer, FabricSettings};

    use super::*;

    #[test]
    fn an_intruder_that_does_not_intrude_says_so() {
        let socket = env::temp_dir().join(format!("smcd-intruder-{}", process::id()));
        let mut fabric = FabricServer::bind(&socket, &FabricSettings::default()).unwrap();
        thread::spawn(move || fabric.run());
        let intruder = Intruder::enter(&socket).unwrap();
        thread::sleep(10 * PAUSE);
        assert!(intruder.leave().unwrap() >= WRITES);
        let unwritable =
            Region { memory: File::open("/dev/zero").unwrap(), ..Region::join(&socket).unwrap() };
        assert!(Intruder::begin(unwritable).leave().is_err());
        let until = Until(Arc::new(AtomicBool::new(true)));
        assert!(Intruder { until, thread: thread::spawn(|| Ok(0)) }.leave().is_err());
        fs::remove_file(socket).unwrap();
    }
}
