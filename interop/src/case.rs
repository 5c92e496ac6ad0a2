//! The cases: who connects to whom, with which settings, and what has to come of it.

use std::fmt;

use anyhow::bail;
use smcd::clc::DeclineCode;

/// Whose sockets an end uses.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Stack {
    /// The library's.
    Smcd,
    /// Linux' SMC sockets.
    Linux,
    /// TCP, without the SMC option.
    Tcp,
}

impl fmt::Display for Stack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Smcd => "smcd",
            Self::Linux => "linux",
            Self::Tcp => "tcp",
        })
    }
}

/// Which UEIDs the library and Linux have.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Ueids {
    /// One, the same.
    One,
    /// Linux has none.
    NoneOfLinux,
    /// The library has none.
    NoneOfSmcd,
    /// Four each, of which the last is the same.
    Four,
    /// One each, not the same.
    Disjoint,
}

impl Ueids {
    pub(crate) fn of_smcd(self) -> &'static [&'static str] {
        match self {
            Self::One | Self::NoneOfLinux | Self::Disjoint => &["INTEROP-COMMON"],
            Self::NoneOfSmcd => &[],
            Self::Four => &["SMCD-1", "SMCD-2", "SMCD-3", "INTEROP-COMMON"],
        }
    }

    pub(crate) fn of_linux(self) -> &'static [&'static str] {
        match self {
            Self::One | Self::NoneOfSmcd => &["INTEROP-COMMON"],
            Self::NoneOfLinux => &[],
            Self::Four => &["LINUX-1", "LINUX-2", "LINUX-3", "INTEROP-COMMON"],
            Self::Disjoint => &["LINUX-1"],
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::One => "one-ueid",
            Self::NoneOfLinux => "none-of-linux",
            Self::NoneOfSmcd => "none-of-smcd",
            Self::Four => "four-ueids",
            Self::Disjoint => "disjoint-ueids",
        }
    }
}

/// What has to come of a case. Over the network alone the library and Linux have no device in common.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Outcome {
    /// SMC-D, by first contact and then by the link group again.
    Smcd,
    /// The server declines with this code.
    Declined(DeclineCode),
    /// One end has not sent the SMC option: TCP without a word.
    NoOption,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Smcd => f.write_str("SMC-D"),
            Self::Declined(code) => write!(f, "TCP, server declines {:#010x}", code.0),
            Self::NoOption => f.write_str("TCP, no CLC"),
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Case {
    pub(crate) client: Stack,
    pub(crate) server: Stack,
    pub(crate) is_ipv6: bool,
    pub(crate) ueids: Ueids,
    pub(crate) expected: Outcome,
}

impl Case {
    /// As it is asked for on the command line.
    pub(crate) fn name(&self) -> String {
        let family = if self.is_ipv6 { "ipv6" } else { "ipv4" };
        format!("{}-to-{}-{family}-{}", self.client, self.server, self.ueids.name())
    }
}

/// All cases, in the order of the table.
pub(crate) fn all() -> Vec<Case> {
    use Outcome::{Declined, NoOption, Smcd};
    use Stack::{Linux, Smcd as Ours, Tcp};
    let no_device = Declined(DeclineCode::NO_SMCD_V2_DEVICE);
    let no_ueid = Declined(DeclineCode::NO_UEID);
    let kinds = [
        (Ours, Linux, Ueids::One, no_device),
        (Ours, Linux, Ueids::Four, no_device),
        (Ours, Linux, Ueids::Disjoint, no_device),
        (Ours, Linux, Ueids::NoneOfLinux, no_device),
        (Ours, Linux, Ueids::NoneOfSmcd, no_ueid),
        (Linux, Ours, Ueids::One, no_device),
        (Linux, Ours, Ueids::Four, no_device),
        (Linux, Ours, Ueids::Disjoint, no_device),
        (Linux, Ours, Ueids::NoneOfLinux, no_ueid),
        (Linux, Ours, Ueids::NoneOfSmcd, no_device),
        (Ours, Tcp, Ueids::One, NoOption),
        (Tcp, Ours, Ueids::One, NoOption),
        // To see that the machine is what it should be.
        (Linux, Tcp, Ueids::One, NoOption),
        (Tcp, Linux, Ueids::One, NoOption),
        (Linux, Linux, Ueids::One, Smcd),
        (Linux, Linux, Ueids::Four, Smcd),
        (Linux, Linux, Ueids::NoneOfLinux, no_ueid),
        (Ours, Ours, Ueids::One, Smcd),
        (Ours, Ours, Ueids::Four, Smcd),
        (Ours, Ours, Ueids::NoneOfSmcd, no_ueid),
    ];
    let of_both = |(client, server, ueids, expected)| {
        [false, true].map(|is_ipv6| Case { client, server, is_ipv6, ueids, expected })
    };
    kinds.into_iter().flat_map(of_both).collect()
}

/// Those whose names begin with one of these; all if there are none.
pub(crate) fn chosen(names: &[&str]) -> anyhow::Result<Vec<Case>> {
    let all = all();
    if names.is_empty() {
        return Ok(all);
    }
    for name in names {
        if !all.iter().any(|case| case.name().starts_with(name)) {
            bail!("no case has a name that begins with {name}");
        }
    }
    Ok(all.into_iter().filter(|case| names.iter().any(|name| case.name().starts_with(name))).collect())
}
