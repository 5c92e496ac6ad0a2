//! The handshake on the side channel, a step at a time.
//!
//! There is no thread behind it: the steps are taken in the application's own calls, between its reads and writes on
//! the TCP connection. None of them waits. Whoever comes second to the rendezvous is the client of the CLC exchange.

use std::{io, os::fd::BorrowedFd, sync::Arc, time::Instant};

use super::{
    SmcConfig, Stack,
    established::Established,
    link_group::{Acquired, LinkGroup, Pair, Reach},
    local::{decline_code, join, local, own_dmb},
    outlet::Outlet,
    pnet::Served,
};
use crate::{
    clc::{
        DeclineCode,
        handshake::{
            Agreed, HandshakeError, Local, PeerDmb,
            client::{self, Accepted, ExpectAccept},
            server::{Candidate, ExpectConfirm, ExpectProposal, Offered},
        },
        wire::{DmbeSize, Message},
    },
    dibs::{DeviceError, Gid},
    fault::fault,
    tcp_fallback::{
        FallbackReason,
        promotion::{Channel, Look, Meeting, Packet, Proof, Rendezvous, Waiting},
    },
    unix::Handed,
};

/// So often the two ends may find that only one of them knows their link group, or break off, and start again.
const ROUNDS: u32 = 3;

/// Processes of the peer's user that may have come to the rendezvous and not yet said anything.
const SILENT: usize = 4;

/// What a step came to.
#[derive(Debug)]
pub(crate) enum Step {
    /// Nothing; the other end has to do something first.
    Waiting,
    /// The handshake went on.
    Progress,
    /// Both ends have agreed. Each direction can be switched as soon as its reader says so.
    Established(Box<Established>),
    /// The connection stays TCP.
    Over(FallbackReason),
}

/// A handshake on the side channel.
#[derive(Debug)]
pub(crate) struct Negotiation {
    rendezvous: Rendezvous,
    config: Arc<SmcConfig>,
    stack: Arc<Stack>,
    stage: Stage,
    rounds: u32,
}

#[derive(Debug)]
enum Stage {
    /// The other end was not there, and could not be waited for.
    Seeking,
    /// It has not come yet, or has not spoken.
    Waiting { waiting: Waiting, silent: Vec<(Channel, Proof)> },
    /// The Proposal is sent.
    Proposed { channel: Channel, proof: Proof, expect: Box<ExpectAccept> },
    /// The Accept is sent.
    Accepted {
        channel: Channel,
        pair: Pair,
        expect: Box<ExpectConfirm>,
        group: Arc<LinkGroup>,
        own: Acquired,
    },
    /// It has come to an end.
    Over,
}

impl Negotiation {
    /// Begins a handshake for a TCP connection.
    ///
    /// # Errors
    /// Why it cannot be.
    pub(crate) fn new(tcp: BorrowedFd<'_>, config: Arc<SmcConfig>) -> Result<Self, FallbackReason> {
        let rendezvous = Rendezvous::of(tcp, config.runtime_dir.as_deref())?;
        let stack = config.the_stack();
        if stack.is_inherited() {
            return Err(FallbackReason::StackInherited);
        }
        Ok(Self { rendezvous, config, stack, stage: Stage::Seeking, rounds: 0 })
    }

    /// Does what can be done now.
    pub(crate) fn step(&mut self) -> Step {
        match std::mem::replace(&mut self.stage, Stage::Over) {
            Stage::Seeking => self.seek(),
            Stage::Waiting { waiting, silent } => self.wait(waiting, silent),
            Stage::Proposed { channel, proof, expect } => match channel.look() {
                Look::Packet(packet) => self.on_answer(&channel, proof, *expect, *packet),
                Look::Empty => self.stay(Stage::Proposed { channel, proof, expect }),
                Look::Closed => self.seek_again(FallbackReason::PeerLeft),
                Look::Garbage => Step::Over(FallbackReason::PeerMisbehaved),
            },
            Stage::Accepted { channel, pair, expect, group, own } => match channel.look() {
                Look::Packet(packet) => self.on_confirm(pair, *expect, &group, own, *packet),
                Look::Empty => self.stay(Stage::Accepted { channel, pair, expect, group, own }),
                Look::Closed => self.seek_again(FallbackReason::PeerLeft),
                Look::Garbage => Step::Over(FallbackReason::PeerMisbehaved),
            },
            Stage::Over => Step::Over(FallbackReason::PeerLeft),
        }
    }

    /// True if nobody has come.
    pub(crate) fn is_alone(&self) -> bool {
        match &self.stage {
            Stage::Seeking => true,
            Stage::Waiting { silent, .. } => silent.is_empty(),
            _ => false,
        }
    }

    /// Both ends are on this host, so no interface is between them.
    fn local(&self) -> Local {
        local(&self.config, &self.stack, &Served::by_all(&self.stack))
    }

