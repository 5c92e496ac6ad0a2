//! The command line, on real processes.

mod common;

use std::{
    fs,
    io::{Read, Write},
    net::TcpListener,
    path::Path,
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use common::{Talkers, by_pid, json, list, role, smcdctl, spawn_talkers, talk_for_ever};
use serde_json::Value;

/// What a process does that the others look at.
#[test]
fn talkers() {
    match role().as_deref() {
        Some("eager") => talk_for_ever(smcd::SmcConfig::new().promotion(smcd::Promotion::Eager)),
        Some("off") => talk_for_ever(smcd::SmcConfig::new().promotion(smcd::Promotion::Off).observe(true)),
        _ => {}
    }
}

#[test]
fn usage_errors_end_with_2() {
    for wrong in [&["run"][..], &["nothing"], &["ss", "--watch=0"], &["check"], &["trace", "--port", "0"]] {
        let output = smcdctl().args(wrong).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{wrong:?}");
        assert!(output.stdout.is_empty() && !output.stderr.is_empty());
    }
}

#[test]
fn ss_shows_promoted_connections() {
    let talkers = spawn_talkers("eager");
    let connections = by_pid(&list(&["ss", "--json"]), talkers.pid());
    assert_eq!(connections.len(), 2);
    for connection in &connections {
        assert_eq!((&connection["state"], &connection["mode"]), (&"ACTIVE".into(), &"SMC-D".into()));
        assert_eq!(connection["reason"], Value::Null);
        assert_eq!(connection["receive_buffer"], (1 << 20) - 32);
        assert!(connection["sent"]["ring"]["bytes"].as_u64() > Some(0));
        assert_eq!(connection["eligible"], true);
    }
    assert_eq!(connections[0]["local"], connections[1]["peer"]);
    assert_eq!(connections[0]["gid"], connections[1]["peer_gid"]);

    let text = smcdctl().args(["ss", "--pid", &talkers.pid().to_string()]).output().unwrap();
    let text = String::from_utf8(text.stdout).unwrap();
    let lines: Vec<_> = text.lines().collect();
    assert!(lines[0].starts_with("State") && lines[0].contains("RcvRing"));
    assert_eq!(lines.len(), 3);
    assert!(lines[1..].iter().all(|line| line.starts_with("ACTIVE ") && line.contains(" SMC-D ")));
}

#[test]
fn ss_says_why_a_connection_is_tcp() {
    let talkers = spawn_talkers("off");
    let connections = by_pid(&list(&["ss", "--json"]), talkers.pid());
    assert_eq!(connections.len(), 2);
    for connection in connections {
        assert_eq!((&connection["state"], &connection["mode"]), (&"FALLBACK".into(), &"TCP".into()));
        assert_eq!(connection["reason"]["name"], "disabled");
        assert_eq!(connection["reason"]["code"], "0x00000000");
        assert!(connection["sent"]["tcp"]["bytes"].as_u64() > Some(0));
        assert_eq!(connection["sent"]["ring"]["bytes"], 0);
    }
}

#[test]
fn nothing_is_left_of_processes_that_are_killed() {
    let talkers = spawn_talkers("eager");
    let pid = talkers.pid();
    assert_eq!(by_pid(&list(&["ss", "--json", "--all"]), pid).len(), 2);
    drop(talkers);
    assert!(by_pid(&list(&["ss", "--json", "--all"]), pid).is_empty());
    let stats = json(&["stats", "--json", "--pid", &pid.to_string()]);
    assert_eq!(stats["processes"], 0);
}

#[test]
fn stats_count_connections_and_bytes() {
    let talkers = spawn_talkers("eager");
    let pid = talkers.pid().to_string();
    let stats = json(&["stats", "--json", "--pid", &pid]);
    let counters = &stats["counters"];
    assert_eq!(stats["processes"], 1);
    assert_eq!(counters["connections"]["seen"], 2);
    assert_eq!(counters["connections"]["promoted"], 2);
    assert!(counters["received"]["ring"]["bytes"].as_u64() > Some(0));
    assert!(counters["sent"]["sizes"]["<=1K"].as_u64() > Some(0));
    let text = smcdctl().args(["stats", "--pid", &pid]).output().unwrap();
    assert!(String::from_utf8(text.stdout).unwrap().contains("received by ring"));
}

#[test]
fn stats_begin_anew_with_each_delta() {
    let state = tempfile::tempdir().unwrap();
    let talkers = spawn_talkers("eager");
    let delta = || {
        let mut command = smcdctl();
        command.env("XDG_STATE_HOME", state.path());
        common::output(command.args(["stats", "--json", "--delta", "--pid", &talkers.pid().to_string()]))
    };
    let first = delta();
    assert_eq!(first["counters"]["connections"]["seen"], 2);
    talkers.wait_for_more();
    let second = delta();
    assert_eq!(second["counters"]["connections"]["seen"], 0);
    let bytes = |stats: &Value| stats["counters"]["sent"]["ring"]["bytes"].as_u64().unwrap();
    assert!(bytes(&second) > 0);
    // What is not ours counts as nothing.
    fs::write(state.path().join("smcd/stats.json"), b"{nonsense").unwrap();
    assert!(bytes(&delta()) >= bytes(&first) + bytes(&second));
}

#[test]
fn check_finds_a_server_with_the_library() {
    let talkers = spawn_talkers("eager");
    let address = talkers.address();
    let output = smcdctl().args(["check", "--json", address]).output().unwrap();
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["verdict"]["smcd"], true, "{report:#}");
    assert_eq!(output.status.code(), Some(0));
    let text = smcdctl().args(["check", address]).output().unwrap();
    let text = String::from_utf8(text.stdout).unwrap();
    assert!(text.contains("yes  the server is on this host"), "{text}");
    assert!(text.contains(&format!("process {} ", talkers.pid())), "{text}");
}

