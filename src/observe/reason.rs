//! Numbers and names of the reasons for staying TCP.

use std::fmt;

use crate::{clc::DeclineCode, tcp_fallback::FallbackReason};

/// Numbers below this one are those of [`NAMES`], in their order.
const DECLINED: usize = 20;

/// Numbers of the codes with which one side declines. The last one is for codes without a name.
const CODES: usize = DeclineCode::ALL.len() + 1;

/// Numbers from here on are for codes with which the peer declines.
const PEER_DECLINED: usize = DECLINED + CODES;

/// Numbers in all.
pub(super) const NUMBERS: usize = PEER_DECLINED + CODES;

const NAMES: [&str; 17] = [
    "not-yet",
    "disabled",
    "peer-not-smc",
    "peer-not-local",
    "peer-unproven",
    "peer-left",
    "peer-misbehaved",
    "no-side-channel",
    "socket-in-use",
    "stack-inherited",
    "left-to-system",
    "peer-went-back",
    "option-unavailable",
    "option-echoed",
    "no-pnetid",
    "no-device-of-pnetid",
    "vlan-refused",
];

/// The number of a reason in a registry. Zero is "not yet".
pub(super) fn number_of(reason: FallbackReason) -> usize {
    match reason {
        FallbackReason::NotYet => 0,
        FallbackReason::Disabled => 1,
        FallbackReason::PeerNotSmc => 2,
        FallbackReason::PeerNotLocal => 3,
        FallbackReason::PeerUnproven => 4,
        FallbackReason::PeerLeft => 5,
        FallbackReason::PeerMisbehaved => 6,
        FallbackReason::SideChannel(_) => 7,
        FallbackReason::SocketInUse => 8,
        FallbackReason::StackInherited => 9,
        FallbackReason::LeftToSystem => 10,
        FallbackReason::PeerWentBack => 11,
        FallbackReason::OptionUnavailable => 12,
        FallbackReason::OptionEchoed => 13,
        FallbackReason::NoPnetId => 14,
        FallbackReason::NoDeviceOfPnetId => 15,
        FallbackReason::VlanRefused => 16,
        FallbackReason::Declined(code) => DECLINED + position(code),
        FallbackReason::PeerDeclined(code) => PEER_DECLINED + position(code),
    }
}

fn position(code: DeclineCode) -> usize {
    DeclineCode::ALL.binary_search(&code).unwrap_or(CODES - 1)
}

/// Why a connection is TCP, as its process says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Reason {
    /// A word for it, such as `peer-not-local` or `declined`.
    pub name: &'static str,
    /// Its code, as the tools for Linux' SMC sockets show it: zero if SMC-D was not tried.
    pub code: DeclineCode,
    /// The diagnosis with which the peer has declined.
    pub peer_diagnosis: Option<DeclineCode>,
}

impl Reason {
    /// The reason of this number, with these codes; `None` if there is no such number.
    pub(super) fn of_number(number: usize, code: u32, peer: u32) -> Option<Self> {
        let (name, has_diagnosis) = match number {
            number if number < DECLINED => (*NAMES.get(number)?, false),
            number if number < PEER_DECLINED => ("declined", false),
            number if number < NUMBERS => ("peer-declined", true),
            _ => return None,
        };
        let peer_diagnosis = has_diagnosis.then_some(DeclineCode(peer));
        Some(Self { name, code: DeclineCode(code), peer_diagnosis })
    }

    /// The reason that is counted under this number.
    pub(super) fn counted(number: usize) -> Option<Self> {
        let code = |from: usize| DeclineCode::ALL.get(number - from).map_or(0, |code| code.0);
        match number {
            DECLINED..PEER_DECLINED => Self::of_number(number, code(DECLINED), 0),
            PEER_DECLINED..NUMBERS => {
                Self::of_number(number, DeclineCode::PEER_DECLINED.0, code(PEER_DECLINED))
            }
            2 | 13 => Self::of_number(number, DeclineCode::PEER_NO_SMC.0, 0),
            14 | 15 => Self::of_number(number, DeclineCode::NO_DEVICE.0, 0),
            16 => Self::of_number(number, DeclineCode::VLAN_REGISTRATION.0, 0),
            4..=7 => Self::of_number(number, DeclineCode::INTERNAL.0, 0),
            _ => Self::of_number(number, 0, 0),
        }
    }

    /// True if something went wrong, rather than was refused or not possible.
    pub fn is_error(&self) -> bool {
        matches!(self.name, "peer-left" | "peer-misbehaved" | "peer-unproven" | "no-side-channel")
    }
}

/// Writes the name, and the codes if there are any.
impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)?;
        if self.code.0 != 0 {
            write!(f, " 0x{:08x}", self.code.0)?;
        }
        self.peer_diagnosis.map_or(Ok(()), |code| write!(f, "/0x{:08x}", code.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io;

    const ALL: [FallbackReason; 21] = [
        FallbackReason::NotYet,
        FallbackReason::Disabled,
        FallbackReason::PeerNotSmc,
        FallbackReason::PeerNotLocal,
        FallbackReason::PeerUnproven,
        FallbackReason::PeerLeft,
        FallbackReason::PeerMisbehaved,
        FallbackReason::SideChannel(io::ErrorKind::NotFound),
        FallbackReason::SocketInUse,
        FallbackReason::StackInherited,
        FallbackReason::LeftToSystem,
        FallbackReason::PeerWentBack,
        FallbackReason::OptionUnavailable,
        FallbackReason::OptionEchoed,
        FallbackReason::NoPnetId,
        FallbackReason::NoDeviceOfPnetId,
        FallbackReason::VlanRefused,
        FallbackReason::Declined(DeclineCode::MEMORY),
        FallbackReason::Declined(DeclineCode::SYNC),
        FallbackReason::PeerDeclined(DeclineCode::MEMORY),
        FallbackReason::PeerDeclined(DeclineCode::REGISTER_RMB),
    ];

    #[test]
    fn what_is_counted_has_the_codes_of_the_reason() {
        for reason in ALL {
            let counted = Reason::counted(number_of(reason)).unwrap();
            assert_eq!(counted.code, reason.code(), "{reason}");
            assert_eq!(counted.peer_diagnosis, reason.peer_diagnosis(), "{reason}");
        }
    }

    #[test]
    fn each_reason_has_a_number_of_its_own() {
        let mut numbers = ALL.map(number_of);
        numbers.sort_unstable();
        assert!(numbers.windows(2).all(|two| two[0] < two[1]));
        let strange = number_of(FallbackReason::PeerDeclined(DeclineCode(7)));
        assert_eq!(strange, NUMBERS - 1);
        assert_eq!(Reason::counted(strange).unwrap().to_string(), "peer-declined 0x05000000/0x00000000");
    }

    #[test]
    fn a_number_without_a_reason_is_none() {
        for number in [17, 19, NUMBERS, usize::MAX] {
            assert_eq!(Reason::of_number(number, 0, 0), None);
            assert_eq!(Reason::counted(number), None);
        }
    }
}
