//! What this end brings to a handshake, and what it makes of the result; the same in band and on a side channel.

use std::{net::IpAddr, sync::Arc, time::Instant};

use super::{SmcConfig, Stack, connection::Connection, cursor::RingLen, outlet::Outlet, pnet::Served};
use crate::{
    clc::{
        DeclineCode,
        handshake::{Agreed, Local, LocalDevice, OwnDmb, client},
        wire::{DmbeSize, Hostname, UpTo},
    },
    dibs::{Device, DeviceError, Dmb},
    tcp_fallback::FallbackReason,
};

/// What this end offers: the devices that serve the connection, in their order there.
pub(super) fn local(config: &SmcConfig, stack: &Stack, served: &Served) -> Local {
    let devices = || served.devices.iter().filter_map(|at| stack.devices().get(*at));
    let identify = |device: &Arc<dyn Device>| LocalDevice { gid: device.gid(), chid: device.fabric_id() };
    let mut local = Local::new(devices().map(identify).collect());
    local.v2_capable = devices().any(|device| device.speaks_v2());
    (local.v1, local.vlan) = (served.v1.clone(), served.vlan);
    local.ueids = UpTo::first_of(config.ueids.iter().copied());
    local.hostname = hostname();
    local.timeout = config.handshake_timeout;
    local
}

/// Why there is nothing to propose from this address; `None` if there is something. To be asked before the SMC option is sent:
/// whoever answers it expects a Proposal.
pub(super) fn nothing_to_propose(config: &SmcConfig, from: Option<IpAddr>) -> Option<FallbackReason> {
    let stack = config.the_stack();
    let served = Served::new(config, &stack, from);
    let decline = client::propose(&local(config, &stack, &served), Instant::now()).err()?;
    Some(served.lack.unwrap_or(FallbackReason::Declined(decline.diagnosis)))
}

/// Joins what was agreed on. `None` if a ring of these sizes cannot be.
pub(super) fn join(agreed: &Agreed, dmb: Arc<Dmb>, outlet: Outlet) -> Option<Arc<Connection>> {
    let own_ring = RingLen::of_dmb(dmb.len())?;
    let peer_ring = RingLen::of_dmb(agreed.terms().peer_dmb().size().bytes())?;
    Some(Arc::new(Connection::new(dmb, own_ring, outlet, peer_ring)))
}

pub(super) fn own_dmb(dmb: &Dmb) -> OwnDmb {
    OwnDmb { token: dmb.token(), size: DmbeSize::holding(dmb.len()), index: 0 }
}

/// The diagnosis for a buffer that cannot be had.
pub(super) fn decline_code(error: &DeviceError) -> DeclineCode {
    match error {
        DeviceError::NoFreeDmb(_) => DeclineCode::NO_FREE_DMB,
        _ => DeclineCode::MEMORY,
    }
}

/// Name of this host, blank if it is not ASCII.
fn hostname() -> Hostname {
    let uname = rustix::system::uname();
    uname.nodename().to_str().ok().and_then(|name| name.parse().ok()).unwrap_or(Hostname::BLANK)
}
