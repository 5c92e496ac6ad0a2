//! sockperf over TCP, messages to and fro and one way, each compared with what was sent.

use crate::{
    command::{Done, Running, are_here, command, free_port, run, until_listening},
    mode::{End, Mode, in_each_mode},
    scratch::Scratch,
};

in_each_mode! { ping_pong non_blocking throughput by_list }

fn ping_pong(mode: Mode) {
    let Some(done) =
        measure(mode, &[], "ping-pong", &["--data-integrity", "--msg-size", "1000", "--range", "900"])
    else {
        return;
    };
    check_round_trips(&done.text());
}

fn non_blocking(mode: Mode) {
    // It allows for no more messages than it thinks possible, and gives up beyond that.
    let options = ["--data-integrity", "--nonblocked", "--msg-size", "64", "--mps", "50000"];
    let Some(done) = measure(mode, &["--nonblocked"], "ping-pong", &options) else { return };
    check_round_trips(&done.text());
}

fn throughput(mode: Mode) {
    let Some(done) = measure(mode, &[], "throughput", &["--msg-size", "4096"]) else { return };
    let text = done.text();
    let sent = number(&text, "Total of ");
    assert!(sent > 1000, "{text}");
    assert!(text.contains("Summary: Message Rate is"), "{text}");
}

/// Over several connections that it finds by select, poll and epoll in turn.
fn by_list(mode: Mode) {
    for how in ["s", "p", "e"] {
        let Some(done) = measure_list(mode, how) else { return };
        check_round_trips(&done.text());
    }
}

/// As many messages came back as were sent, each once and in order.
fn check_round_trips(text: &str) {
    let valid =
        text.lines().find(|line| line.contains("[Valid Duration]")).unwrap_or_else(|| panic!("{text}"));
    let (sent, received) = (number(valid, "SentMessages="), number(valid, "ReceivedMessages="));
    assert!(sent > 10 && sent == received, "{text}");
    assert!(
        text.contains("# dropped messages = 0; # duplicated messages = 0; # out-of-order messages = 0"),
        "{text}"
    );
    assert!(!text.contains("ERROR") && !text.contains("integrity test failed"), "{text}");
}

/// The number behind the first occurrence of this name.
#[track_caller]
fn number(text: &str, name: &str) -> u64 {
    let rest = text.split_once(name).unwrap_or_else(|| panic!("no {name}: {text}")).1;
    let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    rest[..digits].parse().unwrap_or_else(|_| panic!("{name}: {text}"))
}

fn measure(mode: Mode, server: &[&str], what: &str, client: &[&str]) -> Option<Done> {
    let port = free_port().to_string();
    let address = ["--tcp", "--ip", "127.0.0.1", "--port", &port];
    perform(
        mode,
        port.parse().ok()?,
        &[&address, server].concat(),
        &[&[what], &address[..], client].concat(),
        "",
    )
}

fn measure_list(mode: Mode, how: &str) -> Option<Done> {
    let ports = [free_port(), free_port(), free_port()];
    let list: String = ports.iter().map(|port| format!("T:127.0.0.1:{port}\n")).collect();
    let options = ["--file", "list", "--iomux-type", how];
    perform(mode, ports[0], &options, &[&["ping-pong"], &options[..], &["--data-integrity"]].concat(), &list)
}

fn perform(mode: Mode, port: u16, server: &[&str], client: &[&str], list: &str) -> Option<Done> {
    if !are_here(&["sockperf"]) {
        return None;
    }
    let scratch = Scratch::new("sockperf");
    scratch.write("list", list);
    let mut serving = command("sockperf", &scratch, mode, End::Server);
    let output = std::fs::File::create(scratch.path("server")).expect("created");
    serving.arg("server").args(server).stdout(output.try_clone().expect("a descriptor")).stderr(output);
    let mut serving = Running::start(&mut serving);
    until_listening(port);
    let mut asking = command("sockperf", &scratch, mode, End::Client);
    let done = run(asking.args(client).args(["--time", "1"]), b"", 60);
    scratch.check_promotions(mode, 2);
    serving.signal(rustix::process::Signal::INT);
    assert!(serving.wait(std::time::Duration::from_secs(20)).is_some(), "{}", scratch.read("server"));
    assert!(!scratch.read("server").contains("ERROR"), "{}", scratch.read("server"));
    Some(done)
}
