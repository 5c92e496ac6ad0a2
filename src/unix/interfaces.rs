//! Which addresses the network interfaces have.
#![allow(unsafe_code)]

use std::{
    ffi::CStr,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    os::fd::AsFd,
    ptr,
};

use rustix::net::{AddressFamily, SocketFlags, SocketType, connect, getsockname, socket_with};

/// An address of a network interface.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct InterfaceAddress {
    pub(crate) interface: String,
    pub(crate) addr: IpAddr,
    /// Bits of its subnet.
    pub(crate) prefix: u8,
}

/// The addresses of all network interfaces.
///
/// # Errors
/// The system's.
pub(crate) fn addresses() -> io::Result<Vec<InterfaceAddress>> {
    let mut list = ptr::null_mut();
    // SAFETY: `list` is where the result is to go.
    if unsafe { libc::getifaddrs(&raw mut list) } != 0 {
        return Err(io::Error::last_os_error());
    }
    let (mut found, mut next) = (Vec::new(), list.cast_const());
    // SAFETY: `next` is null or an element of the list, which is not freed before the end of this function, and which
    // nobody else knows. Names end with a zero; addresses and masks are null or of the length of their family.
    while let Some(element) = unsafe { next.as_ref() } {
        next = element.ifa_next;
        // SAFETY: as above.
        let of = unsafe { (ip(element.ifa_addr), ip(element.ifa_netmask), CStr::from_ptr(element.ifa_name)) };
        if let (Some(addr), Some(mask), name) = of {
            let interface = name.to_string_lossy().into_owned();
            found.push(InterfaceAddress { interface, addr, prefix: ones(mask) });
        }
    }
    // SAFETY: the list is that of `getifaddrs`, and nothing points into it any more.
    unsafe { libc::freeifaddrs(list) };
    Ok(found)
}

/// The address of this end of a socket.
pub(crate) fn local_ip(socket: impl AsFd) -> Option<IpAddr> {
    SocketAddr::try_from(getsockname(socket).ok()?).ok().map(|addr| addr.ip())
}

/// The address from which the system would connect to this one.
pub(crate) fn local_ip_to(peer: IpAddr) -> Option<IpAddr> {
    let family = if peer.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let socket = socket_with(family, SocketType::DGRAM, SocketFlags::CLOEXEC, None).ok()?;
    // Sends nothing. Any port will do.
    connect(&socket, &SocketAddr::new(peer, 9)).ok()?;
    local_ip(&socket)
}

/// The address, if it is one of IP.
///
/// # Safety
/// `at` is null, or points to an address of a socket that has the length of its family.
unsafe fn ip(at: *const libc::sockaddr) -> Option<IpAddr> {
    // SAFETY: promised by the caller. The address may lie anywhere, so it is read without a reference.
    unsafe {
        if at.is_null() {
            return None;
        }
        match i32::from(ptr::read_unaligned(&raw const (*at).sa_family)) {
            libc::AF_INET => {
                let inet = ptr::read_unaligned(at.cast::<libc::sockaddr_in>());
                Some(IpAddr::V4(Ipv4Addr::from(inet.sin_addr.s_addr.to_ne_bytes())))
            }
            libc::AF_INET6 => {
                let inet = ptr::read_unaligned(at.cast::<libc::sockaddr_in6>());
                Some(IpAddr::V6(Ipv6Addr::from(inet.sin6_addr.s6_addr)))
            }
            _ => None,
        }
    }
}

/// Bits that are set from the first on. At most 128.
fn ones(mask: IpAddr) -> u8 {
    match mask {
        IpAddr::V4(mask) => mask.to_bits().leading_ones() as u8,
        IpAddr::V6(mask) => mask.to_bits().leading_ones() as u8,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loopback_interface_is_there() {
        let expected =
            InterfaceAddress { interface: "lo".to_owned(), addr: Ipv4Addr::LOCALHOST.into(), prefix: 8 };
        assert!(addresses().unwrap().contains(&expected));
    }

    #[test]
    fn routes_begin_somewhere() {
        let localhost = Ipv4Addr::LOCALHOST.into();
        assert_eq!(local_ip_to(Ipv4Addr::new(127, 0, 0, 9).into()), Some(localhost));
        assert_eq!(local_ip_to(Ipv4Addr::BROADCAST.into()), None);
    }
}
