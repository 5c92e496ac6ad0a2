//! The client's side of the handshake.

use std::time::Instant;

use super::{
    Agreed, HandshakeError, Local, OwnDmb, Terms, Violation,
    agreed::{DevicePath, gid_of},
    wait::Wait,
};
use crate::{
    clc::{
        DeclineCode,
        wire::{
            Accept, Confirm, Decline, Eid, FEATURE_EMULATED_ISM, FirstContact, Flavours, LinkId, Message,
            MsgType, Proposal, RoceIdentity, SmcdArea, SmcdBody, SmcdV2Extension, UpTo, V1Offer, V2Offer,
            Version,
        },
    },
    dibs::Gid,
};

/// Offers what `local` has. Send the Proposal, then wait for the Accept.
///
/// As Linux 7.3 does, this always sends version 2, lists up to 8 entries of devices with distinct CHIDs, and leaves
/// out version 1 if there are no IP prefixes to go with it.
///
/// # Errors
///
/// The Decline to send in place of the Proposal, after which the connection is TCP:
/// [`CONFIG`](DeclineCode::CONFIG) if only the IP prefixes are missing, [`NO_DEVICE`](DeclineCode::NO_DEVICE) if
/// there is nothing to offer.
pub fn propose(local: &Local, now: Instant) -> Result<(Proposal, ExpectAccept), Decline> {
    let v1_device = local.v1_device();
    let prefixes = local.v1.as_ref().and_then(|v1| v1.prefixes.clone());
    let v1 = v1_device.zip(prefixes);
    if v1.is_none() && !local.speaks_v2() {
        let code = if v1_device.is_some() { DeclineCode::CONFIG } else { DeclineCode::NO_DEVICE };
        return Err(decline(local, code));
    }
    let (v1_device, v1_offer) =
        v1.map(|(device, prefixes)| (device, V1Offer { flavours: Flavours::D, prefixes })).unzip();
    let v1_device_index = v1_device.map(|(index, _)| index);
    let v2 = local.speaks_v2().then(|| list_devices(local, v1_device_index));
    let (extension, listed) = v2.unzip();
    let proposal = Proposal {
        version: Version::V2,
        roce: RoceIdentity::default(),
        smcd: Some(v1_device.map_or_else(SmcdArea::default, |(_, device)| SmcdArea {
            gid: device.gid.high(),
            chid: device.chid,
            ..SmcdArea::default()
        })),
        v1: v1_offer,
        v2: extension.map(|extension| v2_offer(local, extension)),
    };
    let wait = Wait::new(MsgType::Accept, now, local.timeout);
    Ok((proposal, ExpectAccept { local: local.clone(), v1_device: v1_device_index, listed, wait }))
}

/// The Decline by which a client that has not proposed anything refuses SMC, for instance because of
/// [`IPSEC`](DeclineCode::IPSEC).
pub fn decline(local: &Local, code: DeclineCode) -> Decline {
    Decline::new(local.version(), code)
}

/// The devices for version 2, and their indices. A CHID names one device only, since the Accept carries no more.
fn list_devices(local: &Local, v1_device: Option<usize>) -> (SmcdV2Extension, Vec<usize>) {
    let seid = local.seid.map_or(Eid::ZERO, |seid| seid.eid());
    let mut extension = SmcdV2Extension { seid, entries: UpTo::new() };
    let mut listed: Vec<usize> = v1_device.into_iter().collect();
    for (index, device) in local.devices.iter().enumerate() {
        let has_chid = |&i: &usize| local.devices.get(i).is_some_and(|other| other.chid == device.chid);
        // One that does not fit is left out; a smaller one behind it may still fit.
        if !listed.iter().any(has_chid) && extension.push_device(device.gid, device.chid).is_ok() {
            listed.push(index);
        }
    }
    (extension, listed)
}

fn v2_offer(local: &Local, extension: SmcdV2Extension) -> V2Offer {
    V2Offer {
        flavours: Flavours::D,
        release: local.release,
        seid_offered: local.seid.is_some(),
        roce_gid: [0; 16],
        max_conns: 0,
        max_links: 0,
        feature_mask: FEATURE_EMULATED_ISM,
        ueids: UpTo::first_of(local.ueids.iter().map(|ueid| ueid.eid())),
        smcd: Some(extension),
    }
}

/// A client that has sent its Proposal.
#[derive(Debug)]
pub struct ExpectAccept {
    local: Local,
    /// The device offered in version 1.
    v1_device: Option<usize>,
    /// The devices offered in version 2, the one of version 1 included; `None` if version 2 is not offered.
    listed: Option<Vec<usize>>,
    wait: Wait,
}

