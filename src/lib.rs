//! SMC-D (Shared Memory Communications - Direct) in user space.
//!
//! A program keeps the socket API of TCP. Where both ends of a connection can reach common memory, its bytes move
//! through shared buffers instead of the TCP stack; everywhere else it is plain TCP.
//!
//! - [`SmcStream`], [`SmcListener`] and [`SmcSocket`] stand in for their namesakes of `tokio::net`.
//!   [`SmcStream::transport`] says which way the bytes go, and why.
//! - [`blocking`] has the same for `std::net`, without a runtime.
//! - [`raw`] is for front ends that are not written in Rust, as the library for `LD_PRELOAD`.
//! - `adapters` fits them into axum, hyper and tonic.
//! - [`dibs`] is the layer of devices that share memory, [`clc`] the handshake, [`smc`] the connection,
//!   [`tcp_fallback`] the TCP connection below. [`observe`] shows the connections of all processes of a user.

#![deny(unsafe_code)]

#[cfg(feature = "tokio")]
pub mod adapters;
pub mod blocking;
pub mod clc;
pub mod dibs;
mod fault;
pub mod observe;
pub mod raw;
pub mod smc;
mod sync;
pub mod tcp_fallback;
mod unix;

#[cfg(feature = "stack")]
pub use smc::SmcStackStream;
pub use smc::{BusyPoll, DebugOutput, Handshake, InvalidSetting, PnetInterface, SmcConfig, Stack, Transport};
#[cfg(feature = "tokio")]
pub use smc::{
    SmcListener, SmcSocket, SmcStream,
    split::{ReadHalf, WriteHalf},
    split_owned::{OwnedReadHalf, OwnedWriteHalf, ReuniteError},
};
pub use tcp_fallback::{FallbackReason, Promotion};

/// The examples of the README are compiled as tests.
#[cfg(all(doctest, feature = "tokio"))]
#[doc = include_str!("../README.md")]
struct Readme;
