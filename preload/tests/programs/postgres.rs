//! PostgreSQL, a process for each connection, with pgbench and psql.

use std::{fs, path::PathBuf, process::Command, time::Duration};

use crate::{
    command::{Running, command, find, free_port, run, until},
    mode::{End, Mode, in_each_mode},
    scratch::Scratch,
};

pub(crate) struct Postgres {
    server: Running,
    pub(crate) scratch: Scratch,
    mode: Mode,
    port: String,
}

impl Postgres {
    /// A cluster of its own, `None` if there is no PostgreSQL.
    pub(crate) fn start(scratch: impl Into<Scratch>, mode: Mode) -> Option<Self> {
        let Some(programs) = programs() else {
            eprintln!("SKIPPED: no PostgreSQL, or not root and nobody named postgres");
            return None;
        };
        let (scratch, port) = (scratch.into(), free_port().to_string());
        let data = scratch.path("data");
        fs::create_dir(&data).expect("created");
        run(Command::new("chown").arg("postgres").arg(scratch.dir()).arg(&data), b"", 20).success();
        let mut make = as_postgres(&scratch, Mode::Tcp, programs.join("initdb"));
        make.args(["--auth", "trust", "--no-sync", "--no-locale", "--encoding", "UTF8", "--pgdata"])
            .arg(&data);
        run(&mut make, b"", 120).success();
        let sockets = format!("unix_socket_directories={}", scratch.dir().display());
        let mut serve = as_postgres(&scratch, mode, programs.join("postgres"));
        serve.arg("-D").arg(&data).args(["-p", &port, "-h", "127.0.0.1", "-c", &sockets]);
        serve.args(["-c", "fsync=off", "-c", "max_connections=60", "-c", "shared_buffers=32MB"]);
        let log = fs::File::create(scratch.path("log")).expect("created");
        let server = Running::start(serve.stdout(log.try_clone().expect("a descriptor")).stderr(log));
        let postgres = Self { server, scratch, mode, port };
        until("it answers", || {
            run(&mut postgres.client("psql", &["-c", "select 1"]), b"", 20).status.success()
        });
        Some(postgres)
    }

    /// A program that speaks with it.
    pub(crate) fn client(&self, program: &str, arguments: &[&str]) -> Command {
        let mut command = command(program, &self.scratch, self.mode, End::Client);
        command.env("PGHOST", "127.0.0.1").env("PGPORT", &self.port).env("PGUSER", "postgres");
        command.env("PGDATABASE", "postgres").args(arguments);
        command
    }

    #[track_caller]
    fn ask(&self, question: &str) -> String {
        let mut command = self.client("psql", &["-X", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-c", question]);
        run(&mut command, b"", 60).text().trim().to_owned()
    }

    /// Ends it, which waits for its children; nothing is left.
    pub(crate) fn stop(mut self) {
        self.server.signal(rustix::process::Signal::INT);
        let status = self.server.wait(Duration::from_secs(60)).expect("it ends");
        assert!(status.success() && self.scratch.becomes_empty(Duration::from_secs(20)), "{status}");
        let log = self.scratch.read("log");
        assert!(
            !["PANIC", "terminated by signal", "lost connection"].iter().any(|bad| log.contains(bad)),
            "{log}"
        );
    }
}

/// Where the server's programs are; Debian has them in a directory for each version.
fn programs() -> Option<PathBuf> {
    find("setpriv")?;
    let users = fs::read_to_string("/etc/passwd").ok()?;
    if !rustix::process::geteuid().is_root() || !users.lines().any(|line| line.starts_with("postgres:")) {
        return None;
    }
    let versions = fs::read_dir("/usr/lib/postgresql").ok()?.flatten();
    versions.map(|version| version.path().join("bin")).find(|bin| bin.join("postgres").exists())
}

/// A server's program, which root may not run.
fn as_postgres(scratch: &Scratch, mode: Mode, program: PathBuf) -> Command {
    let mut command = command("setpriv", scratch, mode, End::Server);
    command.args(["--reuid", "postgres", "--regid", "postgres", "--clear-groups"]).arg(program);
    if mode.accelerates(End::Server) {
        // The target directory may be where only root can look.
        command.env("LD_PRELOAD", scratch.copy_of_library());
    }
    command
}

in_each_mode! { transactions copies }

/// Each transaction adds as much to an account, a teller and a branch, and writes it down.
fn transactions(mode: Mode) {
    let Some(postgres) = Postgres::start("postgres-bench", mode) else { return };
    run(&mut postgres.client("pgbench", &["--initialize", "--quiet", "--scale", "2"]), b"", 60).success();
    let options = ["--client", "8", "--jobs", "2", "--transactions", "100", "--no-vacuum"];
    for protocol in ["simple", "extended", "prepared"] {
        let text = run(postgres.client("pgbench", &options).args(["--protocol", protocol]), b"", 120).text();
        assert!(text.contains("number of transactions actually processed: 800/800"), "{text}");
        assert!(text.contains("number of failed transactions: 0 "), "{text}");
    }
    // A connection for each transaction.
    let each = ["--client", "4", "--transactions", "20", "--connect", "--select-only", "--no-vacuum"];
    let text = run(&mut postgres.client("pgbench", &each), b"", 120).text();
    assert!(text.contains("number of transactions actually processed: 80/80"), "{text}");
    let sums = postgres.ask(
        "select count(*), sum(delta) = (select sum(abalance) from pgbench_accounts), \
         sum(delta) = (select sum(tbalance) from pgbench_tellers), \
         sum(delta) = (select sum(bbalance) from pgbench_branches) from pgbench_history",
    );
    assert_eq!(sums, "2400|t|t|t");
    postgres.scratch.check_promotions(mode, 16);
    postgres.stop();
}

/// Some megabytes in and out again, the same; and a query that is cancelled by another connection.
fn copies(mode: Mode) {
    let Some(postgres) = Postgres::start("postgres-copy", mode) else { return };
    let rows: String =
        (0..150_000u64).map(|i| format!("{i}\t{:032x}\n", u128::from(i) << 64 | u128::from(i * 7))).collect();
    postgres.ask("create table things (id int, text text)");
    let mut copy_in = postgres.client("psql", &["-X", "-q", "-c", "copy things from stdin"]);
    assert_eq!(run(&mut copy_in, rows.as_bytes(), 60).text(), "");
    assert_eq!(postgres.ask("select count(*), sum(id::bigint) from things"), "150000|11249925000");
    let mut copy_out = postgres.client("psql", &["-X", "-q", "-c", "copy things to stdout"]);
    assert!(run(&mut copy_out, b"", 60).text() == rows, "the rows are others");
    let cancelled = run(
        &mut postgres
            .client("psql", &["-X", "-c", "set statement_timeout = 100", "-c", "select pg_sleep(50)"]),
        b"",
        40,
    );
    assert!(
        cancelled.stderr.contains("canceling statement due to statement timeout"),
        "{}",
        cancelled.stderr
    );
    postgres.scratch.check_promotions(mode, 4);
    postgres.stop();
}
