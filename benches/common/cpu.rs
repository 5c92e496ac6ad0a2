//! Processors: which two the ends run on, and how much of their time is used.

use std::{
    fs,
    sync::{
        OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use rustix::{
    thread::{CpuSet, sched_getaffinity, sched_setaffinity},
    time::{ClockId, clock_gettime},
};

use super::Result;

/// A processor for each end, `None` if there is only one.
///
/// Two cores if possible: the two threads of a single core share its caches and are another machine altogether.
pub(crate) fn pair() -> Option<(usize, usize)> {
    static PAIR: OnceLock<Option<(usize, usize)>> = OnceLock::new();
    *PAIR.get_or_init(|| {
        let allowed = allowed()?;
        let cpus: Vec<usize> = (0..CpuSet::MAX_CPU).filter(|&cpu| allowed.is_set(cpu)).collect();
        let (&first, rest) = cpus.split_first()?;
        let other_core = rest.iter().find(|&&cpu| core_of(cpu) != core_of(first));
        Some((first, *other_core.or(rest.first())?))
    })
}

/// The processors that this process may use, not counting that it has been pinned.
fn allowed() -> Option<CpuSet> {
    // Found once, and before pinning: that narrows what this process sees.
    static ALLOWED: OnceLock<Option<CpuSet>> = OnceLock::new();
    *ALLOWED.get_or_init(|| sched_getaffinity(None).ok())
}

/// The threads of this processor's core, as the system lists them.
fn core_of(cpu: usize) -> Option<String> {
    fs::read_to_string(format!("/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list")).ok()
}

/// Leaves it to the scheduler where the ends run.
static FREE: AtomicBool = AtomicBool::new(false);

/// Has [`places`] give none from now on.
pub(crate) fn leave_free() {
    FREE.store(true, Ordering::Relaxed);
}

/// True after [`leave_free`].
pub(crate) fn is_left_free() -> bool {
    FREE.load(Ordering::Relaxed)
}

/// The processors that this end and the other one are to be pinned to, if at all.
pub(crate) fn places() -> Option<(usize, usize)> {
    if is_left_free() { None } else { pair() }
}

/// Has this thread, and those it starts, run on this processor only.
pub(crate) fn pin(cpu: usize) -> Result<()> {
    let mut set = CpuSet::new();
    set.set(cpu);
    Ok(sched_setaffinity(None, &set)?)
}

/// Takes back [`pin`].
pub(crate) fn unpin() -> Result<()> {
    Ok(allowed().map_or(Ok(()), |allowed| sched_setaffinity(None, &allowed))?)
}

/// Processor time that this process has used so far, in user space and in the kernel.
pub(crate) fn time() -> Duration {
    let spent = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(spent.tv_sec.unsigned_abs(), spent.tv_nsec.unsigned_abs() as u32)
}

/// One line on the machine, for those who read the figures.
pub(crate) fn machine() -> String {
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let version = kernel.split(['-', '\n']).next().unwrap_or_default();
    let ends = match places() {
        None if pair().is_some() => "ends not pinned".to_owned(),
        Some((ours, theirs)) if core_of(ours) == core_of(theirs) => {
            format!("ends pinned to CPU {ours} and CPU {theirs}, two threads of one core")
        }
        Some((ours, theirs)) => format!("ends pinned to CPU {ours} and CPU {theirs}"),
        None => "both ends on the only CPU".to_owned(),
    };
    format!("{}, Linux {version}, {ends}", model.map_or("unknown processor", |(_, name)| name))
}
