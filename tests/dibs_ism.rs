//! The device over ISM functions: conformance on functions in software, and what is its own.

mod conformance;

use std::{
    collections::BTreeMap,
    os::fd::BorrowedFd,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use smcd::dibs::{
    Chid, Device, DeviceError, Dmb, Event, Gid, Memory, VlanId,
    ism::{
        Description, Ism, IsmError, Transport,
        soft::{End, Fault, SoftFunction, SoftIsm, SoftIsmSettings, refusal},
    },
};

const LEN: usize = 65536;

fn fabric(functions: usize) -> SoftIsm {
    let mut settings = SoftIsmSettings::default();
    settings.functions = functions;
    SoftIsm::new(&settings).unwrap()
}

fn open(fabric: &SoftIsm, function: usize) -> Ism {
    Ism::open(Arc::new(fabric.open(function).unwrap())).unwrap()
}

/// Functions 0 and 1 of a fabric.
fn two() -> (SoftIsm, Ism, Ism) {
    let fabric = fabric(2);
    let (one, other) = (open(&fabric, 0), open(&fabric, 1));
    (fabric, one, other)
}

fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(10);
    while !is_so() {
        assert!(Instant::now() < end, "{what}");
        thread::sleep(Duration::from_millis(1));
    }
}

fn has_hung_up(dmb: &Dmb) -> bool {
    dmb.interrupt().is_hung_up()
}

#[test]
fn conforms_over_functions_in_software() {
    conformance::check(|| {
        let fabric = fabric(3);
        [0, 1, 2].map(|function| Arc::new(open(&fabric, function)) as Arc<dyn Device>)
    });
}

#[test]
fn conforms_with_short_store_blocks() {
    conformance::check(|| {
        let mut settings = SoftIsmSettings::default();
        (settings.functions, settings.max_store) = (3, 1000);
        let fabric = SoftIsm::new(&settings).unwrap();
        [0, 1, 2].map(|function| Arc::new(open(&fabric, function)) as Arc<dyn Device>)
    });
}

#[test]
fn as_few_store_blocks_as_can_be() {
    let (fabric, owner, user) = two();
    let dmb = owner.register_dmb(user.gid(), LEN, None).unwrap();
    fabric.take_counters(1);
    user.move_data(dmb.token(), 0, false, 4064, &[7; 100]).unwrap();
    user.move_data(dmb.token(), 0, false, 8192, &[7; 8192]).unwrap();
    user.move_data(dmb.token(), 0, true, 0, &[7; 32]).unwrap();
    user.move_data(dmb.token(), 0, true, 0, &[]).unwrap();
    let counters = fabric.counters(1);
    assert_eq!(counters.stores, BTreeMap::from([(32, 2), (68, 1), (4096, 2)]));
    assert_eq!((counters.signals, counters.refused_stores), (1, 0));
    assert_eq!(counters.stored_bytes(), 100 + 8192 + 32);
    assert!(counters.commands.is_empty(), "data needs no command");
}

#[test]
fn functions_are_given_back_as_they_were() {
    let (fabric, owner, user) = two();
    let dmb = owner.register_dmb(user.gid(), LEN, None).unwrap();
    fabric.take_counters(0);
    drop(owner);
    assert!(fabric.is_open(0), "the DMB holds it");
    drop(dmb);
    until("not closed", || !fabric.is_open(0));
    let counters = fabric.counters(0);
    // UNREG_DMB, UNREG_IEQ, UNREG_SBA.
    assert_eq!(counters.commands, BTreeMap::from([(0x0b, 1), (0x12, 1), (0x11, 1)]));
    assert!(counters.refused_commands.is_empty());
    let again = open(&fabric, 0);
    assert_eq!(Some(again.gid()), fabric.gid(0));
    again.query_remote_gid(user.gid(), None).unwrap();
}

