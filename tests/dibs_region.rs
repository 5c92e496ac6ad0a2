//! The device over a shared region: conformance, and what is its own.

mod common;
mod conformance;

use std::{
    cell::RefCell,
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
        Device, DeviceError,
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
            Region::create(&device, &geometry).unwrap();
            [0, 1, 2].map(|slot| Arc::new(once_free(|| Region::open_slot(&device, slot))) as Arc<dyn Device>)
        });
    }
}

/// A function or slot is free again once the thread of the device before has ended.
fn once_free<E: std::fmt::Display>(open: impl Fn() -> Result<Region, E>) -> Region {
    let until = Instant::now() + Duration::from_secs(20);
    loop {
        match open() {
            Err(error) if Instant::now() > until => panic!("{error}"),
            Err(_) => thread::sleep(Duration::from_millis(20)),
            Ok(region) => return region,
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
