//! Settings from the environment, for programs that were not written for SMC-D.
//!
//! | variable | what it sets | values |
//! |---|---|---|
//! | `SMCD_RCVBUF`, else `SMC_RCVBUF` | [`SmcConfig::receive_buffer`] | bytes, also as `64K` or `1M` |
//! | `SMC_SNDBUF`, also `SMCD_SNDBUF` | nothing | as before |
//! | `SMCD_PROMOTION` | [`SmcConfig::promotion`] | `eager`, `off`, or bytes and messages such as `256K:24` |
//! | `SMCD_BUSY_POLL` | [`SmcConfig::busy_poll`] | `adaptive`, `off`, or microseconds |
//! | `SMCD_RUNTIME_DIR` | [`SmcConfig::runtime_dir`] | a directory |
//! | `SMCD_REGION` | a device of [`Stack::shared`](crate::Stack::shared), beside the loopback device | as for [`Region::at`](crate::dibs::region::Region::at) |
//! | `SMCD_ISM` | a device of [`Stack::shared`](crate::Stack::shared), the last | as for [`Ism::at`](crate::dibs::ism::Ism::at) |
//! | `SMCD_PNETIDS` | [`SmcConfig::interfaces`] | interfaces, PNETIDs and perhaps VLANs such as `eth0=NET1,eth1=NET2:5` |
//! | `SMCD_UEIDS` | [`SmcConfig::ueids`] | names such as `OURS,SMCV2-COMMON` |
//! | `SMCD_OPTION_PEERS` | [`SmcConfig::option_peers`] | prefixes such as `10.0.0.0/8,fd00::/8` |
//! | `SMCD_OBSERVE` | [`SmcConfig::observe`] | `1` or `0` |
//! | `SMCD_DEBUG`, else `SMC_DEBUG` | [`DebugOutput`] | `1` for the standard error stream, or a file |
//!
//! The names without a `D` are those of the tools for Linux' SMC sockets. In SMC-D what one end writes goes straight
//! into the ring of the other, so there is no send buffer: its size is that of the peer's receive buffer. The variable
//! is accepted, and checked, for the sake of settings that exist.
//!
//! An empty variable is one that is not set.

use std::{env, ffi::OsString, path::PathBuf, time::Duration};

use super::SmcConfig;
use crate::{
    BusyPoll, PnetInterface,
    clc::wire::Ueid,
    dibs::VlanId,
    tcp_fallback::{IpPrefix, Promotion},
};

/// Names for the bytes of the receive buffer, the preferred one first.
const RECEIVE_BUFFER: [&str; 2] = ["SMCD_RCVBUF", "SMC_RCVBUF"];

/// Names for the bytes of the send buffer.
const SEND_BUFFER: [&str; 2] = ["SMCD_SNDBUF", "SMC_SNDBUF"];

const PROMOTION: &str = "SMCD_PROMOTION";
const BUSY_POLL: &str = "SMCD_BUSY_POLL";
const RUNTIME_DIR: &str = "SMCD_RUNTIME_DIR";
const REGION: &str = "SMCD_REGION";
const ISM: &str = "SMCD_ISM";
const PNETIDS: &str = "SMCD_PNETIDS";
const UEIDS: &str = "SMCD_UEIDS";
const OPTION_PEERS: &str = "SMCD_OPTION_PEERS";
const OBSERVE: &str = "SMCD_OBSERVE";

/// Names for where to report to, the preferred one first.
const DEBUG: [&str; 2] = ["SMCD_DEBUG", "SMC_DEBUG"];

/// A variable of the environment has a value that means nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{variable} is not {expected}")]
#[non_exhaustive]
pub struct InvalidSetting {
    /// Its name.
    pub variable: &'static str,
    /// What it would have to be.
    pub expected: &'static str,
}

impl SmcConfig {
    /// The settings that the environment of this process asks for; where it says nothing, the default ones.
    ///
    /// | variable | values |
    /// |---|---|
    /// | `SMCD_RCVBUF` or `SMC_RCVBUF` | bytes of the receive buffer, also as `64K` or `1M` |
    /// | `SMCD_SNDBUF` or `SMC_SNDBUF` | as before, without effect: the send buffer is the peer's receive buffer |
    /// | `SMCD_PROMOTION` | `eager`, `off`, or bytes and messages such as `256K:24` |
    /// | `SMCD_BUSY_POLL` | `adaptive`, `off`, or microseconds |
    /// | `SMCD_RUNTIME_DIR` | a directory |
    /// | `SMCD_PNETIDS` | interfaces, PNETIDs and perhaps VLANs such as `eth0=NET1,eth1=NET2:5` |
    /// | `SMCD_UEIDS` | names such as `OURS,SMCV2-COMMON` |
    /// | `SMCD_OPTION_PEERS` | prefixes of addresses such as `10.0.0.0/8,fd00::/8` |
    /// | `SMCD_OBSERVE` | `1` or `0` |
    ///
    /// # Errors
    /// The first variable whose value means nothing.
    pub fn from_env() -> Result<Self, InvalidSetting> {
        Self::from_lookup(|name| env::var_os(name))
    }

