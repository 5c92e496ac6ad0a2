//! Two connections joined to each other, for tests: two devices of one process, and no TCP.

use std::sync::Arc;

use super::{
    Stack,
    connection::Connection,
    cursor::RingLen,
    link_group::{LinkGroup, Pair, Reach},
};
use crate::{
    clc::wire::DmbeSize,
    dibs::{
        Chid, Device, DeviceError, Dmb, DmbToken, Gid, VlanId,
        ism::{
            Ism,
            soft::{SoftIsm, SoftIsmSettings},
        },
        loopback::{DmbLimits, Loopback},
    },
    unix::Handed,
};

/// One end: its connection, and what it came from.
pub(crate) struct End {
    pub(crate) stack: Arc<Stack>,
    pub(crate) group: Arc<LinkGroup>,
    pub(crate) connection: Arc<Connection>,
}

/// Two stacks, each with a loopback device of its own.
pub(crate) fn stacks() -> [Arc<Stack>; 2] {
    [(); 2].map(|()| Stack::with_loopback(DmbLimits::default()).unwrap())
}

/// Two stacks whose devices cannot map remote DMBs.
pub(crate) fn unmapped_stacks() -> [Arc<Stack>; 2] {
    [(); 2].map(|()| Stack::new(vec![Arc::new(Unmapped(Loopback::new(DmbLimits::default()).unwrap()))]))
}

/// Two stacks with an ISM function each, and these.
pub(crate) fn ism_stacks() -> ([Arc<Stack>; 2], SoftIsm) {
    let fabric = SoftIsm::new(&SoftIsmSettings::default()).unwrap();
    let stack = |function| {
        let function = Ism::open(Arc::new(fabric.open(function).unwrap())).unwrap();
        Stack::new(vec![Arc::new(function)])
    };
    ([0, 1].map(stack), fabric)
}

/// Connects two stacks; the sizes are those of the two receive buffers.
pub(crate) fn connect(stacks: &[Arc<Stack>; 2], sizes: [usize; 2]) -> [End; 2] {
    let gids = [0, 1].map(|i: usize| stacks[i].devices()[0].gid());
    let groups = [0, 1]
        .map(|i| stacks[i].group(Pair { device: 0, peer: gids[1 - i], reach: Reach::Fabric(None) }).unwrap());
    let dmbs = [0, 1].map(|i| groups[i].acquire(DmbeSize::holding(sizes[i])).unwrap().dmb);
    [0, 1].map(|i| {
        let outlet = groups[i].outlet(dmbs[1 - i].token(), 0, dmbs[1 - i].len(), Handed::default()).unwrap();
        let ring = |i: usize| RingLen::of_dmb(dmbs[i].len()).unwrap();
        let connection = Arc::new(Connection::new(dmbs[i].clone(), ring(i), outlet, ring(1 - i)));
        End { stack: stacks[i].clone(), group: groups[i].clone(), connection }
    })
}

/// Two fresh stacks, connected.
pub(crate) fn pair(sizes: [usize; 2]) -> [End; 2] {
    connect(&stacks(), sizes)
}

/// A loopback device that hides its ability to map remote DMBs, as an ISM function has none.
#[derive(Debug)]
struct Unmapped(Loopback);

impl Device for Unmapped {
    fn fabric_id(&self) -> Chid {
        self.0.fabric_id()
    }

    fn gid(&self) -> Gid {
        self.0.gid()
    }

    fn query_remote_gid(&self, gid: Gid, vlan: Option<VlanId>) -> Result<(), DeviceError> {
        self.0.query_remote_gid(gid, vlan)
    }

    fn tend(&self) {
        self.0.tend();
    }

    fn max_dmbs(&self) -> usize {
        self.0.max_dmbs()
    }

    fn register_dmb(&self, user: Gid, len: usize, vlan: Option<VlanId>) -> Result<Dmb, DeviceError> {
        self.0.register_dmb(user, len, vlan)
    }

    fn unregister_dmb(&self, token: DmbToken) -> Result<(), DeviceError> {
        self.0.unregister_dmb(token)
    }

    fn move_data(
        &self,
        token: DmbToken,
        index: u8,
        signal: bool,
        offset: usize,
        data: &[u8],
    ) -> Result<(), DeviceError> {
        self.0.move_data(token, index, signal, offset, data)
    }
}
