//! redis-server with redis-cli and redis-benchmark.

use std::{fs, process::Command, time::Duration};

use crate::{
    command::{are_here, command, free_port, run, until},
    mode::{End, Mode, in_each_mode},
    scratch::Scratch,
};

/// A server in the background, as it does that itself; `None` if it is not here.
pub(crate) struct Redis {
    pub(crate) scratch: Scratch,
    mode: Mode,
    pub(crate) port: String,
}

/// Where it listens beside its port; in its directory.
pub(crate) const UNIX_SOCKET: &str = "redis.sock";

impl Redis {
    pub(crate) fn start(scratch: impl Into<Scratch>, mode: Mode) -> Option<Self> {
        if !are_here(&["redis-server", "redis-cli", "redis-benchmark"]) {
            return None;
        }
        let redis = Self { scratch: scratch.into(), mode, port: free_port().to_string() };
        redis.launch();
        Some(redis)
    }

    /// The data of an earlier run is read again.
    fn launch(&self) {
        let mut command = command("redis-server", &self.scratch, self.mode, End::Server);
        command.args(["--bind", "127.0.0.1", "--port", &self.port, "--daemonize", "yes"]);
        command.args(["--dir", "."]).arg("--logfile").arg(self.scratch.path("redis.log"));
        command.args([
            "--save",
            "",
            "--unixsocket",
            UNIX_SOCKET,
            "--maxclients",
            "4000",
            "--enable-debug-command",
            "yes",
        ]);
        // It would complain of the machine's settings.
        command.args(["--ignore-warnings", "ARM64-COW-BUG"]);
        let done = run(&mut command, b"", 60);
        assert_eq!(
            (done.stderr.as_str(), done.stdout.as_slice()),
            ("", b"".as_slice()),
            "it prints something"
        );
        done.success();
        until("redis answers", || run(&mut self.client(&["PING"]), b"", 60).stdout == b"PONG\n");
    }

    fn client(&self, arguments: &[&str]) -> Command {
        let mut command = command("redis-cli", &self.scratch, self.mode, End::Client);
        command.args(["-p", &self.port]).args(arguments);
        command
    }

    #[track_caller]
    fn ask(&self, arguments: &[&str]) -> String {
        run(&mut self.client(arguments), b"", 60).text().trim_end().to_owned()
    }

    /// A field of INFO.
    #[track_caller]
    pub(crate) fn info(&self, name: &str) -> String {
        let info = self.ask(&["INFO", "everything"]);
        let field = info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        field.unwrap_or_else(|| panic!("no {name} in {info}")).trim().to_owned()
    }

    /// Runs redis-benchmark; its requests are those that the server has counted.
    #[track_caller]
    fn benchmark(&self, requests: u64, arguments: &[&str]) {
        self.ask(&["CONFIG", "RESETSTAT"]);
        let mut command = command("redis-benchmark", &self.scratch, self.mode, End::Client);
        command.args(["-p", &self.port, "-q", "-n", &requests.to_string(), "-t", "set,get"]).args(arguments);
        let done = run(&mut command, b"", 120);
        // It advises against connections without keep-alive.
        let complaints = done.stderr.lines().find(|line| !line.starts_with("WARNING: Keepalive disabled"));
        assert_eq!(complaints, None);
        let text = done.text();
        assert!(text.contains("SET: ") && text.contains("GET: ") && !text.contains("rror"), "{text}");
        for name in ["cmdstat_set", "cmdstat_get"] {
            let counted = self.info(name);
            assert!(counted.starts_with(&format!("calls={requests},")), "{name}: {counted}");
            assert!(counted.contains("rejected_calls=0,failed_calls=0"), "{name}: {counted}");
        }
    }

    /// Ends the server, and fails the test if it leaves anything.
    pub(crate) fn shut_down(self) {
        let done = run(&mut self.client(&["SHUTDOWN", "NOSAVE"]), b"", 60);
        assert_eq!((done.status.code(), done.stderr.as_str()), (Some(0), ""));
        assert!(self.scratch.becomes_empty(Duration::from_secs(20)), "it does not end");
        let log = self.scratch.read("redis.log");
        assert!(log.contains("ready to exit"), "{log}");
    }
}

in_each_mode! { commands big_values pipelines pub_sub many_clients snapshot_while_writing }

fn commands(mode: Mode) {
    let Some(redis) = Redis::start("redis-commands", mode) else { return };
    assert_eq!(redis.ask(&["SET", "key", "value"]), "OK");
    assert_eq!(redis.ask(&["GET", "key"]), "value");
    assert_eq!(redis.ask(&["-r", "100", "INCR", "counter"]).lines().last(), Some("100"));
    assert_eq!(redis.ask(&["GET", "counter"]), "100");
    assert_eq!(redis.ask(&["DEBUG", "SLEEP", "0"]), "OK");
    assert_eq!(redis.info("tcp_port"), redis.port);
    assert_eq!(redis.info("connected_clients"), "1");
    assert_eq!(redis.ask(&["CLIENT", "KILL", "ID", "123456789"]), "0");
    // A client that is thrown out notices it, and connects again.
    let session = run(&mut redis.client(&[]), b"PING\nCLIENT KILL SKIPME no TYPE normal\nPING\nPING\n", 60);
    let text = session.text();
    assert!(text.starts_with("PONG\n") && text.ends_with("PONG\n"), "{text}");
    redis.scratch.check_promotions(mode, 2);
    redis.shut_down();
}

