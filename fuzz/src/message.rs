//! One message of each kind.

use smcd::clc::wire::{Assembler, Eyecatcher, HEADER_LEN, Message, TRAILER_LEN, announced_len};

/// A Proposal of either version.
pub fn proposal(data: &[u8]) {
    of_kind(1, data);
}

/// An Accept of either version and flavour.
pub fn accept(data: &[u8]) {
    of_kind(2, data);
}

/// A Confirm of either version and flavour.
pub fn confirm(data: &[u8]) {
    of_kind(3, data);
}

/// A Decline of either version.
pub fn decline(data: &[u8]) {
    of_kind(4, data);
}

/// A first contact extension, in an Accept of the server and in a Confirm of the client. The first byte has the version.
pub fn first_contact(data: &[u8]) {
    const EXTENSION_AT: usize = 74;
    let Some((version, extension)) = data.split_first() else { return };
    for kind in [2, 3] {
        let mut bytes = vec![0; EXTENSION_AT];
        bytes[7] = version & 0xf0 | 0x09;
        bytes.extend(extension);
        bytes.extend([0; TRAILER_LEN]);
        of_kind(kind, &bytes);
    }
}

/// Parses the bytes as they are but for the kind, and again with a right frame around them: otherwise few would get past
/// the header.
fn of_kind(kind: u8, data: &[u8]) {
    let mut bytes = data.to_vec();
    if let Some(of) = bytes.get_mut(4) {
        *of = kind;
    }
    parse(&bytes);
    frame(&mut bytes);
    parse(&bytes);
}

/// Makes eyecatchers and length right.
fn frame(bytes: &mut [u8]) {
    let len = bytes.len();
    if len < HEADER_LEN + TRAILER_LEN {
        return;
    }
    bytes[..4].copy_from_slice(&Eyecatcher::Smcd.to_bytes());
    bytes[5..7].copy_from_slice(&(len as u16).to_be_bytes());
    bytes[len - TRAILER_LEN..].copy_from_slice(&Eyecatcher::Smcr.to_bytes());
}

/// False for a Proposal without version 1 whose GID ends as no count of prefixes does. Linux takes that byte for one if
/// the prefixes are said to be where we say they are; elsewhere, any offset will do.
fn can_be_sent(message: &Message) -> bool {
    match message {
        Message::Proposal(proposal) if proposal.v1.is_none() => {
            proposal.smcd.is_none_or(|area| area.gid & 0xff <= 8)
        }
        _ => true,
    }
}

/// What parses can be emitted, and parses to the same again; from a stream it is taken to the byte.
fn parse(bytes: &[u8]) {
    let parsed = Message::parse(bytes);
    if let Ok(message) = &parsed
        && can_be_sent(message)
    {
        let again = message.to_bytes();
        assert_eq!(again.len(), message.wire_len());
        assert_eq!(Message::parse(&again).as_ref(), Ok(message));
    }
    let (mut assembler, mut rest) = (Assembler::new(), bytes);
    while assembler.missing() > 0 && !rest.is_empty() {
        let (taken, tail) = rest.split_at(assembler.missing().min(rest.len()));
        rest = tail;
        match assembler.push(taken) {
            Ok(None) => {}
            Ok(Some(message)) => {
                let len = announced_len(bytes.first_chunk().unwrap()).unwrap();
                assert_eq!(bytes.len() - rest.len(), len);
                if len == bytes.len() {
                    assert_eq!(Ok(message), parsed);
                }
                return;
            }
            Err(_) => return,
        }
    }
}
