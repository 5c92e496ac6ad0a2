//! The calls of `bpf` that no crate makes for programs of these kinds: to link one to a cgroup, and to pin the link.
#![allow(unsafe_code)]

use std::{
    ffi::CStr,
    io,
    os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd},
};

/// Numbers of the calls.
const OBJ_PIN: libc::c_long = 6;
const LINK_CREATE: libc::c_long = 28;

/// Where a cgroup calls a program (`enum bpf_attach_type`).
#[derive(Clone, Copy, Debug)]
#[repr(u32)]
pub(super) enum Hook {
    SockOps = 3,
    GetSockopt = 21,
    SetSockopt = 22,
}

/// The arguments of `BPF_LINK_CREATE`. Without flags: a link never takes the place of another program.
#[repr(C)]
struct LinkCreate {
    program: RawFd,
    cgroup: RawFd,
    hook: u32,
    flags: u32,
}

/// The arguments of `BPF_OBJ_PIN`.
#[repr(C)]
struct ObjPin {
    path: u64,
    object: RawFd,
    flags: u32,
}

/// Has a cgroup call a program, for as long as the link is there.
///
/// # Errors
/// The system's.
pub(super) fn link(program: BorrowedFd<'_>, cgroup: BorrowedFd<'_>, hook: Hook) -> io::Result<OwnedFd> {
    let arguments =
        LinkCreate { program: program.as_raw_fd(), cgroup: cgroup.as_raw_fd(), hook: hook as u32, flags: 0 };
    let fd = bpf(LINK_CREATE, &arguments)?;
    // SAFETY: the call has made this descriptor, for us alone.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Keeps an object of the kernel under a name of the BPF file system.
///
/// # Errors
/// The system's.
pub(super) fn pin(object: BorrowedFd<'_>, path: &CStr) -> io::Result<()> {
    let arguments =
        ObjPin { path: path.as_ptr().expose_provenance() as u64, object: object.as_raw_fd(), flags: 0 };
    bpf(OBJ_PIN, &arguments).map(drop)
}

fn bpf<T>(call: libc::c_long, arguments: &T) -> io::Result<RawFd> {
    // SAFETY: the kernel reads so many bytes from there, all of which are initialised: the two structures above have no
    // gaps. The path that one of them points to lives in the caller's frame.
    let result = unsafe { libc::syscall(libc::SYS_bpf, call, std::ptr::from_ref(arguments), size_of::<T>()) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    RawFd::try_from(result).map_err(|_| io::ErrorKind::InvalidData.into())
}
