//! Receiving into memory that is not initialised.
#![allow(unsafe_code)]

use std::os::fd::AsFd;

use bytes::BufMut;
use rustix::{
    io::Errno,
    net::{RecvFlags, recv},
};

/// Receives into the first piece of `dst`, and advances it by what came (unless it was only looked at).
///
/// # Errors
/// The system's.
pub(crate) fn recv_into(socket: impl AsFd, dst: &mut impl BufMut, flags: RecvFlags) -> Result<usize, Errno> {
    let chunk = dst.chunk_mut();
    // SAFETY: the slice is only written to, by the kernel, which leaves nothing uninitialised that was initialised.
    let ((init, _), _) = recv(socket, unsafe { chunk.as_uninit_slice_mut() }, flags)?;
    let n = init.len();
    // SAFETY: `recv` says that the first `n` bytes of the chunk are initialised now.
    unsafe { dst.advance_mut(n) };
    Ok(n)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{io::Write, os::unix::net::UnixStream};

    #[test]
    fn what_came_is_appended() {
        let (mut a, b) = UnixStream::pair().unwrap();
        a.write_all(b"def").unwrap();
        let mut dst = b"abc".to_vec();
        assert_eq!(recv_into(&b, &mut dst, RecvFlags::DONTWAIT), Ok(3));
        assert_eq!(dst, b"abcdef");
        assert_eq!(recv_into(&b, &mut dst, RecvFlags::DONTWAIT), Err(Errno::AGAIN));
        a.write_all(b"123").unwrap();
        let mut short = [0; 2];
        assert_eq!(recv_into(&b, &mut &mut short[..], RecvFlags::DONTWAIT), Ok(2));
        assert_eq!(&short, b"12");
    }
}
