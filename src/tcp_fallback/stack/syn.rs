//! The SMC option in SYN segments: found in a frame, written into one, taken out of one. No I/O, and total: any bytes
//! give an answer.
//!
//! The option is experimental (RFC 6994): kind 254, and "SMCR" in EBCDIC for all kinds of SMC. It counts only in
//! segments with the SYN flag.

use std::net::{IpAddr, SocketAddr};

use smoltcp::{
    phy::Medium,
    wire::{EthernetFrame, EthernetProtocol, IpAddress, IpProtocol, Ipv4Packet, Ipv6Packet, TcpPacket},
};

/// The option as it is written: two bytes of padding keep what follows aligned.
pub const OPTION: [u8; 8] = [NOP, NOP, KIND, 6, 0xe2, 0xd4, 0xc3, 0xd9];

const END: u8 = 0;
const NOP: u8 = 1;
const KIND: u8 = 254;
const MAGIC: [u8; 4] = [0xe2, 0xd4, 0xc3, 0xd9];

/// A TCP header without options, and with as many as there can be.
const TCP_HEADER: usize = 20;
const TCP_HEADER_MAX: usize = 60;

/// The longest frame that can hold a SYN without data.
pub(super) const SYN_FRAME_MAX: usize = 14 + 40 + TCP_HEADER_MAX;

/// What a SYN or SYN-ACK says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Syn {
    /// Who sent it.
    pub source: SocketAddr,
    /// Who is to get it.
    pub destination: SocketAddr,
    /// Its sequence number.
    pub seq: u32,
    /// The number acknowledged; `None` in a SYN, and there in a SYN-ACK.
    pub ack: Option<u32>,
    /// It has the SMC option.
    pub has_option: bool,
}

impl Syn {
    /// Reads the SYN in this frame; `None` if it holds none, or one whose checksum is wrong.
    pub fn read(frame: &[u8], medium: Medium) -> Option<Self> {
        let place = Place::of_syn(frame, medium)?;
        let tcp = place.segment(frame)?;
        if !tcp.verify_checksum(&place.source, &place.destination) {
            return None;
        }
        let bits = |number: i32| number.cast_unsigned();
        Some(Self {
            source: SocketAddr::new(IpAddr::from(place.source), tcp.src_port()),
            destination: SocketAddr::new(IpAddr::from(place.destination), tcp.dst_port()),
            seq: bits(tcp.seq_number().0),
            ack: tcp.ack().then(|| bits(tcp.ack_number().0)),
            has_option: is_among(tcp.options()),
        })
    }
}

/// True if the SMC option is among these options of a SYN, by the rule of Linux: kind 254, an even length of at least
/// 6, and the magic number at its start.
pub fn is_among(options: &[u8]) -> bool {
    find(options).is_some()
}

/// Where the option begins.
fn find(options: &[u8]) -> Option<usize> {
    let mut at = 0;
    loop {
        match *options.get(at..)? {
            [] | [END, ..] => return None,
            [NOP, ..] => at += 1,
            [KIND, len, a, b, c, d, ..] if len >= 6 && len % 2 == 0 && [a, b, c, d] == MAGIC => {
                return options.get(at..at + usize::from(len)).map(|_| at);
            }
            [_, len, ..] if len >= 2 => at += usize::from(len),
            // An option that says it is shorter than its own header: nothing behind it can be told.
            _ => return None,
        }
    }
}

/// The frame with the option in its SYN.
///
/// `None` if it is to stay as it is: it holds no SYN, has the option already, has no room for it among its options, or
/// would be longer than `mtu` (of the frame). The option goes first, as behind the last one may be the mark that ends
/// the list. The announced MSS stays: options are not part of it.
pub fn with_option(frame: &[u8], medium: Medium, mtu: usize) -> Option<Vec<u8>> {
    let place = Place::of_syn(frame, medium)?;
    let tcp = place.segment(frame)?;
    let header_len = usize::from(tcp.header_len()) + OPTION.len();
    let len = place.end + OPTION.len();
    if is_among(tcp.options()) || header_len > TCP_HEADER_MAX || len > mtu {
        return None;
    }
    let (before, after) = frame.get(..place.end)?.split_at_checked(place.tcp + TCP_HEADER)?;
    let mut longer = [before, &OPTION, after].concat();
    place.set_ip_len(&mut longer)?;
    let mut tcp = TcpPacket::new_unchecked(longer.get_mut(place.tcp..)?);
    tcp.set_header_len(u8::try_from(header_len).ok()?);
    tcp.fill_checksum(&place.source, &place.destination);
    Some(longer)
}

