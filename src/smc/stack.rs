//! The SMC-D stack of this process: its devices and link groups.

use std::{
    collections::{HashMap, HashSet, hash_map::Entry},
    iter,
    path::PathBuf,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
};

use super::{
    ByteCounts,
    config::{ism, region, runtime_dir},
    connection::Connection,
    group_event::GroupEvent,
    link_group::{LinkGroup, Pair},
};
use crate::{
    clc::wire::LinkId,
    dibs::{
        Device, DeviceError, Event, Gid, VlanId,
        ism::Ism,
        loopback::{DmbLimits, Loopback},
        order,
        region::Region,
    },
    unix::{Generation, PerProcess},
};

/// Events of a device that are taken before a handshake goes on: whoever sends them without end must not hold it up.
const EVENTS_AT_ONCE: usize = 64;

/// Devices and link groups. A process needs only [`Stack::shared`]; several let it play several peers.
///
/// A stack belongs to the process that made it. A child that is forked inherits its connections, but makes no new ones
/// with it: these stay TCP. [`Stack::shared`] gives it a stack of its own.
#[derive(Debug)]
pub struct Stack {
    /// The process whose stack it is.
    of: Generation,
    devices: Vec<Arc<dyn Device>>,
    groups: Mutex<HashMap<Pair, Arc<LinkGroup>>>,
    next_link_id: AtomicU32,
    /// Those that our devices were told of, which stay as long as the stack.
    vlans: Mutex<HashSet<(Gid, VlanId)>>,
    connections: AtomicU64,
    received: AtomicU64,
    sent: AtomicU64,
}

/// What a stack has done so far.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct StackTotals {
    /// Connections on which both ends have agreed on SMC-D.
    pub connections: u64,
    /// Bytes that went through the shared memory of those of them that have ended.
    pub bytes: ByteCounts,
}

impl Stack {
    /// A stack over these devices, the preferred ones first.
    pub fn new(devices: Vec<Arc<dyn Device>>) -> Arc<Self> {
        // Cheap as long as there is only one thread.
        order();
        Arc::new(Self {
            of: Generation::current(),
            devices,
            groups: Mutex::default(),
            next_link_id: AtomicU32::new(1),
            vlans: Mutex::default(),
            connections: AtomicU64::new(0),
            received: AtomicU64::new(0),
            sent: AtomicU64::new(0),
        })
    }

    /// A stack over a loopback device of its own.
    ///
    /// # Errors
    /// As [`Loopback::new`].
    pub fn with_loopback(limits: DmbLimits) -> Result<Arc<Self>, DeviceError> {
        Self::with_loopback_in(limits, None)
    }

    /// As [`Stack::with_loopback`]; by handshakes in band it reaches processes of other network namespaces that share
    /// the directory, too.
    ///
    /// # Errors
    /// As [`Loopback::new`].
    pub fn with_loopback_in(limits: DmbLimits, directory: Option<PathBuf>) -> Result<Arc<Self>, DeviceError> {
        Ok(Self::new(vec![Arc::new(Loopback::with_directory(limits, directory)?)]))
    }

    /// The stack of this process, made at first use; a child that is forked makes its own. It has a loopback device, with
    /// the directory that `SMCD_RUNTIME_DIR` names, an endpoint of the region that `SMCD_REGION` names, and the ISM function
    /// that `SMCD_ISM` names. What cannot be had is left out; without a device every connection is TCP.
    pub fn shared() -> Arc<Self> {
        static SHARED: PerProcess<Arc<Stack>> = PerProcess::new();
        let make = || {
            let all = [loopback_of_process(), region_of_process(), ism_of_process()];
            Self::new(all.into_iter().flatten().collect())
        };
        SHARED.get_or_make(make).clone()
    }

    /// True if it belongs to a process that this one was forked from.
    pub fn is_inherited(&self) -> bool {
        self.of.is_past()
    }

    /// The devices of the stack.
    pub fn devices(&self) -> &[Arc<dyn Device>] {
        &self.devices
    }

    /// What the stack has done so far.
    pub fn totals(&self) -> StackTotals {
        StackTotals {
            connections: self.connections.load(Ordering::Relaxed),
            bytes: ByteCounts {
                received: self.received.load(Ordering::Relaxed),
                sent: self.sent.load(Ordering::Relaxed),
            },
        }
    }

    /// Both ends have agreed on another connection.
    pub(crate) fn count_connection(&self) {
        self.connections.fetch_add(1, Ordering::Relaxed);
    }

    /// Takes in what other devices have sent to ours. To be called before a handshake, and during one.
    pub(crate) fn tend(&self) {
        for (at, device) in self.devices.iter().enumerate() {
            device.tend();
            for event in iter::from_fn(|| device.take_event()).take(EVENTS_AT_ONCE) {
                self.take_event(at, device, event);
            }
        }
    }

    /// What Linux' SMC-D tells the other devices: that it has let go of a link group, or that it wants to be answered.
    fn take_event(&self, at: usize, device: &Arc<dyn Device>, event: Event) {
        let (from, code, data) = match event {
            Event::Software { from, code, data } => (from, code, data),
            Event::Gone(gid) => return self.forget(at, gid),
        };
        match GroupEvent::parse(code, data) {
            Some(GroupEvent::Shutdown) => self.let_go(at, from),
            Some(GroupEvent::TestLink(answer)) => {
                // Who asks again while the last answer was not taken is not in want of another.
                let _ = device.signal_event(from, code, answer);
            }
            None => tracing::debug!(code, "an event that means nothing"),
        }
    }

