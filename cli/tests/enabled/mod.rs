//! The SMC option, enabled for some processes.
#![allow(dead_code, unreachable_pub)]

use std::{
    fs,
    path::PathBuf,
    process::{Command, Output},
};

use crate::namespace;

/// A cgroup to which the programs are attached, and the BPF file system that keeps them.
pub struct Enabled {
    pub cgroup: PathBuf,
    pub bpffs: tempfile::TempDir,
}

impl Enabled {
    /// `None` if that cannot be here; says why.
    pub fn new(name: &str) -> Option<Self> {
        if !namespace::can_be_made() {
            eprintln!("SKIPPED: needs root, `ip`, `nsenter` and `unshare`");
            return None;
        }
        let Some(root) = cgroup_root() else {
            eprintln!("SKIPPED: no cgroup v2 file system is mounted");
            return None;
        };
        let bpffs = tempfile::tempdir().unwrap();
        let mounted = Command::new("mount").args(["-t", "bpf", "bpf"]).arg(bpffs.path()).output();
        if !mounted.is_ok_and(|mounted| mounted.status.success()) {
            eprintln!("SKIPPED: the BPF file system cannot be mounted");
            return None;
        }
        let cgroup = root.join(format!("smcd-{name}-{}", std::process::id()));
        fs::create_dir(&cgroup).unwrap();
        let enabled = Self { cgroup, bpffs };
        let done = enabled.smcdctl("enable");
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        Some(enabled)
    }

    pub fn smcdctl(&self, verb: &str) -> Output {
        Command::new(env!("CARGO_BIN_EXE_smcdctl"))
            .args(["syn-option", verb, "--cgroup"])
            .arg(&self.cgroup)
            .arg("--bpffs")
            .arg(self.bpffs.path())
            .output()
            .unwrap()
    }

    /// Has the programs serve this process.
    pub fn serve(&self, process: u32) {
        fs::write(self.cgroup.join("cgroup.procs"), process.to_string()).unwrap();
    }
}

impl Drop for Enabled {
    fn drop(&mut self) {
        // With the file system go the pins, and with them the programs. A cgroup in which a process still ends is kept.
        let _ = Command::new("umount").arg(self.bpffs.path()).status();
        let _ = fs::remove_dir(&self.cgroup);
    }
}

fn cgroup_root() -> Option<PathBuf> {
    let mounts = procfs::process::Process::myself().ok()?.mountinfo().ok()?;
    mounts.into_iter().find(|mount| mount.fs_type == "cgroup2").map(|mount| mount.mount_point)
}
