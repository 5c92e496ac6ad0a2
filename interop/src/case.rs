//! The cases: who connects to whom, with which settings, and what has to come of it.

use std::fmt;

use anyhow::{Context, bail};
use smcd::clc::DeclineCode;

use crate::talk::Talk;

/// Whose sockets an end uses.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Stack {
    /// The library's, in the machine, on TCP of the kernel: the SMC option goes by eBPF, the region comes by VFIO.
    Smcd,
    /// The library's endpoint, which is a host of its own and not in the machine.
    Endpoint,
    /// Linux' SMC sockets.
    Linux,
    /// Those of another machine.
    Guest,
    /// TCP, without the SMC option.
    Tcp,
}

impl Stack {
    pub(crate) fn is_of_smcd(self) -> bool {
        matches!(self, Self::Smcd | Self::Endpoint)
    }

    /// Whether its end of a case is played in the machine that plays the cases.
    pub(crate) fn is_elsewhere(self) -> bool {
        matches!(self, Self::Endpoint | Self::Guest)
    }
}

impl fmt::Display for Stack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Smcd => "smcd",
            Self::Endpoint => "endpoint",
            Self::Linux => "linux",
            Self::Guest => "guest",
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
    /// Whether both have an endpoint in the region.
    pub(crate) has_region: bool,
    pub(crate) talk: Talk,
    pub(crate) expected: Outcome,
}

impl Case {
    /// As it is asked for on the command line.
    pub(crate) fn name(&self) -> String {
        let family = if self.is_ipv6 { "ipv6" } else { "ipv4" };
        let setting = match self.talk {
            talk if self.has_region => format!("region-{talk}"),
            Talk::Greeting => self.ueids.name().into(),
            talk => talk.to_string(),
        };
        format!("{}-to-{}-{family}-{setting}", self.client, self.server)
    }

    /// Whether one of the ends is this.
    pub(crate) fn has(&self, stack: Stack) -> bool {
        [self.client, self.server].contains(&stack)
    }

    /// What has to come of each of its connections.
    pub(crate) fn outcomes(&self) -> Vec<Outcome> {
        match self.talk {
            // Meanwhile there is no device.
            Talk::NoDriver => {
                vec![self.expected, Outcome::Declined(DeclineCode::NO_SMCD_V2_DEVICE), self.expected]
            }
            talk => vec![self.expected; talk.connections()],
        }
    }
}

/// All cases, in the order of the table.
pub(crate) fn all() -> Vec<Case> {
    use Outcome::{Declined, NoOption, Smcd};
    use Stack::{Endpoint, Linux, Smcd as Ours, Tcp};
    let no_device = Declined(DeclineCode::NO_SMCD_V2_DEVICE);
    let no_ueid = Declined(DeclineCode::NO_UEID);
    let with_linux = |ours| {
        [
            (ours, Linux, Ueids::One, no_device),
            (ours, Linux, Ueids::Four, no_device),
            (ours, Linux, Ueids::Disjoint, no_device),
            (ours, Linux, Ueids::NoneOfLinux, no_device),
            (ours, Linux, Ueids::NoneOfSmcd, no_ueid),
            (Linux, ours, Ueids::One, no_device),
            (Linux, ours, Ueids::Four, no_device),
            (Linux, ours, Ueids::Disjoint, no_device),
            (Linux, ours, Ueids::NoneOfLinux, no_ueid),
            (Linux, ours, Ueids::NoneOfSmcd, no_device),
            (ours, Tcp, Ueids::One, NoOption),
            (Tcp, ours, Ueids::One, NoOption),
        ]
    };
    let without = [
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
        let (has_region, talk) = (false, Talk::Greeting);
        [false, true].map(|is_ipv6| Case { client, server, is_ipv6, ueids, has_region, talk, expected })
    };
    let kinds = [Ours, Endpoint].into_iter().flat_map(with_linux).chain(without);
    kinds.flat_map(of_both).chain(in_region()).collect()
}

/// Those over shared memory.
fn in_region() -> Vec<Case> {
    use Stack::{Endpoint, Guest, Linux, Smcd};
    let (ueids, has_region, expected) = (Ueids::One, true, Outcome::Smcd);
    let mut cases = Vec::new();
    for (client, server) in [
        (Endpoint, Linux),
        (Linux, Endpoint),
        (Endpoint, Smcd),
        (Smcd, Endpoint),
        (Smcd, Linux),
        (Linux, Smcd),
        (Linux, Guest),
        (Guest, Linux),
    ] {
        let is_on_host = [client, server].contains(&Endpoint) && [client, server].contains(&Linux);
        let is_played = |talk: &Talk| match talk {
            Talk::Intruded => is_on_host,
            _ => talk.ends_what().is_none_or(|ends| ends == (client, server)),
        };
        for talk in Talk::ALL.into_iter().filter(is_played) {
            // The other machine has no IPv6.
            let has_ipv6 = talk == Talk::Greeting && ![client, server].contains(&Guest);
            for is_ipv6 in [false, true].into_iter().filter(|is_ipv6| has_ipv6 || !is_ipv6) {
                cases.push(Case { client, server, is_ipv6, ueids, has_region, talk, expected });
            }
        }
    }
    // Last those after which there may be no device, and then the one after which there is no machine.
    cases.sort_by_key(|case| match case.talk {
        Talk::NoDriver => 1,
        Talk::Killed => 2,
        _ => 0,
    });
    cases
}

/// Those that are measured. In each row TCP comes last.
pub(crate) fn benches() -> Vec<Case> {
    use Stack::{Endpoint, Guest, Linux, Smcd, Tcp};
    let of_client = |client, server| {
        let has_region = client != Tcp;
        let expected = if has_region { Outcome::Smcd } else { Outcome::NoOption };
        Case { client, server, is_ipv6: false, ueids: Ueids::One, has_region, talk: Talk::Bench, expected }
    };
    [Endpoint, Guest]
        .into_iter()
        .flat_map(|server| [Linux, Smcd, Tcp].map(|client| of_client(client, server)))
        .collect()
}

/// The one of this name.
pub(crate) fn named(name: &str) -> anyhow::Result<Case> {
    let mut all = all().into_iter().chain(benches());
    all.find(|case| case.name() == name).with_context(|| format!("no case is called {name}"))
}

/// Instead of names: those that are measured.
pub(crate) const BENCH: &str = "--bench";

/// Those whose names begin with one of these; all if there are none.
pub(crate) fn chosen(names: &[&str]) -> anyhow::Result<Vec<Case>> {
    let all = all();
    match names {
        [] => return Ok(all),
        [BENCH] => return Ok(benches()),
        _ => {}
    }
    for name in names {
        if !all.iter().any(|case| case.name().starts_with(name)) {
            bail!("no case has a name that begins with {name}");
        }
    }
    Ok(all.into_iter().filter(|case| names.iter().any(|name| case.name().starts_with(name))).collect())
}
