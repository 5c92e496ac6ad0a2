//! From a TCP connection of the standard library to a stream, where the SMC option decides whether there is a handshake
//! in band. It runs in the thread that connects or accepts.

use std::{
    future::Future,
    io::{self, IoSlice},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream},
    pin::pin,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags},
    net::{RecvFlags, recv},
};
use socket2::{Domain, Protocol, Socket, Type};

use super::{poll, shared::Shared};
use crate::{
    FallbackReason, SmcConfig,
    clc::{
        exchange::{ExchangeError, take_in},
        wire::{Assembler, Message},
    },
    smc::{
        hybrid::{Counts, send},
        in_band::{self, Client, EstablishError, Outcome, TENDING, Wire},
    },
    tcp_fallback::{
        detect::{First, judge, look},
        promotion::is_peer_here,
        syn_option::{self, Answer},
    },
    unix::interfaces::local_ip,
};

/// Connections that wait in the kernel.
const BACKLOG: i32 = 1024;

/// A connection whose handshake waits in calls of the system. Its futures are always ready.
struct Waiting<'a>(&'a TcpStream);

impl Waiting<'_> {
    /// Sleeps until there is something to do, or this time has come.
    fn sleep(&self, events: PollFlags, until: Instant) -> io::Result<()> {
        let left = until.saturating_duration_since(Instant::now());
        match poll::sleep(&mut [PollFd::new(self.0, events)], Some(left)) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(()),
            other => other,
        }
    }

    /// As [`Waiting::sleep`], as part of a message that has to be over by the deadline.
    fn wait(
        &self,
        events: PollFlags,
        until: Instant,
        deadline: Instant,
        taken: usize,
    ) -> Result<(), ExchangeError> {
        if Instant::now() >= deadline {
            return Err(ExchangeError::TimedOut { taken });
        }
        Ok(self.sleep(events, until.min(deadline))?)
    }
}

