//! Why a connection is TCP.

use std::{fmt, io};

use crate::{clc::DeclineCode, unix::errno::errno_of_kind};

/// Why a connection stayed TCP. An outcome, not an error: the connection works.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum FallbackReason {
    /// SMC-D was not tried: the configuration says so.
    Disabled,
    /// The peer sent no CLC message, or never came to be promoted: it is a plain TCP program.
    PeerNotSmc,
    /// This side declined, for this reason.
    Declined(DeclineCode),
    /// The peer declined, for this reason.
    PeerDeclined(DeclineCode),
    /// Not promoted yet: it has not carried enough to be worth it, or the peer does not want it so far.
    NotYet,
    /// The peer is not on this host.
    PeerNotLocal,
    /// Who answered for the peer belongs to another user than the peer's end of the TCP connection.
    PeerUnproven,
    /// The peer broke off the promotion.
    PeerLeft,
    /// The peer broke the rules of the promotion.
    PeerMisbehaved,
    /// The two ends could not meet: this kind of system error.
    SideChannel(io::ErrorKind),
    /// The TCP socket was used past this stream.
    SocketInUse,
    /// The stack in the settings belongs to the process that this one was forked from.
    StackInherited,
    /// It was given back to TCP: its socket went where the library cannot follow.
    LeftToSystem,
    /// The peer gave it back to TCP.
    PeerWentBack,
    /// The SMC option could not be asked for: there are no eBPF programs for this process
    /// ([`syn_option`](super::syn_option)).
    OptionUnavailable,
    /// The peer sent the SMC option back, and then did not speak CLC. The connection was made anew without it.
    OptionEchoed,
    /// The settings do not say on which physical network the connection's interface is, and all devices are on one.
    NoPnetId,
    /// No device is on the physical network of the connection's interface.
    NoDeviceOfPnetId,
    /// The device refuses the VLAN of the connection's interface.
    VlanRefused,
}

impl FallbackReason {
    /// The code as Linux reports it for its sockets (`smcss`): zero if SMC was not tried.
    pub fn code(self) -> DeclineCode {
        match self {
            Self::Disabled | Self::NotYet | Self::PeerNotLocal | Self::SocketInUse => DeclineCode(0),
            Self::StackInherited | Self::LeftToSystem | Self::PeerWentBack => DeclineCode(0),
            Self::OptionUnavailable => DeclineCode(0),
            Self::PeerUnproven | Self::PeerLeft | Self::PeerMisbehaved | Self::SideChannel(_) => {
                DeclineCode::INTERNAL
            }
            Self::NoPnetId | Self::NoDeviceOfPnetId => DeclineCode::NO_DEVICE,
            Self::VlanRefused => DeclineCode::VLAN_REGISTRATION,
            Self::PeerNotSmc | Self::OptionEchoed => DeclineCode::PEER_NO_SMC,
            Self::Declined(code) => code,
            Self::PeerDeclined(_) => DeclineCode::PEER_DECLINED,
        }
    }

    /// A number, and one more for details; for a snapshot.
    pub(crate) fn to_numbers(self) -> (u32, u32) {
        match self {
            Self::Disabled => (0, 0),
            Self::PeerNotSmc => (1, 0),
            Self::Declined(code) => (2, code.0),
            Self::PeerDeclined(code) => (3, code.0),
            Self::NotYet => (4, 0),
            Self::PeerNotLocal => (5, 0),
            Self::PeerUnproven => (6, 0),
            Self::PeerLeft => (7, 0),
            Self::PeerMisbehaved => (8, 0),
            Self::SideChannel(kind) => (9, errno_of_kind(kind).unsigned_abs()),
            Self::SocketInUse => (10, 0),
            Self::StackInherited => (11, 0),
            Self::LeftToSystem => (12, 0),
            Self::PeerWentBack => (13, 0),
            Self::OptionUnavailable => (14, 0),
            Self::OptionEchoed => (15, 0),
            Self::NoPnetId => (16, 0),
            Self::NoDeviceOfPnetId => (17, 0),
            Self::VlanRefused => (18, 0),
        }
    }

    /// Reads the numbers; `None` if they are no reason. Of rare kinds of system errors the kind is lost.
    pub(crate) fn from_numbers(numbers: (u32, u32)) -> Option<Self> {
        Some(match numbers {
            (0, 0) => Self::Disabled,
            (1, 0) => Self::PeerNotSmc,
            (2, code) => Self::Declined(DeclineCode(code)),
            (3, code) => Self::PeerDeclined(DeclineCode(code)),
            (4, 0) => Self::NotYet,
            (5, 0) => Self::PeerNotLocal,
            (6, 0) => Self::PeerUnproven,
            (7, 0) => Self::PeerLeft,
            (8, 0) => Self::PeerMisbehaved,
            (9, errno) => {
                let error = io::Error::from_raw_os_error(i32::try_from(errno).ok()?);
                Self::SideChannel(error.kind())
            }
            (10, 0) => Self::SocketInUse,
            (11, 0) => Self::StackInherited,
            (12, 0) => Self::LeftToSystem,
            (13, 0) => Self::PeerWentBack,
            (14, 0) => Self::OptionUnavailable,
            (15, 0) => Self::OptionEchoed,
            (16, 0) => Self::NoPnetId,
            (17, 0) => Self::NoDeviceOfPnetId,
            (18, 0) => Self::VlanRefused,
            _ => return None,
        })
    }

    /// The diagnosis that the peer sent, if it declined.
    pub fn peer_diagnosis(self) -> Option<DeclineCode> {
        match self {
            Self::PeerDeclined(code) => Some(code),
            _ => None,
        }
    }
}

impl fmt::Display for FallbackReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Disabled => f.write_str("SMC-D is switched off"),
            Self::PeerNotSmc => f.write_str("the peer does not speak SMC"),
            Self::Declined(code) => write!(f, "declined: {code}"),
            Self::PeerDeclined(code) => write!(f, "declined by the peer: {code}"),
            Self::NotYet => f.write_str("not promoted yet"),
            Self::PeerNotLocal => f.write_str("the peer is not on this host"),
            Self::PeerUnproven => f.write_str("somebody else answered for the peer"),
            Self::PeerLeft => f.write_str("the peer broke off the promotion"),
            Self::PeerMisbehaved => f.write_str("the peer broke the rules of the promotion"),
            Self::SideChannel(kind) => write!(f, "the two ends could not meet: {kind}"),
            Self::SocketInUse => f.write_str("its TCP socket was used directly"),
            Self::StackInherited => f.write_str("its stack belongs to the parent process"),
            Self::LeftToSystem => f.write_str("given back to TCP"),
            Self::PeerWentBack => f.write_str("given back to TCP by the peer"),
            Self::OptionUnavailable => f.write_str("the SMC option is not enabled on this system"),
            Self::OptionEchoed => f.write_str("the peer echoed the SMC option and does not speak SMC"),
            Self::NoPnetId => f.write_str("its network interface has no PNETID"),
            Self::NoDeviceOfPnetId => f.write_str("no device has the PNETID of its network interface"),
            Self::VlanRefused => f.write_str("the device refuses the VLAN of its network interface"),
        }
    }
}
