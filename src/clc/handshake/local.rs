//! What this host brings to a handshake.

use std::time::Duration;

use crate::{
    clc::wire::{
        Eid, FirstContact, FirstContactV2x, Hostname, Os, Prefixes, Release, Seid, Ueid, UpTo, Version,
    },
    dibs::{Chid, Gid, VlanId},
};

/// How long Linux 7.3 waits for each message.
pub const CLC_WAIT: Duration = Duration::from_secs(6);

/// What this host brings to a handshake; the same for client and server.
#[derive(Debug, Clone)]
pub struct Local {
    /// The devices, in order of preference. A client offers only the first of those with equal CHIDs.
    pub devices: Vec<LocalDevice>,
    /// True if the devices may be used with version 2. Linux 7.3 calls this "v2 capable"; all but the oldest ISM
    /// functions are.
    pub v2_capable: bool,
    /// The device for version 1, if one belongs to the network device under the TCP connection.
    pub v1: Option<LocalV1>,
    /// VLAN of the TCP connection; concerns version 1 only.
    pub vlan: Vlan,
    /// The UEIDs of this host. Version 2 needs one in common with the peer, or the SEID.
    pub ueids: UpTo<Ueid, 4>,
    /// The SEID of this machine, if it has one and it is enabled.
    pub seid: Option<Seid>,
    /// Name of this host, told to the peer on first contact.
    pub hostname: Hostname,
    /// Release of version 2 to offer, and the highest to accept.
    pub release: Release,
    /// How long to wait for each message.
    pub timeout: Duration,
}

/// One device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LocalDevice {
    /// GID of the device.
    pub gid: Gid,
    /// Fabric of the device.
    pub chid: Chid,
}

/// The device for version 1. Version 1 carries 64-bit GIDs: a device of an emulated fabric is not offered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalV1 {
    /// Index in [`Local::devices`].
    pub device: usize,
    /// Subnets of the network device under the TCP connection; `None` if none could be determined.
    pub prefixes: Option<Prefixes>,
}

/// The VLAN of a TCP connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Vlan {
    /// Not in a VLAN.
    #[default]
    Untagged,
    /// In this VLAN.
    Id(VlanId),
    /// Cannot be determined: no version 1.
    Unknown,
    /// The device refuses to be in it: no version 1.
    Refused,
}

impl Local {
    /// A host with these devices, capable of version 2, without anything else. Without a UEID no peer will agree
    /// to version 2.
    pub fn new(devices: Vec<LocalDevice>) -> Self {
        Self {
            devices,
            v2_capable: true,
            v1: None,
            vlan: Vlan::Untagged,
            ueids: UpTo::new(),
            seid: None,
            hostname: Hostname::BLANK,
            release: Release::R1,
            timeout: CLC_WAIT,
        }
    }

    /// True if there is something to offer in version 2.
    pub(super) fn speaks_v2(&self) -> bool {
        self.v2_capable && !self.devices.is_empty()
    }

    /// Version of a Decline that is sent before the peer has chosen one.
    pub(super) fn version(&self) -> Version {
        if self.speaks_v2() { Version::V2 } else { Version::V1 }
    }

    /// The device for version 1, where version 1 can be spoken.
    pub(super) fn v1_device(&self) -> Option<(usize, LocalDevice)> {
        let index = self.v1.as_ref()?.device;
        let device = self.devices.get(index)?;
        let is_usable = !matches!(self.vlan, Vlan::Unknown | Vlan::Refused) && !device.chid.is_emulated();
        is_usable.then_some((index, *device))
    }

    /// True if this EID is one of the host's: a UEID, or the SEID.
    pub(super) fn has_eid(&self, eid: Eid) -> bool {
        self.has_ueid(eid) || self.seid.is_some_and(|seid| seid.eid() == eid)
    }

    pub(super) fn has_ueid(&self, eid: Eid) -> bool {
        self.ueids.iter().any(|ueid| ueid.eid() == eid)
    }

    /// What this host tells a peer on first contact.
    pub(super) fn first_contact(&self, release: Release, feature_mask: u16) -> FirstContact {
        let v2x = FirstContactV2x { feature_mask, vendor_options: [0; 4] };
        FirstContact {
            v2_direct: false,
            os: Os::LINUX,
            release,
            hostname: self.hostname,
            v2x: (release >= Release::R1).then_some(v2x),
        }
    }
}
