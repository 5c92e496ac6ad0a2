//! nginx, a master and two workers, with curl, wrk and Python's http.client.

use std::{fs, path::PathBuf, process::Command, time::Duration};

use rustix::process::Signal;

use crate::{
    command::{Running, are_here, command, find, free_port, run, until, until_listening},
    mode::{End, Mode, in_each_mode},
    scratch::Scratch,
};

/// In the foreground, so that its end is seen.
pub(crate) struct Nginx {
    master: Running,
    pub(crate) scratch: Scratch,
    mode: Mode,
    port: u16,
}

/// Bytes of the large file.
const LARGE: usize = 100 << 20;

impl Nginx {
    /// `user` is that of the workers.
    pub(crate) fn start(scratch: impl Into<Scratch>, mode: Mode, user: &str) -> Option<Self> {
        if !are_here(&["nginx", "curl"]) {
            return None;
        }
        let (scratch, port) = (scratch.into(), free_port());
        let config = scratch.write("nginx.conf", config(&scratch, port, user));
        fs::create_dir(scratch.path("root")).expect("created");
        scratch.write("root/small", "small file\n");
        let mut command = command(find("nginx")?, &scratch, mode, End::Server);
        command.arg("-e").arg(scratch.path("error.log")).arg("-c").arg(config).arg("-p").arg(scratch.dir());
        let streams = fs::File::create(scratch.path("streams")).expect("created");
        command.stdout(streams.try_clone().expect("a descriptor")).stderr(streams);
        let master = Running::start(&mut command);
        until_listening(port);
        Some(Self { master, scratch, mode, port })
    }

    /// The same with a large file to serve.
    fn start_with_large_file(name: &str, mode: Mode, user: &str) -> Option<Self> {
        let nginx = Self::start(name, mode, user)?;
        let large: Vec<u8> =
            (0..LARGE as u64).map(|i| (i.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8).collect();
        nginx.scratch.write("root/large", large);
        Some(nginx)
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}/{path}", self.port)
    }

    /// Has curl get a path into a file of this name.
    fn curl(&self, path: &str, file: &str, options: &[&str]) -> (Command, PathBuf) {
        let file = self.scratch.path(file);
        let mut command = command("curl", &self.scratch, self.mode, End::Client);
        command.args(["-sS", "--fail", "--noproxy", "*"]).args(options);
        command.arg("-o").arg(&file).arg(self.url(path));
        (command, file)
    }

    #[track_caller]
    fn check_download(&self, file: &PathBuf) {
        let (got, sent) =
            (fs::read(file).expect("downloaded"), fs::read(self.scratch.path("root/large")).expect("there"));
        assert!(got == sent, "{} bytes that are not the file's", got.len());
        fs::remove_file(file).expect("own file");
    }

    /// Processes that serve.
    fn workers(&self) -> Vec<String> {
        let id = self.master.id();
        let children = fs::read_to_string(format!("/proc/{id}/task/{id}/children")).expect("it is there");
        children.split_whitespace().map(str::to_owned).collect()
    }

    /// Ends it gracefully; fails the test if it leaves anything, or has complained.
    pub(crate) fn quit(mut self) {
        self.master.signal(Signal::QUIT);
        let status = self.master.wait(Duration::from_secs(60)).expect("it ends");
        assert!(status.success(), "{status}");
        assert!(self.scratch.becomes_empty(Duration::from_secs(20)), "workers are left");
        let log = self.scratch.read("error.log");
        let complaints = ["[alert]", "[crit]", "[emerg]", "[error]"];
        assert!(!complaints.iter().any(|level| log.contains(level)), "{log}");
        assert_eq!(self.scratch.read("streams"), "");
    }
}

fn config(scratch: &Scratch, port: u16, user: &str) -> String {
    let dir = scratch.dir().display();
    let root = if rustix::process::geteuid().is_root() { format!("user {user};") } else { String::new() };
    let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .iter()
        .map(|name| format!("{name}_temp_path {dir}/{name};\n"))
        .collect();
    format!(
        "daemon off; master_process on; worker_processes 2; pid {dir}/nginx.pid; error_log {dir}/error.log;
        {root}
        events {{ worker_connections 1000; }}
        http {{
            access_log off; keepalive_requests 1000000; default_type text/plain;
            {temporary}
            server {{
                listen 127.0.0.1:{port};
                location / {{ root {dir}/root; sendfile off; }}
                location /sendfile/ {{ alias {dir}/root/; sendfile on; tcp_nopush on; }}
                location /status {{ stub_status; }}
            }}
        }}"
    )
}

in_each_mode! { large_file keep_alive load reload quit_gracefully other_user }

