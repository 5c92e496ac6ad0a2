//! Unmodified programs with the real library before them. Skipped where it was not built, or there is no Python.

mod common;

use std::{
    env, fs,
    io::{BufRead, BufReader, Write},
    os::unix::process::ExitStatusExt,
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, Stdio},
};

use common::{by_pid, list, smcdctl};
use serde_json::Value;

/// A program that has both ends of a connection: says its port, sends 200 messages there and back, and says so. Then it
/// waits for a line, and ends or kills itself as that says.
const PROGRAM: &str = r#"
import os, socket, sys, threading
server = socket.create_server(("127.0.0.1", 0))
print(server.getsockname()[1], flush=True)
def serve(stream):
    while data := stream.recv(65536):
        stream.sendall(data)
def accept():
    while True:
        threading.Thread(target=serve, args=(server.accept()[0],), daemon=True).start()
threading.Thread(target=accept, daemon=True).start()
client = socket.create_connection(server.getsockname())
for _ in range(200):
    client.sendall(b"x" * 1000)
    got = 0
    while got < 1000:
        got += len(client.recv(65536))
print("done", flush=True)
if sys.stdin.readline().strip() == "kill":
    os.kill(os.getpid(), 9)
"#;

/// The library that was built along with the program.
fn library() -> Option<PathBuf> {
    let library = Path::new(env!("CARGO_BIN_EXE_smcdctl")).with_file_name("libsmcd_preload.so");
    library.exists().then_some(library)
}

fn python() -> Option<PathBuf> {
    // The program itself, not a script that looks for it.
    let output = Command::new("python3").args(["-c", "import sys; print(sys.executable)"]).output().ok()?;
    Some(PathBuf::from(String::from_utf8(output.stdout).ok()?.trim()))
}

/// A program that runs, and has talked.
struct Running {
    child: Child,
    out: BufReader<ChildStdout>,
    port: String,
}

impl Running {
    /// Starts the program by this verb; `None` if something is missing for it.
    fn start(verb: &[&str]) -> Option<Self> {
        let (Some(_), Some(python)) = (library(), python()) else {
            eprintln!("SKIPPED without libsmcd_preload.so and python3");
            return None;
        };
        let mut command = smcdctl();
        command.args(verb).arg(python).args(["-c", PROGRAM]);
        let pipes = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = pipes.spawn().unwrap();
        let mut out = BufReader::new(child.stdout.take().unwrap());
        let mut line = || {
            let mut line = String::new();
            out.read_line(&mut line).unwrap();
            line.trim().to_owned()
        };
        let port = line();
        assert_eq!(line(), "done");
        Some(Self { child, out, port })
    }

    /// Has it end so; says how that was, and what was written to the two streams after that.
    fn end(mut self, how: &str) -> (std::process::ExitStatus, String, String) {
        writeln!(self.child.stdin.as_mut().unwrap(), "{how}").unwrap();
        let mut rest = String::new();
        std::io::Read::read_to_string(&mut self.out, &mut rest).unwrap();
        let output = self.child.wait_with_output().unwrap();
        (output.status, rest, String::from_utf8(output.stderr).unwrap())
    }
}

#[test]
fn a_program_is_listed_and_its_server_is_found() {
    let Some(running) = Running::start(&["run"]) else { return };
    // Without a report the program has taken the place of the one that started it.
    let connections = by_pid(&list(&["ss", "--json"]), running.child.id());
    assert_eq!(connections.len(), 2);
    for connection in connections {
        assert_eq!(connection["mode"], "SMC-D");
        assert!(connection["command"].as_str().unwrap().starts_with("python"));
        let bytes = |way: &str| connection["sent"][way]["bytes"].as_u64().unwrap();
        assert_eq!(bytes("ring") + bytes("tcp"), 200_000);
    }
    let checked =
        smcdctl().args(["check", "--json", &format!("127.0.0.1:{}", running.port)]).output().unwrap();
    let report: Value = serde_json::from_slice(&checked.stdout).unwrap();
    assert_eq!(report["verdict"]["smcd"], true, "{report:#}");
    let (status, _, said) = running.end("");
    assert!(status.success());
    assert_eq!(said, "");
}

#[test]
fn a_report_outlasts_a_program_that_is_killed() {
    let Some(running) = Running::start(&["run", "--report"]) else { return };
    let (status, _, report) = running.end("kill");
    assert_eq!(status.signal(), Some(9));
    let number = |name: &str| {
        let line = report.lines().find(|line| line.starts_with(name)).unwrap();
        line.split_whitespace().last().unwrap().to_owned()
    };
    assert_eq!(
        (number("seen"), number("promoted"), number("well suited")),
        ("2".into(), "2".into(), "2".into())
    );
}

#[test]
fn a_program_that_is_not_to_be_promoted_says_so() {
    let Some(running) = Running::start(&["run", "--promotion", "off"]) else { return };
    let connections = by_pid(&list(&["ss", "--json"]), running.child.id());
    assert_eq!(connections.len(), 2);
    for connection in connections {
        assert_eq!((&connection["mode"], &connection["reason"]["name"]), (&"TCP".into(), &"disabled".into()));
    }
    assert!(running.end("").0.success());
}

#[test]
fn applicability_of_an_unmodified_program() {
    let Some(running) = Running::start(&["applicability", "--json"]) else { return };
    let port = format!(":{}\"", running.port);
    let mut of_program = list(&["ss", "--json"]);
    of_program.retain(|connection| connection.to_string().contains(&port));
    assert_eq!(of_program.len(), 2);
    assert!(of_program.iter().all(|connection| connection["mode"] == "TCP"), "{of_program:#?}");
    let (status, out, _) = running.end("");
    assert!(status.success());
    let report: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(report["processes"], 1);
    for part in ["all", "eligible", "well_suited"] {
        assert_eq!(report[part]["connections"], 2, "{report:#}");
        assert_eq!(report[part]["bytes"], 2 * 2 * 200_000);
    }
    assert!(report["gain"]["times"].as_f64().unwrap() > 1.0);
}

#[test]
fn the_library_is_found_next_to_the_program() {
    let Some(library) = library() else { return };
    let output = smcdctl().args(["info", "--json"]).output().unwrap();
    let facts: Value = serde_json::from_slice(&output.stdout).unwrap();
    let found = facts["preload_library"].as_str().unwrap();
    assert_eq!(Path::new(found), fs::canonicalize(library).unwrap());
    assert!(env::var_os("LD_PRELOAD").is_none());
}
