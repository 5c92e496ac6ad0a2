//! `smcdctl fabric`, with processes that take part.

mod common;

use std::{
    fs,
    io::{BufRead, BufReader},
    os::unix::{fs::FileTypeExt, net::UnixListener},
    path::Path,
    process::{Child, Stdio},
};

use common::smcdctl;
use smcd::dibs::{Device, region::Region};

/// Starts a server, and waits until it serves; with what it says first.
fn serve(socket: &Path) -> (Child, String) {
    let mut command = smcdctl();
    command.args(["fabric", "serve", "--size", "16M", "--slots", "3", "--fabric", "0xff60", "--socket"]);
    let mut child = command.arg(socket).stdout(Stdio::piped()).spawn().unwrap();
    let mut said = String::new();
    let mut lines = BufReader::new(child.stdout.take().unwrap());
    while !said.contains("-device") {
        assert_ne!(lines.read_line(&mut said).unwrap(), 0, "{said}");
    }
    (child, said)
}

fn end(mut child: Child, signal: i32) {
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::from_named_raw(signal).unwrap()).unwrap();
    assert!(child.wait().unwrap().success());
}

#[test]
fn a_fabric_is_served_until_it_is_stopped() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("fabric");
    for signal in [libc::SIGTERM, libc::SIGINT] {
        let (server, said) = serve(&socket);
        assert!(said.contains("fabric 0xff60 of 16777216 bytes for 3 endpoints"), "{said}");
        assert!(said.contains(&format!("path={}'", socket.display())), "{said}");
        let [one, other] = [(); 2].map(|()| Region::connect(&socket).unwrap());
        assert_eq!((one.slot(), other.slot(), one.fabric_id().0), (0, 1, 0xff60));
        one.query_remote_gid(other.gid(), None).unwrap();
        end(server, signal);
        assert!(!socket.exists());
    }
}

#[test]
fn only_sockets_that_nobody_answers_on_are_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("fabric");
    drop(UnixListener::bind(&socket).unwrap());
    let (server, _) = serve(&socket);
    let again = smcdctl().args(["fabric", "serve", "--socket"]).arg(&socket).output().unwrap();
    assert_eq!(again.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&again.stderr).contains("a server listens at"));
    assert!(fs::symlink_metadata(&socket).unwrap().file_type().is_socket());
    Region::connect(&socket).unwrap();
    end(server, libc::SIGTERM);
    fs::write(&socket, "mine").unwrap();
    let output = smcdctl().args(["fabric", "serve", "--socket"]).arg(&socket).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("is no socket"));
    assert_eq!(fs::read(&socket).unwrap(), b"mine");
}

#[test]
fn fabrics_that_cannot_be_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    for (option, value, says) in [
        ("--size", "3M", "power of two"),
        ("--size", "4096", "cannot be divided"),
        ("--slots", "65", "2 to 64"),
        ("--entries", "17", "in steps of 16"),
        ("--fabric", "0xffff", "0xff00 to 0xfffe"),
    ] {
        let socket = dir.path().join("fabric");
        let output =
            smcdctl().args(["fabric", "serve", option, value, "--socket"]).arg(&socket).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains(says), "{said}");
        assert!(!socket.exists());
    }
}
