//! The CLC handshake in band: on the TCP connection, before any data, with the devices and buffers behind it.
//!
//! One for all front ends. How to wait is theirs ([`Wire`]).

use std::{
    future::Future,
    io,
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    SmcConfig, Stack,
    established::Established,
    link_group::{LinkGroup, Pair, Reach},
    local::{decline_code, join, local, own_dmb},
    outlet::Outlet,
    pnet::Served,
};
use crate::{
    clc::{
        DeclineCode,
        exchange::ExchangeError,
        handshake::{
            Agreed, HandshakeError, Local, PeerDmb, Violation, Vlan,
            client::{self, Accepted, ExpectAccept},
            server::{Candidate, Candidates, ExpectProposal, Offered},
        },
        wire::{Decline, DecodeError, DmbeSize, HEADER_LEN, Message, MsgType, Proposal, Version},
    },
    dibs::{DeviceError, Dmb},
    observe::count_handshake_error,
    tcp_fallback::{FallbackReason, detect::First},
    unix::Handed,
};

/// How often other devices are taken in from while a message is waited for.
pub(crate) const TENDING: Duration = Duration::from_millis(20);

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
    /// The peer did not answer the Proposal as a server of SMC would, even one that breaks the rules.
    #[error("no CLC answer to the Proposal")]
    NoAnswer(#[source] Box<EstablishError>),
    /// The peer confirmed a DMB that cannot be attached; it takes the connection for SMC-D already.
    #[error("the peer's DMB cannot be attached")]
    Attach(#[source] DeviceError),
    /// The connection itself failed.
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl From<EstablishError> for io::Error {
    fn from(error: EstablishError) -> Self {
        match error {
            EstablishError::Io(error) => error,
            error => Self::new(error.kind(), error),
        }
    }
}

impl EstablishError {
    fn kind(&self) -> io::ErrorKind {
        match self {
            Self::Io(error) | Self::Exchange(ExchangeError::Io(error)) => error.kind(),
            Self::Handshake(HandshakeError::TimedOut { .. })
            | Self::Exchange(ExchangeError::TimedOut { .. }) => io::ErrorKind::TimedOut,
            Self::Exchange(ExchangeError::Closed | ExchangeError::ClosedMidMessage { .. }) => {
                io::ErrorKind::ConnectionReset
            }
            Self::Handshake(_) | Self::Exchange(_) => io::ErrorKind::InvalidData,
            Self::NoAnswer(error) => error.kind(),
            Self::Attach(_) => io::ErrorKind::Other,
        }
    }

    /// What an error of the peer's first answer means: unless it began a message that is for servers to send, it need not be
    /// an SMC endpoint at all.
    fn of_first_answer(self) -> Self {
        let is_of_clc = match &self {
            Self::Exchange(ExchangeError::TimedOut { taken } | ExchangeError::ClosedMidMessage { taken }) => {
                *taken >= HEADER_LEN
            }
            Self::Exchange(ExchangeError::Decode(DecodeError::Eyecatcher(_))) => false,
            Self::Exchange(ExchangeError::Decode(_)) => true,
            Self::Exchange(_) => false,
            Self::Handshake(HandshakeError::Protocol(Violation::Message { got, .. })) => {
                // Some applications send back what they get.
                *got != MsgType::Proposal
            }
            _ => true,
        };
        if is_of_clc { self } else { Self::NoAnswer(Box::new(self)) }
    }
}

/// The TCP connection below, whose ever it is, and how its front end waits.
pub(crate) trait Wire {
    /// The time, which tests may have stopped.
    fn now(&self) -> Instant {
        Instant::now()
    }

    /// The address of this end, if the system has it.
    fn local_ip(&self) -> Option<IpAddr> {
        None
    }

    /// Waits for the first bytes: for `patience` until the first, then until `deadline` for the rest of what looks like
    /// an eyecatcher. Nothing is consumed.
    fn first_bytes(
        &mut self,
        patience: Duration,
        deadline: Instant,
    ) -> impl Future<Output = io::Result<First>> + Send;

    /// Sends a message, as [`write_message`](crate::clc::exchange) does.
    fn send(
        &mut self,
        message: &Message,
        deadline: Instant,
    ) -> impl Future<Output = Result<(), ExchangeError>> + Send;

    /// Receives a message, and not a byte more; calls `tend` now and then meanwhile.
    fn receive(
        &mut self,
        deadline: Instant,
        tend: &(dyn Fn() + Sync),
    ) -> impl Future<Output = Result<Message, ExchangeError>> + Send;

    /// Lets this time pass.
    fn pause(&mut self, time: Duration) -> impl Future<Output = ()> + Send;
}

/// How long is waited for what another connection does in the meantime, and how often is looked.
const PATIENCE: Duration = Duration::from_secs(1);
const PAUSE: Duration = Duration::from_millis(1);

/// What both ends know after a handshake.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// The connection is SMC-D.
    Smcd(Box<Established>),
    /// It is TCP, from the next byte on.
    Tcp(FallbackReason),
}

/// What a server thinks of a client before its Proposal.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Client {
    /// To be served.
    Wanted,
    /// To be declined, for it is owed an answer.
    Unwanted,
}

