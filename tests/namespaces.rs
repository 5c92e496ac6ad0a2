//! Ends in network namespaces of their own, as two containers have them, that share a directory. Needs root, and the
//! programs `ip` and `unshare`.
#![allow(missing_docs)]

mod common;

use std::{
    io::{BufRead, BufReader, Read, Write},
    path::Path,
    process::{Child, Command, Stdio},
};

use common::{ROLE, block_on, in_time, pattern, promoting, role};
use smcd::{Promotion, SmcListener, SmcStream, Transport};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const TEST: &str = "containers_that_share_a_directory";
const SERVER: &str = "10.77.231.1";
const CLIENT: &str = "10.77.231.2";

#[test]
fn containers_that_share_a_directory() {
    if let Some(argument) = role() {
        return block_on(in_time(container(&argument)));
    }
    if !rustix::process::geteuid().is_root() || !has("ip") || !has("unshare") {
        eprintln!("SKIPPED: needs root, `ip` and `unshare`");
        return;
    }
    let dir = std::env::temp_dir().join(format!("smcd-containers-{}", std::process::id()));
    std::fs::create_dir(&dir).unwrap();
    // With a directory in common they meet; without, each looks for the other in its own namespace, and stays TCP.
    for (server_dir, client_dir, meets) in [(&*dir, &*dir, true), (&*dir, Path::new(""), false)] {
        let mut server = start("server", server_dir);
        let mut client = start("client", client_dir);
        join(&mut server, &mut client);
        let said = [&mut client, &mut server].map(|process| {
            let mut said = String::new();
            process.stdout.take().unwrap().read_to_string(&mut said).unwrap();
            assert!(process.wait().unwrap().success(), "{said}");
            said
        });
        for said in said {
            assert_eq!(said.contains("by SMC-D"), meets, "{said}");
        }
    }
    assert_eq!(std::fs::read_dir(&dir).unwrap().count(), 0, "a name is left");
    std::fs::remove_dir(&dir).unwrap();
}

fn has(program: &str) -> bool {
    Command::new(program).arg("--help").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok()
}

/// A process in a network namespace of its own. It waits for its network.
fn start(what: &str, dir: &Path) -> Child {
    let mut child = Command::new("unshare")
        .arg("--net")
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", TEST, "--nocapture", "--test-threads=1"])
        .env(ROLE, what)
        .env("SMCD_RUNTIME_DIR", dir)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    wait_for(&mut child, "waiting");
    child
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

/// Joins the two namespaces by a pair of network devices.
fn join(server: &mut Child, client: &mut Child) {
    let run = |words: &str| {
        let status = Command::new("ip").args(words.split(' ')).status().unwrap();
        assert!(status.success(), "ip {words}");
    };
    let [at_server, at_client] = [server.id(), client.id()];
    run(&format!("link add smcd0 netns {at_server} type veth peer name smcd0 netns {at_client}"));
    for (process, address) in [(&mut *server, SERVER), (&mut *client, CLIENT)] {
        let namespace = process.id();
        let inside = |words: &str| {
            let status = Command::new("nsenter")
                .args(["--net", "--target", &namespace.to_string(), "ip"])
                .args(words.split(' '))
                .status()
                .unwrap();
            assert!(status.success(), "ip {words}");
        };
        inside("link set lo up");
        inside(&format!("addr add {address}/24 dev smcd0"));
        inside("link set smcd0 up");
    }
    server.stdin.take().unwrap().write_all(b"\n").unwrap();
    wait_for(server, "listening");
    client.stdin.take().unwrap().write_all(b"\n").unwrap();
}

async fn container(what: &str) {
    println!("\nwaiting");
    std::io::stdin().lines().next();
    // The directory is that of the environment.
    let config = promoting(Promotion::Eager);
    let mut stream = if what == "server" {
        let listener = SmcListener::bind_with((SERVER, 7777), config).await.unwrap();
        println!("\nlistening");
        listener.accept().await.unwrap().0
    } else {
        SmcStream::connect_with((SERVER, 7777), &config).await.unwrap()
    };
    let mut got = vec![0; 1000];
    for i in 0..100 {
        let sent = pattern(i, 1000);
        if what == "server" {
            stream.write_all(&sent).await.unwrap();
        }
        stream.read_exact(&mut got).await.unwrap();
        assert!(got == sent);
        if what == "client" {
            stream.write_all(&sent).await.unwrap();
        }
    }
    println!("\nconnected by {}", stream.transport());
    let moved = stream.byte_counts();
    assert_eq!(matches!(stream.transport(), Transport::Smcd { .. }), moved.sent > 0 && moved.received > 0);
}
