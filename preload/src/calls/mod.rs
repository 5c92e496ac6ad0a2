//! The functions that take the place of those of the C library, by what they do.

mod bare;
mod epoll;
mod exec;
mod life;
mod move_bytes;
mod numbers;
mod options;
mod poll;
mod read;
mod rights;
mod stdio;
mod variadic;
mod write;

use libc::ssize_t;

use crate::{errno, stream::Stream};

/// Does something by the rings. `errno` changes only if it fails.
fn by_rings(work: impl FnOnce() -> std::io::Result<usize>) -> ssize_t {
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
fn settle_read(stream: &std::sync::Arc<Stream>, bytes: usize) {
    errno::quietly(|| stream.was_read(bytes));
}
