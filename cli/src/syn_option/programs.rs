//! The eBPF programs of a cgroup, and the names by which the BPF file system keeps them attached.

use std::{
    ffi::CString,
    fs, io,
    os::{fd::AsFd, unix::ffi::OsStrExt},
    path::{Path, PathBuf},
};

use aya::{Ebpf, EbpfLoader, include_bytes_aligned, programs::ProgramError};
use rustix::fs::statfs;

use super::{
    cgroup::Cgroup,
    error::SynOptionError,
    sys::{self, Hook},
};

/// What `statfs` says of the BPF file system (`BPF_FS_MAGIC`).
const BPFFS: u64 = 0xcafe_4a11;

/// Of `bpf/syn_option.bpf.c`, by `bpf/build`.
static OBJECT: &[u8] = include_bytes_aligned!("../../bpf/syn_option.bpf.o");

/// The programs. That by which sockets ask comes last: whoever can ask is served.
const PROGRAMS: [(&str, Hook); 3] = [
    ("smcd_sockops", Hook::SockOps),
    ("smcd_getsockopt", Hook::GetSockopt),
    ("smcd_setsockopt", Hook::SetSockopt),
];

/// Where the links of a cgroup's programs are pinned. Removing a pin detaches the program.
#[derive(Debug)]
pub(super) struct Pins {
    directory: PathBuf,
}

impl Pins {
    pub(super) fn new(bpffs: &Path, cgroup: &Cgroup) -> Result<Self, SynOptionError> {
        match statfs(bpffs) {
            Ok(system) if system.f_type.cast_unsigned() == BPFFS => {}
            _ => return Err(SynOptionError::NoBpffs(bpffs.to_owned())),
        }
        Ok(Self { directory: bpffs.join("smcd").join(format!("syn-option-{}", cgroup.id())) })
    }

    fn pin(&self, program: &str) -> PathBuf {
        self.directory.join(program)
    }

    /// True if all programs are attached.
    pub(super) fn are_there(&self) -> Result<bool, SynOptionError> {
        for (program, _) in PROGRAMS {
            let path = self.pin(program);
            let failed = |error| SynOptionError::io("cannot look for", &path, error);
            if !path.try_exists().map_err(failed)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Attaches the programs, unless they are attached.
    pub(super) fn put(&self, cgroup: &Cgroup) -> Result<(), SynOptionError> {
        if self.are_there()? {
            return Ok(());
        }
        // What an attempt left that was cut off.
        self.remove()?;
        fs::create_dir_all(&self.directory)
            .map_err(|error| SynOptionError::io("cannot make", &self.directory, error))?;
        let put = self.attach_all(cgroup);
        if put.is_err() {
            // The error that led here says more than one that may follow.
            let _ = self.remove();
        }
        put
    }

    fn attach_all(&self, cgroup: &Cgroup) -> Result<(), SynOptionError> {
        // The one map keeps state in sockets; this process does not look at it.
        let mut object =
            EbpfLoader::new().allow_unsupported_maps().load(OBJECT).map_err(SynOptionError::load)?;
        for (name, hook) in PROGRAMS {
            self.attach(&mut object, name, hook, cgroup)?;
        }
        Ok(())
    }

    fn attach(
        &self,
        object: &mut Ebpf,
        name: &'static str,
        hook: Hook,
        cgroup: &Cgroup,
    ) -> Result<(), SynOptionError> {
        let program = object.program_mut(name).ok_or(SynOptionError::Missing(name))?;
        let refused = |error| SynOptionError::refused(name, error);
        load(program).map_err(refused)?;
        let link = sys::link(program.fd().map_err(refused)?.as_fd(), cgroup.as_fd(), hook)
            .map_err(|error| SynOptionError::io("cannot attach a program to", cgroup.path(), error))?;
        let path = self.pin(name);
        let failed = |error| SynOptionError::io("cannot pin a program at", &path, error);
        let pinned = CString::new(path.as_os_str().as_bytes()).map_err(|error| failed(error.into()))?;
        sys::pin(link.as_fd(), &pinned).map_err(failed)
    }

    /// Detaches the programs. True if some were attached.
    pub(super) fn remove(&self) -> Result<bool, SynOptionError> {
        let mut were_there = false;
        // Nobody shall ask who would not be served.
        for (program, _) in PROGRAMS.iter().rev() {
            let path = self.pin(program);
            match fs::remove_file(&path) {
                Ok(()) => were_there = true,
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(SynOptionError::io("cannot remove", path, error)),
            }
        }
        match fs::remove_dir(&self.directory) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(SynOptionError::io("cannot remove", &self.directory, error))
            }
            _ => Ok(were_there),
        }
    }
}

fn load(program: &mut aya::programs::Program) -> Result<(), ProgramError> {
    use aya::programs::Program;
    match program {
        Program::SockOps(program) => program.load(),
        Program::CgroupSockopt(program) => program.load(),
        _ => Err(ProgramError::UnexpectedProgramType),
    }
}
