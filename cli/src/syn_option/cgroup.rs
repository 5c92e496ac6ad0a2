//! A cgroup: a directory of the cgroup v2 file system.

use std::{
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
};

use procfs::process::Process;
use rustix::fs::{Mode, OFlags, fstat, fstatfs, open};

use super::error::SynOptionError;

/// What `statfs` says of it (`CGROUP2_SUPER_MAGIC`).
const CGROUP2: u64 = 0x6367_7270;

#[derive(Debug)]
pub(super) struct Cgroup {
    path: PathBuf,
    directory: OwnedFd,
    id: u64,
}

impl Cgroup {
    /// The root of the hierarchy.
    pub(super) fn root() -> Result<Self, SynOptionError> {
        let mounts =
            Process::myself().and_then(|own| own.mountinfo()).map_err(|_| SynOptionError::NoCgroup2)?;
        let root = mounts.into_iter().find(|mount| mount.fs_type == "cgroup2");
        Self::open(root.ok_or(SynOptionError::NoCgroup2)?.mount_point)
    }

    pub(super) fn open(path: PathBuf) -> Result<Self, SynOptionError> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = open(&path, flags, Mode::empty())
            .map_err(|errno| SynOptionError::io("cannot open the cgroup", &path, errno))?;
        match (fstatfs(&directory), fstat(&directory)) {
            (Ok(system), Ok(file)) if system.f_type.cast_unsigned() == CGROUP2 => {
                Ok(Self { path, directory, id: file.st_ino })
            }
            _ => Err(SynOptionError::NotACgroup(path)),
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The kernel's number for it, which no other cgroup ever gets.
    pub(super) fn id(&self) -> u64 {
        self.id
    }
}

impl AsFd for Cgroup {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.directory.as_fd()
    }
}
