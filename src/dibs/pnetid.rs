//! Names of physical networks.

use std::{fmt, str::FromStr};

/// PNETID: the name of a physical network, which network interfaces and devices have in common. Up to 16 letters and digits;
/// letters are capitals.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct PnetId([u8; Self::LEN]);

/// Not the name of a physical network.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("a PNETID has 1 to 16 letters and digits")]
pub struct BadPnetId;

impl PnetId {
    /// Bytes of a name, filled up with blanks.
    pub const LEN: usize = 16;

    /// The name that stands in these bytes, in ASCII, filled up with blanks or zeros; `None` if there is none.
    pub fn from_bytes(bytes: [u8; Self::LEN]) -> Option<Self> {
        let text = std::str::from_utf8(&bytes).ok()?;
        text.trim_end_matches([' ', '\0']).parse().ok()
    }

    /// As [`PnetId::from_bytes`], in EBCDIC, as in the utility string of a function of IBM Z.
    pub fn from_ebcdic(bytes: [u8; Self::LEN]) -> Option<Self> {
        let ascii = |byte: u8| match byte {
            0xc1..=0xc9 => byte - 0xc1 + b'A',
            0xd1..=0xd9 => byte - 0xd1 + b'J',
            0xe2..=0xe9 => byte - 0xe2 + b'S',
            0xf0..=0xf9 => byte - 0xf0 + b'0',
            0x40 | 0 => b' ',
            _ => 0xff,
        };
        Self::from_bytes(bytes.map(ascii))
    }

    /// The name in ASCII, filled up with blanks.
    pub const fn to_bytes(self) -> [u8; Self::LEN] {
        self.0
    }
}

impl FromStr for PnetId {
    type Err = BadPnetId;

    fn from_str(text: &str) -> Result<Self, BadPnetId> {
        let is_name =
            (1..=Self::LEN).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric());
        if !is_name {
            return Err(BadPnetId);
        }
        let mut bytes = [b' '; Self::LEN];
        bytes.iter_mut().zip(text.bytes()).for_each(|(to, from)| *to = from.to_ascii_uppercase());
        Ok(Self(bytes))
    }
}

impl fmt::Display for PnetId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(std::str::from_utf8(&self.0).unwrap_or_default().trim_end())
    }
}

impl fmt::Debug for PnetId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PnetId({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_capitals_and_digits() {
        let name: PnetId = "net1".parse().unwrap();
        assert_eq!((name.to_string(), name.to_bytes()), ("NET1".to_owned(), *b"NET1            "));
        assert_eq!(PnetId::from_bytes(name.to_bytes()), Some(name));
        for wrong in ["", "A234567890123456X", "A B", "A_B", "Ä"] {
            assert_eq!(wrong.parse::<PnetId>(), Err(BadPnetId), "{wrong}");
        }
        assert_eq!(PnetId::from_bytes([0; 16]), None);
        assert_eq!(PnetId::from_bytes([0xff; 16]), None);
    }

    #[test]
    fn ebcdic_is_read() {
        let mut bytes = [0x40; 16];
        bytes[..6].copy_from_slice(&[0xd5, 0xc5, 0xe3, 0xc1, 0xe9, 0xf9]);
        assert_eq!(PnetId::from_ebcdic(bytes), "NETAZ9".parse().ok());
        assert_eq!(PnetId::from_ebcdic([0x40; 16]), None);
        assert_eq!(PnetId::from_ebcdic([0x4b; 16]), None, "a full stop");
    }
}