#[test]
fn a_function_is_for_one() {
    let fabric = fabric(1);
    let _one = open(&fabric, 0);
    assert_eq!(fabric.open(0).unwrap_err().kind(), std::io::ErrorKind::ResourceBusy);
    assert!(fabric.open(1).is_err());
}

#[test]
fn identity() {
    let (fabric, one, _other) = two();
    assert_eq!(one.fabric_id(), Chid(0x07c0));
    assert_eq!((Some(one.gid()), one.gid().low()), (fabric.gid(0), 0));
    let extended = Gid::from_halves(fabric.gid(1).unwrap().high(), 1);
    assert!(matches!(one.query_remote_gid(extended, None), Err(DeviceError::Unreachable(_))));
    assert_eq!(one.max_dmbs(), 1920);
    assert!(!one.supports_attach() && !one.supports_handover());
}

#[test]
fn all_indexes_can_be_used() {
    let (_fabric, owner, user) = two();
    let mut dmbs: Vec<_> = (0..1888).map(|_| owner.register_dmb(user.gid(), 4096, None).unwrap()).collect();
    assert!(dmbs.iter().all(|dmb| (32..1920).contains(&dmb.index())));
    assert!(matches!(owner.register_dmb(user.gid(), 4096, None), Err(DeviceError::NoFreeDmb(1888))));
    // Each is told of its own signals only.
    for at in [0, 1, 31, 32, 1000, 1887] {
        dmbs.iter().for_each(|dmb| dmb.interrupt().arm(smcd::dibs::Cause::Data));
        let before: Vec<_> = dmbs.iter().map(|dmb| dmb.interrupt().moves()).collect();
        user.move_data(dmbs[at].token(), 0, true, 0, &[1]).unwrap();
        until("not signalled", || dmbs[at].interrupt().moves() != before[at]);
        let changed = dmbs.iter().zip(before).filter(|(dmb, before)| dmb.interrupt().moves() != *before);
        assert_eq!(changed.count(), 1);
    }
    dmbs.truncate(1887);
    owner.register_dmb(user.gid(), 1 << 20, None).unwrap();
    assert!(matches!(
        owner.register_dmb(user.gid(), (1 << 20) + 4096, None),
        Err(DeviceError::OutOfRange { .. })
    ));
}

#[test]
fn addresses_run_out() {
    let mut settings = SoftIsmSettings::default();
    settings.window = 1 << 32..(1 << 32) + (3 << 20);
    let fabric = SoftIsm::new(&settings).unwrap();
    let (owner, user) = (open(&fabric, 0), open(&fabric, 1));
    let _held = [(); 2].map(|()| owner.register_dmb(user.gid(), 1 << 20, None).unwrap());
    let refused = owner.register_dmb(user.gid(), 1 << 20, None);
    assert!(matches!(refused, Err(DeviceError::OutOfMemory { requested: 1_048_576, .. })));
    owner.register_dmb(user.gid(), 1 << 19, None).unwrap();
    settings.window = 0..8192;
    let fabric = SoftIsm::new(&settings).unwrap();
    assert!(matches!(Ism::open(Arc::new(fabric.open(0).unwrap())), Err(IsmError::Useless)));
}

#[test]
fn vlans_are_counted() {
    let (fabric, one, other) = two();
    let vlan = VlanId(7);
    let query = || one.query_remote_gid(other.gid(), Some(vlan));
    one.query_remote_gid(other.gid(), Some(VlanId::ISM_V2)).unwrap();
    assert!(query().is_err());
    one.add_vlan_id(vlan).unwrap();
    assert!(query().is_err(), "the other has not");
    assert!(one.register_dmb(other.gid(), LEN, Some(vlan)).is_err());
    fabric.take_counters(1);
    other.add_vlan_id(vlan).unwrap();
    other.add_vlan_id(vlan).unwrap();
    query().unwrap();
    one.register_dmb(other.gid(), LEN, Some(vlan)).unwrap();
    other.del_vlan_id(vlan).unwrap();
    query().unwrap();
    other.del_vlan_id(vlan).unwrap();
    other.del_vlan_id(vlan).unwrap();
    assert!(query().is_err());
    assert_eq!(fabric.counters(1).commands, BTreeMap::from([(0x04, 1), (0x05, 1)]));
    // That of version 2 stays.
    one.add_vlan_id(VlanId::ISM_V2).unwrap();
    one.del_vlan_id(VlanId::ISM_V2).unwrap();
    one.query_remote_gid(other.gid(), Some(VlanId::ISM_V2)).unwrap();
    assert!(matches!(
        one.add_vlan_id(VlanId(4095)),
        Err(DeviceError::Refused { command: 4, code: refusal::VLAN })
    ));
}

