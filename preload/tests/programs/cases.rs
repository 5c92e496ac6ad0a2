//! The table of all cases. To add one: a C file in `c/`, and a line here.

use crate::{
    case::{Case, Outcome::*, sources, test},
    mode::Mode,
};

/// A test of each case in each mode, and all of them as [`CASES`].
macro_rules! cases {
    ($($name:ident: $about:literal, $outcome:ident;)*) => {
        pub(crate) const CASES: &[Case] =
            &[$(Case { name: stringify!($name), about: $about, outcome: $outcome }),*];

        $(mod $name {
            use super::*;

            fn in_mode(mode: Mode) {
                test(&Case { name: stringify!($name), about: $about, outcome: $outcome }, mode);
            }

            /// Twice, so that what differs by itself is found here.
            #[test]
            fn tcp() {
                in_mode(Mode::Tcp);
            }

            #[test]
            fn both() {
                in_mode(Mode::Both);
            }

            #[test]
            fn server() {
                in_mode(Mode::Server);
            }

            #[test]
            fn client() {
                in_mode(Mode::Client);
            }
        })*
    };
}

cases! {
    echo: "messages from a byte to megabytes, there and back", KeepsSmcd;
    full_duplex: "much data both ways at once, a thread for each", KeepsSmcd;
    threads: "several threads read and write one socket", KeepsSmcd;
    fork_child: "fork: the child uses the connection", KeepsSmcd;
    fork_parent: "fork: the parent uses it, children come and go", KeepsSmcd;
    fork_both: "fork: both use it, in turns", KeepsSmcd;
    fork_parent_exits: "fork: the parent ends, the child goes on", KeepsSmcd;
    fork_per_connection: "a process for each connection", KeepsSmcd;
    prefork: "processes that accept from one listener", KeepsSmcd;
    daemon_mode: "daemon()", KeepsSmcd;
    dup_each: "dup, dup2, dup3, F_DUPFD: any copy is as good, and the last close is the end", KeepsSmcd;
    dup2_over: "another file takes the descriptor's place", KeepsSmcd;
    exec_inherited: "exec with an inherited connection", KeepsSmcd;
    exec_inetd: "a connection as another program's standard input and output", KeepsSmcd;
    exec_cloexec: "close-on-exec", KeepsSmcd;
    spawn: "vfork, posix_spawn and system beside and with a connection", KeepsSmcd;
    scm_rights: "a connection handed to another process (SCM_RIGHTS)", KeepsSmcd;
    epoll_level: "epoll, level-triggered; MOD, DEL, copies, errors", KeepsSmcd;
    epoll_edge: "epoll, edge-triggered", KeepsSmcd;
    epoll_edge_loop: "an event loop, edge-triggered, both directions full", KeepsSmcd;
    epoll_oneshot: "EPOLLONESHOT", KeepsSmcd;
    epoll_exclusive: "EPOLLEXCLUSIVE", KeepsSmcd;
    epoll_ends: "RDHUP and HUP as the ends shut down, by epoll and poll", KeepsSmcd;
    epoll_wait_end: "asleep in epoll_wait when the peer ends or resets", KeepsSmcd;
    epoll_nested: "epoll within epoll, poll and select", KeepsSmcd;
    epoll_mixed: "connections and a pipe in one loop: nobody starves", KeepsSmcd;
    poll_corners: "poll and ppoll, with all sorts of descriptors", KeepsSmcd;
    select_corners: "select and pselect", KeepsSmcd;
    recv_flags: "MSG_PEEK, MSG_WAITALL, MSG_DONTWAIT, MSG_TRUNC", KeepsSmcd;
    out_of_band: "urgent data (MSG_OOB)", KeepsSmcd;
    timeouts: "SO_RCVTIMEO and SO_SNDTIMEO", KeepsSmcd;
    queue_sizes: "FIONREAD, SIOCOUTQ, SO_RCVLOWAT", KeepsSmcd;
}

#[test]
fn every_file_is_in_the_table() {
    let entries = std::fs::read_dir(sources()).expect("the sources");
    let mut files: Vec<_> = entries
        .map(|entry| entry.expect("an entry").file_name().into_string().expect("text"))
        .filter_map(|name| Some(name.strip_suffix(".c")?.to_owned()))
        .filter(|name| name != "case")
        .collect();
    let mut cases: Vec<_> = CASES.iter().map(|case| case.name.to_owned()).collect();
    files.sort();
    cases.sort();
    assert_eq!(files, cases);
}
