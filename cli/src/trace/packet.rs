//! A CDC message as it stands in a capture file, with link type USER0 (147).
//!
//! A header of 64 bytes, numbers in network byte order, then the 32 bytes of the CDC message as they stand in the
//! memory of the peer, numbers in the byte order of the host:
//!
//! ```text
//!  0  version: 1
//!  1  flags: 0x01 the producer cursor was published, 0x02 the consumer cursor and the flags were,
//!     0x04 the producer cursor is known, 0x08 the consumer cursor and the flags are; what is not known is zero
//!  2  bytes before the message: 64
//!  4  process that sends the message
//!  8  cookie of its socket
//! 16  its address, as one of IPv6
//! 32  the address of the peer
//! 48  its port
//! 50  the port of the peer
//! 52  byte order of the message: 1 little-endian, 2 big-endian
//! 53  zeros
//! 56  bytes of the ring that the sender reads from
//! 60  bytes of the ring that it writes to
//! 64  CDC message
//! ```

use std::net::IpAddr;

use smcd::observe::CdcEvent;

/// Bytes before the message.
const HEADER: usize = 64;

const VERSION: u8 = 1;

/// The packet of a message.
pub(super) fn packet(pid: u32, event: &CdcEvent) -> [u8; HEADER + 32] {
    let mut packet = [0; HEADER + 32];
    let mut set = |at: usize, bytes: &[u8]| packet[at..at + bytes.len()].copy_from_slice(bytes);
    let flag = |bit: u8, is_set: bool| if is_set { bit } else { 0 };
    let flags = flag(1, event.has_prod)
        | flag(2, event.has_cons)
        | flag(4, event.knows_prod)
        | flag(8, event.knows_cons);
    set(0, &[VERSION, flags]);
    set(2, &(HEADER as u16).to_be_bytes());
    set(4, &pid.to_be_bytes());
    set(8, &event.cookie.to_be_bytes());
    set(16, &octets(event.local.ip()));
    set(32, &octets(event.peer.ip()));
    set(48, &event.local.port().to_be_bytes());
    set(50, &event.peer.port().to_be_bytes());
    set(52, &[if cfg!(target_endian = "little") { 1 } else { 2 }]);
    set(56, &event.receive_buffer.to_be_bytes());
    set(60, &event.send_buffer.to_be_bytes());
    set(HEADER, &event.cdc);
    packet
}

fn octets(ip: IpAddr) -> [u8; 16] {
    match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped().octets(),
        IpAddr::V6(ip) => ip.octets(),
    }
}
