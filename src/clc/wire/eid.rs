//! Enterprise ids: two hosts use SMC-D v2 with each other only if they share one.

use std::{fmt, str::FromStr};

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

const LEN: usize = 32;

/// An EID as it is on the wire: 32 bytes, ASCII, padded with blanks.
///
/// Received ones are not checked, they are only compared; Linux 7.3 does the same.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
#[repr(transparent)]
pub struct Eid([u8; LEN]);

impl Eid {
    /// All bytes zero: no EID.
    pub const ZERO: Self = Self([0; LEN]);

    /// The EID with these bytes.
    pub const fn from_bytes(bytes: [u8; LEN]) -> Self {
        Self(bytes)
    }

    /// The bytes on the wire.
    pub const fn as_bytes(&self) -> &[u8; LEN] {
        &self.0
    }
}

/// Writes the EID without its padding; bytes that are not printable ASCII are escaped.
impl fmt::Display for Eid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.trim_ascii_end().escape_ascii().fmt(f)
    }
}

impl fmt::Debug for Eid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Eid({self})")
    }
}

/// A user-defined EID, configured on a host: 1 to 32 characters `A`-`Z`, `0`-`9`, `.` and `-`, the first a letter
/// or digit. Linux 7.3 has none unless the administrator adds one.
///
/// ```
/// use smcd::clc::wire::Ueid;
///
/// let ueid: Ueid = "SMCV2-EXAMPLE-UEID".parse()?;
/// assert_eq!(ueid.to_string(), "SMCV2-EXAMPLE-UEID");
/// assert!("lower-case".parse::<Ueid>().is_err());
/// # Ok::<(), smcd::clc::wire::InvalidEid>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Ueid(Eid);

/// Why a string or a byte sequence is not a UEID or SEID.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidEid {
    /// Nothing but padding.
    #[error("empty")]
    Empty,
    /// Longer than 32 characters.
    #[error("{0} bytes long, above 32")]
    TooLong(usize),
    /// A character outside `A`-`Z`, `0`-`9`, `.` and `-`, or a first one that is no letter or digit.
    #[error("byte {byte:#04x} at index {index} is not allowed there")]
    Character {
        /// Index of the byte.
        index: usize,
        /// The byte.
        byte: u8,
    },
}

impl Ueid {
    /// The EID that goes on the wire.
    pub const fn eid(&self) -> Eid {
        self.0
    }
}

/// Pads with blanks what obeys the rules of a UEID.
fn padded(text: &[u8]) -> Result<Eid, InvalidEid> {
    let mut bytes = [b' '; LEN];
    let start = bytes.get_mut(..text.len()).ok_or(InvalidEid::TooLong(text.len()))?;
    start.copy_from_slice(text);
    if text.is_empty() {
        return Err(InvalidEid::Empty);
    }
    let allowed = |index, byte: u8| {
        byte.is_ascii_uppercase() || byte.is_ascii_digit() || (index > 0 && matches!(byte, b'.' | b'-'))
    };
    match text.iter().copied().enumerate().find(|&(index, byte)| !allowed(index, byte)) {
        Some((index, byte)) => Err(InvalidEid::Character { index, byte }),
        None => Ok(Eid(bytes)),
    }
}

fn unpadded(eid: &Eid) -> &[u8] {
    let end = eid.0.iter().rposition(|&b| b != b' ').map_or(0, |last| last + 1);
    eid.0.get(..end).unwrap_or_default()
}

impl FromStr for Ueid {
    type Err = InvalidEid;

    fn from_str(text: &str) -> Result<Self, InvalidEid> {
        padded(text.as_bytes()).map(Self)
    }
}

impl TryFrom<Eid> for Ueid {
    type Error = InvalidEid;

    fn try_from(eid: Eid) -> Result<Self, InvalidEid> {
        padded(unpadded(&eid)).map(Self)
    }
}

impl fmt::Display for Ueid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The system EID, the same for all systems of one IBM Z machine. Other machines have none.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Seid(Eid);

impl Seid {
    /// The SEID of a machine, from the low 16 bits of its CPU identification and its machine type.
    pub fn of_machine(cpu_ident: u16, machine_type: u16) -> Self {
        let mut bytes = *b"IBM-SYSZ-ISMSEID0000000000000000";
        let digits = u32::from(cpu_ident) << 16 | u32::from(machine_type);
        for (i, byte) in bytes.iter_mut().rev().take(8).enumerate() {
            let digit = (digits >> (4 * i)) as u8 & 0x0f;
            *byte = if digit < 10 { b'0' + digit } else { b'A' + digit - 10 };
        }
        Self(Eid(bytes))
    }

    /// The EID that goes on the wire.
    pub const fn eid(&self) -> Eid {
        self.0
    }
}

impl TryFrom<Eid> for Seid {
    type Error = InvalidEid;

    fn try_from(eid: Eid) -> Result<Self, InvalidEid> {
        padded(unpadded(&eid)).map(Self)
    }
}

impl fmt::Display for Seid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ueids_are_padded_with_blanks() {
        let ueid: Ueid = "A.0-Z".parse().unwrap();
        assert_eq!(ueid.eid().as_bytes(), b"A.0-Z                           ");
        assert_eq!(Ueid::try_from(ueid.eid()), Ok(ueid));
        assert_eq!(ueid.to_string(), "A.0-Z");
    }

    #[test]
    fn ueids_of_other_characters_are_refused() {
        let parse = |text: &str| text.parse::<Ueid>();
        let bad = |index, byte| Err(InvalidEid::Character { index, byte });
        assert_eq!(parse(""), Err(InvalidEid::Empty));
        assert_eq!(parse(&"A".repeat(33)), Err(InvalidEid::TooLong(33)));
        assert!(parse(&"A".repeat(32)).is_ok());
        assert_eq!(parse("-A"), bad(0, b'-'));
        assert_eq!(parse(".A"), bad(0, b'.'));
        assert_eq!(parse("Aa"), bad(1, b'a'));
        assert_eq!(parse("A B"), bad(1, b' '));
        assert_eq!(parse("Ä"), bad(0, 0xc3));
        assert_eq!(Ueid::try_from(Eid::ZERO), bad(0, 0));
        assert_eq!(Ueid::try_from(Eid([b' '; 32])), Err(InvalidEid::Empty));
    }

    #[test]
    fn seid_ends_in_the_machine() {
        let seid = Seid::of_machine(0x1a2b, 0x3931);
        assert_eq!(seid.eid().as_bytes(), b"IBM-SYSZ-ISMSEID000000001A2B3931");
        assert_eq!(Seid::try_from(seid.eid()), Ok(seid));
        assert!(Seid::try_from(Eid::ZERO).is_err());
    }

    #[test]
    fn display_escapes_what_a_peer_may_send() {
        assert_eq!(Eid::ZERO.to_string(), "\\x00".repeat(32));
    }
}