    fn stay(&mut self, stage: Stage) -> Step {
        self.stage = stage;
        Step::Waiting
    }

    fn advance(&mut self, stage: Stage) -> Step {
        self.stage = stage;
        Step::Progress
    }

    fn seek(&mut self) -> Step {
        match self.rendezvous.meet() {
            Meeting::Met(channel, proof) => self.propose(channel, proof),
            Meeting::Waiting(waiting) => self.advance(Stage::Waiting { waiting, silent: Vec::new() }),
            Meeting::NotNow => self.stay(Stage::Seeking),
            Meeting::Impossible(reason) => Step::Over(reason),
        }
    }

    /// The two ends do not agree on whether there is a link group: the next attempt makes a new one. Or the other has
    /// broken off without a word, as one does that is about to fork: it may come again.
    fn seek_again(&mut self, reason: FallbackReason) -> Step {
        self.rounds += 1;
        if self.rounds < ROUNDS {
            return self.advance(Stage::Seeking);
        }
        Step::Over(reason)
    }

    /// A message could not be sent.
    fn failed(&mut self, error: &io::Error) -> Step {
        match error.kind() {
            io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => {
                self.seek_again(FallbackReason::PeerLeft)
            }
            kind => Step::Over(FallbackReason::SideChannel(kind)),
        }
    }

    fn propose(&mut self, channel: Channel, proof: Proof) -> Step {
        let (proposal, expect) = match client::propose(&self.local(), Instant::now()) {
            Ok(proposed) => proposed,
            Err(decline) => return refuse(&channel, decline, decline.diagnosis),
        };
        if let Err(error) = channel.send(proposal, &[]) {
            return self.failed(&error);
        }
        fault!("promotion-proposed");
        self.advance(Stage::Proposed { channel, proof, expect: Box::new(expect) })
    }

    /// Looks at who has come. Several may have: another process of the peer's user may know the name too.
    fn wait(&mut self, waiting: Waiting, mut silent: Vec<(Channel, Proof)>) -> Step {
        while silent.len() < SILENT {
            let Some(came) = self.rendezvous.accept(&waiting) else { break };
            silent.push(came);
        }
        let mut at = 0;
        while let Some((channel, _)) = silent.get(at) {
            match channel.look() {
                Look::Empty => at += 1,
                // Not the other end, or not any more.
                Look::Closed | Look::Garbage => drop(silent.swap_remove(at)),
                Look::Packet(packet) => {
                    let (channel, proof) = silent.swap_remove(at);
                    fault!("promotion-met");
                    return self.on_proposal(channel, proof, packet.message);
                }
            }
        }
        if silent.len() >= SILENT {
            silent.remove(0);
        }
        self.stay(Stage::Waiting { waiting, silent })
    }

    fn on_proposal(&mut self, channel: Channel, proof: Proof, message: Message) -> Step {
        let expect = ExpectProposal::new(self.local(), Instant::now());
        let offered = match expect.on_message(message) {
            Ok(offered) => offered,
            Err(error) => return ended(&channel, error),
        };
        match self.choose(&offered, proof) {
            Ok((candidate, pair, group, mut own)) => {
                let first_contact = !group.is_confirmed();
                let dmb = own_dmb(&own.dmb);
                let (accept, expect) =
                    offered.accept(&candidate, dmb, first_contact, group.link_id(), Instant::now());
                if let Err(error) = channel.send(accept, &own.fds) {
                    return self.failed(&error);
                }
                // The peer has them; ours would only be in the application's way.
                own.fds.clear();
                fault!("promotion-accepted");
                self.advance(Stage::Accepted { channel, pair, expect: Box::new(expect), group, own })
            }
            Err(code) => refuse(&channel, offered.decline(code), code),
        }
    }

    /// The first candidate whose device hands buffers over, and for which there is one.
    fn choose(
        &self,
        offered: &Offered,
        proof: Proof,
    ) -> Result<(Candidate, Pair, Arc<LinkGroup>, Acquired), DeclineCode> {
        let devices = self.stack.devices();
        let by_hand = |device: usize| devices.get(device).is_some_and(|device| device.supports_handover());
        let candidates = offered.candidates(|device, _, _| by_hand(device))?;
        let mut first_failure = None;
        for candidate in candidates.iter() {
            let pair = pair(candidate.device(), candidate.peer_gid(), proof);
            let Some(group) = self.stack.group(pair) else { continue };
            match group.acquire(self.size()) {
                Ok(own) => return Ok((*candidate, pair, group, own)),
                Err(error) => {
                    tracing::debug!(%error, "no buffer for a candidate");
                    first_failure.get_or_insert(decline_code(&error));
                }
            }
        }
        Err(candidates.decline_code(first_failure.unwrap_or(DeclineCode::INTERNAL)))
    }

