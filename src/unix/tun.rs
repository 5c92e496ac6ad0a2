//! A TAP device as a descriptor that tokio watches.
#![allow(unsafe_code)]

use std::{
    fs::{File, OpenOptions},
    io,
    os::unix::fs::OpenOptionsExt,
};

use rustix::ioctl::{Updater, ioctl, opcode};
use tokio::io::unix::AsyncFd;

/// Asks for a device, and is answered with its name.
const TUNSETIFF: rustix::ioctl::Opcode = opcode::write::<libc::c_int>(b'T', 202);

/// Longest name of a network device, with the zero behind it.
const NAME: usize = 16;

/// What the kernel is asked with: `struct ifreq`.
#[repr(C)]
struct InterfaceRequest {
    name: [u8; NAME],
    flags: libc::c_short,
    /// The rest of the union that the flags are in.
    rest: [u8; size_of::<libc::ifreq>() - NAME - size_of::<libc::c_short>()],
}

const _: () = assert!(size_of::<InterfaceRequest>() == size_of::<libc::ifreq>());

/// Has the current runtime watch the TAP device of this name, of which each read and write is a frame. The device is
/// made unless it is there, and ends then with the descriptor.
///
/// # Errors
/// As [`open_tap`], or if the runtime cannot watch another descriptor.
pub(crate) fn watch_tap(name: &str) -> io::Result<AsyncFd<File>> {
    // SAFETY: the file owns its descriptor, which is the same at every call.
    Ok(unsafe { AsyncFd::register(open_tap(name)?) }?)
}

/// A descriptor that does not block.
///
/// # Errors
/// `InvalidInput` if no device can have the name; otherwise the system's.
fn open_tap(name: &str) -> io::Result<File> {
    let mut request = InterfaceRequest {
        name: [0; NAME],
        // Frames come without anything in front of them.
        flags: (libc::IFF_TAP | libc::IFF_NO_PI) as libc::c_short,
        rest: [0; size_of::<libc::ifreq>() - NAME - size_of::<libc::c_short>()],
    };
    let place = request.name.get_mut(..name.len()).filter(|_| name.len() < NAME && !name.contains('\0'));
    place.ok_or(io::ErrorKind::InvalidInput)?.copy_from_slice(name.as_bytes());
    let file =
        OpenOptions::new().read(true).write(true).custom_flags(libc::O_NONBLOCK).open("/dev/net/tun")?;
    // SAFETY: the opcode is that of TUNSETIFF, which reads and writes one `ifreq`; the request has its size and layout,
    // is initialised, and any bytes that the kernel writes are valid in it.
    unsafe { ioctl(&file, Updater::<TUNSETIFF, _>::new(&mut request)) }?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_no_device_can_have_are_refused() {
        for name in ["sixteen-letters-", "a\0b"] {
            assert_eq!(open_tap(name).unwrap_err().kind(), io::ErrorKind::InvalidInput);
        }
    }
}