    /// As [`SmcConfig::from_env`], with the values that `lookup` has for these names.
    ///
    /// # Errors
    /// As [`SmcConfig::from_env`].
    pub fn from_lookup(lookup: impl Fn(&str) -> Option<OsString>) -> Result<Self, InvalidSetting> {
        let mut config = Self { runtime_dir: path(&lookup, RUNTIME_DIR), ..Self::default() };
        let size = "a number of bytes, such as 65536, 64K or 1M";
        if let Some(bytes) = first_of(&lookup, &RECEIVE_BUFFER, size, parse_buffer)? {
            config.receive_buffer = bytes;
        }
        first_of(&lookup, &SEND_BUFFER, size, parse_buffer)?;
        let when = "eager, off, or bytes and messages such as 256K:24";
        if let Some(when) = first_of(&lookup, &[PROMOTION], when, parse_promotion)? {
            config.promotion = when;
        }
        let how = "adaptive, off, or a number of microseconds";
        if let Some(how) = first_of(&lookup, &[BUSY_POLL], how, parse_busy_poll)? {
            config.busy_poll = how;
        }
        let peers = "prefixes of addresses such as 10.0.0.0/8,fd00::/8";
        if let Some(peers) = first_of(&lookup, &[OPTION_PEERS], peers, parse_prefixes)? {
            config.option_peers = peers;
        }
        let interfaces = "interfaces and PNETIDs such as eth0=NET1,eth1=NET2:5";
        if let Some(interfaces) = first_of(&lookup, &[PNETIDS], interfaces, parse_interfaces)? {
            config.interfaces = interfaces;
        }
        if let Some(ueids) = first_of(&lookup, &[UEIDS], "one or more UEIDs, as OURS,COMMON", parse_ueids)? {
            config.ueids = ueids;
        }
        if let Some(observe) = first_of(&lookup, &[OBSERVE], "0 or 1", parse_switch)? {
            config.observe = observe;
        }
        Ok(config)
    }
}

/// Where a front end that has no other place reports what it does. Nothing is reported unless it is asked for.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum DebugOutput {
    /// To the standard error stream.
    Stderr,
    /// To this file, at its end.
    File(PathBuf),
}

impl DebugOutput {
    /// What `SMCD_DEBUG` or `SMC_DEBUG` asks for: `1` for the standard error stream, or the name of a file. `None` if
    /// neither is set, or it is `0`.
    pub fn from_env() -> Option<Self> {
        Self::from_lookup(|name| env::var_os(name))
    }

    /// As [`DebugOutput::from_env`], with the values that `lookup` has for these names.
    pub fn from_lookup(lookup: impl Fn(&str) -> Option<OsString>) -> Option<Self> {
        let file = DEBUG.iter().find_map(|name| path(&lookup, name))?;
        match file.to_str() {
            Some("0") => None,
            Some("1") => Some(Self::Stderr),
            _ => Some(Self::File(file)),
        }
    }
}

/// The directory that `SMCD_RUNTIME_DIR` names.
pub(in crate::smc) fn runtime_dir() -> Option<PathBuf> {
    path(&|name: &str| env::var_os(name), RUNTIME_DIR)
}

/// The place of a region that `SMCD_REGION` names.
pub(in crate::smc) fn region() -> Option<String> {
    env::var(REGION).ok().filter(|place| !place.is_empty())
}

/// The place of an ISM function that `SMCD_ISM` names.
pub(in crate::smc) fn ism() -> Option<String> {
    env::var(ISM).ok().filter(|place| !place.is_empty())
}

fn path(lookup: &impl Fn(&str) -> Option<OsString>, name: &str) -> Option<PathBuf> {
    lookup(name).filter(|value| !value.is_empty()).map(PathBuf::from)
}