/// The frame with padding in place of the option, as a middlebox would have it. `None` if it has none.
pub fn without_option(frame: &[u8], medium: Medium) -> Option<Vec<u8>> {
    let place = Place::of_syn(frame, medium)?;
    let at = place.tcp + TCP_HEADER + find(place.segment(frame)?.options())?;
    let mut stripped = frame.to_vec();
    let len = usize::from(*stripped.get(at + 1)?);
    stripped.get_mut(at..at + len)?.fill(NOP);
    let mut tcp = TcpPacket::new_unchecked(stripped.get_mut(place.tcp..place.end)?);
    tcp.fill_checksum(&place.source, &place.destination);
    Some(stripped)
}

/// Where a TCP segment lies in a frame.
struct Place {
    ip: usize,
    tcp: usize,
    end: usize,
    source: IpAddress,
    destination: IpAddress,
}

impl Place {
    /// Of the SYN in this frame. A segment in fragments, or behind IPv6 extension headers, is not looked for: no stack
    /// sends a SYN so.
    fn of_syn(frame: &[u8], medium: Medium) -> Option<Self> {
        let place = if medium == Medium::Ethernet {
            let ethernet = EthernetFrame::new_checked(frame).ok()?;
            let is_ip = matches!(ethernet.ethertype(), EthernetProtocol::Ipv4 | EthernetProtocol::Ipv6);
            let header = EthernetFrame::<&[u8]>::header_len();
            is_ip.then(|| Self::behind(frame, header)).flatten()?
        } else {
            Self::behind(frame, 0)?
        };
        place.segment(frame)?.syn().then_some(place)
    }

    fn behind(frame: &[u8], ip: usize) -> Option<Self> {
        let packet = frame.get(ip..)?;
        match packet.first()? >> 4 {
            4 => {
                let v4 = Ipv4Packet::new_checked(packet).ok()?;
                let whole = !v4.more_frags() && v4.frag_offset() == 0;
                (v4.next_header() == IpProtocol::Tcp && whole).then(|| Self {
                    ip,
                    tcp: ip + usize::from(v4.header_len()),
                    end: ip + usize::from(v4.total_len()),
                    source: v4.src_addr().into(),
                    destination: v4.dst_addr().into(),
                })
            }
            6 => {
                let v6 = Ipv6Packet::new_checked(packet).ok()?;
                (v6.next_header() == IpProtocol::Tcp).then(|| Self {
                    ip,
                    tcp: ip + v6.header_len(),
                    end: ip + v6.total_len(),
                    source: v6.src_addr().into(),
                    destination: v6.dst_addr().into(),
                })
            }
            _ => None,
        }
    }

    fn segment<'a>(&self, frame: &'a [u8]) -> Option<TcpPacket<&'a [u8]>> {
        TcpPacket::new_checked(frame.get(self.tcp..self.end)?).ok()
    }

    /// Makes the IP header of a packet that ends with `frame` say so.
    fn set_ip_len(&self, frame: &mut [u8]) -> Option<()> {
        let packet = frame.get_mut(self.ip..)?;
        match self.source {
            IpAddress::Ipv4(_) => {
                let len = u16::try_from(packet.len()).ok()?;
                let mut v4 = Ipv4Packet::new_unchecked(packet);
                v4.set_total_len(len);
                v4.fill_checksum();
            }
            IpAddress::Ipv6(_) => {
                let len = u16::try_from(packet.len().checked_sub(self.tcp - self.ip)?).ok()?;
                Ipv6Packet::new_unchecked(packet).set_payload_len(len);
            }
        }
        Some(())
    }
}

#[cfg(test)]
mod tests;
