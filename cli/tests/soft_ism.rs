//! `smcdctl soft-ism`, with processes that use its functions.

mod common;

use std::{
    io::{BufRead, BufReader, Read},
    path::Path,
    process::{Child, ChildStdout, Stdio},
};

use common::smcdctl;
use smcd::dibs::{Chid, Device, DeviceError, ism::Ism};

/// Starts a server, and waits until it serves; with what it says first.
fn serve(directory: &Path, options: &[&str]) -> (Child, BufReader<ChildStdout>, String) {
    let mut command = smcdctl();
    command.args(["soft-ism", "--functions", "3", "--socket-dir"]).arg(directory).args(options);
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut out = BufReader::new(child.stdout.take().unwrap());
    let mut said = String::new();
    while !said.contains("    2: ") {
        assert_ne!(out.read_line(&mut said).unwrap(), 0, "{said}");
    }
    (child, out, said)
}

/// Stops it; what it says last.
fn stop((mut child, mut out, _): (Child, BufReader<ChildStdout>, String)) -> String {
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    assert!(child.wait().unwrap().success());
    let mut said = String::new();
    out.read_to_string(&mut said).unwrap();
    said
}

#[test]
fn functions_are_served_until_they_are_stopped() {
    let dir = tempfile::tempdir().unwrap();
    let served = serve(dir.path(), &["--fabric", "0x0123"]);
    assert!(served.2.starts_with("3 ISM functions on fabric 0x0123\n"), "{}", served.2);
    let socket = |function| dir.path().join(format!("function{function}"));
    let [owner, user] = [0, 1].map(|function| Ism::connect(socket(function)).unwrap());
    assert_eq!(owner.fabric_id(), Chid(0x0123));
    assert!(served.2.contains(&format!("0: GID {:#018x}, ", owner.gid().high())), "{}", served.2);
    let dmb = owner.register_dmb(user.gid(), 65536, None).unwrap();
    user.move_data(dmb.token(), 0, true, 4000, &[7; 200]).unwrap();
    let said = stop(served);
    assert!(said.contains("function 1: 2 store blocks of 200 bytes, 1 with a signal; "), "{said}");
    assert!(!socket(0).exists());
}

#[test]
fn faults_are_as_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let served = serve(dir.path(), &["--fault", "0:answer:0x0a:0x77", "--fault", "1:failure:1"]);
    let [owner, user] =
        [0, 1].map(|function| Ism::connect(dir.path().join(format!("function{function}"))).unwrap());
    let refused = owner.register_dmb(user.gid(), 65536, None);
    assert!(matches!(refused, Err(DeviceError::Refused { command: 0x0a, code: 0x77 })), "{refused:?}");
    let dmb = owner.register_dmb(user.gid(), 65536, None).unwrap();
    user.move_data(dmb.token(), 0, true, 0, &[1]).unwrap();
    assert!(matches!(user.move_data(dmb.token(), 0, true, 0, &[1]), Err(DeviceError::Lost)));
    let said = stop(served);
    assert!(said.contains("function 0: 0 store blocks") && said.contains("refused 1 commands"), "{said}");
    let output = smcdctl().args(["soft-ism", "--fault", "2:lost:1", "--socket-dir"]).arg(dir.path()).output();
    assert_eq!(output.unwrap().status.code(), Some(1), "there is no function 2");
}
