//! The benches: a server, a client that says how fast it was, and who takes part.

use std::{
    fs,
    process::{Command, Stdio},
};

use crate::{
    Result,
    command::{Running, are_here, command, free_port, run, until, until_listening},
    contender::Contender::{self, BusyPoll, Client, Server, Sleep, Smcd, Tcp, Unix},
    figure::Measured,
    iperf3,
    mode::End,
    nginx::Nginx,
    plan::Plan,
    postgres::Postgres,
    redis::{Redis, UNIX_SOCKET},
    scratch::Scratch,
    ticks::{ticks_of_children, ticks_with_children},
};

pub(crate) struct Bench {
    pub(crate) name: &'static str,
    pub(crate) label: &'static str,
    pub(crate) more_is_better: bool,
    pub(crate) contenders: &'static [Contender],
    work: Work,
}

#[derive(Clone, Copy)]
enum Work {
    Sockperf,
    Iperf3,
    /// The command, the clients, bytes of a value, whether connections are kept, and requests in all.
    Redis {
        command: &'static str,
        clients: u32,
        bytes: u32,
        keep: bool,
        requests: u32,
    },
    Nginx,
    Pgbench,
}

const WAYS_TO_WAIT: &[Contender] = &[Tcp, Smcd, BusyPoll, Sleep, Server, Client];
const WITHOUT_UNIX: &[Contender] = &[Tcp, Smcd, Server, Client];
const ALL_PLACES: &[Contender] = &[Tcp, Smcd, Unix, Server, Client];

const fn redis(
    name: &'static str,
    label: &'static str,
    command: &'static str,
    clients: u32,
    bytes: u32,
) -> Bench {
    let requests = if clients == 1 { 20_000 } else { 100_000 };
    let work = Work::Redis { command, clients, bytes, keep: true, requests };
    Bench { name, label, more_is_better: true, contenders: ALL_PLACES, work }
}

/// A connection for each request.
const fn short(name: &'static str, label: &'static str, clients: u32) -> Bench {
    let work = Work::Redis { command: "get", clients, bytes: 3, keep: false, requests: 6_000 };
    Bench { name, label, more_is_better: true, contenders: WITHOUT_UNIX, work }
}

#[rustfmt::skip]
pub(crate) const BENCHES: &[Bench] = &[
    Bench { name: "sockperf", label: "sockperf, 64 B round trip p50, µs", more_is_better: false, contenders: WAYS_TO_WAIT, work: Work::Sockperf },
    Bench { name: "iperf3", label: "iperf3, GB/s", more_is_better: true, contenders: WITHOUT_UNIX, work: Work::Iperf3 },
    redis("redis-set-50", "redis SET, 50 clients, per s", "set", 50, 3),
    redis("redis-get-50", "redis GET, 50 clients, per s", "get", 50, 3),
    redis("redis-set-200-1k", "redis SET, 200 clients, 1 KiB, per s", "set", 200, 1024),
    redis("redis-get-200-1k", "redis GET, 200 clients, 1 KiB, per s", "get", 200, 1024),
    redis("redis-get-1", "redis GET, 1 client, per s", "get", 1, 3),
    redis("redis-get-10", "redis GET, 10 clients, per s", "get", 10, 3),
    redis("redis-get-200", "redis GET, 200 clients, per s", "get", 200, 3),
    redis("redis-get-500", "redis GET, 500 clients, per s", "get", 500, 3),
    short("redis-short-1", "redis GET, 1 client, new connections, per s", 1),
    short("redis-short-10", "redis GET, 10 clients, new connections, per s", 10),
    short("redis-short-50", "redis GET, 50 clients, new connections, per s", 50),
    short("redis-short-200", "redis GET, 200 clients, new connections, per s", 200),
    short("redis-short-500", "redis GET, 500 clients, new connections, per s", 500),
    Bench { name: "nginx-64", label: "nginx, 64 connections, per s", more_is_better: true, contenders: WITHOUT_UNIX, work: Work::Nginx },
    Bench { name: "pgbench", label: "pgbench, 8 clients, reading, per s", more_is_better: true, contenders: ALL_PLACES, work: Work::Pgbench },
];

impl Bench {
    /// Starts the server, measures, and ends it; `None` if a program is not here.
    pub(crate) fn measure(&self, contender: Contender, plan: &Plan) -> Result<Option<Measured>> {
        match self.work {
            Work::Sockperf => sockperf(contender, plan),
            Work::Iperf3 => bulk(contender, plan),
            Work::Redis { command, clients, bytes, keep, requests } => {
                let requests = plan.requests(requests).max(clients * 40 * u32::from(keep));
                let options =
                    format!("-t {command} -c {clients} -d {bytes} -n {requests} -k {}", u8::from(keep));
                redis_benchmark(contender, requests, keep, &options)
            }
            Work::Nginx => wrk(contender, plan),
            Work::Pgbench => pgbench(contender, plan),
        }
    }
}

/// What a client prints, and the processor time of both ends meanwhile, in seconds.
fn perform(scratch: &Scratch, client: &mut Command) -> (String, f64) {
    // The servers are all that runs here at this moment, before and after.
    let used = || {
        let servers = scratch.processes().into_iter().map(|pid| pid.as_raw_nonzero().get().cast_unsigned());
        servers.map(ticks_with_children).sum::<u64>() + ticks_of_children()
    };
    let before = used();
    let text = run(client, b"", 120).text();
    // A hundredth of a second each.
    (text, (used() - before) as f64 / 100.0)
}

fn number_after(text: &str, name: &str) -> Result<f64> {
    let missing = || format!("no {name} in {text}");
    let rest = text.split_once(name).ok_or_else(missing)?.1.trim_start();
    let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
    Ok(rest[..end].parse().map_err(|_| missing())?)
}