impl Wire for Waiting<'_> {
    fn local_ip(&self) -> Option<IpAddr> {
        local_ip(self.0)
    }

    async fn first_bytes(&mut self, patience: Duration, deadline: Instant) -> io::Result<First> {
        /// Between two looks at the beginning of what may become an eyecatcher.
        const PAUSE: Duration = Duration::from_millis(5);
        let silence = Instant::now() + patience;
        loop {
            let begun = match look(self.0, judge) {
                Ok(Some(first)) => return Ok(first),
                Ok(None) => true,
                Err(error) if is_for_later(&error) => false,
                Err(error) => return Err(error),
            };
            let now = Instant::now();
            match begun {
                // A peek leaves the socket readable, so that it cannot be slept on.
                true if now < deadline => std::thread::sleep(PAUSE),
                // Whoever sends a part of an eyecatcher and then nothing is no SMC endpoint.
                true => return Ok(First::Data),
                false if now < silence => self.sleep(PollFlags::IN, silence)?,
                false => return Ok(First::Silence),
            }
        }
    }

    async fn send(&mut self, message: &Message, deadline: Instant) -> Result<(), ExchangeError> {
        let bytes = message.to_bytes();
        let mut rest = bytes.as_slice();
        while !rest.is_empty() {
            match send(self.0, &[IoSlice::new(rest)]) {
                Ok(n) => rest = rest.get(n..).unwrap_or_default(),
                Err(error) if is_for_later(&error) => self.wait(PollFlags::OUT, deadline, deadline, 0)?,
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    async fn receive(
        &mut self,
        deadline: Instant,
        tend: &(dyn Fn() + Sync),
    ) -> Result<Message, ExchangeError> {
        let mut assembler = Assembler::new();
        let mut buf = [0; Assembler::MAX_READ];
        loop {
            let room = buf.get_mut(..assembler.missing()).unwrap_or_default();
            match recv(self.0, &mut *room, RecvFlags::DONTWAIT).map_err(io::Error::from) {
                Ok((n, _)) => {
                    if let Some(message) = take_in(&mut assembler, room.get(..n).unwrap_or_default())? {
                        return Ok(message);
                    }
                }
                Err(error) if is_for_later(&error) => {
                    self.wait(PollFlags::IN, Instant::now() + TENDING, deadline, assembler.taken())?;
                    tend();
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    async fn pause(&mut self, time: Duration) {
        std::thread::sleep(time);
    }
}

fn is_for_later(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}

/// Runs a handshake whose [`Wire`] is [`Waiting`].
fn run<T>(handshake: impl Future<Output = Result<T, EstablishError>>) -> Result<T, EstablishError> {
    match pin!(handshake).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(result) => result,
        // Nothing in it waits but the wire.
        Poll::Pending => Err(io::Error::from(io::ErrorKind::WouldBlock).into()),
    }
}

/// A socket for connections with this address.
fn socket(addr: SocketAddr) -> io::Result<Socket> {
    Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))
}

/// Connects, also if a signal comes in between.
fn connect_socket(socket: &Socket, addr: SocketAddr) -> io::Result<()> {
    match socket.connect(&addr.into()) {
        Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
        other => return other,
    }
    loop {
        match poll::sleep(&mut [PollFd::new(socket, PollFlags::OUT)], None) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
            Ok(()) => return socket.take_error()?.map_or(Ok(()), Err),
        }
    }
}

/// Connects to a peer that is asked by the SMC option.
///
/// # Errors
/// Those of [`TcpStream::connect`].
pub(super) fn connect(addr: SocketAddr, config: &Arc<SmcConfig>) -> io::Result<Shared> {
    let socket = socket(addr)?;
    syn_option::ask(&socket);
    connect_socket(&socket, addr)?;
    if let Answer::None(reason) = Answer::on(&socket) {
        return without_option(socket.into(), config, reason);
    }
    let tcp = TcpStream::from(socket);
    if let Some(outcome) = run(in_band::connect_by_option(&mut Waiting(&tcp), config))? {
        return shared_of(tcp, config, outcome);
    }
    syn_option::disconnect(&tcp)?;
    let socket = Socket::from(tcp);
    connect_socket(&socket, addr)?;
    without_option(socket.into(), config, FallbackReason::OptionEchoed)
}

/// Goes on without the option: a peer on this host may still be met.
fn without_option(tcp: TcpStream, config: &Arc<SmcConfig>, reason: FallbackReason) -> io::Result<Shared> {
    let may_meet = config.runtime_dir.is_some() || is_peer_here(&tcp).unwrap_or(false);
    if config.promotes() && may_meet {
        return Ok(Shared::new(tcp, config, Ok(Counts::default())));
    }
    Ok(Shared::staying(tcp, config, reason))
}

/// Listens, and has the listener answer the SMC option.
///
/// # Errors
/// Those of [`TcpListener::bind`].
pub(super) fn bind(addr: SocketAddr) -> io::Result<TcpListener> {
    let socket = socket(addr)?;
    socket.set_reuse_address(true)?;
    syn_option::ask(&socket);
    socket.bind(&addr.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Makes a stream of a connection that was accepted from `peer`.
///
/// # Errors
/// If the connection is of no more use.
pub(super) fn accept(
    tcp: TcpStream,
    peer: SocketAddr,
    config: &Arc<SmcConfig>,
) -> Result<Shared, EstablishError> {
    match config.listens_for_option().then(|| Answer::on(&tcp)) {
        Some(Answer::Agreed) => {}
        Some(Answer::None(reason)) if !config.promotes() => return Ok(Shared::staying(tcp, config, reason)),
        _ => return Ok(Shared::new(tcp, config, Ok(Counts::default()))),
    }
    let client = if config.asks_for_option(peer.ip()) { Client::Wanted } else { Client::Unwanted };
    by_option(tcp, config, client)
}

/// The server's handshake after both ends have sent the option.
fn by_option(tcp: TcpStream, config: &Arc<SmcConfig>, client: Client) -> Result<Shared, EstablishError> {
    match run(in_band::accept(&mut Waiting(&tcp), config, client, config.handshake_timeout))? {
        Some(outcome) => Ok(shared_of(tcp, config, outcome)?),
        None => Ok(Shared::of_silent(tcp, config)),
    }
}

/// What a handshake has made of a connection.
fn shared_of(tcp: TcpStream, config: &Arc<SmcConfig>, outcome: Outcome) -> io::Result<Shared> {
    match outcome {
        Outcome::Smcd(established) => Shared::on_rings(tcp, config, *established),
        Outcome::Tcp(reason) => Ok(Shared::staying(tcp, config, reason)),
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read, Write},
        thread,
    };

    use super::*;
    use crate::{
        Stack, Transport,
        blocking::SmcStream,
        clc::{
            DeclineCode,
            wire::{Decline, Version},
        },
        dibs::loopback::DmbLimits,
    };

    /// In which a test's thread has begun to speak.
    const SOON: Duration = Duration::from_secs(6);

    fn config() -> Arc<SmcConfig> {
        let stack = Stack::with_loopback(DmbLimits::default()).unwrap();
        Arc::new(SmcConfig::new().stack(stack))
    }

    /// A TCP connection: our end, and the peer's.
    fn connection() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let tcp = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (tcp, listener.accept().unwrap().0)
    }

    fn stream(shared: io::Result<Shared>) -> SmcStream {
        SmcStream(Arc::new(shared.unwrap()))
    }

    #[test]
    fn two_threads_shake_hands_and_talk() {
        let (ours, theirs) = connection();
        let server = thread::spawn(move || {
            let config = config();
            let outcome = run(in_band::accept(&mut Waiting(&theirs), &config, Client::Wanted, SOON)).unwrap();
            let mut stream = stream(shared_of(theirs, &config, outcome.unwrap()));
            let mut all = Vec::new();
            stream.read_to_end(&mut all).unwrap();
            stream.write_all(&all).unwrap();
            (all.len(), stream.byte_counts().received)
        });
        let config = config();
        let outcome = run(in_band::connect(&mut Waiting(&ours), &config)).unwrap();
        let mut stream = stream(shared_of(ours, &config, outcome));
        assert!(stream.transport().is_smcd());
        stream.write_all(&[7; 100_000]).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let mut back = Vec::new();
        stream.read_to_end(&mut back).unwrap();
        assert!(back == [7; 100_000]);
        assert_eq!(server.join().unwrap(), (100_000, 100_000));
    }

    #[test]
    fn a_dribbled_decline_leaves_the_next_byte_to_the_application() {
        let (ours, mut theirs) = connection();
        theirs.set_nodelay(true).unwrap();
        let peer = thread::spawn(move || {
            assert!(theirs.read(&mut [0; 1024]).unwrap() > 0, "the Proposal");
            let decline = Message::from(Decline::new(Version::V2, DeclineCode::NO_UEID)).to_bytes();
            for byte in decline.iter().chain(b"data") {
                theirs.write_all(&[*byte]).unwrap();
                thread::sleep(Duration::from_millis(1));
            }
        });
        let config = config();
        let outcome = run(in_band::connect(&mut Waiting(&ours), &config)).unwrap();
        let mut stream = stream(shared_of(ours, &config, outcome));
        let reason = FallbackReason::PeerDeclined(DeclineCode::NO_UEID);
        assert_eq!(stream.transport(), Transport::Tcp(reason));
        let mut all = String::new();
        stream.read_to_string(&mut all).unwrap();
        assert_eq!(all, "data");
        peer.join().unwrap();
    }

    #[test]
    fn silence_and_the_end_are_no_answer() {
        let error = |tcp, config: &SmcConfig| {
            let error = run(in_band::connect(&mut Waiting(&tcp), config)).unwrap_err();
            let EstablishError::NoAnswer(error) = error else { panic!("{error:?}") };
            *error
        };
        let (ours, theirs) = connection();
        let impatient = SmcConfig::clone(&config()).handshake_timeout(Duration::from_millis(50));
        let silence = error(ours, &impatient);
        assert!(
            matches!(silence, EstablishError::Exchange(ExchangeError::TimedOut { taken: 0 })),
            "{silence:?}"
        );
        let (ours, gone) = connection();
        gone.shutdown(std::net::Shutdown::Write).unwrap();
        let end = error(ours, &config());
        assert!(matches!(end, EstablishError::Exchange(ExchangeError::Closed)), "{end:?}");
        drop(theirs);
    }

    /// What the peer makes of a Proposal, and whether it was only an echo of the option.
    fn is_echo(peer: impl FnOnce(TcpStream, Vec<u8>) + Send + 'static) -> Result<bool, EstablishError> {
        let (ours, mut theirs) = connection();
        let peer = thread::spawn(move || {
            let mut proposal = vec![0; 1024];
            let n = theirs.read(&mut proposal).unwrap();
            proposal.truncate(n);
            peer(theirs, proposal);
        });
        let outcome = run(in_band::connect_by_option(&mut Waiting(&ours), &config()));
        peer.join().unwrap();
        outcome.map(|outcome| outcome.is_none())
    }

    #[test]
    fn what_is_no_answer_of_a_server_is_an_echo() {
        let says = |bytes: &'static [u8]| is_echo(move |mut tcp, _| tcp.write_all(bytes).unwrap());
        assert!(says(b"").unwrap());
        assert!(says(b"220 ready\r\n").unwrap());
        assert!(says(b"ok\r\n").unwrap());
        let sends_back = is_echo(|mut tcp, proposal| tcp.write_all(&proposal).unwrap());
        assert!(sends_back.unwrap(), "as an echo service does");
    }

    #[test]
    fn a_server_that_breaks_the_protocol_is_no_echo() {
        // The header of an Accept, and no more.
        let error = is_echo(|mut tcp, _| {
            tcp.write_all(&[0xe2, 0xd4, 0xc3, 0xc4, 2, 0, 0x4e, 0x21]).unwrap();
        });
        let error = error.unwrap_err();
        assert!(
            matches!(error, EstablishError::Exchange(ExchangeError::ClosedMidMessage { taken: 8 })),
            "{error:?}"
        );
    }

    #[test]
    fn first_bytes_are_looked_at_and_left() {
        let patience = Duration::from_millis(100);
        let first_bytes = |tcp| {
            run(async { Ok(Waiting(tcp).first_bytes(patience, Instant::now() + patience).await?) }).unwrap()
        };
        let (ours, mut theirs) = connection();
        assert_eq!(first_bytes(&ours), First::Silence);
        theirs.write_all(&[0xe2, 0xd4]).unwrap();
        assert_eq!(first_bytes(&ours), First::Data, "no eyecatcher comes of it");
        theirs.write_all(&[0xc3, 0xd9]).unwrap();
        thread::sleep(patience);
        assert_eq!(first_bytes(&ours), First::Clc);
        drop(theirs);
        assert_eq!((&ours).read(&mut [0; 9]).unwrap(), 4);
        assert_eq!(first_bytes(&ours), First::Data, "the end");
    }

    #[test]
    fn a_client_that_says_nothing_or_something_else_is_plain() {
        let accept = |tcp: &TcpStream| {
            let soon = Duration::from_millis(50);
            run(in_band::accept(&mut Waiting(tcp), &config(), Client::Wanted, soon)).unwrap()
        };
        let (ours, mut theirs) = connection();
        assert!(accept(&ours).is_none());
        theirs.write_all(b"GET ").unwrap();
        assert!(matches!(accept(&ours), Some(Outcome::Tcp(FallbackReason::PeerNotSmc))));
        assert_eq!((&ours).read(&mut [0; 9]).unwrap(), 4, "it is all there");
    }

    /// The server's end of a connection whose client has sent the option, and then nothing in time; and the client's.
    fn silent_client() -> (SmcStream, TcpStream) {
        let (ours, theirs) = connection();
        let impatient = Arc::new(SmcConfig::clone(&config()).handshake_timeout(Duration::from_millis(50)));
        let shared = by_option(ours, &impatient, Client::Wanted).unwrap();
        let stream = SmcStream(Arc::new(shared));
        assert_eq!(stream.transport(), Transport::Tcp(FallbackReason::PeerNotSmc));
        (stream, theirs)
    }

    #[test]
    fn a_proposal_that_comes_too_late_is_never_data() {
        let (mut stream, mut theirs) = silent_client();
        let client = thread::spawn(move || {
            thread::sleep(Duration::from_millis(50));
            theirs.write_all(&[0xe2, 0xd4, 0xc3, 0xd9, 1, 0, 0xe0, 0x26]).unwrap();
            theirs
        });
        for _ in 0..2 {
            let errors = [
                stream.read(&mut [0; 9]),
                stream.peek(&mut [0; 9]),
                stream.read_vectored(&mut [io::IoSliceMut::new(&mut [0; 9])]),
            ];
            for error in errors.map(Result::unwrap_err) {
                assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{error}");
            }
        }
        drop(client.join().unwrap());
    }

    #[test]
    fn a_client_that_lets_the_server_speak_first_is_served() {
        let (mut stream, mut theirs) = silent_client();
        stream.write_all(b"220 ready").unwrap();
        assert_eq!(stream.read(&mut []).unwrap(), 0, "nothing to wait for");
        stream.set_nonblocking(true).unwrap();
        assert_eq!(stream.read(&mut [0; 9]).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        stream.set_nonblocking(false).unwrap();
        stream.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
        assert_eq!(stream.read(&mut [0; 9]).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        stream.set_read_timeout(None).unwrap();
        theirs.read_exact(&mut [0; 9]).unwrap();
        theirs.write_all(b"HELO").unwrap();
        theirs.shutdown(std::net::Shutdown::Write).unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        assert_eq!(text, "HELO");
        // What is empty is data, too.
        let (mut stream, theirs) = silent_client();
        drop(theirs);
        assert_eq!(stream.read(&mut [0; 9]).unwrap(), 0);
    }
}
