//! Two processes in network namespaces of their own, joined by a pair of network devices. Needs root, and the programs `ip`,
//! `nsenter` and `unshare`. Without tokio.
#![allow(dead_code, missing_docs, unreachable_pub)]

use std::{
    io::{BufRead, BufReader, Read, Write},
    path::Path,
    process::{Child, Command, Stdio},
};

use super::process::ROLE;

/// Addresses of the two, by IPv4 and IPv6.
pub const SERVER: [&str; 2] = ["10.77.231.1", "fd77::1"];
pub const CLIENT: [&str; 2] = ["10.77.231.2", "fd77::2"];

/// True if namespaces can be made.
pub fn can_be_made() -> bool {
    rustix::process::geteuid().is_root() && ["ip", "nsenter", "unshare"].into_iter().all(has)
}

fn has(program: &str) -> bool {
    Command::new(program).arg("--help").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok()
}

/// Runs the test function `test` of this binary in a namespace of its own, with this role. It has to call [`wait`] first.
pub fn start(test: &str, role: &str, dir: &Path) -> Child {
    let mut child = Command::new("unshare")
        .arg("--net")
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture", "--test-threads=1"])
        .env(ROLE, role)
        .env("SMCD_RUNTIME_DIR", dir)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    wait_for(&mut child, "waiting");
    child
}

/// In such a process: waits for its network.
pub fn wait() {
    println!("\nwaiting");
    std::io::stdin().lines().next();
}

/// In the server: connections are waited for.
pub fn is_listening() {
    println!("\nlistening");
}

/// Reads what a process says until it has said this.
fn wait_for(child: &mut Child, word: &str) {
    let mut output = BufReader::with_capacity(1, child.stdout.take().unwrap());
    let mut line = String::new();
    while !line.contains(word) {
        line.clear();
        assert!(output.read_line(&mut line).unwrap() > 0, "the process has ended");
    }
    child.stdout = Some(output.into_inner());
}

/// Joins the two namespaces, and lets the processes go on.
pub fn join(server: &mut Child, client: &mut Child) {
    let [at_server, at_client] = [server.id(), client.id()];
    ip(&[], &format!("link add smcd0 netns {at_server} type veth peer name smcd0 netns {at_client}"));
    for (process, addresses) in [(&mut *server, SERVER), (&mut *client, CLIENT)] {
        let namespace = process.id().to_string();
        let inside = |words: &str| ip(&["nsenter", "--net", "--target", &namespace], words);
        inside("link set lo up");
        inside(&format!("addr add {}/24 dev smcd0", addresses[0]));
        inside(&format!("addr add {}/64 dev smcd0 nodad", addresses[1]));
        inside("link set smcd0 up");
    }
    server.stdin.take().unwrap().write_all(b"\n").unwrap();
    wait_for(server, "listening");
    client.stdin.take().unwrap().write_all(b"\n").unwrap();
}

fn ip(before: &[&str], words: &str) {
    let mut command = before.iter().copied().chain(["ip"]).chain(words.split(' '));
    let status = Command::new(command.next().unwrap()).args(command).status().unwrap();
    assert!(status.success(), "ip {words}");
}

/// What the two said till their ends, which have to be good ones: the client, then the server.
pub fn said(server: &mut Child, client: &mut Child) -> [String; 2] {
    [client, server].map(|process| {
        let mut said = String::new();
        process.stdout.take().unwrap().read_to_string(&mut said).unwrap();
        assert!(process.wait().unwrap().success(), "{said}");
        said
    })
}
