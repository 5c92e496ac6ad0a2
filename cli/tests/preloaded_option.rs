//! The SMC option and unmodified programs: with it, a connection is in shared memory from its first byte. Skipped as
//! `syn_option` and `preloaded` are.
#![allow(missing_docs)]

mod common;
mod enabled;
#[path = "../../tests/common/namespace.rs"]
mod namespace;
#[path = "../../tests/common/process.rs"]
mod process;

use std::{
    env, fs,
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, Stdio},
    time::{Duration, Instant},
};

use common::{by_pid, list};
use enabled::Enabled;
use serde_json::Value;

/// Both ends, in the ways in which programs wait. A server says its port; a client what it took, in milliseconds, and then
/// keeps its connection until it is told a line. `echoing` are hosts that send the option back and know nothing of it.
const PROGRAM: &str = r#"
import asyncio, os, signal, socket, sys, threading, time
role, port = sys.argv[1], int(sys.argv[2])
sent = os.urandom(300000)

def asking():
    asking = socket.socket()
    asking.setsockopt(286, 100, 1)
    return asking

def listen(listener):
    listener.bind(("127.0.0.1", 0))
    listener.listen(100)
    print(listener.getsockname()[1], flush=True)
    return listener

def echo(stream):
    while data := stream.recv(65536):
        stream.sendall(data)
    stream.close()

def threaded():
    listener = listen(socket.socket())
    while True:
        threading.Thread(target=echo, args=(listener.accept()[0],), daemon=True).start()

def forking():
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    listener = listen(socket.socket())
    while True:
        stream = listener.accept()[0]
        if os.fork() == 0:
            listener.close()
            echo(stream)
            os._exit(0)
        stream.close()

async def loop():
    async def serve(reader, writer):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
        writer.close()
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()

def echoing(answer):
    listener, accepted = listen(asking()), 0
    while True:
        stream = listener.accept()[0]
        accepted += 1
        if accepted % 2 == 0:
            echo(stream)
            continue
        try:
            proposal = stream.recv(1000)
            stream.sendall(proposal if answer == "back" else b"400 what?\n")
            while stream.recv(1000): pass
        except OSError:
            pass
        stream.close()

def done(began):
    print(round((time.time() - began) * 1000), flush=True)
    sys.stdin.readline()

def client(timeout):
    began = time.time()
    stream = socket.create_connection(("127.0.0.1", port), timeout=timeout)
    threading.Thread(target=stream.sendall, args=(sent,)).start()
    got = b""
    while len(got) < len(sent):
        data = stream.recv(65536)
        assert data, "the end"
        got += data
    assert got == sent
    done(began)

async def loop_client():
    began = time.time()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(sent)
    assert await reader.readexactly(len(sent)) == sent
    done(began)
    writer.close()

def silent():
    streams = []
    for _ in range(50):
        stream = asking()
        stream.connect(("127.0.0.1", port))
        streams.append(stream)
    done(time.time())

match role:
    case "threaded": threaded()
    case "forking": forking()
    case "loop": asyncio.run(loop())
    case "echoing-back": echoing("back")
    case "echoing-talk": echoing("talk")
    case "client": client(None)
    case "client-with-timeout": client(20)
    case "client-loop": asyncio.run(loop_client())
    case "silent": silent()
"#;

/// All ways to connect.
const CLIENTS: [&str; 3] = ["client", "client-with-timeout", "client-loop"];

/// What is needed, or a word on what is missing.
struct Setting {
    enabled: Enabled,
    python: PathBuf,
    library: PathBuf,
}

impl Setting {
    fn new(name: &str) -> Option<Self> {
        let library = Path::new(env!("CARGO_BIN_EXE_smcdctl")).with_file_name("libsmcd_preload.so");
        // The program itself, not a script that looks for it.
        let output = Command::new("python3").args(["-c", "import sys; print(sys.executable)"]).output().ok();
        let python =
            output.and_then(|output| Some(PathBuf::from(String::from_utf8(output.stdout).ok()?.trim())));
        let (true, Some(python)) = (library.exists(), python) else {
            eprintln!("SKIPPED without libsmcd_preload.so and python3");
            return None;
        };
        Some(Self { enabled: Enabled::new(name)?, python, library })
    }

    /// Starts the program in this role, where the option is enabled.
    fn start(&self, role: &str, port: &str, is_preloaded: bool) -> Running {
        self.start_with(role, port, is_preloaded.then_some("127.0.0.0/8"))
    }

    /// As [`Setting::start`], with the library if there are peers that it is to ask.
    fn start_with(&self, role: &str, port: &str, peers: Option<&str>) -> Running {
        let mut command = Command::new("sh");
        command.args(["-c", "read go; exec \"$@\"", "sh"]).arg("env");
        if let Some(peers) = peers {
            // No promotion: what goes by rings does so from the first byte.
            command.arg(format!("LD_PRELOAD={}", self.library.display()));
            command.arg(format!("SMCD_OPTION_PEERS={peers}"));
            command.args(["SMCD_PROMOTION=off", "SMCD_OBSERVE=1"]);
        }
        command.arg(&self.python).args(["-c", PROGRAM, role, port]);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        self.enabled.serve(child.id());
        child.stdin.as_ref().unwrap().write_all(b"\n").unwrap();
        let mut out = BufReader::new(child.stdout.take().unwrap());
        let said = line(&mut out);
        Running { child, said }
    }
}

