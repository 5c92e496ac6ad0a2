//! For front ends that are not written in Rust, or wait in ways of their own.
//!
//! A [`RawStream`] goes beside a TCP socket that belongs to somebody else: a program that was never told of SMC-D and
//! makes system calls on it. The front end stands between the two. As long as the connection is TCP, the program's calls
//! reach the kernel as they are, and the stream is told of each: [`RawStream::begin_read`], [`RawStream::end_read`] and
//! their like. Once both ends have agreed on rings ([`RawStream::has_rings`]), the calls have to be made on the stream.
//!
//! After the SMC option ([`ask_for_option`]) the first bytes of a connection are those of a handshake. As long as it is
//! under way ([`RawStream::is_shaking`]), the program may neither read nor write; [`RawStream::shake`] goes on with it.
//!
//! Nothing here starts a thread. What waits says so.

mod awake;
mod handshake;
mod option;
mod socket;
mod stream;

pub use self::{
    awake::Awake,
    handshake::{Need, Shaken, is_any_shaking},
    option::{ask_for_option, has_option, refuse_option, wants_option, wants_option_of, withdraw_option},
    socket::Socket,
    stream::{Held, Polling, RawStream, SNAPSHOT},
};

pub use crate::{
    blocking::patience::Patience,
    dibs::Cause,
    smc::hybrid::{Baton, DemoteError, Left},
    unix::generation::Generation,
    unix::kept::{Kept, is_kept, kept, kept_within, move_aside},
    unix::sized_memory::sized_memory,
};

/// To be called as long as the process has a single thread, if that can be. It costs next to nothing then, and lets peers
/// give connections back to TCP ([`RawStream::demote`]) in microseconds; else that takes them some milliseconds.
pub fn at_start() {
    crate::dibs::order();
}
