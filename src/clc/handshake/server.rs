//! The server's side of the handshake.

use std::time::Instant;

use super::{
    Agreed, HandshakeError, Local, LocalDevice, OwnDmb, Terms, Violation, Vlan,
    agreed::{DevicePath, gid_of},
    wait::Wait,
};
use crate::{
    clc::{
        DeclineCode,
        wire::{
            Accept, Confirm, Decline, Eid, FEATURE_EMULATED_ISM, LinkId, Message, MsgType, Proposal, Release,
            SmcdBody, SmcdV2Extension, V2Offer, Version,
        },
    },
    dibs::{Chid, Gid, VlanId},
};

/// A server on a new connection: the client speaks first.
#[derive(Debug)]
pub struct ExpectProposal {
    local: Local,
    wait: Wait,
}

impl ExpectProposal {
    /// Starts to wait.
    pub fn new(local: Local, now: Instant) -> Self {
        let wait = Wait::new(MsgType::Proposal, now, local.timeout);
        Self { local, wait }
    }

    /// When to call [`ExpectProposal::handle_timeout`].
    pub const fn deadline(&self) -> Instant {
        self.wait.deadline
    }

    /// Tells the time.
    ///
    /// # Errors
    ///
    /// [`HandshakeError::TimedOut`] from the deadline on; earlier calls do nothing.
    pub fn handle_timeout(&self, now: Instant) -> Result<(), HandshakeError> {
        self.wait.handle_timeout(now)
    }

    /// Takes the first message. A client without devices sends a Decline.
    ///
    /// # Errors
    ///
    /// - [`HandshakeError::PeerDeclined`] for a Decline.
    /// - [`HandshakeError::Declined`] if nothing that the client offers can be considered. The last flavour
    ///   dropped gives the diagnosis: [`NO_ISM_V2`](DeclineCode::NO_ISM_V2),
    ///   [`NO_SMCD_V2_EXTENSION`](DeclineCode::NO_SMCD_V2_EXTENSION), [`NO_UEID`](DeclineCode::NO_UEID), or
    ///   [`PEER_NO_SMC`](DeclineCode::PEER_NO_SMC) if nothing is offered.
    /// - [`HandshakeError::Protocol`] for any other message.
    pub fn on_message(self, message: Message) -> Result<Offered, HandshakeError> {
        let Message::Proposal(proposal) = message else { return Err(self.wait.other(&message)) };
        let (smcd_v2, smcr_v2) = v2_flavours(&self.local, proposal.v2.as_ref());
        let smcr = smcr_v2.is_ok() || proposal.v1.as_ref().is_some_and(|v1| v1.flavours.has_r());
        if proposal.v1.is_none() && smcd_v2.is_err() && smcr_v2.is_err() {
            let last = smcr_v2.err().flatten().or(smcd_v2.err().flatten());
            let code = last.unwrap_or(DeclineCode::PEER_NO_SMC);
            return Err(HandshakeError::declined(proposal.version.answer(), code));
        }
        Ok(Offered { local: self.local, smcd_v2: smcd_v2.is_ok(), smcr, proposal })
    }

    /// Refuses SMC without having seen a Proposal.
    pub fn decline(self, code: DeclineCode) -> Decline {
        Decline::new(Version::V1, code)
    }
}

/// A flavour of version 2: usable, or not because it was not offered (`None`) or has to be declined.
type Flavour = Result<(), Option<DeclineCode>>;

/// Which flavours of version 2 can be considered: SMC-D, SMC-R.
fn v2_flavours(local: &Local, offer: Option<&V2Offer>) -> (Flavour, Flavour) {
    let Some(offer) = offer else { return (Err(None), Err(None)) };
    let check = |offered: bool, usable: Result<(), DeclineCode>| match usable {
        _ if !offered => Err(None),
        usable => usable.map_err(Some),
    };
    let smcr = if offer.ueids.is_empty() { Err(DeclineCode::NO_UEID) } else { Ok(()) };
    (check(offer.flavours.has_d(), smcd_v2(local, offer)), check(offer.flavours.has_r(), smcr))
}