    /// Forgets the groups with a peer that is gone. Whoever is the next by this name makes first contact.
    fn forget(&self, at: usize, peer: Gid) {
        self.groups().retain(|pair, group| {
            let is_other = !pair.is_with(at, peer);
            if !is_other {
                group.unconfirm();
            }
            is_other
        });
    }

    /// A peer has let go of a group; the next connection that it makes is a first contact.
    ///
    /// But it may have others that are all one for us: Linux makes one for each first contact, and some are made at the same
    /// time. So the groups are not forgotten. Where the peer still counts on one of its own, to be told that there is none would
    /// have it end that one, with all connections.
    fn let_go(&self, at: usize, peer: Gid) {
        let groups: Vec<_> = {
            let groups = self.groups();
            groups.values().filter(|group| group.pair().is_with(at, peer)).cloned().collect()
        };
        groups.iter().for_each(|group| group.let_go());
    }

    /// Makes sure that a device takes part in a VLAN.
    pub(super) fn join_vlan(&self, device: &Arc<dyn Device>, vlan: VlanId) -> Result<(), DeviceError> {
        // Nothing panics while it is held.
        let mut vlans = self.vlans.lock().unwrap_or_else(PoisonError::into_inner);
        if !vlans.contains(&(device.gid(), vlan)) {
            device.add_vlan_id(vlan)?;
            vlans.insert((device.gid(), vlan));
        }
        Ok(())
    }

    fn groups(&self) -> MutexGuard<'_, HashMap<Pair, Arc<LinkGroup>>> {
        self.groups.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The group of this pair that the other side says it knows of, if that can be. In no VLAN, one of any may be meant: Linux
    /// does not look at VLANs for version 2.
    pub(crate) fn confirmed_group(&self, pair: Pair) -> Option<Arc<LinkGroup>> {
        let groups = self.groups();
        let may_be = |group: &&Arc<LinkGroup>| group.has_been_confirmed();
        let other = || groups.values().filter(|group| group.pair().may_stand_for(pair)).find(may_be);
        groups.get(&pair).filter(may_be).or_else(other).cloned()
    }

    /// The group of this pair; a new one if there is none. `None` if there is no such device.
    pub(crate) fn group(&self, pair: Pair) -> Option<Arc<LinkGroup>> {
        let device = self.devices.get(pair.device)?;
        let mut groups = self.groups();
        if let Some(group) = groups.get(&pair) {
            return Some(group.clone());
        }
        // A new peer: the moment to let go of those that have ended.
        groups.retain(|_, group| !has_ended(group));
        let id = self.next_link_id.fetch_add(1, Ordering::Relaxed);
        let group = Arc::new(LinkGroup::new(device.clone(), pair, LinkId((id << 8).to_be_bytes())));
        groups.insert(pair, group.clone());
        Some(group)
    }

    /// Somebody who says to be this peer does not know the group that we took for common: the next connection makes
    /// first contact again. If we make it, the peer may say that there is a group all the same.
    ///
    /// Linux ends all connections of the group here. But a GID in a Proposal is a claim: anybody could end the
    /// connections of another process so. A peer that has really lost the group has no connections in it, since GIDs
    /// are never used again; so nothing is lost by leaving them alone.
    pub(crate) fn out_of_sync(&self, pair: Pair) {
        if let Some(group) = self.groups().get(&pair) {
            group.unconfirm();
        }
    }

    /// Takes back what an ended connection used.
    pub(crate) fn release(&self, group: Arc<LinkGroup>, connection: Arc<Connection>) {
        let ByteCounts { received, sent } = connection.byte_counts();
        self.received.fetch_add(received, Ordering::Relaxed);
        self.sent.fetch_add(sent, Ordering::Relaxed);
        group.leave(connection);
        let pair = group.pair();
        drop(group);
        if let Entry::Occupied(group) = self.groups().entry(pair)
            && has_ended(group.get())
        {
            group.remove();
        }
    }
}

fn loopback_of_process() -> Option<Arc<dyn Device>> {
    match Loopback::with_directory(DmbLimits::default(), runtime_dir()) {
        Ok(device) => Some(Arc::new(device)),
        Err(error) => {
            tracing::warn!(%error, "no loopback device");
            None
        }
    }
}

fn region_of_process() -> Option<Arc<dyn Device>> {
    let place = region()?;
    match Region::at(&place) {
        Ok(device) => Some(Arc::new(device)),
        Err(error) => {
            tracing::warn!(%place, %error, "not in the region");
            None
        }
    }
}

fn ism_of_process() -> Option<Arc<dyn Device>> {
    let place = ism()?;
    match Ism::at(&place) {
        Ok(device) => Some(Arc::new(device)),
        Err(error) => {
            tracing::warn!(%place, %error, "no ISM function");
            None
        }
    }
}

/// True if nothing is left of a group, and nobody holds it but the stack: neither a connection nor a handshake, whose
/// peer will count on it.
fn has_ended(group: &Arc<LinkGroup>) -> bool {
    Arc::strong_count(group) == 1 && group.is_orphaned()
}

#[cfg(test)]
mod tests;
