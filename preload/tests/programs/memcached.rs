//! memcached, four threads; its text protocol spoken by a Python program.

use crate::{
    command::{Running, are_here, command, free_port, run, until_listening},
    mode::{End, Mode, in_each_mode},
    scratch::Scratch,
};

in_each_mode! { sets_and_gets }

/// What it prints is checked, so that it is known to have run to its end.
const CLIENT: &str = include_str!("python/memcached_client.py");

fn sets_and_gets(mode: Mode) {
    const PYTHON: &str = "/usr/bin/python3";
    if !are_here(&["memcached", PYTHON]) {
        return;
    }
    let (scratch, port) = (Scratch::new("memcached"), free_port().to_string());
    let mut command_line = command("memcached", &scratch, mode, End::Server);
    command_line.args([
        "-l",
        "127.0.0.1",
        "-p",
        &port,
        "-U",
        "0",
        "-t",
        "4",
        "-m",
        "256",
        "-I",
        "8m",
        "-c",
        "3000",
    ]);
    if rustix::process::geteuid().is_root() {
        command_line.args(["-u", "root"]);
    }
    let mut server = Running::start(&mut command_line);
    until_listening(port.parse().expect("a number"));
    let mut client = command(PYTHON, &scratch, mode, End::Client);
    let text = run(client.args(["-c", CLIENT, &port]), b"", 120).text();
    assert_eq!(text, "200 connections, 8000 sets, 8000 gets, 16 large\n");
    scratch.check_promotions(mode, 200);
    server.signal(rustix::process::Signal::TERM);
    assert!(server.wait(std::time::Duration::from_secs(20)).is_some_and(|status| status.success()));
}