/// Whether SMC-D v2 can be considered, by the checks of Linux 7.3 in their order.
fn smcd_v2(local: &Local, offer: &V2Offer) -> Result<(), DeclineCode> {
    if !local.speaks_v2() {
        Err(DeclineCode::NO_ISM_V2)
    } else if offer.smcd.is_none() {
        Err(DeclineCode::NO_SMCD_V2_EXTENSION)
    } else if offer.ueids.is_empty() && !offer.seid_offered {
        Err(DeclineCode::NO_UEID)
    } else {
        Ok(())
    }
}

/// A server that has received a Proposal with something to consider.
#[derive(Debug)]
pub struct Offered {
    local: Local,
    proposal: Proposal,
    smcd_v2: bool,
    /// SMC-R is among what is left. It makes no difference but for the diagnosis.
    smcr: bool,
}

/// A way to connect: a device of the server that reaches a device of the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Candidate {
    path: DevicePath,
    /// CHID in the Proposal, which a Confirm of version 2 must repeat.
    chid: Chid,
}

impl Candidate {
    /// Index of the server's device in [`Local::devices`].
    pub const fn device(&self) -> usize {
        self.path.device
    }

    /// GID of the client's device.
    pub const fn peer_gid(&self) -> Gid {
        self.path.peer_gid
    }

    /// Version 1 or 2.
    pub const fn version(&self) -> Version {
        self.path.version()
    }

    /// The EID in common; `None` in version 1.
    pub const fn eid(&self) -> Option<Eid> {
        self.path.eid
    }
}

/// The ways to connect, in the order to try them. There is at least one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidates {
    list: Vec<Candidate>,
    /// The diagnosis of what failed before the first candidate of version 1 came up.
    remembered: Option<DeclineCode>,
}

impl Candidates {
    /// The candidates, version 2 before version 1, in the client's order of preference.
    pub fn iter(&self) -> impl Iterator<Item = &Candidate> {
        self.list.iter()
    }

    /// The diagnosis to decline with, once all candidates have failed, the first of them with `first_failure`.
    /// Linux 7.3 remembers the first failure of all, and that may lie before the first candidate.
    pub fn decline_code(&self, first_failure: DeclineCode) -> DeclineCode {
        match self.list.first() {
            Some(first) if first.version().is_v1() => self.remembered.unwrap_or(first_failure),
            _ => first_failure,
        }
    }
}

impl Offered {
    /// The client's Proposal.
    pub const fn proposal(&self) -> &Proposal {
        &self.proposal
    }

    /// The ways to connect. Try them in order: get a link group and a DMB for one, then
    /// [`accept`](Offered::accept) it. If all fail, decline with [`Candidates::decline_code`].
    ///
    /// `reachable` tells whether the local device with this index reaches this GID in this VLAN, as the device's
    /// `query_remote_gid` does. For version 2, the VLAN is [`VlanId::ISM_V2`].
    ///
    /// # Errors
    ///
    /// The diagnosis to decline with if there is no way: the first thing that went wrong of
    /// [`NO_SMCD_V2_DEVICE`](DeclineCode::NO_SMCD_V2_DEVICE),
    /// [`PREFIX_MISMATCH`](DeclineCode::PREFIX_MISMATCH), [`VLAN_UNKNOWN`](DeclineCode::VLAN_UNKNOWN) and
    /// [`VLAN_REGISTRATION`](DeclineCode::VLAN_REGISTRATION), else
    /// [`NO_SMCD_DEVICE`](DeclineCode::NO_SMCD_DEVICE) or, if SMC-R is offered as well,
    /// [`NO_SMCR_DEVICE`](DeclineCode::NO_SMCR_DEVICE). As in Linux 7.3, the lack of a common EID is none of
    /// these, and so ends in one of the last two.
    pub fn candidates(
        &self,
        mut reachable: impl FnMut(usize, Gid, Option<VlanId>) -> bool,
    ) -> Result<Candidates, DeclineCode> {
        let (mut list, mut remembered) = match self.v2_candidates(&mut reachable) {
            Ok(list) => (list, None),
            Err(code) => (Vec::new(), code),
        };
        let no_device = if self.smcr { DeclineCode::NO_SMCR_DEVICE } else { DeclineCode::NO_SMCD_DEVICE };
        let in_subnet = self.check_prefixes();
        remembered = remembered.or(in_subnet.err());
        let last = match self.local.vlan {
            Vlan::Unknown => DeclineCode::VLAN_UNKNOWN,
            Vlan::Refused if self.offers_v1() => DeclineCode::VLAN_REGISTRATION,
            Vlan::Untagged | Vlan::Id(_) | Vlan::Refused => no_device,
        };
        if in_subnet.is_ok() {
            list.extend(self.v1_candidate(&mut reachable));
        }
        if list.is_empty() { Err(remembered.unwrap_or(last)) } else { Ok(Candidates { list, remembered }) }
    }

