//! Processes to look at, and the program that looks.
#![allow(dead_code, unreachable_pub)]

use std::{
    env,
    io::{BufRead, BufReader, Read, Write},
    process::{Child, ChildStderr, Command, Stdio},
    thread,
    time::Duration,
};

use serde_json::Value;
use smcd::{
    SmcConfig,
    blocking::{SmcListener, SmcStream},
};

/// Says what a test process is to be.
const ROLE: &str = "SMCD_TEST_ROLE";

/// What the parent of a test process wants of it.
pub fn role() -> Option<String> {
    env::var(ROLE).ok()
}

/// The program, in an environment without settings.
pub fn smcdctl() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_smcdctl"));
    for (name, _) in env::vars_os() {
        if name.to_string_lossy().starts_with("SMC") {
            command.env_remove(name);
        }
    }
    command.env_remove("LD_PRELOAD").stdin(Stdio::null());
    command
}

/// What a command writes, which has to be JSON.
pub fn output(command: &mut Command) -> Value {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// As [`output`], of the program with these arguments.
pub fn json(arguments: &[&str]) -> Value {
    output(smcdctl().args(arguments))
}

/// As [`json`], if it is a list.
pub fn list(arguments: &[&str]) -> Vec<Value> {
    json(arguments).as_array().unwrap().clone()
}

/// Those that belong to this process.
pub fn by_pid(list: &[Value], pid: u32) -> Vec<Value> {
    list.iter().filter(|entry| entry["pid"] == pid).cloned().collect()
}

/// A process that has both ends of a connection and sends on it all the time. Killed on drop.
pub struct Talkers {
    child: Child,
    address: String,
    reports: std::cell::RefCell<BufReader<ChildStderr>>,
}

/// Starts the test `talkers` of this binary in this role, and waits until it has talked.
pub fn spawn_talkers(role: &str) -> Talkers {
    let mut child = Command::new(env::current_exe().unwrap())
        .args(["--exact", "talkers", "--nocapture", "--test-threads=1"])
        .env(ROLE, role)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut reports = BufReader::new(child.stderr.take().unwrap());
    let mut address = String::new();
    reports.read_line(&mut address).unwrap();
    let talkers = Talkers { child, address: address.trim().to_owned(), reports: reports.into() };
    talkers.wait_for_more();
    talkers
}

impl Talkers {
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Where it listens.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Waits until more messages were sent.
    pub fn wait_for_more(&self) {
        let mut line = String::new();
        let mut reports = self.reports.borrow_mut();
        // The first may have been written long ago.
        for _ in 0..2 {
            reports.read_line(&mut line).unwrap();
        }
        assert!(line.contains("more"), "{line}");
    }
}

impl Drop for Talkers {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A pair of ends of one connection.
fn pair(listener: &SmcListener, config: &SmcConfig) -> (SmcStream, SmcStream) {
    let client = SmcStream::connect_with(listener.local_addr().unwrap(), config).unwrap();
    (client, listener.accept().unwrap().0)
}

/// Sends so many messages of 1000 bytes there, and of 10 bytes back.
fn exchange(client: &mut SmcStream, server: &mut SmcStream, messages: usize) {
    let mut message = [0; 1000];
    for _ in 0..messages {
        client.write_all(&message).unwrap();
        server.read_exact(&mut message).unwrap();
        server.write_all(&message[..10]).unwrap();
        client.read_exact(&mut message[..10]).unwrap();
    }
}

/// Has both ends of a connection that carries so many messages each way.
pub fn talk(config: &SmcConfig, messages: usize) {
    let listener = SmcListener::bind_with("127.0.0.1:0", config.clone()).unwrap();
    let (mut client, mut server) = pair(&listener, config);
    exchange(&mut client, &mut server, messages);
}

/// What such a process does: says where it listens, and then "more" each time that it has sent some messages. Others that
/// connect are left waiting.
pub fn talk_for_ever(config: SmcConfig) {
    let listener = SmcListener::bind_with("127.0.0.1:0", config.clone()).unwrap();
    let (mut client, mut server) = pair(&listener, &config);
    eprintln!("{}", listener.local_addr().unwrap());
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            thread::spawn(move || stream.read_to_end(&mut Vec::new()));
        }
    });
    loop {
        exchange(&mut client, &mut server, 50);
        if writeln!(std::io::stderr(), "more").is_err() {
            return;
        }
        thread::sleep(Duration::from_millis(5));
    }
}
