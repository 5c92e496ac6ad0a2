//! What other devices have sent: links that they opened, and DMBs that nobody has claimed yet.
//!
//! Any process of the host can open a link. So all here is bounded: links, packets read at a time, offers, and with
//! these the descriptors that strangers can make us hold. Whoever takes too much loses its own first.

use std::{
    collections::{HashMap, VecDeque},
    os::fd::OwnedFd,
};

use rustix::process::{Resource, getrlimit};

use super::{
    link::{self, Incoming, Look},
    offer::Offer,
};
use crate::{
    dibs::{DmbToken, Gid},
    unix::{closer, packet::PacketSocket},
};

/// Links that others may hold open to us.
const MAX_LINKS: usize = 1024;

/// Links that one look accepts, and packets that it takes off all links together.
const ACCEPTS: usize = 512;
const PACKETS: usize = 8192;

/// Offers at once, at most; fewer under a low limit of descriptors, of which each holds two.
const MAX_OFFERS: usize = 4096;

/// Number of the link from a device to itself.
const OWN: u64 = 0;

/// See the module.
#[derive(Debug)]
pub(super) struct Inbox {
    listeners: Vec<PacketSocket>,
    links: Vec<IncomingLink>,
    last_link: u64,
    offers: HashMap<(Gid, DmbToken), (u64, Offer)>,
    max_offers: usize,
}

#[derive(Debug)]
struct IncomingLink {
    number: u64,
    socket: PacketSocket,
    gid: Option<Gid>,
    /// What was offered by this link, oldest first; some of it may have been claimed since.
    offered: VecDeque<DmbToken>,
}

impl Inbox {
    pub(super) fn new(listener: PacketSocket) -> Self {
        let descriptors = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
        let max_offers = usize::try_from(descriptors / 8).unwrap_or(usize::MAX).clamp(16, MAX_OFFERS);
        let listeners = vec![listener];
        Self { listeners, links: Vec::new(), last_link: OWN, offers: HashMap::new(), max_offers }
    }

    /// Takes in what comes by this one, too.
    pub(super) fn add_listener(&mut self, listener: PacketSocket) {
        self.listeners.push(listener);
    }

    /// Takes in what has come since the last look.
    pub(super) fn take_in(&mut self) {
        if closer::is_held_up() {
            return;
        }
        let mut packets = PACKETS;
        let mut links = std::mem::take(&mut self.links);
        links.retain_mut(|link| self.read(link, &mut packets));
        for _ in 0..ACCEPTS {
            let Some(socket) = self.listeners.iter().find_map(PacketSocket::accept) else { break };
            self.last_link += 1;
            let mut link =
                IncomingLink { number: self.last_link, socket, gid: None, offered: VecDeque::new() };
            // Who opened it sent something before we could know of it.
            if self.read(&mut link, &mut packets) {
                links.push(link);
            }
            if links.len() > MAX_LINKS {
                // Somebody who has not said who it is, or has nothing to offer, goes first.
                let idle = links.iter().position(|link| link.gid.is_none() || link.offered.is_empty());
                links.swap_remove(idle.unwrap_or(0));
            }
        }
        self.links = links;
    }

    /// Reads what a link holds; false if it has ended.
    fn read(&mut self, link: &mut IncomingLink, packets: &mut usize) -> bool {
        while let Some(left) = packets.checked_sub(1) {
            *packets = left;
            match (link::receive(&link.socket), link.gid) {
                (Look::Packet(Incoming::Hello(gid)), None) => link.gid = Some(gid),
                (Look::Packet(Incoming::Announce(token, offer)), Some(gid)) => {
                    if let Err(fds) = offer.check().and_then(|offer| self.hold(link, gid, token, offer)) {
                        closer::discard(fds);
                        return false;
                    }
                }
                (Look::Empty, _) => return true,
                // An offer outlives its link: what the owner published before it died is still to be read.
                (Look::Closed, _) => return false,
                (Look::Packet(Incoming::Announce(_, offer)), None) => {
                    closer::discard(offer.into_fds());
                    return false;
                }
                (Look::Garbage(fds), _) => {
                    closer::discard(fds);
                    return false;
                }
                (Look::Packet(_), _) => return false,
            }
        }
        true
    }

    fn hold(
        &mut self,
        link: &mut IncomingLink,
        gid: Gid,
        token: DmbToken,
        offer: Offer,
    ) -> Result<(), Vec<OwnedFd>> {
        if self.offers.len() >= self.max_offers {
            self.make_room(link);
        }
        if self.offers.contains_key(&(gid, token)) {
            return Err(offer.into_fds());
        }
        if link.offered.len() > 64 + self.offers.len() * 2 {
            link.offered.retain(|token| self.offers.contains_key(&(gid, *token)));
        }
        link.offered.push_back(token);
        self.offers.insert((gid, token), (link.number, offer));
        Ok(())
    }

    /// Gives up an offer: of an owner that is gone, if there is one; else the oldest of the link that has most.
    fn make_room(&mut self, reading: &mut IncomingLink) {
        let before = self.offers.len();
        self.offers.retain(|_, (_, offer)| !offer.is_withdrawn());
        if self.offers.len() < before {
            return;
        }
        let mut held: HashMap<u64, usize> = HashMap::new();
        for (number, _) in self.offers.values() {
            *held.entry(*number).or_default() += 1;
        }
        let Some((&most, _)) = held.iter().max_by_key(|(_, count)| **count) else { return };
        let links = self.links.iter_mut().chain([reading]);
        if let Some(link) = links.into_iter().find(|link| link.number == most) {
            while let Some(token) = link.offered.pop_front() {
                let key = (link.gid.unwrap_or_default(), token);
                if self.offers.get(&key).is_some_and(|(number, _)| *number == most) {
                    self.offers.remove(&key);
                    return;
                }
            }
        }
        // Of a link that has ended: any of its offers.
        let any = self.offers.iter().find(|(_, (number, _))| *number == most).map(|(key, _)| *key);
        any.map(|key| self.offers.remove(&key));
    }

    /// Holds a DMB that this very device has made for itself.
    pub(super) fn hold_own(&mut self, gid: Gid, token: DmbToken, offer: Offer) {
        self.offers.insert((gid, token), (OWN, offer));
    }

    /// Drops a DMB of our own that nobody has claimed.
    pub(super) fn drop_own(&mut self, gid: Gid, token: DmbToken) {
        self.offers.remove(&(gid, token));
    }

    /// Hands out the offer of this owner, if it still stands.
    pub(super) fn claim(&mut self, owner: Gid, token: DmbToken) -> Option<Offer> {
        let (_, offer) = self.offers.remove(&(owner, token))?;
        (!offer.is_withdrawn()).then_some(offer)
    }

    /// Who has offered the DMB of this token.
    pub(super) fn owner_of(&self, token: DmbToken) -> Option<Gid> {
        self.offers.keys().find(|(_, offered)| *offered == token).map(|(owner, _)| *owner)
    }
}
