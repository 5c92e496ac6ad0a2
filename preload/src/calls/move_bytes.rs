//! Moving bytes between descriptors.

use std::{
    cell::RefCell,
    io::{self, IoSlice},
    sync::Arc,
};

use libc::{c_int, c_uint, c_void, loff_t, off_t, size_t, ssize_t};

use super::{by_rings, moved, settle_read, way_in, way_out};
use crate::{
    errno,
    iov::Room,
    real::hook,
    stream::{Stream, Way},
    table,
};

/// Bytes that are moved at a time.
const PIECE: usize = 64 * 1024;

thread_local! {
    static BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Lends a piece of memory.
fn with_buffer<T>(work: impl FnOnce(&mut [u8]) -> T) -> T {
    let mut buffer = BUFFER.try_with(RefCell::take).unwrap_or_default();
    buffer.resize(PIECE, 0);
    let result = work(&mut buffer);
    let _ = BUFFER.try_with(|place| place.replace(buffer));
    result
}

fn last_error<T>() -> io::Result<T> {
    Err(io::Error::last_os_error())
}

/// Sends a file by the rings. Of the file, no more is taken than was sent.
fn send_file(stream: &Stream, file: c_int, offset: *mut off_t, count: size_t) -> io::Result<usize> {
    // SAFETY: the program gives us a place for the offset, or null.
    let start = match unsafe { offset.as_ref() } {
        Some(offset) => *offset,
        // SAFETY: asks the kernel for a number.
        None => unsafe { libc::lseek(file, 0, libc::SEEK_CUR) },
    };
    if start < 0 {
        return last_error();
    }
    let sent = with_buffer(|buffer| send_from(stream, file, start, count, buffer))?;
    let end = start + off_t::try_from(sent).unwrap_or(0);
    // SAFETY: as above.
    match unsafe { offset.as_mut() } {
        Some(offset) => *offset = end,
        // SAFETY: moves the position of a file.
        None => drop(unsafe { libc::lseek(file, end, libc::SEEK_SET) }),
    }
    Ok(sent)
}

fn send_from(
    stream: &Stream,
    file: c_int,
    start: off_t,
    count: usize,
    buffer: &mut [u8],
) -> io::Result<usize> {
    let mut sent = 0;
    while sent < count {
        let wanted = buffer.len().min(count - sent);
        let at = start + off_t::try_from(sent).unwrap_or(0);
        // SAFETY: the buffer has room for so many bytes.
        let n = unsafe { libc::pread(file, buffer.as_mut_ptr().cast(), wanted, at) };
        match usize::try_from(n) {
            Ok(0) => break,
            Ok(n) => {
                match stream.send(&mut [IoSlice::new(buffer.get(..n).unwrap_or(&[]))], libc::MSG_NOSIGNAL) {
                    Ok(done) => {
                        sent += done;
                        if done < n {
                            break;
                        }
                    }
                    Err(_) if sent > 0 => break,
                    Err(error) => return Err(error),
                }
            }
            Err(_) if sent > 0 => break,
            Err(_) => return last_error(),
        }
    }
    Ok(sent)
}

/// Sends a file: by the kernel, by the kernel with us looking on, or by the rings.
fn transmit(
    out: c_int,
    flags: c_int,
    kernel: impl FnOnce() -> ssize_t,
    rings: impl FnOnce(&Stream) -> io::Result<usize>,
) -> ssize_t {
    let Some(stream) = table::stream(out) else { return kernel() };
    match way_out(&stream, flags) {
        Ok(Way::Counted) => {
            let result = kernel();
            errno::quietly(|| stream.was_written(moved(result)));
            result
        }
        Ok(Way::Rings) => by_rings(|| rings(&stream)),
        Ok(_) => kernel(),
        Err(error) => errno::bytes(Err(error)),
    }
}

hook! {
    /// `sendfile`
    fn sendfile(out: c_int, file: c_int, offset: *mut off_t, count: size_t) -> ssize_t, kernel => transmit(
        out, 0, || kernel(out, file, offset, count),
        |stream| send_file(stream, file, offset, count),
    )
}

hook! {
    /// `sendfile64`, which is the same on 64 bits
    fn sendfile64(out: c_int, file: c_int, offset: *mut off_t, count: size_t) -> ssize_t, kernel => transmit(
        out, 0, || kernel(out, file, offset, count),
        |stream| send_file(stream, file, offset, count),
    )
}

hook! {
    /// `splice`
    fn splice(from: c_int, from_at: *mut loff_t, to: c_int, to_at: *mut loff_t, len: size_t, flags: c_uint) -> ssize_t,
        kernel => {
        let has_offset = !from_at.is_null() || !to_at.is_null();
        if has_offset || !(is_pipe(from) || is_pipe(to)) {
            // Nothing is moved so, from or to a socket; the kernel says why.
            return kernel(from, from_at, to, to_at, len, flags);
        }
        if let Some(stream) = table::stream(to) {
            let kernel = || kernel(from, from_at, to, to_at, len, flags);
            return transmit(to, wait_mode(flags), kernel, |_| from_pipe(&stream, from, len, flags));
        }
        let Some(stream) = table::stream(from) else { return kernel(from, from_at, to, to_at, len, flags) };
        match way_in(&stream, wait_mode(flags)) {
            Ok(Way::Counted) => {
                let result = kernel(from, from_at, to, to_at, len, flags);
                settle_read(&stream, moved(result));
                result
            }
            Ok(Way::Rings) => by_rings(|| to_pipe(&stream, to, len, flags)),
            Ok(_) => kernel(from, from_at, to, to_at, len, flags),
            Err(error) => errno::bytes(Err(error)),
        }
    }
}

fn is_pipe(fd: c_int) -> bool {
    // SAFETY: all zeroes is a value of this plain structure.
    let mut status: libc::stat = unsafe { std::mem::zeroed() };
    let before = errno::get();
    // SAFETY: the place is ours.
    let is_known = unsafe { libc::fstat(fd, &raw mut status) } == 0;
    errno::set(before);
    is_known && status.st_mode & libc::S_IFMT == libc::S_IFIFO
}

fn wait_mode(flags: c_uint) -> c_int {
    if flags & libc::SPLICE_F_NONBLOCK != 0 { libc::MSG_DONTWAIT } else { 0 }
}

/// Moves what has come into a pipe. What the pipe does not take stays.
fn to_pipe(stream: &Arc<Stream>, pipe: c_int, len: usize, flags: c_uint) -> io::Result<usize> {
    with_buffer(|buffer| {
        let wanted = len.min(buffer.len());
        let base: *mut c_void = buffer.as_mut_ptr().cast();
        // SAFETY: the buffer has so much room.
        let mut room = unsafe { Room::one(base, wanted) };
        let there = stream.receive(&mut room, wait_mode(flags) | libc::MSG_PEEK)?;
        if there == 0 {
            return Ok(0);
        }
        // SAFETY: so many bytes of the buffer were filled.
        let written = unsafe { libc::write(pipe, base, there) };
        let Ok(written) = usize::try_from(written) else { return last_error() };
        // SAFETY: as above; these bytes were there, so they are now.
        let mut taken = unsafe { Room::one(base, written) };
        stream.receive(&mut taken, libc::MSG_DONTWAIT | libc::MSG_WAITALL)
    })
}

/// Moves what is in a pipe to the peer. No more is taken from the pipe than there is room for.
fn from_pipe(stream: &Stream, pipe: c_int, len: usize, flags: c_uint) -> io::Result<usize> {
    with_buffer(|buffer| {
        let room = stream.room(wait_mode(flags))?;
        let wanted = len.min(buffer.len()).min(room);
        // SAFETY: the buffer has so much room.
        let n = unsafe { libc::read(pipe, buffer.as_mut_ptr().cast(), wanted) };
        match usize::try_from(n) {
            // There was room; if another thread has taken it meanwhile, it will come back.
            Ok(n) => stream.send_all(buffer.get(..n).unwrap_or(&[])).map(|()| n),
            Err(_) => last_error(),
        }
    })
}
