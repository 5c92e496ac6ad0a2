//! What both ends of a TCP connection know: its addresses.

use std::{
    fmt::Write as _,
    net::{IpAddr, SocketAddr},
};

/// The addresses of a TCP connection, as one end sees them. IPv4 addresses in IPv6 form are IPv4 addresses: the two
/// ends may be of different families.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct FourTuple {
    pub(super) local: (IpAddr, u16),
    pub(super) peer: (IpAddr, u16),
}

impl FourTuple {
    pub(super) fn new(local: SocketAddr, peer: SocketAddr) -> Self {
        let canonical = |addr: SocketAddr| (addr.ip().to_canonical(), addr.port());
        Self { local: canonical(local), peer: canonical(peer) }
    }

    /// As the other end sees them.
    pub(super) fn reversed(self) -> Self {
        Self { local: self.peer, peer: self.local }
    }

    /// True if the addresses alone say that both ends are on this host, and in this network namespace.
    pub(super) fn is_loopback(&self) -> bool {
        self.local.0.is_loopback() || self.peer.0.is_loopback()
    }

    /// True if the connection is one of a socket to itself, which TCP allows.
    pub(super) fn is_to_itself(&self) -> bool {
        self.local == self.peer
    }

    /// Which end this is: 0 for that of the lower address, 1 for the other.
    pub(super) fn end(&self) -> u32 {
        u32::from(self.local > self.peer)
    }

    /// The same text at both ends: the lower address first, in hexadecimal.
    pub(super) fn text(&self) -> String {
        let (low, high) =
            if self.local <= self.peer { (self.local, self.peer) } else { (self.peer, self.local) };
        let mut text = String::with_capacity(74);
        for (ip, port) in [low, high] {
            match ip {
                IpAddr::V4(ip) => ip.octets().iter().for_each(|byte| push(&mut text, *byte)),
                IpAddr::V6(ip) => ip.octets().iter().for_each(|byte| push(&mut text, *byte)),
            }
            text.push('.');
            port.to_be_bytes().iter().for_each(|byte| push(&mut text, *byte));
            text.push('-');
        }
        text.pop();
        text
    }

    /// True if this may be such a text.
    pub(super) fn is_text(name: &[u8]) -> bool {
        let count = |wanted| name.iter().filter(|byte| **byte == wanted).count();
        count(b'.') == 2 && count(b'-') == 1 && name.iter().all(|byte| b".-0123456789abcdef".contains(byte))
    }
}

fn push(text: &mut String, byte: u8) {
    // Writing to a string does not fail.
    let _ = write!(text, "{byte:02x}");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tuple(local: &str, peer: &str) -> FourTuple {
        FourTuple::new(local.parse().unwrap(), peer.parse().unwrap())
    }

    #[test]
    fn both_ends_have_the_same_name() {
        let a = tuple("127.0.0.1:80", "127.0.0.2:40000");
        assert_eq!(a.text(), "7f000001.0050-7f000002.9c40");
        assert_eq!(a.reversed().text(), a.text());
        assert_eq!((a.end(), a.reversed().end()), (0, 1));
        assert!(FourTuple::is_text(a.text().as_bytes()));
    }

    #[test]
    fn a_mapped_address_is_an_ipv4_address() {
        let a = tuple("[::ffff:127.0.0.1]:80", "[::ffff:127.0.0.1]:81");
        assert_eq!(a, tuple("127.0.0.1:80", "127.0.0.1:81"));
        assert!(a.is_loopback());
    }

    #[test]
    fn the_longest_name_fits() {
        let far = tuple("[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:65535", "[fe80::1]:65534");
        assert_eq!(far.text().len(), 75);
        assert!(!far.is_loopback());
    }

    #[test]
    fn a_connection_to_itself() {
        assert!(tuple("127.0.0.1:80", "127.0.0.1:80").is_to_itself());
    }
}
