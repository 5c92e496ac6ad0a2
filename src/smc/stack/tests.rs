use super::*;
use crate::dibs::{Chid, Dmb, DmbToken};

/// A device that always has another event.
#[derive(Debug, Default)]
struct Talkative(AtomicU32);

impl Device for Talkative {
    fn fabric_id(&self) -> Chid {
        Chid(0xff00)
    }

    fn gid(&self) -> Gid {
        Gid::from_halves(1, 1)
    }

    fn query_remote_gid(&self, gid: Gid, _vlan: Option<VlanId>) -> Result<(), DeviceError> {
        Err(DeviceError::Unreachable(gid))
    }

    fn max_dmbs(&self) -> usize {
        0
    }

    fn register_dmb(&self, user: Gid, _len: usize, _vlan: Option<VlanId>) -> Result<Dmb, DeviceError> {
        Err(DeviceError::Unreachable(user))
    }

    fn unregister_dmb(&self, token: DmbToken) -> Result<(), DeviceError> {
        Err(DeviceError::UnknownToken(token))
    }

    fn move_data(&self, token: DmbToken, _: u8, _: bool, _: usize, _: &[u8]) -> Result<(), DeviceError> {
        Err(DeviceError::UnknownToken(token))
    }

    fn take_event(&self) -> Option<Event> {
        let count = self.0.fetch_add(1, Ordering::Relaxed);
        assert!(count < 10_000, "events are taken without end");
        Some(Event::Software { from: self.gid(), code: 0, data: 0 })
    }
}

#[test]
fn events_are_taken_a_few_at_a_time() {
    Stack::new(vec![Arc::new(Talkative::default())]).tend();
}