#[test]
fn without_the_vlan_there_is_no_version_2() {
    let fabric = fabric(2);
    fabric.inject(0, Fault::Answer { command: 0x04, code: 99 });
    let (one, other) = (open(&fabric, 0), open(&fabric, 1));
    one.query_remote_gid(other.gid(), None).unwrap();
    assert!(one.query_remote_gid(other.gid(), Some(VlanId::ISM_V2)).is_err());
    assert!(other.query_remote_gid(one.gid(), Some(VlanId::ISM_V2)).is_err());
    assert!(matches!(one.add_vlan_id(VlanId::ISM_V2), Err(DeviceError::Unsupported)));
}

#[test]
fn functions_that_are_not_to_be_asked_in_no_vlan() {
    let mut settings = SoftIsmSettings::default();
    settings.needs_vlan = true;
    let fabric = SoftIsm::new(&settings).unwrap();
    let (one, other) = (open(&fabric, 0), open(&fabric, 1));
    assert!(matches!(one.query_remote_gid(other.gid(), None), Err(DeviceError::Unreachable(_))));
    one.query_remote_gid(other.gid(), Some(VlanId::ISM_V2)).unwrap();
    fabric.take_counters(0);
    let dmb = one.register_dmb(other.gid(), LEN, None).unwrap();
    other.move_data(dmb.token(), 0, true, 0, &[1]).unwrap();
    one.signal_event(other.gid(), 1, 1).unwrap();
    assert!(fabric.counters(0).refused_commands.is_empty());
}

#[test]
fn events_arrive_in_order() {
    let (_fabric, one, other) = two();
    for round in 0..40 {
        one.signal_event(other.gid(), 0x80, round).unwrap();
        let mut event = None;
        until("no event", || {
            event = other.take_event();
            event.is_some()
        });
        assert_eq!(event, Some(Event::Software { from: one.gid(), code: 0x80, data: round }));
    }
    assert_eq!(other.take_event(), None);
    let nobody = Gid::from_halves(1, 0);
    assert!(matches!(one.signal_event(nobody, 1, 1), Err(DeviceError::Unreachable(_))));
}

/// A function whose interrupts nobody hears.
#[derive(Debug)]
struct Mute(SoftFunction);