fn line(out: &mut BufReader<ChildStdout>) -> String {
    let mut line = String::new();
    out.read_line(&mut line).unwrap();
    line.trim().to_owned()
}

/// A program that has said its first line. Killed on drop.
struct Running {
    child: Child,
    said: String,
}

impl Running {
    /// What a client took.
    fn took(&self) -> Duration {
        Duration::from_millis(self.said.parse().expect("it is done"))
    }

    /// Its connections that carry anything.
    fn connections(&self) -> Vec<Value> {
        by_pid(&list(&["ss", "--json"]), self.child.id())
    }

    /// Ends a client in order.
    fn finish(mut self) {
        self.child.stdin.take().unwrap().write_all(b"\n").unwrap();
        assert!(self.child.wait().unwrap().success());
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The only connection of a client, by rings alone, or not at all.
#[track_caller]
fn check(client: &Running, is_smcd: bool, reason: &str) {
    let connections = client.connections();
    let [connection] = &connections[..] else { panic!("{connections:?}") };
    let by = |way: &str| connection["received"][way]["bytes"].as_u64().unwrap();
    if is_smcd {
        assert_eq!(connection["in_band"], true, "{connection}");
        assert_eq!((by("ring"), by("tcp")), (300_000, 0), "{connection}");
    } else {
        assert_eq!(connection["reason"]["name"], reason, "{connection}");
        assert_eq!(by("ring"), 0, "{connection}");
    }
}

#[test]
fn both_ends_are_in_shared_memory_from_the_first_byte() {
    let Some(setting) = Setting::new("pre-both") else { return };
    for server in ["threaded", "forking", "loop"] {
        let server = setting.start(server, "0", true);
        for role in CLIENTS {
            // First contact, then the link group again.
            for _ in 0..2 {
                let client = setting.start(role, &server.said, true);
                check(&client, true, "");
                client.finish();
            }
        }
    }
}

#[test]
fn one_end_alone_is_tcp() {
    let Some(setting) = Setting::new("pre-alone") else { return };
    for role in ["threaded", "loop"] {
        let server = setting.start(role, "0", false);
        for role in CLIENTS {
            let client = setting.start(role, &server.said, true);
            check(&client, false, "peer-not-smc");
            client.finish();
        }
        drop(server);
        let server = setting.start(role, "0", true);
        for role in CLIENTS {
            setting.start(role, &server.said, false).finish();
        }
    }
}

/// The server answers all who ask, and declines those that its settings do not name.
#[test]
fn who_is_declined_is_tcp() {
    let Some(setting) = Setting::new("pre-declined") else { return };
    for server in ["threaded", "forking", "loop"] {
        let server = setting.start_with(server, "0", Some("192.0.2.0/24"));
        for role in CLIENTS {
            let client = setting.start(role, &server.said, true);
            check(&client, false, "peer-declined");
            client.finish();
        }
    }
}

/// Some hosts and middleboxes send options back that they do not know.
#[test]
fn an_echo_costs_a_connection_and_no_byte() {
    let Some(setting) = Setting::new("pre-echo") else { return };
    for role in ["echoing-talk", "echoing-back"] {
        let server = setting.start(role, "0", false);
        for role in CLIENTS {
            let client = setting.start(role, &server.said, true);
            check(&client, false, "option-echoed");
            client.finish();
        }
    }
}

/// Clients that have sent the option, and then say nothing.
#[test]
fn the_silent_hold_nobody_up() {
    let Some(setting) = Setting::new("pre-silent") else { return };
    let server = setting.start("loop", "0", true);
    let silent = setting.start("silent", &server.said, false);
    for role in CLIENTS {
        let client = setting.start(role, &server.said, true);
        assert!(client.took() < Duration::from_secs(1), "{:?}", client.took());
        check(&client, true, "");
        client.finish();
    }
    // By then they are plain clients, who wait for the server to speak.
    let until = Instant::now() + Duration::from_secs(20);
    loop {
        let connections = server.connections();
        let plain = connections.iter().filter(|one| one["reason"]["name"] == "peer-not-smc").count();
        if plain == 50 {
            break;
        }
        assert!(Instant::now() < until, "{plain}: {connections:?}");
        std::thread::sleep(Duration::from_millis(100));
    }
    let ticks = fs::read_to_string(format!("/proc/{}/stat", server.child.id())).unwrap();
    let spent: u64 =
        ticks.split_whitespace().skip(13).take(2).map(|ticks| ticks.parse::<u64>().unwrap()).sum();
    assert!(spent < 300, "{spent} ticks of processor time while it waits");
    silent.finish();
}

/// One connection after the other, and a process for each: a silent client costs each of them a moment.
#[test]
fn the_silent_hold_up_a_forking_server_for_a_moment() {
    let Some(setting) = Setting::new("pre-fork") else { return };
    let server = setting.start("forking", "0", true);
    let silent = setting.start("silent", &server.said, false);
    let client = setting.start("client", &server.said, true);
    // 50 times 200 ms, which is what a server waits for first bytes.
    assert!(client.took() < Duration::from_secs(20), "{:?}", client.took());
    client.finish();
    silent.finish();
}
