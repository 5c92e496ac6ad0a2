//! Processor time, as /proc tells it.

use std::fs;

/// Processor time of a process, user and system.
pub(crate) fn ticks(process: u32) -> u64 {
    times(&process.to_string())[..2].iter().sum()
}

/// The same with that of its children that have ended.
pub(crate) fn ticks_with_children(process: u32) -> u64 {
    times(&process.to_string()).iter().sum()
}

/// Of all that this process has started and that has ended.
pub(crate) fn ticks_of_children() -> u64 {
    times("self")[2..].iter().sum()
}

/// In user space and in the kernel, of the process and of its children that have ended. A process that has ended
/// itself has used none.
fn times(process: &str) -> Vec<u64> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat"))
        .unwrap_or_else(|_| "1 (gone) Z".to_owned() + &" 0".repeat(20));
    let after = stat.rsplit_once(')').expect("a command in parentheses").1;
    after.split_whitespace().skip(11).take(4).map(|field| field.parse::<u64>().expect("a number")).collect()
}
