//! Descriptors that go to other processes beside bytes (`SCM_RIGHTS`).

use std::io;

use libc::{c_int, cmsghdr, msghdr};

use crate::{errno, stream::Grace, table};

/// Gives connections back to TCP that are about to be handed over: whoever gets them knows nothing of rings.
///
/// # Errors
/// If bytes have come on one and were not read, and the peer does not send them once more, since it has closed or does not
/// answer: `EOPNOTSUPP`. It stays here, as it is.
///
/// # Safety
/// The message is null or one that the program passes to `sendmsg`.
pub(super) unsafe fn hand_over(message: *const msghdr) -> io::Result<()> {
    // SAFETY: the caller promises it.
    let Some(message) = (unsafe { message.as_ref() }) else { return Ok(()) };
    if message.msg_controllen == 0 || message.msg_control.is_null() {
        return Ok(());
    }
    // SAFETY: the caller promises that the header describes a buffer.
    let mut head = unsafe { libc::CMSG_FIRSTHDR(message) };
    while !head.is_null() {
        // SAFETY: the macros have checked that it lies in the buffer.
        unsafe { hand_over_all(message, head) }?;
        // SAFETY: as above.
        head = unsafe { libc::CMSG_NXTHDR(message, head) };
    }
    Ok(())
}

/// # Safety
/// The header lies in the buffer of the message.
unsafe fn hand_over_all(message: &msghdr, head: *const cmsghdr) -> io::Result<()> {
    // SAFETY: the caller promises it. It need not be aligned.
    let cmsghdr { cmsg_len, cmsg_level, cmsg_type, .. } = unsafe { head.read_unaligned() };
    if (cmsg_level, cmsg_type) != (libc::SOL_SOCKET, libc::SCM_RIGHTS) {
        return Ok(());
    }
    // SAFETY: computes an address.
    let data = unsafe { libc::CMSG_DATA(head) };
    let end = (message.msg_control.addr() + message.msg_controllen).min(head.addr() + cmsg_len);
    let count = end.saturating_sub(data.addr()) / size_of::<c_int>();
    let grace = Grace::begin();
    for at in 0..count {
        // SAFETY: it ends before the buffer does.
        let fd = unsafe { data.cast::<c_int>().add(at).read_unaligned() };
        let Some(stream) = table::stream(fd) else { continue };
        let leave = || stream.leaves_us_wholly("it is handed to another process", &grace);
        if errno::quietly(leave) != Some(true) {
            return Err(io::Error::from_raw_os_error(libc::EOPNOTSUPP));
        }
    }
    Ok(())
}
