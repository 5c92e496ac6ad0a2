//! From a TCP connection to a stream: the CLC handshake in band, with the devices and buffers behind it.

use std::{
    io,
    pin::pin,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::timeout,
};

use super::{
    Handshake, SmcConfig, SmcStream, Stack,
    established::Established,
    link_group::{LinkGroup, Pair, Reach},
    local::{decline_code, join, local, own_dmb},
    outlet::Outlet,
    smcd::Smcd,
};
use crate::{
    clc::{
        DeclineCode,
        exchange::{ExchangeError, read_message, write_message},
        handshake::{
            Agreed, HandshakeError, Local, PeerDmb,
            client::{self, Accepted},
            server::{Candidates, ExpectProposal, Offered},
        },
        wire::{Decline, DecodeError, DmbeSize, HEADER_LEN, Message},
    },
    dibs::{DeviceError, Dmb},
    observe::count_handshake_error,
    tcp_fallback::{
        FallbackReason,
        detect::{First, first_bytes},
    },
    unix::Handed,
};

/// A handshake that left the connection of no use, to either side.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EstablishError {
    /// The peer broke the rules of the handshake, or did not answer.
    #[error("SMC-D handshake failed")]
    Handshake(#[from] HandshakeError),
    /// A message did not arrive, or was none.
    #[error("SMC-D handshake failed")]
    Exchange(#[from] ExchangeError),
    /// The peer did not answer the Proposal with anything that looks like CLC.
    #[error("no CLC answer to the Proposal")]
    NoAnswer(#[source] ExchangeError),
    /// The peer confirmed a DMB that cannot be attached; it takes the connection for SMC-D already.
    #[error("the peer's DMB cannot be attached")]
    Attach(#[source] DeviceError),
    /// The connection itself failed.
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl From<EstablishError> for io::Error {
    fn from(error: EstablishError) -> Self {
        let kind = match &error {
            EstablishError::Io(_) => {
                let EstablishError::Io(error) = error else { return io::ErrorKind::Other.into() };
                return error;
            }
            EstablishError::Handshake(HandshakeError::TimedOut { .. })
            | EstablishError::Exchange(ExchangeError::TimedOut { .. })
            | EstablishError::NoAnswer(ExchangeError::TimedOut { .. }) => io::ErrorKind::TimedOut,
            EstablishError::Exchange(ExchangeError::Closed | ExchangeError::ClosedMidMessage { .. })
            | EstablishError::NoAnswer(ExchangeError::Closed | ExchangeError::ClosedMidMessage { .. }) => {
                io::ErrorKind::ConnectionReset
            }
            EstablishError::Exchange(ExchangeError::Io(error))
            | EstablishError::NoAnswer(ExchangeError::Io(error)) => error.kind(),
            EstablishError::Handshake(_) | EstablishError::Exchange(_) | EstablishError::NoAnswer(_) => {
                io::ErrorKind::InvalidData
            }
            EstablishError::Attach(_) => io::ErrorKind::Other,
        };
        Self::new(kind, error)
    }
}

impl EstablishError {
    /// What the failure of the first exchange means: unless the peer began a CLC message, it need not be an SMC
    /// endpoint at all.
    fn of_first_answer(self) -> Self {
        let Self::Exchange(error) = self else { return self };
        match error {
            ExchangeError::TimedOut { taken } | ExchangeError::ClosedMidMessage { taken }
                if taken >= HEADER_LEN =>
            {
                Self::Exchange(error)
            }
            ExchangeError::Decode(DecodeError::Eyecatcher(_)) => Self::NoAnswer(error),
            ExchangeError::Decode(_) => Self::Exchange(error),
            other => Self::NoAnswer(other),
        }
    }
}

/// A connection whose handshake is over: SMC-D, or TCP from the next byte on.
pub(super) struct Concluded<T> {
    pub(super) tcp: T,
    pub(super) outcome: Result<Smcd, FallbackReason>,
}

impl Concluded<TcpStream> {
    fn into_stream(self) -> SmcStream {
        match self.outcome {
            Ok(smcd) => SmcStream::smcd(self.tcp, smcd),
            Err(reason) => SmcStream::tcp(self.tcp, reason),
        }
    }
}

/// What both roles need. The handshake is the same over any byte stream.
pub(super) struct Session<'a, T> {
    tcp: T,
    config: &'a SmcConfig,
    stack: Arc<Stack>,
    local: Local,
}

/// Makes a stream of a TCP connection, without any handshake before its first byte.
pub(crate) fn tcp_first(tcp: TcpStream, config: &Arc<SmcConfig>) -> SmcStream {
    if config.promotes() {
        SmcStream::promoted(tcp, config.clone())
    } else {
        SmcStream::tcp_with(tcp, FallbackReason::Disabled, config.clone())
    }
}

/// Makes a stream of a TCP connection that we opened.
///
/// # Errors
/// If the connection is of no more use. That one side does not want SMC-D is no error.
pub(crate) async fn client(tcp: TcpStream, config: &SmcConfig) -> io::Result<SmcStream> {
    if config.handshake != Handshake::InBand {
        return Ok(tcp_first(tcp, &Arc::new(config.clone())));
    }
    let stream = Session::new(tcp, config).connect().await?.into_stream();
    tracing::debug!(transport = %stream.transport(), "connected");
    Ok(stream)
}

/// Makes a stream of a TCP connection that we accepted, by the handshake in band.
///
/// # Errors
/// If the connection is of no more use.
pub(crate) async fn server(tcp: TcpStream, config: &SmcConfig) -> Result<SmcStream, EstablishError> {
    let deadline = now() + config.handshake_timeout;
    let stream = match first_bytes(&tcp, config.detect_timeout, deadline).await? {
        First::Clc => Session::new(tcp, config).accept().await?.into_stream(),
        First::Data => SmcStream::tcp(tcp, FallbackReason::PeerNotSmc),
        First::Silence => SmcStream::tcp_undecided(tcp),
    };
    tracing::debug!(transport = %stream.transport(), "accepted");
    Ok(stream)
}

/// The time, which tests may have stopped.
pub(super) fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

impl<'a, T: AsyncRead + AsyncWrite + Unpin> Session<'a, T> {
    pub(super) fn new(tcp: T, config: &'a SmcConfig) -> Self {
        let stack = config.the_stack();
        let local = local(config, &stack);
        Self { tcp, config, stack, local }
    }

    /// When the step that begins now must be over.
    fn deadline(&self) -> Instant {
        now() + self.config.handshake_timeout
    }

    async fn send(&mut self, message: impl Into<Message>) -> Result<(), EstablishError> {
        let deadline = self.deadline();
        Ok(write_message(&mut self.tcp, &message.into(), deadline).await?)
    }

    /// Receives a message; meanwhile takes in what other devices send, so that they are not kept waiting for room.
    async fn receive(&mut self, deadline: Instant) -> Result<Message, EstablishError> {
        const TENDING: Duration = Duration::from_millis(20);
        let devices = self.stack.devices();
        let mut reading = pin!(read_message(&mut self.tcp, deadline));
        loop {
            match timeout(TENDING, &mut reading).await {
                Ok(message) => return Ok(message?),
                Err(_) => devices.iter().for_each(|device| device.tend()),
            }
        }
    }

    fn tend(&self) {
        self.stack.devices().iter().for_each(|device| device.tend());
    }

    /// Sends a Decline; the connection goes on as TCP.
    async fn decline(mut self, decline: Decline) -> Result<Concluded<T>, EstablishError> {
        let code = decline.diagnosis;
        self.send(decline).await?;
        Ok(self.stay(FallbackReason::Declined(code)))
    }

    fn stay(self, reason: FallbackReason) -> Concluded<T> {
        Concluded { tcp: self.tcp, outcome: Err(reason) }
    }

    /// Goes on with TCP after a handshake that ended so, or fails.
    async fn fall_back(self, error: HandshakeError) -> Result<Concluded<T>, EstablishError> {
        match error {
            HandshakeError::Declined(decline) => self.decline(decline).await,
            HandshakeError::PeerDeclined { diagnosis, .. } => {
                Ok(self.stay(FallbackReason::PeerDeclined(diagnosis)))
            }
            other => Err(other.into()),
        }
    }

    /// The client's side.
    pub(super) async fn connect(self) -> Result<Concluded<T>, EstablishError> {
        self.propose_and_confirm().await.inspect_err(|_| count_handshake_error())
    }

    async fn propose_and_confirm(mut self) -> Result<Concluded<T>, EstablishError> {
        let (proposal, expect) = match client::propose(&self.local, now()) {
            Ok(proposed) => proposed,
            Err(decline) => return self.decline(decline).await,
        };
        self.tend();
        self.send(proposal).await.map_err(EstablishError::of_first_answer)?;
        let answer = self.receive(expect.deadline()).await.map_err(EstablishError::of_first_answer)?;
        let accepted = match expect.on_message(answer) {
            Ok(accepted) => accepted,
            Err(error) => return self.fall_back(error).await,
        };
        match self.prepare(&accepted).await {
            Ok((group, dmb, outlet)) => {
                let (confirm, agreed) = accepted.confirm(own_dmb(&dmb), group.link_id());
                self.send(confirm).await?;
                group.confirm();
                self.finish(&agreed, group, dmb, outlet)
            }
            Err(code) => self.decline(accepted.decline(code)).await,
        }
    }

    /// Gets what the client needs to confirm: group, own buffer, and the server's buffer.
    async fn prepare(&self, accepted: &Accepted) -> Result<(Arc<LinkGroup>, Arc<Dmb>, Outlet), DeclineCode> {
        let pair = Pair { device: accepted.device(), peer: accepted.peer_gid(), reach: Reach::Fabric(None) };
        let group = if accepted.terms().first_contact() {
            self.stack.group(pair).ok_or(DeclineCode::INTERNAL)?
        } else {
            self.stack.confirmed_group(pair).ok_or(DeclineCode::SYNC)?
        };
        let dmb = self.acquire(&group).await.map_err(|error| decline_code(&error))?;
        let outlet = outlet(&group, accepted.terms().peer_dmb()).map_err(|error| decline_code(&error))?;
        Ok((group, dmb, outlet))
    }

    /// The server's side.
    pub(super) async fn accept(self) -> Result<Concluded<T>, EstablishError> {
        self.answer().await.inspect_err(|_| count_handshake_error())
    }

    async fn answer(mut self) -> Result<Concluded<T>, EstablishError> {
        let expect = ExpectProposal::new(self.local.clone(), now());
        self.tend();
        let first = self.receive(expect.deadline()).await?;
        let offered = match expect.on_message(first) {
            Ok(offered) => offered,
            Err(error) => return self.fall_back(error).await,
        };
        let stack = self.stack.clone();
        let reachable = |device: usize, gid, vlan| {
            let reached = stack.devices().get(device).map(|device| device.query_remote_gid(gid, vlan));
            // A busy device is there; whether it can be used shows when a DMB is registered for it.
            matches!(reached, Some(Ok(()) | Err(DeviceError::Busy)))
        };
        let chosen = match offered.candidates(reachable) {
            Ok(candidates) => self.choose(&candidates).await,
            Err(code) => Err(code),
        };
        match chosen {
            Ok(choice) => self.offer(offered, choice).await,
            Err(code) => {
                let decline = offered.decline(code);
                self.decline(decline).await
            }
        }
    }

    /// The first candidate for which there is a buffer.
    async fn choose(&self, candidates: &Candidates) -> Result<Choice, DeclineCode> {
        let mut first_failure = None;
        for candidate in candidates.iter() {
            let pair =
                Pair { device: candidate.device(), peer: candidate.peer_gid(), reach: Reach::Fabric(None) };
            let Some(group) = self.stack.group(pair) else { continue };
            match self.acquire(&group).await {
                Ok(dmb) => return Ok(Choice { candidate: *candidate, pair, group, dmb }),
                Err(error) => {
                    tracing::debug!(%error, "no buffer for a candidate");
                    first_failure.get_or_insert(decline_code(&error));
                }
            }
        }
        Err(candidates.decline_code(first_failure.unwrap_or(DeclineCode::INTERNAL)))
    }

    /// Accepts, and waits for the Confirm.
    async fn offer(mut self, offered: Offered, choice: Choice) -> Result<Concluded<T>, EstablishError> {
        let Choice { candidate, pair, group, dmb } = choice;
        // As long as no Confirm has come, the client may not know of the group: each connection that meanwhile
        // begins is a first contact too, so that none has to wait for another.
        let first_contact = !group.is_confirmed();
        let (accept, expect) =
            offered.accept(&candidate, own_dmb(&dmb), first_contact, group.link_id(), now());
        self.send(accept).await?;
        let answer = self.receive(expect.deadline()).await?;
        match expect.on_message(answer) {
            Ok(agreed) => {
                let outlet = outlet(&group, agreed.terms().peer_dmb()).map_err(EstablishError::Attach)?;
                group.confirm();
                self.finish(&agreed, group, dmb, outlet)
            }
            Err(error) => {
                if let HandshakeError::PeerDeclined { out_of_sync: true, .. } = error {
                    self.stack.out_of_sync(pair);
                }
                self.fall_back(error).await
            }
        }
    }

    fn finish(
        self,
        agreed: &Agreed,
        group: Arc<LinkGroup>,
        dmb: Arc<Dmb>,
        outlet: Outlet,
    ) -> Result<Concluded<T>, EstablishError> {
        let connection =
            join(agreed, dmb, outlet).ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))?;
        let peer = agreed.terms().peer_gid();
        let established = Established::new(connection, group, self.stack, peer);
        let smcd = Smcd::new(established, self.config.busy_poll, false)?;
        Ok(Concluded { tcp: self.tcp, outcome: Ok(smcd) })
    }

    /// A buffer of our own; waits a little for a peer that is slow to take in the last ones.
    async fn acquire(&self, group: &LinkGroup) -> Result<Arc<Dmb>, DeviceError> {
        const PAUSE: Duration = Duration::from_millis(1);
        const PATIENCE: Duration = Duration::from_secs(1);
        let size = DmbeSize::holding(self.config.receive_buffer);
        // A peer in a handshake takes in what it gets every few milliseconds.
        let until = now() + PATIENCE.min(self.config.handshake_timeout / 2);
        loop {
            match group.acquire(size) {
                Err(DeviceError::Busy) if now() < until => tokio::time::sleep(PAUSE).await,
                other => return other.map(|acquired| acquired.dmb),
            }
        }
    }
}

/// What a server settles on before it accepts.
struct Choice {
    candidate: crate::clc::handshake::server::Candidate,
    pair: Pair,
    group: Arc<LinkGroup>,
    dmb: Arc<Dmb>,
}

fn outlet(group: &LinkGroup, peer: PeerDmb) -> Result<Outlet, DeviceError> {
    group.outlet(peer.token(), peer.index(), peer.size().bytes(), Handed::default())
}