    /// The candidates of version 2. None is an error, with or without something to remember.
    fn v2_candidates(
        &self,
        reachable: &mut impl FnMut(usize, Gid, Option<VlanId>) -> bool,
    ) -> Result<Vec<Candidate>, Option<DeclineCode>> {
        let offer = self.proposal.v2.as_ref().filter(|_| self.smcd_v2).ok_or(None)?;
        let extension = offer.smcd.as_ref().ok_or(None)?;
        let mut found: Vec<(usize, LocalDevice, Gid)> = Vec::new();
        for (gid, chid) in self.v2_devices(extension) {
            let mut reaching = self.local.devices.iter().enumerate().filter(|(index, device)| {
                let unused = !found.iter().any(|(used, ..)| used == index);
                unused && device.chid == chid && reachable(*index, gid, Some(VlanId::ISM_V2))
            });
            if let Some((index, device)) = reaching.next() {
                found.push((index, *device, gid));
            }
        }
        if found.is_empty() {
            return Err(Some(DeclineCode::NO_SMCD_V2_DEVICE));
        }
        let eid = self.common_eid(offer, extension).ok_or(None)?;
        let candidate = |(device, own, peer_gid): (usize, LocalDevice, Gid)| Candidate {
            path: DevicePath { device, own, peer_gid, eid: Some(eid) },
            chid: own.chid,
        };
        Ok(found.into_iter().map(candidate).collect())
    }

    /// The client's devices for version 2. The one of version 1 comes first, and is not listed again.
    fn v2_devices(&self, extension: &SmcdV2Extension) -> Vec<(Gid, Chid)> {
        let native = self.proposal.smcd.filter(|area| area.chid != Chid(0));
        let native = native.map(|area| (Gid::from_halves(area.gid, 0), area.chid));
        native.into_iter().chain(extension.devices()).collect()
    }

    /// The SEID if both sides offer it, else the first UEID in the client's order that this host has too.
    fn common_eid(&self, offer: &V2Offer, extension: &SmcdV2Extension) -> Option<Eid> {
        let seid = self.local.seid.map(|seid| seid.eid());
        let seid = seid.filter(|&seid| offer.seid_offered && extension.seid == seid);
        seid.or_else(|| offer.ueids.iter().copied().find(|&ueid| self.local.has_ueid(ueid)))
    }

    fn offers_v1(&self) -> bool {
        self.proposal.v1.as_ref().is_some_and(|v1| v1.flavours.has_d())
    }

    /// Whether version 1 may be considered. Nothing to check if it is not offered, or there is no device for it.
    fn check_prefixes(&self) -> Result<(), DeclineCode> {
        let (Some(offer), Some(v1)) = (&self.proposal.v1, &self.local.v1) else { return Ok(()) };
        let serve = v1.prefixes.as_ref().is_some_and(|ours| ours.serve(&offer.prefixes));
        if serve { Ok(()) } else { Err(DeclineCode::PREFIX_MISMATCH) }
    }

    fn v1_candidate(
        &self,
        reachable: &mut impl FnMut(usize, Gid, Option<VlanId>) -> bool,
    ) -> Option<Candidate> {
        let area = self.proposal.smcd.filter(|_| self.offers_v1())?;
        let (device, own) = self.local.v1_device()?;
        let peer_gid = Gid::from_halves(area.gid, 0);
        let vlan = match self.local.vlan {
            Vlan::Untagged => None,
            Vlan::Id(id) => Some(id),
            Vlan::Unknown | Vlan::Refused => return None,
        };
        let path = DevicePath { device, own, peer_gid, eid: None };
        reachable(device, peer_gid, vlan).then_some(Candidate { path, chid: area.chid })
    }

