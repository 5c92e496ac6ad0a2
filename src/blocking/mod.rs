//! Streams for threads, without a runtime: [`SmcStream`] and [`SmcListener`] stand in for their namesakes of
//! [`std::net`].
//!
//! A program changes its imports and nothing else. Every connection is TCP at once; one that both ends of a host have
//! used enough moves to shared memory while it runs ([`Handshake::Promotion`](crate::Handshake::Promotion)). The
//! feature `tokio` is not needed.
//!
//! A thread that waits for shared memory stays awake for a moment if that has paid before
//! ([`BusyPoll`](crate::BusyPoll)), then sleeps on a futex, and after some milliseconds in `poll`, where it uses no
//! processor time and learns at once when its peer dies.
//!
//! # Examples
//!
//! ```no_run
//! use std::{io::{self, Write}, thread};
//! use smcd::blocking::{SmcListener, SmcStream};
//!
//! # fn main() -> io::Result<()> {
//! let listener = SmcListener::bind("127.0.0.1:8080")?;
//! thread::spawn(move || -> io::Result<()> {
//!     let mut stream = SmcStream::connect("127.0.0.1:8080")?;
//!     stream.write_all(b"hello world!")
//! });
//! let (stream, _) = listener.accept()?;
//! io::copy(&mut &stream, &mut io::stdout())?;
//! # Ok(())
//! # }
//! ```

mod establish;
mod listener;
pub(crate) mod patience;
pub(crate) mod poll;
pub(crate) mod pollers;
pub(crate) mod ring;
mod shared;
mod stream;
mod stream_io;
mod tcp;
pub(crate) mod turn;
pub(crate) mod waits;

pub use listener::{Incoming, SmcListener};
pub use stream::SmcStream;
