//! What two endpoints have agreed on.

use super::{LocalDevice, Violation};
use crate::{
    clc::wire::{
        DmbeSize, Eid, FEATURE_EMULATED_ISM, FirstContact, Hostname, LinkId, Os, Release, SmcdBody,
        SmcdBodyV2, Version,
    },
    dibs::{Chid, DmbToken, Gid},
};

/// The DMB into which this side receives, as it tells the peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OwnDmb {
    /// Token of the DMB, registered for the peer's GID.
    pub token: DmbToken,
    /// Size of the connection's element; at most [`DmbeSize::MAX`], or peers will refuse it.
    pub size: DmbeSize,
    /// Index of the element in the DMB; 0 if the DMB serves one connection.
    pub index: u8,
}

/// The DMB into which the peer receives, as far as that can be checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PeerDmb {
    token: DmbToken,
    size: DmbeSize,
    index: u8,
}

impl PeerDmb {
    /// Token of the DMB.
    pub const fn token(&self) -> DmbToken {
        self.token
    }

    /// Size of the connection's element; at most [`DmbeSize::MAX`].
    pub const fn size(&self) -> DmbeSize {
        self.size
    }

    /// Index of the element in the DMB. The element starts at index times size bytes.
    pub const fn index(&self) -> u8 {
        self.index
    }
}

/// What a peer tells about itself on first contact.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PeerInfo {
    /// Operating system.
    pub os: Os,
    /// The negotiated release.
    pub release: Release,
    /// Name of the host; `None` unless it is ASCII.
    pub hostname: Option<Hostname>,
    /// Features that both sides know, see [`FEATURE_EMULATED_ISM`]. None in release 0.
    pub features: u16,
}

impl From<FirstContact> for PeerInfo {
    fn from(extension: FirstContact) -> Self {
        Self {
            os: extension.os,
            release: extension.release,
            hostname: Some(extension.hostname).filter(Hostname::is_ascii),
            features: extension.v2x.map_or(0, |v2x| v2x.feature_mask & FEATURE_EMULATED_ISM),
        }
    }
}

/// What the two sides agree on, all of it checked. Only the states of a handshake make one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terms {
    pub(super) path: DevicePath,
    pub(super) first_contact: bool,
    pub(super) peer_dmb: PeerDmb,
    pub(super) peer: Option<PeerInfo>,
}

/// The pair of devices, and the version and EID under which it was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct DevicePath {
    pub(super) device: usize,
    pub(super) own: LocalDevice,
    pub(super) peer_gid: Gid,
    /// The EID of version 2; `None` is version 1.
    pub(super) eid: Option<Eid>,
}

impl DevicePath {
    pub(super) const fn version(&self) -> Version {
        if self.eid.is_some() { Version::V2 } else { Version::V1 }
    }

    /// The message of this side. `extension` goes along in version 2.
    pub(super) fn own_body(
        &self,
        dmb: OwnDmb,
        link_id: LinkId,
        first_contact: bool,
        extension: Option<FirstContact>,
    ) -> SmcdBody {
        let LocalDevice { gid, chid } = self.own;
        SmcdBody {
            gid: gid_of(gid, chid),
            token: dmb.token,
            dmbe_idx: dmb.index,
            dmbe_size: dmb.size,
            link_id,
            first_contact,
            v2: self.eid.map(|eid| SmcdBodyV2 { version: Version::V2, chid, eid, extension }),
        }
    }
}

/// The GID that counts: outside emulated fabrics, bytes 8-15 mean nothing.
pub(super) fn gid_of(gid: Gid, chid: Chid) -> Gid {
    if chid.is_emulated() { gid } else { Gid::from_halves(gid.high(), 0) }
}

impl Terms {
    /// Takes from the peer's message what can be checked without knowing what was offered.
    ///
    /// The first contact extension must be there if the flag says so: Linux 7.3 trusts the flag and would read it
    /// out of whatever follows. Without the flag, further bytes are let pass, as they may belong to a later
    /// release.
    pub(super) fn check(path: DevicePath, body: &SmcdBody) -> Result<Self, Violation> {
        if body.dmbe_size > DmbeSize::MAX {
            return Err(Violation::DmbeSize(body.dmbe_size.code()));
        }
        let extension = body.v2.and_then(|v2| v2.extension);
        let complete = extension.is_some_and(|e| e.release < Release::R1 || e.v2x.is_some());
        if body.first_contact && body.v2.is_some() && !complete {
            return Err(Violation::FirstContactExtension);
        }
        let peer_dmb = PeerDmb { token: body.token, size: body.dmbe_size, index: body.dmbe_idx };
        let peer = extension.map(PeerInfo::from);
        Ok(Self { path, first_contact: body.first_contact, peer_dmb, peer })
    }

    /// Index of this side's device in [`Local::devices`](super::Local::devices).
    pub const fn device(&self) -> usize {
        self.path.device
    }

    /// Version 1 or 2.
    pub const fn version(&self) -> Version {
        self.path.version()
    }

    /// GID of the peer's device.
    pub const fn peer_gid(&self) -> Gid {
        self.path.peer_gid
    }

    /// The EID in common; `None` in version 1.
    pub const fn eid(&self) -> Option<Eid> {
        self.path.eid
    }

    /// The DMB into which the peer receives.
    pub const fn peer_dmb(&self) -> PeerDmb {
        self.peer_dmb
    }

    /// True if the server made a new link group for this connection; the client then makes one too.
    pub const fn first_contact(&self) -> bool {
        self.first_contact
    }

    /// What the peer tells about itself; `None` in version 1, and if a link group is used again.
    pub const fn peer(&self) -> Option<&PeerInfo> {
        self.peer.as_ref()
    }
}

/// A handshake that led to SMC-D.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Agreed {
    pub(super) terms: Terms,
    pub(super) own_dmb: OwnDmb,
}

impl Agreed {
    /// What was agreed on.
    pub const fn terms(&self) -> &Terms {
        &self.terms
    }

    /// The DMB that was promised to the peer.
    pub const fn own_dmb(&self) -> OwnDmb {
        self.own_dmb
    }
}
