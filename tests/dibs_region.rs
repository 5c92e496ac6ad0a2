//! The device over a shared region: conformance, and what is its own.

mod common;
mod conformance;

use std::{
    cell::RefCell,
    fs::File,
    os::unix::fs::FileExt,
    path::Path,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use common::{
    block_on, in_time,
    region::{Fabric, Server, over},
    role, spawn_with,
};
use conformance::Remote;
use smcd::{
    Handshake, SmcConfig, SmcListener, SmcStream, Transport,
    dibs::{
        Cause, Device, DeviceError, VlanId,
        region::{ConnectError, Geometry, Liveness, REGION_FABRIC, Region, RegionError},
    },
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

#[test]
fn conforms_over_a_file() {
    conformance::check(|| {
        let fabric = Fabric::new(Liveness::Locks);
        [(); 3].map(|()| Arc::new(fabric.join()) as Arc<dyn Device>)
    });
}

#[test]
fn conforms_where_all_have_to_be_signalled() {
    conformance::check(|| {
        let fabric = Fabric::new(Liveness::Locks);
        [(); 3].map(|()| Arc::new(fabric.join_signalled()) as Arc<dyn Device>)
    });
}

#[test]
fn conforms_with_heartbeats() {
    conformance::check(|| {
        let fabric = Fabric::new(Liveness::Heartbeats);
        [0, 1, 3].map(|slot| Arc::new(Region::open_slot(fabric.path(), slot).unwrap()) as Arc<dyn Device>)
    });
}

/// A device in a process of its own, which joins as [`be_a_device`] has it.
fn other(how: &str, place: &Path) -> Remote {
    let role = format!("{how} {}", place.display());
    Remote::start(|stdin| spawn_with("be_a_device", &role, |command| _ = command.stdin(stdin)))
}

#[test]
fn be_a_device() {
    let Some(role) = role() else { return };
    let (how, place) = role.split_once(' ').unwrap();
    conformance::serve(Arc::new(match how {
        "maps" => Region::open(place).unwrap(),
        "moves" => Region::open_signalled(place).unwrap(),
        "connects" => Region::connect(place).unwrap(),
        slot => Region::open_slot(place, slot.parse().unwrap()).unwrap(),
    }));
}

#[test]
fn conforms_between_processes() {
    if role().is_some() {
        return;
    }
    let (files, servers) = (RefCell::new(Vec::new()), RefCell::new(Vec::new()));
    for how in ["maps", "moves"] {
        conformance::check(|| {
            let fabric = Fabric::new(Liveness::Locks);
            let join = if how == "maps" { Region::open } else { Region::open_signalled };
            let own: Arc<dyn Device> = Arc::new(join(fabric.path()).unwrap());
            let others = [(); 2].map(|()| other(how, fabric.path()));
            files.borrow_mut().push(fabric);
            (own, others)
        });
    }
    conformance::check(|| {
        let fabric = Fabric::new(Liveness::Heartbeats);
        let own: Arc<dyn Device> = Arc::new(Region::open_slot(fabric.path(), 0).unwrap());
        let others = ["1", "3"].map(|slot| other(slot, fabric.path()));
        files.borrow_mut().push(fabric);
        (own, others)
    });
    conformance::check(|| {
        let server = Server::new();
        let own: Arc<dyn Device> = Arc::new(server.join());
        let others = [(); 2].map(|()| other("connects", server.path()));
        servers.borrow_mut().push(server);
        (own, others)
    });
}

#[test]
fn slots_are_for_one_each_and_free_again() {
    let fabric = Fabric::new(Liveness::Locks);
    let mut all: Vec<_> = (0..4).map(|_| fabric.join()).collect();
    assert_eq!(all.iter().map(Region::slot).collect::<Vec<_>>(), [0, 1, 2, 3]);
    assert!(matches!(Region::open(fabric.path()), Err(RegionError::NoFreeSlot)));
    assert!(matches!(Region::open_slot(fabric.path(), 2), Err(RegionError::NoFreeSlot)));
    assert!(matches!(Region::open_slot(fabric.path(), 4), Err(RegionError::NoSuchSlot(4))));
    let gone = all.remove(1).gid();
    assert!(matches!(all[0].query_remote_gid(gone, None), Err(DeviceError::Unreachable(_))));
}

/// Whether this will be so.
fn will_be(mut is_so: impl FnMut() -> bool) -> bool {
    let until = Instant::now() + Duration::from_secs(10);
    while !is_so() {
        if Instant::now() > until {
            return false;
        }
        thread::sleep(Duration::from_millis(2));
    }
    true
}

const LEN: usize = 65536;

/// Where the entry of a slot's DMB lies, in regions with 64 entries.
fn entry(slot: u64, index: u32) -> u64 {
    8192 + slot * (4096 + 64 * 256) + 4096 + u64::from(index) * 256
}

#[test]
fn what_a_user_still_has_is_not_given_away_by_the_next_owner() {
    for (was_killed, liveness) in
        [(false, Liveness::Locks), (true, Liveness::Locks), (true, Liveness::Heartbeats)]
    {
        let fabric = Fabric::new(liveness);
        let [owner, user, third] = [0, 1, 2].map(|slot| Region::open_slot(fabric.path(), slot).unwrap());
        let all = owner.memory_left(user.gid(), None);
        let dmb = owner.register_dmb(user.gid(), LEN, None).unwrap();
        let (token, index) = (dmb.token(), dmb.index());
        let remote = user.attach_dmb(owner.gid(), token, LEN).unwrap();
        drop((dmb, owner));
        if was_killed {
            let region = File::options().write(true).open(fabric.path()).unwrap();
            region.write_all_at(&token.0.to_le_bytes(), entry(0, index)).unwrap();
        }
        let next = once_free(|| Region::open_slot(fabric.path(), 0));
        assert_eq!(next.memory_left(third.gid(), None), all - LEN);
        let dmbs: Vec<_> = (1..64).map(|_| next.register_dmb(third.gid(), LEN, None).unwrap()).collect();
        assert!(dmbs.iter().all(|dmb| dmb.index() != index));
        assert!(matches!(next.register_dmb(third.gid(), LEN, None), Err(DeviceError::NoFreeDmb(64))));
        // The user does not know of it yet.
        remote.memory().write(0, &[0xff; LEN]).unwrap();
        remote.doorbell().ring(Cause::Data);
        for dmb in &dmbs {
            let mut got = [1; LEN];
            dmb.memory().read(0, &mut got).unwrap();
            assert!(got.iter().all(|byte| *byte == 0));
        }
        assert!(remote.doorbell().is_hung_up());
        assert!(user.move_data(token, 0, true, 0, &[1]).is_err());
        drop(dmbs);
        assert_eq!(next.memory_left(third.gid(), None), all - LEN);
        drop(remote);
        assert!(will_be(|| next.memory_left(third.gid(), None) == all));
        let all_entries: Vec<_> =
            (0..64).map(|_| next.register_dmb(third.gid(), 4096, None).unwrap()).collect();
        assert!(all_entries.iter().any(|dmb| dmb.index() == index));
    }
}

#[test]
fn what_a_dead_user_had_is_free_for_the_next_owner() {
    let fabric = Fabric::new(Liveness::Locks);
    let [owner, user] = [(); 2].map(|()| fabric.join());
    let all = owner.memory_left(user.gid(), None);
    let dmb = owner.register_dmb(user.gid(), LEN, None).unwrap();
    let remote = user.attach_dmb(owner.gid(), dmb.token(), LEN).unwrap();
    let held = entry(0, dmb.index()) + 132;
    let region = File::options().read(true).write(true).open(fabric.path()).unwrap();
    let mut word = [0; 4];
    region.read_exact_at(&mut word, held).unwrap();
    drop((dmb, owner, remote, user));
    // As if the user had been killed.
    region.write_all_at(&word, held).unwrap();
    let next = once_free(|| Region::open_slot(fabric.path(), 0));
    assert!(will_be(|| next.memory_left(next.gid(), None) == all));
}

#[test]
fn a_region_in_use_is_not_made_anew() {
    for liveness in [Liveness::Locks, Liveness::Heartbeats] {
        let fabric = Fabric::new(liveness);
        let geometry = Geometry::new(32 << 20, 4, 64, REGION_FABRIC, liveness).unwrap();
        let make = || Region::create(fabric.path(), &geometry);
        make().unwrap();
        let [one, other] = [3, 1].map(|slot| Region::open_slot(fabric.path(), slot).unwrap());
        assert!(matches!(make(), Err(RegionError::InUse)));
        assert!(will_be(|| one.query_remote_gid(other.gid(), None).is_ok()));
        drop((one, other));
        assert!(will_be(|| make().is_ok()));
    }
}

#[test]
fn who_has_a_dmb_mapped_stays_in_the_region() {
    let fabric = Fabric::new(Liveness::Locks);
    let [owner, user] = [(); 2].map(|()| fabric.join());
    let (gid, all) = (user.gid(), owner.memory_left(user.gid(), None));
    let dmb = owner.register_dmb(gid, LEN, None).unwrap();
    let remote = user.attach_dmb(owner.gid(), dmb.token(), LEN).unwrap();
    drop(user);
    drop(dmb);
    thread::sleep(Duration::from_millis(100));
    owner.query_remote_gid(gid, None).unwrap();
    assert_eq!(owner.memory_left(gid, None), all - LEN);
    drop(remote);
    assert!(will_be(|| owner.query_remote_gid(gid, None).is_err() && owner.memory_left(gid, None) == all));
}

#[test]
fn a_dmb_of_a_vlan_is_for_those_who_are_in_it() {
    let fabric = Fabric::new(Liveness::Locks);
    let [owner, user] = [(); 2].map(|()| fabric.join());
    let dmb = owner.register_dmb(user.gid(), LEN, Some(VlanId(5))).unwrap();
    let attach = || user.attach_dmb(owner.gid(), dmb.token(), LEN);
    assert!(matches!(attach(), Err(DeviceError::UnknownToken(_))));
    assert!(user.move_data(dmb.token(), 0, false, 0, &[1]).is_err());
    user.add_vlan_id(VlanId(5)).unwrap();
    attach().unwrap();
    user.move_data(dmb.token(), 0, false, 0, &[1]).unwrap();
    let dmb = owner.register_dmb(user.gid(), LEN, Some(VlanId::ISM_V2)).unwrap();
    user.move_data(dmb.token(), 0, false, 0, &[1]).unwrap();
}

#[test]
fn conforms_over_ivshmem() {
    let servers = RefCell::new(Vec::new());
    conformance::check(|| {
        let server = Server::new();
        let three = [(); 3].map(|()| Arc::new(server.join()) as Arc<dyn Device>);
        servers.borrow_mut().push(server);
        three
    });
}

#[test]
fn without_a_server_nobody_is_reached() {
    let server = Server::new();
    let [one, other] = [server.join(), server.join()];
    one.query_remote_gid(other.gid(), None).unwrap();
    let dmb = one.register_dmb(other.gid(), 65536, None).unwrap();
    let remote = other.attach_dmb(one.gid(), dmb.token(), 65536).unwrap();
    drop(server);
    let until = Instant::now() + Duration::from_secs(10);
    while !dmb.interrupt().is_hung_up() || !remote.doorbell().is_hung_up() {
        assert!(Instant::now() < until, "the end is not noticed");
        thread::sleep(Duration::from_millis(2));
    }
    assert!(matches!(one.query_remote_gid(other.gid(), None), Err(DeviceError::Unreachable(_))));
    // The memory is still there.
    remote.memory().write(0, b"nobody reads").unwrap();
}

#[test]
fn regions_of_servers_are_no_files() {
    let geometry = Geometry::new(16 << 20, 4, 64, REGION_FABRIC, Liveness::Server).unwrap();
    assert!(matches!(Region::create("/nonexistent", &geometry), Err(RegionError::OfServer)));
    assert!(matches!(Region::connect("/nonexistent"), Err(ConnectError::Connect(_))));
}

/// In a virtual machine: three functions that are bound to `vfio-pci`, named in `SMCD_TEST_VFIO` (`interop/devices`).
#[cfg(feature = "vfio")]
#[test]
fn conforms_over_vfio() {
    let Ok(addresses) = std::env::var("SMCD_TEST_VFIO") else {
        eprintln!("SKIPPED: SMCD_TEST_VFIO does not name functions");
        return;
    };
    let addresses: Vec<_> = addresses.split_whitespace().collect();
    let addresses: [&str; 3] = addresses.try_into().unwrap();
    conformance::check(|| {
        addresses.map(|address| Arc::new(once_free(|| Region::open_vfio(address))) as Arc<dyn Device>)
    });
}

/// In a virtual machine: a DAX device, named in `SMCD_TEST_DAX` (`interop/devices`). What is in it is lost.
#[test]
fn conforms_over_dax() {
    let Ok(device) = std::env::var("SMCD_TEST_DAX") else {
        eprintln!("SKIPPED: SMCD_TEST_DAX does not name a device");
        return;
    };
    for liveness in [Liveness::Heartbeats, Liveness::Locks] {
        let geometry = Geometry::new(16 << 20, 4, 64, REGION_FABRIC, liveness).unwrap();
        conformance::check(|| {
            once_free(|| Region::create(&device, &geometry));
            [0, 1, 2].map(|slot| Arc::new(once_free(|| Region::open_slot(&device, slot))) as Arc<dyn Device>)
        });
    }
}

/// A function or slot is free again once the thread of the device before has ended.
fn once_free<T, E: std::fmt::Display>(open: impl Fn() -> Result<T, E>) -> T {
    let until = Instant::now() + Duration::from_secs(20);
    loop {
        match open() {
            Err(error) if Instant::now() > until => panic!("{error}"),
            Err(_) => thread::sleep(Duration::from_millis(20)),
            Ok(done) => return done,
        }
    }
}

/// A process that knows of a region by its settings alone.
#[test]
fn settings_of_the_environment() {
    let Some(addr) = role() else { return };
    block_on(async {
        let config = SmcConfig::from_env().unwrap().handshake(Handshake::InBand);
        let mut stream = SmcStream::connect_with(addr, &config).await.unwrap();
        stream.write_all(b"by the region").await.unwrap();
        // Until the other end has read it.
        let _ = stream.read(&mut [0]).await;
    });
}

#[test]
fn a_region_is_named_by_the_environment() {
    if role().is_some() {
        return;
    }
    let fabric = Fabric::new(Liveness::Locks);
    block_on(async {
        let listener = SmcListener::bind_with("127.0.0.1:0", over(fabric.join())).await.unwrap();
        let child =
            spawn_with("settings_of_the_environment", &listener.local_addr().unwrap().to_string(), |child| {
                child.env("SMCD_REGION", fabric.path());
            });
        let (mut stream, _) = in_time(listener.accept()).await.unwrap();
        let Transport::Smcd { .. } = stream.transport() else { panic!("{}", stream.transport()) };
        let mut got = [0; 13];
        in_time(stream.read_exact(&mut got)).await.unwrap();
        assert_eq!(&got, b"by the region");
        drop(stream);
        assert!(child.wait_with_output().unwrap().status.success());
    });
}