fn large_file(mode: Mode) {
    let Some(nginx) = Nginx::start_with_large_file("nginx-large", mode, "root") else { return };
    for path in ["large", "sendfile/large"] {
        let (mut command, file) = nginx.curl(path, "got", &[]);
        run(&mut command, b"", 120).success();
        nginx.check_download(&file);
    }
    // A part of it.
    let (mut command, file) = nginx.curl("sendfile/large", "part", &["-r", "5000000-5999999"]);
    run(&mut command, b"", 60).success();
    let sent = fs::read(nginx.scratch.path("root/large")).expect("there");
    assert!(fs::read(file).expect("downloaded") == sent[5_000_000..6_000_000]);
    nginx.scratch.check_promotions(mode, 2);
    nginx.quit();
}

/// Many requests of one connection, and what they bring.
const REQUESTS: &str = "
import http.client, sys
connection = http.client.HTTPConnection('127.0.0.1', int(sys.argv[1]))
for number in range(500):
    connection.request('GET', ('/small', '/sendfile/small', '/nothing')[number % 3])
    answer = connection.getresponse()
    body = answer.read()
    if number % 3 == 2:
        assert answer.status == 404, answer.status
    else:
        assert (answer.status, body) == (200, b'small file\\n'), (answer.status, body)
connection.request('GET', '/status')
print(connection.getresponse().read().decode().split()[7:10])
";

fn keep_alive(mode: Mode) {
    let Some(nginx) = Nginx::start("nginx-alive", mode, "root") else { return };
    if !are_here(&["/usr/bin/python3"]) {
        return;
    }
    let mut command = command("/usr/bin/python3", &nginx.scratch, mode, End::Client);
    let text = run(command.args(["-c", REQUESTS, &nginx.port.to_string()]), b"", 60).text();
    // Connections accepted, handled, and requests; one of each is the look whether it listens.
    assert_eq!(text.trim(), "['2', '2', '501']");
    nginx.scratch.check_promotions(mode, 2);
    // The missing ones stand in the log.
    fs::write(nginx.scratch.path("error.log"), "").expect("written");
    nginx.quit();
}

fn load(mode: Mode) {
    let Some(nginx) = Nginx::start("nginx-load", mode, "root") else { return };
    if !are_here(&["wrk"]) {
        return;
    }
    let mut command = command("wrk", &nginx.scratch, mode, End::Client);
    command.args(["-t2", "-c64", "-d2s", &nginx.url("sendfile/small")]);
    let text = run(&mut command, b"", 60).text();
    assert!(!text.contains("Socket errors") && !text.contains("Non-2xx"), "{text}");
    let requests =
        text.lines().find_map(|line| line.trim().split_once(" requests in ")?.0.parse::<u64>().ok());
    assert!(requests.is_some_and(|requests| requests > 1000), "{text}");
    nginx.scratch.check_promotions(mode, 64);
    nginx.quit();
}

/// A download goes on with the old worker while new ones take over.
fn reload(mode: Mode) {
    let Some(nginx) = Nginx::start_with_large_file("nginx-reload", mode, "root") else { return };
    let before = nginx.workers();
    let (mut slow, file) = nginx.curl("sendfile/large", "slow", &["--limit-rate", "50M"]);
    let mut download = Running::start(&mut slow);
    until("the download has begun", || fs::metadata(&file).is_ok_and(|file| file.len() > 0));
    nginx.master.signal(Signal::HUP);
    until("there are new workers", || {
        nginx.workers().iter().filter(|worker| !before.contains(worker)).count() == 2
    });
    let (mut quick, small) = nginx.curl("small", "small", &[]);
    run(&mut quick, b"", 60).success();
    assert_eq!(fs::read(small).expect("downloaded"), b"small file\n");
    let status = download.wait(Duration::from_secs(60)).expect("it ends");
    assert!(status.success(), "{status}");
    nginx.check_download(&file);
    until("the old workers end", || nginx.workers().iter().all(|worker| !before.contains(worker)));
    nginx.scratch.check_promotions(mode, 2);
    nginx.quit();
}

/// The end waits for a download.
fn quit_gracefully(mode: Mode) {
    let Some(nginx) = Nginx::start_with_large_file("nginx-quit", mode, "root") else { return };
    let (mut slow, file) = nginx.curl("large", "slow", &["--limit-rate", "50M"]);
    let mut download = Running::start(&mut slow);
    until("the download has begun", || fs::metadata(&file).is_ok_and(|file| file.len() > 0));
    nginx.master.signal(Signal::QUIT);
    let status = download.wait(Duration::from_secs(60)).expect("it ends");
    assert!(status.success(), "{status}");
    nginx.check_download(&file);
    nginx.scratch.check_promotions(mode, 2);
    nginx.quit();
}

/// Workers under another user than the master, who has made the socket: whether that is promoted is not said.
fn other_user(mode: Mode) {
    let Some(nginx) = Nginx::start_with_large_file("nginx-user", mode, "www-data") else { return };
    if !rustix::process::geteuid().is_root() {
        eprintln!("SKIPPED: only root can become another user");
        return;
    }
    let (mut command, file) = nginx.curl("sendfile/large", "got", &[]);
    run(&mut command, b"", 120).success();
    nginx.check_download(&file);
    nginx.quit();
}
