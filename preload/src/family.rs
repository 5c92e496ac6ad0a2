//! Processes that came from each other by `fork`, and what they have in common.
//!
//! One piece of memory is mapped by all of them. For each connection that was there at a fork it has a [`Slot`]: who has
//! it, whose turn it is, and how it stands. A process that has ended without a word is found out by a lock on a byte of
//! the file behind the memory: the kernel releases it.
#![allow(unsafe_code)]

use std::{
    io,
    sync::{
        OnceLock,
        atomic::{AtomicI64, AtomicU32, AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use libc::{c_int, c_short};
use rustix::{
    mm::{MapFlags, ProtFlags, mmap},
    thread::futex,
    time::{ClockId, Timespec, clock_gettime},
};
use smcd::raw::{self, Baton, Kept, Left, SNAPSHOT};

/// Processes that a family may have in all; those that come later share no connection of rings.
const MEMBERS: usize = 4096;

/// Connections that it may have in common in all.
const SLOTS: usize = 32 * 1024;

/// Processes that may have a connection at once and still be told apart.
const HOLDERS: usize = 6;

/// Stands for more than [`HOLDERS`], for good.
const MANY: u32 = u32::MAX;

/// How long a process waits for its turn before it looks whether the other is alive.
const PATIENCE: Duration = Duration::from_millis(50);

/// A process of the family, by the order in which they came; never zero.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Member(u32);

/// What became of a member.
#[repr(u32)]
enum Life {
    /// Its parent is about to make it, or it has not begun yet.
    Coming = 1,
    /// It holds the lock on its byte.
    Here = 2,
    /// It has ended.
    Gone = 3,
}

/// A connection that several processes have, or had.
#[repr(C)]
#[derive(Debug)]
pub(crate) struct Slot {
    /// Zero, or the member whose turn it is; with [`WANTED`] if another waits for it.
    turn: AtomicU32,
    /// Who had it last, and has left the words.
    last: AtomicU32,
    holders: [AtomicU32; HOLDERS],
    /// A member has died while it had its turn: nobody knows how the connection stands.
    is_broken: AtomicU32,
    words: [AtomicU64; SNAPSHOT],
}

const WANTED: u32 = 1 << 31;

/// The memory.
#[repr(C)]
struct Common {
    members: [AtomicU32; MEMBERS],
    next_member: AtomicUsize,
    next_slot: AtomicUsize,
    /// When it was last looked who is alive, by the coarse clock.
    looked: AtomicI64,
    slots: [Slot; SLOTS],
}

/// Memory and file.
struct Family {
    common: &'static Common,
    file: Kept,
}

static FAMILY: OnceLock<Option<Family>> = OnceLock::new();
static ME: AtomicU32 = AtomicU32::new(0);

impl Family {
    /// Founds a family of this process.
    fn found() -> io::Result<Self> {
        let len = size_of::<Common>();
        let file = raw::sized_memory("smcd-family", len)?;
        // SAFETY: no address is asked for, so no existing mapping is replaced.
        let base = unsafe {
            mmap(std::ptr::null_mut(), len, ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED, &file, 0)
        }?;
        // SAFETY: the mapping is as long as the type, aligned to a page, zeroed, and never unmapped; the file is known to
        // the family alone. All of it is atomics, for which every value is valid, whoever writes meanwhile.
        let common: &'static Common = unsafe { &*base.cast::<Common>() };
        common.next_member.store(1, Ordering::Relaxed);
        Ok(Self { common, file: Kept::new(file) })
    }

    fn member(&self, member: Member) -> Option<&AtomicU32> {
        self.common.members.get(member.0 as usize)
    }

    /// Announces a process that is about to be made.
    fn announce(&self) -> Option<Member> {
        let index = self.common.next_member.fetch_add(1, Ordering::Relaxed);
        let life = self.common.members.get(index)?;
        life.store(Life::Coming as u32, Ordering::Release);
        Some(Member(u32::try_from(index).ok()?))
    }

    /// This process is that member.
    fn arrive(&self, me: Member) {
        ME.store(me.0, Ordering::Relaxed);
        if self.lock_byte(me, libc::F_SETLK).is_ok()
            && let Some(life) = self.member(me)
        {
            life.store(Life::Here as u32, Ordering::Release);
        }
    }

    /// Asks the kernel for a lock of the file, or who has it.
    fn lock_byte(&self, member: Member, command: c_int) -> io::Result<c_short> {
        use std::os::fd::AsRawFd as _;
        let mut lock = libc::flock {
            l_type: libc::F_WRLCK as c_short,
            l_whence: libc::SEEK_SET as c_short,
            l_start: i64::from(member.0),
            l_len: 1,
            l_pid: 0,
        };
        // SAFETY: the structure is ours, and of the kind that these commands take.
        let result = unsafe { libc::fcntl(self.file.as_raw_fd(), command, &raw mut lock) };
        if result < 0 { Err(io::Error::last_os_error()) } else { Ok(lock.l_type) }
    }

    /// True if the member has ended.
    fn is_gone(&self, member: Member) -> bool {
        let Some(life) = self.member(member) else { return false };
        if life.load(Ordering::Acquire) == Life::Here as u32
            && Some(member) != me()
            && matches!(self.lock_byte(member, libc::F_GETLK), Ok(kind) if kind == libc::F_UNLCK as c_short)
        {
            life.store(Life::Gone as u32, Ordering::Release);
        }
        life.load(Ordering::Acquire) == Life::Gone as u32
    }

    /// Looks who is alive, now and then.
    fn look(&self) {
        let Timespec { tv_sec, tv_nsec } = clock_gettime(ClockId::MonotonicCoarse);
        let now = tv_sec.wrapping_mul(1_000_000_000).wrapping_add(tv_nsec);
        if self.common.looked.swap(now, Ordering::Relaxed) != now {
            let known = self.common.next_member.load(Ordering::Relaxed).min(MEMBERS);
            for member in (1..known).filter_map(|member| u32::try_from(member).ok()) {
                self.is_gone(Member(member));
            }
        }
    }
}

fn family() -> Option<&'static Family> {
    FAMILY.get()?.as_ref()
}

/// This process, if it has a family.
pub(crate) fn me() -> Option<Member> {
    Some(Member(ME.load(Ordering::Relaxed))).filter(|me| me.0 != 0)
}

/// Announces a child that is about to be made. `None` if there is no way to share anything with it.
pub(crate) fn announce() -> Option<Member> {
    let family = FAMILY.get_or_init(|| {
        let family = Family::found().ok()?;
        let me = family.announce()?;
        family.arrive(me);
        Some(family)
    });
    family.as_ref()?.announce()
}

/// The child that was announced is not to be.
pub(crate) fn unannounce(child: Member) {
    if let Some(life) = family().and_then(|family| family.member(child)) {
        life.store(Life::Gone as u32, Ordering::Release);
    }
}

/// This process is the child that was announced.
pub(crate) fn arrive(me: Member) {
    if let Some(family) = family() {
        family.arrive(me);
    }
}

/// A new slot, held by this process; `None` if there are no more.
pub(crate) fn new_slot() -> Option<&'static Slot> {
    let common = family()?.common;
    let slot = common.slots.get(common.next_slot.fetch_add(1, Ordering::Relaxed))?;
    slot.add_holder(me()?);
    Some(slot)
}

impl Slot {
    /// Another member has the connection.
    pub(crate) fn add_holder(&self, member: Member) {
        let free = |place: &&AtomicU32| {
            place.compare_exchange(0, member.0, Ordering::AcqRel, Ordering::Relaxed).is_ok()
        };
        if self.holders.iter().find(free).is_none() {
            self.holders[0].store(MANY, Ordering::Release);
        }
    }

    /// This process has it no longer.
    pub(crate) fn leave(&self) {
        let Some(me) = me() else { return };
        for place in &self.holders {
            let _ = place.compare_exchange(me.0, 0, Ordering::AcqRel, Ordering::Relaxed);
        }
    }

    /// True if no other process has the connection any more.
    pub(crate) fn is_ours_alone(&self) -> bool {
        let (Some(family), Some(me)) = (family(), me()) else { return false };
        family.look();
        self.holders.iter().all(|place| match place.load(Ordering::Acquire) {
            0 => true,
            MANY => false,
            holder if holder == me.0 => true,
            holder => family.member(Member(holder)).is_some_and(|life| {
                let is_gone = life.load(Ordering::Acquire) == Life::Gone as u32;
                if is_gone {
                    let _ = place.compare_exchange(holder, 0, Ordering::AcqRel, Ordering::Relaxed);
                }
                is_gone
            }),
        })
    }

    fn give(&self, words: &[u64; SNAPSHOT]) {
        for (word, value) in self.words.iter().zip(words) {
            word.store(*value, Ordering::Relaxed);
        }
        self.last.store(ME.load(Ordering::Relaxed), Ordering::Relaxed);
        self.unlock();
    }

    fn unlock(&self) {
        if self.turn.swap(0, Ordering::Release) & WANTED != 0 {
            let _ = futex::wake(&self.turn, futex::Flags::empty(), 1);
        }
    }

    /// Leaves the first words. To be called while no other process knows of the slot.
    pub(crate) fn begin(&self, words: &[u64; SNAPSHOT]) {
        self.give(words);
    }

    fn lock(&self, me: Member) {
        let mut turn = self.turn.compare_exchange(0, me.0, Ordering::Acquire, Ordering::Relaxed);
        while let Err(taken) = turn {
            if taken == 0 {
                // Others may wait, too.
                turn = self.turn.compare_exchange(0, me.0 | WANTED, Ordering::Acquire, Ordering::Relaxed);
                continue;
            }
            let wanted = taken | WANTED;
            if taken == wanted
                || self.turn.compare_exchange(taken, wanted, Ordering::Relaxed, Ordering::Relaxed).is_ok()
            {
                self.wait(wanted);
            }
            turn = Err(self.turn.load(Ordering::Relaxed));
        }
    }

    /// Waits for whoever has the turn; if that one is dead, takes it away.
    fn wait(&self, taken: u32) {
        let limit = Timespec { tv_sec: 0, tv_nsec: i64::from(PATIENCE.subsec_nanos()) };
        let _ = futex::wait(&self.turn, futex::Flags::empty(), taken, Some(&limit));
        let holder = Member(taken & !WANTED);
        if self.turn.load(Ordering::Relaxed) == taken && family().is_some_and(|family| family.is_gone(holder))
        {
            self.is_broken.store(1, Ordering::Relaxed);
            let _ = self.turn.compare_exchange(taken, 0, Ordering::AcqRel, Ordering::Relaxed);
        }
    }
}

/// How those who have a slot take turns.
#[derive(Debug)]
pub(crate) struct SlotBaton(pub(crate) &'static Slot);

impl Baton for SlotBaton {
    fn take(&self) -> Option<Left> {
        let Self(slot) = self;
        let me = me()?;
        slot.lock(me);
        if slot.is_broken.load(Ordering::Relaxed) != 0 {
            slot.unlock();
            return None;
        }
        if slot.last.load(Ordering::Relaxed) == me.0 {
            return Some(Left::ByUs);
        }
        Some(Left::ByOther(std::array::from_fn(|at| slot.words[at].load(Ordering::Relaxed))))
    }

    fn give(&self, words: &[u64; SNAPSHOT]) {
        self.0.give(words);
    }
}
