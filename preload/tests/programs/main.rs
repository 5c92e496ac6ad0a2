//! Real programs, unmodified, on plain TCP and with the library at both ends or at one of them: they do the same.
//!
//! `cases.rs` is a table of small C programs, one for each thing that a program may do with a socket. They note what
//! they see, and their transcripts are compared with those of plain TCP. The other files have a program each.
#![allow(missing_docs)]

mod case;
mod cases;
mod command;
mod idle;
mod iperf3;
mod matrix;
mod memcached;
mod mode;
mod nginx;
mod postgres;
mod python;
mod redis;
#[allow(dead_code, reason = "the bench uses the rest")]
mod scratch;
mod shim;
mod sockperf;
#[allow(dead_code, reason = "the bench uses the rest")]
mod ticks;
mod trace;
