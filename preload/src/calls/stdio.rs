//! Streams of the C library on connections, and printing to one.
//!
//! The C library reads and writes a descriptor by itself. Of a connection it gets a stream that calls us instead, and
//! otherwise is as any other, up to the number that `fileno` says.

use std::ffi::{CStr, c_char};

use libc::{FILE, c_int, c_void, off64_t, size_t, ssize_t};

use super::{numbers::close, read::read, variadic::jump, write::write};
use crate::{errno, real::hook, table};

/// What `fopencookie` is to call.
#[repr(C)]
struct Functions {
    read: extern "C" fn(*mut c_void, *mut c_char, size_t) -> ssize_t,
    write: extern "C" fn(*mut c_void, *const c_char, size_t) -> ssize_t,
    seek: extern "C" fn(*mut c_void, *mut off64_t, c_int) -> c_int,
    close: extern "C" fn(*mut c_void) -> c_int,
}

unsafe extern "C" {
    fn fopencookie(cookie: *mut c_void, mode: *const c_char, functions: Functions) -> *mut FILE;
    /// In `c/variadic.c`.
    fn smcd_set_number(file: *mut FILE, fd: c_int);
}

/// The descriptor is what such a stream knows of us.
fn cookie(fd: c_int) -> *mut c_void {
    std::ptr::without_provenance_mut(fd.cast_unsigned() as usize)
}

fn number(cookie: *mut c_void) -> c_int {
    cookie.addr() as c_int
}

extern "C" fn read_stream(cookie: *mut c_void, buf: *mut c_char, len: size_t) -> ssize_t {
    // SAFETY: the C library gives us this memory.
    unsafe { read(number(cookie), buf.cast(), len) }
}

extern "C" fn write_stream(cookie: *mut c_void, buf: *const c_char, len: size_t) -> ssize_t {
    write_all(number(cookie), buf, len)
}

extern "C" fn seek_stream(_: *mut c_void, _: *mut off64_t, _: c_int) -> c_int {
    errno::fail(libc::ESPIPE)
}

extern "C" fn close_stream(cookie: *mut c_void) -> c_int {
    // SAFETY: the number is the stream's, which ends.
    unsafe { close(number(cookie)) }
}

/// Writes, with as many calls as it takes. What was written before an error counts.
fn write_all(fd: c_int, buf: *const c_char, len: size_t) -> ssize_t {
    let mut done = 0;
    while done < len {
        // SAFETY: within the memory that the C library has given us.
        let n = unsafe { write(fd, buf.wrapping_add(done).cast(), len - done) };
        match usize::try_from(n) {
            Ok(n) => done += n,
            Err(_) => break,
        }
    }
    ssize_t::try_from(done).unwrap_or(ssize_t::MAX)
}

/// True for modes that begin as they must.
fn is_mode(mode: *const c_char) -> bool {
    // SAFETY: the program gives us a string.
    !mode.is_null() && matches!(unsafe { CStr::from_ptr(mode) }.to_bytes().first(), Some(b'r' | b'w' | b'a'))
}

hook! {
    /// `fdopen`
    fn fdopen(fd: c_int, mode: *const c_char) -> *mut FILE, real => {
        let is_ours = table::stream(fd).is_some_and(|stream| !stream.raw.stays());
        if !is_ours || !is_mode(mode) {
            return real(fd, mode);
        }
        let functions =
            Functions { read: read_stream, write: write_stream, seek: seek_stream, close: close_stream };
        // SAFETY: the functions take what they are promised, and the cookie is a number.
        let file = unsafe { fopencookie(cookie(fd), mode, functions) };
        if !file.is_null() {
            // SAFETY: it was just made, and nobody else has it.
            unsafe { smcd_set_number(file, fd) };
        }
        file
    }
}

/// A list of arguments, which is passed by its address wherever we run.
type Arguments = *mut c_void;

unsafe extern "C" {
    fn vasprintf(text: *mut *mut c_char, format: *const c_char, arguments: Arguments) -> c_int;
    fn __vasprintf_chk(
        text: *mut *mut c_char,
        flag: c_int,
        format: *const c_char,
        arguments: Arguments,
    ) -> c_int;
}

/// Prints to a connection: all of it, or an error.
fn print(fd: c_int, format: impl FnOnce(*mut *mut c_char) -> c_int) -> c_int {
    let mut text = std::ptr::null_mut();
    let len = format(&raw mut text);
    let Ok(wanted) = usize::try_from(len) else { return len };
    let written = write_all(fd, text, wanted);
    let error = errno::get();
    // SAFETY: `vasprintf` has made it, and it is used no more.
    unsafe { libc::free(text.cast()) };
    if usize::try_from(written) == Ok(wanted) { len } else { errno::fail(error) }
}

hook! {
    /// `vdprintf`
    fn vdprintf(fd: c_int, format: *const c_char, arguments: Arguments) -> c_int, real => {
        if table::stream(fd).is_none() {
            return real(fd, format, arguments);
        }
        // SAFETY: as the program calls it.
        print(fd, |text| unsafe { vasprintf(text, format, arguments) })
    }
}

hook! {
    /// `vdprintf`, fortified
    fn __vdprintf_chk(fd: c_int, flag: c_int, format: *const c_char, arguments: Arguments) -> c_int, real => {
        if table::stream(fd).is_none() {
            return real(fd, flag, format, arguments);
        }
        // SAFETY: as the program calls it.
        print(fd, |text| unsafe { __vasprintf_chk(text, flag, format, arguments) })
    }
}

jump! {
    /// `dprintf`
    dprintf => smcd_dprintf
}

jump! {
    /// `dprintf`, fortified
    __dprintf_chk => smcd_dprintf_chk
}
