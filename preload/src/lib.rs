//! SMC-D for unmodified programs: `LD_PRELOAD=libsmcd_preload.so redis-server`, or shorter `smcdctl run redis-server`.
//!
//! The library stands between a program and the C library. The program's sockets stay the kernel's TCP sockets; beside
//! each connection goes a stream of the crate [`smcd`] ([`smcd::raw`]), which is told of all that the program does, and
//! moves the bytes through shared memory once both ends have agreed to.
//!
//! Nothing here starts a thread, prints anything unless asked to, or changes `errno` when a call succeeds.

mod calls;
mod epoll;
mod errno;
mod family;
mod fork;
mod iov;
mod poll;
mod process;
mod real;
mod reserve;
mod select;
mod settings;
mod signals;
mod start;
mod stream;
mod table;
mod watch;
mod watchers;