fn big_values(mode: Mode) {
    let Some(redis) = Redis::start("redis-big", mode) else { return };
    let value: Vec<u8> = (0..8_000_000u32).map(|i| (i.wrapping_mul(0x9e37_79b9) >> 24) as u8).collect();
    for key in ["one", "two"] {
        assert_eq!(run(&mut redis.client(&["-x", "SET", key]), &value, 60).text(), "OK\n");
        let got = run(&mut redis.client(&["GET", key]), b"", 60).success();
        // With a newline behind it.
        assert!(got[..got.len() - 1] == value, "{} bytes that are not those", got.len());
    }
    redis.scratch.check_promotions(mode, 2);
    redis.shut_down();
}

fn pipelines(mode: Mode) {
    let Some(redis) = Redis::start("redis-pipe", mode) else { return };
    let commands: String = (0..50_000).map(|i| format!("SET key:{i} {}\r\n", i * 7)).collect();
    let text = run(&mut redis.client(&["--pipe"]), commands.as_bytes(), 60).text();
    assert!(text.contains("errors: 0, replies: 50000"), "{text}");
    assert_eq!(redis.ask(&["DBSIZE"]), "50000");
    assert_eq!(redis.ask(&["GET", "key:49999"]), (49_999 * 7).to_string());
    redis.benchmark(50_000, &["-P", "16", "-c", "20"]);
    redis.scratch.check_promotions(mode, 20);
    redis.shut_down();
}

fn pub_sub(mode: Mode) {
    const MESSAGES: usize = 2000;
    let Some(redis) = Redis::start("redis-pubsub", mode) else { return };
    let files: Vec<_> = (0..4).map(|i| redis.scratch.path(&format!("subscriber.{i}"))).collect();
    let subscribers: Vec<_> = files
        .iter()
        .map(|file| {
            let mut command = redis.client(&["SUBSCRIBE", "news"]);
            crate::command::Running::start(command.stdout(fs::File::create(file).expect("created")))
        })
        .collect();
    until("all have subscribed", || redis.ask(&["PUBSUB", "NUMSUB", "news"]).lines().last() == Some("4"));
    let commands: String = (0..MESSAGES).map(|i| format!("PUBLISH news message-{i}\n")).collect();
    let text = run(&mut redis.client(&[]), commands.as_bytes(), 60).text();
    assert!(text.lines().filter(|line| !line.is_empty()).all(|line| line == "4"), "{text}");
    let expected: Vec<_> = (0..MESSAGES).map(|i| format!("message-{i}")).collect();
    for file in &files {
        let got = || fs::read_to_string(file).expect("text");
        until("the last message comes", || {
            got().lines().any(|line| Some(line) == expected.last().map(String::as_str))
        });
        let got = got();
        assert!(got.lines().filter(|line| line.starts_with("message-")).eq(&expected), "{got}");
    }
    redis.scratch.check_promotions(mode, 8);
    drop(subscribers);
    redis.shut_down();
}

fn many_clients(mode: Mode) {
    let Some(redis) = Redis::start("redis-many", mode) else { return };
    redis.benchmark(60_000, &["-c", "1000"]);
    redis.benchmark(20_000, &["-c", "50", "-d", "100000"]);
    redis.benchmark(2_000, &["-c", "50", "-k", "0"]);
    redis.scratch.check_promotions(mode, 1000);
    redis.shut_down();
}

/// BGSAVE forks while clients write. What was saved is what was there: it is read by a server that starts anew.
fn snapshot_while_writing(mode: Mode) {
    let Some(redis) = Redis::start("redis-save", mode) else { return };
    assert_eq!(redis.ask(&["DEBUG", "POPULATE", "100000", "saved", "100"]), "OK");
    let done = std::thread::scope(|scope| {
        let writers = scope.spawn(|| redis.benchmark(100_000, &["-c", "50", "-r", "1000", "-d", "1000"]));
        for _ in 0..3 {
            assert!(redis.ask(&["BGSAVE"]).starts_with("Background saving"));
            until("it is saved", || redis.info("rdb_bgsave_in_progress") == "0");
            assert_eq!(redis.info("rdb_last_bgsave_status"), "ok");
        }
        writers.join()
    });
    done.expect("the writers");
    assert_eq!(redis.ask(&["SAVE"]), "OK");
    let digest = redis.ask(&["DEBUG", "DIGEST"]);
    redis.ask(&["SHUTDOWN", "NOSAVE"]);
    assert!(redis.scratch.becomes_empty(Duration::from_secs(20)), "it does not end");
    redis.launch();
    assert_eq!(redis.ask(&["DEBUG", "DIGEST"]), digest);
    redis.scratch.check_promotions(mode, 50);
    redis.shut_down();
}
