//! iperf3: there, back, and with several connections; its own figures say whether all has arrived.

use serde_json::Value;

use crate::{
    command::{Running, are_here, command, free_port, run, until},
    mode::{End, Mode, in_each_mode},
    scratch::Scratch,
};

in_each_mode! { forwards backwards parallel both_ways small_blocks }

fn forwards(mode: Mode) {
    measure(mode, &["--time", "1"], 1);
}

fn backwards(mode: Mode) {
    measure(mode, &["--time", "1", "--reverse"], 1);
}

fn parallel(mode: Mode) {
    measure(mode, &["--time", "1", "--parallel", "4"], 4);
}

fn both_ways(mode: Mode) {
    measure(mode, &["--time", "1", "--bidir"], 2);
}

/// So many bytes and no more, in small pieces.
fn small_blocks(mode: Mode) {
    measure(mode, &["--length", "333", "--bytes", "20M"], 1);
}

fn measure(mode: Mode, options: &[&str], streams: usize) {
    if !are_here(&["iperf3"]) {
        return;
    }
    let (scratch, port) = (Scratch::new("iperf3"), free_port().to_string());
    let mut server = command("iperf3", &scratch, mode, End::Server);
    server.args(["--server", "--one-off", "--json", "--bind", "127.0.0.1", "--port", &port]);
    let output = std::fs::File::create(scratch.path("server.json")).expect("created");
    let mut server = Running::start(server.stdout(output));
    // A look whether it listens would be its one client.
    until("the server listens", || listens(&port));
    let mut client = command("iperf3", &scratch, mode, End::Client);
    client.args(["--client", "127.0.0.1", "--port", &port, "--json"]).args(options);
    let report = run(&mut client, b"", 60).text();
    assert!(server.wait(std::time::Duration::from_secs(20)).is_some_and(|status| status.success()));
    check(&parse(&report), streams);
    assert_eq!(parse(&scratch.read("server.json"))["error"], Value::Null);
    // The control connection carries little, and may stay as it is.
    scratch.check_promotions(mode, 2 * streams);
}

/// True if somebody listens at this port of 127.0.0.1.
pub(crate) fn listens(port: &str) -> bool {
    let address = format!("0100007F:{:04X}", port.parse::<u16>().expect("a number"));
    let sockets = std::fs::read_to_string("/proc/net/tcp").expect("/proc");
    sockets.lines().any(|line| {
        let mut words = line.split_whitespace();
        words.nth(1) == Some(&address) && words.nth(1) == Some("0A")
    })
}

fn parse(report: &str) -> Value {
    serde_json::from_str(report).unwrap_or_else(|error| panic!("{error}: {report}"))
}

/// What may be on its way when the time is over, and nobody reads any more: what both ends of a TCP connection may hold. That is
/// far more than two rings.
fn in_flight() -> u64 {
    let most = |buffer: &str| -> u64 {
        let limits = std::fs::read_to_string(format!("/proc/sys/net/ipv4/{buffer}")).expect("limits");
        limits.split_whitespace().last().and_then(|most| most.parse().ok()).expect("a number")
    };
    most("tcp_wmem") + most("tcp_rmem")
}

/// No error, so many streams, and each has received what was sent to it.
fn check(report: &Value, streams: usize) {
    assert_eq!(report["error"], Value::Null);
    let each = report["end"]["streams"].as_array().expect("streams");
    assert_eq!(each.len(), streams, "{report:#}");
    for stream in each {
        let bytes = |end: &str| stream[end]["bytes"].as_u64().expect("a number");
        let (sent, received) = (bytes("sender"), bytes("receiver"));
        assert!(received > 1_000_000 && received <= sent && sent - received <= in_flight(), "{stream:#}");
    }
}
