//! The table of all cases. To add one: a C file in `c/`, and a line here.

use crate::{
    case::{Case, Outcome::*, compiled, sources, test},
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
    fork_any_time: "fork: at any moment of a promotion", KeepsSmcd;
    fork_parent_exits: "fork: the parent ends, the child goes on", KeepsSmcd;
    fork_per_connection: "a process for each connection", KeepsSmcd;
    prefork: "processes that accept from one listener", KeepsSmcd;
    daemon_mode: "daemon()", KeepsSmcd;
    dup_each: "dup, dup2, dup3, F_DUPFD: any copy is as good, and the last close is the end", KeepsSmcd;
    dup2_over: "another file takes the descriptor's place", KeepsSmcd;
    exec_inherited: "exec with an inherited connection", GoesBack;
    exec_inetd: "a connection as another program's standard input and output", GoesBack;
    exec_cloexec: "close-on-exec", KeepsSmcd;
    spawn: "vfork, posix_spawn and system beside and with a connection", GoesBack;
    scm_rights: "a connection handed to another process (SCM_RIGHTS)", GoesBack;
    epoll_level: "epoll, level-triggered; MOD, DEL, copies, errors", KeepsSmcd;
    epoll_edge: "epoll, edge-triggered", KeepsSmcd;
    epoll_edge_loop: "an event loop, edge-triggered, both directions full", KeepsSmcd;
    epoll_oneshot: "EPOLLONESHOT", KeepsSmcd;
    epoll_exclusive: "EPOLLEXCLUSIVE", KeepsSmcd;
    epoll_ends: "RDHUP and HUP as the ends shut down, by epoll and poll", KeepsSmcd;
    epoll_wait_end: "asleep in epoll_wait when the peer ends or resets", KeepsSmcd;
    epoll_nested: "epoll within epoll, poll and select", KeepsSmcd;
    epoll_before_connect: "epoll, of a socket that is connected later", KeepsSmcd;
    epoll_mixed: "connections and a pipe in one loop: nobody starves", KeepsSmcd;
    poll_corners: "poll and ppoll, with all sorts of descriptors", KeepsSmcd;
    select_corners: "select and pselect", KeepsSmcd;
    recv_flags: "MSG_PEEK, MSG_WAITALL, MSG_DONTWAIT, MSG_TRUNC", KeepsSmcd;
    out_of_band: "urgent data (MSG_OOB)", GoesBack;
    timeouts: "SO_RCVTIMEO and SO_SNDTIMEO", KeepsSmcd;
    queue_sizes: "FIONREAD, SIOCOUTQ, SO_RCVLOWAT", KeepsSmcd;
    shutdown_each: "shutdown in each direction", KeepsSmcd;
    close_unread: "close with unread data, and SO_LINGER 0: a reset", KeepsSmcd;
    close_unsent: "close right after much data: all of it arrives", KeepsSmcd;
    closed_meanwhile: "shutdown while another thread waits", KeepsSmcd;
    signals: "signals during calls that wait, with and without SA_RESTART", KeepsSmcd;
    sigio: "signal-driven input (O_ASYNC)", GoesBack;
    given_back: "one end gives connections back to TCP, the other waits in every way", GoesBack;
    stdio: "streams of the C library (fdopen), dprintf", KeepsSmcd;
    send_file: "sendfile to a connection, splice to and from it", KeepsSmcd;
    many_messages: "recvmmsg and sendmmsg", KeepsSmcd;
    vectors: "readv, writev, recvmsg, sendmsg, recvfrom, sendto", KeepsSmcd;
    fortified: "the checking variants of the calls (`__recv_chk` and others)", KeepsSmcd;
    bad_arguments: "null pointers, bad descriptors, calls that sockets do not know", KeepsSmcd;
    bad_addresses: "memory that is not there (EFAULT)", NotYet;
    fill_and_drain: "O_NONBLOCK, FIONBIO, MSG_DONTWAIT: full and empty", KeepsSmcd;
    corked: "TCP_CORK, MSG_MORE, TCP_NODELAY", KeepsSmcd;
    connecting: "connect, blocking and not; names and options", KeepsSmcd;
    ipv6: "IPv6, and IPv4 by an IPv6 socket", KeepsSmcd;
    many_connections: "300 connections at once", KeepsSmcd;
    close_many: "close_range, closefrom, and closing all numbers", KeepsSmcd;
    cloned: "clone, with and without shared descriptors", GoesBack;
    peer_killed: "the peer is killed: what it had sent, then the end", KeepsSmcd;
    peer_killed_unread: "the peer is killed with unread data: a reset", NotYet;
    peer_killed_asleep: "the peer is killed while threads wait for it", KeepsSmcd;
    peer_stopped: "the peer is stopped and goes on", KeepsSmcd;
    descriptors_later: "no descriptors left, after the promotion", KeepsSmcd;
    idle: "who waits uses no processor time", KeepsSmcd;
    little_memory: "little memory: smaller buffers", KeepsSmcd;
    small_files: "a limit for the size of files (RLIMIT_FSIZE): smaller buffers", KeepsSmcd;
    other_sockets: "UDP, unix sockets and pipes beside a connection", KeepsSmcd;
    no_descriptors: "no descriptors left, before the promotion", StaysTcp;
    tiny_files: "a limit for the size of files (RLIMIT_FSIZE) below the smallest buffer", StaysTcp;
    static_binary: "static binaries", StaysTcp;
    io_uring: "processes that use io_uring", StaysTcp;
}

/// It is to be what its name says: a test that the compiler has undone would prove nothing.
#[test]
fn the_fortified_case_is_fortified() {
    let case = CASES.iter().find(|case| case.name == "fortified").expect("it is in the table");
    let program = std::fs::read(compiled(case)).expect("the program");
    for call in ["__recv_chk", "__recvfrom_chk", "__read_chk", "__poll_chk", "__ppoll_chk", "__fdelt_chk"] {
        assert!(program.windows(call.len()).any(|bytes| bytes == call.as_bytes()), "{call}");
    }
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
