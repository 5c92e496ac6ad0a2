//! Why the eBPF programs cannot be put where they should be.

use std::{error::Error, io, path::PathBuf};

use aya::{EbpfError, programs::ProgramError};
use rustix::io::Errno;

/// Each says what to do about it, where something can be done.
#[derive(Debug, thiserror::Error)]
pub(super) enum SynOptionError {
    /// Not root.
    #[error(
        "this needs root (the capabilities BPF, NET_ADMIN and PERFMON, and write access to the BPF file system)"
    )]
    NotPermitted,
    /// There is no cgroup v2.
    #[error("the cgroup v2 file system is not mounted; try: mount -t cgroup2 cgroup2 /sys/fs/cgroup")]
    NoCgroup2,
    /// Not a directory of it.
    #[error("{} is not a cgroup (a directory of the cgroup v2 file system)", .0.display())]
    NotACgroup(PathBuf),
    /// There is no BPF file system.
    #[error("the BPF file system is not mounted at {path}; try: mount -t bpf bpf {path}", path = .0.display())]
    NoBpffs(PathBuf),
    /// Of the kernel, or this build.
    #[error(
        "the eBPF programs cannot be loaded; the kernel has to be Linux 5.14 or newer, with CONFIG_CGROUP_BPF"
    )]
    Load(#[source] EbpfError),
    /// The verifier refused one.
    #[error("the kernel refuses the eBPF program {name}")]
    Refused {
        /// Which.
        name: &'static str,
        #[source]
        error: ProgramError,
    },
    /// The object has no such program.
    #[error("the eBPF object has no program {0}")]
    Missing(&'static str),
    /// Something on the way.
    #[error("{what} {}", .path.display())]
    Io {
        /// What was to be done.
        what: &'static str,
        /// To what.
        path: PathBuf,
        #[source]
        error: io::Error,
    },
}

impl SynOptionError {
    /// An error of the system on the way.
    pub(super) fn io(what: &'static str, path: impl Into<PathBuf>, error: impl Into<io::Error>) -> Self {
        let error = error.into();
        if error.kind() == io::ErrorKind::PermissionDenied {
            return Self::NotPermitted;
        }
        Self::Io { what, path: path.into(), error }
    }

    pub(super) fn load(error: EbpfError) -> Self {
        if is_refusal_of_privilege(&error) { Self::NotPermitted } else { Self::Load(error) }
    }

    pub(super) fn refused(name: &'static str, error: ProgramError) -> Self {
        if is_refusal_of_privilege(&error) { Self::NotPermitted } else { Self::Refused { name, error } }
    }
}

/// The verifier says `EACCES`, who lacks a capability gets `EPERM`.
fn is_refusal_of_privilege(error: &(dyn Error + 'static)) -> bool {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<io::Error>() {
            return error.raw_os_error() == Some(Errno::PERM.raw_os_error());
        }
        cause = error.source();
    }
    false
}