impl Transport for Mute {
    fn description(&self) -> Description {
        self.0.description()
    }
    fn read(&self, at: u64, out: &mut [u8]) -> std::io::Result<()> {
        self.0.read(at, out)
    }
    fn write(&self, at: u64, data: &[u8]) -> std::io::Result<()> {
        self.0.write(at, data)
    }
    fn map(&self, iova: u64, len: usize) -> Result<Arc<Memory>, DeviceError> {
        self.0.map(iova, len)
    }
    fn unmap(&self, iova: u64, len: usize) -> std::io::Result<()> {
        self.0.unmap(iova, len)
    }
    fn set_interrupt(&self, _: Option<BorrowedFd<'_>>) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn what_was_written_is_found_without_an_interrupt() {
    let fabric = fabric(2);
    let mute = Ism::open(Arc::new(Mute(fabric.open(0).unwrap()))).unwrap();
    let other = open(&fabric, 1);
    let dmb = mute.register_dmb(other.gid(), LEN, None).unwrap();
    other.signal_event(mute.gid(), 1, 2).unwrap();
    other.move_data(dmb.token(), 0, true, 0, &[1]).unwrap();
    assert_eq!((mute.take_event(), dmb.interrupt().moves()), (None, Some(0)));
    mute.tend();
    let event = Event::Software { from: other.gid(), code: 1, data: 2 };
    assert_eq!((mute.take_event(), dmb.interrupt().moves()), (Some(event), Some(2)));
    // A lost one is left alone.
    fabric.inject(0, Fault::Answer { command: 0x09, code: 0xffff });
    mute.query_remote_gid(other.gid(), None).unwrap_err();
    mute.tend();
}

#[test]
fn bring_up_that_fails_leaves_nothing_behind() {
    // REG_SBA, REG_IEQ, READ_GID.
    for command in [0x01, 0x02, 0x03] {
        let fabric = fabric(1);
        fabric.inject(0, Fault::Answer { command, code: 0x77 });
        let refused = Ism::open(Arc::new(fabric.open(0).unwrap()));
        assert!(
            matches!(refused, Err(IsmError::Device(DeviceError::Refused { command: c, code: 0x77 })) if c == command),
            "{refused:?}"
        );
        let counters = fabric.counters(0);
        let count = |command| counters.commands.get(&command).copied().unwrap_or(0);
        assert_eq!((count(0x01), count(0x02)), (count(0x11), count(0x12)), "undone");
        assert!(!fabric.is_open(0));
        open(&fabric, 0);
    }
}

#[test]
fn refused_commands_have_their_codes() {
    let (fabric, owner, user) = two();
    let left = owner.memory_left(user.gid(), None);
    fabric.inject(0, Fault::Answer { command: 0x0a, code: 0x123 });
    let refused = owner.register_dmb(user.gid(), LEN, None);
    assert!(matches!(refused, Err(DeviceError::Refused { command: 0x0a, code: 0x123 })), "{refused:?}");
    assert_eq!(owner.memory_left(user.gid(), None), left, "given back");
    let dmb = owner.register_dmb(user.gid(), LEN, None).unwrap();
    // What the function does not let go of it may still write: neither address nor index is used again.
    let (token, index) = (dmb.token(), dmb.index());
    fabric.inject(0, Fault::Answer { command: 0x0b, code: 0x456 });
    assert!(matches!(owner.unregister_dmb(token), Err(DeviceError::Refused { command: 0x0b, code: 0x456 })));
    drop(dmb);
    user.move_data(token, 0, true, 0, &[1]).unwrap();
    assert_eq!(owner.memory_left(user.gid(), None), left - LEN);
    let other = owner.register_dmb(user.gid(), LEN, None).unwrap();
    assert_ne!(other.index(), index);
    assert!(!owner.is_lost() && !has_hung_up(&other));
    fabric.inject(0, Fault::Answer { command: 0x0e, code: 5 });
    assert!(matches!(owner.signal_event(user.gid(), 1, 1), Err(DeviceError::Unreachable(_))));
}

/// After this the device is lost, and says so.
fn is_lost(device: &Ism, peer: &Ism, dmb: Dmb, mine: &Dmb) {
    until("nobody was told", || has_hung_up(&dmb));
    assert!(device.is_lost());
    let lost =
        |result: Result<(), DeviceError>| assert!(matches!(result, Err(DeviceError::Lost)), "{result:?}");
    lost(device.query_remote_gid(peer.gid(), None));
    lost(device.register_dmb(peer.gid(), LEN, None).map(|_| ()));
    lost(device.move_data(mine.token(), 0, true, 0, &[1]));
    lost(device.signal_event(peer.gid(), 1, 1));
    lost(device.add_vlan_id(VlanId(1)));
    assert_eq!((device.take_event(), device.memory_left(peer.gid(), None)), (None, 0));
    let token = dmb.token();
    device.unregister_dmb(token).unwrap();
    assert!(matches!(device.unregister_dmb(token), Err(DeviceError::UnknownToken(_))));
}

#[test]
fn a_function_that_fails_is_lost_to_both_sides() {
    for fault in [End::Failure, End::Disabled].map(Fault::End) {
        let (fabric, device, peer) = two();
        let dmb = device.register_dmb(peer.gid(), LEN, None).unwrap();
        let theirs = peer.register_dmb(device.gid(), LEN, None).unwrap();
        let other = peer.register_dmb(peer.gid(), LEN, None).unwrap();
        fabric.inject(0, fault);
        until("the peer was not told", || has_hung_up(&theirs));
        assert!(!has_hung_up(&other) && !peer.is_lost());
        assert!(matches!(peer.query_remote_gid(device.gid(), None), Err(DeviceError::Unreachable(_))));
        assert!(matches!(
            peer.move_data(dmb.token(), 0, true, 0, &[1]),
            Err(DeviceError::StoreRefused { offset: 0, len: 1, .. })
        ));
        is_lost(&device, &peer, dmb, &theirs);
    }
}

#[test]
fn a_function_that_is_gone() {
    let (fabric, device, peer) = two();
    let dmb = device.register_dmb(peer.gid(), LEN, None).unwrap();
    let theirs = peer.register_dmb(device.gid(), LEN, None).unwrap();
    fabric.inject(0, Fault::End(End::Lost));
    is_lost(&device, &peer, dmb, &theirs);
    drop(device);
    until("not closed", || !fabric.is_open(0));
    until("the peer was not told", || has_hung_up(&theirs));
}

#[test]
fn a_command_without_an_answer() {
    let (fabric, device, peer) = two();
    let dmb = device.register_dmb(peer.gid(), LEN, None).unwrap();
    let theirs = peer.register_dmb(device.gid(), LEN, None).unwrap();
    fabric.inject(0, Fault::Answer { command: 0x09, code: 0xffff });
    assert!(matches!(device.query_remote_gid(peer.gid(), None), Err(DeviceError::Lost)));
    is_lost(&device, &peer, dmb, &theirs);
}

#[test]
fn a_queue_that_is_none() {
    let (fabric, device, peer) = two();
    let dmb = device.register_dmb(peer.gid(), LEN, None).unwrap();
    let theirs = peer.register_dmb(device.gid(), LEN, None).unwrap();
    fabric.inject(0, Fault::BadQueue);
    is_lost(&device, &peer, dmb, &theirs);
}

#[test]
fn a_function_that_fails_amid_a_move() {
    let (fabric, owner, user) = two();
    let dmb = owner.register_dmb(user.gid(), LEN, None).unwrap();
    let theirs = user.register_dmb(owner.gid(), LEN, None).unwrap();
    fabric.inject(1, Fault::EndAfter { stores: 2, end: End::Failure });
    let data: Vec<u8> = (0..20_000u32).map(|i| (i % 249) as u8 + 1).collect();
    assert!(matches!(user.move_data(dmb.token(), 0, true, 0, &data), Err(DeviceError::Lost)));
    until("the owner was not told", || has_hung_up(&dmb));
    assert_eq!(dmb.interrupt().moves(), Some(0), "the signal comes with the last block");
    let mut got = vec![0; data.len()];
    dmb.memory().read(0, &mut got).unwrap();
    assert_eq!(got[..8192], data[..8192]);
    assert!(got[8192..].iter().all(|byte| *byte == 0));
    is_lost(&user, &owner, theirs, &dmb);
}

#[test]
fn other_devices_are_left_alone() {
    #[derive(Debug)]
    struct Other;
    impl Transport for Other {
        fn description(&self) -> Description {
            Description { fabric: Chid(1), window: 1 << 32..2 << 32, max_store: 4096, pnetid: None }
        }
        fn read(&self, _: u64, out: &mut [u8]) -> std::io::Result<()> {
            out.fill(0x11);
            Ok(())
        }
        fn write(&self, at: u64, _: &[u8]) -> std::io::Result<()> {
            panic!("written at {at:x}")
        }
        fn map(&self, _: u64, _: usize) -> Result<Arc<Memory>, DeviceError> {
            panic!("mapped")
        }
        fn unmap(&self, _: u64, _: usize) -> std::io::Result<()> {
            panic!("unmapped")
        }
        fn set_interrupt(&self, _: Option<BorrowedFd<'_>>) -> std::io::Result<()> {
            panic!("set")
        }
    }
    assert!(matches!(Ism::open(Arc::new(Other)), Err(IsmError::OtherDevice(0x1111_1111))));
}

/// In a virtual machine: a function of ivshmem that is bound to `vfio-pci`, the first of those named in `SMCD_TEST_VFIO`
/// (`interop/devices`). It is no ISM function, but VFIO is asked for all that such a one needs.
#[cfg(feature = "vfio")]
#[test]
fn what_is_asked_of_vfio() {
    use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
    use smcd::dibs::ism::{Vfio, VfioWay};
    use std::os::fd::AsFd;

    let Ok(addresses) = std::env::var("SMCD_TEST_VFIO") else {
        eprintln!("SKIPPED: SMCD_TEST_VFIO does not name functions");
        return;
    };
    let address = addresses.split_whitespace().next().unwrap();
    assert!(matches!(Vfio::open("../0"), Err(IsmError::Place)));
    let what_it_is = Ism::open_vfio(address);
    assert!(matches!(what_it_is, Err(IsmError::OtherDevice(0x1110_1af4))), "{what_it_is:?}");
    let description =
        Description { fabric: Chid(1), window: 1 << 32..2 << 32, max_store: 4096, pnetid: None };
    let has_iommufd = std::fs::metadata("/dev/iommu").is_ok();
    for way in [VfioWay::Group, VfioWay::Iommufd] {
        if way == VfioWay::Iommufd && !has_iommufd {
            eprintln!("SKIPPED: the kernel has no iommufd");
            continue;
        }
        let function = Arc::new(Vfio::open_as(address, way, description.clone()).unwrap());
        assert!(matches!(Ism::open(function.clone()), Err(IsmError::OtherDevice(0x1110_1af4))));
        let at = |region: u64, offset: u64| region << 48 | offset;
        // Configuration space: memory and bus master.
        let mut command = [0; 2];
        function.read(at(7, 4), &mut command).unwrap();
        function.write(at(7, 4), &[command[0] | 6, command[1]]).unwrap();
        function.read(at(7, 4), &mut command).unwrap();
        assert_eq!(command[0] & 6, 6);
        assert!(
            function.read(at(7, 1 << 20), &mut [0]).is_err() && function.read(at(5, 0), &mut [0]).is_err()
        );
        // Memory: no address twice, and free again afterwards.
        let (iova, len) = (1 << 32, 1 << 20);
        let memory = function.map(iova, len).unwrap();
        memory.write(len - 4, b"done").unwrap();
        assert!(function.map(iova, 4096).is_err());
        function.unmap(iova, len).unwrap();
        function.map(iova, 4096).unwrap();
        // An interrupt: the function rings itself, at the register behind its number.
        let bell = eventfd(0, EventfdFlags::NONBLOCK).unwrap();
        function.set_interrupt(Some(bell.as_fd())).unwrap();
        let mut number = [0; 4];
        function.read(at(0, 8), &mut number).unwrap();
        let ring = u32::from_le_bytes(number) << 16;
        function.write(at(0, 12), &ring.to_le_bytes()).unwrap();
        let mut fds = [PollFd::new(&bell, PollFlags::IN)];
        assert_eq!(poll(&mut fds, Some(&Timespec { tv_sec: 10, tv_nsec: 0 })).unwrap(), 1, "no interrupt");
        function.set_interrupt(None).unwrap();
        assert!(function.end().is_none_or(|end| {
            let mut fds = [PollFd::new(&end, PollFlags::IN)];
            poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).unwrap() == 0
        }));
        println!("by {way:?}");
    }
}