/// The handshake of a connection that we opened, to a peer that is known to understand it.
///
/// # Errors
/// If the connection is of no more use. That one side does not want SMC-D is no error.
pub(crate) async fn connect<W: Wire + Send>(
    wire: &mut W,
    config: &SmcConfig,
) -> Result<Outcome, EstablishError> {
    Session::new(wire, config).connect().await.inspect_err(|_| count_handshake_error())
}

/// The handshake of a connection that we opened, and on which both ends have sent the SMC option. `None` if the peer has
/// merely echoed it: then it has got a Proposal for data. Or if there is nothing to propose any more
/// (`local::nothing_to_propose`): a peer that is owed a message gets none, and one that is not must not get a Decline for data.
/// Either way the caller connects anew, without the option.
///
/// # Errors
/// As [`connect`].
pub(crate) async fn connect_by_option<W: Wire + Send>(
    wire: &mut W,
    config: &SmcConfig,
) -> Result<Option<Outcome>, EstablishError> {
    let session = Session::new(wire, config);
    let Ok(proposed) = client::propose(&session.local, session.wire.now()) else { return Ok(None) };
    match session.propose(proposed).await.inspect_err(|_| count_handshake_error()) {
        Ok(outcome) => Ok(Some(outcome)),
        Err(EstablishError::NoAnswer(error)) => {
            tracing::warn!(%error, "the SMC option was echoed, and then not meant");
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// What becomes of a connection that we accepted, and whose client speaks CLC at once if ever. `None` if it said nothing
/// for this time: its first bytes will tell what it is.
///
/// # Errors
/// As [`connect`].
pub(crate) async fn accept<W: Wire + Send>(
    wire: &mut W,
    config: &SmcConfig,
    client: Client,
    patience: Duration,
) -> Result<Option<Outcome>, EstablishError> {
    let deadline = wire.now() + config.handshake_timeout;
    match wire.first_bytes(patience, deadline).await? {
        First::Clc => {
            let accepted = Session::new(wire, config).accept(client).await;
            accepted.map(Some).inspect_err(|_| count_handshake_error())
        }
        First::Data => Ok(Some(Outcome::Tcp(FallbackReason::PeerNotSmc))),
        First::Silence => Ok(None),
    }
}

/// What both roles need.
struct Session<'a, W> {
    wire: &'a mut W,
    config: &'a SmcConfig,
    stack: Arc<Stack>,
    served: Served,
    local: Local,
}

impl<'a, W: Wire + Send> Session<'a, W> {
    fn new(wire: &'a mut W, config: &'a SmcConfig) -> Self {
        let stack = config.the_stack();
        let served = Served::new(config, &stack, wire.local_ip());
        let local = local(config, &stack, &served);
        Self { wire, config, stack, served, local }
    }

    async fn send(&mut self, message: impl Into<Message>) -> Result<(), EstablishError> {
        let deadline = self.wire.now() + self.config.handshake_timeout;
        Ok(self.wire.send(&message.into(), deadline).await?)
    }

    /// Receives a message; meanwhile takes in what other devices send, so that they are not kept waiting for room.
    async fn receive(&mut self, deadline: Instant) -> Result<Message, EstablishError> {
        let stack = &self.stack;
        let tend = || stack.tend();
        Ok(self.wire.receive(deadline, &tend).await?)
    }

    fn tend(&self) {
        self.stack.tend();
    }

    /// The position in the stack's list of a device that serves the connection.
    fn position(&self, device: usize) -> Option<usize> {
        self.served.devices.get(device).copied()
    }

    /// How the peer is reached by this version of SMC-D.
    fn reach(&self, version: Version) -> Reach {
        match self.served.vlan {
            Vlan::Id(vlan) if version.is_v1() => Reach::Fabric(Some(vlan)),
            _ => Reach::Fabric(None),
        }
    }

    /// Sends a Decline; the connection goes on as TCP.
    async fn decline(mut self, decline: Decline) -> Result<Outcome, EstablishError> {
        let reason = self.served.reason(decline.diagnosis);
        self.send(decline).await?;
        Ok(Outcome::Tcp(reason))
    }

    /// Goes on with TCP after a handshake that ended so, or fails.
    async fn fall_back(self, error: HandshakeError) -> Result<Outcome, EstablishError> {
        match error {
            HandshakeError::Declined(decline) => self.decline(decline).await,
            HandshakeError::PeerDeclined { diagnosis, .. } => {
                Ok(Outcome::Tcp(FallbackReason::PeerDeclined(diagnosis)))
            }
            other => Err(other.into()),
        }
    }

    async fn connect(self) -> Result<Outcome, EstablishError> {
        match client::propose(&self.local, self.wire.now()) {
            Ok(proposed) => self.propose(proposed).await,
            Err(decline) => {
                let why = self.served.lack.map(|lack| client::decline(&self.local, lack.code()));
                self.decline(why.unwrap_or(decline)).await
            }
        }
    }

    async fn propose(
        mut self,
        (proposal, expect): (Proposal, ExpectAccept),
    ) -> Result<Outcome, EstablishError> {
        self.tend();
        self.send(proposal).await.map_err(EstablishError::of_first_answer)?;
        let answer = self.receive(expect.deadline()).await.map_err(EstablishError::of_first_answer)?;
        let accepted = match expect.on_message(answer) {
            Ok(accepted) => accepted,
            Err(error @ HandshakeError::Protocol(_)) => {
                return Err(EstablishError::from(error).of_first_answer());
            }
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
    async fn prepare(
        &mut self,
        accepted: &Accepted,
    ) -> Result<(Arc<LinkGroup>, Arc<Dmb>, Outlet), DeclineCode> {
        let device = self.position(accepted.device()).ok_or(DeclineCode::INTERNAL)?;
        let reach = self.reach(accepted.terms().version());
        let pair = Pair { device, peer: accepted.peer_gid(), reach };
        let group = if accepted.terms().first_contact() {
            self.stack.group(pair).ok_or(DeclineCode::INTERNAL)?
        } else {
            self.common_group(pair).await.ok_or(DeclineCode::SYNC)?
        };
        let dmb = self.acquire(&group).await.map_err(|error| decline_code(&error))?;
        let outlet = outlet(&group, accepted.terms().peer_dmb()).map_err(|error| decline_code(&error))?;
        Ok((group, dmb, outlet))
    }

    /// The group that the server takes for common. Linux does so once its Accept of the first contact is out, and its Accept of
    /// another connection may come before that. Linux ends the whole group if it is told that there is none.
    async fn common_group(&mut self, pair: Pair) -> Option<Arc<LinkGroup>> {
        let until = self.wire.now() + PATIENCE.min(self.config.handshake_timeout / 2);
        loop {
            match self.stack.confirmed_group(pair) {
                None if self.wire.now() < until => self.wire.pause(PAUSE).await,
                group => return group,
            }
        }
    }

    async fn accept(mut self, client: Client) -> Result<Outcome, EstablishError> {
        let expect = ExpectProposal::new(self.local.clone(), self.wire.now());
        self.tend();
        let first = self.receive(expect.deadline()).await?;
        let offered = match expect.on_message(first) {
            Ok(offered) => offered,
            Err(error) => return self.fall_back(error).await,
        };
        let chosen = match client {
            // Who has nothing wants nobody, and says so.
            Client::Unwanted if client::propose(&self.local, self.wire.now()).is_ok() => {
                Err(DeclineCode::CONFIG)
            }
            Client::Wanted | Client::Unwanted => self.choose_of(&offered).await,
        };
        match chosen {
            Ok(choice) => self.offer(offered, choice).await,
            Err(code) => {
                let decline = offered.decline(code);
                self.decline(decline).await
            }
        }
    }

    async fn choose_of(&mut self, offered: &Offered) -> Result<Choice, DeclineCode> {
        let stack = self.stack.clone();
        let reachable = |device: usize, gid, vlan| {
            let device = self.position(device).and_then(|device| stack.devices().get(device));
            let reached = device.map(|device| device.query_remote_gid(gid, vlan));
            // A busy device is there; whether it can be used shows when a DMB is registered for it.
            matches!(reached, Some(Ok(()) | Err(DeviceError::Busy)))
        };
        let candidates = offered.candidates(reachable)?;
        self.choose(&candidates).await
    }

    /// The first candidate for which there is a buffer.
    async fn choose(&mut self, candidates: &Candidates) -> Result<Choice, DeclineCode> {
        let mut first_failure = None;
        for candidate in candidates.iter() {
            let Some(device) = self.position(candidate.device()) else { continue };
            let reach = self.reach(candidate.version());
            let pair = Pair { device, peer: candidate.peer_gid(), reach };
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
    async fn offer(mut self, offered: Offered, choice: Choice) -> Result<Outcome, EstablishError> {
        let Choice { candidate, pair, group, dmb } = choice;
        // As long as no Confirm has come, the client may not know of the group: each connection that meanwhile
        // begins is a first contact too, so that none has to wait for another.
        let first_contact = !group.is_confirmed();
        let (accept, expect) =
            offered.accept(&candidate, own_dmb(&dmb), first_contact, group.link_id(), self.wire.now());
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
    ) -> Result<Outcome, EstablishError> {
        let connection =
            join(agreed, dmb, outlet).ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))?;
        let peer = agreed.terms().peer_gid();
        Ok(Outcome::Smcd(Box::new(Established::new(connection, group, self.stack, peer))))
    }

    /// A buffer of our own; waits a little for a peer that is slow to take in the last ones.
    async fn acquire(&mut self, group: &LinkGroup) -> Result<Arc<Dmb>, DeviceError> {
        let size = DmbeSize::holding(self.config.receive_buffer);
        // A peer in a handshake takes in what it gets every few milliseconds.
        let until = self.wire.now() + PATIENCE.min(self.config.handshake_timeout / 2);
        loop {
            match group.acquire(size) {
                Err(DeviceError::Busy) if self.wire.now() < until => self.wire.pause(PAUSE).await,
                other => return other.map(|acquired| acquired.dmb),
            }
        }
    }
}

/// What a server settles on before it accepts.
struct Choice {
    candidate: Candidate,
    pair: Pair,
    group: Arc<LinkGroup>,
    dmb: Arc<Dmb>,
}

fn outlet(group: &LinkGroup, peer: PeerDmb) -> Result<Outlet, DeviceError> {
    group.outlet(peer.token(), peer.index(), peer.size().bytes(), Handed::default())
}

#[cfg(all(test, feature = "tokio"))]
mod tests;
