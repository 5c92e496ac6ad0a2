//! The functions that take the place of those of the C library, by what they do.

mod bare;
mod epoll;
mod exec;
mod life;
mod move_bytes;
mod numbers;
mod option;
mod options;
mod poll;
mod read;
mod rights;
mod stdio;
mod variadic;
mod write;

use std::{io, sync::Arc};

use libc::{c_int, ssize_t};
use smcd::raw::Patience;

use crate::{
    errno,
    stream::{Stream, Way},
};

/// Which way a read goes. Where a handshake comes first, the call waits for its end as it would for data.
///
/// # Errors
/// As for the read.
fn way_in(stream: &Arc<Stream>, flags: c_int) -> io::Result<Way> {
    way(stream, Stream::way_in, || stream.patience_in(flags))
}

/// As [`way_in`], for a write.
///
/// # Errors
/// As for the write.
fn way_out(stream: &Arc<Stream>, flags: c_int) -> io::Result<Way> {
    way(stream, Stream::way_out, || stream.patience_out(flags))
}

fn way(
    stream: &Arc<Stream>,
    now: impl Fn(&Arc<Stream>) -> Way,
    patience: impl Fn() -> Patience,
) -> io::Result<Way> {
    let found = errno::quietly(|| {
        loop {
            match now(stream) {
                // What has come of it, the next look tells.
                Way::Unsettled => drop(stream.settle(patience())?),
                way => return Ok(way),
            }
        }
    });
    found.unwrap_or(Ok(Way::Kernel))
}

/// Does something by the rings. `errno` changes only if it fails.
fn by_rings(work: impl FnOnce() -> io::Result<usize>) -> ssize_t {
    let before = errno::get();
    match std::panic::catch_unwind(std::panic::AssertUnwindSafe(work)) {
        Ok(result @ Ok(_)) => {
            errno::set(before);
            errno::bytes(result)
        }
        Ok(result) => errno::bytes(result),
        // A bug of ours. What it has done to the connection is not known, so it counts as broken.
        Err(_) => {
            errno::set(libc::ECONNRESET);
            -1
        }
    }
}

/// Bytes that a call has moved, by its result.
fn moved(result: ssize_t) -> usize {
    usize::try_from(result).unwrap_or(0)
}

/// Settles a read that the kernel has done.
fn settle_read(stream: &Arc<Stream>, bytes: usize) {
    errno::quietly(|| stream.was_read(bytes));
}