    /// Accepts one of the [candidates](Offered::candidates). Send the Accept, then wait for the Confirm.
    ///
    /// `dmb` must be live by now: the client may write to it before the Confirm is read. `first_contact` says that
    /// a new link group was made for this connection.
    pub fn accept(
        self,
        candidate: &Candidate,
        dmb: OwnDmb,
        first_contact: bool,
        link_id: LinkId,
        now: Instant,
    ) -> (Accept, ExpectConfirm) {
        let offered = self.proposal.v2.as_ref().map_or(Release::R0, |v2| v2.release);
        let release = offered.min(self.local.release);
        let own = first_contact.then(|| self.local.first_contact(release, FEATURE_EMULATED_ISM));
        let body = candidate.path.own_body(dmb, link_id, first_contact, own);
        let wait = Wait::new(MsgType::Confirm, now, self.local.timeout);
        let expect = ExpectConfirm { candidate: *candidate, own_dmb: dmb, first_contact, release, wait };
        (Accept(body), expect)
    }

    /// Declines, in the version of the Proposal: with the diagnosis of [`candidates`](Offered::candidates) or
    /// [`Candidates::decline_code`], or for instance [`IPSEC`](DeclineCode::IPSEC).
    pub fn decline(self, code: DeclineCode) -> Decline {
        Decline::new(self.proposal.version.answer(), code)
    }
}

/// A server that has sent its Accept.
#[derive(Debug)]
pub struct ExpectConfirm {
    candidate: Candidate,
    own_dmb: OwnDmb,
    first_contact: bool,
    release: Release,
    wait: Wait,
}

impl ExpectConfirm {
    /// When to call [`ExpectConfirm::handle_timeout`].
    pub const fn deadline(&self) -> Instant {
        self.wait.deadline
    }

    /// Tells the time.
    ///
    /// # Errors
    ///
    /// [`HandshakeError::TimedOut`] from the deadline on; earlier calls do nothing.
    pub fn handle_timeout(&self, now: Instant) -> Result<(), HandshakeError> {
        self.wait.handle_timeout(now)
    }

    /// Takes the client's answer.
    ///
    /// # Errors
    ///
    /// - [`HandshakeError::PeerDeclined`] for a Decline; the client has found no link group if it is out of sync.
    /// - [`HandshakeError::Declined`] with [`RELEASE`](DeclineCode::RELEASE) if the client repeats another
    ///   release. A Linux client does not see this Decline: it has begun to use SMC-D.
    /// - [`HandshakeError::Protocol`] for any other message; for another version, device or EID than accepted; for
    ///   a DMB element above 1 MiB, or a first contact without its extension.
    pub fn on_message(self, message: Message) -> Result<Agreed, HandshakeError> {
        let Message::Confirm(Confirm(body)) = message else { return Err(self.wait.other(&message)) };
        self.check_identity(&body)?;
        let terms = Terms::check(self.candidate.path, &body)?;
        if terms.peer.is_some_and(|peer| peer.release != self.release) {
            return Err(HandshakeError::declined(self.candidate.version(), DeclineCode::RELEASE));
        }
        // Whether the link group is new is for the server to say.
        let terms = Terms { first_contact: self.first_contact, ..terms };
        Ok(Agreed { terms, own_dmb: self.own_dmb })
    }

    /// The Confirm must come from where the Proposal came. Linux 7.3 does not check this.
    fn check_identity(&self, body: &SmcdBody) -> Result<(), Violation> {
        let Candidate { path, chid } = self.candidate;
        let (accepted, got) = (path.version(), body.version());
        if got != accepted {
            return Err(Violation::Version { accepted, got });
        }
        let got_chid = body.v2.map_or(chid, |v2| v2.chid);
        let got = gid_of(body.gid, got_chid);
        if got != path.peer_gid || got_chid != chid {
            return Err(Violation::Device { accepted: path.peer_gid, accepted_chid: chid, got, got_chid });
        }
        match (path.eid, body.v2) {
            (Some(accepted), Some(v2)) if v2.eid != accepted => Err(Violation::Eid { accepted, got: v2.eid }),
            _ => Ok(()),
        }
    }
}
