//! Takes exactly one message off a byte stream.

use super::{DecodeError, HEADER_LEN, Header, Message};

/// Puts one message together from the bytes of a stream, and never asks for a byte after it.
///
/// Read at most [`Assembler::missing`] bytes, hand them to [`Assembler::push`], and repeat until it gives the
/// message. The next byte of the stream then belongs to whatever comes next.
///
/// ```
/// use smcd::clc::wire::{Assembler, Decline, Message, Version};
/// use smcd::clc::DeclineCode;
/// use std::io::Read;
///
/// let decline = Message::from(Decline::new(Version::V2, DeclineCode::NO_UEID));
/// let stream = [decline.to_bytes(), b"hello".to_vec()].concat();
/// let mut stream = stream.as_slice();
///
/// let mut assembler = Assembler::new();
/// let message = loop {
///     let mut buf = vec![0; assembler.missing()];
///     let n = stream.read(&mut buf)?;
///     if let Some(message) = assembler.push(&buf[..n])? {
///         break message;
///     }
/// };
/// assert_eq!(message, decline);
/// assert_eq!(stream, b"hello");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Default)]
pub struct Assembler {
    kept: Vec<u8>,
    header: Option<Header>,
    /// Bytes taken off the stream, kept or not.
    taken: usize,
}

impl Assembler {
    /// The most bytes it asks for at once; enough for every message that is kept whole.
    pub const MAX_READ: usize = super::PROPOSAL_MAX;

    /// An assembler that has seen nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Bytes taken off the stream so far. Zero tells a peer that closed the connection from one that stopped in
    /// the middle of a message.
    pub fn taken(&self) -> usize {
        self.taken
    }

    /// How many bytes to read next: from 1 to [`Assembler::MAX_READ`]; 0 once the message is complete.
    pub fn missing(&self) -> usize {
        let end = self.header.map_or(HEADER_LEN, |header| header.length());
        end.saturating_sub(self.taken).min(Self::MAX_READ)
    }

    /// Takes bytes off the stream: at most [`Assembler::missing`]. Gives the message once it is complete.
    ///
    /// # Errors
    ///
    /// [`DecodeError`] as soon as the bytes are known not to be a message. Bytes beyond the ones asked for are
    /// [`DecodeError::Incomplete`].
    pub fn push(&mut self, bytes: &[u8]) -> Result<Option<Message>, DecodeError> {
        if bytes.len() > self.missing() {
            let given = self.taken.saturating_add(bytes.len());
            return Err(DecodeError::Incomplete { announced: self.taken + self.missing(), given });
        }
        self.taken += bytes.len();
        // Until the header is there, every byte is kept.
        let room = self.header.map_or(HEADER_LEN, |header| header.kept_len()).saturating_sub(self.kept.len());
        self.kept.extend(bytes.iter().take(room));
        if self.header.is_none() {
            self.header = self.kept.first_chunk().map(Header::parse).transpose()?;
        }
        match self.header {
            Some(header) if self.taken == header.length() => Message::parse(&self.kept).map(Some),
            _ => Ok(None),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clc::{
        DeclineCode,
        wire::{Decline, Version},
    };

    fn assemble(stream: &mut &[u8], step: usize) -> Result<Message, DecodeError> {
        let mut assembler = Assembler::new();
        loop {
            let n = assembler.missing().min(step).min(stream.len());
            assert_ne!(n, 0, "asks for nothing, or the stream ended");
            let (bytes, rest) = stream.split_at(n);
            *stream = rest;
            if let Some(message) = assembler.push(bytes)? {
                assert_eq!(assembler.missing(), 0);
                return Ok(message);
            }
        }
    }

    #[test]
    fn byte_after_the_message_stays_in_the_stream() {
        let decline = Message::from(Decline::new(Version::V2, DeclineCode::NO_UEID));
        let bytes = [decline.to_bytes(), b"application".to_vec()].concat();
        for step in 1..60 {
            let mut stream = bytes.as_slice();
            assert_eq!(assemble(&mut stream, step), Ok(decline.clone()));
            assert_eq!(stream, b"application");
        }
    }

    #[test]
    fn tail_of_an_overlong_accept_is_dropped() {
        let mut bytes = vec![0x11; 70_000];
        bytes[..8].copy_from_slice(&[0xe2, 0xd4, 0xc3, 0xc4, 2, 0xff, 0xff, 0x21]);
        for step in [1, 7, 100, 652] {
            let mut stream = bytes.as_slice();
            let Ok(Message::Accept(accept)) = assemble(&mut stream, step) else { panic!("no Accept") };
            assert_eq!(accept.0.token.0, 0x1111_1111_1111_1111);
            assert_eq!(stream.len(), 70_000 - 0xffff);
        }
    }

    #[test]
    fn other_protocols_are_refused_after_8_bytes() {
        let mut stream = b"GET / HTTP/1.1\r\n".as_slice();
        assert_eq!(assemble(&mut stream, 100), Err(DecodeError::Eyecatcher(*b"GET ")));
        assert_eq!(stream, b"TP/1.1\r\n");
    }

    #[test]
    fn more_than_asked_for_is_refused() {
        let mut assembler = Assembler::new();
        assert_eq!(assembler.push(&[0; 9]), Err(DecodeError::Incomplete { announced: 8, given: 9 }));
    }
}
