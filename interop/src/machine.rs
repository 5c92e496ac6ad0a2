//! The machine that this runs in: its driver for regions, and what its kernel says.

use std::{
    env, fs,
    io::Write,
    path::Path,
    process::{Child, Command},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use smcd::dibs::region::Region;

/// Where interop/run puts the driver.
const DRIVER: &str = "/dibs_region.ko";
const MODULE: &str = "dibs_region";

/// The ivshmem function that is the library's, in the environment of the first process: by the kernel's command line.
const FUNCTION: &str = "vfio";

/// DIBS devices, by name.
const DEVICES: &str = "/sys/class/dibs";
const DEVICE: &str = "region";

/// In which the driver has its device, or has given it back.
const PATIENCE: Duration = Duration::from_secs(5);

/// What a kernel says that is not well. RCU complains of a processor after 21 seconds: not even emulation is that slow.
const COMPLAINTS: [&str; 11] = [
    "WARNING",
    "BUG",
    "Oops",
    "Call Trace",
    "possible ",
    "general protection",
    "blocked for more than",
    "refcount",
    "UBSAN",
    // Of RCU: "self-detected stall", "detected stalls", "detected expedited stalls", "kthread starved".
    " stall",
    " starved",
];

/// Makes the region a DIBS device, unless it is one.
pub(crate) fn insert_driver() -> anyhow::Result<()> {
    if !has_device() {
        let status = Command::new("insmod").arg(DRIVER).status().context("insmod")?;
        ensure!(status.success(), "insmod fails");
        wait_for(true)?;
    }
    Ok(())
}

/// A new endpoint of this process in the region, by VFIO.
pub(crate) fn open_vfio() -> anyhow::Result<Region> {
    let function = env::var(FUNCTION).context("this machine has no function for the library")?;
    Region::open_vfio(&function).context("the region by VFIO")
}

/// Begins to remove it. Linux waits until nobody has a socket any more whose connection has ended by that.
pub(crate) fn begin_removal() -> anyhow::Result<Removal> {
    Ok(Removal(Command::new("rmmod").arg(MODULE).spawn().context("rmmod")?))
}

pub(crate) struct Removal(Child);

impl Removal {
    /// As long as pages of the region are in a pipe, also once all sockets are closed.
    pub(crate) fn has_to_wait(&mut self) -> anyhow::Result<()> {
        thread::sleep(Duration::from_secs(1));
        ensure!(self.0.try_wait()?.is_none(), "the driver has gone while pages of its memory are in use");
        Ok(())
    }

    pub(crate) fn end(mut self) -> anyhow::Result<()> {
        ensure!(self.0.wait()?.success(), "rmmod fails");
        wait_for(false)
    }
}

fn has_device() -> bool {
    let is_ours = |entry: fs::DirEntry| entry.file_name().to_string_lossy().starts_with(DEVICE);
    fs::read_dir(DEVICES).is_ok_and(|entries| entries.flatten().any(is_ours))
}

fn wait_for(there: bool) -> anyhow::Result<()> {
    let until = Instant::now() + PATIENCE;
    while has_device() != there {
        ensure!(Instant::now() < until, "a device of the driver is there: {}", !there);
        thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}

/// Appends what the kernel has said since the last time to this file, and returns what of that is not well.
pub(crate) fn complaints(log: &Path) -> anyhow::Result<Vec<String>> {
    let said = Command::new("dmesg").arg("-c").output().context("dmesg")?.stdout;
    fs::OpenOptions::new().create(true).append(true).open(log)?.write_all(&said)?;
    Ok(those_of(&String::from_utf8_lossy(&said)))
}

fn those_of(said: &str) -> Vec<String> {
    let is_complaint = |line: &&str| COMPLAINTS.iter().any(|word| line.contains(word));
    said.lines().filter(is_complaint).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn complaints_are_found() {
        let said = "[ 1.0] dibs: all is well\n[ 2.0] WARNING: CPU: 0 PID: 1 at net/smc\n[ 2.1] Call Trace:\n[ 2.2]  <TASK>\n";
        assert_eq!(those_of(said), ["[ 2.0] WARNING: CPU: 0 PID: 1 at net/smc", "[ 2.1] Call Trace:"]);
        for said in [
            "rcu: INFO: rcu_preempt self-detected stall on CPU",
            "rcu: INFO: rcu_preempt detected stalls on CPUs/tasks:",
            "rcu: rcu_preempt kthread starved for 5252 jiffies!",
            "UBSAN: array-index-out-of-bounds in net/smc/smc_core.c:1:2",
        ] {
            assert_eq!(those_of(said), [said]);
        }
        assert_eq!(those_of("dibs_region: installed"), [""; 0]);
    }
}
