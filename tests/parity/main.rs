//! What `tokio::net` offers for TCP, we offer too: every public method with its signature, every trait, every public
//! field. Both sides are read from source, tokio's in the version in use.

mod cfg;
mod names;
mod source;
mod surface;

use std::collections::{BTreeMap, BTreeSet};

use names::Side;
use surface::Surface;

/// What we lack or have in another form, and why.
const EXCEPTIONS: &[(&str, &str)] = &[(
    "SmcSocket: impl std::os::fd::FromRawFd",
    "to implement it takes unsafe code; From<OwnedFd> and from_std_stream do the same without",
)];

/// What is wrong: lacking or different items that no exception excuses, and exceptions that excuse nothing.
fn complaints(tokio: &Surface, ours: &Surface, exceptions: &[(&str, &str)]) -> Vec<String> {
    let mut excuses: BTreeMap<_, _> = exceptions.iter().copied().collect();
    let mut complaints = Vec::new();
    for (item, theirs) in tokio.items() {
        let complaint = match ours.items().get(item) {
            Some(same) if same == theirs => continue,
            Some(other) => format!("{item} differs:\n  tokio's: {theirs}\n  ours:    {other}"),
            None => format!("{item} is missing: {theirs}"),
        };
        if excuses.remove(item.as_str()).is_none() {
            complaints.push(complaint);
        }
    }
    complaints.extend(excuses.iter().map(|(item, why)| format!("nothing to excuse about {item} ({why})")));
    complaints
}

#[test]
fn whatever_tokio_offers_is_here() {
    let tokio = Surface::of(Side::Tokio, &source::tokio());
    let ours = Surface::of(Side::Ours, &source::ours());
    let types: BTreeSet<_> = names::PAIRS.iter().map(|(_, ours)| (*ours).to_owned()).collect();
    assert_eq!(tokio.types(), types, "tokio's types");
    // What was read is what is there: these have been in tokio for years.
    for item in [
        "SmcStream::peek",
        "SmcStream::try_read_buf",
        "SmcStream::set_zero_linger",
        "SmcStream: impl std::os::fd::AsRawFd",
        "SmcListener::bind",
        "SmcSocket::set_reuseport",
        "SmcSocket::bind_device",
        "OwnedWriteHalf: impl tokio::io::AsyncWrite",
        "ReadHalf: impl std::fmt::Debug",
        "ReuniteError.1",
    ] {
        assert!(tokio.items().contains_key(item), "{item} was not found in tokio");
    }
    assert!(tokio.items().len() > 120, "only {} items were found in tokio", tokio.items().len());
    let complaints = complaints(&tokio, &ours, EXCEPTIONS);
    assert!(complaints.is_empty(), "\n{}\n", complaints.join("\n"));
}

/// As tokio's files look.
const TOKIO: &str = r#"
    use crate::io::{AsyncRead, Interest};
    use std::io;
    use std::net::{self, SocketAddr};
    cfg_net! {
        #[derive(Debug)]
        pub struct TcpStream { io: u8 }
    }
    impl TcpStream {
        pub async fn peek(&self, buf: &mut [u8]) -> io::Result<usize> { todo!() }
        pub fn from_std(stream: net::TcpStream) -> io::Result<TcpStream> { todo!() }
        pub fn split<'a>(&'a mut self) -> ReadHalf<'a> { todo!() }
        pub fn try_io<R>(&self, interest: Interest, f: impl FnOnce() -> io::Result<R>) -> io::Result<R> { todo!() }
        pub(crate) fn not_public(&self) {}
        fn nor_this(&self) {}
        cfg_not_wasi! {
            pub fn linger(&self) -> io::Result<u8> { todo!() }
        }
        #[cfg(any(target_os = "linux", target_os = "android"))]
        pub fn quickack(&self) -> io::Result<bool> { todo!() }
        #[cfg(windows)]
        pub fn of_windows(&self) {}
    }
    impl AsyncRead for TcpStream {}
    mod sys {
        use super::TcpStream;
        use std::os::unix::prelude::*;
        impl AsFd for TcpStream {}
    }
    cfg_windows! {
        impl AsSocket for TcpStream {}
    }
    pub struct ReuniteError(pub OwnedReadHalf, u8);
"#;

