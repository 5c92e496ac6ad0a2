//! Which devices serve a connection: those of the physical network (PNETID) of its network interface.

use std::{net::IpAddr, sync::Arc};

use super::{SmcConfig, Stack};
use crate::{
    clc::{
        DeclineCode,
        handshake::{LocalV1, Vlan},
        wire::{Ipv4Prefix, Ipv6Prefix, Prefixes, UpTo},
    },
    dibs::{Device, DeviceError, PnetId, VlanId},
    tcp_fallback::FallbackReason,
    unix::interfaces::{InterfaceAddress, addresses},
};

/// A network interface, and the physical network that it is on.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct PnetInterface {
    /// Its name in this system, such as `eth0`.
    pub name: String,
    /// The physical network.
    pub pnetid: PnetId,
    /// The VLAN that it is in.
    pub vlan: Option<VlanId>,
}

impl PnetInterface {
    /// An interface that is in no VLAN.
    pub fn new(name: impl Into<String>, pnetid: PnetId) -> Self {
        Self { name: name.into(), pnetid, vlan: None }
    }

    /// Sets [`PnetInterface::vlan`].
    pub fn vlan(mut self, vlan: VlanId) -> Self {
        self.vlan = Some(vlan);
        self
    }
}

/// What may serve a connection.
#[derive(Debug)]
pub(super) struct Served {
    /// Positions of the devices in the stack's list.
    pub(super) devices: Vec<usize>,
    /// Version 1, whose device is counted among these.
    pub(super) v1: Option<LocalV1>,
    pub(super) vlan: Vlan,
    /// Why there is less than there could be.
    pub(super) lack: Option<FallbackReason>,
}

impl Served {
    /// Why we decline with this code: for want of what could be there, if it says so.
    pub(super) fn reason(&self, code: DeclineCode) -> FallbackReason {
        const FOR_WANT: [DeclineCode; 5] = [
            DeclineCode::NO_DEVICE,
            DeclineCode::NO_SMCD_DEVICE,
            DeclineCode::NO_SMCD_V2_DEVICE,
            DeclineCode::PREFIX_MISMATCH,
            DeclineCode::VLAN_REGISTRATION,
        ];
        self.lack.filter(|_| FOR_WANT.contains(&code)).unwrap_or(FallbackReason::Declined(code))
    }

    /// Every device, at its position in the stack's list, and no version 1.
    pub(super) fn by_all(stack: &Stack) -> Self {
        let devices = (0..stack.devices().len()).collect();
        Self { devices, v1: None, vlan: Vlan::Untagged, lack: None }
    }

    /// As the settings say. Without any, all devices serve all connections; a device without a PNETID does so in any case, and
    /// one that is lost in none.
    pub(super) fn new(config: &SmcConfig, stack: &Stack, local: Option<IpAddr>) -> Self {
        let device_at = |at: usize| stack.devices().get(at);
        let mut served = Self::by_all(stack);
        served.devices.retain(|at| device_at(*at).is_some_and(|device| !device.is_lost()));
        if config.interfaces.is_empty() {
            return served;
        }
        let all = local.and_then(|local| Some((local, addresses().ok()?)));
        let found = all.as_ref().and_then(|(local, all)| interface_of(*local, all, &config.interfaces));
        let pnetid = found.as_ref().map(|(interface, _)| interface.pnetid);
        let of_pnetid = |device: &Arc<dyn Device>| device.pnetid().is_some() && device.pnetid() == pnetid;
        served
            .devices
            .retain(|at| device_at(*at).is_some_and(|device| device.pnetid().is_none() || of_pnetid(device)));
        let Some((interface, prefixes)) = found else {
            served.lack = Some(FallbackReason::NoPnetId);
            return served;
        };
        let is_for_v1 = |device: &Arc<dyn Device>| of_pnetid(device) && !device.fabric_id().is_emulated();
        let v1 = served.devices.iter().position(|at| device_at(*at).is_some_and(is_for_v1));
        let Some((device, at)) = v1.and_then(|at| Some((device_at(*served.devices.get(at)?)?, at))) else {
            served.lack = Some(FallbackReason::NoDeviceOfPnetId);
            return served;
        };
        match interface.vlan.map(|vlan| stack.join_vlan(device, vlan).map(|()| vlan)) {
            None => {}
            Some(Ok(vlan)) => served.vlan = Vlan::Id(vlan),
            Some(Err(DeviceError::Lost)) => {
                served.devices.remove(at);
                served.lack = Some(FallbackReason::NoDeviceOfPnetId);
                return served;
            }
            Some(Err(error)) => {
                tracing::debug!(%error, interface = interface.name, "a VLAN is refused");
                (served.vlan, served.lack) = (Vlan::Refused, Some(FallbackReason::VlanRefused));
            }
        }
        served.v1 = Some(LocalV1 { device: at, prefixes: Some(prefixes) });
        served
    }
}

/// The interface that has this address, with its subnets.
fn interface_of<'a>(
    local: IpAddr,
    all: &[InterfaceAddress],
    known: &'a [PnetInterface],
) -> Option<(&'a PnetInterface, Prefixes)> {
    let local = local.to_canonical();
    let address = all.iter().find(|address| address.addr == local)?;
    let interface = known.iter().find(|interface| interface.name == address.interface)?;
    let prefixes = match local {
        IpAddr::V4(addr) => Prefixes::ipv4(Ipv4Prefix::of(addr, address.prefix)),
        IpAddr::V6(_) => {
            let same = all.iter().filter(|other| other.interface == address.interface);
            Prefixes::ipv6(UpTo::first_of(same.filter_map(|other| match other.addr {
                IpAddr::V6(addr) if !addr.is_unicast_link_local() => Some(Ipv6Prefix::of(addr, other.prefix)),
                _ => None,
            })))
        }
    };
    Some((interface, prefixes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(interface: &str, addr: &str, prefix: u8) -> InterfaceAddress {
        InterfaceAddress { interface: interface.to_owned(), addr: addr.parse().unwrap(), prefix }
    }

    #[test]
    fn the_interface_is_that_of_the_address() {
        let all = [
            address("lo", "127.0.0.1", 8),
            address("eth0", "10.1.2.3", 24),
            address("eth0", "fe80::1", 64),
            address("eth0", "fd00:1::2", 64),
            address("eth0", "fd00:2::2", 48),
        ];
        let net: PnetId = "NET1".parse().unwrap();
        let known = [PnetInterface::new("eth0", net).vlan(VlanId(5))];
        let found = |addr: &str| interface_of(addr.parse().unwrap(), &all, &known);
        let v4 = Prefixes::ipv4(Ipv4Prefix::of([10, 1, 2, 0].into(), 24));
        assert_eq!(found("10.1.2.3"), Some((&known[0], v4.clone())));
        assert_eq!(found("::ffff:10.1.2.3"), Some((&known[0], v4)));
        let (_, v6) = found("fd00:1::2").unwrap();
        assert_eq!(v6.ipv6.iter().map(|prefix| prefix.len).collect::<Vec<_>>(), [64, 48]);
        assert_eq!((found("127.0.0.1"), found("10.1.2.4")), (None, None));
    }
}
