//! The hostname of the first contact extension.

use std::{fmt, str::FromStr};

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

const LEN: usize = 32;

/// A hostname as it is on the wire: 32 bytes, ASCII, padded with blanks. Informational only.
#[derive(Clone, Copy, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(transparent)]
pub struct Hostname([u8; LEN]);

/// The name has characters outside ASCII.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("byte {byte:#04x} at index {index} is not ASCII")]
pub struct NonAsciiHostname {
    /// Index of the byte.
    pub index: usize,
    /// The byte.
    pub byte: u8,
}

impl Hostname {
    /// No name: blanks only.
    pub const BLANK: Self = Self([b' '; LEN]);

    /// The name with these bytes.
    pub const fn from_bytes(bytes: [u8; LEN]) -> Self {
        Self(bytes)
    }

    /// The bytes on the wire.
    pub const fn as_bytes(&self) -> &[u8; LEN] {
        &self.0
    }

    /// True if all 32 bytes are ASCII; Linux 7.3 keeps the name of a peer only then.
    pub const fn is_ascii(&self) -> bool {
        self.0.is_ascii()
    }
}

/// Takes the first 32 bytes of the name.
impl FromStr for Hostname {
    type Err = NonAsciiHostname;

    fn from_str(name: &str) -> Result<Self, NonAsciiHostname> {
        let mut bytes = [b' '; LEN];
        for (index, (to, byte)) in bytes.iter_mut().zip(name.bytes()).enumerate() {
            if !byte.is_ascii() {
                return Err(NonAsciiHostname { index, byte });
            }
            *to = byte;
        }
        Ok(Self(bytes))
    }
}

/// Writes the name without its padding; bytes that are not printable ASCII are escaped.
impl fmt::Display for Hostname {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.trim_ascii_end().escape_ascii().fmt(f)
    }
}

impl fmt::Debug for Hostname {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Hostname({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_names_are_cut() {
        let name: Hostname = "a-host-whose-name-is-longer-than-32-characters".parse().unwrap();
        assert_eq!(name.as_bytes(), b"a-host-whose-name-is-longer-than");
    }

    #[test]
    fn short_names_are_padded() {
        let name: Hostname = "host".parse().unwrap();
        assert_eq!(name.as_bytes(), b"host                            ");
        assert_eq!(name.to_string(), "host");
        assert_eq!("".parse(), Ok(Hostname::BLANK));
    }

    #[test]
    fn only_ascii() {
        assert_eq!("hö".parse::<Hostname>(), Err(NonAsciiHostname { index: 1, byte: 0xc3 }));
        assert!(!Hostname::from_bytes([0x80; 32]).is_ascii());
    }
}
