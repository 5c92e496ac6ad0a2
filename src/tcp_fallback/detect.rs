//! Whether the first bytes of a TCP connection are CLC, found out without taking them.

#[cfg(feature = "tokio")]
mod tokio;

use std::{io, os::fd::AsFd};

use rustix::net::{RecvFlags, recv};

#[cfg(feature = "tokio")]
pub(crate) use self::tokio::{Peek, first_bytes};
use crate::clc::wire::Eyecatcher;

const LEN: usize = 4;

/// What the first bytes of a connection are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum First {
    /// A CLC message begins.
    Clc,
    /// Data of the application, or the end.
    Data,
    /// Nothing has come.
    Silence,
}

/// A client's Proposal came after it had been taken for a plain TCP client.
#[derive(Debug, thiserror::Error)]
#[error("the client's CLC Proposal came too late")]
pub(crate) struct LateProposal;

/// Makes sure, before the first byte of a client that was silent for too long is read as data, that it is data: an SMC
/// client whose Proposal came too late would otherwise be taken for an application that speaks gibberish.
///
/// # Errors
/// `WouldBlock` if nothing has come; `InvalidData` if it is CLC.
pub(crate) fn check_late(tcp: impl AsFd) -> io::Result<()> {
    judge_late(look(tcp, judge)?)
}

/// As [`check_late`], of bytes that were [judged](judge). What is too short to be told apart is data: its sender may be
/// waiting for an answer.
pub(crate) fn judge_late(first: Option<First>) -> io::Result<()> {
    match first {
        Some(First::Clc) => Err(io::Error::new(io::ErrorKind::InvalidData, LateProposal)),
        _ => Ok(()),
    }
}

/// Looks at the first bytes. `WouldBlock` if there are none.
pub(crate) fn look<T>(tcp: impl AsFd, judge: impl FnOnce(&[u8]) -> Option<T>) -> io::Result<Option<T>> {
    let mut bytes = [0; LEN];
    let (n, _) = recv(tcp, &mut bytes, RecvFlags::PEEK | RecvFlags::DONTWAIT)?;
    Ok(judge(bytes.get(..n).unwrap_or(&bytes)))
}

/// What these bytes are. `None` if they may become an eyecatcher.
pub(crate) fn judge(bytes: &[u8]) -> Option<First> {
    let starts = |e: Eyecatcher| e.to_bytes().starts_with(bytes);
    if bytes.is_empty() || !(starts(Eyecatcher::Smcr) || starts(Eyecatcher::Smcd)) {
        Some(First::Data)
    } else {
        (bytes.len() == LEN).then_some(First::Clc)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn eyecatchers_and_their_beginnings() {
        assert_eq!(judge(&[0xe2, 0xd4, 0xc3, 0xd9]), Some(First::Clc));
        assert_eq!(judge(&[0xe2, 0xd4, 0xc3, 0xc4]), Some(First::Clc));
        assert_eq!(judge(&[0xe2, 0xd4, 0xc3]), None);
        assert_eq!(judge(&[0xe2]), None);
        assert_eq!(judge(b"GET "), Some(First::Data));
        assert_eq!(judge(&[0xe2, 0xd4, 0xc3, 0xc5]), Some(First::Data));
        assert_eq!(judge(&[]), Some(First::Data), "the end");
    }
}