/// The value of the first of these variables that is set. The others have to mean something too.
fn first_of<T>(
    lookup: &impl Fn(&str) -> Option<OsString>,
    names: &[&'static str],
    expected: &'static str,
    parse: impl Fn(&str) -> Option<T>,
) -> Result<Option<T>, InvalidSetting> {
    let mut first = None;
    for variable in names {
        let Some(value) = lookup(variable).filter(|value| !value.is_empty()) else { continue };
        let parsed = value.to_str().and_then(|text| parse(text.trim()));
        let parsed = parsed.ok_or(InvalidSetting { variable, expected })?;
        first.get_or_insert(parsed);
    }
    Ok(first)
}

fn parse_buffer(text: &str) -> Option<usize> {
    parse_bytes(text).and_then(|bytes| usize::try_from(bytes).ok()).filter(|bytes| *bytes > 0)
}

/// A number of bytes, in units of 1, 1024 (`K`) or 1,048,576 (`M`).
fn parse_bytes(text: &str) -> Option<u64> {
    let (number, unit) = match text.strip_suffix(['k', 'K']) {
        Some(number) => (number, 1024),
        None => text.strip_suffix(['m', 'M']).map_or((text, 1), |number| (number, 1024 * 1024)),
    };
    parse_number::<u64>(number)?.checked_mul(unit)
}

/// Digits alone: no sign, which `parse` would take.
fn parse_number<T: std::str::FromStr>(text: &str) -> Option<T> {
    text.parse().ok().filter(|_| text.bytes().all(|byte| byte.is_ascii_digit()))
}

fn parse_interfaces(text: &str) -> Option<Vec<PnetInterface>> {
    text.split(',').map(parse_interface).collect()
}

/// `eth0=NET1`, or `eth0=NET1:5` in a VLAN.
fn parse_interface(text: &str) -> Option<PnetInterface> {
    let (name, network) = text.trim().split_once('=').filter(|(name, _)| !name.is_empty())?;
    let (pnetid, vlan) = network.split_once(':').map_or((network, None), |(net, vlan)| (net, Some(vlan)));
    let interface = PnetInterface::new(name, pnetid.parse().ok()?);
    match vlan {
        None => Some(interface),
        Some(vlan) => {
            let vlan = parse_number(vlan).filter(|vlan| (1..=4094).contains(vlan))?;
            Some(interface.vlan(VlanId(vlan)))
        }
    }
}

fn parse_promotion(text: &str) -> Option<Promotion> {
    match text {
        "eager" => Some(Promotion::Eager),
        "off" => Some(Promotion::Off),
        _ => {
            let (bytes, messages) = text.split_once(':')?;
            Some(Promotion::After { bytes: parse_bytes(bytes)?, messages: parse_number(messages)? })
        }
    }
}

fn parse_busy_poll(text: &str) -> Option<BusyPoll> {
    match text {
        "adaptive" => Some(BusyPoll::Adaptive),
        "off" => Some(BusyPoll::Off),
        _ => parse_number(text).map(|micros| BusyPoll::For(Duration::from_micros(micros))),
    }
}

fn parse_prefixes(text: &str) -> Option<Vec<IpPrefix>> {
    text.split(',').map(|prefix| prefix.trim().parse().ok()).collect()
}

fn parse_ueids(text: &str) -> Option<Vec<Ueid>> {
    text.split(',').map(|ueid| ueid.trim().parse().ok()).collect()
}

fn parse_switch(text: &str) -> Option<bool> {
    match text {
        "1" => Some(true),
        "0" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lookup<'a>(variables: &'a [(&str, &str)]) -> impl Fn(&str) -> Option<OsString> + 'a {
        |wanted| variables.iter().find(|(name, _)| *name == wanted).map(|(_, value)| value.into())
    }

    fn config(variables: &[(&str, &str)]) -> Result<SmcConfig, InvalidSetting> {
        SmcConfig::from_lookup(lookup(variables))
    }

    #[test]
    fn without_variables_it_is_the_default() {
        let (config, default) = (config(&[("SMCD_RCVBUF", "")]).unwrap(), SmcConfig::default());
        assert_eq!(config.receive_buffer, default.receive_buffer);
        assert_eq!(config.promotion, default.promotion);
        assert_eq!(config.busy_poll, default.busy_poll);
        assert_eq!(config.runtime_dir, None);
        assert!(!config.observe);
    }

    #[test]
    fn buffers_have_units_and_two_names() {
        let size = |variables| config(variables).unwrap().receive_buffer;
        assert_eq!(size(&[("SMCD_RCVBUF", "65536")]), 65536);
        assert_eq!(size(&[("SMC_RCVBUF", "128K")]), 128 * 1024);
        assert_eq!(size(&[("SMC_RCVBUF", "16k"), ("SMCD_RCVBUF", "1M")]), 1024 * 1024);
        assert_eq!(size(&[("SMC_SNDBUF", "32K")]), crate::smc::DEFAULT_RECEIVE_BUFFER);
    }

    #[test]
    fn ueids_are_named_in_order() {
        let ueids = config(&[(UEIDS, "OURS, SMCV2-COMMON")]).unwrap().ueids;
        assert_eq!(ueids, ["OURS".parse().unwrap(), "SMCV2-COMMON".parse().unwrap()]);
        for bad in ["lower case", "OURS,", "ONE-THAT-IS-MUCH-TOO-LONG-TO-BE-A-NAME"] {
            assert!(config(&[(UEIDS, bad)]).is_err(), "{bad}");
        }
    }

    #[test]
    fn interfaces_have_networks() {
        let interfaces = config(&[(PNETIDS, "eth0=net1, eth0.5=NET1:5")]).unwrap().interfaces;
        let net: crate::dibs::PnetId = "NET1".parse().unwrap();
        let expected = [PnetInterface::new("eth0", net), PnetInterface::new("eth0.5", net).vlan(VlanId(5))];
        assert_eq!(interfaces, expected);
        for bad in
            ["eth0", "=NET1", "eth0=", "eth0=A B", "eth0=NET1:", "eth0=NET1:0", "eth0=NET1:4095", "a=B,"]
        {
            assert!(config(&[(PNETIDS, bad)]).is_err(), "{bad}");
        }
    }

    #[test]
    fn policies() {
        let promotion = |value| config(&[(PROMOTION, value)]).unwrap().promotion;
        assert_eq!(promotion("eager"), Promotion::Eager);
        assert_eq!(promotion("off"), Promotion::Off);
        assert_eq!(promotion("256K:24"), Promotion::After { bytes: 256 * 1024, messages: 24 });
        let busy_poll = |value| config(&[(BUSY_POLL, value)]).unwrap().busy_poll;
        assert_eq!(busy_poll("adaptive"), BusyPoll::Adaptive);
        assert_eq!(busy_poll("off"), BusyPoll::Off);
        assert_eq!(busy_poll("50"), BusyPoll::For(Duration::from_micros(50)));
        assert!(config(&[(OBSERVE, "1")]).unwrap().observe);
        let peers = config(&[(OPTION_PEERS, "10.0.0.0/8, fd00::/8")]).unwrap().option_peers;
        assert_eq!(peers, ["10.0.0.0/8", "fd00::/8"].map(|prefix| prefix.parse().unwrap()));
    }

    #[test]
    fn what_means_nothing_is_named() {
        let wrong = [
            ("SMCD_RCVBUF", "0"),
            ("SMCD_RCVBUF", "64KB"),
            ("SMC_RCVBUF", "-1"),
            ("SMC_RCVBUF", "+1"),
            ("SMC_SNDBUF", "much"),
            ("SMCD_RCVBUF", "99999999999999999999M"),
            ("SMCD_RCVBUF", "K"),
            ("SMCD_PROMOTION", "256K"),
            ("SMCD_PROMOTION", ":"),
            ("SMCD_PROMOTION", "1:4294967296"),
            ("SMCD_BUSY_POLL", "1.5"),
            ("SMCD_OBSERVE", "yes"),
            ("SMCD_OPTION_PEERS", "10.0.0.0/8,"),
            ("SMCD_OPTION_PEERS", "10.0.0.0/33"),
        ];
        for (name, value) in wrong {
            assert_eq!(config(&[(name, value)]).unwrap_err().variable, name, "{value}");
        }
        assert_eq!(config(&[(OBSERVE, "yes")]).unwrap_err().to_string(), "SMCD_OBSERVE is not 0 or 1");
    }

    #[test]
    fn a_wrong_value_is_found_behind_a_preferred_one() {
        let error = config(&[("SMCD_RCVBUF", "64K"), ("SMC_RCVBUF", "?")]).unwrap_err();
        assert_eq!(error.variable, "SMC_RCVBUF");
    }

    #[test]
    fn reports_go_where_they_are_asked_to() {
        let output = |variables| DebugOutput::from_lookup(lookup(variables));
        assert_eq!(output(&[]), None);
        assert_eq!(output(&[("SMCD_DEBUG", "0"), ("SMC_DEBUG", "1")]), None);
        assert_eq!(output(&[("SMC_DEBUG", "1")]), Some(DebugOutput::Stderr));
        assert_eq!(output(&[("SMCD_DEBUG", "log")]), Some(DebugOutput::File("log".into())));
    }
}
