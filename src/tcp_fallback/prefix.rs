//! Prefixes of IP addresses.

use std::{fmt, net::IpAddr, str::FromStr};

/// All IP addresses that begin with the same bits, as `10.0.0.0/8` or `fd00::/8`.
///
/// An IPv4 address that is written as an IPv6 one (`::ffff:10.0.0.1`) counts as the IPv4 address.
///
/// # Examples
///
/// ```
/// use smcd::tcp_fallback::IpPrefix;
///
/// let prefix: IpPrefix = "10.0.0.0/8".parse().unwrap();
/// assert!(prefix.contains("10.1.2.3".parse().unwrap()));
/// assert!(!prefix.contains("11.1.2.3".parse().unwrap()));
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct IpPrefix {
    /// Without the bits behind the prefix.
    address: IpAddr,
    length: u8,
}

/// A text or pair of values that is no prefix.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("not a prefix of IP addresses such as 10.0.0.0/8 or fd00::/8")]
pub struct InvalidPrefix;

impl IpPrefix {
    /// The first `length` bits of this address; the others do not matter.
    ///
    /// # Errors
    /// If the address has fewer bits.
    pub fn new(address: IpAddr, length: u8) -> Result<Self, InvalidPrefix> {
        let (_, bits) = bits_of(address);
        if length > bits {
            return Err(InvalidPrefix);
        }
        Ok(Self { address: masked(address, length), length })
    }

    /// True if the address begins with these bits.
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        address.is_ipv4() == self.address.is_ipv4() && masked(address, self.length) == self.address
    }
}

/// The bits of an address, behind zeroes, and how many they are.
fn bits_of(address: IpAddr) -> (u128, u8) {
    match address {
        IpAddr::V4(address) => (u128::from(address.to_bits()), 32),
        IpAddr::V6(address) => (address.to_bits(), 128),
    }
}

fn masked(address: IpAddr, length: u8) -> IpAddr {
    let keep = |bits: u8| u128::MAX.checked_shl(u32::from(bits.saturating_sub(length))).unwrap_or(0);
    match address {
        IpAddr::V4(v4) => IpAddr::V4((v4.to_bits() & keep(32) as u32).into()),
        IpAddr::V6(v6) => IpAddr::V6((v6.to_bits() & keep(128)).into()),
    }
}

/// A single address is a prefix of all its bits.
impl FromStr for IpPrefix {
    type Err = InvalidPrefix;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (address, length) = match text.split_once('/') {
            Some((address, length)) => (address, Some(length)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| InvalidPrefix)?;
        let length = match length {
            // Digits alone: no sign, which `parse` would take.
            Some(digits) if digits.bytes().all(|digit| digit.is_ascii_digit()) => {
                digits.parse().map_err(|_| InvalidPrefix)?
            }
            Some(_) => return Err(InvalidPrefix),
            None => bits_of(address).1,
        };
        Self::new(address, length)
    }
}

impl fmt::Display for IpPrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn contains(prefix: &str, address: &str) -> bool {
        prefix.parse::<IpPrefix>().unwrap().contains(address.parse().unwrap())
    }

    #[test]
    fn addresses_of_a_prefix() {
        assert!(contains("10.0.0.0/8", "10.255.0.1"));
        assert!(!contains("10.0.0.0/8", "11.0.0.1"));
        assert!(contains("10.9.8.7/8", "10.255.0.1"), "what is behind the prefix does not matter");
        assert!(contains("0.0.0.0/0", "1.2.3.4") && contains("::/0", "2001:db8::1"));
        assert!(!contains("0.0.0.0/0", "::1") && !contains("::/0", "1.2.3.4"));
        assert!(contains("192.0.2.1", "192.0.2.1") && !contains("192.0.2.1", "192.0.2.2"));
        assert!(contains("fd00::/8", "fdff::1") && !contains("fd00::/8", "fe00::1"));
        assert!(contains("10.0.0.0/8", "::ffff:10.0.0.1"), "as a socket for both families has it");
    }

    #[test]
    fn what_is_no_prefix() {
        for text in ["", "/", "10.0.0.0/", "10.0.0.0/33", "::/129", "10.0.0.0/+8", "10/8", "::/256", "a/8"] {
            assert_eq!(text.parse::<IpPrefix>(), Err(InvalidPrefix), "{text}");
        }
    }

    proptest! {
        #[test]
        fn text_gives_the_prefix_again(bits: u128, length in 0..=128u8) {
            let prefix = IpPrefix::new(IpAddr::V6(bits.into()), length).unwrap();
            prop_assert_eq!(prefix.to_string().parse(), Ok(prefix));
        }

        #[test]
        fn an_address_is_in_each_of_its_prefixes(bits: u32, length in 0..=32u8) {
            let address = IpAddr::V4(bits.into());
            prop_assert!(IpPrefix::new(address, length).unwrap().contains(address));
        }

        #[test]
        fn any_text_is_taken_or_refused(text: String) {
            let _ = text.parse::<IpPrefix>();
        }
    }
}
