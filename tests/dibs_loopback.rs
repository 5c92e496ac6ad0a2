//! The loopback device: conformance, and what is its own.

mod common;
mod conformance;

use std::sync::Arc;

use common::{block_on, role, spawn, spawn_with};
use conformance::Remote;
use smcd::dibs::{
    Device, DeviceError, Gid,
    loopback::{DmbLimits, LOOPBACK_FABRIC, Loopback},
};

fn device() -> Loopback {
    Loopback::new(DmbLimits::default()).unwrap()
}

#[test]
fn conforms() {
    conformance::check(|| [(); 3].map(|()| Arc::new(device()) as Arc<dyn Device>));
}

#[test]
fn conforms_between_processes() {
    if role().is_some() {
        return;
    }
    let other =
        || Remote::start(|stdin| spawn_with("be_a_device", "run", |command| _ = command.stdin(stdin)));
    conformance::check(|| (Arc::new(device()) as Arc<dyn Device>, [(); 2].map(|()| other())));
}

/// A process of the one above.
#[test]
fn be_a_device() {
    if role().is_some() {
        conformance::serve(Arc::new(device()));
    }
}

#[test]
fn conforms_with_owner_and_user_in_one_device() {
    let device = device();
    let dmb = device.register_dmb(device.gid(), 16384, None).unwrap();
    let remote = device.attach_dmb(device.gid(), dmb.token(), 16384).unwrap();
    remote.memory().write(0, b"self").unwrap();
    let mut got = [0; 4];
    dmb.memory().read(0, &mut got).unwrap();
    assert_eq!(&got, b"self");
}

#[test]
fn gids_are_uuids_of_an_emulated_fabric() {
    let gid = device().gid().to_bytes();
    assert_eq!((gid[6] >> 4, gid[8] >> 6), (4, 2));
    assert!(LOOPBACK_FABRIC.is_emulated());
}

#[test]
fn limits_are_kept_for_all_and_for_each_user() {
    let limited = |limits| (Loopback::new(limits).unwrap(), device());
    let (owner, user) = limited(DmbLimits { dmbs: 2, ..DmbLimits::default() });
    let held = [(); 2].map(|()| owner.register_dmb(user.gid(), 16384, None).unwrap());
    assert!(matches!(owner.register_dmb(user.gid(), 16384, None), Err(DeviceError::NoFreeDmb(2))));
    drop(held);
    owner.register_dmb(user.gid(), 16384, None).unwrap();

    let (owner, user) = limited(DmbLimits { bytes: 40_000, bytes_per_uid: 20_000, ..DmbLimits::default() });
    let _held = owner.register_dmb(user.gid(), 16384, None).unwrap();
    let refused = owner.register_dmb(user.gid(), 16384, None);
    assert!(
        matches!(refused, Err(DeviceError::OutOfMemory { requested: 16384, available: 3616 })),
        "{refused:?}"
    );
}

/// A process with a device; it exits as soon as its standard input ends.
#[test]
fn other_process() {
    if role().is_none() {
        return;
    }
    let device = device();
    let path = std::env::temp_dir().join(format!("smcd-test-gid-{}", std::process::id()));
    std::fs::write(&path, device.gid().to_string()).unwrap();
    let _ = std::io::Read::read(&mut std::io::stdin(), &mut [0]);
    std::fs::remove_file(path).unwrap();
}

#[test]
fn a_device_whose_process_has_ended_is_out_of_reach() {
    if role().is_some() {
        return;
    }
    let mut child = spawn("other_process", "run");
    let path = std::env::temp_dir().join(format!("smcd-test-gid-{}", child.id()));
    let text = block_on(async {
        loop {
            match std::fs::read_to_string(&path) {
                Ok(text) if text.len() == 36 => return text,
                _ => tokio::time::sleep(std::time::Duration::from_millis(5)).await,
            }
        }
    });
    let gid = u128::from_str_radix(&text.replace('-', ""), 16).unwrap();
    let gid = Gid::from_bytes(gid.to_be_bytes());
    let device = device();
    device.query_remote_gid(gid, None).unwrap();
    let dmb = device.register_dmb(gid, 16384, None).unwrap();
    drop(child.stdin.take());
    child.wait().unwrap();
    assert!(matches!(device.query_remote_gid(gid, None), Err(DeviceError::Unreachable(_))));
    assert!(matches!(device.register_dmb(gid, 16384, None), Err(DeviceError::Unreachable(_))));
    device.unregister_dmb(dmb.token()).unwrap();
}