fn sockperf(contender: Contender, plan: &Plan) -> Result<Option<Measured>> {
    if !are_here(&["sockperf"]) {
        return Ok(None);
    }
    let (scratch, port) = (contender.scratch(true), free_port());
    let address = ["--tcp", "--ip", "127.0.0.1", "--port", &port.to_string()].map(str::to_owned);
    let mut server = command("sockperf", &scratch, contender.mode(), End::Server);
    let _server =
        Running::start(server.arg("server").args(&address).stdout(Stdio::null()).stderr(Stdio::null()));
    until_listening(port);
    let mut client = command("sockperf", &scratch, contender.mode(), End::Client);
    client.arg("ping-pong").args(&address).args([
        "--msg-size",
        "64",
        "--full-rtt",
        // Its own limit, for it has no place for more, would be one in 1.7 us.
        "--mps",
        "5000000",
        "--time",
        &plan.seconds().to_string(),
    ]);
    let (text, cpu) = perform(&scratch, &mut client);
    scratch.check_promotions(contender.mode(), 2);
    let messages = number_after(&text, "SentMessages=")?;
    Ok(Some(Measured { figure: number_after(&text, "percentile 50.000 =")?, cpu: cpu * 1e6 / messages }))
}

fn bulk(contender: Contender, plan: &Plan) -> Result<Option<Measured>> {
    if !are_here(&["iperf3"]) {
        return Ok(None);
    }
    let (scratch, port) = (contender.scratch(true), free_port().to_string());
    let mut server = command("iperf3", &scratch, contender.mode(), End::Server);
    server.args(["--server", "--bind", "127.0.0.1", "--port", &port]).stdout(Stdio::null());
    let _server = Running::start(&mut server);
    until("the server listens", || iperf3::listens(&port));
    let mut client = command("iperf3", &scratch, contender.mode(), End::Client);
    client.args(["--client", "127.0.0.1", "--port", &port, "--json", "--time", &plan.seconds().to_string()]);
    let (text, cpu) = perform(&scratch, &mut client);
    scratch.check_promotions(contender.mode(), 2);
    let report: serde_json::Value = serde_json::from_str(&text)?;
    let received = &report["end"]["sum_received"];
    let bits = received["bits_per_second"].as_f64().ok_or("no bits_per_second")?;
    let bytes = received["bytes"].as_f64().ok_or("no bytes")?;
    Ok(Some(Measured { figure: bits / 8e9, cpu: cpu * 1e9 / bytes }))
}

fn redis_benchmark(
    contender: Contender,
    requests: u32,
    traced: bool,
    options: &str,
) -> Result<Option<Measured>> {
    let Some(redis) = Redis::start(contender.scratch(traced), contender.mode()) else { return Ok(None) };
    let mut client = command("redis-benchmark", &redis.scratch, contender.mode(), End::Client);
    match contender {
        Unix => client.args(["-s", UNIX_SOCKET]),
        _ => client.args(["-h", "127.0.0.1", "-p", &redis.port]),
    };
    client.args(["--csv"]).args(options.split(' '));
    let (text, cpu) = perform(&redis.scratch, &mut client);
    if traced {
        redis.scratch.check_promotions(contender.mode(), 2);
    }
    // "GET","81000.00",... behind a line of titles.
    let figure = number_after(&text, "ET\",\"")?;
    redis.shut_down();
    Ok(Some(Measured { figure, cpu: cpu * 1e6 / f64::from(requests) }))
}

fn wrk(contender: Contender, plan: &Plan) -> Result<Option<Measured>> {
    if !are_here(&["wrk"]) {
        return Ok(None);
    }
    let Some(nginx) = Nginx::start(contender.scratch(true), contender.mode(), "root") else {
        return Ok(None);
    };
    let mut client = command("wrk", &nginx.scratch, contender.mode(), End::Client);
    client.args(["-t1", "-c64", &format!("-d{}s", plan.seconds()), &nginx.url("small")]);
    let (text, cpu) = perform(&nginx.scratch, &mut client);
    if text.contains("Socket errors") || text.contains("Non-2xx") {
        return Err(text.into());
    }
    nginx.scratch.check_promotions(contender.mode(), 64);
    nginx.quit();
    let requests =
        text.lines().find_map(|line| line.trim().split_once(" requests in ")?.0.parse::<f64>().ok());
    let requests = requests.ok_or("no number of requests")?;
    Ok(Some(Measured { figure: number_after(&text, "Requests/sec:")?, cpu: cpu * 1e6 / requests }))
}

fn pgbench(contender: Contender, plan: &Plan) -> Result<Option<Measured>> {
    let Some(postgres) = Postgres::start(contender.scratch(true), contender.mode()) else { return Ok(None) };
    run(&mut postgres.client("pgbench", &["--initialize", "--quiet"]), b"", 60).success();
    fs::write(postgres.scratch.trace_file(), "")?;
    let seconds = plan.seconds().to_string();
    let options =
        ["--select-only", "--no-vacuum", "--client", "8", "--time", &seconds, "--protocol", "prepared"];
    let mut client = postgres.client("pgbench", &options);
    if contender == Unix {
        client.env("PGHOST", postgres.scratch.dir());
    }
    let (text, cpu) = perform(&postgres.scratch, &mut client);
    postgres.scratch.check_promotions(contender.mode(), 16);
    postgres.stop();
    let transactions = number_after(&text, "actually processed:")?;
    Ok(Some(Measured { figure: number_after(&text, "tps =")?, cpu: cpu * 1e6 / transactions }))
}
