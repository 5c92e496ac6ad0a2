//! Python's own servers and clients, and CPython's own tests of sockets and asyncio.

use std::{collections::BTreeSet, process::Command, sync::OnceLock};

use crate::{
    command::{are_here, command, run},
    mode::{End, Mode, in_each_mode},
    scratch::Scratch,
};

/// Debian's, whose tests come as a package; not one that somebody has put in front of it.
const PYTHON: &str = "/usr/bin/python3";

/// A program with both a server's and a client's part: started as the server, it prints its port, and ends when its
/// input does.
struct Program {
    name: &'static str,
    source: &'static str,
    /// What both parts are told first.
    args: &'static [&'static str],
    /// What the client prints at its end.
    says: &'static str,
    /// Connections that carry enough to be promoted, by either policy.
    connections: usize,
}

macro_rules! program {
    ($name:literal, $connections:literal, $says:literal $(, $arg:literal)?) => {
        Program {
            name: $name,
            source: include_str!(concat!("python/", $name, ".py")),
            args: &[$($arg)?],
            says: $says,
            connections: $connections,
        }
    };
}

in_each_mode! { http_server asyncio_echo asyncio_streams forking_server threading_server multiprocess }

fn http_server(mode: Mode) {
    test(&program!("http_server", 3, "3 downloads of 20000000 bytes, 100 requests"), mode);
}

fn asyncio_echo(mode: Mode) {
    test(&program!("asyncio_echo", 1000, "2000 connections, 60000 messages"), mode);
}

fn asyncio_streams(mode: Mode) {
    // All of it is sent in one go, so that some connections end before the two ends have found the time to meet.
    test(&program!("asyncio_streams", 3, "10 connections, 80000000 bytes there and back"), mode);
}

fn forking_server(mode: Mode) {
    test(&program!("mixin_server", 40, "40 connections, 4000 lines", "process"), mode);
}

fn threading_server(mode: Mode) {
    test(&program!("mixin_server", 40, "40 connections, 4000 lines", "thread"), mode);
}

fn multiprocess(mode: Mode) {
    test(&program!("multiprocess", 5, "5 connections, 500 objects, 5 managers' lists"), mode);
}

fn test(program: &Program, mode: Mode) {
    if !are_here(&[PYTHON]) {
        return;
    }
    let scratch = Scratch::new(program.name);
    let source = scratch.write("program.py", program.source);
    let mut server = command(PYTHON, &scratch, mode, End::Server);
    server.arg(&source).args(program.args).arg("server").env("PYTHONUNBUFFERED", "1");
    let streams = std::fs::File::create(scratch.path("server.out")).expect("created");
    server.stdout(streams.try_clone().expect("a descriptor")).stderr(streams);
    let server = crate::command::Running::start(&mut server);
    crate::command::until("the server says its port", || scratch.read("server.out").ends_with('\n'));
    let port = scratch.read("server.out").trim().to_owned();
    let mut client = command(PYTHON, &scratch, mode, End::Client);
    let done = run(client.arg(&source).args(program.args).arg("client").arg(&port), b"", 60);
    assert_eq!(done.stderr, "", "server: {}", scratch.read("server.out"));
    assert_eq!(done.text().trim(), program.says);
    assert_eq!(scratch.read("server.out").trim(), port, "the server complains");
    scratch.check_promotions(mode, 2 * program.connections);
    drop(server);
}

in_each_mode! { cpython_socket cpython_asyncio }

fn cpython_socket(mode: Mode) {
    static PLAIN: OnceLock<Option<BTreeSet<String>>> = OnceLock::new();
    compare(mode, &PLAIN, &["test.test_socket"]);
}

/// Those modules of `test_asyncio` that use sockets; the others take longer and open none.
fn cpython_asyncio(mode: Mode) {
    static PLAIN: OnceLock<Option<BTreeSet<String>>> = OnceLock::new();
    const MODULES: [&str; 9] = [
        "test.test_asyncio.test_base_events",
        "test.test_asyncio.test_buffered_proto",
        "test.test_asyncio.test_events",
        "test.test_asyncio.test_selector_events",
        "test.test_asyncio.test_sendfile",
        "test.test_asyncio.test_server",
        "test.test_asyncio.test_sock_lowlevel",
        "test.test_asyncio.test_streams",
        "test.test_asyncio.test_unix_events",
    ];
    compare(mode, &PLAIN, &MODULES);
}

/// No test fails that does not fail on plain TCP too. Both ends are in one process there: that leaves one way to
/// accelerate them.
fn compare(mode: Mode, plain: &OnceLock<Option<BTreeSet<String>>>, modules: &[&str]) {
    let Some(before) = plain.get_or_init(|| failures(Mode::Tcp, modules)) else { return };
    if mode.promotes() {
        let with_it = failures(mode, modules).expect("the tests are there");
        let new: Vec<_> = with_it.difference(before).collect();
        assert!(new.is_empty(), "they fail with the library only: {new:?}");
    }
}

/// Runs tests by CPython's own runner; the names of those that fail.
fn failures(mode: Mode, modules: &[&str]) -> Option<BTreeSet<String>> {
    if !are_here(&[PYTHON])
        || !run(Command::new(PYTHON).args(["-c", "import test.test_socket"]), b"", 60).status.success()
    {
        eprintln!("SKIPPED: no tests of CPython (libpython3.*-testsuite)");
        return None;
    }
    let scratch = Scratch::new("cpython");
    let source = scratch.write("run.py", include_str!("python/run_tests.py"));
    let mut tests = command(PYTHON, &scratch, mode, End::Server);
    let done = run(tests.arg(source).args(modules), b"", 400);
    // Those that failed, one in a line, behind a word on how many there were.
    let text = scratch.read("results");
    let mut lines = text.lines();
    let count: usize = lines
        .next()
        .and_then(|line| line.strip_prefix("ran ")?.parse().ok())
        .unwrap_or_else(|| panic!("the tests did not come to their end: {}\n{}", done.status, done.stderr));
    assert!(count > 100, "only {count} tests");
    Some(lines.map(str::to_owned).collect())
}
