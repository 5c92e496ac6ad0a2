//! Moves CLC messages over a byte stream.
//!
//! # Cancel safety
//!
//! Neither function is cancel safe: dropped halfway, some bytes of a message are gone, and the stream is of no use
//! any more. The deadline is the way to give up; the stream has to be closed after it as well, unless nothing was
//! read or written yet.

use std::io;

use super::wire::{Assembler, DecodeError, Message};

#[cfg(feature = "tokio")]
mod tokio;
#[cfg(feature = "tokio")]
pub use self::tokio::{read_message, write_message};

/// Why a message could not be moved.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ExchangeError {
    /// The peer closed the stream before the first byte of the message. Linux 7.3 fails with ECONNRESET.
    #[error("the peer closed the connection in place of a message")]
    Closed,
    /// The peer closed the stream in the middle of a message. Linux 7.3 fails with EPROTO.
    #[error("the peer closed the connection after {taken} bytes of a message")]
    ClosedMidMessage {
        /// Bytes of the message that were there.
        taken: usize,
    },
    /// The deadline has passed.
    #[error("no message before the deadline; {taken} bytes of one")]
    TimedOut {
        /// Bytes of the message that were there; 0 in a write.
        taken: usize,
    },
    /// The stream failed.
    #[error("input or output")]
    Io(#[from] io::Error),
    /// The bytes are not a message. Linux 7.3 fails with EPROTO.
    #[error("not a CLC message")]
    Decode(#[from] DecodeError),
}

/// Adds what was read of a message; nothing is the end of the stream. `None` while some is missing.
pub(crate) fn take_in(assembler: &mut Assembler, read: &[u8]) -> Result<Option<Message>, ExchangeError> {
    match (read, assembler.taken()) {
        ([], 0) => Err(ExchangeError::Closed),
        ([], taken) => Err(ExchangeError::ClosedMidMessage { taken }),
        (bytes, _) => Ok(assembler.push(bytes)?),
    }
}