#[test]
fn check_says_why_a_plain_server_stays_tcp_and_sends_nothing() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let server = thread::spawn(move || {
        let mut stream = listener.accept().unwrap().0;
        let mut got = Vec::new();
        stream.read_to_end(&mut got).unwrap();
        got
    });
    let output = smcdctl().args(["check", "--timeout", "50", &address]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("no   the server is process") || text.contains("shows no sign"), "{text}");
    assert!(text.contains("would be TCP"), "{text}");
    assert!(server.join().unwrap().is_empty());
}

#[test]
fn check_of_nobody_and_of_nonsense() {
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    for address in [free.as_str(), "no-port", "host.invalid:1"] {
        let output = smcdctl().args(["check", address]).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{address}");
        assert!(!output.stdout.is_empty());
    }
    let output = smcdctl().args(["check", &free]).env("SMCD_PROMOTION", "off").output().unwrap();
    assert!(String::from_utf8(output.stdout).unwrap().contains("switched off here"));
}

#[test]
fn info_says_what_there_is() {
    let facts = json(&["info", "--json"]);
    assert_eq!(facts["version"], env!("CARGO_PKG_VERSION"));
    assert!(facts["devices"][0]["gid"].as_str().unwrap().len() == 36);
    for support in facts["support"].as_array().unwrap() {
        assert_eq!(support["problem"], Value::Null, "{support}");
    }
    let text = smcdctl().arg("info").env("SMCD_RCVBUF", "much").output().unwrap();
    assert!(String::from_utf8(text.stdout).unwrap().contains("SMCD_RCVBUF is not a number of bytes"));
}

#[test]
fn a_trace_holds_the_messages_of_both_ends() {
    let talkers = spawn_talkers("eager");
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("trace.pcapng");
    trace(&talkers, &file);
    assert!(fs::metadata(&file).unwrap().len() > 1000);
    let Some(packets) = dissect(&file) else {
        eprintln!("SKIPPED without tshark: what Wireshark makes of a trace");
        return;
    };
    let port = talkers.address().rsplit(':').next().unwrap().to_owned();
    let of =
        |field: &str, packet: &[String]| packet[FIELDS.iter().position(|f| *f == field).unwrap()].clone();
    assert!(packets.iter().any(|packet| of("smcd.srcport", packet) == port));
    assert!(packets.iter().any(|packet| of("smcd.dstport", packet) == port));
    for packet in &packets {
        assert_eq!(of("smcd.pid", packet), talkers.pid().to_string());
        assert_eq!(of("smcd.cdc.type", packet), "0xfe");
        assert_eq!(of("smcd.src", packet), "::ffff:127.0.0.1");
        let count: u32 = of("smcd.cdc.prod.count", packet).parse().unwrap();
        assert!(count < 1 << 20);
        assert_eq!(of("_ws.expert", packet), "", "{packet:?}");
    }
}