/// The same as ours look.
const OURS: &str = r#"
    use std::{io, os::fd::AsFd};
    use tokio::io::{AsyncRead, Interest};
    use super::split::ReadHalf;
    #[derive(Debug)]
    pub struct SmcStream(u8);
    macro_rules! more {
        () => { pub fn linger(&self) -> io::Result<u8> { todo!() } };
    }
    impl SmcStream {
        pub async fn peek(&self, buffer: &mut [u8]) -> io::Result<usize> { todo!() }
        pub fn from_std(stream: std::net::TcpStream) -> io::Result<Self> { todo!() }
        pub fn split(&mut self) -> (ReadHalf<'_>) { todo!() }
        pub fn try_io<R>(&self, on: Interest, f: impl FnOnce() -> io::Result<R>) -> io::Result<R> { todo!() }
        pub fn quickack(&self) -> io::Result<bool> { todo!() }
        pub fn ours_alone(&self) {}
        more!();
    }
    impl AsyncRead for SmcStream {}
    impl AsFd for SmcStream {}
    pub struct ReuniteError(pub OwnedReadHalf);
"#;

/// The complaints about our source with `from` replaced by `to`.
fn complaints_with(from: &str, to: &str, exceptions: &[(&str, &str)]) -> Vec<String> {
    let changed = OURS.replace(from, to);
    assert_eq!(changed == OURS, from == to, "{from} is not in the source");
    let read = |side, text: &str| Surface::of(side, &[syn::parse_file(text).unwrap()]);
    complaints(&read(Side::Tokio, TOKIO), &read(Side::Ours, &changed), exceptions)
}

#[test]
fn equal_sources_give_no_complaint() {
    assert_eq!(complaints_with("", "", &[]), [""; 0]);
}

#[test]
fn each_difference_is_found() {
    for (from, to, item) in [
        ("pub fn quickack", "pub(crate) fn quickack", "SmcStream::quickack is missing"),
        ("pub fn quickack", "#[cfg(windows)] pub fn quickack", "SmcStream::quickack is missing"),
        ("pub fn quickack", "pub async fn quickack", "SmcStream::quickack differs"),
        ("pub fn quickack", "pub const fn quickack", "SmcStream::quickack differs"),
        ("quickack(&self)", "quickack(&mut self)", "SmcStream::quickack differs"),
        ("io::Result<bool>", "std::fmt::Result<bool>", "SmcStream::quickack differs"),
        ("more!();", "", "SmcStream::linger is missing"),
        ("pub fn linger", "fn linger", "SmcStream::linger is missing"),
        ("&mut [u8]", "&[u8]", "SmcStream::peek differs"),
        ("std::net::TcpStream", "tokio::net::TcpStream", "SmcStream::from_std differs"),
        ("io::Result<Self>", "io::Result<std::net::TcpStream>", "SmcStream::from_std differs"),
        ("impl FnOnce", "impl FnMut", "SmcStream::try_io differs"),
        ("on: Interest", "on: &Interest", "SmcStream::try_io differs"),
        ("impl AsyncRead", "impl AsyncWrite", "SmcStream: impl tokio::io::AsyncRead is missing"),
        ("impl AsFd for SmcStream {}", "", "SmcStream: impl std::os::fd::AsFd is missing"),
        ("#[derive(Debug)]", "", "SmcStream: impl std::fmt::Debug is missing"),
        ("pub OwnedReadHalf", "OwnedReadHalf", "ReuniteError.0 is missing"),
    ] {
        let found = complaints_with(from, to, &[]);
        assert!(found.len() == 1 && found[0].starts_with(item), "{from} for {to}: {found:?}");
    }
}

#[test]
fn an_exception_excuses_one_item_and_must_be_needed() {
    let excuse = [("SmcStream::quickack", "why not")];
    assert_eq!(complaints_with("pub fn quickack", "fn quickack", &excuse), [""; 0]);
    assert_eq!(complaints_with("", "", &excuse), ["nothing to excuse about SmcStream::quickack (why not)"]);
    assert_eq!(complaints_with("pub fn linger", "fn linger", &excuse).len(), 2);
}

#[test]
fn unknown_conditions_and_macros_are_not_passed_over() {
    for text in ["cfg_new! { pub struct TcpStream; }", "#[cfg(brand_new)] pub struct TcpStream;"] {
        let file = syn::parse_file(text).unwrap();
        assert!(std::panic::catch_unwind(|| Surface::of(Side::Tokio, &[file])).is_err(), "{text}");
    }
}

/// What no source says: streams and listeners go to other threads as tokio's do.
#[test]
fn everything_is_send_and_sync() {
    fn check<T: Send + Sync + Unpin>() {}
    check::<smcd::SmcStream>();
    check::<smcd::SmcListener>();
    check::<smcd::SmcSocket>();
    check::<smcd::ReadHalf<'_>>();
    check::<smcd::WriteHalf<'_>>();
    check::<smcd::OwnedReadHalf>();
    check::<smcd::OwnedWriteHalf>();
    check::<smcd::ReuniteError>();
}
