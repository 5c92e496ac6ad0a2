//! Two connections joined to each other, for tests: two devices of one process, and no TCP.

use std::sync::Arc;

use super::{
    Stack,
    connection::Connection,
    cursor::RingLen,
    link_group::{LinkGroup, Pair},
    outlet::Outlet,
};
use crate::{clc::wire::DmbeSize, dibs::loopback::DmbLimits};

/// One end: its connection, and what it came from.
pub(crate) struct End {
    pub(crate) stack: Arc<Stack>,
    pub(crate) group: Arc<LinkGroup>,
    pub(crate) connection: Arc<Connection>,
}

/// Two stacks, each with a device of its own.
pub(crate) fn stacks() -> [Arc<Stack>; 2] {
    [(); 2].map(|()| Stack::with_loopback(DmbLimits::default()).unwrap())
}

/// Connects two stacks; the sizes are those of the two receive buffers.
pub(crate) fn connect(stacks: &[Arc<Stack>; 2], sizes: [usize; 2]) -> [End; 2] {
    let gids = [0, 1].map(|i: usize| stacks[i].devices()[0].gid());
    let groups = [0, 1].map(|i| stacks[i].group(Pair { device: 0, peer: gids[1 - i], vlan: None }).unwrap());
    let dmbs = [0, 1].map(|i| groups[i].acquire(DmbeSize::holding(sizes[i])).unwrap());
    [0, 1].map(|i| {
        let remote = groups[i].attach(dmbs[1 - i].token(), dmbs[1 - i].len()).unwrap();
        let ring = |i: usize| RingLen::of_dmb(dmbs[i].len()).unwrap();
        let connection =
            Arc::new(Connection::new(dmbs[i].clone(), ring(i), Outlet::Mapped(remote), ring(1 - i)));
        End { stack: stacks[i].clone(), group: groups[i].clone(), connection }
    })
}

/// Two fresh stacks, connected.
pub(crate) fn pair(sizes: [usize; 2]) -> [End; 2] {
    connect(&stacks(), sizes)
}