/// Traces for a second.
fn trace(talkers: &Talkers, file: &Path) {
    let port = talkers.address().rsplit(':').next().unwrap();
    let status = smcdctl()
        .args(["trace", "--pid", &talkers.pid().to_string(), "--port", port, "--duration", "1", "--output"])
        .arg(file)
        .status()
        .unwrap();
    assert!(status.success());
}

const FIELDS: [&str; 7] = [
    "smcd.pid",
    "smcd.src",
    "smcd.srcport",
    "smcd.dstport",
    "smcd.cdc.type",
    "smcd.cdc.prod.count",
    "_ws.expert",
];

/// What Wireshark makes of a trace; `None` without Wireshark.
fn dissect(file: &Path) -> Option<Vec<Vec<String>>> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("wireshark/smcd.lua");
    let mut command = Command::new("tshark");
    command.arg("-X").arg(format!("lua_script:{}", script.display())).arg("-r").arg(file);
    command.args(["-c", "500", "-T", "fields"]);
    FIELDS.iter().for_each(|field| _ = command.args(["-e", field]));
    let output = command.output().ok()?;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    let packets: Vec<Vec<_>> =
        text.lines().map(|line| line.split('\t').map(str::to_owned).collect()).collect();
    assert!(packets.len() > 10);
    Some(packets)
}

#[test]
fn a_trace_ends_with_its_process() {
    let talkers = spawn_talkers("eager");
    let pid = talkers.pid().to_string();
    let mut tracing = smcdctl().args(["trace", "--pid", &pid]).stdout(Stdio::piped()).spawn().unwrap();
    let mut start = [0; 4];
    let mut out = tracing.stdout.take().unwrap();
    talkers.wait_for_more();
    drop(talkers);
    out.read_exact(&mut start).unwrap();
    assert_eq!(start, [0x0a, 0x0d, 0x0d, 0x0a]);
    let mut rest = Vec::new();
    out.read_to_end(&mut rest).unwrap();
    assert!(tracing.wait().unwrap().success());
    let output = smcdctl().args(["trace", "--pid", &pid, "--output", "/dev/null"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "it is gone");
}

#[test]
fn a_registry_of_nonsense_harms_nobody() {
    use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, ftruncate, memfd_create};
    // Of this very process, so that it passes for its registry as far as it can.
    let mut garbage: Vec<u8> = (0..1u32 << 16).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let magic = u64::from_be_bytes(*b"SMCDREG1").to_ne_bytes();
    garbage[..8].copy_from_slice(&magic);
    for len in [0, 8, 4096, 64 << 20] {
        let fd = memfd_create("smcd-registry", MemfdFlags::ALLOW_SEALING).unwrap();
        ftruncate(&fd, len).unwrap();
        fcntl_add_seals(&fd, SealFlags::SHRINK).unwrap();
        let mut file = fs::File::from(fd);
        if len > 4096 {
            file.write_all(&garbage).unwrap();
        }
        for verb in ["ss", "stats"] {
            assert!(smcdctl().args([verb, "--json"]).output().unwrap().status.success());
        }
    }
}

#[test]
fn completions_and_man_pages_are_made() {
    for shell in ["bash", "zsh", "fish"] {
        let output = smcdctl().args(["completions", shell]).output().unwrap();
        assert!(output.status.success());
        assert!(String::from_utf8(output.stdout).unwrap().contains("applicability"));
    }
    let dir = tempfile::tempdir().unwrap();
    assert!(smcdctl().arg("man").arg(dir.path()).status().unwrap().success());
    let page = fs::read_to_string(dir.path().join("smcdctl-run.1")).unwrap();
    assert!(page.contains("receive\\-buffer"));
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let _talkers = spawn_talkers("eager");
    let mut child =
        smcdctl().args(["ss", "--watch"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdout.as_mut().unwrap().read_exact(&mut [0; 10]).unwrap();
    drop(child.stdout.take());
    thread::sleep(Duration::from_millis(10));
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    assert!(output.stderr.is_empty());
}