    fn on_answer(&mut self, channel: &Channel, proof: Proof, expect: ExpectAccept, packet: Packet) -> Step {
        let accepted = match expect.on_message(packet.message) {
            Ok(accepted) => accepted,
            Err(error) => return ended(channel, error),
        };
        match self.prepare(&accepted, proof, packet.fds) {
            Ok((group, own, outlet)) => {
                let (confirm, agreed) = accepted.confirm(own_dmb(&own.dmb), group.link_id());
                if let Err(error) = channel.send(confirm, &own.fds) {
                    return self.failed(&error);
                }
                fault!("promotion-confirmed");
                group.confirm();
                self.finish(&agreed, &group, own, outlet)
            }
            Err(code) => {
                let refused = refuse(channel, accepted.decline(code), code);
                if code == DeclineCode::SYNC {
                    self.seek_again(FallbackReason::Declined(code))
                } else {
                    refused
                }
            }
        }
    }

    /// Gets what the client needs to confirm: group, own buffer, and the way into the server's buffer.
    fn prepare(
        &self,
        accepted: &Accepted,
        proof: Proof,
        fds: Handed,
    ) -> Result<(Arc<LinkGroup>, Acquired, Outlet), DeclineCode> {
        let pair = pair(accepted.device(), accepted.peer_gid(), proof);
        let group = if accepted.terms().first_contact() {
            self.stack.group(pair).ok_or(DeclineCode::INTERNAL)?
        } else {
            self.stack.confirmed_group(pair).ok_or(DeclineCode::SYNC)?
        };
        let failed = |error: DeviceError| {
            tracing::debug!(%error, "promotion declined");
            decline_code(&error)
        };
        let outlet = outlet(&group, accepted.terms().peer_dmb(), fds).map_err(failed)?;
        let own = group.acquire(self.size()).map_err(failed)?;
        Ok((group, own, outlet))
    }

    fn on_confirm(
        &mut self,
        pair: Pair,
        expect: ExpectConfirm,
        group: &Arc<LinkGroup>,
        own: Acquired,
        packet: Packet,
    ) -> Step {
        match expect.on_message(packet.message) {
            Ok(agreed) => match outlet(group, agreed.terms().peer_dmb(), packet.fds) {
                Ok(outlet) => {
                    group.confirm();
                    fault!("promotion-attached");
                    self.finish(&agreed, group, own, outlet)
                }
                // The peer takes the connection for agreed on; but as long as we do not say that we read, it does not
                // switch.
                Err(error) => {
                    tracing::debug!(%error, "the peer's buffer cannot be used");
                    Step::Over(FallbackReason::PeerMisbehaved)
                }
            },
            Err(HandshakeError::PeerDeclined { out_of_sync: true, diagnosis }) => {
                self.stack.out_of_sync(pair);
                self.seek_again(FallbackReason::Declined(diagnosis))
            }
            Err(error) => reason(&error),
        }
    }

    fn finish(&self, agreed: &Agreed, group: &Arc<LinkGroup>, own: Acquired, outlet: Outlet) -> Step {
        let Some(connection) = join(agreed, own.dmb, outlet) else {
            return Step::Over(FallbackReason::PeerMisbehaved);
        };
        let peer = agreed.terms().peer_gid();
        let established = Established::new(connection, group.clone(), self.stack.clone(), peer);
        Step::Established(Box::new(established))
    }

    fn size(&self) -> DmbeSize {
        DmbeSize::holding(self.config.receive_buffer)
    }
}

/// The two devices, between processes whose users are known.
fn pair(device: usize, peer: Gid, proof: Proof) -> Pair {
    Pair { device, peer, reach: Reach::ByHand(proof.uid) }
}

fn outlet(group: &LinkGroup, peer: PeerDmb, fds: Handed) -> Result<Outlet, DeviceError> {
    group.outlet(peer.token(), peer.index(), peer.size().bytes(), fds)
}

/// Sends a Decline. If it does not arrive, the end of the channel says the same.
fn refuse(channel: &Channel, decline: impl Into<Message>, code: DeclineCode) -> Step {
    let _ = channel.send(decline, &[]);
    Step::Over(FallbackReason::Declined(code))
}

/// Ends a handshake after a message that does not lead on.
fn ended(channel: &Channel, error: HandshakeError) -> Step {
    if let Some(decline) = error.decline() {
        return refuse(channel, *decline, decline.diagnosis);
    }
    reason(&error)
}

fn reason(error: &HandshakeError) -> Step {
    Step::Over(match error {
        HandshakeError::Declined(decline) => FallbackReason::Declined(decline.diagnosis),
        HandshakeError::PeerDeclined { diagnosis, .. } => FallbackReason::PeerDeclined(*diagnosis),
        _ => FallbackReason::PeerMisbehaved,
    })
}