impl ExpectAccept {
    /// When to call [`ExpectAccept::handle_timeout`].
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

    /// Takes the server's answer.
    ///
    /// # Errors
    ///
    /// - [`HandshakeError::PeerDeclined`] for a Decline.
    /// - [`HandshakeError::Declined`] with [`MODE_UNSUPPORTED`](DeclineCode::MODE_UNSUPPORTED) if the flavour or
    ///   version accepted was not proposed.
    /// - [`HandshakeError::Protocol`] for any other message, a CHID or EID that was not proposed, a DMB element
    ///   above 1 MiB, or a first contact without its extension.
    pub fn on_message(self, message: Message) -> Result<Accepted, HandshakeError> {
        match message {
            Message::Accept(Accept(body)) => self.on_accept(body),
            Message::Smcr(smcr) if smcr.msg_type() == MsgType::Accept => Err(not_proposed(smcr.version())),
            other => Err(self.wait.other(&other)),
        }
    }

    fn on_accept(self, body: SmcdBody) -> Result<Accepted, HandshakeError> {
        let path = self.chosen_path(&body)?;
        let terms = Terms::check(path, &body)?;
        // The client adopts the server's release, and answers with the features in common.
        let own = terms.peer.map(|peer| self.local.first_contact(peer.release, peer.features));
        Ok(Accepted { terms, own })
    }

    /// The device that the server chose.
    fn chosen_path(&self, body: &SmcdBody) -> Result<DevicePath, HandshakeError> {
        let version = body.version();
        let found = match (version, &body.v2) {
            (Version::V1, _) => self.v1_device.ok_or(not_proposed(version))?,
            (Version::V2, Some(v2)) => {
                let listed = self.listed.as_ref().ok_or(not_proposed(version))?;
                let of_chid = |&&i: &&usize| self.local.devices.get(i).is_some_and(|d| d.chid == v2.chid);
                let found = listed.iter().find(of_chid).ok_or(Violation::ChidNotProposed(v2.chid))?;
                if !self.local.has_eid(v2.eid) {
                    return Err(Violation::EidNotProposed(v2.eid).into());
                }
                *found
            }
            // Linux 7.3 is not of one mind about versions above 2; they were not proposed.
            _ => return Err(not_proposed(version)),
        };
        let own = *self.local.devices.get(found).ok_or(not_proposed(version))?;
        let eid = body.v2.map(|v2| v2.eid);
        Ok(DevicePath { device: found, own, peer_gid: gid_of(body.gid, own.chid), eid })
    }
}

/// The client declines an Accept of what it has not proposed, in the version of the Accept.
const fn not_proposed(version: Version) -> HandshakeError {
    HandshakeError::declined(version, DeclineCode::MODE_UNSUPPORTED)
}

/// A client that has received a valid Accept. It now makes or finds the link group and a DMB for the peer, and
/// attaches the peer's DMB where the device can; then it confirms, or declines if one of these fails.
#[derive(Debug)]
pub struct Accepted {
    terms: Terms,
    own: Option<FirstContact>,
}

impl Accepted {
    /// What will be agreed on.
    pub const fn terms(&self) -> &Terms {
        &self.terms
    }

    /// Index of the device in [`Local::devices`].
    pub const fn device(&self) -> usize {
        self.terms.device()
    }

    /// GID of the server's device.
    pub const fn peer_gid(&self) -> Gid {
        self.terms.peer_gid()
    }

    /// Confirms. Once the Confirm is sent the connection is SMC-D, and data may follow at once.
    pub fn confirm(self, dmb: OwnDmb, link_id: LinkId) -> (Confirm, Agreed) {
        let first_contact = self.terms.first_contact;
        let body = self.terms.path.own_body(dmb, link_id, first_contact, self.own);
        (Confirm(body), Agreed { terms: self.terms, own_dmb: dmb })
    }

    /// Declines: [`SYNC`](DeclineCode::SYNC) if this is no first contact but there is no link group,
    /// [`NO_FREE_DMB`](DeclineCode::NO_FREE_DMB) or [`MEMORY`](DeclineCode::MEMORY) if the DMB cannot be had or
    /// the peer's not attached, [`INTERNAL`](DeclineCode::INTERNAL) if there is no new link group.
    pub fn decline(self, code: DeclineCode) -> Decline {
        Decline::new(self.terms.version(), code)
    }
}
